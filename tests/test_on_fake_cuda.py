"""
The way to a result on a GPU with tensors that have no numbers but know their device: needs no GPU.

PyTorch refuses to compute with tensors of two devices, and cannot read numbers of these tensors, for which a CPU would
wait. It does not refuse copies between devices that the CPU waits for; they are listed.
"""

import contextlib
import types

import numpy as np
import pytest
import torch
from test_optimized import tiny_model
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import pipeline

import citrinet
from citrinet.feature_extraction_citrinet import FRONTENDS
from citrinet.optimized import folding, graphs, portable
from citrinet.optimized.portable import PORTABLE_PRECISIONS
from citrinet.training.depthwise import use_triton

GPU = torch.device("cuda", 0)
NOISE = np.random.default_rng(0).standard_normal((2, 24000)).astype(np.float32)


class Copies(TorchDispatchMode):
    """Lists copies between devices: those that the CPU waits for, and all."""

    def __init__(self):
        super().__init__()
        self.waiting, self.all = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.name().startswith("aten::to."):  # in inference mode it arrives whole
            with self:
                return function.decompose(*args, **kwargs)
        output = function(*args, **kwargs)
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if function is torch.ops.aten.copy_.default else args[0]
            if source.device.type != output.device.type:
                self.all.append((source.device.type, tuple(source.shape)))
                if not (kwargs.get("non_blocking") or args[2:] == (True,)):
                    self.waiting.append(self.all[-1])
        return output


@pytest.fixture
def fake(monkeypatch):
    """Where tensors have no numbers."""
    here = types.SimpleNamespace(record_event=lambda: types.SimpleNamespace(synchronize=lambda: None))
    for name in ("device", "device_of"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    for name in ("current_stream", "default_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: here)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with torch.device("meta"):  # PyTorch keeps a list of the functions that make tensors from its first use on
        torch.empty(0)
    for name in ("zeros", "tensor", "empty"):
        monkeypatch.setattr(torch, name, _without_pinning(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    return FakeTensorMode()


def _without_pinning(make):
    return lambda *args, pin_memory=False, **kwargs: make(*args, **kwargs)


class Kernels:
    """Stand-ins for the Triton kernels, which would misread tensors that these refuse."""

    @staticmethod
    def _check(*tensors, lengths=None):
        assert len({tensor.dtype for tensor in tensors}) == 1
        assert all(tensor.is_contiguous() and tensor.device == GPU for tensor in tensors)
        assert lengths is None or (lengths.dtype == torch.int32 and lengths.is_contiguous() and lengths.device == GPU)

    @classmethod
    def depthwise(cls, hidden_states, taps, lengths, stride):
        cls._check(hidden_states, taps, lengths=lengths)
        return hidden_states.new_empty(len(hidden_states), -(-hidden_states.shape[1] // stride), taps.shape[1])

    @classmethod
    def masked_mean(cls, hidden_states, lengths):
        cls._check(hidden_states, lengths=lengths)
        return hidden_states.new_empty(len(hidden_states), hidden_states.shape[2])

    @classmethod
    def gated_sum(cls, hidden_states, residual, gate, relu):
        cls._check(hidden_states, gate, *([] if residual is None else [residual]))
        assert residual is None or residual.shape == hidden_states.shape
        return torch.empty_like(hidden_states)


@pytest.fixture(params=[None, Kernels], ids=["torch", "triton"])
def kernels(request, monkeypatch):
    """PyTorch's own operators, or stand-ins for the kernels."""
    monkeypatch.setattr(portable, "_load_kernels", lambda device: request.param)
    return request.param


def on_gpu(model, mode):
    """The network with weights without numbers on a GPU."""
    for module in model.modules():
        for weights in (module._parameters, module._buffers):
            for name, weight in weights.items():
                if weight is not None:
                    with mode:
                        moved = torch.empty(weight.shape, dtype=weight.dtype, device=GPU)
                    is_parameter = weights is module._parameters
                    weights[name] = torch.nn.Parameter(moved, weight.requires_grad) if is_parameter else moved
    return model


def network(mode, precision, **config):
    """A folded network, or with `None` the ordinary one."""
    model = tiny_model(**config)
    return on_gpu(model if precision is None else folding.optimize(model, precision, GPU), mode)


def batch():
    mask = torch.ones(2, 48, dtype=torch.int32, device=GPU)
    return {"input_features": torch.randn(2, 48, 8, device=GPU), "attention_mask": mask}


def test_this_finds_what_it_should(fake):
    with fake, Copies() as copies:
        here, there = torch.ones(3), torch.ones(3, device=GPU)
        with pytest.raises(RuntimeError, match="device"):
            here + there
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
        here.to(GPU)
        there.copy_(here)
        there.cpu()
        here.to(GPU, non_blocking=True)
        there.copy_(here, non_blocking=True)
    assert copies.waiting == [("cpu", (3,)), ("cpu", (3,)), ("cuda", (3,))] and len(copies.all) == 5


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_features(fake, frontend):
    extractor = citrinet.CitrinetFeatureExtractor(frontend=frontend)
    with fake, Copies() as copies:
        found = extractor([NOISE[0], NOISE[1, :9000]], return_tensors="pt", device="cuda")
    assert {tensor.device for tensor in found.values()} == {GPU}
    assert copies.waiting == []


@pytest.mark.parametrize("precision", [None, *PORTABLE_PRECISIONS])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@torch.inference_mode()
def test_network_and_heads(fake, kernels, precision, activation, monkeypatch):
    monkeypatch.setattr(graphs.GraphedBlocks, "max_frames", 0)
    model = network(fake, precision, hidden_act=activation)
    with fake, Copies() as copies:
        for inputs in (batch(), batch() | {"attention_mask": None}):
            output = model(**inputs)
            tags = model.classify_tags(output.last_hidden_state, output.attention_mask)
            assert {tensor.device for tensor in (output.logits, *tags.values())} == {GPU}
            assert output.logits.dtype == (torch.float32 if precision is None else getattr(torch, precision))
    assert copies.all == []


def test_forward_in_training(fake, kernels):
    model = tiny_model(freq_masks=1, time_masks=1).train()
    use_triton(model)
    on_gpu(model, fake)
    with fake, Copies() as copies:
        assert model(**batch()).logits.requires_grad
    assert copies.all == []


@torch.no_grad()
def test_nothing_in_a_graph_is_copied_from_a_cpu(fake, kernels, monkeypatch):
    model, captured = network(fake, "bfloat16"), []

    def capture(blocks, features, mask, place):
        with Copies() as copies:
            output = graphs.run_in_turn(blocks, features, mask)
        captured.append(copies.all)
        return graphs.Graph(features, mask, output, lambda: None)

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "RUNS_BEFORE_CAPTURE", 0)
    monkeypatch.setattr(graphs, "_new_place", object)
    with fake, Copies() as copies:
        assert model(**batch()).logits.device == GPU
    assert captured == [[]] and copies.all == []


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_pipeline_waits_only_for_its_results(fake, kernels, tiny_dir, precision):
    recognizer = pipeline("automatic-speech-recognition", str(tiny_dir))
    model = recognizer.model if precision is None else folding.optimize(recognizer.model, precision, GPU)
    recognizer.model, recognizer.device = on_gpu(model, fake), GPU
    with fake, Copies() as copies:
        windows = recognizer._windows([NOISE[0], NOISE[1, :9000]], 2, np.inf, {})
        ((outputs, known),) = recognizer._batch_outputs([list(windows)], {})
    assert len(known) == 2 and "tokens" in outputs
    assert all(tensor.device.type == "cpu" for tensor in outputs.values())
    assert copies.waiting == []
