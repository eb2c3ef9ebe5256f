"""
Layers of a folded network that run on any device, for GPUs.

Between matrix products they use the kernels of `triton_kernels.py` if Triton works, otherwise PyTorch's own operators;
hidden states keep their memory layout (B, T, C). The depthwise convolution itself reads frames beyond an utterance as
zeros, given the number of valid frames: batches are padded on the right.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation
from transformers.utils import logging

from .. import modeling_citrinet
from ..adapters_citrinet import CitrinetAdapter
from ..modeling_citrinet import CitrinetBlock
from .layers import PRECISIONS, PackedLinear

logger = logging.get_logger(__name__)


class PortableLinear(PackedLinear):
    """Linear layer (.., C_in) -> (.., C_out) in float32, with an ordinary weight, on any device."""

    weight: nn.Parameter

    def _pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = nn.Parameter(weight.to(self.dtype), requires_grad=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.to(self.dtype), False))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(.., C_in) -> (.., C_out)."""
        if self.activation == "none":
            return F.linear(hidden_states, self.weight, self.bias)
        fused = getattr(torch, "_addmm_activation", None)  # private: fuses the product, bias and ReLU
        if fused is None or self.bias is None or hidden_states.dtype != self.weight.dtype:
            return F.linear(hidden_states, self.weight, self.bias).relu_()
        rows = hidden_states.reshape(-1, self.in_features)
        output: torch.Tensor = fused(self.bias, rows, self.weight.t()).view(*hidden_states.shape[:-1], -1)
        return output

    def unpacked(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (C_out, C_in) and bias (C_out,), in float32."""
        return self.weight.float(), None if self.bias is None else self.bias.float()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "PortableLinear":
        """Move or cast the layer, which [`PackedLinear`] refuses."""
        nn.Module._apply(self, fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)  # type: ignore[no-untyped-call]


class PortableFloat16Linear(PortableLinear):
    """Linear layer in float16."""

    dtype = torch.float16


class PortableBFloat16Linear(PortableLinear):
    """Linear layer in bfloat16."""

    dtype = torch.bfloat16


_LINEARS: dict[str, type[PortableLinear]] = {
    "float32": PortableLinear,
    "float16": PortableFloat16Linear,
    "bfloat16": PortableBFloat16Linear,
}
PORTABLE_PRECISIONS = tuple(_LINEARS)


def portable_linear_for(precision: str, device: str) -> type[PortableLinear]:
    """
    The linear layer of a precision, for any device.

    Args:
        precision: `"float32"`, `"float16"` or `"bfloat16"`.
        device: device to compute on, for the error message.

    Raises:
        ValueError: for an unknown precision, or int8.
    """
    if precision in _LINEARS:
        return _LINEARS[precision]
    if precision in PRECISIONS:
        raise ValueError(f"{precision} is for CPUs: use {', '.join(PORTABLE_PRECISIONS)} on {device}.")
    raise ValueError(f"`precision` must be one of {', '.join(PORTABLE_PRECISIONS)}, got {precision!r}.")


class PortableDepthwiseConv(nn.Module):
    """
    Depthwise convolution over time that reads frames beyond an utterance as zeros.

    Args:
        weight: (C, 1, K), as in `nn.Conv1d`.
        stride: frames from one output to the next.
        dtype: dtype to compute in.
    """

    def __init__(self, weight: torch.Tensor, stride: int, dtype: torch.dtype):
        super().__init__()
        self.stride = stride
        self.taps = nn.Parameter(weight.detach()[:, 0].T.to(dtype).contiguous(), requires_grad=False)

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """(B, T, C), (B,) int32 -> (B, T / stride, C)."""
        if kernels := triton_kernels_for(hidden_states):
            output: torch.Tensor = kernels.depthwise(hidden_states.contiguous(), self.taps, lengths, self.stride)
            return output
        mask = _mask(hidden_states, lengths)
        if mask is not None:
            hidden_states = hidden_states.masked_fill(~mask[..., None], 0.0)
        # An image of one row with channels last in memory, as in CitrinetDepthwiseConv.
        image, weight = hidden_states.transpose(1, 2).unsqueeze(2), self.taps.T[:, None, None]
        image = F.conv2d(image, weight, None, (1, self.stride), (0, len(self.taps) // 2), groups=len(weight))
        return image.squeeze(2).transpose(1, 2).contiguous()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.taps.detach().T[:, None].contiguous()


class PortableBlock(CitrinetBlock):  # type: ignore[no-untyped-call]
    """Folded block that does masking, mean, gate, residual and activation in three steps instead of a dozen."""

    def forward(
        self, inputs: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C_in), (B, T) -> (B, T / stride, C), (B, T / stride)."""
        # Triton launches on the current device. On a CPU this has no effect.
        with torch.cuda.device_of(inputs):  # type: ignore[no-untyped-call]
            return self._computed(inputs, mask)

    def _computed(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        lengths = None if mask is None else mask.sum(dim=1, dtype=torch.int32)
        hidden_states = inputs
        convs: Any = self.convs
        for conv in convs:
            hidden_states = conv.act(conv.pointwise(conv.depthwise(hidden_states, lengths)))
        if mask is not None and lengths is not None and self.stride > 1:
            mask = mask[:, :: self.stride]
            lengths = (lengths + (self.stride - 1)) // self.stride
        gate = self.squeeze_excitation
        logits = gate.up(F.relu(gate.down(masked_mean(hidden_states, lengths))))
        residual = None if self.residual is None else self.residual(inputs[:, :: self.stride].contiguous())
        relu = isinstance(self.act, nn.ReLU)
        hidden_states = gated_sum(hidden_states, residual, logits, relu)
        if not relu:
            hidden_states = self.act(hidden_states)
        for adapter in self.adapters.values():
            hidden_states = adapter(hidden_states)
        return hidden_states, mask


class PortableAdapter(CitrinetAdapter):
    """Adapter with normalisation first: its second product also adds the adapter's input."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.enabled:
            return hidden_states
        update = self.act(self.down(self.norm(hidden_states)))
        output = torch.addmm(hidden_states.flatten(0, 1), update.flatten(0, 1), self.up.weight.t())
        return output.view_as(hidden_states)


def make_portable(block: Any, dtype: torch.dtype) -> None:
    """
    Make a block with portable linear layers portable as a whole: replace its other layers and its `forward`.

    Args:
        block: a folded [`CitrinetBlock`].
        dtype: dtype to compute in.
    """
    for conv in block.convs:
        conv.depthwise = PortableDepthwiseConv(conv.depthwise.weight, conv.stride, dtype)
    for adapter in block.adapters.values():
        if not isinstance(adapter.up, PortableLinear):  # loaded after the network was optimised
            continue
        if isinstance(adapter.act, (nn.SiLU, SiLUActivation)):
            adapter.act = nn.SiLU(inplace=True)  # in place: nothing else reads the product
        if adapter.pre_norm:
            adapter.__class__ = PortableAdapter
    block.__class__ = PortableBlock


def masked_mean(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Mean over valid frames, summed in float32: (B, T, C), (B,) int32 -> (B, C); zero without valid frames."""
    if kernels := triton_kernels_for(hidden_states):
        mean: torch.Tensor = kernels.masked_mean(hidden_states, lengths)
        return mean
    return modeling_citrinet.masked_mean(hidden_states, _mask(hidden_states, lengths)).to(hidden_states.dtype)


def gated_sum(
    hidden_states: torch.Tensor, residual: torch.Tensor | None, gate: torch.Tensor, relu: bool
) -> torch.Tensor:
    """`residual + hidden_states * sigmoid(gate)`, optionally with a ReLU: (B, T, C) twice, (B, C) -> (B, T, C)."""
    total: torch.Tensor
    if kernels := triton_kernels_for(hidden_states):
        total = kernels.gated_sum(hidden_states, residual, gate, relu)
        return total
    gate = torch.sigmoid(gate)[:, None]
    total = hidden_states * gate if residual is None else torch.addcmul(residual, hidden_states, gate)
    return total.relu_() if relu else total


def _mask(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor | None:
    """(B, T) bool, True at valid frames."""
    if lengths is None:
        return None
    return torch.arange(hidden_states.shape[1], device=lengths.device) < lengths[:, None]


def triton_kernels_for(hidden_states: torch.Tensor) -> Any:
    """The module of Triton kernels; `None` if PyTorch's own operators are to be used."""
    return None if hidden_states.device.type == "cpu" else _load_kernels(hidden_states.device.type)


@torch.no_grad()
def _check_kernels(kernels: Any, device: str) -> None:
    """
    Compare the kernels' results on a device with those of PyTorch's operators on the CPU.

    This also shows whether Triton can compile here, for which it needs a suitable driver and C compiler.

    Raises:
        ValueError: if the results differ.
    """
    chance = torch.Generator().manual_seed(0)
    rows, gate = torch.randn(2, 40, 48, generator=chance), torch.randn(2, 48, generator=chance)
    lengths = torch.tensor([40, 17], dtype=torch.int32)
    there, gate_there, lengths_there = (tensor.to(device) for tensor in (rows, gate, lengths))
    pairs = [
        (masked_mean(rows, lengths), kernels.masked_mean(there, lengths_there)),
        (gated_sum(rows, rows, gate, True), kernels.gated_sum(there, there, gate_there, True)),
    ]
    for size, stride in ((5, 2), (27, 1)):  # one group of taps, and several
        conv = PortableDepthwiseConv(torch.randn(48, 1, size, generator=chance), stride, torch.float32)
        pairs.append((conv(rows, lengths), kernels.depthwise(there, conv.taps.to(device), lengths_there, stride)))
    if not all(torch.allclose(found.cpu(), expected, atol=1e-3) for expected, found in pairs):
        raise ValueError("they compute other numbers than PyTorch")


@cache
def _load_kernels(device: str) -> Any:
    reason = f"there are none for {device}"
    if device == "cuda":
        try:
            from . import triton_kernels

            _check_kernels(triton_kernels, device)
            return triton_kernels
        except Exception as error:  # Triton raises a different class at each step that may fail
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    logger.warning_once(f"Without Triton's kernels ({reason}), PyTorch's own operators are used, which are slower.")
    return None


__all__ = [
    "PORTABLE_PRECISIONS",
    "PortableAdapter",
    "PortableBlock",
    "PortableDepthwiseConv",
    "PortableLinear",
    "gated_sum",
    "make_portable",
    "masked_mean",
    "portable_linear_for",
    "triton_kernels_for",
]
