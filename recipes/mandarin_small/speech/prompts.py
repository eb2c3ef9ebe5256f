"""Kokoro's inputs for an utterance: tokens of its phonemes, and the style of its blend of voices."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utterance import Utterance
from .fetch import VOCABULARY, VOICES

LONGEST = 510  # phonemes


class Prompts:
    """
    Computes tokens and styles of utterances.

    Args:
        folder: folder of Kokoro, see [`fetch`].
    """

    def __init__(self, folder: Path):
        self._ids: dict[str, int] = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))["vocab"]
        self._folder = folder / VOICES
        self._voice = cache(self._read_voice)

    def __call__(self, utterance: Utterance) -> tuple[list[int], NDArray[np.float32]] | None:
        """
        Compute tokens and style of one utterance.

        Returns:
            Tokens with the boundary mark 0 before and after, and a style (256,), which depends on their number. Symbols
            that Kokoro does not know are skipped. `None` if no token is left, or more than Kokoro can read.

        Raises:
            ValueError: for a voice that Kokoro does not have.
        """
        ids = [self._ids[symbol] for symbol in utterance.phonemes if symbol in self._ids]
        if not 0 < len(ids) <= LONGEST:
            return None
        style = sum(weight * self._voice(name)[len(ids) - 1] for name, weight in utterance.voice)
        return [0, *ids, 0], np.asarray(style, np.float32)

    def _read_voice(self, name: str) -> NDArray[np.float32]:
        path = self._folder / f"{name}.bin"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in self._folder.glob("*.bin")))
            raise ValueError(f"Kokoro has no voice {name!r}; it has {known}.")
        return np.fromfile(path, np.float32).reshape(LONGEST, -1)
