"""How a model's outputs are decoded: its own language model, another or none, and hot words."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .beam_search import BEAM_SIZE, HOT_WORD_BOOST, BeamSearchDecoder
from .model import LanguageModel, read_language_model

LANGUAGE_MODEL_FILE = "language_model.npz"  # in the folder of a model
OWN, NONE = "own", "none"


@dataclass(frozen=True)
class DecodingOptions:
    """
    How the outputs of a model are decoded.

    Args:
        language_model: `"own"`, the model's own, if `language_model.npz` is with it; `"none"`; or a model or its file.
        weight, word_bonus, hot_words, hot_word_boost, beam_size, alternatives: see [`BeamSearchDecoder`].

    Raises:
        ValueError: for a number that cannot be.
    """

    language_model: LanguageModel | str | Path = OWN
    weight: float | None = None
    word_bonus: float | None = None
    hot_words: Sequence[str] = ()
    hot_word_boost: float = HOT_WORD_BOOST
    beam_size: int = BEAM_SIZE
    alternatives: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.alternatives <= self.beam_size:
            raise ValueError(f"{self.alternatives} alternatives of a beam of {self.beam_size}: use a larger beam.")

    @property
    def is_default(self) -> bool:
        """Whether nothing is asked for that only a Citrinet does."""
        return self == DecodingOptions() or self == DecodingOptions(NONE)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON takes them."""
        return {**vars(self), "language_model": str(self.language_model), "hot_words": list(self.hot_words)}

    def decoder(self, model: str, pieces: Sequence[str]) -> BeamSearchDecoder | None:
        """
        Make the decoder of a model.

        Args:
            model: its folder or Hub repository.
            pieces: its tokens without the blank.

        Returns:
            None for greedy decoding: without a language model, hot words and alternatives.

        Raises:
            ImportError: if a package is missing that the language model needs.
            OSError: if the language model cannot be read.
            ValueError: if it is none, or none for these tokens.
        """
        language_model = self._language_model(model)
        if language_model is None and not self.hot_words and self.alternatives == 1:
            return None
        return BeamSearchDecoder(
            pieces,
            language_model,
            weight=self.weight,
            word_bonus=self.word_bonus,
            hot_words=self.hot_words,
            hot_word_boost=self.hot_word_boost,
            beam_size=self.beam_size,
            alternatives=self.alternatives,
        )

    def _language_model(self, model: str) -> LanguageModel | None:
        if not isinstance(self.language_model, str | Path):
            return self.language_model
        if self.language_model == NONE:
            return None
        file = find_language_model(model) if self.language_model == OWN else self.language_model
        return None if file is None else read_language_model(file)


def find_language_model(model: str) -> Path | None:
    """
    Find a model's own language model.

    Args:
        model: a folder or a Hub repository; empty for a network that is from neither.
    """
    if not model:
        return None
    folder = Path(model)
    if os.path.isdir(model):  # noqa: PTH112 - Path's raises for a name too long
        return folder / LANGUAGE_MODEL_FILE if (folder / LANGUAGE_MODEL_FILE).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, LANGUAGE_MODEL_FILE))
    except (EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        return None
    except (HFValidationError, RepositoryNotFoundError):  # a network that came from elsewhere
        return None


__all__ = ["LANGUAGE_MODEL_FILE", "DecodingOptions", "find_language_model"]
