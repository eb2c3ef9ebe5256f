"""Language models, hot words, and the beam search that decodes with them; plain NumPy."""

from .beam_search import BeamSearchDecoder, Hypothesis
from .hot_words import read_hot_words
from .model import LanguageModel, read_language_model

__all__ = ["BeamSearchDecoder", "Hypothesis", "LanguageModel", "read_hot_words", "read_language_model"]
