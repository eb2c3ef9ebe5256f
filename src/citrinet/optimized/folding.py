"""Optimise a network: fold batch normalisation into linear layers, pack or quantise the weights."""

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from ..modeling_citrinet import CitrinetPreTrainedModel
from .graphs import GraphedBlocks
from .layers import (
    FoldedBatchNorm,
    FoldedLayerNorm,
    Int8Adapter,
    Int8Block,
    Int8Linear,
    PackedDepthwiseConv,
    PackedLinear,
    linear_for,
)
from .memory import drop_pages, keep_free_memory, return_free_memory
from .portable import PortableLinear, make_portable, portable_linear_for


@torch.no_grad()
def fold_batch_norm(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Fold batch normalisation in evaluation mode into the linear layer before it.

    Args:
        linear: (.., C_in) -> (.., C_out), without bias.
        norm: batch normalisation of its output.

    Returns:
        Weight (C_out, C_in) and bias (C_out,), in float32; scale and bias are computed in double precision.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (norm.bias.double() - norm.running_mean.double() * scale).float()
    return linear.weight * scale.float()[:, None], bias


def optimize_for_inference(model: CitrinetPreTrainedModel, precision: str = "float32") -> CitrinetPreTrainedModel:
    """
    Make an optimised copy of a model; the model itself does not change and can still be trained.

    The copy cannot be trained. `save_pretrained` writes it as an ordinary checkpoint with the same outputs, whose
    normalisation layers change nothing.

    Args:
        model: a `CitrinetForCTC` or `CitrinetModel`; the copy is optimised for the device of the model.
        precision: see [`CitrinetInferenceConfig`].

    Raises:
        ValueError: if the precision is unknown or not available on this device, or the model is optimised already.
    """
    _linear_for(precision, model.device)
    _refuse_optimized(model)
    twin = copy.deepcopy(model).float()  # type: ignore[no-untyped-call]
    return optimize(twin, precision)


def optimize(
    model: CitrinetPreTrainedModel,
    precision: str,
    device: torch.device | None = None,
    mappings: Sequence[range] = (),
) -> CitrinetPreTrainedModel:
    """
    Optimise a model in place.

    Args:
        model: the model, in float32.
        precision: see [`CitrinetInferenceConfig`].
        device: device to compute on, by default that of the model.
        mappings: addresses at which the files of its weights are mapped: weights are dropped from memory once packed.

    Returns:
        The model.

    Raises:
        ValueError: if the model is optimised already, or the precision is not available on this device.
    """
    linear = _linear_for(precision, device or model.device)
    _refuse_optimized(model)
    model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    head = getattr(model, "ctc_head", None)
    encoder: Any = getattr(model, model.base_model_prefix, model)
    for block in encoder.blocks:
        weights = list(block.parameters())
        _optimize_block(block, linear)
        drop_pages(weights, mappings)
        weights.clear()
        return_free_memory()
    if isinstance(head, nn.Linear):
        model.ctc_head = linear(head.weight, head.bias)
    keep_free_memory()
    for parameter in model.parameters():  # copied, since a file stays mapped while one parameter uses it
        parameter.data = parameter.data.clone()
    encoder.register_forward_pre_hook(_without_padding, with_kwargs=True)
    if issubclass(linear, PortableLinear):
        encoder.run_blocks = GraphedBlocks()
    for part in (model, encoder):
        part.before_move = partial(_follow, precision)
    return model if linear.dtype == torch.float32 else model.to(linear.dtype)  # type: ignore[arg-type]


def _linear_for(precision: str, device: torch.device) -> type[PackedLinear]:
    """The linear layer of a precision: packed on a CPU, portable elsewhere and for float16, which is never packed."""
    if device.type == "cpu" and precision != "float16":
        return linear_for(precision)
    return portable_linear_for(precision, device.type)


@torch.no_grad()
def _follow(precision: str, model: Any, device: torch.device) -> None:
    """Make an optimised network portable before it moves from the CPU that its weights are packed for."""
    encoder = getattr(model, model.base_model_prefix, model)
    if getattr(encoder, "run_blocks", None) is not None:  # portable already
        encoder.run_blocks = GraphedBlocks()  # graphs hold the addresses of weights
        return
    if device.type == "cpu":
        return
    linear = portable_linear_for(precision, device.type)
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, PackedLinear):
                twin = linear(*layer.unpacked(), layer.activation)
                twin.saves_bias = layer.saves_bias
                setattr(module, name, twin)
    for block in encoder.blocks:
        make_portable(block, linear.dtype)
    encoder.run_blocks = GraphedBlocks()
    model.to(linear.dtype)


