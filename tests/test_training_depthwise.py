"""Separable convolutions in training: Triton's kernels and their gradients against PyTorch's own, masks included."""

import pytest
import torch
from test_optimized import tiny_model
from torch import nn

from citrinet.modeling_citrinet import CitrinetDepthwiseConv, CitrinetSeparableConv
from citrinet.training import depthwise
from citrinet.training.depthwise import TritonSeparableConv, use_triton
from tiny_models import TWO_BLOCKS

pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # as in test_optimized_gpu.py


@pytest.fixture
def kernels(monkeypatch):
    """On a GPU as they are compiled, else in Triton's interpreter."""
    pytest.importorskip("triton", minversion="3.6", reason="there is no Triton 3.6 or later")
    from citrinet.optimized import triton_kernels

    monkeypatch.setattr(triton_kernels, "SPAN", 32)  # several parts of few frames
    monkeypatch.setattr(depthwise, "triton_kernels_for", lambda hidden_states: triton_kernels)
    return triton_kernels


def worst(found, expected):
    return (found.double().cpu() - expected).abs().max() / expected.abs().max()


def only_depthwise(channels, kernel, stride):
    """A separable convolution of which only the depthwise part computes."""
    conv = CitrinetSeparableConv(channels, channels, kernel, stride, nn.Identity())
    conv.pointwise = conv.norm = nn.Identity()
    return conv


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("kernel", "stride", "lengths", "frames", "channels"),
    [
        (3, 1, None, 40, 130),  # an utterance in two parts
        (5, 2, (33, 20), 33, 16),
        (5, 2, (0, 34), 34, 16),
        (9, 1, (9, 4, 7, 1), 9, 16),  # three in a part
    ],
)
def test_gradients_are_those_of_masked_conv1d(kernels, dtype, kernel, stride, lengths, frames, channels):
    torch.manual_seed(0)
    conv = only_depthwise(channels, kernel, stride).double()
    mask = None if lengths is None else torch.arange(frames) < torch.tensor(lengths)[:, None]
    rows = torch.randn(len(lengths or (1, 2)), frames, channels).to(dtype)
    if mask is not None:
        rows[~mask] = torch.nan
    inputs = rows.double().requires_grad_()
    expected, out_mask = conv(inputs, mask)
    slope = torch.randn_like(expected).to(dtype)
    expected.backward(slope.double())

    fast = only_depthwise(channels, kernel, stride)
    fast.load_state_dict(conv.state_dict())
    use_triton(fast.to(DEVICE))
    assert type(fast) is TritonSeparableConv
    given = rows.to(DEVICE).requires_grad_()
    found, found_mask = fast(given, None if mask is None else mask.to(DEVICE))
    found.backward(slope.to(DEVICE))
    weight = fast.depthwise.weight
    assert found.dtype == given.grad.dtype == dtype and weight.grad.dtype == torch.float32
    assert found_mask is None if mask is None else torch.equal(found_mask.cpu(), out_mask)
    assert worst(found, expected) < ROUNDING[dtype]
    assert worst(given.grad, inputs.grad) < ROUNDING[dtype]
    assert mask is None or not given.grad.cpu()[~mask].any()
    assert worst(weight.grad, conv.depthwise.weight.grad) < 5e-6  # summed in float32 whatever the type


@pytest.mark.slow
def test_autocast_decides_the_type(kernels):
    conv = only_depthwise(16, 5, 1).to(DEVICE)
    use_triton(conv)
    with torch.autocast(DEVICE, torch.bfloat16):
        output, _ = conv(torch.randn(2, 20, 16, device=DEVICE), None)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert conv.depthwise.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_only_gradients_that_are_needed_are_computed(kernels, frozen, monkeypatch):
    conv = only_depthwise(16, 5, 1).to(DEVICE)
    use_triton(conv)
    rows = torch.randn(2, 9, 16, device=DEVICE, requires_grad=frozen == "weight")
    conv.requires_grad_(frozen == "input")
    needless = {"input": "depthwise_input_gradient", "weight": "depthwise_taps_gradient"}[frozen]
    monkeypatch.setattr(kernels, needless, lambda *_: pytest.fail("computed"))
    conv(rows, None)[0].sum().backward()
    assert (rows if frozen == "weight" else conv.depthwise.weight).grad.abs().sum() > 0


def learnt(model, checkpoints):
    """Gradients of a training step, without dropout."""
    torch.manual_seed(0)
    model.to(DEVICE).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    if checkpoints:
        model.gradient_checkpointing_enable({"use_reentrant": checkpoints == "reentrant"})
    batch = {"attention_mask": torch.ones(2, 40), "labels": torch.tensor([[1, 2], [3, -1]])}
    batch["attention_mask"][1, 30:] = 0
    batch = {"input_features": torch.randn(2, 40, 8), **batch}
    model(**{name: tensor.to(DEVICE) for name, tensor in batch.items()}).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [None, "reentrant", "other"])
def test_a_network_learns_the_same(kernels, checkpoints):
    expected, model = learnt(tiny_model(**TWO_BLOCKS), None), tiny_model(**TWO_BLOCKS)
    use_triton(model)
    found = learnt(model, checkpoints)
    assert found.keys() == expected.keys() and any(".depthwise." in name for name in found)
    for name, gradient in expected.items():
        # Of a batch this small, normalisation makes more of the last bits.
        assert (found[name] - gradient).norm() < 2e-3 * gradient.norm() + 1e-5, name


def test_on_a_cpu_nothing_changes():
    model, features = tiny_model(), torch.randn(2, 40, 8)
    mask = torch.arange(40) < torch.tensor([[40], [29]])
    expected = model(features, mask).logits
    use_triton(model)
    assert sum(isinstance(part, TritonSeparableConv) for part in model.modules()) == 6
    assert torch.equal(model(features, mask).logits, expected)


def test_another_layer_in_place_of_the_depthwise_convolution_is_called(kernels):
    conv = only_depthwise(16, 5, 1)
    use_triton(conv)

    class Doubled(CitrinetDepthwiseConv):
        def forward(self, hidden_states):
            return 2 * super().forward(hidden_states)

    rows = torch.randn(1, 9, 16)
    expected = 2 * conv.depthwise(rows)
    conv.depthwise.__class__ = Doubled
    assert torch.equal(conv(rows, None)[0], expected)
