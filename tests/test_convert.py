"""Conversion of honest checkpoints in all their variants, and of models that cannot be represented."""

import copy
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from safetensors import SafetensorError, safe_open
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoProcessor, AutoTokenizer

from citrinet import CitrinetConfig, CitrinetForCTC
from citrinet.cli import main
from citrinet.convert import ConversionError, convert_nemo, hub, nemo_to_hf, read_nemo
from citrinet.convert.report import count_parameters
from citrinet.convert.weight_map import weight_map
from helpers import PACKAGE_ROOT
from nemo_files import (
    WEIGHTS,
    files_below,
    load_tensors,
    read_config,
    read_members,
    rewrite_nemo,
    save_tensors,
    write_nemo,
)
from tiny_models import tiny_config

HEADS = ("AGE", "DIALECT", "GENDER")
LABELS = {
    "AGE": ["NONE", "AGE_14_25", "AGE_26_40", "AGE_<14", "AGE_>41"],
    "DIALECT": ["NONE", "DIALECT_NORTH", "DIALECT_OTHERS", "DIALECT_SOUTH"],
    "GENDER": ["NONE", "GENDER_FEMALE", "GENDER_MALE"],
}


@pytest.fixture
def zh_small(nemo_dir) -> Path:
    """BPE pieces with tags, an adapter, tag heads."""
    return nemo_dir / "zh_small.nemo"


@pytest.fixture
def small(nemo_dir) -> Path:
    """Five blocks, unigram pieces, three adapters of which one is disabled; compressed."""
    return nemo_dir / "options_unigram.nemo"


def nemo_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(read_members(path)[WEIGHTS])


# --- Weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zh_small", "base_small", "options_unigram", "options_char"])
def test_every_weight_arrives_bit_by_bit_and_goes_back(nemo_dir, tmp_path, name):
    source = nemo_dir / f"{name}.nemo"
    report = convert_nemo(source, tmp_path / "out")
    theirs = nemo_tensors(source)
    ours = AutoModelForCTC.from_pretrained(tmp_path / "out").state_dict()
    rows = weight_map(report.config)
    assert {row.nemo for row in rows} == {key for key in theirs if not key.startswith("preprocessor.featurizer.")}
    assert {row.ours for row in rows} == set(ours) and len(rows) == len(ours) == report.mapped
    for row in rows:
        assert torch.equal(row.to_ours(theirs[row.nemo]), ours[row.ours]), row
        assert torch.equal(row.to_nemo(ours[row.ours]), theirs[row.nemo]), row


def test_a_model_of_ours_goes_to_nemo_and_back(tmp_path):
    torch.manual_seed(0)
    vocabulary = list("今天气北京上海 ab")
    model = CitrinetForCTC(tiny_config(vocab_size=len(vocabulary) + 1, tag_labels={})).eval()
    source = write_nemo(tmp_path / "model.nemo", model, vocabulary)
    read = read_nemo(source)
    features = torch.randn(2, 50, 8)
    with torch.no_grad():
        assert torch.equal(read.model(features).logits, model(features).logits)
    assert read.report.config.to_dict() | {"dtype": None} == model.config.to_dict() | {"dtype": None}
    assert not read.model.training


def test_parameter_counts_of_the_published_architecture():
    adapter = {"name": "lang_adapter", "dim": 256}
    config = CitrinetConfig(vocab_size=5001, adapters=[adapter], tag_labels=LABELS)
    with torch.device("meta"):
        model = CitrinetForCTC(config)
    assert count_parameters(model) == {
        "encoder": 140_173_712,
        "adapters": 12_105_728,
        "CTC head": 5_126_025,
        "tag heads": 12_300,
        "total": 157_417_765,
    }
    # 128 batch normalisations. NeMo's 284,512 count its front end (filter bank and window, 20,960) and a row of indices
    # for masks, as long as the longest audio so far (1,280), on top.
    assert sum(buffer.numel() for buffer in model.buffers()) == 284_512 - 22_240 == 128 * 2049
    names = [row.nemo for row in weight_map(config)]
    assert len(set(names)) == len(names) == 1023 - 2  # NeMo's 1023 hold the filter bank and the window


# --- Variants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_plain_or_compressed_with_or_without_leading_dot(small, tmp_path, compress, prefix):
    source = rewrite_nemo(small, tmp_path / "model.nemo", compress=compress, prefix=prefix)
    assert (source.read_bytes()[:2] == b"\x1f\x8b") == compress
    convert_nemo(source, tmp_path / "out")
    convert_nemo(small, tmp_path / "expected")
    ours, expected = files_below(tmp_path / "out"), files_below(tmp_path / "expected")
    different = {name for name in expected if ours.get(name) != expected[name]}
    assert different == {"README.md"} and ours.keys() == expected.keys()  # which names the source


