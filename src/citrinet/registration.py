"""
Registration of Citrinet with Transformers; importing this module, as `import citrinet` does, is enough.

Transformers finds its own models in tables of names. For other models each Auto class has `register`, and `pipeline`
has a registry of tasks.
"""

from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutomaticSpeechRecognitionPipeline,
    AutoModel,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_citrinet import CitrinetConfig
from .feature_extraction_citrinet import CitrinetFeatureExtractor
from .modeling_citrinet import CitrinetForCTC, CitrinetModel
from .optimized import CitrinetInferenceConfig, optimize_for_inference
from .pipeline_citrinet import CitrinetPipeline
from .processing_citrinet import CitrinetProcessor
from .tokenization_citrinet import CitrinetTokenizer


class _SpeechRecognitionPipeline(AutomaticSpeechRecognitionPipeline):
    """The task's entry in `pipeline()`: Citrinet models get [`CitrinetPipeline`], all others the stock class."""

    def __new__(cls, model: Any, *args: Any, **kwargs: Any) -> Any:
        is_citrinet = model.config.model_type == CitrinetConfig.model_type
        return (CitrinetPipeline if is_citrinet else AutomaticSpeechRecognitionPipeline)(model, *args, **kwargs)


# For each Auto class the class to register, and the name of `register`'s argument for it.
_CLASSES: list[tuple[Any, Any, str]] = [
    (AutoModel, CitrinetModel, "model_class"),
    (AutoModelForCTC, CitrinetForCTC, "model_class"),
    (AutoFeatureExtractor, CitrinetFeatureExtractor, "feature_extractor_class"),
    (AutoTokenizer, CitrinetTokenizer, "fast_tokenizer_class"),
    (AutoProcessor, CitrinetProcessor, "processor_class"),
]

AutoConfig.register(CitrinetConfig.model_type, CitrinetConfig, exist_ok=True)
CitrinetConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
for _auto, _class, _argument in _CLASSES:
    _auto.register(CitrinetConfig, **{_argument: _class}, exist_ok=True)
    # Saving then copies the modules of the class, so that a saved model also loads with `trust_remote_code`.
    _class.register_for_auto_class(_auto.__name__)
PIPELINE_REGISTRY.supported_tasks["automatic-speech-recognition"]["impl"] = _SpeechRecognitionPipeline

__all__ = [
    "CitrinetConfig",
    "CitrinetFeatureExtractor",
    "CitrinetForCTC",
    "CitrinetInferenceConfig",
    "CitrinetModel",
    "CitrinetPipeline",
    "CitrinetProcessor",
    "CitrinetTokenizer",
    "optimize_for_inference",
]
