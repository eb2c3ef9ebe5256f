"""What a recipe can add to a training run: another voice, a moving average, auxiliary heads, shorter frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from citrinet import CitrinetForCTC, CitrinetProcessor
from citrinet.checkpoint import load_network
from citrinet.cli import main
from citrinet.training import read_recipe, train
from citrinet.training.checkpoints import TRAINING_WEIGHTS, checkpoints
from citrinet.training.trainer import SpeechTrainer
from tiny_models import tiny_config
from training_runs import WORDS, error_rate, losses, make_corpus, stop_after, write_recipe

THREE_BLOCKS = {
    "hidden_sizes": [16, 16, 16],
    "num_repeats": [1, 2, 1],
    "kernel_sizes": [5, 3, 3],
    "strides": [1, 2, 2],
    "residuals": [False, True, False],
    "dropouts": [0.0, 0.1, 0.0],
    "se_reduction_ratio": 2,
    "time_masks": 1,
    "time_width": 0.1,
}
VOICE = {"pitch": [0.85, 1.2], "formants": [0.88, 1.14], "tempo": [0.8, 1.15], "voice_probability": 0.8}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def syllables(tmp_path_factory):
    """Each character's unit is one of three; two characters have none."""
    path = tmp_path_factory.mktemp("units") / "syllables.json"
    table = {char: f"s{index % 3}" for index, char in enumerate(WORDS[2:])}
    path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return str(path)


def everything(syllables, **model):
    auxiliary = {"blocks": [0, 1], "weight": 0.5, "final_weight": 0.1, "units": syllables}
    return {"config": THREE_BLOCKS, "auxiliary_ctc": auxiliary, "frame_ms": 20, **model}


EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": False}


@pytest.mark.slow
def test_a_resumed_run_with_all_of_them_ends_where_an_uninterrupted_one_does(tmp_path, corpus, syllables):
    data = {"augmentation": {**VOICE, "noise_probability": 0.5}, "tag_categories": ["GENDER"]}
    training = {"num_train_epochs": 3, "save_steps": 3, "eval_steps": 3, "load_best_model_at_end": False}
    for name in ("whole", "parts"):
        write_recipe(tmp_path, corpus, name, data=data, model=everything(syllables), training=training)
    train(read_recipe(tmp_path / "whole.yaml", ["ema_decay=0.9"]))
    stop_after(4, read_recipe(tmp_path / "parts.yaml", ["ema_decay=0.9"]))
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["checkpoint-3"]
    train(read_recipe(tmp_path / "parts.yaml", ["ema_decay=0.9"]), resume=True)
    for file in ("model.safetensors", f"checkpoint-6/{TRAINING_WEIGHTS}"):
        whole, parts = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


# The moving average


@pytest.mark.slow
def test_checkpoints_and_the_last_model_have_the_average(tmp_path, corpus):
    """Each average follows from the one before and from the weights of training, by PyTorch's function."""
    recipe = write_recipe(tmp_path, corpus, training={**EVERY_STEP, "max_steps": 5})
    train(read_recipe(recipe, ["ema_decay=0.5"]))
    found = checkpoints(tmp_path / "recipe")
    averages = [load_file(path / "model.safetensors") for path in found]
    weights = [load_file(path / TRAINING_WEIGHTS) for path in found]
    assert len(found) == 5 and all(path.keys() == averages[0].keys() for path in weights)
    floats = [name for name, tensor in averages[0].items() if tensor.is_floating_point()]
    for step in range(2, 6):
        expected = [averages[step - 2][name].clone() for name in floats]
        get_ema_multi_avg_fn(min(0.5, step / (step + 9)))(expected, [weights[step - 1][name] for name in floats], None)
        for name, tensor in zip(floats, expected, strict=True):
            assert torch.equal(averages[step - 1][name], tensor), (step, name)
    last = load_file(tmp_path / "recipe" / "model.safetensors")
    assert all(torch.equal(last[name], averages[-1][name]) for name in last)
    assert not torch.equal(last["ctc_head.weight"], weights[-1]["ctc_head.weight"])


@pytest.mark.slow
def test_evaluations_are_the_averages_and_the_best_one_is_kept(tmp_path, corpus, capsys):
    training = {"eval_steps": 1, "learning_rate": 0.3, "lr_scheduler_type": "constant", "max_steps": 5}
    recipe = write_recipe(tmp_path, corpus, training=training)
    assert main(["train", str(recipe), "ema_decay=0.5"]) == 0
    kept = json.loads((out := capsys.readouterr().out)[out.rindex("{\n") :])["eval_cer"]
    rates = [error_rate(path, corpus / "columns.jsonl") for path in checkpoints(tmp_path / "recipe")]
    state = json.loads((checkpoints(tmp_path / "recipe")[-1] / "trainer_state.json").read_text(encoding="utf-8"))
    assert rates == pytest.approx([entry["eval_cer"] for entry in state["log_history"] if "eval_cer" in entry])
    assert len(set(rates)) > 1
    assert kept == pytest.approx(min(rates)) == pytest.approx(error_rate(tmp_path / "recipe", corpus / "columns.jsonl"))


