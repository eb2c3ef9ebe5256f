"""
Faster inference on CPUs: batch normalisation folded away, matrices packed, in bfloat16, or in int8.

A checkpoint stays what it is; the faster network is made of it while it is loaded:

    AutoModelForCTC.from_pretrained(model, quantization_config=CitrinetInferenceConfig("int8"))
"""

import copy
import ctypes
import inspect
import mmap
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.activations import SiLUActivation
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..adapters_citrinet import CitrinetAdapter
from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import BATCH_NORM_EPS, CitrinetBlock, CitrinetDepthwiseConv, CitrinetPreTrainedModel

PRECISIONS = ("float32", "bfloat16", "int8")
METHOD = "citrinet"

logger = logging.get_logger(__name__)


@register_quantization_config(METHOD)
class CitrinetInferenceConfig(QuantizationConfigMixin):
    """
    How to run a Citrinet fast on a CPU: the `quantization_config` of `from_pretrained`.

    Args:
        precision: `"float32"` gives the numbers of the ordinary model up to rounding, `"bfloat16"` and `"int8"` are
            faster and less exact. In int8, matrices are quantised by output channel and activations by tensor, as they
            come; everything between the matrix products stays float32. A CPU without instructions for bfloat16 uses
            float32 in its place and says so.

    Raises:
        ValueError: for another precision.
    """

    def __init__(self, precision: str = "float32", **kwargs):
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self.quant_method: Any = METHOD
        self.precision = precision


@register_quantizer(METHOD)
class CitrinetInferenceQuantizer(HfQuantizer):
    """Optimises a model after its weights were loaded; what it leaves is an ordinary model to all others."""

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Weights are loaded as float32, so that folding rounds once."""
        return torch.float32

    def _process_model_before_weight_loading(self, model, checkpoint_files=None, **kwargs):
        self._files = checkpoint_files or []

    def _process_model_after_weight_loading(self, model, **kwargs):
        _optimize(model, self.quantization_config.precision, _mappings(self._files))
        self.remove_quantization_config(model)
        return model

    def is_serializable(self) -> bool:
        """Whether it saves: as an ordinary checkpoint, without folded layers."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether it trains: no."""
        return False


def optimize_for_inference(model: CitrinetPreTrainedModel, precision: str = "float32") -> CitrinetPreTrainedModel:
    """
    Make a faster copy of a model; the model itself stays as it is and can be trained on.

    The copy cannot be trained. `save_pretrained` writes it as an ordinary checkpoint of the same outputs, with
    normalisation that changes nothing.

    Args:
        model: a `CitrinetForCTC` or `CitrinetModel` on a CPU.
        precision: see [`CitrinetInferenceConfig`].

    Raises:
        ValueError: for an unknown precision, or a model that was optimised already.
    """
    return _optimize(copy.deepcopy(model).float(), CitrinetInferenceConfig(precision).precision)


def inference_arguments(model: str, precision: str, device: str = "cpu") -> dict[str, Any]:
    """
    Arguments of `pipeline` for a precision: an optimised network for a Citrinet on a CPU, else weights of that type.

    Args:
        model: a folder or Hub repository, of a Citrinet or not.
        precision: see [`CitrinetInferenceConfig`].
        device: where it shall run.

    Raises:
        ValueError: for int8 where there is none.
    """
    if device == "cpu" and AutoConfig.from_pretrained(model).model_type == CitrinetConfig.model_type:
        return {"model_kwargs": {"quantization_config": CitrinetInferenceConfig(precision)}}
    if precision == "int8":
        raise ValueError(f"int8 is for Citrinets on CPUs, not for {model} on {device}: choose float32 or bfloat16.")
    return {"dtype": getattr(torch, precision)}


