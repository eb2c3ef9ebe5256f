"""What a recogniser returns: text, transcript, entities, tags and times, from tokens and logits; plain NumPy."""

from functools import cached_property
from typing import TypedDict

import numpy as np

from .decoding_citrinet import CTCToken
from .transcript_citrinet import (
    END,
    ENTITY_PREFIX,
    MARKER_PIECE,
    NONE,
    Marker,
    Span,
    Transcript,
    find_markers,
    parse_transcript,
    split_words,
)


class EntityResult(TypedDict):
    """
    An entity.

    Args:
        type: such as `SONG_NAME`.
        text: what is spoken of it.
        start, end: its characters [start, end) in the transcript.
        timestamp: start and end in seconds.
    """

    type: str
    text: str
    start: int
    end: int
    timestamp: tuple[float, float]


class TagResult(TypedDict):
    """
    What a model says of the speaker in one category.

    Args:
        label: the tag head's, unless that says NONE and the text has another.
        score: probability that the source gave to the label, from 0 to 1.
        source: `"head"` or `"text"`, where the label is from.
        head, text: what each of the two said; none if it said nothing.
    """

    label: str
    score: float
    source: str
    head: str | None
    text: str | None


class ChunkResult(TypedDict):
    """A character or word of the transcript, with its start and end in seconds."""

    text: str
    timestamp: tuple[float, float]


class _Result(TypedDict):
    text: str
    transcript: str
    entities: list[EntityResult]
    tags: dict[str, TagResult]


class RecognitionResult(_Result, total=False):
    """
    What every recogniser returns, in PyTorch and in ONNX.

    Args:
        text: what the CTC head wrote, markers included.
        transcript: the text without markers.
        entities: entities in the order of their start.
        tags: category -> what is known of the speaker.
        chunks: characters or words with their times; there if they were asked for.
    """

    chunks: list[ChunkResult]


class ResultBuilder:
    """
    Builds results of what a network wrote.

    Args:
        vocabulary: token -> id.
        frame_s: seconds from one frame of logits to the next.
    """

    def __init__(self, vocabulary: dict[str, int], frame_s: float):
        self.vocabulary = vocabulary
        self.frame_s = frame_s

    def build(
        self,
        text: str,
        spans: list[Span],
        tokens: list[CTCToken],
        scores: np.ndarray,
        tag_labels: dict[str, list[str]],
        tag_logits: np.ndarray,
        return_timestamps: str | bool | None = None,
    ) -> RecognitionResult:
        """
        Build a result: text, entities, tags and times.

        Args:
            text: what the CTC head wrote.
            spans: the frames and the token of each of its characters.
            tokens: the tokens.
            scores: (T',) probability of the best token of each frame.
            tag_labels: category -> labels in the order of the head's outputs.
            tag_logits: the logits of all categories side by side in the order of their names; empty without heads.
            return_timestamps: `"char"` or `"word"` for `chunks`.

        Returns:
            [`RecognitionResult`].
        """
        parsed = parse_transcript(text, self._markers(text, spans, tokens, tag_labels), sorted(tag_labels))
        times = [(self._time(spans[i].start), self._time(spans[i].end)) for i in parsed.sources]
        entities: list[EntityResult] = [
            {
                "type": entity.type,
                "text": entity.text,
                "start": entity.start,
                "end": entity.end,
                "timestamp": (times[entity.start][0], times[entity.end - 1][1]),
            }
            for entity in parsed.entities
        ]
        written = {}
        for category, index in parsed.tag_sources.items():
            token = tokens[spans[index].token]
            written[category] = (parsed.tags[category], float(scores[token.start : token.end].max()))
        result: RecognitionResult = {
            "text": text,
            "transcript": parsed.transcript,
            "entities": entities,
            "tags": _merge_tags(_head_tags(tag_labels, tag_logits), written),
        }
        if return_timestamps:
            result["chunks"] = _chunks(parsed, times, return_timestamps)
        return result

    def _time(self, logit_frames: float) -> float:
        return round(logit_frames * self.frame_s, 3)

    def _markers(
        self, text: str, spans: list[Span], tokens: list[CTCToken], tag_labels: dict[str, list[str]]
    ) -> list[Marker]:
        """
        Markers by token identity, the sure way; those that are spelled out in several tokens by their form.

        With identity `END` in the text is a marker only where its token was emitted, never part of a Latin word.
        """
        names = self._marker_tokens
        markers: dict[int, Marker] = {}
        for index, span in enumerate(spans):
            name = names.get(tokens[span.token].id)
            if name and not text[index].isspace():
                markers.setdefault(span.token, Marker(index, index + len(name), name))
        rest = list(text)
        for marker in markers.values():
            rest[marker.start : marker.end] = "\n" * len(marker.name)
        labels = [label for labels in tag_labels.values() for label in labels]
        spelled = find_markers("".join(rest), labels)
        return sorted([*markers.values(), *(m for m in spelled if m.name != END or END not in names.values())])

    @cached_property
    def _marker_tokens(self) -> dict[int, str]:
        """Token id -> name, for the pieces of the vocabulary that are a marker as a whole."""
        pieces = {token_id: token.lstrip("▁") for token, token_id in self.vocabulary.items()}
        names = {token_id: piece for token_id, piece in pieces.items() if MARKER_PIECE.fullmatch(piece)}
        has_entities = any(name.startswith(ENTITY_PREFIX) for name in names.values())
        return {token_id: name for token_id, name in names.items() if name != END or has_entities}


def _head_tags(tag_labels: dict[str, list[str]], logits: np.ndarray) -> dict[str, tuple[str, float]]:
    """Category -> (label, probability)."""
    head_tags: dict[str, tuple[str, float]] = {}
    start = 0
    for category, labels in sorted(tag_labels.items()) if len(logits) else ():
        part = logits[start : start + len(labels)].astype(np.float64)
        start += len(labels)
        odds = np.exp(part - part.max())
        best = int(odds.argmax())
        head_tags[category] = (labels[best], float(odds[best] / odds.sum()))
    return head_tags


def _merge_tags(head: dict[str, tuple[str, float]], written: dict[str, tuple[str, float]]) -> dict[str, TagResult]:
    """The head's label unless it says NONE, else the one written in the text."""
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


def _chunks(parsed: Transcript, times: list[tuple[float, float]], unit: str | bool) -> list[ChunkResult]:
    characters = [(i, i + 1) for i in range(len(times)) if not parsed.transcript[i].isspace()]
    spans = split_words(parsed.transcript) if unit == "word" else characters
    return [
        {"text": parsed.transcript[start:end], "timestamp": (times[start][0], times[end - 1][1])}
        for start, end in spans
    ]


__all__ = ["RecognitionResult", "ResultBuilder"]
