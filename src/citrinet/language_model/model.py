"""What a decoder asks of a language model, and models in files, whatever their form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from . import arpa
from .kenlm_model import KenLMModel, is_kenlm_binary
from .ngram import NGramModel


class LanguageModel(Protocol):
    """
    A model that scores tokens after states, which stand for the tokens before them.

    Args:
        ids: token -> id; `<unk>` among them.
        stop: the id of what ends a sentence.
        settings: `weight` and `word_bonus` that a decoder is to use, if the model says.
    """

    @property
    def ids(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def stop(self) -> int: ...  # noqa: D102

    @property
    def settings(self) -> dict[str, float]: ...  # noqa: D102

    def begin(self) -> int:
        """The state at the start of a sentence; states of sentences before need no longer be known."""

    def score(self, states: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Score tokens.

        Args:
            states: (n,) int64.
            tokens: (n,) int64 ids.

        Returns:
            (n,) natural logarithms of the probabilities of tokens after states, and (n,) the states that follow.
        """


def read_language_model(path: str | Path) -> LanguageModel:
    """
    Read an n-gram model.

    Args:
        path: an ARPA file, also compressed with gzip; a binary file of KenLM, which needs the package `kenlm`; or what
            [`NGramModel.save`] wrote.

    Raises:
        ImportError: if `kenlm` is missing that the file needs.
        OSError: if it cannot be read.
        ValueError: if it is no language model, or damaged.
    """
    with Path(path).open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return NGramModel.load(path)
    if is_kenlm_binary(start):
        return KenLMModel(path)
    return arpa.read(path)


__all__ = ["LanguageModel", "read_language_model"]
