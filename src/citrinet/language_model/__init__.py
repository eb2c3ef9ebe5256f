"""Language models, hot words, and CTC beam search decoding with them; plain NumPy."""

from .beam_search import BeamSearchDecoder, Hypothesis
from .hot_words import read_hot_words
from .model import LanguageModel, read_language_model
from .options import DecodingOptions

__all__ = [
    "BeamSearchDecoder",
    "DecodingOptions",
    "Hypothesis",
    "LanguageModel",
    "read_hot_words",
    "read_language_model",
]
