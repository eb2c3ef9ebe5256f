"""Losses, number formats, compilation, export, Trainer and PEFT, on a tiny network."""

import itertools
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC
from tiny_models import TWO_BLOCKS, tiny_config

VOCABULARY = 6
BLANK = VOCABULARY - 1
MELS = 8
UNKNOWN = -100
HEADS = ["ctc_head", "emotion", "gender"]

# Transformers 5.23 has other names for it, which those before it lack.
pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")


class FrozenBatchNorm(CitrinetForCTC):
    """Batch normalisation stays in evaluation, so that an utterance trains the same in any batch."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self


def make_model(model_class=CitrinetForCTC, seed=0, **config):
    """A network whose adapters and statistics are not the neutral ones of a new one."""
    torch.manual_seed(seed)
    model = model_class(tiny_config(vocab_size=VOCABULARY, num_mel_bins=MELS, **config))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) if "running_var" in name else 0.1 * torch.randn_like(tensor))
    return model.eval()


def make_batch(frames=(64, 48), labels=((0, 1, 1), (2,)), emotions=(0, 2), genders=(1, 0)):
    """Random features and the given labels, padded as a collator pads them."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, MELS, generator=generator) for n in frames]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_features": pad(features, batch_first=True),
        "attention_mask": pad([torch.ones(n, dtype=torch.long) for n in frames], batch_first=True),
        "labels": pad([torch.tensor(row) for row in labels], batch_first=True, padding_value=UNKNOWN),
        "tag_labels": {"emotion": torch.tensor(emotions), "gender": torch.tensor(genders)},
    }


def audio_of(batch):
    return {name: batch[name] for name in ("input_features", "attention_mask")}


