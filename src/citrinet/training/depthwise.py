"""Depthwise convolutions for training, with Triton kernels on a GPU that need no transposed copies."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..modeling_citrinet import CitrinetDepthwiseConv
from ..optimized.portable import triton_kernels_for


class TritonDepthwiseConv(CitrinetDepthwiseConv):
    """[`CitrinetDepthwiseConv`] without transposed copies on a GPU; the same on other devices and when compiled."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T / stride, C)."""
        kernels = None if torch.compiler.is_compiling() else triton_kernels_for(hidden_states)
        if kernels is None:
            return super().forward(hidden_states)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        output: torch.Tensor = _Depthwise.apply(kernels, hidden_states, self.weight, self.stride[0])
        return output


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Any, hidden_states: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        hidden_states, taps = hidden_states.contiguous(), weight[:, 0].T.contiguous()
        ctx.kernels, ctx.stride, ctx.dtype = kernels, stride, weight.dtype
        ctx.save_for_backward(hidden_states, taps)
        with torch.cuda.device_of(hidden_states):  # type: ignore[no-untyped-call]
            output: torch.Tensor = kernels.depthwise(hidden_states, taps, None, stride)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor, None]:
        hidden_states, taps = ctx.saved_tensors
        with torch.cuda.device_of(hidden_states):  # type: ignore[no-untyped-call]
            of_input, of_taps = ctx.kernels.depthwise_gradients(hidden_states, taps, gradient.contiguous(), ctx.stride)
        return None, of_input, of_taps.T[:, None].to(ctx.dtype), None


def use_triton(network: nn.Module) -> None:
    """Make the depthwise convolutions of a network use Triton kernels when they run on a GPU."""
    for module in network.modules():
        if type(module) is CitrinetDepthwiseConv:
            module.__class__ = TritonDepthwiseConv


__all__ = ["TritonDepthwiseConv", "use_triton"]