@pytest.mark.parametrize("target", ["__main__.CustomEncDecCTCModelBPE", "EncDecCTCModel", "antigravity.x", None])
def test_any_target_and_none_is_imported(small, tmp_path, target):
    def change(config):
        config["target"] = target
        config["optim"] = {"_target_": "antigravity.Flying"}

    read_nemo(rewrite_nemo(small, tmp_path / "model.nemo", config=change))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("name", "language"), [("zh", "zh"), ("MANDARIN", "zh"), ("ENGLISH", "en"), ("x-y", None), ("YUE", "yue")]
)
def test_aggregate_tokenizer_of_one_language(small, tmp_path, name, language):
    def change(config):
        config["tokenizer"] = {"type": "agg", "langs": {name: config["tokenizer"]}}

    report = convert_nemo(rewrite_nemo(small, tmp_path / "model.nemo", config=change), tmp_path / "out")
    convert_nemo(small, tmp_path / "plain")
    assert report.language == language
    for file in ("tokenizer.json", "tokenizer.model"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_no_tokenizer_and_labels_at_the_top(nemo_dir, tmp_path):
    def change(config):
        config["labels"] = config["decoder"].pop("vocabulary")
        config.pop("tokenizer", None)

    source = rewrite_nemo(nemo_dir / "options_char.nemo", tmp_path / "model.nemo", config=change)
    labels = read_config(read_members(source))["labels"]
    convert_nemo(source, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer.model").exists()
    assert tokenizer.convert_ids_to_tokens(range(len(labels))) == labels
    assert tokenizer.pad_token_id == len(labels)


@pytest.mark.slow
def test_pieces_appended_to_the_vocabulary(zh_small, tmp_path):
    """Training code appends `▁TAG` pieces, which no `.model` holds, and moves the blank behind them."""
    new = ["▁EMOTION_HAPPY", "▁EMOTION_SAD"]

    def grow(weights):
        for part in ("weight", "bias"):
            key = f"decoder.decoder_layers.0.{part}"
            weights[key] = torch.cat([weights[key][:-1], torch.ones(2, *weights[key].shape[1:]), weights[key][-1:]])
        weights["tag_classifier.heads.EMOTION.weight"] = torch.zeros(3, 48)
        weights["tag_classifier.heads.EMOTION.bias"] = torch.zeros(3)

    def extend(config):
        config["decoder"]["vocabulary"] += new
        config["decoder"]["num_classes"] += 2

    source = rewrite_nemo(zh_small, tmp_path / "model.nemo", config=extend, weights=grow)
    report = convert_nemo(source, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(new) == [512, 513] and tokenizer.pad_token_id == 514
    assert report.config.vocab_size == 515 and report.config.pad_token_id == 514
    assert report.config.tag_labels == LABELS | {"EMOTION": ["NONE", "EMOTION_HAPPY", "EMOTION_SAD"]}
    assert 513 in tokenizer("EMOTION_SAD")["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lang_adapter", "mandarin_adapter", "a-1"])
def test_any_adapter_name(zh_small, tmp_path, name):
    def rename(weights):
        return {key.replace("adapter_layer.zh.", f"adapter_layer.{name}."): value for key, value in weights.items()}

    def change(config):
        config["adapters"][name] = config["adapters"].pop("zh")

    read = read_nemo(rewrite_nemo(zh_small, tmp_path / "model.nemo", config=change, weights=rename))
    assert [adapter["name"] for adapter in read.report.config.adapters] == [name]
    weight = read.model.state_dict()[f"model.blocks.22.adapters.{name}.up.weight"]
    assert torch.equal(weight, nemo_tensors(zh_small)["encoder.encoder.22.adapter_layer.zh.module.3.weight"])


def test_adapters_keep_order_position_and_state(small):
    read = read_nemo(small)
    described = [
        (a["name"], a["dim"], a["norm_position"], a["activation"], a["enabled"]) for a in read.report.config.adapters
    ]
    assert described == [
        ("zh_pre", 8, "pre", "silu", True),
        ("domain_post", 12, "post", "relu", True),
        ("unused", 4, "pre", "silu", False),
    ]
    assert [adapter.enabled for adapter in read.model.model.blocks[0].adapters.values()] == [True, True, False]
    assert str(read.report).count("disabled") == 1


def test_no_adapters_section(nemo_dir):
    assert read_nemo(nemo_dir / "base_small.nemo").report.config.adapters == []


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["tag_classifier.heads.", "heads."])
def test_tag_heads_in_a_member_of_their_own(zh_small, tmp_path, prefix):
    heads = {}

    def take(weights):
        for key in [key for key in weights if key.startswith("tag_classifier.")]:
            heads[key.replace("tag_classifier.heads.", prefix)] = weights.pop(key)

    def put(members):
        members["tag_classifier.pt"] = save_tensors(heads)

    read = read_nemo(rewrite_nemo(zh_small, tmp_path / "model.nemo", weights=take, members=put))
    expected = read_nemo(zh_small).model.state_dict()
    for key, value in read.model.state_dict().items():
        assert torch.equal(value, expected[key])
    assert sorted(read.report.config.tag_labels) == list(HEADS)


def test_stated_labels_without_heads_are_no_heads(zh_small, tmp_path):
    """So NeMo leaves a file that it has loaded with `strict=False` and saved."""

    def strip(weights):
        return {key: value for key, value in weights.items() if not key.startswith("tag_classifier.")}

    read = read_nemo(rewrite_nemo(zh_small, tmp_path / "model.nemo", weights=strip))
    assert read.report.config.tag_labels == {} and "tag heads" not in read.report.parameters


def without_stated_labels(config):
    config.pop("tag_classifier")


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["", "▁"])
def test_labels_are_rebuilt_from_the_vocabulary(zh_small, tmp_path, boundary):
    def change(config):
        without_stated_labels(config)
        vocabulary = config["decoder"]["vocabulary"]
        tags = {label for labels in LABELS.values() for label in labels}
        config["decoder"]["vocabulary"] = [boundary + token if token in tags else token for token in vocabulary]

    config = read_nemo(rewrite_nemo(zh_small, tmp_path / "model.nemo", config=change)).report.config
    assert config.tag_labels == LABELS and list(config.tag_labels) == sorted(LABELS)


