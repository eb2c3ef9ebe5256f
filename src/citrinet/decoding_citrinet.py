"""From a network's outputs to tokens, by CTC's collapse or a decoder, and to text with times; plain NumPy."""

import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from .transcript_citrinet import Span

WORD_BOUNDARY = "▁"
# The likeliest tokens of each frame that a decoder chooses from: of an hour's frames all would be a gigabyte.
DECODER_TOKENS = 64
# Pieces in which NeMo does not look for punctuation marks: the first of a word, continuations, special tokens, space.
_NO_PUNCTUATION = re.compile(r"▁|##|<.*>$|\[.*\]$|\s*$")


@dataclass(frozen=True)
class CTCToken:
    """One token that CTC emitted: its id and the frames [start, end) over which it was the best."""

    id: int
    start: int
    end: int


class Decoder(Protocol):
    """What finds the tokens in the outputs of a network, in place of the likeliest one of each frame."""

    def __call__(self, log_probs: np.ndarray) -> list[CTCToken]:
        """
        Decode one segment.

        Args:
            log_probs: (T', V) natural logarithms of the probabilities; of unlikely tokens they may be minus infinity.

        Returns:
            The tokens in order, each with the frames over which it was emitted.
        """


class Reading(NamedTuple):
    """One of the readings of a segment: its tokens, and a score, higher for likelier ones."""

    tokens: list[CTCToken]
    score: float


@dataclass(frozen=True)
class Decoded:
    """
    What was decoded of a segment.

    Args:
        tokens: in order.
        probabilities: (tokens,) of each in its best frame; with several readings, the geometric mean of that and of the
            probability of the readings that have it.
        alternatives: all readings, the first one of these tokens, where a decoder was asked for several.
    """

    tokens: list[CTCToken]
    probabilities: np.ndarray
    alternatives: Sequence[Reading] = ()


@dataclass(frozen=True)
class Emissions:
    """
    What is kept of a network's outputs for one segment.

    Args:
        tokens: (T', K) the likeliest tokens of each frame, the first one the likeliest.
        log_probs: (T', K) their log-probabilities.
    """

    tokens: np.ndarray
    log_probs: np.ndarray

    @classmethod
    def of(cls, log_probs: np.ndarray, count: int) -> "Emissions":
        """Keep the `count` likeliest tokens of each frame of (T', V) log-probabilities."""
        if count == 1:
            tokens = log_probs.argmax(axis=-1)[:, None]
        else:
            likely = np.argpartition(-log_probs, min(count, log_probs.shape[-1]) - 1, axis=-1)[:, :count]
            order = np.argsort(-np.take_along_axis(log_probs, likely, axis=-1), axis=-1)
            tokens = np.take_along_axis(likely, order, axis=-1)
        return cls(tokens, np.take_along_axis(log_probs, tokens, axis=-1))

    @classmethod
    def joined(cls, parts: "Sequence[Emissions]") -> "Emissions":
        """Those of parts that follow each other."""
        tokens, log_probs = ([getattr(part, name) for part in parts] for name in ("tokens", "log_probs"))
        return cls(np.concatenate(tokens), np.concatenate(log_probs))

    def decode(self, decoder: Decoder | None, blank: int, size: int) -> Decoded:
        """
        Find the tokens.

        Args:
            decoder: greedy decoding if there is none. One that can tell several readings is asked for them: by
                `n_best(log_probs, beam_size)`, which gives objects with `tokens` and `score`, the best one first. So
                many of them as it has `alternatives` are kept, if those are more than one.
            blank: its id.
            size: how many tokens there are, the blank included.
        """
        if decoder is None:
            tokens = collapse(self.tokens[:, 0].tolist(), blank)
            return Decoded(tokens, self._probabilities(tokens))
        dense = np.full((len(self.tokens), size), -np.inf, np.float32)
        np.put_along_axis(dense, self.tokens, self.log_probs, axis=-1)
        if not hasattr(decoder, "n_best"):
            tokens = decoder(dense)
            return Decoded(tokens, self._probabilities(tokens))
        found: Any = decoder
        readings = [Reading(reading.tokens, reading.score) for reading in found.n_best(dense, found.beam_size)]
        tokens = readings[0].tokens
        # The network alone doubts what a language model chose, the readings alone are too sure: their geometric mean.
        probabilities = np.sqrt(self._probabilities(tokens) * _posteriors(readings))
        return Decoded(tokens, probabilities, readings[: found.alternatives] if found.alternatives > 1 else ())

    def _probabilities(self, tokens: Sequence[CTCToken]) -> np.ndarray:
        return np.array([self._probability(token) for token in tokens])

    def _probability(self, token: CTCToken) -> float:
        frames = slice(token.start, token.end)
        emitted = np.where(self.tokens[frames] == token.id, self.log_probs[frames], -np.inf)
        return float(np.exp(emitted.max()))