@pytest.mark.slow
def test_an_average_beside_an_adapter_leaves_the_encoder_as_it_is(tmp_path, corpus):
    train(read_recipe(write_recipe(tmp_path, corpus, "base", data={"validation": []}), ["training.max_steps=1"]))
    model = {"pretrained": str(tmp_path / "base"), "adapter": {"name": "zh", "dim": 4}, "config": {}}
    recipe = write_recipe(tmp_path, corpus, data={"validation": []}, model=model)
    train(read_recipe(recipe, ["ema_decay=0.9", "model.auxiliary_ctc={blocks: [0]}"]))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "recipe"))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("model."))
    assert all(after[name].any() for name in after if name.endswith("adapters.zh.up.weight"))


@pytest.mark.slow
def test_a_checkpoint_with_other_options_is_not_gone_on_from(tmp_path, corpus, capsys):
    recipe = str(write_recipe(tmp_path, corpus, data={"validation": []}))
    assert main(["train", recipe, "training.max_steps=1", "ema_decay=0.9"]) == 0
    for changes in ([], ["ema_decay=0.9", "model.auxiliary_ctc={blocks: [0]}"]):
        assert main(["train", recipe, "--resume", *changes]) == 1
        assert "another `ema_decay` or `model.auxiliary_ctc`" in capsys.readouterr().err
    assert main(["train", recipe, "--resume", "ema_decay=0.9", "model.frame_ms=10"]) == 1
    assert "is of another network than the recipe's (strides)" in capsys.readouterr().err


# Auxiliary heads