@pytest.mark.parametrize("numbered", [False, True])
def test_label_map_comes_before_the_vocabulary(zh_small, tmp_path, numbered):
    labels = {category: ["NONE", *reversed(names[1:])] for category, names in LABELS.items()}
    content = {c: {str(i): name for i, name in enumerate(names)} for c, names in labels.items()} if numbered else labels
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert read_nemo(zh_small, tag_labels=tmp_path / "labels.json").report.config.tag_labels == labels


@pytest.mark.slow
def test_label_map_serves_where_the_vocabulary_does_not(zh_small, tmp_path):
    def shorten(weights):
        weights["tag_classifier.heads.AGE.weight"] = weights["tag_classifier.heads.AGE.weight"][:2].clone()
        weights["tag_classifier.heads.AGE.bias"] = weights["tag_classifier.heads.AGE.bias"][:2].clone()

    source = rewrite_nemo(zh_small, tmp_path / "model.nemo", config=without_stated_labels, weights=shorten)
    with pytest.raises(ConversionError, match=r"AGE head has 2 outputs but 5 labels are known .*--tag-labels"):
        read_nemo(source)
    (tmp_path / "labels.json").write_text(json.dumps(LABELS | {"AGE": ["YOUNG", "OLD"]}))
    config = read_nemo(source, tag_labels=tmp_path / "labels.json").report.config
    assert config.tag_labels == LABELS | {"AGE": ["YOUNG", "OLD"]}


def test_junk_is_ignored_by_name_and_listed(small, tmp_path):
    def litter(weights):
        weights["_tag_labels"] = torch.zeros(3, dtype=torch.int32)
        weights["_val_tag_labels"] = {"AGE": 1}
        weights["loss.weight"] = torch.full((2,), torch.nan)

    report = read_nemo(rewrite_nemo(small, tmp_path / "model.nemo", weights=litter)).report
    members = {name for name in read_members(small) if name.endswith("vocab.txt") or name.endswith(".vocab")}
    assert set(report.ignored) == {"_tag_labels", "_val_tag_labels", "loss.weight"} | members
    assert all(f"ignored: {name}" in str(report) for name in report.ignored)


def test_report_says_what_was_mapped_and_checked(zh_small, tmp_path):
    report = convert_nemo(zh_small, tmp_path / "out")
    assert len(report.checked) == 2
    assert "checked: preprocessor.featurizer.fb equals ours within" in str(report)
    assert "checked: preprocessor.featurizer.window equals ours within" in str(report)
    assert f"mapped: {report.mapped} tensors" in str(report) and report.mapped == 1021
    assert f"written: {tmp_path / 'out'}" in str(report)
    assert "SONG_NAME" in report.entities


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_another_type(small, tmp_path, dtype):
    def cast(weights):
        return {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}

    read = read_nemo(rewrite_nemo(small, tmp_path / "model.nemo", weights=cast))
    theirs, state = cast(nemo_tensors(small)), read.model.state_dict()
    for row in weight_map(read.report.config):
        expected, ours = row.to_ours(theirs[row.nemo]), state[row.ours]
        assert torch.equal(ours, expected.to(ours.dtype)) and ours.dtype in (torch.float32, torch.int64)


def test_weights_inside_a_training_checkpoint(small, tmp_path):
    source = rewrite_nemo(small, tmp_path / "model.nemo", weights=lambda w: {"state_dict": dict(w), "epoch": 3})
    assert read_nemo(source).report.mapped == read_nemo(small).report.mapped


def test_kernels_come_from_factor_and_kernel_as_nemo_rounds_them():
    pairs = [(5, 1.0), (11, 0.25), (17, 0.25), (41, 0.25), (1, 0.25), (12, 1.0), (4, 0.5)]
    from citrinet.convert.nemo_config import _effective_kernel

    assert [_effective_kernel(*pair) for pair in pairs] == [5, 3, 5, 11, 1, 13, 3]


def test_residual_mode_holds_for_the_blocks_that_follow(small, tmp_path):
    def change(config):
        first, *others = [block for block in config["encoder"]["jasper"] if block.get("residual")]
        assert len(others) > 0 and any(block["stride"] == [2] for block in others)
        for block in others:
            block.pop("residual_mode", None)
        first["residual_mode"] = "stride_add"

    assert read_nemo(rewrite_nemo(small, tmp_path / "model.nemo", config=change)).report.mapped == 153


