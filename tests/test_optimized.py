"""Folded, packed and quantised networks: the same text, and what they may not do."""

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCTC, AutoProcessor, pipeline

import citrinet
from citrinet.optimized import PRECISIONS, CitrinetInferenceConfig, folding, layers, optimize_for_inference
from citrinet.optimized.layers import Int8Linear, PackedLinear
from tiny_models import tiny_config

CLIPS = sorted((Path(__file__).parent.parent / "examples").glob("*.flac"))
# Largest difference of logits on the clips, in parts of the largest logit: of float32 from the order of sums, else what
# the format leaves.
TOLERANCES = {"float32": 2e-5, "bfloat16": 0.03, "int8": 0.08}
SHARES = {"float32": 1.0, "bfloat16": 1.0, "int8": 0.98}  # a character a frame sooner changes two frames wholly


@pytest.fixture(scope="module")
def model():
    return AutoModelForCTC.from_pretrained(citrinet.default_model()).eval()


@pytest.fixture(scope="module")
def inputs():
    processor = AutoProcessor.from_pretrained(citrinet.default_model())
    return processor([citrinet.load_audio(clip) for clip in CLIPS], sampling_rate=16000)


def tiny_model(**kwargs):
    """A network whose normalisations and adapters do something."""
    torch.manual_seed(0)
    model = citrinet.CitrinetForCTC(tiny_config(**kwargs)).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and ("norm" in name or "adapters" in name):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


