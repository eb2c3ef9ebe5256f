"""
Faster inference: batch normalisation folded away, in float32, bfloat16 or int8 with packed weights on CPUs, in float32,
float16 or bfloat16 with Triton's kernels on GPUs.

A checkpoint stays what it is; the faster network is made of it while it is loaded:

    AutoModelForCTC.from_pretrained(model, quantization_config=CitrinetInferenceConfig("int8"))
"""

from .config import CitrinetInferenceConfig
from .folding import optimize_for_inference
from .layers import PRECISIONS, linear_for
from .portable import PORTABLE_PRECISIONS

__all__ = ["PORTABLE_PRECISIONS", "PRECISIONS", "CitrinetInferenceConfig", "linear_for", "optimize_for_inference"]
