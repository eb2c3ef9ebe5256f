"""Texts to the times at which they are said."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ..recognition import Recognizer, load_recognizer
from ..result_citrinet import TagResult
from ..transcript_citrinet import Entity, Transcript, parse_transcript, split_words
from ..windows_citrinet import cut_at_pauses
from .path import best_path
from .target import TextTokenizer, Token, is_silent

# A character whose probability is less was not said: what that finds, and how often it is wrong, is in
# docs/decisions/044, as are the times below.
NOT_SAID = 0.001
# CTC emits a character in a frame or two, which are in its middle: it begins that much before the middle of them, and
# lasts until the next one begins. Where that is not soon, it ends that much after them.
LEAD_S, SOON_S, TAIL_S = 0.06, 0.35, 0.12
# The least log-probability of a blank: what it costs to pass over a frame of speech that the text does not have.
_PASSED_OVER = -5.0
# Emissions of more values are kept in half precision.
_LARGE = 2**26


class AlignedChunk(TypedDict):
    """
    A character or a word.

    Args:
        text: what it is.
        timestamp: start and end in seconds.
        confidence: the largest probability of its token in the frames where it is put, the geometric mean of those of
            its characters for a word; 0 if it is not known.
        known: whether the model can write it. If not, its time is what its neighbours leave: none for punctuation.
        said: false if it was likely not said; always true if it is not known.
    """

    text: str
    timestamp: tuple[float, float]
    confidence: float
    known: bool
    said: bool


class AlignedEntity(TypedDict):
    """An entity, as in [`RecognitionResult`], and whether it was said."""

    type: str
    text: str
    start: int
    end: int
    timestamp: tuple[float, float]
    confidence: float
    said: bool


class AlignedSegment(TypedDict):
    """A line of the text."""

    text: str
    transcript: str
    start: float
    end: float
    tags: dict[str, TagResult]
    confidence: float


class Alignment(TypedDict):
    """
    A [`RecognitionResult`] of a text that was given, which the writers of formats take too.

    Args:
        text: the text.
        transcript: the text without markers.
        confidence: mean of the characters that are known.
        entities: those that are marked in the text.
        tags: none: a text does not say how sure they are.
        segments: the lines of the text.
        chunks: its characters.
        words: its words.
    """

    text: str
    transcript: str
    confidence: float
    entities: list[AlignedEntity]
    tags: dict[str, TagResult]
    segments: list[AlignedSegment]
    chunks: list[AlignedChunk]
    words: list[AlignedChunk]


def align(model: Recognizer | str | Path, audio: Any, text: str, *, backend: str | None = None) -> Alignment:
    """
    Find when each character of a text is said.

    ```python
    >>> alignment = citrinet.align(citrinet.default_model(), "talk.wav", "今天北京的天气怎么样")
    >>> citrinet.formats.write(alignment, "talk.srt")
    ```

    Args:
        model: a recogniser, or what [`load_recognizer`] takes.
        audio: a recording, what [`load_audio`] takes. Above 30 s it is cut at its pauses.
        text: what is said in it, in lines or not, with entity markers or without. What it leaves out is passed over.
        backend: what finds the path, `"torchaudio"` or `"numpy"`, which give the same; see [`best_path`].

    Returns:
        [`Alignment`].

    Raises:
        ImportError, OSError: as [`load_recognizer`] and [`Recognizer.load`] do.
        ValueError: as they do, for a text that is empty or of which the model knows no character, and for one that is
            too long for the audio.
    """
    recognizer = load_recognizer(model) if isinstance(model, str | Path) else model
    return align_waveform(recognizer, recognizer.load(audio), text, backend=backend)


def align_waveform(recognizer: Recognizer, waveform: np.ndarray, text: str, *, backend: str | None = None) -> Alignment:
    """
    [`align`] for samples that were read.

    Args:
        recognizer: a Citrinet's.
        waveform: (n,) float32, as [`Recognizer.load`] gives it.
        text, backend: as there.
    """
    lines = [parsed for parsed in map(parse_transcript, text.splitlines()) if parsed.transcript.strip()]
    transcript = "\n".join(line.transcript for line in lines)
    if not lines:
        raise ValueError("there is no text to align.")
    tokens = TextTokenizer(recognizer.pieces)(transcript)
    if not tokens:
        raise ValueError(f"the model knows no character of the text {transcript[:20]!r}: is it its language?")
    columns = sorted({token.id for token in tokens})
    emissions, times = _emissions(recognizer, waveform, columns)
    labels = np.searchsorted(columns, [token.id for token in tokens]) + 1
    frames = best_path(emissions, labels, backend)
    peaks = (times[frames[:, 0]] + times[frames[:, 1] - 1] + recognizer.frame_s) / 2
    scores = [emissions[start:stop, label].max() for (start, stop), label in zip(frames, labels, strict=True)]
    characters = _characters(transcript, tokens, _spans(peaks, times[-1] + recognizer.frame_s), np.exp(scores))
    return _result(lines, transcript, characters)


def _emissions(recognizer: Recognizer, waveform: np.ndarray, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """
    What the network says of the tokens of a text.

    Speech between pauses is read on its own. All tokens that are not heard, such as markers, are blanks, whether the
    text has them or not.

    Returns:
        (T', 1 + columns) log-probabilities, the blank's first; (T',) the start of each frame in seconds.
    """
    silent = [index for index, piece in enumerate(recognizer.pieces) if is_silent(piece)]
    is_large = len(waveform) / recognizer.sampling_rate / recognizer.frame_s * len(columns) > _LARGE
    parts, times = [], []
    for start, stop in cut_at_pauses(waveform, recognizer.sampling_rate):
        log_probs = recognizer.log_probs(waveform[start:stop])
        blank = np.logaddexp.reduce(log_probs[:, [*silent, log_probs.shape[1] - 1]], axis=1, keepdims=True)
        part = np.concatenate([np.maximum(blank, _PASSED_OVER), log_probs[:, columns]], axis=1)
        parts.append(part.astype(np.float16) if is_large else part)
        times.append(start / recognizer.sampling_rate + recognizer.frame_s * np.arange(len(part)))
    return np.concatenate(parts), np.concatenate(times)


def _spans(peaks: np.ndarray, duration: float) -> list[tuple[float, float]]:
    """Start and end of each token of (N,) seconds in their middle."""
    starts = np.maximum(peaks - LEAD_S, 0)
    following = np.append(starts[1:], np.inf)
    ends = np.where(following - peaks < SOON_S, following, np.minimum(peaks + TAIL_S, duration))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@dataclass(frozen=True)
class _Character:
    """A character of the transcript: seconds, and its probability, none if the model does not know it."""

    start: float
    end: float
    score: float | None


def _characters(
    transcript: str, tokens: Sequence[Token], spans: Sequence[tuple[float, float]], scores: np.ndarray
) -> list[_Character]:
    """All characters, spaces too. Those of a token share its time, unknown ones what is between their neighbours."""
    known: dict[int, _Character] = {}
    for token, (start, end), score in zip(tokens, spans, scores.tolist(), strict=True):
        step = (end - start) / (token.stop - token.first)
        for index in range(token.first, token.stop):
            begin = start + (index - token.first) * step
            known[index] = _Character(begin, begin + step, score)
    characters: list[_Character] = []
    for is_known, run in groupby(range(len(transcript)), key=known.__contains__):
        indices = list(run)
        if is_known:
            characters += [known[index] for index in indices]
        else:
            characters += _unknown(transcript, indices, characters, known.get(indices[-1] + 1))
    return characters


def _unknown(
    transcript: str, indices: list[int], before: list[_Character], following: _Character | None
) -> list[_Character]:
    """Characters between known ones: punctuation takes no time, others the gap, or a share of the one before."""
    start = before[-1].end if before else 0.0
    stop = following.start if following else start
    spoken = sum(transcript[index].isalnum() for index in indices)
    if spoken and before and start >= stop:
        last = before.pop()
        start = last.start + (stop - last.start) / (spoken + 1)
        before.append(_Character(last.start, start, last.score))
    if not spoken and not before:
        start = stop
    step = (stop - start) / max(spoken, 1)
    found = []
    for index in indices:
        end = start + step if transcript[index].isalnum() else start
        found.append(_Character(start, end, None))
        start = end
    return found


def _result(lines: Sequence[Transcript], transcript: str, characters: list[_Character]) -> Alignment:
    singles = [(index, index + 1) for index, char in enumerate(transcript) if not char.isspace()]
    entities: list[AlignedEntity] = []
    segments: list[AlignedSegment] = []
    first = 0
    for line in lines:
        own = characters[first : first + len(line.transcript)]
        entities += [_entity(entity, own, first) for entity in line.entities]
        segments.append(
            {
                "text": line.text,
                "transcript": line.transcript,
                "start": round(own[0].start, 3),
                "end": round(own[-1].end, 3),
                "tags": {},
                "confidence": _mean(own),
            }
        )
        first += len(own) + 1  # and the end of the line
    return {
        "text": "\n".join(line.text for line in lines),
        "transcript": transcript,
        "confidence": _mean(characters),
        "entities": entities,
        "tags": {},
        "segments": segments,
        "chunks": [_chunk(transcript, first, stop, characters) for first, stop in singles],
        "words": [_chunk(transcript, first, stop, characters) for first, stop in split_words(transcript)],
    }


def _chunk(transcript: str, first: int, stop: int, characters: list[_Character]) -> AlignedChunk:
    scores = [one.score for one in characters[first:stop] if one.score is not None]
    # The geometric mean, in which a part that was not said weighs more than in the mean.
    score = float(np.exp(np.log(np.maximum(scores, 1e-30)).mean())) if scores else 0.0
    return {
        "text": transcript[first:stop],
        "timestamp": (round(characters[first].start, 3), round(characters[stop - 1].end, 3)),
        "confidence": round(score, 4),
        "known": bool(scores),
        "said": score >= NOT_SAID or not scores,
    }


def _entity(entity: Entity, line: list[_Character], first: int) -> AlignedEntity:
    """An entity of a line, which begins at a character of the transcript."""
    chunk = _chunk(entity.text, 0, len(entity.text), line[entity.start : entity.end])
    return {
        "type": entity.type,
        "text": entity.text,
        "start": first + entity.start,
        "end": first + entity.end,
        "timestamp": chunk["timestamp"],
        "confidence": chunk["confidence"],
        "said": chunk["said"],
    }


def _mean(characters: Sequence[_Character]) -> float:
    scores = [one.score for one in characters if one.score is not None]
    return round(sum(scores) / len(scores), 4) if scores else 0.0


__all__ = ["NOT_SAID", "Alignment", "align", "align_waveform"]
