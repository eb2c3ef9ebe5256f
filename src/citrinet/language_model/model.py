"""The protocol of language models, and reading them from files of any supported format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from . import arpa
from .kenlm_model import KenLMModel, is_kenlm_binary
from .ngram import NGramModel


class LanguageModel(Protocol):
    """
    A language model that scores tokens given a state, which represents the preceding tokens.

    Args:
        ids: token -> id, including `<unk>`.
        stop: id of the end-of-sentence token.
        settings: `weight` and `word_bonus` for decoders, if the model has them.
    """

    @property
    def ids(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def stop(self) -> int: ...  # noqa: D102

    @property
    def settings(self) -> dict[str, float]: ...  # noqa: D102

    def begin(self) -> int:
        """Return the state at the start of a sentence; earlier states may become invalid."""

    def score(self, states: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Score tokens.

        Args:
            states: (n,) int64.
            tokens: (n,) int64 ids.

        Returns:
            (n,) natural log-probabilities of the tokens given the states, and (n,) the next states.
        """


def read_language_model(path: str | Path) -> LanguageModel:
    """
    Read an n-gram model.

    Args:
        path: an ARPA file, optionally compressed with gzip; a KenLM binary file, which needs the package `kenlm`; or a
            file written by [`NGramModel.save`].

    Raises:
        ImportError: if the file needs `kenlm` and it is not installed.
        OSError: if it cannot be read.
        ValueError: if it is not a language model, or damaged.
    """
    with Path(path).open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return NGramModel.load(path)
    if is_kenlm_binary(start):
        return KenLMModel(path)
    return arpa.read(path)


__all__ = ["LanguageModel", "read_language_model"]
