"""Models of ours as `.nemo` files: the way back, what NeMo accepts, what is refused, and how the file is written."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import normalizers
from transformers import AutoModelForCTC, AutoProcessor, Wav2Vec2Config, pipeline

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC, CitrinetModel, CitrinetProcessor, default_model
from citrinet.cli import main
from citrinet.convert import ConversionError, convert_nemo, export_nemo, hf_to_nemo, read_nemo
from citrinet.manifest import read_manifest
from helpers import TESTS, write_wav
from nemo_files import WEIGHTS, files_below, load_tensors, read_config, read_members, rewrite_nemo
from tiny_models import TWO_BLOCKS, tiny_config, tiny_tokenizer

NAMES = ["base_small", "options_char", "options_unigram", "zh_small", "zh_small_agg"]
ACCEPTED = TESTS / "fixtures" / "nemo" / "accepted.json"  # exports that real NeMo restored with strict=True
FEATURIZER = "preprocessor.featurizer."
EXAMPLES = TESTS.parent / "examples"


@pytest.fixture
def small_dir(nemo_dir, tmp_path) -> Path:
    """`options_unigram.nemo` converted."""
    convert_nemo(nemo_dir / "options_unigram.nemo", tmp_path / "small")
    return tmp_path / "small"


def save_tiny(folder: Path, *, tokenizer=None, **config) -> Path:
    """A trained folder: a tiny model of random weights, and no SentencePiece model."""
    torch.manual_seed(0)
    tokenizer = tokenizer or tiny_tokenizer("bpe")
    defaults = {"vocab_size": len(tokenizer), "num_mel_bins": 8}
    CitrinetForCTC(tiny_config(**defaults | config)).save_pretrained(folder)
    CitrinetProcessor(CitrinetFeatureExtractor(feature_size=8), tokenizer).save_pretrained(folder)
    return folder


def exported_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(read_members(path)[WEIGHTS])


# --- There and back ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in NAMES), ("zh_small", "float16"), ("zh_small", "bfloat16")]
)
def test_a_converted_model_comes_back_file_by_file(nemo_dir, tmp_path, name, dtype):
    source = nemo_dir / f"{name}.nemo"
    convert_nemo(source, tmp_path / "ours", dtype=dtype)
    export_nemo(tmp_path / "ours", tmp_path / "theirs.nemo")
    convert_nemo(tmp_path / "theirs.nemo", tmp_path / "back", dtype=dtype)
    ours, back = files_below(tmp_path / "ours"), files_below(tmp_path / "back")
    different = {file for file in ours.keys() | back.keys() if ours.get(file) != back.get(file)}
    assert different == {"README.md"} and "model.safetensors" in ours  # the card names the file it was made of
    theirs, original = exported_tensors(tmp_path / "theirs.nemo"), exported_tensors(source)
    assert theirs.keys() == original.keys()
    for key, tensor in original.items():
        if key.startswith(FEATURIZER):
            torch.testing.assert_close(theirs[key], tensor, rtol=0, atol=1e-6)
        else:
            expected = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
            assert theirs[key].dtype == expected.dtype and torch.equal(theirs[key], expected), key


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "default"])
def test_a_trained_model_comes_back(tmp_path, kind):
    """With labels that no vocabulary holds, adapters of both kinds, and no `tokenizer.model`."""
    folder = default_model() if kind == "default" else save_tiny(tmp_path / "ours", tokenizer=tiny_tokenizer(kind))
    report = export_nemo(folder, tmp_path / "theirs.nemo")
    convert_nemo(tmp_path / "theirs.nemo", tmp_path / "back")
    ours, back = (AutoModelForCTC.from_pretrained(place) for place in (folder, tmp_path / "back"))
    assert report.mapped == len(ours.state_dict()) and report.parameters["total"] == ours.num_parameters()
    assert back.state_dict().keys() == ours.state_dict().keys()
    for key, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key
    assert {name: getattr(back.config, name) for name in hf_to_nemo._NETWORK} == {
        name: getattr(ours.config, name) for name in hf_to_nemo._NETWORK
    }
    tokenizers = [AutoProcessor.from_pretrained(place).tokenizer for place in (folder, tmp_path / "back")]
    assert len({tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers}) == 1
    assert len({tokenizer.init_kwargs["leading_boundaries"] for tokenizer in tokenizers}) == 1
    if kind == "default":
        clip = str(EXAMPLES / "bus.flac")
        # NeMo's file has no place for the language model, and none for the temperature of confidence.
        pipes = [
            pipeline("automatic-speech-recognition", str(place), decoder=None) for place in (folder, tmp_path / "back")
        ]
        pipes[0].model.config.confidence_temperature = 1.0
        results = [pipe(clip) for pipe in pipes]
        assert results[0] == results[1] and results[0]["tags"]


def test_two_names_of_one_activation(tmp_path):
    folder = save_tiny(tmp_path / "model", **TWO_BLOCKS, adapters=[{"name": "a", "dim": 4, "activation": "swish"}])
    export_nemo(folder, tmp_path / "out.nemo")
    assert read_nemo(tmp_path / "out.nemo").report.config.adapters[0]["activation"] == "silu"


def test_the_older_front_end_is_remembered(nemo_dir, tmp_path):
    convert_nemo(nemo_dir / "options_char.nemo", tmp_path / "ours", frontend="nemo-2.4")
    report = export_nemo(tmp_path / "ours", tmp_path / "theirs.nemo")
    assert [note for note in report.notes if "NeMo 2.4" in note] and "note: " in str(report)
    for given, expected in ((None, "nemo-2.4"), ("nemo-2.5", "nemo-2.5")):
        convert_nemo(tmp_path / "theirs.nemo", tmp_path / "back", frontend=given, force=True)
        assert CitrinetFeatureExtractor.from_pretrained(tmp_path / "back").frontend == expected


def test_a_front_end_that_there_is_not(nemo_dir, tmp_path):
    source = rewrite_nemo(
        nemo_dir / "options_char.nemo", tmp_path / "x.nemo", config=lambda c: c.update(citrinet={"frontend": "kaldi"})
    )
    with pytest.raises(ConversionError, match="frontend"):
        convert_nemo(source, tmp_path / "out")


def test_pieces_that_the_sentencepiece_model_lacks_are_added_to_it(nemo_dir, tmp_path):
    """NeMo takes the vocabulary from the SentencePiece model: it must hold every token, in order."""

    def grow(weights):
        for part in ("weight", "bias"):
            key = f"decoder.decoder_layers.0.{part}"
            weights[key] = torch.cat([weights[key], weights[key][:1]])

    def extend(config):
        config["decoder"]["vocabulary"].append("▁EMOTION_HAPPY")

    source = rewrite_nemo(nemo_dir / "options_unigram.nemo", tmp_path / "x.nemo", config=extend, weights=grow)
    convert_nemo(source, tmp_path / "ours")
    export_nemo(tmp_path / "ours", tmp_path / "theirs.nemo")
    convert_nemo(tmp_path / "theirs.nemo", tmp_path / "back")
    ours, back = (files_below(tmp_path / place) for place in ("ours", "back"))
    assert ours["tokenizer.json"] == back["tokenizer.json"] and ours["tokenizer.model"] != back["tokenizer.model"]
    assert "▁EMOTION_HAPPY".encode() in back["tokenizer.model"]


# --- What NeMo needs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["options_char", "options_unigram"])
def test_configuration_and_names_are_those_that_nemo_accepted(nemo_dir, tmp_path, name):
    accepted = json.loads(ACCEPTED.read_text(encoding="utf-8"))[name]
    convert_nemo(nemo_dir / f"{name}.nemo", tmp_path / "ours")
    export_nemo(tmp_path / "ours", tmp_path / "theirs.nemo")
    assert read_config(read_members(tmp_path / "theirs.nemo")) == accepted["config"]
    tensors = exported_tensors(tmp_path / "theirs.nemo")
    assert {key: list(tensor.shape) for key, tensor in tensors.items()} == accepted["shapes"]
    assert accepted["config"]["target"].endswith(f".{accepted['class']}")


@pytest.mark.slow
def test_the_embedded_model_has_the_sections_that_nemo_accepted(tmp_path):
    accepted = json.loads(ACCEPTED.read_text(encoding="utf-8"))["options_unigram"]["config"]
    export_nemo(default_model(), tmp_path / "theirs.nemo", tag_heads=False)
    config = read_config(read_members(tmp_path / "theirs.nemo"))
    assert config.keys() == accepted.keys()
    for section in ("preprocessor", "encoder", "decoder", "tokenizer"):
        assert config[section].keys() == accepted[section].keys()
    for adapter in config["adapters"].values():
        assert adapter.keys() == accepted["adapters"]["zh_pre"].keys()
    for block in config["encoder"]["jasper"]:
        assert block.keys() == accepted["encoder"]["jasper"][0].keys()


@pytest.mark.slow
def test_without_tag_heads_nothing_of_them_is_left(zh_small_dir, tmp_path):
    with_heads = export_nemo(zh_small_dir, tmp_path / "with.nemo")
    without = export_nemo(zh_small_dir, tmp_path / "without.nemo", tag_heads=False)
    tensors, fewer = exported_tensors(tmp_path / "with.nemo"), exported_tensors(tmp_path / "without.nemo")
    heads = {f"tag_classifier.heads.{c}.{p}" for c in ("AGE", "DIALECT", "GENDER") for p in ("weight", "bias")}
    assert tensors.keys() - fewer.keys() == heads and fewer.keys() < tensors.keys()
    assert "tag_classifier" not in read_config(read_members(tmp_path / "without.nemo"))
    assert "strict=False" in str(with_heads) and "strict" not in str(without)
    assert with_heads.mapped - without.mapped == len(heads) and "tag heads" not in without.parameters


# --- Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_token_id": 0}, "the tokenizer is not that of the network"),
        ({"hidden_act": "gelu"}, "activation.*gelu"),
        ({"vocab_size": 20}, "the tokenizer is not that of the network"),
        ({"num_mel_bins": 16}, "feat_in"),
        ({"hop_length": 80}, "`hop_length` is 80"),
        ({"adapters": [{"name": "global_cfg", "dim": 4}]}, "`adapters` is"),
        ({"adapters": [{"name": "a", "dim": 4, "activation": "tanh"}]}, "activation 'tanh'"),
    ],
)
def test_what_nemo_cannot_express(tmp_path, config, message):
    folder = save_tiny(tmp_path / "model", **TWO_BLOCKS | config)
    with pytest.raises(ConversionError, match=message):
        export_nemo(folder, tmp_path / "out.nemo")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def add_token(tokenizer) -> None:
    tokenizer.add_tokens(["<new>"])


def lower(tokenizer) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


@pytest.mark.parametrize(
    ("change", "message"),
    [(add_token, "the tokenizer is not that of the network"), (lower, "the tokenizer is not what")],
)
def test_a_changed_tokenizer(tmp_path, change, message):
    tokenizer = tiny_tokenizer("bpe")
    change(tokenizer)
    with pytest.raises(ConversionError, match=message):
        export_nemo(save_tiny(tmp_path / "model", tokenizer=tokenizer, **TWO_BLOCKS), tmp_path / "out.nemo")


def damage(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def resize(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_sizes": [16, 24]}))


def remove_heads(folder: Path) -> None:
    CitrinetModel.from_pretrained(folder).save_pretrained(folder)


def add_lora(folder: Path) -> None:
    model = get_peft_model(CitrinetForCTC.from_pretrained(folder), LoraConfig(target_modules=["pointwise"]))
    model.save_pretrained(folder)


def replace_model(folder: Path) -> None:
    Wav2Vec2Config().save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "the weights cannot be read"),
        (resize, "not those of its configuration"),
        (remove_heads, r"not those of its configuration \(.*ctc_head.bias"),
        (add_lora, "merge and save it first"),
        (replace_model, "wav2vec2 model, not a Citrinet"),
    ],
)
def test_damaged_incomplete_and_other_models(tmp_path, change, message):
    folder = save_tiny(tmp_path / "model", **TWO_BLOCKS)
    change(folder)
    with pytest.raises(ConversionError, match=message):
        export_nemo(folder, tmp_path / "out.nemo")
    assert not (tmp_path / "out.nemo").exists()


# --- Writing ----------------------------------------------------------------------------------------------------------


def test_the_file_is_ordinary_and_the_same_each_time(small_dir, tmp_path):
    first, second = tmp_path / "a" / "b" / "first.nemo", tmp_path / "second.nemo"
    for output in (first, second):
        export_nemo(small_dir, output)
    assert first.read_bytes() == second.read_bytes()
    (tmp_path / "plain").write_text("")
    assert first.stat().st_mode == (tmp_path / "plain").stat().st_mode
    tensors = exported_tensors(first)
    assert first.stat().st_size < sum(tensor.nbytes for tensor in tensors.values()) + 400 * len(tensors) + 30_000
    assert {path.name for path in tmp_path.rglob("*.nemo")} == {"first.nemo", "second.nemo"}


def test_only_a_nemo_file_is_replaced_and_only_with_force(small_dir, nemo_dir, tmp_path):
    output, mine = tmp_path / "out.nemo", tmp_path / "mine.nemo"
    old = (nemo_dir / "options_char.nemo").read_bytes()
    output.write_bytes(old)
    mine.write_text("my own")
    (tmp_path / "link.nemo").symlink_to(output)
    before = files_below(tmp_path)
    with pytest.raises(FileExistsError, match="--force"):
        export_nemo(small_dir, output)
    for place, message in (
        (mine, "is no NeMo checkpoint"),
        (tmp_path / "link.nemo", "is a link to"),
        (tmp_path, "holds the input"),
        (small_dir, "is the input"),
        (nemo_dir, "is a folder"),
    ):
        with pytest.raises(FileExistsError, match=message):
            export_nemo(small_dir, place, force=True)
    assert files_below(tmp_path) == before
    export_nemo(small_dir, output, force=True)
    assert exported_tensors(output) and output.read_bytes() != old


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_while_writing_leaves_everything_as_it_was(small_dir, nemo_dir, tmp_path, monkeypatch, error):
    def interrupted(tensors, file):
        file.write(b"half")
        raise error

    (tmp_path / "out.nemo").write_bytes((nemo_dir / "options_char.nemo").read_bytes())
    before = files_below(tmp_path)
    monkeypatch.setattr(torch, "save", interrupted)
    for output in (tmp_path / "out.nemo", tmp_path / "new" / "out.nemo"):
        with pytest.raises(type(error)) as caught:
            export_nemo(small_dir, output, force=True)
        assert isinstance(error, KeyboardInterrupt) or "no space left" in str(caught.value)
    assert files_below(tmp_path) == before


def test_command_line(small_dir, tmp_path, capsys):
    command = ["export", "nemo", str(small_dir), str(tmp_path / "out.nemo")]
    assert main([*command, "--without-tag-heads"]) == 0
    assert f"written: {tmp_path / 'out.nemo'}" in capsys.readouterr().out
    assert main(command) == 1
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert main([*command, "--force"]) == 0
    for missing in (tmp_path / "nothing", tmp_path / "out.nemo"):
        assert main(["export", "nemo", str(missing), str(tmp_path / "other.nemo")]) == 1
        assert capsys.readouterr().err.startswith("citrinet: ")
    assert not (tmp_path / "other.nemo").exists()


# --- NeMo itself ------------------------------------------------------------------------------------------------------


def nemo_python() -> str | None:
    """An interpreter that has NeMo: the one that `NEMO_PYTHON` names, or this one."""
    return os.environ.get("NEMO_PYTHON") or (sys.executable if importlib.util.find_spec("nemo") else None)


def recordings(name: str, nemo_dir: Path, folder: Path) -> list[str]:
    """16 kHz files that the model writes something for, so that nobody has to resample."""
    if name == "default":
        return [str(entry.audio) for entry in read_manifest(EXAMPLES / "clips.jsonl")]
    golden = np.load(nemo_dir / f"golden_{name.removesuffix('_agg')}.npz")
    items = [wav[:length] for wav, length in zip(golden["wav"], golden["wav_len"], strict=True) if length >= 8000]
    return [write_wav(folder / f"{name}{index}.wav", samples) for index, samples in enumerate(items)]


def nemo_jobs(nemo_dir: Path, folder: Path) -> list[dict]:
    """Every model with and without tag heads, to be restored strictly, and leniently where NeMo lacks the heads."""
    jobs = []
    for name in [*NAMES, "default"]:
        model = default_model() if name == "default" else str(folder / name)
        if name != "default":
            convert_nemo(nemo_dir / f"{name}.nemo", model)
        job = {"name": name, "model": model, "audio": recordings(name, nemo_dir, folder)}
        for tag_heads in (True, False):
            file = folder / f"{name}.{tag_heads}.nemo"
            has_heads = bool(export_nemo(model, file, tag_heads=tag_heads).config.tag_labels)
            for strict in (True, False) if has_heads else (True,):
                resaved = None if has_heads else f"{file}.resaved"
                jobs.append(job | {"file": str(file), "heads": has_heads, "strict": strict, "resaved": resaved})
    return jobs


def run_nemo(jobs: list[dict], folder: Path) -> list[dict]:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [str(nemo_python()), str(TESTS / "nemo_restore.py"), "jobs.json", "results.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.nemo
@pytest.mark.skipif(nemo_python() is None, reason="NEMO_PYTHON names no interpreter that has NeMo")
def test_nemo_restores_every_export_and_writes_the_same_text(nemo_dir, tmp_path):
    jobs = nemo_jobs(nemo_dir, tmp_path)
    accepted = {}
    for job, result in zip(jobs, run_nemo(jobs, tmp_path), strict=True):
        if job["heads"] and job["strict"]:
            assert "tag_classifier" in result["error"]
            continue
        recognizer = pipeline("automatic-speech-recognition", job["model"], device="cpu", decoder=None)  # as NeMo
        assert result["texts"] == [recognizer(audio)["text"] for audio in job["audio"]] and any(result["texts"])
        if job["resaved"]:
            resaved, ours = exported_tensors(Path(job["resaved"])), exported_tensors(Path(job["file"]))
            assert resaved.keys() == ours.keys() and all(torch.equal(resaved[key], ours[key]) for key in ours)
            before, after = (read_nemo(path, scratch=tmp_path) for path in (job["file"], job["resaved"]))
            assert after.report.config.to_dict() == before.report.config.to_dict()
            assert after.sentencepiece_model == before.sentencepiece_model
            assert after.feature_extractor.to_dict() == before.feature_extractor.to_dict()
        if job["name"].startswith("options"):
            config = read_config(read_members(Path(job["file"])))
            accepted[job["name"]] = {"config": config, "shapes": result["shapes"], "class": result["class"]}
    if not ACCEPTED.exists():
        ACCEPTED.write_text(json.dumps(accepted, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    assert json.loads(ACCEPTED.read_text(encoding="utf-8")) == accepted
