"""
NVIDIA Citrinet speech recognisers in Transformers.

Importing this package registers Citrinet with Transformers' Auto classes and `pipeline`, see `registration.py`. Without
PyTorch or Transformers, the parts that need neither are still available: ONNX models, audio, transcripts.
"""

from . import formats
from .alignment import Alignment, align
from .audio_citrinet import AudioSegment, AudioTooLongError, TruncatedAudioWarning, load_audio
from .default import default_model
from .language_model import BeamSearchDecoder, DecodingOptions, read_language_model
from .recognition import CitrinetOnnx, Recognizer, load_recognizer
from .result_citrinet import RecognitionResult, is_speech
from .streaming import CitrinetStream, StreamText
from .transcript_citrinet import Transcript, parse_transcript

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "AudioSegment",
    "AudioTooLongError",
    "BeamSearchDecoder",
    "CitrinetOnnx",
    "CitrinetStream",
    "DecodingOptions",
    "RecognitionResult",
    "Recognizer",
    "StreamText",
    "Transcript",
    "TruncatedAudioWarning",
    "align",
    "default_model",
    "formats",
    "is_speech",
    "load_audio",
    "load_recognizer",
    "parse_transcript",
    "read_language_model",
]

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError:
    pass
else:
    from . import registration
    from .registration import *  # noqa: F403 - the names are in its `__all__`

    __all__ += registration.__all__
