"""Convert Citrinet checkpoints between NeMo's `.nemo` archives and Transformers repositories."""

from .nemo_archive import ConversionError, NemoArchive
from .nemo_to_hf import ConversionReport, NemoModel, convert_nemo, read_nemo

__all__ = ["ConversionError", "ConversionReport", "NemoArchive", "NemoModel", "convert_nemo", "read_nemo"]