def _optimize(
    model: CitrinetPreTrainedModel, precision: str, mappings: Sequence[range] = ()
) -> CitrinetPreTrainedModel:
    if any(isinstance(module, PackedProduct) for module in model.modules()):
        raise ValueError("the model was optimised already: load it again, or optimise the one that it was made of.")
    model.eval().requires_grad_(False)
    product, head = product_in(precision), getattr(model, "ctc_head", None)
    encoder: Any = getattr(model, model.base_model_prefix, model)
    for block in encoder.blocks:
        weights = list(block.parameters())
        _optimize_block(block, product)
        _drop_pages(weights, mappings)
        weights.clear()
        _return_free_memory()
    if isinstance(head, nn.Linear):
        model.ctc_head = product(head.weight, head.bias)
    _keep_free_memory()
    for parameter in model.parameters():  # what is left lets go of the file, which is in memory as long as one uses it
        parameter.data = parameter.data.clone()
    encoder.register_forward_pre_hook(_without_padding, with_kwargs=True)
    return model.bfloat16() if product is HalfProduct else model


def _drop_pages(weights: list[nn.Parameter], mappings: Sequence[range]) -> None:
    """
    Have weights that were read for the last time leave the memory, where it only mirrors their file.

    They would stay, beside the packed ones, as long as anything uses the file. Only whole pages of a weight go, so that
    what is next to it stays.
    """
    libc = _glibc()
    if libc is None:
        return
    for weight in weights:
        start, stop = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if first < end and any(start in mapping and stop - 1 in mapping for mapping in mappings):
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def _return_free_memory() -> None:
    """Have glibc return what lies free between matrices; else as much stays taken again as the packed ones need."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _mappings(files: Iterable[str]) -> list[range]:
    """Addresses at which Linux mirrors files of weights in the memory of this process."""
    if sys.platform != "linux":
        return []
    paths = {str(Path(file).resolve()) for file in files}
    lines = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    places = (line[0].split("-") for line in lines if len(line) == 6 and line[5] in paths)
    return [range(int(start, 16), int(stop, 16)) for start, stop in places]


def _keep_free_memory() -> None:
    """
    Have glibc keep what a network of this process frees, up to 256 MB, for its next activations.

    Those of long or many recordings are so large that it returns them at once, and has them back as fresh pages.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