@pytest.mark.parametrize("future", [-1, 2, 5, 100])
def test_future_context_that_is_even_padding(small, tmp_path, future):
    def change(config):
        assert config["encoder"]["jasper"][0]["kernel"] == [5]
        config["encoder"]["jasper"][0]["future_context"] = future

    read_nemo(rewrite_nemo(small, tmp_path / "model.nemo", config=change))


def test_front_end_settings(small, tmp_path):
    def change(config):
        preprocessor = config["preprocessor"]
        preprocessor |= {
            "sample_rate": 8000,
            "window_size": 0.02,
            "window_stride": 0.0125,
            "n_fft": None,
            "preemph": None,
        }

    def drop(weights):
        del weights["preprocessor.featurizer.fb"], weights["preprocessor.featurizer.window"]

    source = rewrite_nemo(small, tmp_path / "model.nemo", config=change, weights=drop)
    report = convert_nemo(source, tmp_path / "out", frontend="nemo-2.4")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    settings = {name: getattr(extractor, name) for name in ("sampling_rate", "win_length", "hop_length", "n_fft")}
    assert settings == {"sampling_rate": 8000, "win_length": 160, "hop_length": 100, "n_fft": 256}
    assert (extractor.preemphasis, extractor.frontend) == (0.0, "nemo-2.4")
    assert report.config.hop_length == 100 and report.checked == []
    assert "8 kHz" in (tmp_path / "out" / "README.md").read_text()


# --- Refusals ---------------------------------------------------------------------------------------------------------


def setting(path, value):
    """A change of one value of the configuration."""

    def change(config):
        *parents, last = path.split(".")
        for name in parents:
            config = config[int(name) if name.isdigit() else name]
        config[last] = value

    return change


