"""The `quantization_config` that optimises a network while it is loaded."""

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
    Fast inference on a CPU or a GPU: pass it as `quantization_config` to `from_pretrained`.

    The network is optimised for the device that it is loaded to, and again when it moves from the CPU to another.

    Args:
        precision: `"float32"` gives the outputs of the ordinary model up to rounding; `"bfloat16"`, `"float16"` (for
            GPUs; slow on a CPU) and `"int8"` (for CPUs only) are faster and less exact. In int8, weights are quantised
            per output channel and activations dynamically per tensor; everything between the linear layers stays
            float32. If the CPU has no instructions for bfloat16, or PyTorch no oneDNN for int8, float32 is used
            instead, with a warning.
        quant_method: the name of this method in Transformers, `"citrinet"`.

    Raises:
        ValueError: for an unknown precision or method.
        TypeError: for an unknown argument.
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
    """Quantizer that optimises a model once its weights are loaded, and removes its `quantization_config`."""

    quantization_config: CitrinetInferenceConfig

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Load weights as float32, so that folding rounds only once."""
        return torch.float32

    def update_device_map(self, device_map: Any) -> Any:
        """Keep the network on one device: layers are replaced, and Accelerate's hooks on them would be lost."""
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
        # Some releases of Transformers leave the comparison of shapes to the quantizer.
        changed = [name for name, weight in model.state_dict().items() if weight.shape != self._shapes[name]]
        if changed:
            raise ValueError(
                f"the weights are not those of its configuration ({len(changed)} mismatched, such as {min(changed)})."
            )
        optimize(model, self.quantization_config.precision, mappings=mapped_ranges(self._files))
        self.remove_quantization_config(model)  # type: ignore[no-untyped-call]
        return model

    def is_serializable(self) -> bool:
        """Whether the model can be saved: yes, as an ordinary checkpoint without folded layers."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained: no."""
        return False


__all__ = ["CitrinetInferenceConfig", "CitrinetInferenceQuantizer"]
