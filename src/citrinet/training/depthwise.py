"""Separable convolutions for training, with Triton kernels on a GPU that need neither masks nor transposed copies."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..modeling_citrinet import CitrinetDepthwiseConv, CitrinetSeparableConv
from ..optimized.portable import triton_kernels_for


class TritonSeparableConv(CitrinetSeparableConv):
    """
    [`CitrinetSeparableConv`] whose kernels read frames beyond an utterance as zeros, given its length.

    On other devices, when compiled, and where another layer, such as an adapter of PEFT, stands in the place of the
    depthwise convolution, it computes as its base class.
    """

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C_in), (B, T) -> (B, T / stride, C_out), (B, T / stride)."""
        kernels = None if torch.compiler.is_compiling() else triton_kernels_for(hidden_states)
        if kernels is None or type(self.depthwise) is not CitrinetDepthwiseConv:
            return super().forward(hidden_states, mask)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        lengths = None if mask is None else mask.sum(dim=1, dtype=torch.int32)
        hidden_states = _Depthwise.apply(kernels, hidden_states, self.depthwise.weight, lengths, self.stride)
        mask = mask if mask is None or self.stride == 1 else mask[:, :: self.stride]
        return self.act(self.norm(self.pointwise(hidden_states))), mask


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        lengths: torch.Tensor | None,
        stride: int,
    ) -> torch.Tensor:
        hidden_states, taps = hidden_states.contiguous(), weight[:, 0].T.contiguous()
        ctx.kernels, ctx.stride, ctx.frames, ctx.dtype = kernels, stride, hidden_states.shape[1], weight.dtype
        ctx.save_for_backward(hidden_states if ctx.needs_input_grad[2] else None, taps, lengths)
        with torch.cuda.device_of(hidden_states):  # type: ignore[no-untyped-call]
            output: torch.Tensor = kernels.depthwise(hidden_states, taps, lengths, stride)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor | None, torch.Tensor | None, None, None]:
        hidden_states, taps, lengths = ctx.saved_tensors
        gradient, of_input, of_weight = gradient.contiguous(), None, None
        with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
            if ctx.needs_input_grad[1]:
                of_input = ctx.kernels.depthwise_input_gradient(gradient, taps, lengths, ctx.stride, ctx.frames)
            if ctx.needs_input_grad[2]:  # the encoder may be frozen
                of_taps = ctx.kernels.depthwise_taps_gradient(hidden_states, gradient, lengths, ctx.stride, len(taps))
                of_weight = of_taps.T[:, None].to(ctx.dtype)
        return None, of_input, of_weight, None, None


def use_triton(network: nn.Module) -> None:
    """Make the separable convolutions of a network use Triton kernels when they run on a GPU."""
    for module in network.modules():
        if type(module) is CitrinetSeparableConv:
            module.__class__ = TritonSeparableConv


__all__ = ["TritonSeparableConv", "use_triton"]
