"""Decode network outputs to tokens, greedily or with a decoder, and tokens to text with times; plain NumPy."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from .transcript_citrinet import Span

WORD_BOUNDARY = "▁"
# Number of most likely tokens per frame that a decoder gets: all tokens of an hour of audio would take a gigabyte.
DECODER_TOKENS = 64
# Pieces in which NeMo does not look for punctuation: starts of words, continuations, special tokens, whitespace.
_NO_PUNCTUATION = re.compile(r"▁|##|<.*>$|\[.*\]$|\s*$")


class CTCToken(NamedTuple):
    """A token emitted by CTC: its id and the frames [start, end) in which it was the most likely token."""

    id: int
    start: int
    end: int


class Decoder(Protocol):
    """A decoder: finds the tokens in the outputs of a network, in place of greedy decoding."""

    def __call__(self, log_probs: np.ndarray) -> list[CTCToken]:
        """
        Decode one segment.

        Args:
            log_probs: (T', V) natural log-probabilities; those of unlikely tokens may be minus infinity.

        Returns:
            The tokens in order, each with the frames in which it was emitted.
        """


class Reading(NamedTuple):
    """One hypothesis for a segment: its tokens, and a score, higher for more likely ones."""

    tokens: list[CTCToken]
    score: float


@dataclass(frozen=True)
class Decoded:
    """
    The decoded tokens of a segment.

    Args:
        tokens: the tokens in order.
        probabilities: (tokens,) highest probability of each token in its frames; with several hypotheses, the geometric
            mean of that and of the probability of the hypotheses that contain the token.
        alternatives: the best hypotheses, the first one with these tokens, if the decoder has `alternatives` above one.
    """

    tokens: list[CTCToken]
    probabilities: np.ndarray
    alternatives: Sequence[Reading] = ()


@dataclass(frozen=True)
class Emissions:
    """
    The outputs of a network kept for one segment.

    Args:
        tokens: (T', K) the most likely tokens of each frame, in descending order.
        log_probs: (T', K) their log-probabilities.
    """

    tokens: np.ndarray
    log_probs: np.ndarray

    @classmethod
    def of(cls, log_probs: np.ndarray, count: int) -> "Emissions":
        """Keep the `count` most likely tokens of each frame of (T', V) log-probabilities."""
        if count == 1:
            tokens = log_probs.argmax(axis=-1)[:, None]
        else:
            likely = np.argpartition(-log_probs, min(count, log_probs.shape[-1]) - 1, axis=-1)[:, :count]
            order = np.argsort(-np.take_along_axis(log_probs, likely, axis=-1), axis=-1)
            tokens = np.take_along_axis(likely, order, axis=-1)
        return cls(tokens, np.take_along_axis(log_probs, tokens, axis=-1))

    @classmethod
    def joined(cls, parts: "Sequence[Emissions]") -> "Emissions":
        """Concatenate the emissions of consecutive parts."""
        tokens, log_probs = ([getattr(part, name) for part in parts] for name in ("tokens", "log_probs"))
        return cls(np.concatenate(tokens), np.concatenate(log_probs))

    def decode(self, decoder: Decoder | None, blank: int, size: int) -> Decoded:
        """
        Decode the emissions.

        Args:
            decoder: decoder; `None` is greedy decoding. If it has a method `n_best(log_probs, beam_size)`, that returns
                several hypotheses, objects with `tokens` and `score`, best first. The first `decoder.alternatives` of
                them are kept if that is more than one.
            blank: id of the blank.
            size: number of tokens, including the blank.
        """
        if decoder is None:
            return self._greedy(blank)
        dense = np.full((len(self.tokens), size), -np.inf, np.float32)
        np.put_along_axis(dense, self.tokens, self.log_probs, axis=-1)
        if not hasattr(decoder, "n_best"):
            tokens = decoder(dense)
            return Decoded(tokens, self._probabilities(tokens))
        found: Any = decoder
        readings = [Reading(reading.tokens, reading.score) for reading in found.n_best(dense, found.beam_size)]
        tokens = readings[0].tokens
        # The network alone is underconfident where the language model chose, the hypotheses alone are overconfident.
        probabilities = np.sqrt(self._probabilities(tokens) * _posteriors(readings))
        return Decoded(tokens, probabilities, readings[: found.alternatives] if found.alternatives > 1 else ())

    def _greedy(self, blank: int) -> Decoded:
        ids, starts, ends = _runs(self.tokens[:, 0], blank)
        if not len(ids):
            return Decoded([], np.zeros(0))
        bounds = np.stack([starts, ends], axis=1).ravel()  # frames of each token, and those up to the next token
        highest = np.maximum.reduceat(np.append(self.log_probs[:, 0], -np.inf), bounds)[::2]
        return Decoded(list(map(CTCToken, ids.tolist(), starts.tolist(), ends.tolist())), np.exp(highest))

    def _probabilities(self, tokens: Sequence[CTCToken]) -> np.ndarray:
        return np.array([self._probability(token) for token in tokens])

    def _probability(self, token: CTCToken) -> float:
        frames = slice(token.start, token.end)
        emitted = np.where(self.tokens[frames] == token.id, self.log_probs[frames], -np.inf)
        return float(np.exp(emitted.max()))


def _posteriors(readings: Sequence[Reading]) -> np.ndarray:
    """For each token of the first reading, the probability of all readings that have it at about the same time."""
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


def collapse(ids: Sequence[int] | np.ndarray, blank: int | None, group_tokens: bool = True) -> list[CTCToken]:
    """
    Collapse frame-wise ids: group repeats, drop the blank.

    Args:
        ids: (T',) ids.
        blank: id of the blank.
        group_tokens: whether repeats are one token; otherwise every id is a token of one frame.

    Returns:
        The tokens with the frames in which each was emitted.
    """
    runs = _runs(np.asarray(ids, np.int64), blank, group_tokens)
    return list(map(CTCToken, *(values.tolist() for values in runs)))


def _runs(ids: np.ndarray, blank: int | None, group_tokens: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, first frames and ends of the runs of equal ids other than the blank."""
    starts = np.flatnonzero(np.diff(ids, prepend=-1)) if group_tokens else np.arange(len(ids))
    ends = np.append(starts[1:], len(ids))
    spoken = np.flatnonzero(ids[starts] != (-1 if blank is None else blank))
    return ids[starts[spoken]], starts[spoken], ends[spoken]


def punctuation_marks(vocabulary: Iterable[str]) -> frozenset[str]:
    """Return the punctuation marks of a vocabulary, before which NeMo removes a space."""
    chars = {char for token in vocabulary if not _NO_PUNCTUATION.match(token) for char in token}
    return frozenset(char for char in chars if unicodedata.category(char).startswith("P"))


@dataclass(frozen=True)
class PieceJoiner:
    """
    Joins tokens to text as SentencePiece does; then, as NeMo does, removes one space before each punctuation mark.

    Args:
        piece: id -> piece of the vocabulary.
        unknown_id: id of the unknown token, which SentencePiece writes as ` ⁇ `.
        leading_boundaries: treatment of word boundaries at the start, see [`CitrinetTokenizer`].
        punctuation: marks before which a space is removed.
    """

    piece: Callable[[int], str | None]
    unknown_id: int | None
    leading_boundaries: str
    punctuation: frozenset[str]

    def text_with_spans(self, tokens: list[CTCToken], skipped: Collection[int] = ()) -> tuple[str, list[Span]]:
        """
        Join tokens to text, with the frames and the token of every character.

        The frames of a piece are divided evenly among its characters, since CTC gives times only for pieces.

        Args:
            tokens: tokens from [`collapse`].
            skipped: ids to leave out.

        Returns:
            The text and one [`Span`] (start, end in frames, index into `tokens`) for each of its characters.
        """
        kept = [index for index, token in enumerate(tokens) if token.id not in skipped]
        surfaces = [self._surface(tokens[index].id) for index in kept]
        self._drop_boundaries(surfaces, [tokens[index].id for index in kept])
        chars = list("".join(surfaces))
        spans: list[Span] = []
        for index, surface in zip(kept, surfaces, strict=True):
            first, last = tokens[index][1:]
            step = (last - first) / max(len(surface), 1)
            spans += [Span(first + step * i, first + step * (i + 1), index) for i in range(len(surface))]
        marks = self.punctuation
        for i in reversed([i for i, char in enumerate(chars[1:]) if char in marks and chars[i].isspace()]):
            del chars[i], spans[i]
        return "".join(chars), spans

    def _surface(self, token_id: int) -> str:
        if token_id == self.unknown_id:
            return " ⁇ "
        return (self.piece(token_id) or "").replace(WORD_BOUNDARY, " ")

    def _drop_boundaries(self, surfaces: list[str], ids: list[int]) -> None:
        """Remove spaces for word boundaries at the start of the text where SentencePiece writes none."""
        leading = {"keep": 0, "drop_one": 1}.get(self.leading_boundaries, len(ids))
        for place, token_id in enumerate(ids[:leading]):
            if token_id != self.unknown_id:
                surfaces[place] = surfaces[place].removeprefix(" ")
            if surfaces[place]:
                break
