"""Decoding options: the model's own language model, another one or none, and hot words."""

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
    Options for decoding the outputs of a model.

    Args:
        language_model: `"own"` for the model's `language_model.npz`, if it has one; `"none"`; or a language model or
            its file.
        weight, word_bonus, hot_words, hot_word_boost, beam_size, alternatives: see [`BeamSearchDecoder`].

    Raises:
        ValueError: if `alternatives` is not between 1 and `beam_size`.
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
        """Whether no option is set that only a Citrinet supports."""
        return self == DecodingOptions() or self == DecodingOptions(NONE)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return {**vars(self), "language_model": str(self.language_model), "hot_words": list(self.hot_words)}

    def decoder(self, model: str, pieces: Sequence[str]) -> BeamSearchDecoder | None:
        """
        Make the decoder of a model.

        Args:
            model: folder or Hub repository of the model.
            pieces: its tokens without the blank.

        Returns:
            The decoder; `None` for greedy decoding, if there are no language model, hot words or alternatives.

        Raises:
            ImportError: if a package that the language model needs is missing.
            OSError: if the language model cannot be read.
            ValueError: if it is not a language model, or does not match the tokens.
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
        model: folder or Hub repository; empty for a network from neither.

    Returns:
        Path of the file; `None` if there is none.
    """
    if not model:
        return None
    folder = Path(model)
    if os.path.isdir(model):  # noqa: PTH112 - Path.is_dir raises if the name is too long
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
    except (HFValidationError, RepositoryNotFoundError):  # the network is from neither a folder nor the Hub
        return None


__all__ = ["LANGUAGE_MODEL_FILE", "DecodingOptions", "find_language_model"]