@torch.no_grad()
def logits(model, inputs):
    """Logits of valid frames, one utterance after another."""
    output = model(**inputs)
    lengths = -(-inputs["attention_mask"].sum(1) // (model.config.inputs_to_logits_ratio // model.config.hop_length))
    return torch.cat([row[:length].float() for row, length in zip(output.logits, lengths.tolist(), strict=True)])


def difference(found, expected, share=1.0):
    """Largest difference in a share of the frames (N, V), those that agree best, in parts of the largest value."""
    by_frame = (found - expected).float().abs().flatten(1).amax(1)
    return by_frame.quantile(share) / expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_agrees_with_the_ordinary_model(model, inputs, precision):
    expected, found = logits(model, inputs), logits(optimize_for_inference(model, precision), inputs)
    assert difference(found, expected, SHARES[precision]) < TOLERANCES[precision]
    agreement = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agreement == 1 if precision == "float32" else agreement > 0.98


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("base", [False, True])
def test_every_kind_of_layer_is_folded(precision, base):
    model = tiny_model()
    model = model.model if base else model
    features = {"input_features": torch.randn(3, 48, 8), "attention_mask": torch.ones(3, 48)}
    features["attention_mask"][1, 31:] = 0
    fast = optimize_for_inference(model, precision)
    left = {name for name, part in fast.named_modules() if isinstance(part, (torch.nn.BatchNorm1d, torch.nn.Linear))}
    assert all("tag_heads" in name for name in left)
    expected, found = (network(**features)[0][[0, 2]].float() for network in (model, fast))
    assert difference(found, expected) < {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}[precision]


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
@torch.no_grad()
def test_fused_adds_change_nothing(activation, monkeypatch):
    places = {"first": "pre", "second": "post"}
    adapters = [{"name": n, "dim": 4, "norm_position": p, "activation": activation} for n, p in places.items()]
    model, features = tiny_model(hidden_act=activation, adapters=adapters), torch.randn(2, 48, 8)
    fast = optimize_for_inference(model, "int8")
    monkeypatch.setattr(folding, "_fuse_adds", lambda block: None)
    plain = optimize_for_inference(model, "int8")
    for enabled in ("first", "second", None):
        fast.enable_adapter(enabled)
        plain.enable_adapter(enabled)
        # Where the last bit of a sum differs, a number may be quantised to the next level.
        assert difference(fast(features).logits, plain(features).logits) < 0.02


@torch.no_grad()
def test_int8_adds_and_activates_inside():
    rows, weight, bias, plus = torch.randn(3, 7, 32), torch.randn(16, 32), torch.randn(16), torch.randn(3, 7, 16)
    plain = Int8Linear(weight, bias)(rows)
    assert torch.allclose(Int8Linear(weight, bias)(rows, plus), plain + plus, atol=1e-5)
    assert torch.allclose(Int8Linear(weight, bias, "relu")(rows, plus), (plain + plus).relu(), atol=1e-5)
    assert torch.allclose(Int8Linear(weight, bias, "swish")(rows), torch.nn.functional.silu(plain), atol=1e-5)


@pytest.mark.slow
def test_bfloat16_is_float32_where_the_cpu_has_none(model, inputs, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    fast = optimize_for_inference(model, "bfloat16")
    assert fast.dtype == torch.float32
    assert torch.equal(logits(fast, inputs), logits(optimize_for_inference(model), inputs))


def test_a_scale_of_zero_is_not_folded():
    model = tiny_model()
    for block in model.model.blocks:
        block.adapters["first"].norm.weight.data[3] = 0
    features = torch.randn(1, 40, 8)
    assert torch.allclose(optimize_for_inference(model)(features).logits, model(features).logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_utterance_is_the_same_alone_and_in_a_batch(model, precision):
    processor = AutoProcessor.from_pretrained(citrinet.default_model())
    clips = [citrinet.load_audio(clip) for clip in CLIPS]
    fast = optimize_for_inference(model, precision)
    alone = torch.cat([logits(fast, processor(clip, sampling_rate=16000)) for clip in clips])
    batch = logits(fast, processor(clips, sampling_rate=16000))
    # In int8 the activations of a batch share a scale: both are off, each in its own way.
    sides = 2 if precision == "int8" else 1
    assert difference(alone, batch, SHARES[precision]) < sides * TOLERANCES[precision]
    assert (alone.argmax(-1) == batch.argmax(-1)).float().mean() > 1 - sides * 0.02


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_loads_saves_and_copies(model, inputs, tmp_path, precision):
    inputs = {name: rows[:3] for name, rows in inputs.items()}
    config = CitrinetInferenceConfig(precision)
    fast = AutoModelForCTC.from_pretrained(citrinet.default_model(), quantization_config=config)
    expected = logits(fast, inputs)
    assert torch.equal(expected, logits(optimize_for_inference(model, precision), inputs))
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(expected, logits(twin, inputs))
    fast.save_pretrained(tmp_path)
    saved = AutoModelForCTC.from_pretrained(tmp_path, dtype=torch.float32)
    assert not any(isinstance(module, PackedLinear) for module in saved.modules())
    assert difference(logits(saved, inputs), expected, SHARES[precision]) < TOLERANCES[precision]
    saved.train()


def test_the_model_itself_stays_trainable_and_the_copy_is_not(model, inputs):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = optimize_for_inference(model, "int8")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="cannot be trained"):
        fast.train()
    with pytest.raises(ValueError, match="optimised already"):
        optimize_for_inference(fast)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_folded_weights_leave_the_memory_and_no_other_model(tmp_path, monkeypatch):
    tiny_model(hidden_sizes=[1024] * 4).save_pretrained(tmp_path)
    file = str(tmp_path / "model.safetensors")
    other = AutoModelForCTC.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        changed = [weight.add_(1).clone() for weight in other.parameters()]
    assert in_memory(file)[0] > 0.9 * Path(file).stat().st_size
    resident = []
    monkeypatch.setattr(folding, "keep_free_memory", lambda: resident.extend(in_memory(file)))
    AutoModelForCTC.from_pretrained(tmp_path, quantization_config=CitrinetInferenceConfig("float32"))
    assert len(resident) == 2
    assert min(resident) < 0.2 * Path(file).stat().st_size
    assert all(torch.equal(weight, before) for weight, before in zip(other.parameters(), changed, strict=True))


def in_memory(file):
    """Bytes of a file that are in the memory of this process, for every time it is mapped."""
    found, wanted = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        wanted = line.endswith(file) or (wanted and not line.startswith("VmFlags"))
        if wanted and line.startswith("Rss:"):
            found.append(1024 * int(line.split()[1]))
    return found


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="one of float32, bfloat16, int8"):
        CitrinetInferenceConfig("int4")


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_pipeline_gives_the_same_text(precision):
    kwargs = {"quantization_config": CitrinetInferenceConfig(precision)}
    fast = pipeline("automatic-speech-recognition", citrinet.default_model(), model_kwargs=kwargs)
    plain = pipeline("automatic-speech-recognition", citrinet.default_model())
    silence = np.zeros(16000, np.float32)
    for audio in (str(CLIPS[0]), silence):
        found, expected = fast(audio), plain(audio)
        assert found.keys() == expected.keys()
        if precision == "float32":
            assert found["text"] == expected["text"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_onednn_the_numbers_are_the_same(model, inputs, precision, monkeypatch):
    expected = logits(optimize_for_inference(model, precision), inputs)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert difference(logits(optimize_for_inference(model, precision), inputs), expected) < TOLERANCES[precision]


class Without:
    """`torch.ops` of a PyTorch that lacks private operators, or has changed them."""

    def __init__(self, namespace, missing):
        self.namespace, self.missing = namespace, missing

    def __getattr__(self, name):
        if name in self.missing:
            raise AttributeError(name)
        return getattr(self.namespace, name)


@pytest.fixture
def warned(monkeypatch):
    """What `optimized` warns of, as often as it is said."""
    layers.logger.warning_once.cache_clear()
    messages = []
    monkeypatch.setattr(layers.logger, "warning", lambda message, *_, **__: messages.append(message))
    return messages


OPERATORS = {
    "_reorder_linear_weight": ("mkldnn", PRECISIONS),
    "_linear_pointwise": ("mkldnn", PRECISIONS),
    "_reorder_convolution_weight": ("mkldnn", PRECISIONS),
    "_convolution_pointwise": ("mkldnn", PRECISIONS),
    "_is_mkldnn_bf16_supported": ("mkldnn", ["bfloat16"]),
    "qlinear_prepack": ("onednn", ["int8"]),
    "qlinear_pointwise": ("onednn", ["int8"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_missing_private_operator_is_replaced_and_named_once(operator, monkeypatch, warned):
    namespace, precisions = OPERATORS[operator]
    model, features = tiny_model(), torch.randn(2, 48, 8)
    monkeypatch.setattr(torch.ops, namespace, Without(getattr(torch.ops, namespace), {operator}))
    for precision in precisions:
        fast = optimize_for_inference(model, precision)
        tolerance = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}[precision]
        assert difference(fast(features).logits.float(), model(features).logits) < tolerance
        assert difference(pickle.loads(pickle.dumps(fast))(features).logits, fast(features).logits) == 0
    assert len(warned) == 1


def test_a_private_operator_with_other_arguments_is_replaced(monkeypatch, warned):
    changed = Without(torch.ops.mkldnn, ())
    changed._linear_pointwise = lambda rows, weight: None
    model, features = tiny_model(), torch.randn(2, 48, 8)
    monkeypatch.setattr(torch.ops, "mkldnn", changed)
    assert difference(optimize_for_inference(model)(features).logits, model(features).logits) < 1e-5
    assert len(warned) == 1


@pytest.mark.parametrize("check", ["_is_avx512_supported", "_is_avx512_bf16_supported", "_is_vnni_supported"])
def test_a_pytorch_that_does_not_say_what_the_cpu_has(check, monkeypatch):
    model, features = tiny_model(), torch.randn(2, 48, 8)
    monkeypatch.delattr(torch.cpu, check)
    for precision in PRECISIONS:
        fast = optimize_for_inference(model, precision)
        tolerance = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.1}[precision]
        assert difference(fast(features).logits.float(), model(features).logits) < tolerance


@pytest.mark.slow
def test_int8_without_onednn_is_float32(model, inputs, monkeypatch, warned):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    fast = optimize_for_inference(model, "int8")
    assert torch.equal(logits(fast, inputs), logits(optimize_for_inference(model), inputs))
    assert warned == ["This PyTorch has no oneDNN operators for int8: float32 is used instead."]


def test_an_int8_layer_needs_the_operators_for_it(monkeypatch):
    kept = pickle.dumps(Int8Linear(torch.randn(4, 8)))
    monkeypatch.setattr(torch.ops, "onednn", Without(torch.ops.onednn, {"qlinear_prepack"}))
    with pytest.raises(ValueError, match="float32"):
        pickle.loads(kept)
    with pytest.raises(ValueError, match="float32"):
        Int8Linear(torch.randn(4, 8))


@torch.no_grad()
def test_folding_keeps_what_a_linear_layer_and_its_normalisation_do():
    linear, norm = torch.nn.Linear(6, 5, bias=False).double(), torch.nn.BatchNorm1d(5, eps=1e-3).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand_like(tensor) + 0.5)
    rows = torch.randn(7, 6, dtype=torch.float64)
    weight, bias = folding.fold_batch_norm(linear, norm)
    assert torch.allclose(
        torch.nn.functional.linear(rows, weight.double(), bias.double()), norm(linear(rows)), atol=1e-6
    )


@pytest.mark.parametrize("arguments", [{"precison": "int8"}, {"precision": "int8", "dtype": "int8"}, {"bits": 8}])
def test_a_misspelt_argument_is_refused(arguments):
    with pytest.raises(TypeError, match=str(list(arguments)[-1])):
        CitrinetInferenceConfig(**arguments)


def test_the_configuration_survives_a_round_trip():
    config = CitrinetInferenceConfig("int8")
    assert CitrinetInferenceConfig.from_dict(config.to_dict()).precision == "int8"
    with pytest.raises(ValueError, match="quant_method"):
        CitrinetInferenceConfig(quant_method="awq")
