"""Networks for GPUs: Triton's kernels against PyTorch, and the network that calls them against the ordinary one."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_optimized import CLIPS, difference, logits, tiny_model
from torch.nn import functional as F
from transformers import AutoModelForCTC, AutoProcessor, pipeline

import citrinet
from citrinet.cli import main
from citrinet.optimized import CitrinetInferenceConfig, folding, layers, optimize_for_inference, portable
from citrinet.optimized.portable import PORTABLE_PRECISIONS, PortableLinear

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
needs_gpu = pytest.mark.skipif(not CUDA, reason="there is no CUDA device")
# Of logits, in parts of the largest: of float32 from the order of sums, else what the format leaves.
TOLERANCES = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 0.03}
# Of a kernel's output, which is rounded once, in parts of the largest: half a unit in the last place, and some.
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def kernels():
    """On a GPU as they are compiled, else in Triton's interpreter, for which `conftest.py` has set the environment."""
    pytest.importorskip("triton", minversion="3.6", reason="there is no Triton 3.6 or later")
    from citrinet.optimized import triton_kernels

    return triton_kernels


@pytest.fixture(params=["torch", pytest.param("triton", marks=pytest.mark.slow)])
def way(request, monkeypatch):
    """PyTorch's own operators on a CPU, or the kernels."""
    if request.param == "triton":
        kernels = request.getfixturevalue("kernels")
        monkeypatch.setattr(portable, "triton_kernels_for", lambda hidden_states: kernels)
    return request.param


@pytest.fixture
def warned(monkeypatch):
    """What is warned of, as often as it is said."""
    portable.logger.warning_once.cache_clear()
    portable._load_kernels.cache_clear()
    messages = []
    monkeypatch.setattr(portable.logger, "warning", lambda message, *_, **__: messages.append(message))
    yield messages
    portable._load_kernels.cache_clear()


def for_gpu(model, precision):
    """A network as it is on a GPU, on the CPU."""
    twin = copy.deepcopy(model)
    return folding.optimize(twin, precision, torch.device("cuda")).to(DEVICE)