REFUSED_CONFIGS = {
    "transducer decoder": (setting("decoder._target_", "nemo.collections.asr.modules.RNNTDecoder"), "RNNTDecoder"),
    "joint": (setting("joint", {"_target_": "x"}), "`joint`.*transducers"),
    "hybrid": (setting("aux_ctc", {"decoder": {}}), "`aux_ctc`"),
    "conformer": (setting("encoder._target_", "nemo.collections.asr.modules.ConformerEncoder"), "ConformerEncoder"),
    "no encoder": (lambda config: config.pop("encoder") and None, "encoder is a nameless class"),
    "no blocks": (setting("encoder.jasper", []), "encoder.jasper"),
    "masks off": (setting("encoder.conv_mask", False), "conv_mask"),
    "other activation": (setting("encoder.activation", "swish"), "encoder.activation.*'swish'"),
    "spliced frames": (setting("encoder.frame_splicing", 2), "frame_splicing"),
    "group norm": (setting("encoder.normalization_mode", "group"), "normalization_mode"),
    "not separable": (setting("encoder.jasper.1.separable", False), r"jasper\[1\].separable"),
    "separable not said": (lambda config: config["encoder"]["jasper"][1].pop("separable") and None, "separable"),
    "no squeeze": (setting("encoder.jasper.1.se", False), r"jasper\[1\].se"),
    "groups": (setting("encoder.jasper.1.groups", 2), "groups"),
    "heads": (setting("encoder.jasper.1.heads", 4), "heads"),
    "dense": (setting("encoder.jasper.1.residual_dense", True), "residual_dense"),
    "dilation": (setting("encoder.jasper.2.dilation", [2]), "dilated"),
    "two kernels": (setting("encoder.jasper.2.kernel", [3, 5]), r"kernel` is \[3, 5\]"),
    "every repeat strides": (setting("encoder.jasper.1.stride_last", False), "stride_last"),
    "residual beside stride": (setting("encoder.jasper.1.residual_mode", "add"), "residual_mode"),
    "residual max": (setting("encoder.jasper.2.residual_mode", "max"), "residual_mode: max"),
    "future context": (setting("encoder.jasper.0.future_context", 1), "future_context"),
    "kernel factor": (setting("encoder.jasper.1.kernel_size_factor", 1.0), r"encoder\.encoder\.1\.mconv\.0.*has shape"),
    "other filters": (setting("encoder.jasper.2.filters", 32), "has shape"),
    "one repeat more": (setting("encoder.jasper.2.repeat", 3), "weights are missing"),
    "one repeat less": (setting("encoder.jasper.2.repeat", 1), "missing|no place"),
    "many repeats": (setting("encoder.jasper.2.repeat", 1_000_000), "layers, the file only"),
    "true for a number": (setting("encoder.jasper.0.repeat", True), r"jasper\[0\].repeat` is True"),
    "a number for true": (setting("encoder.jasper.2.residual", 1), r"jasper\[2\].residual` is 1"),
    "many filters": (setting("encoder.jasper.2.filters", 10**15), "filters"),
    "reduction": (setting("encoder.jasper.2.se_reduction_ratio", 4), "differ in"),
    "block missing": (lambda config: config["encoder"]["jasper"].pop() and None, "no place in the network"),
    "residual lost": (setting("encoder.jasper.2.residual", False), "no place in the network"),
    "tokens too few": (
        lambda config: config["decoder"]["vocabulary"].pop() and None,
        "decoder_layers.0.weight has shape",
    ),
    "token twice": (lambda config: config["decoder"]["vocabulary"].__setitem__(3, "▁") or None, "twice"),
    "no tokens": (setting("decoder.vocabulary", []), "tokens are unknown"),
    "two languages": (setting("tokenizer", {"langs": {"zh": {}, "en": {}}}), "2 languages"),
    "word pieces": (setting("tokenizer.type", "wpe"), "'wpe'"),
    "no tokenizer file": (setting("tokenizer.model_path", "nemo:elsewhere.model"), "elsewhere.model"),
    "tokenizer without a path": (setting("tokenizer.model_path", None), "no SentencePiece model"),
    "other adapter": (setting("adapters.zh_pre._target_", "nemo.x.MultiHeadAttentionAdapter"), "only a LinearAdapter"),
    "other strategy": (setting("adapters.zh_pre.adapter_strategy", {"_target_": "x.ReturnResult"}), "strategy"),
    "adapter activation": (setting("adapters.zh_pre.activation", "hardtanh"), "activation 'hardtanh'"),
    "norm position": (setting("adapters.zh_pre.norm_position", "both"), "norm_position"),
    "adapter unknown": (lambda config: config["adapters"].pop("unused") and None, "no place in the network"),
    "mfcc": (setting("preprocessor._target_", "nemo.x.AudioToMFCCPreprocessor"), "AudioToMFCCPreprocessor"),
    "normalize": (setting("preprocessor.normalize", "all_features"), "normalize.*all_features"),
    "not normalised": (setting("preprocessor.normalize", None), "normalize"),
    "window": (setting("preprocessor.window", "hamming"), "hamming"),
    "exact pad": (setting("preprocessor.exact_pad", True), "exact_pad"),
    "lowfreq": (setting("preprocessor.lowfreq", 60), "lowfreq"),
    "highfreq": (setting("preprocessor.highfreq", 4000), "highfreq.*8000"),
    "features": (setting("preprocessor.features", 64), "64 features"),
    "window size": (setting("preprocessor.window_size", 0.02), "featurizer.window has another shape"),
    "fft too small": (setting("preprocessor.n_fft", 256), "n_fft"),
    "rate of another bank": (setting("preprocessor.sample_rate", 8000), "featurizer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED_CONFIGS)
def test_what_cannot_be_represented_is_refused(small, tmp_path, case):
    change, message = REFUSED_CONFIGS[case]
    source = rewrite_nemo(small, tmp_path / "model.nemo", config=change)
    check_refusal(source, tmp_path, message)


def check_refusal(source, tmp_path, message, **options):
    before = files_below(tmp_path)
    with pytest.raises(ConversionError, match=message) as caught:
        convert_nemo(source, tmp_path / "missing" / "out", **options)
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path) == before


def replaced(key, function):
    def change(weights):
        weights[key] = function(weights[key])

    return change


BIAS = "decoder.decoder_layers.0.bias"
SQUEEZE = "encoder.encoder.2.mconv.8.fc.0.weight"
FB = "preprocessor.featurizer.fb"
REFUSED_WEIGHTS = {
    "missing": (lambda w: w.pop(BIAS) is None or None, "1 weights are missing.*decoder_layers.0.bias"),
    "left over": (lambda w: w.update({"decoder.extra": torch.zeros(1)}), "1 weights have no place.*decoder.extra"),
    "unknown layer": (lambda w: w.update({"encoder.encoder.9.mconv.0.conv.weight": torch.zeros(1)}), "no place"),
    "nan": (replaced(BIAS, lambda t: t.index_fill(0, torch.tensor([3]), torch.nan)), "bias holds NaN or infinite"),
    "infinite": (replaced(SQUEEZE, lambda t: t * torch.inf), "fc.0.weight holds NaN or infinite"),
    "shape": (replaced(BIAS, lambda t: t[None]), "has shape"),
    "whole numbers": (replaced(BIAS, lambda t: t.long()), "numbers of type torch.int64"),
    "other filter bank": (replaced(FB, lambda t: t * 1.01), "trained on other features"),
    "nan in the filter bank": (replaced(FB, lambda t: t * torch.nan), "trained on other features"),
    "shape of the filter bank": (replaced(FB, lambda t: t[..., :-1].clone()), "another shape"),
    "window": (
        replaced("preprocessor.featurizer.window", lambda t: torch.hann_window(400)),
        "trained on other features",
    ),
    "mlp in front of the heads": (
        lambda w: w.update({"tag_classifier.feature_extractor.0.weight": torch.zeros(2, 2)}),
        "only linear heads",
    ),
    "attention pooling": (lambda w: w.update({"tag_classifier.attention.weight": torch.zeros(2)}), "only linear heads"),
    "head without labels": (
        lambda w: w.update({f"tag_classifier.heads.EMOTION.{p}": torch.zeros(4) for p in ("weight", "bias")}),
        "EMOTION head has 4 outputs but 1 labels are known .*--tag-labels",
    ),
    "head of no shape": (
        lambda w: w.update({f"tag_classifier.heads.EMOTION.{p}": torch.zeros(()) for p in ("weight", "bias")}),
        "EMOTION head has 0 outputs",
    ),
}


@pytest.mark.parametrize("case", REFUSED_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(small, tmp_path, case):
    change, message = REFUSED_WEIGHTS[case]
    source = rewrite_nemo(small, tmp_path / "model.nemo", weights=change)
    check_refusal(source, tmp_path, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"language": "zh\nlicense: mit"}, "language"),
        ({"frontend": "nemo-1"}, "frontend"),
    ],
)
def test_options_that_do_not_exist_are_refused(small, tmp_path, options, message):
    check_refusal(small, tmp_path, message, **options)


