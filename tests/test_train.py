"""Recipes, data and training runs on a tiny network and chirps."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer

from citrinet import CitrinetForCTC, CitrinetProcessor
from citrinet.cli import main
from citrinet.manifest import ManifestEntry, read_manifest
from citrinet.training import Augmentation, data, read_recipe, train
from citrinet.training.arguments import training_arguments
from citrinet.training.checkpoints import TRAINING_WEIGHTS, checkpoints
from citrinet.training.data import UNKNOWN, read_source, select, tag_labels
from citrinet.training.metrics import best_classes
from citrinet.transcript_citrinet import target_text
from helpers import synthetic_speech, write_wav
from training_runs import WORDS, error_rate, losses, make_corpus, run_in_two_processes, stop_after, write_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


# What is trained on


@pytest.mark.parametrize(
    ("tags", "entities", "expected"),
    [
        (True, True, "她以 ENTITY_PRODUCT 滴鸡精 END 调养身体。 AGE_14_25 DIALECT_NORTH"),
        (False, True, "她以 ENTITY_PRODUCT 滴鸡精 END 调养身体。"),
        (True, False, "她以滴鸡精调养身体。 AGE_14_25 DIALECT_NORTH"),
        (False, False, "她以滴鸡精调养身体。"),
    ],
)
def test_markers_stay_in_the_target_or_leave_it(tags, entities, expected):
    text = "她以 ENTITY_PRODUCT 滴鸡精 END 调养身体。 AGE_14_25 DIALECT_NORTH"
    assert target_text(text, tags, entities) == expected


def test_what_is_dropped_is_counted_by_reason(tmp_path):
    good = write_wav(tmp_path / "good.wav", synthetic_speech(0.5))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    entries = [
        ManifestEntry(good, "你好", 0.5),
        ManifestEntry(good, "你好"),  # the duration is read from the file
        ManifestEntry(good, "AGE_14_25", 0.5),
        ManifestEntry(good, None, 0.5),
        ManifestEntry(good, "你好", 0.05),
        ManifestEntry(good, "你好", 17.0),
        ManifestEntry(tmp_path / "broken.wav", "你好"),
    ]
    selection = select(entries, [])
    assert [example.duration for example in selection.examples] == [0.5, 0.5]
    assert selection.dropped == {
        "no text": 2,
        "shorter than 0.1 s": 1,
        "longer than 16 s": 1,
        "audio that cannot be read": 1,
    }
    assert "dropped 2: no text" in str(selection)


def test_tag_labels_come_from_columns_or_text_and_none_comes_first(corpus):
    for name in ("columns", "tagged"):
        examples = select(read_manifest(corpus / f"{name}.jsonl"), ["GENDER", "AGE"]).examples
        labels = tag_labels(examples, ["GENDER", "AGE"])
        assert labels["GENDER"] == ["NONE", "GENDER_FEMALE", "GENDER_MALE"]
        assert [e.tags.get("GENDER") for e in examples[:3]] == ["GENDER_MALE", "GENDER_FEMALE", None]
    assert labels["AGE"] == ["NONE", "AGE_14_25"]


def test_augmentation_repeats_with_its_seed_and_does_what_it_says():
    samples = synthetic_speech(1.0)
    everything = Augmentation((0.9, 1.1), noise_probability=1, room_probability=1)
    one, same, other = (everything(samples, 16000, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one[:1000], other[:1000])
    assert one.dtype == np.float32
    assert abs(len(Augmentation((0.8,))(samples, 16000, np.random.default_rng(0))) - 20000) <= 1
    noisy = Augmentation(noise_probability=1, noise_snr_db=(10, 10))(samples, 16000, np.random.default_rng(0))
    ratio = np.square(samples).sum() / np.square(noisy - samples).sum()
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.1)
    assert np.array_equal(Augmentation()(samples, 16000, np.random.default_rng(0)), samples)


def test_an_impossible_speed_is_refused():
    with pytest.raises(ValueError, match="positive factors"):
        Augmentation((0.0, 1.0))


# Recipes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model={}", "give `pretrained` or `config`"),
        ("model={adapter: {name: a, dim: 2}, config: {hidden_act: silu}}", "an adapter needs a `pretrained` network"),
        ("tokenizer={}", "a new network needs"),
        ("training={}", "give `output_dir`"),
        ("nonsense", "is no change of a recipe"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, corpus, change, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(write_recipe(tmp_path, corpus), [change])


def test_a_recipe_is_not_yaml(tmp_path):
    (tmp_path / "r.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ValueError, match="is not YAML"):
        read_recipe(tmp_path / "r.yaml")


def test_nothing_to_train_on_is_said(tmp_path, corpus, capsys):
    assert main(["train", str(write_recipe(tmp_path, corpus)), "data.max_duration=0.2"]) == 1
    assert "nothing is left to train on" in capsys.readouterr().err


# Training


@pytest.mark.slow
def test_the_loss_falls_and_the_result_loads(tmp_path, corpus, capsys):
    recipe = write_recipe(
        tmp_path, corpus, data={"tag_categories": ["GENDER"], "variants": 1}, training={"num_train_epochs": 20}
    )
    assert main(["train", str(recipe)]) == 0
    values = list(losses(tmp_path / "recipe").values())
    assert np.mean(values[-4:]) < 0.6 * np.mean(values[:4])
    out = capsys.readouterr().out
    assert "training: 8 utterances" in out and '"eval_cer"' in out and '"eval_GENDER_accuracy"' in out
    model = CitrinetForCTC.from_pretrained(tmp_path / "recipe")
    processor = CitrinetProcessor.from_pretrained(tmp_path / "recipe")
    assert model.config.tag_labels == {"GENDER": ["NONE", "GENDER_FEMALE", "GENDER_MALE"]}
    assert model.config.vocab_size == len(processor.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize(("variants", "cache"), [(0, None), (2, None), (2, "features")])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, corpus, variants, cache):
    """Stopped within an epoch: order, augmentation, SpecAugment and dropout go on as if nothing had happened."""
    cache = cache and str(tmp_path / cache)
    data = {"variants": variants, "cache": cache, "augmentation": {"speeds": [0.9, 1.0, 1.1], "noise_probability": 0.5}}
    training = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3, "eval_strategy": "no"}
    training |= {"load_best_model_at_end": False}
    for name in ("whole", "parts"):
        write_recipe(tmp_path, corpus, name, data=data, training=training)
    train(read_recipe(tmp_path / "whole.yaml"))
    partial = read_recipe(tmp_path / "parts.yaml")
    stop_after(3, partial)
    assert not (tmp_path / "parts" / "checkpoint-6").exists()
    train(read_recipe(tmp_path / "parts.yaml"), resume=True)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_not_gone_on_from(tmp_path, corpus, capsys):
    recipe = str(write_recipe(tmp_path, corpus, data={"validation": []}))
    assert main(["train", recipe, "training.num_train_epochs=1"]) == 0
    assert main(["train", recipe, "model.config.kernel_sizes=[3, 3]", "--resume"]) == 1
    assert "is of another network than the recipe's (kernel_sizes)" in capsys.readouterr().err


@pytest.mark.slow
def test_averaged_checkpoints(tmp_path, corpus):
    recipe = read_recipe(write_recipe(tmp_path, corpus, training={"eval_strategy": "no"}), ["average_checkpoints=2"])
    train(recipe)
    states = [load_file(path) for path in (tmp_path / "recipe").glob("checkpoint-*/model.safetensors")]
    averaged = load_file(tmp_path / "recipe" / "model.safetensors")
    name = "ctc_head.weight"
    assert len(states) == 2
    torch.testing.assert_close(averaged[name], (states[0][name] + states[1][name]) / 2)


@pytest.mark.slow
def test_an_average_takes_the_checkpoints_of_this_run_alone(tmp_path, corpus, capsys):
    """Those of an earlier run, with higher steps, are set aside, neither averaged nor deleted by `save_total_limit`."""
    path = write_recipe(tmp_path, corpus, data={"validation": []})
    out = tmp_path / "recipe"
    assert main(["train", str(path), "training.num_train_epochs=3", "training.learning_rate=0.001"]) == 0
    earlier = {f.parent.name: f.read_bytes() for f in out.glob("checkpoint-*/model.safetensors")}
    changes = ["training.num_train_epochs=2", "training.save_total_limit=2", "average_checkpoints=2"]
    assert main(["train", str(path), *changes]) == 0
    printed = capsys.readouterr().out
    assert "average of checkpoint-2, checkpoint-4" in printed and "_earlier-run-1" in printed
    ours = [load_file(out / f"checkpoint-{step}" / "model.safetensors") for step in (2, 4)]
    averaged = load_file(out / "model.safetensors")
    mean = sum(state["ctc_head.weight"].double() for state in ours) / 2
    torch.testing.assert_close(averaged["ctc_head.weight"].double(), mean, rtol=0, atol=1e-7)
    kept = (out / "_earlier-run-1").glob("checkpoint-*/model.safetensors")
    assert {f.parent.name: f.read_bytes() for f in kept} == earlier and len(earlier) == 3
    assert main(["train", str(path), *changes, "training.num_train_epochs=3", "--resume"]) == 0
    assert "average of checkpoint-4, checkpoint-6" in capsys.readouterr().out
    assert not (out / "_earlier-run-2").exists()


@pytest.mark.slow
def test_the_best_evaluation_by_steps_is_kept(tmp_path, corpus, capsys):
    recipe = write_recipe(
        tmp_path,
        corpus,
        training={"eval_steps": 1, "learning_rate": 0.3, "lr_scheduler_type": "constant", "max_steps": 6},
    )
    assert main(["train", str(recipe)]) == 0
    kept = json.loads((out := capsys.readouterr().out)[out.rindex("{\n") :])["eval_cer"]
    states = sorted(
        (tmp_path / "recipe").glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name[11:])
    )
    history = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    rates = [entry["eval_cer"] for entry in history if "eval_cer" in entry]
    assert len(rates) == 6 and len(set(rates)) > 1
    assert kept == pytest.approx(min(rates)) == pytest.approx(error_rate(tmp_path / "recipe", corpus / "columns.jsonl"))


@pytest.mark.slow
def test_variants_are_kept_when_workers_compute_them(tmp_path, corpus, monkeypatch):
    """Each recording is read once for training and once for validation, whatever the passes."""
    log = tmp_path / "log"
    original = data.load_audio

    def logged(audio, rate):
        with log.open("a") as file:
            file.write(f"{audio}\n")
        return original(audio, rate)

    monkeypatch.setattr(data, "load_audio", logged)
    recipe = write_recipe(tmp_path, corpus, data={"variants": 1}, training={"dataloader_num_workers": 2})
    train(read_recipe(recipe, ["training.num_train_epochs=3"]))
    assert len(log.read_text().splitlines()) == 16
    assert not list((tmp_path / "recipe").glob("_features*"))


@pytest.mark.slow
def test_characters_that_the_tokenizer_does_not_know_count_as_errors(tmp_path, corpus, pretrained, capsys):
    vocabulary = CitrinetProcessor.from_pretrained(pretrained).tokenizer.get_vocab()
    known = [char for char in WORDS if char in vocabulary]
    lines = [
        {"audio_filepath": str(corpus / f"{i}.wav"), "duration": 0.6, "text": f"龘{known[i]}靐, "} for i in range(3)
    ]
    manifest = tmp_path / "unknown.jsonl"
    manifest.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    data = {"train": [str(manifest)], "validation": [str(manifest)]}
    recipe = write_recipe(tmp_path, corpus, data=data, model={"pretrained": str(pretrained), "config": {}})
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    recipe.write_text(yaml.safe_dump({**content, "tokenizer": {}}), encoding="utf-8")
    assert main(["train", str(recipe), "training.learning_rate=0.05", "training.num_train_epochs=15"]) == 0
    out = capsys.readouterr().out
    for name in ("training", "validation"):
        assert f"{name}: warning: 3 utterances hold 6 characters" in out
    assert "龘 3" in out and "靐 3" in out
    found = json.loads(out[out.rindex("{\n") :])["eval_cer"]
    assert found == pytest.approx(error_rate(tmp_path / "recipe", manifest)) and found >= 2 / 3


@pytest.mark.slow
def test_a_tag_category_as_a_string_is_one_category(tmp_path, corpus, capsys):
    recipe = write_recipe(tmp_path, corpus, data={"tag_categories": "GENDER", "validation": []})
    assert main(["train", str(recipe), "training.max_steps=1"]) == 0
    labels = CitrinetForCTC.from_pretrained(tmp_path / "recipe").config.tag_labels
    assert labels == {"GENDER": ["NONE", "GENDER_FEMALE", "GENDER_MALE"]}
    assert main(["train", str(recipe), "training.max_steps=1", "data.tag_categories=[GENDER, MOOD]"]) == 0
    assert "no training utterance has a label of the tag category MOOD" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_recording_ends_a_run_with_its_name(tmp_path, corpus, capsys, workers):
    (tmp_path / "damaged.wav").write_bytes(b"RIFF")
    line = {"audio_filepath": str(tmp_path / "damaged.wav"), "duration": 1.0, "text": "今天"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line), encoding="utf-8")
    recipe = write_recipe(
        tmp_path, corpus, data={"train": [str(corpus / "columns.jsonl"), str(tmp_path / "m.jsonl")], "validation": []}
    )
    assert main(["train", str(recipe), f"training.dataloader_num_workers={workers}"]) == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("citrinet: "))
    assert "damaged.wav" in line and "resume" in line and "Traceback" not in line and "worker" not in line


@pytest.mark.slow
@pytest.mark.parametrize("where", ["train", "validation"])
def test_nothing_that_exists_is_said_with_the_reasons(tmp_path, corpus, capsys, where):
    lines = [{"audio_filepath": f"gone{i}.wav", "duration": 1.0, "text": "今天"} for i in range(3)]
    lines.append({"audio_filepath": str(corpus / "0.wav"), "duration": 99.0, "text": "今天"})
    manifest = tmp_path / "gone.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    recipe = write_recipe(tmp_path, corpus, data={where: [str(manifest)]})
    assert main(["train", str(recipe)]) == 1
    error = capsys.readouterr().err
    purpose = "train" if where == "train" else "validate"
    assert f"nothing is left to {purpose} on" in error and "3: no such file (such as" in error
    assert "1: longer than 16 s" in error and not (tmp_path / "recipe").exists()


@pytest.mark.slow
def test_two_processes_under_accelerate(tmp_path, corpus):
    """With all that could go wrong there: heads beside the network's own, and statistics that differ in each process."""
    recipe = write_recipe(
        tmp_path, corpus, training={"per_device_train_batch_size": 2, "save_steps": 1, "eval_steps": 1}
    )
    heads = "model.auxiliary_ctc={blocks: [0], weight: 0.3}"
    stdout = run_in_two_processes(recipe, "ema_decay=0.5", heads, "training.load_best_model_at_end=false")
    assert stdout.count("training: 8 utterances") == 1
    assert len(losses(tmp_path / "recipe")) == 4  # 8 utterances in batches of 2 x 2, twice
    found = json.loads(stdout[stdout.rindex("{\n") :])["eval_cer"]
    assert found == pytest.approx(error_rate(tmp_path / "recipe", corpus / "columns.jsonl"))
    folders = checkpoints(tmp_path / "recipe")
    averages = [
        load_file(folder / "model.safetensors")["model.blocks.1.residual_norm.running_var"] for folder in folders
    ]
    weights = load_file(folders[3] / TRAINING_WEIGHTS)["model.blocks.1.residual_norm.running_var"]
    torch.testing.assert_close(averages[3], averages[2] + (1 - 4 / 13) * (weights - averages[2]))
    state = json.loads((folders[3] / "trainer_state.json").read_text(encoding="utf-8"))
    rates = [entry["eval_cer"] for entry in state["log_history"] if "eval_cer" in entry]
    assert rates == pytest.approx([error_rate(folder, corpus / "columns.jsonl") for folder in folders])


