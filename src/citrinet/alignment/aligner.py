"""Align a text with a recording."""

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

# A character with a lower probability counts as not said. docs/decisions/044 has measurements of this threshold, and of
# the times below.
NOT_SAID = 0.001
# CTC emits a character in one or two frames in its middle. The character begins LEAD_S before the middle of these
# frames and lasts until the next one begins; if that is not within SOON_S, it ends TAIL_S after the middle.
LEAD_S, SOON_S, TAIL_S = 0.06, 0.35, 0.12
# Least log-probability of a blank: the cost of skipping a frame of speech that is not in the text.
_PASSED_OVER = -5.0
# Emissions with more values are kept in half precision.
_LARGE = 2**26


class AlignedChunk(TypedDict):
    """
    A character or a word.

    Args:
        text: the character or word.
        timestamp: start and end in seconds.
        confidence: for a character, the largest probability of its token in the frames aligned with it; for a word, the
            geometric mean of those of its characters; 0 if it is not known.
        known: whether it is in the model's vocabulary. If not, it gets the time between its neighbours; punctuation has
            no duration.
        said: `False` if it was probably not said; always `True` if it is not known.
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
    """A line of the text, as a segment of a result."""

    text: str
    transcript: str
    start: float
    end: float
    tags: dict[str, TagResult]
    confidence: float


class Alignment(TypedDict):
    """
    A [`RecognitionResult`] for a given text; the format writers accept it too.

    Args:
        text: the text.
        transcript: the text without markers.
        confidence: mean confidence of the known characters.
        entities: the entities marked in the text.
        tags: empty: a text has no probabilities for them.
        segments: the lines of the text.
        chunks: the characters of the text.
        words: the words of the text.
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
    Find the time of each character of a text in a recording.

    ```python
    >>> alignment = citrinet.align(citrinet.default_model(), "talk.wav", "今天北京的天气怎么样")
    >>> citrinet.formats.write(alignment, "talk.srt")
    ```

    Args:
        model: a recogniser, or a model that [`load_recognizer`] accepts.
        audio: anything that [`load_audio`] accepts. Above 30 s it is cut at its pauses.
        text: the spoken text, in one or several lines, with or without entity markers. Speech that is not in the text
            is skipped.
        backend: `"torchaudio"` or `"numpy"`, which find the same path; see [`best_path`].

    Returns:
        [`Alignment`].

    Raises:
        ImportError, OSError: as in [`load_recognizer`] and [`Recognizer.load`].
        ValueError: as there, and if the text is empty, has no character of the model's vocabulary, or is too long for
            the audio.
    """
    recognizer = load_recognizer(model) if isinstance(model, str | Path) else model
    return align_waveform(recognizer, recognizer.load(audio), text, backend=backend)


def align_waveform(recognizer: Recognizer, waveform: np.ndarray, text: str, *, backend: str | None = None) -> Alignment:
    """
    Find the time of each character of a text in a waveform, see [`align`].

    Args:
        recognizer: recogniser of a Citrinet.
        waveform: (n,) float32, as returned by [`Recognizer.load`].
        text, backend: as in [`align`].
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
    Compute the log-probabilities of the tokens of a text.

    Each segment of speech is processed separately. Tokens that are not spoken, such as markers, count as blanks.

    Returns:
        (T', 1 + columns) log-probabilities, with the blank first; (T',) the start of each frame in seconds.
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
    """Return start and end of each token, given the times (N,) of their peaks."""
    starts = np.maximum(peaks - LEAD_S, 0)
    following = np.append(starts[1:], np.inf)
    ends = np.where(following - peaks < SOON_S, following, np.minimum(peaks + TAIL_S, duration))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@dataclass(frozen=True)
class _Character:
    """A character of the transcript: start and end in seconds, and its probability, `None` if it is not known."""

    start: float
    end: float
    score: float | None


def _characters(
    transcript: str, tokens: Sequence[Token], spans: Sequence[tuple[float, float]], scores: np.ndarray
) -> list[_Character]:
    """Times of all characters, also spaces: those of a token share its time, unknown ones the gap around them."""
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
    """Times of characters between known ones: none for punctuation, others share the gap or the previous character."""
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
        first += len(own) + 1  # plus the line break
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
    # The geometric mean gives more weight to characters that were not said.
    score = float(np.exp(np.log(np.maximum(scores, 1e-30)).mean())) if scores else 0.0
    return {
        "text": transcript[first:stop],
        "timestamp": (round(characters[first].start, 3), round(characters[stop - 1].end, 3)),
        "confidence": round(score, 4),
        "known": bool(scores),
        "said": score >= NOT_SAID or not scores,
    }


def _entity(entity: Entity, line: list[_Character], first: int) -> AlignedEntity:
    """Make the result of an entity; `first` is the start of its line in the transcript."""
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