def test_an_adapter_name_that_pytorch_does_not_allow(small, tmp_path):
    def rename(weights):
        return {key.replace("adapter_layer.unused.", "adapter_layer.train."): value for key, value in weights.items()}

    def change(config):
        config["adapters"]["train"] = config["adapters"].pop("unused")

    source = rewrite_nemo(small, tmp_path / "model.nemo", config=change, weights=rename)
    check_refusal(source, tmp_path, "name that PyTorch does not allow.*train")


@pytest.mark.parametrize("labels", [{"AGE": ["a"]}, LABELS | {"X": ["a"]}, LABELS | {"AGE": LABELS["AGE"][1:]}])
def test_label_maps_that_disagree_are_refused(zh_small, tmp_path, labels):
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    check_refusal(zh_small, tmp_path, "has heads for|AGE head has 5 outputs but 4", tag_labels=tmp_path / "labels.json")


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype(small, tmp_path, dtype):
    convert_nemo(small, tmp_path / "out", dtype=dtype)
    theirs = nemo_tensors(small)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as stored:
        for row in weight_map(CitrinetConfig.from_pretrained(tmp_path / "out")):
            tensor = stored.get_tensor(row.ours)
            counter = row.ours.endswith("num_batches_tracked")
            assert tensor.dtype == (torch.int64 if counter else getattr(torch, dtype)), row
            assert torch.equal(tensor, row.to_ours(theirs[row.nemo]).to(tensor.dtype)), row
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


def test_values_beyond_the_dtype_are_refused(small, tmp_path):
    source = rewrite_nemo(small, tmp_path / "model.nemo", weights=replaced(BIAS, lambda t: t + 1e6))
    check_refusal(source, tmp_path, "too large for torch.float16.*--dtype", dtype="float16")
    convert_nemo(source, tmp_path / "out", dtype="bfloat16")


@pytest.mark.slow
def test_repository_is_complete(zh_small, tmp_path):
    output = tmp_path / "out"
    convert_nemo(zh_small, output)
    config = json.loads((output / "config.json").read_text())
    classes = {"AutoConfig", "AutoModel", "AutoModelForCTC", "AutoFeatureExtractor", "AutoTokenizer", "AutoProcessor"}
    assert set(config["auto_map"]) == classes
    for names in config["auto_map"].values():
        for name in filter(None, names if isinstance(names, list) else [names]):
            module, kind = name.split(".")
            assert re.search(rf"^class {kind}\b", (output / f"{module}.py").read_text(), re.MULTILINE)
    for module in output.glob("*.py"):
        for name in re.findall(r"^\s*from \.(\w+) import", module.read_text(), re.MULTILINE):
            assert (output / f"{name}.py").is_file(), f"{module.name} needs {name}"
    assert len({file.stat().st_mode for file in output.iterdir()}) == 1
    members = read_members(zh_small)
    model = next(content for name, content in members.items() if name.endswith("tokenizer.model"))
    assert (output / "tokenizer.model").read_bytes() == model
    for file in ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((output / file).read_text())
    processor = AutoProcessor.from_pretrained(output)
    assert type(processor).__name__ == "CitrinetProcessor"
    assert processor.tokenizer.pad_token_id == config["pad_token_id"] == config["vocab_size"] - 1
    assert json.loads((output / "preprocessor_config.json").read_text())["frontend"] == "nemo-2.5"


@pytest.mark.slow
@pytest.mark.parametrize("language", [None, "zh", "no"])
def test_model_card(zh_small, tmp_path, language):
    report = convert_nemo(zh_small, tmp_path / "my-model", language=language)
    card = (tmp_path / "my-model" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata.get("language") == language
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "automatic-speech-recognition")
    assert "license" not in metadata and "`license:`" in card  # left to whoever publishes it
    model = AutoModelForCTC.from_pretrained(tmp_path / "my-model")
    sizes = {
        "encoder": sum(p.numel() for n, p in model.model.named_parameters() if ".adapters." not in n),
        "adapters": sum(p.numel() for n, p in model.model.named_parameters() if ".adapters." in n),
        "CTC head": sum(p.numel() for p in model.ctc_head.parameters()),
        "tag heads": sum(p.numel() for p in model.tag_heads.parameters()),
        "total": sum(p.numel() for p in model.parameters()),
    }
    assert report.parameters == sizes
    for part, size in sizes.items():
        assert f"| {part} | {size:,} |" in card
    assert "| blocks | 23 |" in card and "| adapters | zh (16) |" in card
    for category, labels in LABELS.items():
        assert f"| {category} | {', '.join(f'`{label}`' for label in labels)} |" in card
    assert "`SONG_NAME`" in card and 'pipeline("automatic-speech-recognition", "path/to/my-model")' in card


