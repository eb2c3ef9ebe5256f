"""Depthwise convolutions in training: Triton's kernels and their gradients against PyTorch's own."""

import pytest
import torch
from test_optimized import tiny_model

from citrinet.modeling_citrinet import CitrinetDepthwiseConv
from citrinet.training import depthwise
from citrinet.training.depthwise import TritonDepthwiseConv, use_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # as in test_optimized_gpu.py


@pytest.fixture
def kernels(monkeypatch):
    """On a GPU as they are compiled, else in Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from citrinet.optimized import triton_kernels

    monkeypatch.setattr(triton_kernels, "SPAN", 32)  # several parts of few frames
    monkeypatch.setattr(depthwise, "triton_kernels_for", lambda hidden_states: triton_kernels)
    return triton_kernels


def worst(found, expected):
    return (found.double().cpu() - expected).abs().max() / expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("kernel", "stride", "frames", "channels"), [(3, 1, 40, 130), (5, 2, 33, 16), (5, 2, 34, 16), (27, 1, 9, 16)]
)
def test_gradients_are_those_of_conv1d(kernels, dtype, kernel, stride, frames, channels):
    torch.manual_seed(0)
    conv = CitrinetDepthwiseConv(channels, kernel, stride).double()
    rows = torch.randn(2, frames, channels).to(dtype)
    inputs = rows.double().requires_grad_()
    expected = conv(inputs)
    slope = torch.randn_like(expected).to(dtype)
    expected.backward(slope.double())

    fast = CitrinetDepthwiseConv(channels, kernel, stride)
    fast.load_state_dict(conv.state_dict())
    use_triton(fast.to(DEVICE))
    assert type(fast) is TritonDepthwiseConv
    given = rows.to(DEVICE).requires_grad_()
    found = fast(given)
    found.backward(slope.to(DEVICE))
    assert found.dtype == given.grad.dtype == dtype and fast.weight.grad.dtype == torch.float32
    assert worst(found, expected) < ROUNDING[dtype]
    assert worst(given.grad, inputs.grad) < ROUNDING[dtype]
    assert worst(fast.weight.grad, conv.weight.grad) < 5e-6  # summed in float32 whatever the type


@pytest.mark.slow
def test_autocast_decides_the_type(kernels):
    conv = CitrinetDepthwiseConv(16, 5, 1).to(DEVICE)
    use_triton(conv)
    with torch.autocast(DEVICE, torch.bfloat16):
        output = conv(torch.randn(2, 20, 16, device=DEVICE))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert conv.weight.grad.dtype == torch.float32


@pytest.mark.slow
def test_a_network_learns_the_same(kernels):
    model, features = tiny_model().train(), torch.randn(2, 40, 8)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    batch = {"attention_mask": torch.ones(2, 40), "labels": torch.tensor([[1, 2], [3, -1]])}
    batch["attention_mask"][1, 30:] = 0
    gradients = []
    for swap in (lambda network: None, use_triton):
        swap(model)
        model.zero_grad()
        model.to(DEVICE)(
            features.to(DEVICE), **{name: value.to(DEVICE) for name, value in batch.items()}
        ).loss.backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        # Of a batch this small, normalisation makes more of the last bits.
        assert (gradients[1][name] - gradient).norm() < 2e-3 * gradient.norm() + 1e-5, name


def test_on_a_cpu_nothing_changes():
    model, features = tiny_model(), torch.randn(2, 40, 8)
    expected = model(features).logits
    use_triton(model)
    assert sum(isinstance(part, TritonDepthwiseConv) for part in model.modules()) == 6
    assert torch.equal(model(features).logits, expected)