def _posteriors(readings: Sequence[Reading]) -> np.ndarray:
    """For each token of the first reading the probability of the readings that have it at about the same time."""
    weights = np.exp(np.array([reading.score for reading in readings]) - readings[0].score)
    weights /= weights.sum()
    places: list[dict[int, list[CTCToken]]] = [{} for _ in readings]
    for by_id, reading in zip(places, readings, strict=True):
        for token in reading.tokens:
            by_id.setdefault(token.id, []).append(token)
    return np.array(
        [
            sum(
                weight
                for weight, by_id in zip(weights, places, strict=True)
                if any(other.start <= token.end and token.start <= other.end for other in by_id.get(token.id, ()))
            )
            for token in readings[0].tokens
        ]
    )


def collapse(ids: Iterable[int], blank: int | None, group_tokens: bool = True) -> list[CTCToken]:
    """
    Collapse frame-wise ids: group repeats, drop the blank.

    Args:
        ids: (T',) ids.
        blank: the id of the blank.
        group_tokens: whether repeats stand for one token; if not, every id is a token of one frame.

    Returns:
        The tokens with the frames over which each was emitted.
    """
    tokens, frame = [], 0
    groups = ((i, len(list(run))) for i, run in itertools.groupby(ids)) if group_tokens else ((i, 1) for i in ids)
    for token_id, length in groups:
        if token_id != blank:
            tokens.append(CTCToken(token_id, frame, frame + length))
        frame += length
    return tokens


def punctuation_marks(vocabulary: Iterable[str]) -> frozenset[str]:
    """Punctuation marks of a vocabulary, which NeMo writes without a space before them."""
    chars = {char for token in vocabulary if not _NO_PUNCTUATION.match(token) for char in token}
    return frozenset(char for char in chars if unicodedata.category(char).startswith("P"))


@dataclass(frozen=True)
class PieceJoiner:
    """
    Joins tokens to text as SentencePiece does; then, as NeMo does, drops one space before each punctuation mark.

    Args:
        piece: id -> piece of the vocabulary.
        unknown_id: the id of the unknown token, which SentencePiece writes as ` ⁇ `.
        leading_boundaries: what becomes of word boundaries at the start, see [`CitrinetTokenizer`].
        punctuation: the marks before which a space is dropped.
    """

    piece: Callable[[int], str | None]
    unknown_id: int | None
    leading_boundaries: str
    punctuation: frozenset[str]

    def text_with_spans(self, tokens: list[CTCToken], skipped: Collection[int] = ()) -> tuple[str, list[Span]]:
        """
        Join tokens to text, with the frames and the token of every character.

        A piece of several characters shares its frames evenly among them: CTC says no more than that.

        Args:
            tokens: what [`collapse`] gives.
            skipped: ids to leave out.

        Returns:
            The text and one [`Span`] (start, end in frames, index into `tokens`) for each of its characters.
        """
        chars: list[str] = []
        spans: list[Span] = []
        kept_tokens = [(index, token) for index, token in enumerate(tokens) if token.id not in skipped]
        for order, (index, token) in enumerate(kept_tokens):
            surface = self._surface(token.id)
            if surface.startswith(" ") and token.id != self.unknown_id and self._is_leading(order, chars):
                surface = surface[1:]
            step = (token.end - token.start) / max(len(surface), 1)
            for position, char in enumerate(surface):
                chars.append(char)
                spans.append(Span(token.start + position * step, token.start + (position + 1) * step, index))
        kept = [i for i in range(len(chars)) if not self._is_dropped_space(chars, i)]
        return "".join(chars[i] for i in kept), [spans[i] for i in kept]

    def _surface(self, token_id: int) -> str:
        if token_id == self.unknown_id:
            return " ⁇ "
        return str(self.piece(token_id) or "").replace(WORD_BOUNDARY, " ")

    def _is_leading(self, order: int, chars: list[str]) -> bool:
        """Whether a word boundary stands at the start of the text, where SentencePiece writes no space for it."""
        dropped = self.leading_boundaries
        return (dropped == "drop_one" and order == 0) or (dropped == "drop_all" and not chars)

    def _is_dropped_space(self, chars: list[str], index: int) -> bool:
        followed = index + 1 < len(chars) and chars[index + 1] in self.punctuation
        return followed and re.match(r"\s", chars[index]) is not None