def test_frames_that_only_pad_the_batches_of_other_processes_count_as_none():
    logits = torch.tensor([[[0.0, 3.0], [1.0, 0.5], [UNKNOWN, UNKNOWN]]])
    assert best_classes(logits, None).tolist() == [[1, 0, UNKNOWN]]
    best, tags = best_classes((logits, {"GENDER": logits[:, 0]}), None)
    assert best.tolist() == [[1, 0, UNKNOWN]] and tags["GENDER"].tolist() == [1]


# Going on from a pretrained model


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    train(read_recipe(write_recipe(folder, corpus, "base", data={"validation": []})))
    return folder / "base"


@pytest.mark.slow
def test_an_adapter_is_trained_and_the_encoder_stays_as_it_is(tmp_path, corpus, pretrained):
    recipe = write_recipe(
        tmp_path,
        corpus,
        data={"train": [str(corpus / "tagged.jsonl")], "validation": [], "tag_categories": ["AGE", "GENDER"]},
        model={"pretrained": str(pretrained), "adapter": {"name": "zh", "dim": 4}, "config": {"time_masks": 2}},
        tokenizer={"train": {"model_type": "char", "vocab_size": 200, "add_dummy_prefix": False}},
    )
    train(read_recipe(recipe))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "recipe"))
    encoder = [name for name in before if name.startswith("model.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert all(after[name].any() for name in after if name.endswith("adapters.zh.up.weight"))
    tokens = CitrinetProcessor.from_pretrained(tmp_path / "recipe").tokenizer.get_vocab()
    assert {"ENTITY_SONG_NAME", "END"} <= tokens.keys() and "AGE_14_25" not in tokens

    base, tuned = (CitrinetForCTC.from_pretrained(folder) for folder in (pretrained, tmp_path / "recipe"))
    base.save_adapter(tmp_path, "base")
    features = torch.randn(1, 48, 80)
    expected = tuned(features).logits
    base.load_adapter("zh", str(tmp_path / "recipe"))  # the adapter was saved on its own too
    assert torch.equal(base(features).logits, expected)
    tuned.load_adapter("base", str(tmp_path))
    assert torch.equal(tuned(features).logits, CitrinetForCTC.from_pretrained(pretrained)(features).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.config={kernel_sizes: [7, 7]}", "the weights are not those of its configuration"),
        ("model.config={kernel_sizes: [4, 4]}", "must be odd"),
        ("model.config={hidden_act: nosuch}", "there is no activation 'nosuch'"),
        ("model.adapter={name: a b, dim: 4}", "cannot name an adapter"),
        ("tokenizer.train.vocab_size=3", "3 pieces cannot hold"),
        ("tokenizer={pretrained: OTHER}", "not a tokenizer of a Citrinet"),
        ("model.pretrained=OTHER", "is a wav2vec2 model, not a Citrinet"),
        ("model.pretrained=/nowhere/at/all", "/nowhere/at/all"),
        ("data.train=[/nowhere/m.jsonl]", "/nowhere/m.jsonl"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(tmp_path, corpus, pretrained, capsys, change, message):
    other = tmp_path / "other"
    Wav2Vec2Config().save_pretrained(other)
    (other / "model.safetensors").touch()
    (other / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    Wav2Vec2CTCTokenizer(other / "vocab.json", bos_token=None, eos_token=None).save_pretrained(other)
    recipe = write_recipe(tmp_path, corpus, model={"pretrained": str(pretrained), "config": {}})
    assert main(["train", str(recipe), change.replace("OTHER", str(other))]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("citrinet: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "recipe").exists()


@pytest.mark.slow
def test_fine_tuning_with_another_tokenizer_keeps_the_rows_of_known_tokens(tmp_path, corpus, pretrained):
    recipe = write_recipe(
        tmp_path,
        corpus,
        data={"train": [str(corpus / "tagged.jsonl")], "validation": []},
        model={"pretrained": str(pretrained), "config": {}},
        training={"learning_rate": 0.0, "num_train_epochs": 1},
    )
    train(read_recipe(recipe))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "recipe"))
    old, new = (CitrinetProcessor.from_pretrained(f).tokenizer.get_vocab() for f in (pretrained, tmp_path / "recipe"))
    shared = old.keys() & new.keys()
    assert len(shared) > 10 and "END" in new.keys() - old.keys()
    for token in shared:
        assert torch.equal(before["ctc_head.weight"][old[token]], after["ctc_head.weight"][new[token]])


@pytest.mark.slow
def test_fine_tuning_on_data_without_tags_keeps_the_tag_heads(tmp_path, corpus):
    tagged = write_recipe(tmp_path, corpus, "tagged", data={"validation": [], "tag_categories": ["GENDER"]})
    train(read_recipe(tagged))
    plain = write_recipe(
        tmp_path, corpus, "plain", data={"validation": []}, model={"pretrained": str(tmp_path / "tagged"), "config": {}}
    )
    train(read_recipe(plain, ["training.learning_rate=0.0", "tokenizer.train.user_defined_symbols=[ENTITY_A, END]"]))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("tagged", "plain"))
    assert before["ctc_head.weight"].shape != after["ctc_head.weight"].shape
    assert torch.equal(before["tag_heads.GENDER.weight"], after["tag_heads.GENDER.weight"])


@pytest.mark.slow
def test_a_hub_dataset(tmp_path, corpus, pretrained):
    """A folder of Parquet, the form in which the Hub serves data sets with an audio column."""
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"audio": {"bytes": e.audio.read_bytes(), "path": e.audio.name}, "sentence": e.text, **e.columns}
        for e in read_manifest(corpus / "columns.jsonl")
    ]
    datasets.Dataset.from_list(rows).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    source = {"path": str(tmp_path / "dataset"), "split": "train", "text_column": "sentence"}
    entries = list(read_source(source))
    assert [e.text for e in entries] == [e.text for e in read_manifest(corpus / "columns.jsonl")]
    assert select(entries, ["GENDER"]).examples[0].duration == pytest.approx(0.6)
    recipe = write_recipe(tmp_path, corpus, data={"train": [source], "validation": []})
    train(read_recipe(recipe, ["training.num_train_epochs=1"]))
    with pytest.raises(ValueError, match="name the right ones"):
        list(read_source({**source, "text_column": "nothing"}))
    with pytest.raises(ValueError, match="name one with `split`"):
        list(read_source({"path": source["path"]}))


# The recipes that come with the project


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")) + sorted(ROOT.glob("examples/*.yaml")), ids=str)
def test_the_projects_recipes_are_recipes(path):
    recipe = read_recipe(path)
    training_arguments(replace(recipe, training={**recipe.training, "fp16": False, "bf16": False}))
    assert recipe.data.validation


@pytest.mark.slow
def test_the_flagships_recipe_runs_on_a_small_base(tmp_path, corpus, base_small_dir):
    """All but the size is the recipe's own: adapter of 256, new tokenizer, tag heads, schedule."""
    changes = {
        "data.train": [str(corpus / "tagged.jsonl")],
        "data.validation": [str(corpus / "tagged.jsonl")],
        "model.pretrained": str(base_small_dir),
        "tokenizer.train.vocab_size": 60,
        "training.output_dir": str(tmp_path / "tuned"),
        "training.max_steps": 2,
        "training.eval_steps": 2,
        "training.save_steps": 2,
        "training.fp16": False,  # that needs an accelerator
        "training.use_cpu": True,
        "training.dataloader_num_workers": 0,
    }
    metrics = train(
        read_recipe(ROOT / "recipes" / "stt_meta_zh.yaml", [f"{k}={json.dumps(v)}" for k, v in changes.items()])
    )
    assert {"eval_cer", "eval_AGE_accuracy", "eval_GENDER_accuracy"} <= metrics.keys()
    model = CitrinetForCTC.from_pretrained(tmp_path / "tuned")
    assert model.config.adapters[-1] == {
        "name": "mandarin",
        "dim": 256,
        "activation": "silu",
        "norm_position": "pre",
        "dropout": 0.0,
        "enabled": True,
    }
    assert (model.config.time_masks, model.config.time_width) == (4, 80)
    assert "AGE_14_25" in CitrinetProcessor.from_pretrained(tmp_path / "tuned").tokenizer.get_vocab()
