"""Group characters with times into words, and words into lines for subtitles."""

import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..transcript_citrinet import split_words

PAUSE_S = 0.6  # a longer one always ends a line
# Line width, as usual for subtitles: 20 Chinese characters, or 42 letters of a narrow script.
WIDE, NARROW = 21, 10
FULL = 20 * WIDE
SHORTEST_S, LONGEST_S = 5 / 6, 7.0  # display time of a line, as in Netflix's style guides
SENTENCE_ENDS, CLAUSE_ENDS = frozenset("。！？!?.…"), frozenset("，、；：,;:")
# Costs of breaks, added to the squared fraction of the line that is left empty, which is 1 for an empty line.
AT_CLAUSE, AT_PAUSE, ANYWHERE, IN_ENTITY = 0.2, 0.2, 1.0, 10.0


@dataclass(frozen=True)
class Piece:
    """
    A part of a transcript.

    Args:
        text: the text of the part.
        start, end: times in seconds.
        first, stop: its characters [first, stop) in the transcript.
        confidence: from 0 to 1, if the result has one.
    """

    text: str
    start: float
    end: float
    first: int
    stop: int
    confidence: float | None = None


def find_chunks(result: Any) -> list[Piece]:
    """
    Return the chunks of a result, with their positions in its transcript.

    Raises:
        ValueError: if the result has no times.
    """
    transcript = result["transcript"]
    if "chunks" not in result and transcript.strip():
        raise ValueError('the result has no times: recognise with return_timestamps="char".')
    pieces: list[Piece] = []
    position = 0
    for chunk in result.get("chunks", ()):
        first = transcript.find(chunk["text"], position)
        if first < 0:
            raise ValueError(f"the transcript does not hold {chunk['text']!r} where its chunks say.")
        position = first + len(chunk["text"])
        start, end = chunk["timestamp"]
        confidence = chunk.get("confidence") if chunk.get("known", True) else None  # in alignments
        pieces.append(Piece(chunk["text"], start, end, first, position, confidence))
    return pieces


def find_words(result: Any) -> list[Piece]:
    """
    Return the words of a result, see [`split_words`]. An opening bracket belongs to the word after it.

    Raises:
        ValueError: if the result has no times.
    """
    transcript = result["transcript"]
    begins = {first for first, _ in split_words(transcript)}
    groups: list[list[Piece]] = []
    opened = False
    for chunk in find_chunks(result):
        opens = unicodedata.category(chunk.text[-1]) in ("Ps", "Pi")
        if not groups or (not opened and (opens or chunk.first in begins)):
            groups.append([])
        groups[-1].append(chunk)
        opened = opens
    return [_join(transcript, group) for group in groups]


def cut_lines(result: Any, duration: float | None = None) -> list[Piece]:
    """
    Cut a result into lines.

    Pauses and line breaks of the transcript end a line. Between them, breaks are placed at the least cost: after
    punctuation, at short pauses, never inside a word, and inside an entity only if it is longer than a line. A short
    line is shown for `SHORTEST_S` if the next line and the end of the recording allow it.

    Args:
        result: a [`RecognitionResult`] with `chunks`.
        duration: length of the recording in seconds; no line ends after it.

    Returns:
        The lines in order, without overlaps.

    Raises:
        ValueError: if the result has no times.
    """
    transcript = result["transcript"]
    inside = {i for entity in result["entities"] for i in range(entity["start"] + 1, entity["end"])}
    lines: list[Piece] = []
    for words in _between_pauses(transcript, find_words(result)):
        lines += [_join(transcript, words[first:stop]) for first, stop in _cheapest(transcript, words, inside)]
    limits = [*(line.start for line in lines[1:]), duration]
    return [_shown(line, limit) for line, limit in zip(lines, limits, strict=False)]


def _between_pauses(transcript: str, words: list[Piece]) -> list[list[Piece]]:
    runs: list[list[Piece]] = []
    for word in words:
        last = runs[-1][-1] if runs else None
        if last is None or word.start - last.end > PAUSE_S or "\n" in transcript[last.stop : word.first]:
            runs.append([])
        runs[-1].append(word)
    return runs


def _cheapest(transcript: str, words: list[Piece], inside: set[int]) -> list[tuple[int, int]]:
    """Words [first, stop) of the lines with the least total cost, as in Knuth and Plass (1981)."""
    costs, begins = [0.0], [0]
    for stop in range(1, len(words) + 1):
        after = 0.0 if stop == len(words) else _break_cost(words[stop - 1], words[stop], inside)
        options: list[tuple[float, int]] = []
        for first in range(stop - 1, -1, -1):
            room = 1 - _width(transcript[words[first].first : words[stop - 1].stop]) / FULL
            fits = room >= 0 and words[stop - 1].end - words[first].start <= LONGEST_S
            if not fits and options:
                break
            options.append((costs[first] + room**2 + after, first))
        cost, begin = min(options)
        costs.append(cost)
        begins.append(begin)
    spans: list[tuple[int, int]] = []
    while (stop := spans[-1][0] if spans else len(words)) > 0:
        spans.append((begins[stop], stop))
    return spans[::-1]


def _break_cost(word: Piece, following: Piece, inside: set[int]) -> float:
    if following.first in inside:
        return IN_ENTITY
    if word.text[-1] in SENTENCE_ENDS:
        return 0.0
    if word.text[-1] in CLAUSE_ENDS:
        return AT_CLAUSE
    return ANYWHERE - (ANYWHERE - AT_PAUSE) * min(max(following.start - word.end, 0.0) / PAUSE_S, 1.0)


def _shown(line: Piece, limit: float | None) -> Piece:
    """Extend a line to the shortest display time, if the next line or the end of the recording allows it."""
    wanted = max(line.end, line.start + SHORTEST_S)
    end = wanted if limit is None else min(wanted, max(limit, line.start))
    return Piece(" ".join(line.text.split()), line.start, end, line.first, line.stop, line.confidence)


def _join(transcript: str, pieces: list[Piece]) -> Piece:
    first, last = pieces[0], pieces[-1]
    known = [piece.confidence for piece in pieces if piece.confidence is not None]
    confidence = math.prod(known) if known else None  # as in results: the probability that all of it is correct
    text = transcript[first.first : last.stop]
    return Piece(text, first.start, max(piece.end for piece in pieces), first.first, last.stop, confidence)


def _width(text: str) -> int:
    return sum(map(_width_of, text))


@cache
def _width_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return WIDE if unicodedata.east_asian_width(char) in "WF" else NARROW


__all__ = ["Piece", "cut_lines", "find_chunks", "find_words"]
