"""
Faster inference on CPUs: batch normalisation folded away, weights packed, in float32, bfloat16 or int8.

A checkpoint stays what it is; the faster network is made of it while it is loaded:

    AutoModelForCTC.from_pretrained(model, quantization_config=CitrinetInferenceConfig("int8"))
"""

from .config import CitrinetInferenceConfig
from .folding import optimize_for_inference
from .layers import PRECISIONS, linear_for

__all__ = ["PRECISIONS", "CitrinetInferenceConfig", "linear_for", "optimize_for_inference"]
