"""Recognisers: how to load one, the protocol of all of them, and reading files ahead for them."""

from .onnx_folder import is_onnx_folder
from .onnx_recognizer import CitrinetOnnx
from .protocol import Progress, Recognizer
from .read_ahead import ReadAhead, readers_for
from .recognizer import check_model, load_recognizer

__all__ = [
    "CitrinetOnnx",
    "Progress",
    "ReadAhead",
    "Recognizer",
    "check_model",
    "is_onnx_folder",
    "load_recognizer",
    "readers_for",
]
