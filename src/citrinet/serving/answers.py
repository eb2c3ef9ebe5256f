"""Responses in the formats of OpenAI's transcription API."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import formats
from ..formats.lines import find_words
from ..result_citrinet import RecognitionResult

GRANULARITIES = ("word", "segment")
Answer = tuple[str, str]  # a body and its media type


@dataclass(frozen=True)
class Transcription:
    """
    The content of a response.

    Args:
        result: the result, with characters in `chunks`.
        seconds: length of the recording.
        language: language to report.
        granularities: those of `GRANULARITIES` that `verbose_json` includes.
    """

    result: RecognitionResult
    seconds: float
    language: str
    granularities: list[str]


def event(name: str, **content: Any) -> str:
    """Format a server-sent event."""
    return f"data: {json.dumps({'type': name, **content}, ensure_ascii=False)}\n\n"


def _json(asked: Transcription) -> Answer:
    usage = {"type": "duration", "seconds": math.ceil(asked.seconds)}
    return _dump({"text": asked.result["transcript"], "usage": usage})


def _verbose_json(asked: Transcription) -> Answer:
    result = asked.result
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": asked.language,
        "duration": round(asked.seconds, 3),
        "text": result["transcript"],
    }
    if "segment" in asked.granularities:
        content["segments"] = [
            {
                "id": index,
                "seek": 0,
                "start": segment["start"],
                "end": segment["end"],
                "text": segment["transcript"],
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": round(math.log(max(segment["confidence"], 1e-4)), 4),
                "compression_ratio": 1.0,
                "no_speech_prob": round(1 - segment["confidence"], 4),
            }
            for index, segment in enumerate(result["segments"])
        ]
    if "word" in asked.granularities:
        content["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in find_words(result)]
    kept = ("text", "entities", "tags", "confidence", "segments")
    content["citrinet"] = {name: result[name] for name in kept}  # type: ignore[literal-required]
    return _dump(content)


def _file(kind: str, media_type: str) -> Callable[[Transcription], Answer]:
    return lambda asked: (formats.to_text(asked.result, kind, duration=asked.seconds), media_type)


def _text(asked: Transcription) -> Answer:
    return f"{asked.result['transcript']}\n", "text/plain"


def _dump(content: dict[str, Any]) -> Answer:
    return json.dumps(content, ensure_ascii=False), "application/json"


# `response_format` -> function that makes the response.
RESPONSE_FORMATS: dict[str, Callable[[Transcription], Answer]] = {
    "json": _json,
    "verbose_json": _verbose_json,
    "text": _text,
    "srt": _file("srt", "application/x-subrip"),
    "vtt": _file("vtt", "text/vtt"),
}

__all__ = ["GRANULARITIES", "RESPONSE_FORMATS", "Transcription", "event"]
