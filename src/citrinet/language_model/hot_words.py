"""Words that a decoder is to prefer, such as names; many prefixes are followed at once."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..decoding_citrinet import WORD_BOUNDARY
from .spelling import is_marker, spell, split_characters
from .suffix_trie import build_trie

_OTHER = -2


class HotWords:
    """
    A list of words as an automaton of Aho and Corasick (1975), whose states are what hypotheses have of a word.

    Each character that continues a word adds `boost` to a hypothesis; what a word that then ends otherwise has added
    is taken back.

    Args:
        words: may have spaces in them.
        pieces: of the vocabulary. Their markers neither begin nor end a word.
        boost: natural logarithm of what the probability of each character is multiplied by.
    """

    def __init__(self, words: Sequence[str], pieces: Sequence[str], boost: float):
        known = {char for piece in pieces if not is_marker(piece) for char in piece}
        spelled = {word: _characters(word, WORD_BOUNDARY in known) for word in words}
        lost = [word for word, chars in spelled.items() if not known.issuperset(chars)]
        if lost:
            warnings.warn(f"hot words with characters that the model cannot write: {', '.join(lost)}", stacklevel=3)
        wanted = [chars for word, chars in spelled.items() if chars and word not in lost]
        ids = {char: index for index, char in enumerate(dict.fromkeys(char for chars in wanted for char in chars))}
        self.boost = boost
        self._trie, ends = build_trie([[ids[char] for char in chars] for chars in wanted], max(len(ids), 1))
        self._units = spell(pieces, ids, _OTHER)
        self._held, self._earned = self._scores(ends)
        self.pieces = (self._units >= 0).any(axis=1)

    def _scores(self, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(nodes,) what each has of a word that is not whole, and what it has of one that has just become whole."""
        trie, suffixes = self._trie, self._trie.suffixes
        is_end = np.zeros(len(suffixes), bool)
        is_end[ends] = True
        held, earned = np.zeros(len(suffixes), np.float32), np.zeros(len(suffixes), np.float32)
        for node, parent in enumerate(trie.parents.tolist(), start=1):  # shorter ones come first
            score = held[parent] + self.boost
            held[node], earned[node] = (0, score) if is_end[node] else (score, earned[suffixes[node]])
        return held, earned

    def advance(self, states: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Follow hypotheses by one more piece each.

        Args:
            states: (n,) 0 at the start.
            pieces: (n,) ids.

        Returns:
            (n,) what is added to their scores, and (n,) their states.
        """
        gains = -self._held[states]
        for unit in self._units[pieces].T:
            states = np.where(unit == _OTHER, 0, states)
            moved = np.flatnonzero(unit >= 0)
            states[moved] = self._trie.longest(states[moved], unit[moved])
            gains[moved] += self._earned[states[moved]]
        return gains + self._held[states], states

    def unfinished(self, states: np.ndarray) -> np.ndarray:
        """(n,) what hypotheses that end here have of words that are not whole."""
        held: np.ndarray = self._held[states]
        return held


def _characters(word: str, has_boundaries: bool) -> list[str]:
    return [char for char in split_characters(word) if has_boundaries or char != WORD_BOUNDARY]


def read_hot_words(path: str) -> list[str]:
    """
    Read a list of hot words.

    Args:
        path: a UTF-8 file with one a line; blank lines and those that begin with `#` are left out.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not UTF-8 or holds no word.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            words = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: convert it to UTF-8.") from error
    words = [word for word in words if word and not word.startswith("#")]
    if not words:
        raise ValueError(f"{path} holds no words: write one a line.")
    return words


__all__ = ["HotWords", "read_hot_words"]