def gradients(model, **inputs):
    """Loss and the gradient of every weight that has one."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def assert_same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


# The losses


def ctc_by_enumeration(logits, labels):
    """Minus the logarithm of the summed probability of all paths that collapse to the labels: (T, V) and (L,)."""
    log_probabilities = logits.double().log_softmax(-1).tolist()
    total = 0.0
    for path in itertools.product(range(VOCABULARY), repeat=len(log_probabilities)):
        if [token for token, _ in itertools.groupby(path) if token != BLANK] == list(labels):
            total += math.exp(sum(frame[token] for frame, token in zip(log_probabilities, path, strict=True)))
    return -math.log(total)


def cross_entropy(logits, target):
    return -logits.detach().double().log_softmax(-1)[target].item()


@pytest.mark.parametrize("reduction", ["mean_batch", "mean", "sum"])
def test_loss_is_ctc_plus_weighted_mean_of_cross_entropies(reduction):
    model = make_model(ctc_loss_reduction=reduction, tag_loss_weight=0.3)
    labels, emotions, genders = ((0, 1, 1), (2,)), (0, 2), (1, 0)
    frames = (40, 25)  # five and four frames of logits, the last of the second being padding
    output = model(**make_batch(frames, labels, emotions, genders))
    encoded = output.last_hidden_state
    logits = model.ctc_head(encoded)  # in evaluation the output says blank at padded frames
    assert output.attention_mask.sum(1).tolist() == [5, 4]

    ctc = [ctc_by_enumeration(logits[i, :n], labels[i]) for i, n in enumerate((5, 4))]
    expected = {"sum": sum(ctc), "mean_batch": sum(ctc) / 2, "mean": (ctc[0] / 3 + ctc[1] / 1) / 2}[reduction]
    emotion = sum(cross_entropy(output.tag_logits["emotion"][i], emotions[i]) for i in range(2)) / 2
    gender = sum(cross_entropy(output.tag_logits["gender"][i], genders[i]) for i in range(2)) / 2
    assert output.loss.item() == pytest.approx(expected + 0.3 * (emotion + gender) / 2, rel=1e-5)
    assert model(**make_batch(frames, labels) | {"tag_labels": None}).loss.item() == pytest.approx(expected, rel=1e-5)


def test_tags_are_classified_from_the_mean_of_valid_frames():
    model = make_model()
    output = model(**make_batch((64, 41)))
    for item, frames in enumerate((8, 6)):
        mean = output.last_hidden_state[item, :frames].mean(0)
        for category, head in model.tag_heads.items():
            torch.testing.assert_close(output.tag_logits[category][item], head(mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [UNKNOWN, -1, BLANK])
def test_padding_of_labels_does_not_count(padding):
    model = make_model()
    batch = make_batch() | {"tag_labels": None}
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == UNKNOWN, padding)
    assert (batch["labels"] == padding).any()
    items = [{name: tensor[i : i + 1] for name, tensor in audio_of(batch).items()} for i in range(2)]
    alone = [model(**item, labels=torch.tensor([row])).loss for item, row in zip(items, ([0, 1, 1], [2]), strict=True)]
    torch.testing.assert_close(model(**batch).loss, sum(alone) / 2)


def test_unknown_tags_do_not_count():
    model = make_model()
    output = model(**make_batch(emotions=(UNKNOWN, 2), genders=(1, -1)) | {"labels": None})
    known = cross_entropy(output.tag_logits["emotion"][1], 2), cross_entropy(output.tag_logits["gender"][0], 1)
    assert output.loss.item() == pytest.approx(0.1 * sum(known) / 2, rel=1e-5)


def test_absent_and_wholly_unknown_categories():
    model = make_model()
    emotion = make_batch()["tag_labels"]["emotion"]
    both = make_batch() | {"labels": None}
    alone = model(**both | {"tag_labels": {"emotion": emotion}}).loss
    unknown = {"emotion": emotion, "gender": torch.tensor([UNKNOWN, UNKNOWN])}
    loss, grads = gradients(model, **both | {"tag_labels": unknown})
    torch.testing.assert_close(loss, alone / 2)  # a category without a known label counts as zero
    assert not grads["tag_heads.gender.weight"].any()
    assert grads["tag_heads.emotion.weight"].any()


@pytest.mark.parametrize("label", [VOCABULARY, VOCABULARY + 10])
def test_label_outside_the_vocabulary(label):
    with pytest.raises(ValueError, match=f"label {label} is outside the vocabulary of {VOCABULARY}"):
        make_model()(**make_batch(labels=((0, label), (1,))))


def test_unknown_category():
    with pytest.raises(ValueError, match="'age'"):
        make_model()(**make_batch() | {"tag_labels": {"age": torch.tensor([0, 0])}})


def test_utterance_too_short_for_its_labels():
    batch = make_batch(frames=(8, 64), labels=((0, 1, 2), (2,))) | {"tag_labels": None}
    loss, grads = gradients(make_model(), **batch)
    assert loss > 0
    assert all(grad.isfinite().all() for grad in grads.values())
    assert make_model(ctc_zero_infinity=False)(**batch).loss == math.inf


def test_every_weight_gets_a_gradient():
    model = make_model()
    grads = gradients(model, **make_batch())[1]
    assert {name for name, _ in model.named_parameters()} == {name for name, grad in grads.items() if grad.any()}


# How it is computed


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(use_reentrant):
    """Dropout and the random window of the squeeze-excitation are the same the second time."""
    model = make_model(FrozenBatchNorm, se_context_size=5).train()
    runs = []
    model.model.blocks[0].convs[0].register_forward_pre_hook(lambda *_: runs.append(1))
    loss, plain = gradients(model, **make_batch())
    assert len(runs) == 1
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    checkpointed_loss, checkpointed = gradients(model, **make_batch())
    assert len(runs) == 3
    torch.testing.assert_close(checkpointed_loss, loss)
    assert_same(checkpointed, plain)


def test_gradient_checkpointing_leaves_a_frozen_encoder_alone():
    """Nobody needs gradients of its hidden states, and keeping them would cost a backward pass through it."""
    model = make_model().train()
    model.model.requires_grad_(False)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert not model(**make_batch()).last_hidden_state.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Long and loud enough for a sum over frames to leave the range of float16."""
    model = make_model()
    batch = make_batch(frames=(6400, 3200))
    batch["input_features"] += 20
    expected = model(**batch)
    output = model.to(dtype)(**batch)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    assert all(tensor.isfinite().all() for tensor in (output.logits, output.loss, *output.tag_logits.values()))
    ours, theirs = (o.logits[o.attention_mask].float().softmax(-1) for o in (output, expected))
    assert (ours - theirs).abs().mean() < (1e-3 if dtype == torch.float16 else 1e-2)
    assert (output.logits[~output.attention_mask].argmax(-1) == BLANK).all()


