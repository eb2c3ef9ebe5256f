"""
What Transformers is told of Citrinet: importing this module, as `import citrinet` does, is all that is needed.

There is no other place. Transformers finds its own models by tables of names; for a model outside it each Auto class
has `register`, and `pipeline` a registry of tasks.
"""

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

    def __new__(cls, model, *args, **kwargs):
        is_citrinet = model.config.model_type == CitrinetConfig.model_type
        return (CitrinetPipeline if is_citrinet else AutomaticSpeechRecognitionPipeline)(model, *args, **kwargs)


AutoConfig.register(CitrinetConfig.model_type, CitrinetConfig, exist_ok=True)
AutoModel.register(CitrinetConfig, CitrinetModel, exist_ok=True)
AutoModelForCTC.register(CitrinetConfig, CitrinetForCTC, exist_ok=True)
AutoFeatureExtractor.register(CitrinetConfig, CitrinetFeatureExtractor, exist_ok=True)
AutoTokenizer.register(CitrinetConfig, fast_tokenizer_class=CitrinetTokenizer, exist_ok=True)
AutoProcessor.register(CitrinetConfig, CitrinetProcessor, exist_ok=True)
# Saving then copies the modules of these classes, so that what is saved loads with `trust_remote_code` too.
CitrinetConfig.register_for_auto_class()
CitrinetModel.register_for_auto_class("AutoModel")
CitrinetForCTC.register_for_auto_class("AutoModelForCTC")
CitrinetFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
CitrinetTokenizer.register_for_auto_class("AutoTokenizer")
CitrinetProcessor.register_for_auto_class("AutoProcessor")
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