@pytest.mark.slow
def test_the_auxiliary_loss_is_added_with_a_weight_that_falls(tmp_path, corpus, syllables, monkeypatch):
    """Against PyTorch's loss of the heads' logits and the table's units, once for each step."""
    checked = []
    original = SpeechTrainer.compute_loss

    def compared(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        state = torch.get_rng_state()
        loss, outputs = original(self, model, inputs, True, num_items_in_batch)
        if model.training:
            torch.set_rng_state(state)  # the same dropout and the same masks
            hidden = model.model(inputs["input_features"], inputs["attention_mask"], output_hidden_states=True)
            expected = [
                auxiliary_loss(head, hidden.hidden_states[block + 1], inputs, tokens, table)
                for block, head in zip((0, 1), model.auxiliary_heads.heads, strict=True)
            ]
            weight = 0.5 - 0.4 * self.state.global_step / 4
            torch.testing.assert_close(loss, outputs.loss + weight * sum(expected) / 2)
            checked.append(weight)
        return (loss, outputs) if return_outputs else loss

    recipe = write_recipe(tmp_path, corpus, data={"validation": []}, model=everything(syllables, frame_ms=40))
    train(read_recipe(recipe, ["training.max_steps=1"]))
    tokens = {
        id: token for token, id in CitrinetProcessor.from_pretrained(tmp_path / "recipe").tokenizer.get_vocab().items()
    }
    table = json.loads(Path(syllables).read_text(encoding="utf-8"))
    monkeypatch.setattr(SpeechTrainer, "compute_loss", compared)
    train(read_recipe(recipe, ["training.max_steps=4", "training.save_steps=1"]))
    assert checked == pytest.approx([0.5, 0.4, 0.3, 0.2])
    heads = [load_file(path / TRAINING_WEIGHTS) for path in checkpoints(tmp_path / "recipe")[:2]]
    assert set(heads[0]) == {f"auxiliary_heads.heads.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
    assert all(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def auxiliary_loss(head, hidden, inputs, tokens, table):
    """The mean over the batch of the CTC loss of each utterance's units."""
    names = sorted({table[token] for token in tokens.values() if token in table})
    ratio = round(inputs["input_features"].shape[1] / hidden.shape[1])
    total = 0.0
    for states, mask, labels in zip(hidden, inputs["attention_mask"], inputs["labels"], strict=True):
        target = [names.index(table[tokens[id]]) for id in labels.tolist() if id >= 0 and tokens[id] in table]
        frames = -(-int(mask.sum()) // ratio)
        logits = head(states[:frames]).log_softmax(-1)[:, None]
        sizes = torch.tensor([frames]), torch.tensor([len(target)])
        total += F.ctc_loss(logits, torch.tensor([target]), *sizes, blank=3, reduction="sum")
    return total / len(hidden)


@pytest.mark.slow
def test_auxiliary_heads_are_thrown_away(tmp_path, corpus, syllables):
    """What is saved is the network that is saved without them, file by file and key by key."""
    data = {"validation": []}
    for name, model in {"plain": {"config": THREE_BLOCKS}, "heads": everything(syllables, frame_ms=40)}.items():
        recipe = write_recipe(tmp_path, corpus, name, data=data, model=model)
        train(read_recipe(recipe, ["training.max_steps=1"]))
    for folder in ("", "checkpoint-1"):
        plain, heads = (tmp_path / name / folder for name in ("plain", "heads"))
        assert load_file(plain / "model.safetensors").keys() == load_file(heads / "model.safetensors").keys()
        assert (plain / "config.json").read_text() == (heads / "config.json").read_text()
        extra = {path.name for path in heads.iterdir()} - {path.name for path in plain.iterdir()}
        assert extra == ({TRAINING_WEIGHTS} if folder else set())
    load_network(str(tmp_path / "heads"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.auxiliary_ctc={blocks: [2]}", "name some of 0 to 1, each once"),
        ("model.auxiliary_ctc={blocks: []}", "name some of 0 to 1, each once"),
        ("model.auxiliary_ctc={blocks: [0], units: /nowhere/u.json}", "/nowhere/u.json"),
        ("model.auxiliary_ctc={blocks: [0], units: TEXT}", "is no JSON"),
        ("model.auxiliary_ctc={blocks: [0], units: LIST}", "write a JSON object of texts"),
        ("model.auxiliary_ctc={blocks: [0], units: LATIN}", "none of the tokens"),
        ("model.frame_ms=30", "`model.frame_ms` is 30; with this network's strides it can be 10 or 20 or 40"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, corpus, capsys, change, message):
    for name, content in {"TEXT": "a: b", "LIST": "[1]", "LATIN": '{"abc": "x"}'}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        change = change.replace(name, str(tmp_path / name))
    recipe = write_recipe(tmp_path, corpus, model={"config": THREE_BLOCKS})
    assert main(["train", str(recipe), change]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("citrinet: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "recipe").exists()


# The length of a frame


@pytest.mark.slow
@pytest.mark.parametrize(("frame_ms", "strides"), [(10, [1, 1, 1]), (20, [1, 2, 1]), (40, [1, 2, 2])])
def test_a_pretrained_network_with_shorter_frames(tmp_path, corpus, frame_ms, strides):
    """The same weights; frames of the length that is asked for, for utterances of every remainder."""
    data = {"validation": []}
    base = write_recipe(tmp_path, corpus, "base", data=data, model={"config": THREE_BLOCKS})
    train(read_recipe(base, ["training.max_steps=1"]))
    changes = {"pretrained": str(tmp_path / "base"), "config": {}, "frame_ms": frame_ms}
    recipe = write_recipe(tmp_path, corpus, data=data, model=changes, training={"learning_rate": 0.0, "max_steps": 1})
    train(read_recipe(recipe))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "recipe"))
    assert all(
        torch.equal(before[name], after[name]) for name in before if "running" not in name and "num_b" not in name
    )
    model = CitrinetForCTC.from_pretrained(tmp_path / "recipe").eval()
    processor = CitrinetProcessor.from_pretrained(tmp_path / "recipe")
    assert model.config.strides == strides and model.config.inputs_to_logits_ratio == 16 * frame_ms
    for samples in (16000, 16160, 17000, 19999):
        inputs = processor(np.zeros(samples, np.float32), sampling_rate=16000, return_tensors="pt")
        assert int(model(**inputs).attention_mask.sum()) == -(-(samples // 160) // (frame_ms // 10))


def test_every_length_that_the_strides_allow():
    from citrinet.training.network import strides_for

    config = tiny_config(strides=[2, 1, 4, 2])
    expected = {10: [1, 1, 1, 1], 20: [2, 1, 1, 1], 80: [2, 1, 4, 1], 160: [2, 1, 4, 2]}
    assert {ms: strides_for(config, ms, 16000) for ms in expected} == expected
    assert strides_for(config, 40, 8000) == [2, 1, 1, 1]  # hops of 160 samples last 20 ms there
    assert strides_for(tiny_config(hop_length=200, strides=[1, 2, 2, 1]), 12.5, 16000) == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="it can be 10 or 20 or 80 or 160"):
        strides_for(config, 40, 16000)