def worst(found, expected):
    return (found.double().cpu() - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("kernel", "stride", "frames", "channels"),
    [
        (3, 1, 70, 130),
        (5, 2, 33, 16),
        pytest.param(23, 1, 9, 80, marks=pytest.mark.slow),
        (25, 2, 9, 16),
        pytest.param(41, 1, 18, 16, marks=pytest.mark.slow),
        pytest.param(41, 2, 21, 16, marks=pytest.mark.slow),
    ],
)
def test_depthwise_is_conv1d_of_masked_frames(kernels, dtype, kernel, stride, frames, channels):
    torch.manual_seed(0)
    rows = torch.randn(2, frames, channels).to(dtype)
    taps = torch.randn(kernel, channels).to(dtype)
    lengths = torch.tensor([frames // 2, frames], dtype=torch.int32)
    for given in (lengths, None):
        inputs = rows.double()
        if given is not None:
            inputs[torch.arange(frames) >= given[:, None]] = 0
        expected = F.conv1d(
            inputs.transpose(1, 2), taps.double().T[:, None], None, stride, kernel // 2, groups=channels
        ).transpose(1, 2)
        found = kernels.depthwise(rows.to(DEVICE), taps.to(DEVICE), None if given is None else given.to(DEVICE), stride)
        assert found.dtype == dtype and found.shape == expected.shape
        assert worst(found, expected) < ROUNDING[dtype]


def test_what_padding_holds_is_not_read(kernels):
    rows = torch.full((2, 20, 16), torch.nan, device=DEVICE)
    rows[0, :7], rows[1, :20] = 1.0, 2.0
    lengths = torch.tensor([7, 20], dtype=torch.int32, device=DEVICE)
    taps = torch.ones(5, 16, device=DEVICE)
    found = kernels.depthwise(rows, taps, lengths, 1)
    assert found[0, :7, 0].tolist() == [3, 4, 5, 5, 5, 4, 3] and not found.isnan().any()
    assert kernels.masked_mean(rows, lengths)[:, 3].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", ROUNDING)
def test_mean_and_gate(kernels, dtype):
    torch.manual_seed(0)
    rows, residual, gate = (torch.randn(shape).to(dtype) for shape in ((3, 70, 40), (3, 70, 40), (3, 40)))
    lengths = torch.tensor([70, 33, 0], dtype=torch.int32)
    valid = (torch.arange(70) < lengths[:, None])[..., None]
    mean = (rows.double() * valid).sum(dim=1) / lengths.clamp(min=1)[:, None]
    assert worst(kernels.masked_mean(rows.to(DEVICE), lengths.to(DEVICE)), mean) < ROUNDING[dtype]
    assert worst(kernels.masked_mean(rows.to(DEVICE), None), rows.double().mean(dim=1)) < ROUNDING[dtype]
    for other in (residual, None):
        expected = rows.double() * gate.double().sigmoid()[:, None] + (0 if other is None else other.double())
        for relu in (False, True):
            arguments = rows.to(DEVICE), None if other is None else other.to(DEVICE), gate.to(DEVICE), relu
            assert worst(kernels.gated_sum(*arguments), expected.relu() if relu else expected) < ROUNDING[dtype]


COMPILE = """
import importlib.util, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
spec = importlib.util.spec_from_file_location("kernels", sys.argv[1])  # the package takes seconds to import
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)

def compile(kernel, pointers, numbers, constants, dtype):
    signature = {name: "*i32" if name == "lengths" else f"*{dtype}" for name in pointers}
    signature |= {name: "i32" for name in numbers} | {name: "constexpr" for name in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"]

dtype = "bf16"
for group, stride in ((3, 1), (5, 2)):
    shape = {"C": 384, "GROUP": group, "STRIDE": stride, "MASKED": True}
    shape |= {"ROWS": kernels.ROWS, "CHUNKS": kernels.CHUNKS, "BLOCK_C": kernels.BLOCK_C}
    numbers = ["T", "T_OUT", "K"]
    forward = shape | {"GRADIENT": stride == 1}
    compile(kernels._depthwise_kernel, ["x", "taps", "lengths", "y"], numbers, forward, dtype)
    shape["SPAN"], numbers = kernels.SPAN, ["BATCH", "COUNT", *numbers]
    compile(kernels._depthwise_taps_kernel, ["x", "gradient", "lengths", "output"], numbers, shape, dtype)
shape = {"K": 41, "STRIDE": 2, "MASKED": True, "BLOCK_T": 16, "BLOCK_C": 128}
pointers, numbers = ["gradient", "taps", "lengths", "output"], ["T", "T_OUT", "C"]
compile(kernels._depthwise_input_kernel, pointers, numbers, shape, dtype)
blocks = {"MASKED": True, "BLOCK_T": 64, "BLOCK_C": 32}
compile(kernels._mean_kernel, ["x", "lengths", "y"], ["T", "C"], blocks, dtype)
blocks = {"RESIDUAL": True, "RELU": True, "BLOCK_T": 16, "BLOCK_C": 256}
compile(kernels._gate_kernel, ["x", "residual", "gate", "y"], ["T", "C"], blocks, dtype)
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu(kernels, monkeypatch, tmp_path):
    """What the interpreter takes, the compiler may refuse; it needs no GPU to say so."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", COMPILE, kernels.__file__], check=True)


@pytest.mark.parametrize("precision", PORTABLE_PRECISIONS)
@pytest.mark.parametrize("activation", ["relu", "silu"])
@torch.no_grad()
def test_every_kind_of_layer(way, precision, activation):
    places = {"first": "pre", "second": "post"}
    adapters = [{"name": n, "dim": 4, "norm_position": p, "activation": "swish"} for n, p in places.items()]
    model = tiny_model(hidden_act=activation, adapters=adapters)
    inputs = {"input_features": torch.randn(3, 48, 8), "attention_mask": torch.ones(3, 48)}
    inputs["attention_mask"][1, 31:] = 0
    fast = for_gpu(model, precision)
    assert not any(isinstance(part, torch.nn.BatchNorm1d) for part in fast.modules())
    for one in ("first", None):
        model.enable_adapter(one)
        fast.enable_adapter(one)
        expected = model(**inputs)
        found = fast(**{name: tensor.to(DEVICE) for name, tensor in inputs.items()})
        assert torch.equal(found.attention_mask.cpu(), expected.attention_mask)
        valid = expected.attention_mask
        assert difference(found.logits.cpu()[valid].float(), expected.logits[valid]) < TOLERANCES[precision]
        assert found.logits[1, 5].argmax() == model.config.pad_token_id  # padding says blank


