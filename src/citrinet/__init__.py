"""NVIDIA Citrinet speech recognisers in Transformers. Importing it makes the Auto classes and `pipeline` know them."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wrapt

from .default import default_model

if TYPE_CHECKING:
    from .audio_citrinet import load_audio
    from .configuration_citrinet import CitrinetConfig
    from .feature_extraction_citrinet import CitrinetFeatureExtractor
    from .modeling_citrinet import CitrinetForCTC, CitrinetModel
    from .onnx_runner import CitrinetOnnx
    from .optimization import CitrinetInferenceConfig, optimize_for_inference
    from .pipeline_citrinet import CitrinetPipeline
    from .processing_citrinet import CitrinetProcessor
    from .tokenization_citrinet import CitrinetTokenizer
    from .transcript_citrinet import Transcript, parse_transcript

__version__ = "0.1.0"

# In a checkout the package `citrinet.convert` stands beside `src`; an installed distribution holds it itself.
_CHECKOUT = Path(__file__).resolve().parents[2]
if (_CHECKOUT / "convert" / "nemo_archive.py").is_file():
    __path__.append(str(_CHECKOUT))

# Name -> its module, imported when the name is first asked for: PyTorch takes seconds, and ONNX graphs do without it.
_MODULES = {
    "CitrinetConfig": "configuration_citrinet",
    "CitrinetFeatureExtractor": "feature_extraction_citrinet",
    "CitrinetForCTC": "modeling_citrinet",
    "CitrinetInferenceConfig": "optimization",
    "CitrinetModel": "modeling_citrinet",
    "CitrinetOnnx": "onnx_runner",
    "CitrinetPipeline": "pipeline_citrinet",
    "CitrinetProcessor": "processing_citrinet",
    "CitrinetTokenizer": "tokenization_citrinet",
    "Transcript": "transcript_citrinet",
    "load_audio": "audio_citrinet",
    "optimize_for_inference": "optimization",
    "parse_transcript": "transcript_citrinet",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


# Modules that import Transformers -> the last name that each defines.
_USERS = {
    "adapters_citrinet": "CitrinetAdapterMixin",
    "configuration_citrinet": "CitrinetConfig",
    "feature_extraction_citrinet": "CitrinetFeatureExtractor",
    "modeling_citrinet": "CitrinetForCTC",
    "pipeline_citrinet": "CitrinetPipeline",
    "processing_citrinet": "CitrinetProcessor",
    "tokenization_citrinet": "CitrinetTokenizer",
}


def _register(_: Any) -> None:
    """Register with Transformers once that is imported, and not in the middle of one of our modules importing it."""
    modules = {name: sys.modules.get(f"{__name__}.{name}") for name in _USERS}
    if "transformers" in sys.modules and all(m is None or hasattr(m, _USERS[name]) for name, m in modules.items()):
        importlib.import_module(f"{__name__}.registration")


for _name in ("transformers", *(f"{__name__}.{name}" for name in _USERS)):
    wrapt.register_post_import_hook(_register, _name)

__all__ = [
    "CitrinetConfig",
    "CitrinetFeatureExtractor",
    "CitrinetForCTC",
    "CitrinetInferenceConfig",
    "CitrinetModel",
    "CitrinetOnnx",
    "CitrinetPipeline",
    "CitrinetProcessor",
    "CitrinetTokenizer",
    "Transcript",
    "default_model",
    "load_audio",
    "optimize_for_inference",
    "parse_transcript",
]
