"""Models that cannot be loaded: each fault in one line that says what to do."""

import json
import os
import re
import shutil

import httpx
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import GatedRepoError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import BertConfig, Wav2Vec2Config, WhisperConfig

import citrinet
from citrinet.checkpoint import load_network, load_processor
from citrinet.recognition import check_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(zh_small_dir, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(zh_small_dir, tmp_path / "model")


def line(model, **kwargs):
    """The line with which a model is refused."""
    with pytest.raises((OSError, ValueError)) as caught:
        citrinet.load_recognizer(model, **kwargs)
    text = str(caught.value).removeprefix("[Errno")
    assert len(text) < 400 and "\n" not in text
    return text


def _cut_off(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def _pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def _shards(folder):
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:100], "model-00002-of-00002.safetensors": names[100:]}
    for part, held in parts.items():
        safetensors.torch.save_file({name: tensors[name] for name in held}, folder / part, {"format": "pt"})
    weight_map = {name: part for part, held in parts.items() for name in held}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    (folder / WEIGHTS).unlink()
    return list(parts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_pointer, "Git LFS pointer.*git lfs pull"),
        (os.remove, r"holds no weights \(model.safetensors\)"),
        (_cut_off, "weights cannot be read, copy or download them again"),
        (lambda path: path.write_bytes(b""), "weights cannot be read"),
        (lambda path: path.write_bytes(os.urandom(3000)), "weights cannot be read"),
    ],
)
def test_weights_that_are_none(model, damage, said):
    damage(model / WEIGHTS)
    assert re.search(said, line(model))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["half", "more", "other shape"])
def test_weights_of_another_network(model, change, capfd):
    tensors = safetensors.torch.load_file(model / WEIGHTS)
    if change == "half":
        tensors = {name: tensors[name] for name in sorted(tensors)[::2]}
    elif change == "more":
        tensors["model.blocks.99.weight"] = torch.zeros(2)
    else:
        tensors["ctc_head.bias"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, model / WEIGHTS, {"format": "pt"})
    said = {
        "half": "missing",
        "more": "1 unexpected, such as model.blocks.99",
        "other shape": "1 mismatched, such as ctc_head.bias",
    }
    assert "not those of its configuration" in (text := line(model)) and said[change] in text
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.slow
def test_weights_in_parts(model):
    parts = _shards(model)
    citrinet.load_recognizer(model, optimized=False)
    (model / parts[1]).unlink()
    assert f"lacks {parts[1]}" in line(model)
    _pointer(model / parts[0])
    assert "Git LFS pointer" in line(model)
    (model / f"{WEIGHTS}.index.json").write_text("{}")
    (model / parts[0]).unlink()
    assert "weight_map" in line(model)


def test_a_tokenizer_that_is_missing(model):
    (model / "tokenizer.json").unlink()
    assert line(model) == f"{model} holds no tokenizer.json: copy or download the whole model."


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", '{"a":' * 100_000, "version https://git-lfs"])
def test_descriptions_that_are_damaged(model, name, content):
    (model / name).write_text(content)
    assert name in line(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"strides": "two"}, {"hidden_sizes": None}, {"kernel_sizes": [1]}, {"vocab_size": -4}]
)
def test_a_configuration_of_wrong_values(model, change):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **change}))
    assert str(model) in line(model)


@pytest.mark.slow
def test_a_tokenizer_that_is_not_the_networks(model, base_small_dir):
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        shutil.copy(base_small_dir / name, model / name)
    if len(load_processor(str(base_small_dir)).tokenizer) != load_network(str(model)).config.vocab_size:
        assert "tokenizer is not that of the network" in line(model)
    (model / "tokenizer_config.json").unlink()  # without it, blanks would be written
    assert "tokenizer is not that of the network" in line(model)


def test_files_and_folders_that_are_no_model(nemo_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nemo = nemo_dir / "zh_small.nemo"
    assert f"citrinet convert {nemo}" in line(nemo)
    (tmp_path / "holds").mkdir()
    shutil.copy(nemo, tmp_path / "holds" / "my.nemo")
    assert "citrinet convert holds/my.nemo" in line("holds")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in line("empty")
    (tmp_path / "a.txt").touch()
    assert "is a file" in line("a.txt")
    assert "no such file" in line("gone.nemo")
    for name in ("", " ", "\n"):
        assert "empty" in line(name)
    (tmp_path / "config.json").write_text("{}")
    assert "model_type" in line(tmp_path)
    assert "empty" in line("")  # not the current folder


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "./none", "a/b/c", "~/none", "https://huggingface.co/a/b", "a b", "x" * 300, "C:\\m", "a/"],
)
def test_names_that_no_repository_has(name):
    assert "no such folder" in line(name) and "owner/name" in line(name)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "the Hub cannot be reached" in line("nobody/nothing")


_ANSWER = httpx.Response(404, request=httpx.Request("GET", "http://localhost"))


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (
            RepositoryNotFoundError("Repository Not Found for url: ...", response=_ANSWER),
            "no such repository on the Hub",
        ),
        (GatedRepoError("Access to model is restricted", response=_ANSWER), "hf auth login"),
        (LocalEntryNotFoundError("not in the cache"), "the Hub cannot be reached"),
        (HTTPError("timed out"), "the Hub cannot be reached"),
        (HTTPError("reset by peer"), "the Hub cannot be reached"),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_the_hub_answers(cause, said, wrapped, monkeypatch):
    def from_pretrained(*_, **__):
        if not wrapped:
            raise cause
        raise OSError("a long explanation\n" * 50) from cause

    monkeypatch.setattr("citrinet.checkpoint.AutoConfig.from_pretrained", from_pretrained)
    assert said in line("owner/name") and "owner/name" in line("owner/name")


@pytest.mark.parametrize("config", [BertConfig(), Wav2Vec2Config(), WhisperConfig()])
def test_other_libraries_models(config, tmp_path):
    config.save_pretrained(tmp_path / "other")
    torch.save({}, tmp_path / "other" / "pytorch_model.bin")
    assert f"is a {config.model_type} model, not a Citrinet" in line(tmp_path / "other")
    if config.model_type == "bert":
        assert "does not recognise speech" in line(tmp_path / "other", citrinet_only=False)
    else:
        check_model(tmp_path / "other", citrinet_only=False)


@pytest.mark.parametrize("device", ["tpu9", "CUDA", "", "cpu:x", "meta"])
def test_devices_that_are_none(zh_small_dir, device):
    assert "device" in line(zh_small_dir, device=device)


@pytest.mark.parametrize(("device", "said"), [("cuda", "finds no cuda device"), ("cuda:99", "finds no cuda device")])
def test_a_machine_without_gpu(zh_small_dir, device, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in line(zh_small_dir, device=device)


def test_a_gpu_too_many(zh_small_dir, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "finds 2 of cuda" in line(zh_small_dir, device="cuda:2")


def test_models_are_checked_without_reading_them(zh_small_dir, model, tmp_path, monkeypatch):
    monkeypatch.setattr("citrinet.checkpoint.CitrinetForCTC.from_pretrained", lambda *_, **__: pytest.fail("was read"))
    check_model(zh_small_dir)
    (model / WEIGHTS).unlink()
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    (graphs / "model.onnx").touch()  # the rest is missing
    for wrong, kwargs in ((model, {}), (graphs, {}), ("nix/none/x", {}), (zh_small_dir, {"precision": "int4"})):
        with pytest.raises((OSError, ValueError)):
            check_model(wrong, **kwargs)