@pytest.mark.slow
@pytest.mark.parametrize("precision", PORTABLE_PRECISIONS)
def test_writes_the_same_text(precision):
    model = AutoModelForCTC.from_pretrained(citrinet.default_model()).eval()
    processor = AutoProcessor.from_pretrained(citrinet.default_model())
    inputs = processor([citrinet.load_audio(clip) for clip in CLIPS], sampling_rate=16000)
    fast = for_gpu(model, precision)
    expected, found = logits(model, inputs), logits(fast, inputs.to(DEVICE)).cpu()
    assert difference(found, expected) < TOLERANCES[precision]
    agreement = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agreement == 1 if precision != "bfloat16" else agreement > 0.98
    if precision == "bfloat16":  # where two tokens are as likely as each other, the format decides
        return
    texts = [
        processor.batch_decode(network(**inputs.to(network.device)).logits.argmax(-1)) for network in (model, fast)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("precision", PORTABLE_PRECISIONS)
def test_saves_and_copies(tmp_path, precision):
    model, features = tiny_model(), torch.randn(2, 40, 8)
    fast = for_gpu(model, precision)
    expected = fast(features.to(DEVICE)).logits
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(twin(features.to(DEVICE)).logits, expected)
    fast.save_pretrained(tmp_path)
    saved = citrinet.CitrinetForCTC.from_pretrained(tmp_path, dtype=torch.float32)
    assert not any(isinstance(module, PortableLinear) for module in saved.modules())
    assert difference(saved(features).logits, expected.float().cpu()) < TOLERANCES[precision]
    with pytest.raises(ValueError, match="cannot be trained"):
        fast.train()
    with pytest.raises(ValueError, match="optimised already"):
        optimize_for_inference(fast, precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_a_network_of_the_cpu_follows_to_another_device(precision, has_bfloat16, monkeypatch):
    """As it does in `pipeline(device=0)`, which loads a model to the CPU and then moves it."""
    monkeypatch.setattr(layers, "computes_fast_in", lambda dtype: dtype == torch.float32 or has_bfloat16)
    model, features = tiny_model(), torch.randn(2, 40, 8)
    fast = optimize_for_inference(model, precision)
    assert not any(isinstance(module, PortableLinear) for module in fast.modules())
    moved = copy.deepcopy(fast).to("meta")
    wanted = getattr(torch, precision)
    assert {weight.dtype for weight in moved.parameters()} == {wanted}  # whatever the CPU had to compute in
    assert moved(features.to("meta")).logits.dtype == wanted
    fast.before_move(fast, torch.device("meta"))
    expected = for_gpu(model, precision).cpu()
    assert torch.equal(fast(features).logits, expected(features).logits)


def test_int8_stays_on_the_cpu(tiny_dir, capsys):
    fast = optimize_for_inference(tiny_model(), "int8")
    with pytest.raises(ValueError, match=r"int8 is for CPUs: use float32, float16, bfloat16 on meta\.") as refused:
        fast.to("meta")
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="int8 is for CPUs"):
        optimize_for_inference(tiny_model().to("meta"), "int8")
    fast(torch.randn(1, 40, 8))  # it is as it was
    fast.to(torch.device("cpu"))


def test_a_network_is_not_divided_between_devices(tiny_dir):
    config = CitrinetInferenceConfig()
    with pytest.raises(ValueError, match="not divided between devices"):
        AutoModelForCTC.from_pretrained(
            tiny_dir, device_map={"model": "cpu", "ctc_head": "disk"}, quantization_config=config
        )
    fast = AutoModelForCTC.from_pretrained(tiny_dir, device_map="auto", quantization_config=config)
    assert len({weight.device for weight in fast.parameters()}) == 1
    assert fast(torch.randn(1, 40, 80, device=fast.device)).logits.isfinite().all()


def test_parts_do_not_move_alone():
    fast = optimize_for_inference(tiny_model())
    with pytest.raises(ValueError, match="move the whole model"):
        fast.model.blocks[0].to("meta")


def test_float16_is_loaded_on_a_cpu_to_be_moved_and_not_to_be_used(tiny_dir, capsys):
    config = CitrinetInferenceConfig("float16")
    fast = AutoModelForCTC.from_pretrained(tiny_dir, quantization_config=config)
    assert fast.dtype == torch.float16
    assert fast(torch.randn(1, 40, 80)).logits.isfinite().all()
    with pytest.raises(ValueError, match="float16 is for GPUs: use float32, bfloat16 or int8 on a CPU"):
        citrinet.load_recognizer(tiny_dir, precision="float16")
    assert main(["transcribe", "--model", str(tiny_dir), "--precision", "float16", str(CLIPS[0])]) == 1
    assert "float16 is for GPUs" in capsys.readouterr().err


def test_without_triton_pytorch_computes_and_says_so_once(warned, monkeypatch):
    monkeypatch.setitem(sys.modules, "citrinet.optimized.triton_kernels", None)
    monkeypatch.delattr("citrinet.optimized.triton_kernels", raising=False)
    assert portable._load_kernels("cuda") is None and portable._load_kernels("cuda") is None
    assert len(warned) == 1 and "PyTorch's own operators" in warned[0]


@pytest.mark.slow
def test_kernels_with_other_numbers_are_not_used(kernels, monkeypatch):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    portable._check_kernels(kernels, device)
    for name in ("masked_mean", "gated_sum", "depthwise"):
        right = getattr(kernels, name)
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="other numbers"):
            patch.setattr(kernels, name, lambda *args, right=right: right(*args) * 1.01)
            portable._check_kernels(kernels, device)


