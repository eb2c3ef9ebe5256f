"""Recognition results: text, transcript, entities, tags, times and confidence; plain NumPy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypedDict

import numpy as np

from .decoding_citrinet import CTCToken, Decoded, Reading
from .transcript_citrinet import (
    END,
    ENTITY_PREFIX,
    MARKER_PIECE,
    NONE,
    Marker,
    Span,
    Transcript,
    find_markers,
    joint,
    parse_transcript,
    split_words,
)

# Results below this confidence are noise or music more often than speech: `python benchmarks/noise.py MANIFEST`.
SPEECH_CONFIDENCE = 0.4


class EntityResult(TypedDict):
    """
    An entity.

    Args:
        type: entity type, such as `SONG_NAME`.
        text: the text of the entity.
        start, end: position [start, end) in the transcript, in characters.
        timestamp: start and end in seconds.
        confidence: see [`RecognitionResult`].
    """

    type: str
    text: str
    start: int
    end: int
    timestamp: tuple[float, float]
    confidence: float


class TagResult(TypedDict):
    """
    A speaker tag: the label of one category.

    Args:
        label: label of the tag head, or that of the text if there is no head or it says NONE and the text has one.
        score: probability that the source gave to the label, from 0 to 1.
        source: `"head"` or `"text"`, the source of the label.
        head, text: labels of the two sources, `None` if there is none.
    """

    label: str
    score: float
    source: str
    head: str | None
    text: str | None


class ChunkResult(TypedDict):
    """A character or word of the transcript, with its start and end in seconds and its confidence."""

    text: str
    timestamp: tuple[float, float]
    confidence: float


class AlternativeResult(TypedDict):
    """One hypothesis for a segment: text with and without markers, and a score, higher for more likely ones."""

    text: str
    transcript: str
    score: float


class _Segment(TypedDict):
    text: str
    transcript: str
    start: float
    end: float
    tags: dict[str, TagResult]
    confidence: float


class SegmentResult(_Segment, total=False):
    """
    A segment of a recording that was recognised separately and contains text.

    Args:
        text, transcript, tags, confidence: see [`RecognitionResult`].
        start, end: position in the recording, in seconds.
        alternatives: most likely hypotheses, the first one that of `text`; present if the decoder returns several.
    """

    alternatives: list[AlternativeResult]


class _Result(TypedDict):
    text: str
    transcript: str
    confidence: float
    entities: list[EntityResult]
    tags: dict[str, TagResult]
    segments: list[SegmentResult]


class RecognitionResult(_Result, total=False):
    """
    The result of every recogniser, in PyTorch and in ONNX.

    Args:
        text: output of the CTC head, including markers.
        transcript: the text without markers.
        confidence: from 0 to 1. For a recording or a segment it is the expected share of correct characters: the mean
            of their probabilities, 0 without any. For a character, a word or an entity it is the probability that all
            of it is correct: the product. The log-odds of a character are divided by the `confidence_temperature` of
            the configuration.
        entities: entities in the order of their start.
        tags: category -> speaker tag.
        segments: one for short audio; the segments of speech for longer audio.
        chunks: characters or words with their times; present if `return_timestamps` was given.
    """

    chunks: list[ChunkResult]


@dataclass(frozen=True)
class Heard:
    """
    Decoded outputs of the network for one segment of a recording.

    Args:
        decoded: the decoded tokens, in frames from the start of the segment.
        frames: number of frames of logits, the weight of the segment when tags are averaged.
        tag_logits: logits of all categories concatenated in the order of their names; empty without tag heads.
        start, end: position of the segment in the recording, in seconds.
    """

    decoded: Decoded
    frames: int
    tag_logits: np.ndarray
    start: float
    end: float


@dataclass(frozen=True)
class _Part:
    """A parsed segment: its transcript, frames and confidence of each character, and tags of the heads and the text."""

    heard: Heard
    parsed: Transcript
    spans: list[Span]
    confidences: list[float]
    head: dict[str, tuple[str, float]]
    written: dict[str, tuple[str, float]]


def is_speech(
    result: RecognitionResult | SegmentResult, waveform: np.ndarray | None = None, sampling_rate: int = 16_000
) -> bool:
    """
    Whether a recording seems to be speech in the model's language, rather than noise or music.

    Args:
        result: result of the recording.
        waveform: (n,) float32, the recording. If it is given, voice activity detection is applied too, which detects
            music better than a recogniser does.
        sampling_rate: sampling rate of the waveform in Hz.

    Raises:
        ImportError: if a waveform is given and silero-vad is not installed.
    """
    if not result["transcript"] or result["confidence"] < SPEECH_CONFIDENCE:
        return False
    if waveform is None:
        return True
    from .voice_activity_citrinet import speech_segments

    return bool(speech_segments(waveform, sampling_rate))


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the log-odds of probabilities by a temperature."""
    if temperature == 1:
        return probabilities
    odds = (probabilities / np.maximum(1 - probabilities, 1e-12)) ** (1 / temperature)
    confidences: np.ndarray = odds / (1 + odds)
    return confidences