@pytest.mark.parametrize("installed", [True, False])
def test_model_card_says_where_the_package_is(small, tmp_path, monkeypatch, installed):
    """As its metadata has it, and nothing where there is none."""

    def metadata(_: str) -> Message:
        if not installed:
            raise importlib.metadata.PackageNotFoundError
        facts = Message()
        facts["Project-URL"] = "Issues, https://example.org/issues"
        facts["Project-URL"] = "Repository, https://example.org/citrinet"
        return facts

    monkeypatch.setattr(importlib.metadata, "metadata", metadata)
    convert_nemo(small, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("with [citrinet](https://example.org/citrinet)." in card) == installed
    assert ("# pip install git+https://example.org/citrinet; or leave" in card) == installed
    assert ("with citrinet." in card and "# or leave" in card) != installed
    assert "issues" not in card and "pypi.org" not in card


@pytest.mark.slow
def test_names_from_the_file_cannot_break_the_model_card(zh_small, tmp_path):
    labels = copy.deepcopy(LABELS)
    labels["AGE"][1] = "a|b`c\n# d"
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    convert_nemo(zh_small, tmp_path / "out", tag_labels=tmp_path / "labels.json")
    assert "| AGE | `NONE`, `a\\|b'c # d`," in (tmp_path / "out" / "README.md").read_text()


# --- Replacing, failing, being killed ---------------------------------------------------------------------------------


def test_an_existing_folder_needs_force_and_other_files_are_kept(small, tmp_path):
    output = tmp_path / "out"
    convert_nemo(small, output)
    with pytest.raises(FileExistsError, match="--force"):
        convert_nemo(small, output)
    (output / "config.json").write_text("old")
    convert_nemo(small, output, force=True)
    assert json.loads((output / "config.json").read_text())
    (output / "notes.txt").write_text("mine")
    before = files_below(tmp_path)
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r"holds notes.txt"):
            convert_nemo(small, output, force=force)
    assert files_below(tmp_path) == before


def test_force_never_takes_the_input_or_the_current_folder_with_it(small, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    work.mkdir()
    (work / "m.nemo").write_bytes(small.read_bytes())
    (work / "labels.json").write_text("{}")
    monkeypatch.chdir(work)
    before = files_below(tmp_path)
    for output in (".", "..", str(work), "../work", "m.nemo"):
        assert main(["convert", "m.nemo", output, "--force"]) == 1
        assert re.fullmatch(
            r"citrinet: .*(holds the input|the current folder|is the input).*\n", capsys.readouterr().err
        )
    assert main(["convert", str(small), "../work", "--tag-labels", "labels.json", "--force"]) == 1
    assert "holds the input" in capsys.readouterr().err
    assert files_below(tmp_path) == before


def test_a_trained_model_and_another_programs_are_not_replaced(small, tmp_path):
    """They hold files of the same names, which may have taken days to make."""
    model = CitrinetForCTC(tiny_config())
    model.save_pretrained(tmp_path / "trained")
    (tmp_path / "wav2vec2").mkdir()
    (tmp_path / "wav2vec2" / "config.json").write_text('{"model_type": "wav2vec2"}')
    before = files_below(tmp_path)
    for name in ("trained", "wav2vec2"):
        with pytest.raises(FileExistsError, match="is not a converted model"):
            convert_nemo(small, tmp_path / name, force=True)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(small, tmp_path, force):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="is no folder"):
        convert_nemo(small, tmp_path / "out", force=force)
    assert files_below(tmp_path) == {"out": b"mine"}


def test_missing_parents_are_made_on_success(small, tmp_path):
    convert_nemo(small, tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "config.json").is_file()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def interrupted(self, folder, **kwargs):
    assert any(Path(folder).iterdir())  # half of it is there
    raise KeyboardInterrupt


