"""Convert Citrinet checkpoints between NeMo's `.nemo` archives and Transformers repositories."""

from .hf_to_nemo import export_nemo
from .nemo_archive import ConversionError, NemoArchive
from .nemo_to_hf import NemoModel, convert_nemo, read_nemo
from .report import ConversionReport

__all__ = [
    "ConversionError",
    "ConversionReport",
    "NemoArchive",
    "NemoModel",
    "convert_nemo",
    "export_nemo",
    "read_nemo",
]