def test_autocast():
    model, batch = make_model().train(), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss, grads = gradients(model, **batch)
    assert all(grad.isfinite().all() for grad in grads.values())
    torch.testing.assert_close(loss, gradients(model, **batch)[0], rtol=5e-2, atol=5e-2)


@pytest.mark.slow
def test_compiled_inference():
    """Traced as a whole, for any shape; what a backend makes of that is its own business."""
    model = make_model(**TWO_BLOCKS)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for frames in ((64, 48), (81, 33, 50)):
            inputs = audio_of(make_batch(frames))
            expected, output = model(**inputs), compiled(**inputs)
            torch.testing.assert_close(output.logits, expected.logits)
            assert_same(output.tag_logits, expected.tag_logits)


@pytest.mark.slow
def test_compiled_training():
    model = make_model(FrozenBatchNorm, **TWO_BLOCKS | {"dropouts": [0.0, 0.0]}).train()
    loss, grads = gradients(model, **make_batch())
    torch.compiler.reset()
    compiled_loss, compiled_grads = gradients(torch.compile(model, backend="aot_eager"), **make_batch())
    torch.testing.assert_close(compiled_loss, loss)
    assert_same({name.removeprefix("_orig_mod."): grad for name, grad in compiled_grads.items()}, grads)


@pytest.mark.slow
def test_export_with_dynamic_batch_and_time():
    """Also to lengths that leave another remainder at every stride than the one it was exported with."""
    model = make_model()
    inputs = audio_of(make_batch((64, 48)))
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    program = torch.export.export(model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, sizes)).module()
    for frames in ((64, 48), (83, 20, 47), (77,), (50, 49), (200,) * 20):
        inputs = audio_of(make_batch(frames))
        output, expected = program(**inputs), model(**inputs)
        torch.testing.assert_close(output.logits, expected.logits)
        assert_same(output.tag_logits, expected.tag_logits)


# Trainer


def make_data(count=12):
    rng = np.random.default_rng(0)
    return [
        {
            "input_features": rng.standard_normal((int(rng.integers(40, 80)), MELS)).astype(np.float32),
            "labels": rng.integers(0, BLANK, 2).tolist(),
            "emotion": int(rng.integers(3)),
            "gender": int(rng.integers(2)),
        }
        for _ in range(count)
    ]


def collate(items):
    extractor = CitrinetFeatureExtractor(feature_size=MELS)
    batch = extractor.pad({"input_features": [item["input_features"] for item in items]}, return_tensors="pt")
    tags = {category: torch.tensor([item[category] for item in items]) for category in ("emotion", "gender")}
    return {**batch, "labels": torch.tensor([item["labels"] for item in items]), "tag_labels": tags}