def _without_padding(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Cut what no utterance of a batch fills, and leave the mask out where nothing is left to be masked."""
    call = inspect.signature(module.forward).bind(*args, **kwargs)
    mask = call.arguments.get("attention_mask")
    if mask is not None:
        frames = int(mask.sum(dim=1).max())
        mask = mask[:, :frames]
        call.arguments["input_features"] = call.arguments["input_features"][:, :frames]
        call.arguments["attention_mask"] = None if bool(mask.all()) else mask
    return call.args, call.kwargs


class PackedProduct(nn.Module):
    """
    Matrix product (.., C_in) -> (.., C_out) in float32, with the matrix as oneDNN wants it in memory.

    Args:
        weight: (C_out, C_in).
        bias: (C_out,).
        activation: what comes after it, `"none"` or `"relu"`; a `"relu"` costs nothing here. Int8 has `"swish"`, too.
    """

    dtype = torch.float32
    saves_bias = True  # unless a normalisation saves it

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none"):
        super().__init__()
        self.activation, self.in_features = activation, weight.shape[1]
        self._pack(weight.detach().contiguous(), None if bias is None else bias.detach().clone())

    def _pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.bias = None if bias is None else bias.to(self.dtype)
        self.packed = weight.to(self.dtype)
        if _packs(self.dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.packed)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(.., C_in) -> (.., C_out)."""
        if self.packed.is_mkldnn:
            return torch.ops.mkldnn._linear_pointwise(hidden_states, self.packed, self.bias, self.activation, [], "")
        product = F.linear(hidden_states, self.packed, self.bias)
        return product.relu_() if self.activation == "relu" else product

    def unpacked(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (C_out, C_in) and bias (C_out,), in float32."""
        weight = self.packed.to_dense() if self.packed.is_mkldnn else self.packed
        return weight.float(), None if self.bias is None else self.bias.float()

    def __getstate__(self):
        return {**self.__dict__, "packed": None, "bias": None, "unpacked_matrix": self.unpacked()}

    def __setstate__(self, state):
        weight, bias = state.pop("unpacked_matrix")
        self.__dict__.update(state)
        self._pack(weight, bias)

    def train(self, mode: bool = True):
        """Refuse to train."""
        if mode:
            raise ValueError("a model that was optimised for inference cannot be trained: load it without.")
        return super().train(mode)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        weight, bias = self.unpacked()
        destination[f"{prefix}weight"] = weight
        if bias is not None and self.saves_bias:
            destination[f"{prefix}bias"] = bias


class HalfProduct(PackedProduct):
    """Matrix product in bfloat16."""

    dtype = torch.bfloat16


class Int8Product(PackedProduct):
    """Matrix product in int8: the matrix quantised by output channel, the activations by tensor as they come."""

    def _pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if not torch.backends.mkldnn.is_available():
            raise ValueError("this build of PyTorch has no oneDNN, which int8 needs: choose float32.")
        self.bias = bias
        self.scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():  # once: `forward` uses what ends in a later PyTorch than the package takes
            warnings.simplefilter("ignore", UserWarning)
            torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
        quantized = (weight / self.scale[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        # Without VNNI a CPU adds pairs of products in 16 bits: they have to fit.
        self.levels = 255 if torch.cpu._is_vnni_supported() else 127

    def forward(self, hidden_states: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """(.., C_in) -> (.., C_out); `plus` (.., C_out) is added before the activation."""
        hidden_states = hidden_states.contiguous()
        low, high = (bound.item() for bound in torch.aminmax(hidden_states))
        low, high = min(low, 0.0), max(high, 0.0)  # zero is exact: silence and padding stay what they are
        scale = max((high - low) / self.levels, 1e-12)
        zero = round(-low / scale)
        quantized = torch.quantize_per_tensor(hidden_states, scale, zero, torch.quint8)
        # The numbers in it as they lie in memory: `int_repr` would copy them, slowly.
        storage, shape, stride = quantized.untyped_storage(), quantized.shape, quantized.stride()
        numbers = torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape, stride)
        return self._multiply(numbers, scale, zero, self.bias, self.activation, plus)

    def _multiply(
        self,
        quantized: torch.Tensor,
        scale: float,
        zero: int,
        bias: torch.Tensor | None,
        activation: str,
        plus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        multiply = torch.ops.onednn.qlinear_pointwise
        factors = (quantized, scale, zero, self.packed, self.scale, self.zero)
        output = (1.0, 0, torch.float32)
        if plus is None:
            return multiply(*factors, bias, *output, activation, [], "")
        return multiply.binary(*factors, plus, bias, *output, 1.0, 0, "add", 1.0, activation, [], "")

    def unpacked(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (C_out, C_in) and bias (C_out,), in float32."""
        columns = self._multiply(torch.eye(self.in_features, dtype=torch.uint8), 1.0, 0, None, "none")
        return columns.T.contiguous(), self.bias


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and this CPU computes in this type."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.float32:
        return True
    # Where AVX-512 lacks the instructions, oneDNN takes several others for each.
    emulated = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and not emulated


class PackedDepthwiseConv(nn.Module):
    """Convolution over time, each channel for itself, with weights as oneDNN wants them: (B, T, C) -> (B, T', C)."""

    def __init__(self, conv: CitrinetDepthwiseConv, dtype: torch.dtype):
        super().__init__()
        self.weight = conv.weight
        self.groups, self.dtype = conv.groups, dtype
        self.shape = ([0, conv.kernel_size[0] // 2], [1, conv.stride[0]], [1, 1], conv.groups)
        self._pack()

    def _pack(self) -> None:
        image, weight = [1, self.groups, 1, 500], self.weight.detach().to(self.dtype).unsqueeze(2)
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape, image)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T', C)."""
        image = hidden_states.transpose(1, 2).unsqueeze(2)  # see CitrinetDepthwiseConv
        image = torch.ops.mkldnn._convolution_pointwise(image, self.packed, None, *self.shape, "none", [], "")
        return image.squeeze(2).transpose(1, 2)

    def __getstate__(self):
        return {**self.__dict__, "packed": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._pack()


_PRODUCTS: dict[str, type[PackedProduct]] = {
    "float32": PackedProduct,
    "bfloat16": HalfProduct,
    "int8": Int8Product,
}


def product_in(precision: str) -> type[PackedProduct]:
    """What multiplies in a precision: for bfloat16 on a CPU that has no instructions for it, float32's product."""
    if precision == "bfloat16" and not _packs(torch.bfloat16):
        logger.warning_once(
            "PyTorch has no fast bfloat16 for this CPU: it would take several times as long as float32, which is used "
            "instead."
        )
        return PackedProduct
    return _PRODUCTS[precision]


class AbsorbedBatchNorm(nn.Module):
    """What is left of a batch normalisation in the product before it: it saves as one that only adds the bias."""

    def __init__(self, bias: torch.Tensor):
        super().__init__()
        self.bias = bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C), as it is."""
        return hidden_states

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        ones = torch.ones_like(self.bias)
        values = {
            "weight": ones,
            "bias": self.bias,
            "running_mean": 0 * ones,
            "running_var": (1 - BATCH_NORM_EPS) * ones,
        }
        destination.update({f"{prefix}{name}": value for name, value in values.items()})
        destination[f"{prefix}num_batches_tracked"] = torch.tensor(0)


class AbsorbedLayerNorm(nn.Module):
    """Layer normalisation whose scale and shift are in the product after it."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.eps = norm.eps
        self.shift = norm.bias / norm.weight  # of the product's input, in place of the bias of its output

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        return F.layer_norm(hidden_states, hidden_states.shape[-1:], eps=self.eps)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination.update({f"{prefix}weight": torch.ones_like(self.shift), f"{prefix}bias": self.shift})


def _optimize_block(block: Any, product: type[PackedProduct]) -> None:
    relu = isinstance(block.act[0], nn.ReLU)
    for conv in block.convs:
        inner = relu and conv.act is block.act
        conv.pointwise, conv.norm = _absorb_batch_norm(conv.pointwise, conv.norm, product, "relu" if inner else "none")
        conv.act = nn.Identity() if inner else conv.act
        if _packs(product.dtype):
            conv.depthwise = PackedDepthwiseConv(conv.depthwise, product.dtype)
    if relu:
        block.act = nn.ReLU(inplace=True)  # of a sum that nothing else reads
    if block.residual is not None:
        block.residual, block.residual_norm = _absorb_batch_norm(block.residual, block.residual_norm, product)
    gate, small = block.squeeze_excitation, PackedProduct if product is Int8Product else product
    gate.down, gate.up = small(gate.down.weight), small(gate.up.weight)
    for adapter in block.adapters.values():
        _optimize_adapter(adapter, product)
    if product is Int8Product:
        _move_sums_into_products(block)


def _absorb_batch_norm(
    linear: nn.Linear, norm: nn.BatchNorm1d, product: type[PackedProduct], activation: str = "none"
) -> tuple[PackedProduct, AbsorbedBatchNorm]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (norm.bias.double() - norm.running_mean.double() * scale).float()
    folded = product(linear.weight * scale.float()[:, None], bias, activation)
    folded.saves_bias = False
    return folded, AbsorbedBatchNorm(bias)


def _optimize_adapter(adapter: Any, product: type[PackedProduct]) -> None:
    down, bias = adapter.down.weight, None
    if adapter.pre_norm and bool((adapter.norm.weight != 0).all()):
        down, bias = down * adapter.norm.weight, down @ adapter.norm.bias
        adapter.norm = AbsorbedLayerNorm(adapter.norm)
    adapter.down, adapter.up = product(down, bias), product(adapter.up.weight)
    adapter.down.saves_bias = False


def _move_sums_into_products(block: Any) -> None:
    """Have int8 products add and activate what is else read and written again; those of float32 are slower for it."""
    if block.residual is not None:
        block.__class__ = Int8Block
        if isinstance(block.act, nn.ReLU):
            block.residual.activation, block.act = "relu", nn.Identity()
    for adapter in block.adapters.values():
        if isinstance(adapter.act, (nn.SiLU, SiLUActivation)):
            adapter.down.activation, adapter.act = "swish", nn.Identity()
        if adapter.pre_norm:
            adapter.__class__ = Int8Adapter


class Int8Block(CitrinetBlock):
    """A block whose residual product adds the other branch and activates the sum."""

    def _with_residual(self, inputs: torch.Tensor, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return self.residual(inputs, plus=hidden_states.mul_(gate))


class Int8Adapter(CitrinetAdapter):
    """An adapter whose second product adds what the first was given."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.enabled:
            return hidden_states
        return self.up(self.act(self.down(self.norm(hidden_states))), plus=hidden_states)