def _refuse_optimized(model: nn.Module) -> None:
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        raise ValueError("the model was optimised already: load it again, or optimise the one that it was made of.")


def _optimize_block(block: Any, linear: type[PackedLinear]) -> None:
    relu, portable = isinstance(block.act[0], nn.ReLU), issubclass(linear, PortableLinear)
    for conv in block.convs:
        inner = relu and conv.act is block.act
        conv.pointwise, conv.norm = _folded(conv.pointwise, conv.norm, linear, "relu" if inner else "none")
        conv.act = nn.Identity() if inner else conv.act
        if not portable:
            conv.depthwise = PackedDepthwiseConv(conv.depthwise, linear.dtype)
    if relu:
        block.act = nn.ReLU(inplace=True)  # in place: nothing else reads the sum
    if block.residual is not None:
        block.residual, block.residual_norm = _folded(block.residual, block.residual_norm, linear)
    gate, small = block.squeeze_excitation, PackedLinear if linear is Int8Linear else linear
    gate.down, gate.up = small(gate.down.weight), small(gate.up.weight)
    for adapter in block.adapters.values():
        _optimize_adapter(adapter, linear)
    if linear is Int8Linear:
        _fuse_adds(block)
    if portable:
        make_portable(block, linear.dtype)


def _folded(
    linear: nn.Linear, norm: nn.BatchNorm1d, packed: type[PackedLinear], activation: str = "none"
) -> tuple[PackedLinear, FoldedBatchNorm]:
    weight, bias = fold_batch_norm(linear, norm)
    folded = packed(weight, bias, activation)
    folded.saves_bias = False
    return folded, FoldedBatchNorm(bias)


def _optimize_adapter(adapter: Any, linear: type[PackedLinear]) -> None:
    down, bias = adapter.down.weight, None
    if adapter.pre_norm and bool((adapter.norm.weight != 0).all()):
        down, bias = down * adapter.norm.weight, down @ adapter.norm.bias
        adapter.norm = FoldedLayerNorm(adapter.norm)
    adapter.down, adapter.up = linear(down, bias), linear(adapter.up.weight)
    adapter.down.saves_bias = False


def _fuse_adds(block: Any) -> None:
    """Fuse additions and activations into int8 layers, which saves memory traffic; float32 layers would be slower."""
    if block.residual is not None:
        block.__class__ = Int8Block
        if isinstance(block.act, nn.ReLU):
            block.residual.activation, block.act = "relu", nn.Identity()
    for adapter in block.adapters.values():
        if isinstance(adapter.act, (nn.SiLU, SiLUActivation)):
            adapter.down.activation, adapter.act = "swish", nn.Identity()
        if adapter.pre_norm:
            adapter.__class__ = Int8Adapter


def _without_padding(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Cut the padding that all rows of a batch share, and remove the mask if no padding is left.

    On a GPU both stay: reading the lengths would wait for the GPU to finish its work.
    """
    call = inspect.signature(module.forward).bind(*args, **kwargs)
    mask = call.arguments.get("attention_mask")
    if mask is not None and mask.device.type == "cpu":
        frames = int(mask.sum(dim=1).max())
        mask = mask[:, :frames]
        call.arguments["input_features"] = call.arguments["input_features"][:, :frames]
        call.arguments["attention_mask"] = None if bool(mask.all()) else mask
    return call.args, call.kwargs