class ResultBuilder:
    """
    Builds results from the decoded outputs of a network.

    Args:
        vocabulary: token -> id.
        frame_s: seconds per frame of logits.
        tag_labels: category -> labels in the order of the head's outputs.
        text_with_spans: tokens -> their text, and the frames and the token of each of its characters.
        temperature: confidence temperature, see [`CitrinetConfig`].
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        frame_s: float,
        tag_labels: dict[str, list[str]],
        text_with_spans: Callable[[list[CTCToken]], tuple[str, list[Span]]],
        temperature: float = 1.0,
    ):
        self.vocabulary = vocabulary
        self.frame_s = frame_s
        self.tag_labels = tag_labels
        self.text_with_spans = text_with_spans
        self.temperature = temperature

    def build(self, segments: Sequence[Heard], return_timestamps: str | bool | None = None) -> RecognitionResult:
        """
        Build the result of a recording.

        Args:
            segments: decoded outputs of its segments, in order.
            return_timestamps: `"char"` or `"word"` for `chunks`.

        Returns:
            [`RecognitionResult`].
        """
        parts = [self._read(heard) for heard in segments]
        text = transcript = ""
        entities: list[EntityResult] = []
        written: dict[str, tuple[str, float]] = {}
        for part in parts:
            if transcript and part.parsed.transcript:
                transcript += joint(transcript, part.parsed.transcript)
            entities += self._entities(part, len(transcript))
            transcript += part.parsed.transcript
            text += joint(text, part.parsed.text) + part.parsed.text
            written |= part.written
        result: RecognitionResult = {
            "text": text,
            "transcript": transcript,
            "confidence": _mean([value for part in parts for value in part.confidences]),
            "entities": entities,
            "tags": _merge_tags(self._head_tags_of(parts), written),
            "segments": [self._segment(part) for part in parts if part.parsed.text],
        }
        if return_timestamps:
            result["chunks"] = [chunk for part in parts for chunk in self._chunks(part, return_timestamps)]
        return result

    def _read(self, heard: Heard) -> _Part:
        tokens = heard.decoded.tokens
        text, spans = self.text_with_spans(tokens)
        parsed = parse_transcript(text, self._markers(text, spans, tokens), sorted(self.tag_labels))
        kept = [spans[i] for i in parsed.sources]
        probabilities = heard.decoded.probabilities
        confidences = calibrated(probabilities, self.temperature).tolist()
        return _Part(
            heard,
            parsed,
            kept,
            [confidences[span.token] for span in kept],
            _head_tags(self.tag_labels, heard.tag_logits),
            {
                category: (parsed.tags[category], float(probabilities[spans[index].token]))
                for category, index in parsed.tag_sources.items()
            },
        )

    def _head_tags_of(self, parts: list[_Part]) -> dict[str, tuple[str, float]]:
        """Labels of the tag heads for a recording: those of its mean logits."""
        if len(parts) == 1:
            return parts[0].head
        frames = max(sum(part.heard.frames for part in parts), 1)
        logits = np.sum([part.heard.tag_logits * part.heard.frames for part in parts], axis=0) / frames
        return _head_tags(self.tag_labels, logits)

    def _segment(self, part: _Part) -> SegmentResult:
        segment: SegmentResult = {
            "text": part.parsed.text,
            "transcript": part.parsed.transcript,
            "start": round(part.heard.start, 3),
            "end": round(part.heard.end, 3),
            "tags": _merge_tags(part.head, part.written),
            "confidence": _mean(part.confidences),
        }
        if part.heard.decoded.alternatives:
            segment["alternatives"] = [self._alternative(reading) for reading in part.heard.decoded.alternatives]
        return segment

    def _alternative(self, reading: Reading) -> AlternativeResult:
        text, spans = self.text_with_spans(reading.tokens)
        parsed = parse_transcript(text, self._markers(text, spans, reading.tokens), sorted(self.tag_labels))
        return {"text": text, "transcript": parsed.transcript, "score": round(reading.score, 3)}

    def _time(self, part: _Part, start: int, end: int) -> tuple[float, float]:
        """Start and end of the characters [start, end) of a transcript, in seconds."""
        frames = part.spans[start].start, part.spans[end - 1].end
        first, last = (round(part.heard.start + frame * self.frame_s, 3) for frame in frames)
        return first, last

    def _entities(self, part: _Part, offset: int) -> list[EntityResult]:
        """Entities of a segment; `offset` is the position of its transcript in the whole transcript."""
        return [
            {
                "type": entity.type,
                "text": entity.text,
                "start": offset + entity.start,
                "end": offset + entity.end,
                "timestamp": self._time(part, entity.start, entity.end),
                "confidence": round(math.prod(part.confidences[entity.start : entity.end]), 4),
            }
            for entity in part.parsed.entities
        ]

    def _chunks(self, part: _Part, unit: str | bool) -> list[ChunkResult]:
        transcript = part.parsed.transcript
        characters = [(i, i + 1) for i in range(len(transcript)) if not transcript[i].isspace()]
        return [
            {
                "text": transcript[start:end],
                "timestamp": self._time(part, start, end),
                "confidence": round(math.prod(part.confidences[start:end]), 4),
            }
            for start, end in (split_words(transcript) if unit == "word" else characters)
        ]

    def _markers(self, text: str, spans: list[Span], tokens: list[CTCToken]) -> list[Marker]:
        """
        Find markers by token id, which is reliable, and those spelled out in several tokens by their form.

        If the vocabulary has `END` as a token, only that token is an `END` marker, never letters of a Latin word.
        """
        names = self._marker_tokens
        markers: dict[int, Marker] = {}
        if any(token.id in names for token in tokens):
            for index, span in enumerate(spans):
                name = names.get(tokens[span.token].id)
                if name and span.token not in markers and not text[index].isspace():
                    markers[span.token] = Marker(index, index + len(name), name)
        rest = list(text)
        for marker in markers.values():
            rest[marker.start : marker.end] = "\n" * len(marker.name)
        spelled = find_markers("".join(rest), self._labels)
        return sorted([*markers.values(), *(m for m in spelled if m.name != END or END not in names.values())])

    @cached_property
    def _labels(self) -> list[str]:
        return [label for labels in self.tag_labels.values() for label in labels]

    @cached_property
    def _marker_tokens(self) -> dict[int, str]:
        """Token id -> name, for vocabulary pieces that are whole markers."""
        pieces = {token_id: token.lstrip("▁") for token, token_id in self.vocabulary.items()}
        names = {token_id: piece for token_id, piece in pieces.items() if MARKER_PIECE.fullmatch(piece)}
        has_entities = any(name.startswith(ENTITY_PREFIX) for name in names.values())
        return {token_id: name for token_id, name in names.items() if name != END or has_entities}


def _head_tags(tag_labels: dict[str, list[str]], logits: np.ndarray) -> dict[str, tuple[str, float]]:
    """Category -> (label, probability)."""
    head_tags: dict[str, tuple[str, float]] = {}
    values = iter(logits.tolist())
    for category, labels in sorted(tag_labels.items()) if len(logits) else ():
        part = list(islice(values, len(labels)))
        highest = max(part)
        total = sum(math.exp(value - highest) for value in part)
        head_tags[category] = (labels[part.index(highest)], 1 / total)
    return head_tags


def _merge_tags(head: dict[str, tuple[str, float]], written: dict[str, tuple[str, float]]) -> dict[str, TagResult]:
    """Take the head's label, or that of the text if the head says NONE and the text has one."""
    tags: dict[str, TagResult] = {}
    for category in sorted(head.keys() | written.keys()):
        from_head, from_text = head.get(category), written.get(category)
        use_text = from_text is not None and (from_head is None or from_head[0] == NONE)
        label, score = from_text if use_text else from_head  # type: ignore[misc]  # one of them is there
        tags[category] = {
            "label": label,
            "score": round(score, 4),
            "source": "text" if use_text else "head",
            "head": from_head and from_head[0],
            "text": from_text and from_text[0],
        }
    return tags


def _mean(confidences: list[float]) -> float:
    return round(sum(confidences) / len(confidences), 4) if confidences else 0.0


__all__ = ["Heard", "RecognitionResult", "ResultBuilder", "calibrated", "is_speech"]
