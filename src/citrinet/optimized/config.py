"""The `quantization_config` that makes a network faster while it is loaded."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from .folding import optimize
from .layers import PRECISIONS
from .memory import mapped_ranges
from .portable import PORTABLE_PRECISIONS

METHOD = "citrinet"


@register_quantization_config(METHOD)
class CitrinetInferenceConfig(QuantizationConfigMixin):
    """
    How to run a Citrinet fast on a CPU or a GPU: the `quantization_config` of `from_pretrained`.

    The network is made for the device that it is loaded to, and made anew when it moves from the CPU to another.

    Args:
        precision: `"float32"` gives the numbers of the ordinary model up to rounding, `"bfloat16"`, `"float16"` (for
            GPUs; a CPU computes it slowly) and `"int8"` (for CPUs alone) are faster and less exact. In int8, weights
            are quantised by output channel and activations by tensor, as they come; everything between the linear
            layers stays float32. Where the CPU has no instructions for bfloat16, or PyTorch no oneDNN for int8,
            float32 is used in its place, with a warning.
        quant_method: Transformers' name for all of this, `"citrinet"`.

    Raises:
        ValueError: for another precision or method.
        TypeError: for another argument.
    """

    def __init__(self, precision: str = "float32", quant_method: str = METHOD):
        if precision not in (*PRECISIONS, *PORTABLE_PRECISIONS):
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, float16, got {precision!r}.")
        if quant_method != METHOD:
            raise ValueError(f"`quant_method` of a Citrinet is {METHOD!r}, got {quant_method!r}.")
        self.quant_method: Any = quant_method  # Transformers types it as one of its own methods
        self.precision = precision


@register_quantizer(METHOD)
class CitrinetInferenceQuantizer(HfQuantizer):
    """Optimises a model after its weights were loaded; what it leaves is an ordinary model to all others."""

    quantization_config: CitrinetInferenceConfig

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Weights are loaded as float32, so that folding rounds once."""
        return torch.float32

    def update_device_map(self, device_map: Any) -> Any:
        """Put the network on one device: layers are exchanged, and hooks that pass tensors on would not survive it."""
        if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
            has_accelerator = torch.accelerator.is_available()
            return {"": torch.accelerator.current_accelerator() if has_accelerator else torch.device("cpu")}
        if isinstance(device_map, dict) and len(set(device_map.values())) > 1:
            raise ValueError("an optimised Citrinet is not divided between devices: use `device_map='cuda'`.")
        return device_map

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        self._files = checkpoint_files or []
        self._shapes = {name: weight.shape for name, weight in model.state_dict().items()}

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        # Some releases of Transformers leave it to a quantizer to compare the shapes.
        changed = [name for name, weight in model.state_dict().items() if weight.shape != self._shapes[name]]
        if changed:
            raise ValueError(
                f"the weights are not those of its configuration ({len(changed)} mismatched, such as {min(changed)})."
            )
        optimize(model, self.quantization_config.precision, mappings=mapped_ranges(self._files))
        self.remove_quantization_config(model)  # type: ignore[no-untyped-call]
        return model

    def is_serializable(self) -> bool:
        """Whether it saves: as an ordinary checkpoint, without folded layers."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether it trains: no."""
        return False


__all__ = ["CitrinetInferenceConfig", "CitrinetInferenceQuantizer"]
