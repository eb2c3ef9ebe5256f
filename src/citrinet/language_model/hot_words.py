"""Hot words: words that a decoder prefers, such as names; scored for many prefixes at once."""

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
    Hot words as an Aho-Corasick automaton (1975); a state is the part of a word that a hypothesis ends with.

    Each character that continues a word adds `boost` to the score of a hypothesis. If the word is not completed, its
    boost is taken back.

    Args:
        words: the words; they may contain spaces.
        pieces: pieces of the vocabulary; markers are ignored.
        boost: score added per character, a natural logarithm.
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
        """(nodes,) scores for an incomplete word, and (nodes,) scores for a word completed at the node."""
        trie, suffixes = self._trie, self._trie.suffixes
        is_end = np.zeros(len(suffixes), bool)
        is_end[ends] = True
        held, earned = np.zeros(len(suffixes), np.float32), np.zeros(len(suffixes), np.float32)
        for node, parent in enumerate(trie.parents.tolist(), start=1):  # parents come first
            score = held[parent] + self.boost
            held[node], earned[node] = (0, score) if is_end[node] else (score, earned[suffixes[node]])
        return held, earned

    def advance(self, states: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Advance each hypothesis by one piece.

        Args:
            states: (n,) states, 0 at the start.
            pieces: (n,) ids of pieces.

        Returns:
            (n,) changes of their scores, and (n,) their new states.
        """
        gains = -self._held[states]
        for unit in self._units[pieces].T:
            states = np.where(unit == _OTHER, 0, states)
            moved = np.flatnonzero(unit >= 0)
            states[moved] = self._trie.longest(states[moved], unit[moved])
            gains[moved] += self._earned[states[moved]]
        return gains + self._held[states], states

    def unfinished(self, states: np.ndarray) -> np.ndarray:
        """(n,) scores of incomplete words, to be taken back from hypotheses that end here."""
        held: np.ndarray = self._held[states]
        return held


def _characters(word: str, has_boundaries: bool) -> list[str]:
    return [char for char in split_characters(word) if has_boundaries or char != WORD_BOUNDARY]


def read_hot_words(path: str) -> list[str]:
    """
    Read a list of hot words.

    Args:
        path: UTF-8 file with one word per line; blank lines and lines that begin with `#` are ignored.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not UTF-8 or has no words.
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
