"""
Layers of an optimised network: packed linear layers and convolutions, and placeholders of folded normalisations.

Packing and int8 use private operators of PyTorch. If one is missing or has changed, the ordinary operator is used
instead, with one warning.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import logging

from ..adapters_citrinet import CitrinetAdapter
from ..modeling_citrinet import BATCH_NORM_EPS, CitrinetBlock, CitrinetDepthwiseConv

logger = logging.get_logger(__name__)

_UNPACKED = (
    "This PyTorch lacks the oneDNN operators that take packed weights: ordinary ones are used, which are slower."
)


class PackedLinear(nn.Module):
    """
    Linear layer (.., C_in) -> (.., C_out) in float32, with the weight packed for oneDNN.

    Args:
        weight: (C_out, C_in).
        bias: (C_out,).
        activation: activation after it, `"none"` or `"relu"`, which is fused at no cost; in int8 also `"swish"`.
    """

    dtype = torch.float32
    saves_bias = True  # False if a normalisation layer saves the bias
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none"):
        super().__init__()
        self.activation, self.in_features = activation, weight.shape[1]
        self._pack(weight.detach().contiguous(), None if bias is None else bias.detach().clone())

    def _pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.bias = None if bias is None else bias.to(self.dtype)
        self.packed = weight.to(self.dtype)
        if computes_fast_in(self.dtype) and _works(_try_packed_linear, _UNPACKED):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.packed)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(.., C_in) -> (.., C_out)."""
        if self.packed.is_mkldnn:
            multiply = torch.ops.mkldnn._linear_pointwise
            output: torch.Tensor = multiply(hidden_states, self.packed, self.bias, self.activation, [], "")
            return output
        output = F.linear(hidden_states, self.packed, self.bias)
        return output.relu_() if self.activation == "relu" else output

    def unpacked(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (C_out, C_in) and bias (C_out,), in float32."""
        weight = self.packed.to_dense() if self.packed.is_mkldnn else self.packed
        return weight.float(), None if self.bias is None else self.bias.float()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": None, "bias": None, "unpacked_weight": self.unpacked()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight, bias = state.pop("unpacked_weight")
        self.__dict__.update(state)
        self._pack(weight, bias)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "PackedLinear":
        """Refuse to leave the CPU; when a whole model moves, its layers are replaced first."""
        if fn(torch.empty(0)).device.type != "cpu":
            raise ValueError("layers that were optimised for a CPU cannot be moved alone: move the whole model.")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> "PackedLinear":
        """Refuse to train."""
        if mode:
            raise ValueError("a model that was optimised for inference cannot be trained: load it without.")
        return super().train(mode)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        weight, bias = self.unpacked()
        destination[f"{prefix}weight"] = weight
        if bias is not None and self.saves_bias:
            destination[f"{prefix}bias"] = bias


class BFloat16Linear(PackedLinear):
    """Linear layer in bfloat16."""

    dtype = torch.bfloat16


class Int8Linear(PackedLinear):
    """Linear layer in int8: the weight quantised per output channel, the activations dynamically per tensor."""

    def _pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.bias = bias
        if not computes_int8():
            raise ValueError("this PyTorch cannot multiply in int8: load the model in float32.")
        self.scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        quantized = (weight / self.scale[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        # Without VNNI a CPU adds pairs of products in 16 bits, which must not overflow.
        self.levels = 255 if _cpu_supports("vnni") else 127

    def forward(self, hidden_states: torch.Tensor, addend: torch.Tensor | None = None) -> torch.Tensor:
        """(.., C_in) -> (.., C_out); `addend` (.., C_out) is added before the activation."""
        hidden_states = hidden_states.contiguous()
        low, high = (bound.item() for bound in torch.aminmax(hidden_states))
        low, high = min(low, 0.0), max(high, 0.0)  # zero is exact, so silence and padding do not change
        scale = max((high - low) / self.levels, 1e-12)
        zero = round(-low / scale)
        quantized = torch.quantize_per_tensor(hidden_states, scale, zero, torch.quint8)
        # A view of the integers: `int_repr` would copy them, slowly.
        storage, shape, stride = quantized.untyped_storage(), quantized.shape, quantized.stride()
        numbers = torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape, stride)
        factors = (numbers, scale, zero, self.packed, self.scale, self.zero)
        return _int8_linear(factors, self.bias, self.activation, addend)

    def unpacked(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (C_out, C_in) and bias (C_out,), in float32."""
        identity = torch.eye(self.in_features, dtype=torch.uint8)
        columns = _int8_linear((identity, 1.0, 0, self.packed, self.scale, self.zero), None, "none")
        return columns.T.contiguous(), self.bias


def _int8_linear(
    factors: tuple[Any, ...], bias: torch.Tensor | None, activation: str, addend: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Multiply quantised activations (.., C_in) by a packed weight in int8.

    Args:
        factors: the activations, their scale and zero point, the weight, its scales and zero points (C_out,).
        bias: (C_out,).
        activation: `"none"`, `"relu"` or `"swish"`.
        addend: (.., C_out) float32, added before the activation.

    Returns:
        (.., C_out) float32.
    """
    multiply, output = torch.ops.onednn.qlinear_pointwise, (1.0, 0, torch.float32)
    product: torch.Tensor
    if addend is None:
        product = multiply(*factors, bias, *output, activation, [], "")
    else:
        product = multiply.binary(*factors, addend, bias, *output, 1.0, 0, "add", 1.0, activation, [], "")
    return product


class PackedDepthwiseConv(nn.Module):
    """Depthwise convolution over time with the weight packed for oneDNN: (B, T, C) -> (B, T', C)."""

    def __init__(self, conv: CitrinetDepthwiseConv, dtype: torch.dtype):
        super().__init__()
        self.weight = conv.weight
        self.groups, self.dtype = conv.groups, dtype
        self.shape = ([0, conv.kernel_size[0] // 2], [1, conv.stride[0]], [1, 1], conv.groups)
        self._pack()

    def _pack(self) -> None:
        self.packed = self.weight.detach().to(self.dtype).unsqueeze(2)
        if computes_fast_in(self.dtype) and _works(_try_packed_conv, _UNPACKED):
            image = [1, self.groups, 1, 500]
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.packed, *self.shape, image)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T', C)."""
        image = hidden_states.transpose(1, 2).unsqueeze(2)  # see CitrinetDepthwiseConv
        if self.packed.is_mkldnn:
            image = torch.ops.mkldnn._convolution_pointwise(image, self.packed, None, *self.shape, "none", [], "")
        else:
            padding, stride, dilation, groups = self.shape
            image = F.conv2d(image, self.packed, None, stride, padding, dilation, groups)
        return image.squeeze(2).transpose(1, 2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack()


class FoldedBatchNorm(nn.Module):
    """Placeholder of a folded batch normalisation: identity here, saved as a normalisation that only adds the bias."""

    def __init__(self, bias: torch.Tensor):
        super().__init__()
        self.bias = bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return hidden states (B, T, C) unchanged."""
        return hidden_states

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        ones = torch.ones_like(self.bias)
        values = {
            "weight": ones,
            "bias": self.bias,
            "running_mean": 0 * ones,
            "running_var": (1 - BATCH_NORM_EPS) * ones,
        }
        destination.update({f"{prefix}{name}": value for name, value in values.items()})
        destination[f"{prefix}num_batches_tracked"] = torch.tensor(0)


class FoldedLayerNorm(nn.Module):
    """Layer normalisation whose scale and shift are folded into the linear layer after it."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.eps = norm.eps
        self.shift = norm.bias / norm.weight  # saved: shifts the next layer's input, in place of its folded bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        return F.layer_norm(hidden_states, hidden_states.shape[-1:], eps=self.eps)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({f"{prefix}weight": torch.ones_like(self.shift), f"{prefix}bias": self.shift})


class Int8Block(CitrinetBlock):  # type: ignore[no-untyped-call]
    """Block with a fused addition: the residual's linear layer adds the other branch and applies the activation."""

    def _with_residual(self, inputs: torch.Tensor, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.residual(inputs, addend=hidden_states.mul_(gate))
        return output


class Int8Adapter(CitrinetAdapter):
    """Adapter with a fused addition: its second linear layer adds the adapter's input."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.enabled:
            return hidden_states
        output: torch.Tensor = self.up(self.act(self.down(self.norm(hidden_states))), addend=hidden_states)
        return output


_LINEARS: dict[str, type[PackedLinear]] = {
    "float32": PackedLinear,
    "bfloat16": BFloat16Linear,
    "int8": Int8Linear,
}
PRECISIONS = tuple(_LINEARS)


def linear_for(precision: str) -> type[PackedLinear]:
    """
    The linear layer of a precision; that of float32, with a warning, if this CPU or PyTorch does not support it.

    Args:
        precision: `"float32"`, `"bfloat16"` or `"int8"`.

    Raises:
        ValueError: for an unknown precision.
    """
    if precision not in _LINEARS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision == "bfloat16" and not computes_fast_in(torch.bfloat16):
        logger.warning_once(
            "PyTorch has no fast bfloat16 for this CPU: it would take several times as long as float32, which is used "
            "instead."
        )
        return PackedLinear
    if precision == "int8" and not computes_int8():
        return PackedLinear
    return _LINEARS[precision]


def computes_fast_in(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available, and this CPU is fast in a dtype."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.float32:
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    # With AVX-512 but without its bfloat16 instructions, oneDNN emulates each by several others.
    emulated = _cpu_supports("avx512") is not False and not _cpu_supports("avx512_bf16")
    return supported is not None and supported() and not emulated


def computes_int8() -> bool:
    """Whether PyTorch multiplies in int8; warns once if it does not."""
    message = "This PyTorch has no oneDNN operators for int8: float32 is used instead."
    return _works(_try_int8_linear, message)


def _cpu_supports(instructions: str) -> bool | None:
    """Whether the CPU has these instructions; `None` if this PyTorch cannot tell."""
    check = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return None if check is None else check()


def _works(attempt: Callable[[], object], otherwise: str) -> bool:
    """Whether private operators exist and accept the arguments used here; warns once if not."""
    try:
        with warnings.catch_warnings():  # `quantize_per_tensor` is deprecated, but no supported PyTorch lacks it
            warnings.simplefilter("ignore", UserWarning)
            attempt()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        logger.warning_once(otherwise)
        return False
    return True


def _try_packed_linear() -> None:
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(2, 2))
    torch.ops.mkldnn._linear_pointwise(torch.zeros(1, 2), weight, None, "none", [], "")


def _try_packed_conv() -> None:
    shape = ([0, 1], [1, 1], [1, 1], 2)
    weight = torch.ops.mkldnn._reorder_convolution_weight(torch.zeros(2, 1, 1, 3), *shape, [1, 2, 1, 5])
    torch.ops.mkldnn._convolution_pointwise(torch.zeros(1, 2, 1, 5), weight, None, *shape, "none", [], "")


def _try_int8_linear() -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise RuntimeError("this PyTorch was built without oneDNN")
    torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
    weight = torch.ops.onednn.qlinear_prepack(torch.zeros(2, 2, dtype=torch.int8), None)
    factors = (torch.zeros(1, 2, dtype=torch.uint8), 1.0, 0, weight, torch.ones(2), torch.zeros(2, dtype=torch.long))
    _int8_linear(factors, None, "none")
    _int8_linear(factors, None, "none", torch.zeros(1, 2))
