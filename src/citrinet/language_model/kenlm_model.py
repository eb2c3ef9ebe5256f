"""KenLM binary files, read with the package `kenlm` if it is installed."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .ngram import STOP, UNKNOWN

_MAGIC = b"mmap lm http://kheafield.com/code"


def is_kenlm_binary(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a KenLM binary file."""
    return start.startswith(_MAGIC)


class KenLMModel:
    """
    A KenLM model; see [`LanguageModel`]. It scores one token at a time, and only one decoder can use it at a time.

    Args:
        path: the file.

    Raises:
        ImportError: if the package `kenlm` is not installed.
        OSError: if the file cannot be read.
    """

    def __init__(self, path: str | Path):
        try:
            import kenlm
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{path} is a binary file of KenLM, which needs its package: pip install kenlm. ARPA files need none."
            ) from error
        self._new_state: Any = kenlm.State
        self._model: Any = kenlm.Model(str(path))
        self.ids: Mapping[str, int] = _Vocabulary(self._model)
        self.stop = self.ids[STOP]
        self.settings: dict[str, float] = {}
        self.begin()

    def begin(self) -> int:
        """Return the state at the start of a sentence; all earlier states become invalid."""
        first = self._new_state()
        self._model.BeginSentenceWrite(first)
        self._states = [first]
        self._numbers = {first: 0}
        self._known: dict[tuple[int, int], tuple[float, int]] = {}
        return 0

    def score(self, states: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score tokens after states, see [`LanguageModel`]."""
        pairs = [self._score(*pair) for pair in zip(states.tolist(), tokens.tolist(), strict=True)]
        scores = np.array([score for score, _ in pairs], np.float32)
        return scores, np.array([state for _, state in pairs], np.int64)

    def _score(self, state: int, token: int) -> tuple[float, int]:
        known = self._known.get((state, token))
        if known is None:
            after = self._new_state()
            score = self._model.BaseScore(self._states[state], self.ids.names[token], after)  # type: ignore[attr-defined]
            number = self._numbers.setdefault(after, len(self._states))
            if number == len(self._states):
                self._states.append(after)
            known = self._known[state, token] = (score * math.log(10), number)
        return known


class _Vocabulary(Mapping[str, int]):
    """Vocabulary of a KenLM model, which cannot be listed; tokens get ids when they are first looked up."""

    def __init__(self, model: Any):
        self._model = model
        self.names = [UNKNOWN, STOP]
        self._numbers = {UNKNOWN: 0, STOP: 1}

    def __getitem__(self, token: str) -> int:
        number = self._numbers.get(token)
        if number is None:
            if token not in self._model:
                raise KeyError(token)
            number = self._numbers[token] = len(self.names)
            self.names.append(token)
        return number

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


__all__ = ["KenLMModel", "is_kenlm_binary"]