def disk_full(self, folder, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("accident", "error"), [(interrupted, KeyboardInterrupt), (disk_full, "no space left .* out needs about 1 MB")]
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_while_writing_leaves_everything_as_it_was(small, tmp_path, monkeypatch, accident, error, existing):
    if existing:
        convert_nemo(small, tmp_path / "out")
    before = files_below(tmp_path)
    monkeypatch.setattr(CitrinetForCTC, "save_pretrained", accident)
    for output in (tmp_path / "out", tmp_path / "new" / "out"):
        with pytest.raises(OSError, match=error) if isinstance(error, str) else pytest.raises(error):
            convert_nemo(small, output, force=True)
    assert files_below(tmp_path) == before


def test_a_failed_conversion_with_force_leaves_the_old_folder(small, tmp_path):
    source = rewrite_nemo(small, tmp_path / "model.nemo", weights=replaced(BIAS, lambda t: t * torch.nan))
    convert_nemo(small, tmp_path / "out")
    before = files_below(tmp_path)
    with pytest.raises(ConversionError, match="NaN"):
        convert_nemo(source, tmp_path / "out", force=True)
    assert files_below(tmp_path) == before


_SLOW_CONVERSION = """
import sys, time
from citrinet import CitrinetForCTC
from citrinet.cli import main

def save_forever(self, folder, **kwargs):
    print("writing", flush=True)
    time.sleep(600)

CitrinetForCTC.save_pretrained = save_forever
sys.exit(main(["convert", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_killed_conversion_leaves_no_output_and_a_terminated_one_nothing(small, tmp_path):
    signals = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM")}
    command = [sys.executable, "-c", _SLOW_CONVERSION, str(small)]
    processes = {}
    for name in signals:
        (tmp_path / name).mkdir()
        environment = {"PYTHONPATH": str(PACKAGE_ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        processes[name] = subprocess.Popen(
            [*command, str(tmp_path / name / "out")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    try:
        for process in processes.values():
            assert process.stdout.readline() == "writing\n", process.communicate()
        for name, process in processes.items():
            assert any((tmp_path / name).iterdir())
            process.send_signal(signals[name])
        errors = {name: process.communicate(timeout=60)[1] for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert not (tmp_path / "SIGKILL" / "out").exists()
    assert list((tmp_path / "SIGTERM").iterdir()) == []
    codes = {name: process.returncode for name, process in processes.items()}
    assert codes == {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143}, errors


class FakeHub:
    """Stands for the Hub: remembers what it is asked for, and refuses what a test says."""

    calls: list = []
    refuses = ""

    def answer(self, what, *facts):
        self.calls.append((what, *facts))
        if what == self.refuses:
            raise OSError("403 Forbidden: you have read access only.\nRequest ID: 1")

    def create_repo(self, repository, exist_ok):
        self.answer("create", repository, exist_ok)
        return SimpleNamespace(repo_id=repository if "/" in repository else f"me/{repository}")

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.answer("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir()))


@pytest.fixture
def fake_hub(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    return FakeHub


@pytest.mark.parametrize("name", ["me/model", "model"])
def test_push_to_hub_uploads_the_finished_folder(small, tmp_path, fake_hub, capsys, name):
    assert main(["convert", str(small), str(tmp_path / "out"), "--push-to-hub", name]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    expected = [("create", name, True), ("upload", "me/model", names)]
    assert fake_hub.calls == expected
    assert '"me/model"' in (tmp_path / "out" / "README.md").read_text()
    assert "mapped: 153 tensors" in capsys.readouterr().out


ASCII_ONLY = pytest.mark.skipif(huggingface_hub.__version__ < "2", reason="huggingface_hub before 2.0 lets it pass")
CHINESE = pytest.param("我/模型", marks=ASCII_ONLY)


@pytest.mark.parametrize("name", ["a/b/c", "me/", "/model", "me/mo del", "-x/y", "me/model.git", CHINESE, "x" * 97])
def test_a_malformed_hub_name_is_refused_before_anything_is_asked_or_written(small, tmp_path, fake_hub, capsys, name):
    assert main(["convert", str(small), str(tmp_path / "out"), f"--push-to-hub={name}"]) == 1
    assert re.fullmatch(r"citrinet: .*is no name of a Hub repository.*\n", capsys.readouterr().err)
    assert not fake_hub.calls and not any(tmp_path.iterdir())


def test_a_hub_that_refuses_does_so_before_the_work(small, tmp_path, fake_hub, monkeypatch, capsys):
    monkeypatch.setattr(fake_hub, "refuses", "create")
    monkeypatch.setattr(nemo_to_hf, "read_nemo", lambda *args, **kwargs: pytest.fail("the work began"))
    assert main(["convert", str(small), str(tmp_path / "out"), "--push-to-hub", "them/model"]) == 1
    line = r"citrinet: them/model cannot be written on the Hub: 403 Forbidden: you have read access only; .*hf auth login.*\n"
    assert re.fullmatch(line, capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


def test_a_failed_upload_leaves_the_finished_folder_and_says_how_to_go_on(small, tmp_path, fake_hub, monkeypatch):
    monkeypatch.setattr(fake_hub, "refuses", "upload")
    with pytest.raises(OSError, match=r"out is written, but not uploaded: 403 .*hf upload me/model") as caught:
        convert_nemo(small, tmp_path / "out", push_to_hub="me/model")
    assert "\n" not in str(caught.value) and (tmp_path / "out" / "model.safetensors").is_file()


class Refusal(BaseHTTPRequestHandler):
    """The Hub's answer to whoever is not logged in."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self):
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("running", [True, False])
def test_the_hubs_own_client_without_a_token_or_a_network(small, tmp_path, monkeypatch, capsys, running):
    server = HTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    if not running:
        server.shutdown()
        server.server_close()
    assert main(["convert", str(small), str(tmp_path / "out"), "--push-to-hub", "me/model"]) == 1
    if running:
        server.shutdown()
        server.server_close()
    assert re.fullmatch(r"citrinet: me/model cannot be written on the Hub: .*\n", capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


def test_reading_gives_the_report_of_a_conversion_that_wrote_nothing(small, tmp_path):
    read, converted = read_nemo(small).report, convert_nemo(small, tmp_path / "out")
    assert str(converted) == f"{read}\nwritten: {tmp_path / 'out'}"
