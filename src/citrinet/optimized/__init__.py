"""
Faster inference: batch normalisation folded away, weights packed for a CPU, or Triton's kernels on a GPU.

A checkpoint stays what it is; the faster network is made of it while it is loaded:

    AutoModelForCTC.from_pretrained(model, quantization_config=CitrinetInferenceConfig("int8"))
"""

from .config import CitrinetInferenceConfig
from .folding import optimize_for_inference
from .layers import PRECISIONS, linear_for
from .portable import PORTABLE_PRECISIONS

__all__ = ["PORTABLE_PRECISIONS", "PRECISIONS", "CitrinetInferenceConfig", "linear_for", "optimize_for_inference"]
