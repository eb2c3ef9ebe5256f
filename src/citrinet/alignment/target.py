"""Tokenise a text as a CTC head would write it, with the characters of each token."""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..decoding_citrinet import WORD_BOUNDARY
from ..transcript_citrinet import MARKER_PIECE

_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Token:
    """A token: its id, and its characters [first, stop) in the text."""

    id: int
    first: int
    stop: int


@dataclass(frozen=True)
class _Symbol:
    """A character as the vocabulary writes it, and its characters [first, stop) in the text, empty for a boundary."""

    char: str
    first: int
    stop: int


def is_silent(piece: str) -> bool:
    """Whether a piece is not spoken: a marker, a word boundary alone, or the unknown token."""
    spoken = piece.strip(f"{WORD_BOUNDARY} ")
    return not spoken or spoken == _UNKNOWN or MARKER_PIECE.fullmatch(spoken) is not None


class TextTokenizer:
    """
    Tokenises texts with a SentencePiece vocabulary, given only its pieces in order.

    A BPE vocabulary lists its pieces in the order of their merges, so the tokens are those of SentencePiece. Another
    vocabulary is taken as a unigram one, with its pieces in the order of their probabilities, which are estimated as
    one divided by the rank (Zipf). Characters are converted to the width or case of the vocabulary; single word
    boundaries and characters that are not in the vocabulary are left out.

    Args:
        pieces: pieces of the vocabulary, without the blank.
    """

    def __init__(self, pieces: Sequence[str]):
        self._ids = {piece: index for index, piece in enumerate(pieces) if not is_silent(piece)}
        self._alphabet = {char for piece in self._ids for char in piece}
        self._longest = max(map(len, self._ids), default=0)
        self._ids |= {piece: index for index, piece in enumerate(pieces) if piece == WORD_BOUNDARY}
        self._has_boundaries = any(piece.startswith(WORD_BOUNDARY) for piece in self._ids)
        self._is_merged = all(self._parts(piece) for piece in self._ids if len(piece) > 1)

    def __call__(self, text: str) -> list[Token]:
        """
        Tokenise a text.

        Args:
            text: text without markers.

        Returns:
            The tokens in order.
        """
        return [
            token
            for word in re.finditer(r"\S+", text)
            for run in self._runs(word)
            for token in self._cut(run)
            if token.first < token.stop
        ]

    def _runs(self, word: re.Match[str]) -> Iterator[list[_Symbol]]:
        """Split a word into runs of symbols, at characters that are not in the vocabulary."""
        start = word.start()
        run = [_Symbol(WORD_BOUNDARY, start, start)] if self._has_boundaries else []
        for index, char in enumerate(word.group(), start):
            written = self._written(char)
            if not written and run:
                yield run
                run = []
            run += [_Symbol(one, index, index + 1) for one in written]
        if run:
            yield run

    def _written(self, char: str) -> str:
        """Return a character as the vocabulary writes it; empty if it is not in the vocabulary."""
        normal = unicodedata.normalize("NFKC", char)
        ways = (char, normal, normal.lower(), normal.upper())
        return next((way for way in ways if way.strip() and self._alphabet.issuperset(way)), "")

    def _cut(self, run: list[_Symbol]) -> list[Token]:
        spans = self._merge(run) if self._is_merged else self._likeliest(run)
        text = "".join(symbol.char for symbol in run)
        return [
            Token(self._ids[text[first:stop]], run[first].first, run[stop - 1].stop)
            for first, stop in spans
            if text[first:stop] in self._ids
        ]

    def _merge(self, run: list[_Symbol]) -> list[tuple[int, int]]:
        """BPE: repeatedly merge the neighbours whose joined piece comes first in the vocabulary."""
        text = "".join(symbol.char for symbol in run)
        bounds = list(range(len(run) + 1))
        while len(bounds) > 2:
            ranks = [self._ids.get(text[a:b], math.inf) for a, b in zip(bounds, bounds[2:], strict=False)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == math.inf:
                break
            del bounds[best + 1]
        return list(pairwise(bounds))

    def _likeliest(self, run: list[_Symbol]) -> list[tuple[int, int]]:
        """Unigram: find the pieces with the largest product of probabilities."""
        text = "".join(symbol.char for symbol in run)
        unknown = math.log(len(self._ids) + 1) * 3
        costs, begins = [0.0], [0]
        for stop in range(1, len(text) + 1):
            options = [(costs[stop - 1] + unknown, stop - 1)]
            for first in range(max(0, stop - self._longest), stop):
                rank = self._ids.get(text[first:stop])
                if rank is not None:
                    options.append((costs[first] + math.log(rank + 1), first))
            cost, begin = min(options)
            costs.append(cost)
            begins.append(begin)
        spans: list[tuple[int, int]] = []
        stop = len(text)
        while stop:
            spans.append((begins[stop], stop))
            stop = begins[stop]
        return spans[::-1]

    def _parts(self, piece: str) -> bool:
        return any(piece[:i] in self._ids and piece[i:] in self._ids for i in range(1, len(piece)))


__all__ = ["TextTokenizer", "Token", "is_silent"]