def make_trainer(model, folder, **arguments):
    defaults = {
        "output_dir": str(folder),
        "max_steps": 4,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    arguments = TrainingArguments(**defaults | arguments)
    return Trainer(model=model, args=arguments, train_dataset=make_data(), data_collator=collate)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_gradient_accumulation(tmp_path):
    """
    Two batches of two train like one of four: with plain gradient descent and no clipping, which show the gradients'
    size; without dropout and batch statistics, which depend on the batch.
    """
    trainers = []
    for steps in (1, 2):
        model = make_model(FrozenBatchNorm, dropouts=[0.0] * 4)
        batch = {"per_device_train_batch_size": 4 // steps, "gradient_accumulation_steps": steps}
        trainers.append(make_trainer(model, tmp_path, optim="sgd", max_grad_norm=0, **batch))
        trainers[-1].train()
    assert losses(trainers[1]) == pytest.approx(losses(trainers[0]), rel=1e-4)
    whole, accumulated = (trainer.model.state_dict() for trainer in trainers)
    assert_same(accumulated, whole, rtol=1e-4, atol=1e-6)
    start = make_model(FrozenBatchNorm, dropouts=[0.0] * 4).state_dict()
    assert (whole["ctc_head.weight"] - start["ctc_head.weight"]).abs().max() > 1e-4


@pytest.mark.slow
def test_resuming_is_as_if_never_interrupted(tmp_path):
    """To the last bit, with dropout, batch statistics, a random window and a schedule."""
    arguments = {"per_device_train_batch_size": 2, "lr_scheduler_type": "linear", "save_strategy": "steps"}
    whole = make_trainer(make_model(se_context_size=5), tmp_path, save_steps=2, **arguments)
    whole.train()
    resumed = make_trainer(make_model(se_context_size=5, seed=1), tmp_path / "resumed", save_steps=2, **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 4
    assert_same(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    halfway = CitrinetForCTC.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    end = CitrinetForCTC.from_pretrained(tmp_path / "checkpoint-4").state_dict()
    assert_same(end, whole.model.state_dict(), rtol=0, atol=0)
    assert not all(torch.equal(halfway[name], end[name]) for name in end)


# PEFT


def add_lora(model):
    """LoRA on the pointwise products, which are linear layers; the heads are small and train whole."""
    return get_peft_model(model, LoraConfig(r=2, target_modules=r".*\.pointwise", modules_to_save=HEADS))


@pytest.mark.slow
def test_lora(tmp_path):
    base = make_model(FrozenBatchNorm)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = add_lora(base)
    lora = {f"{name}.lora_{part}.default" for name in linear_names(base) for part in "AB"}
    heads = {f"{head}.modules_to_save.default" for head in ("ctc_head", "tag_heads.emotion", "tag_heads.gender")}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(lora) == 12
    assert {name.removeprefix("base_model.model.").rsplit(".", 1)[0] for name in trained} == lora | heads

    make_trainer(model, tmp_path / "run", per_device_train_batch_size=2).train()
    model.eval()
    for name, tensor in model.state_dict().items():
        original = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", "")
        if original in before:
            assert torch.equal(tensor, before[original]), f"{name} was trained"
        elif "lora_B" in name:
            assert tensor.any(), f"{name} was not trained"

    inputs = audio_of(make_batch())
    expected = model(**inputs)
    model.save_pretrained(tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(make_model(FrozenBatchNorm), tmp_path / "adapter").eval()(**inputs)
    assert_same({"ctc": reloaded.logits, **reloaded.tag_logits}, {"ctc": expected.logits, **expected.tag_logits})
    assert not torch.equal(expected.logits, make_model(FrozenBatchNorm)(**inputs).logits)
    merged = model.merge_and_unload()(**inputs)
    torch.testing.assert_close(merged.logits, expected.logits, rtol=1e-4, atol=1e-4)


def linear_names(model):
    """Names of the pointwise products once PEFT has wrapped the model."""
    return [name for name, module in model.named_modules() if name.endswith(".pointwise")]


@pytest.mark.slow
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_lora_with_gradient_checkpointing(use_reentrant):
    """The encoder's own weights ask for no gradient, which must not keep it from those of LoRA."""
    model = make_model(FrozenBatchNorm)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model = add_lora(model).train()
    grads = gradients(model, **make_batch())[1]
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and name not in grads]
    assert not missing
    assert all(grad.any() for name, grad in grads.items() if "lora_B" in name)
