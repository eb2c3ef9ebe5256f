"""
Faster inference: folded batch normalisation, with weights packed for a CPU or Triton kernels on a GPU.

The checkpoint does not change; the network is optimised while it is loaded:

    AutoModelForCTC.from_pretrained(model, quantization_config=CitrinetInferenceConfig("int8"))
"""

from .config import CitrinetInferenceConfig
from .folding import optimize_for_inference
from .layers import PRECISIONS, linear_for
from .portable import PORTABLE_PRECISIONS

__all__ = ["PORTABLE_PRECISIONS", "PRECISIONS", "CitrinetInferenceConfig", "linear_for", "optimize_for_inference"]