def test_other_devices_have_no_kernels(warned):
    assert portable._load_kernels("mps") is None
    assert warned == [
        "Without Triton's kernels (there are none for mps), PyTorch's own operators are used, which are slower."
    ]


@needs_gpu
@pytest.mark.slow
@pytest.mark.parametrize("precision", PORTABLE_PRECISIONS)
def test_all_doors_lead_to_it(precision, tmp_path, capsys):
    model, config = citrinet.default_model(), CitrinetInferenceConfig(precision)
    expected = citrinet.load_recognizer(model)(str(CLIPS[0]))["text"]
    task = "automatic-speech-recognition"
    pipe = pipeline(task, model, device=0, model_kwargs={"quantization_config": config})
    loaded = AutoModelForCTC.from_pretrained(model, device_map="cuda", quantization_config=config)
    copied = optimize_for_inference(AutoModelForCTC.from_pretrained(model).cuda(), precision)
    recognizer = citrinet.load_recognizer(model, precision=precision, device="cuda")
    for network in (pipe.model, loaded, copied, recognizer.pipeline.model):
        assert network.device.type == "cuda" and network.dtype == getattr(torch, precision)
        assert any(isinstance(module, PortableLinear) for module in network.modules())
    processor = AutoProcessor.from_pretrained(model)
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    for network in (loaded, copied):
        assert pipeline(task, network, **parts)(str(CLIPS[0]))["text"] == expected
    assert pipe(str(CLIPS[0]))["text"] == recognizer(str(CLIPS[0]))["text"] == expected
    assert recognizer(np.zeros(16000, np.float32)).keys() == pipe(np.zeros(16000, np.float32)).keys()
    assert main(["transcribe", "--device", "cuda", "--precision", precision, str(CLIPS[0])]) == 0


@needs_gpu
def test_int8_is_refused_on_a_gpu(tiny_dir):
    with pytest.raises(ValueError, match="int8 is for CPUs"):
        citrinet.load_recognizer(tiny_dir, precision="int8", device="cuda")
