"""A text as the tokens that a CTC head would write for it, each with the characters that it stands for."""

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
    """A token: its id, and the characters [first, stop) of the text that it stands for."""

    id: int
    first: int
    stop: int


@dataclass(frozen=True)
class _Symbol:
    """A character as a vocabulary may hold it, and the characters of the text that it is of: none for a boundary."""

    char: str
    first: int
    stop: int


def is_silent(piece: str) -> bool:
    """Whether a piece stands for nothing that is heard: a marker, a word boundary on its own, the unknown token."""
    spoken = piece.strip(f"{WORD_BOUNDARY} ")
    return not spoken or spoken == _UNKNOWN or MARKER_PIECE.fullmatch(spoken) is not None


class TextTokenizer:
    """
    Cuts texts into the pieces of a SentencePiece vocabulary, of which nothing is known but the pieces in their order.

    With the merges of a BPE vocabulary, which are in that order, the pieces are SentencePiece's. If a vocabulary is not
    made of merges, it is taken for a unigram one, whose pieces are in the order of their probabilities: those are put
    at one divided by the rank (Zipf). Characters that the vocabulary writes otherwise, in another width or case, are
    put in its way; word boundaries on their own are left out, and characters that it does not know.

    Args:
        pieces: without the blank.
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
        Cut a text.

        Args:
            text: without markers.

        Returns:
            Tokens in their order.
        """
        return [
            token
            for word in re.finditer(r"\S+", text)
            for run in self._runs(word)
            for token in self._cut(run)
            if token.first < token.stop
        ]

    def _runs(self, word: re.Match[str]) -> Iterator[list[_Symbol]]:
        """Symbols of a word between characters that are not known."""
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
        """A character as the vocabulary has it; nothing if it does not."""
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
        """BPE: of neighbours that make a piece, those are joined first whose piece comes first in the vocabulary."""
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
        """Unigram: the pieces of which the product of the probabilities is largest."""
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
