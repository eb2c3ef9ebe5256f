"""Writers of results, one for each format."""

import html
import importlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lines import Piece, cut_lines, find_chunks, find_words


@dataclass(frozen=True)
class Recording:
    """
    The recording of a result.

    Args:
        name: name of the recording, for formats that contain it.
        duration: length in seconds; defaults to the end of the last item of the result.
        channel: channel counted from 1, for formats that contain it.
    """

    name: str = "audio"
    duration: float | None = None
    channel: int = 1

    def length(self, result: Any) -> float:
        """Length in seconds: `duration`, or the end of the last item of the result if it is `None`."""
        timed = [*result.get("chunks", ()), *result["entities"]]
        ends = [item["timestamp"][1] for item in timed] + [segment["end"] for segment in result.get("segments", ())]
        return float(max(ends, default=0.0) if self.duration is None else self.duration)


def _text(result: Any, recording: Recording) -> str:
    """Write the transcript, one line per segment."""
    segments = [segment["transcript"] for segment in result.get("segments", ())] or [result["transcript"]]
    return "".join(f"{segment.strip()}\n" for segment in segments if segment.strip())


def _json(result: Any, recording: Recording) -> str:
    return json.dumps(result, ensure_ascii=False, indent=2) + "\n"


def _srt(result: Any, recording: Recording) -> str:
    return _subtitles(result, recording, "srt", lambda text: text)


def _vtt(result: Any, recording: Recording) -> str:
    return _subtitles(result, recording, "vtt", lambda text: html.escape(text, quote=False))


def _subtitles(result: Any, recording: Recording, kind: str, escape: Callable[[str], str]) -> str:
    pysubs2 = _library("pysubs2")
    subtitles = pysubs2.SSAFile()
    for line in cut_lines(result, recording.duration):
        # pysubs2 reads a backslash before h, n or N as a space or a break; an invisible word joiner prevents that.
        text = re.sub(r"\\(?=[hnN])", "\\\\\u2060", escape(line.text))
        subtitles.append(pysubs2.SSAEvent(start=_ms(line.start), end=_ms(line.end), text=text))
    written: str = subtitles.to_string(kind, keep_ssa_tags=True)  # braces are text, not tags
    return written


def _tsv(result: Any, recording: Recording) -> str:
    """Write start and end in milliseconds and the line, like Whisper's `WriteTSV`."""
    lines = cut_lines(result, recording.duration)
    rows = ["start\tend\ttext", *(f"{_ms(line.start)}\t{_ms(line.end)}\t{line.text}" for line in lines)]
    return "".join(f"{row}\n" for row in rows)


def _ctm(result: Any, recording: Recording) -> str:
    """Write words as CTM: recording, channel, start, duration, word, confidence (`NA`, as in NeMo, if unknown)."""
    name = re.sub(r"\s", "_", recording.name) or "audio"
    return "".join(
        f"{name} {recording.channel} {word.start:.3f} {word.end - word.start:.3f} {word.text} {_score(word)}\n"
        for word in find_words(result)
    )


def _score(word: Piece) -> str:
    return "NA" if word.confidence is None else f"{word.confidence:.4f}"


def _textgrid(result: Any, recording: Recording) -> str:
    """Write tiers of characters, words, entities and segments; nested entities are in further tiers."""
    textgrid = _library("praatio.textgrid")
    length = recording.length(result)
    grid = textgrid.Textgrid(0, length)
    for name, intervals in _tiers(result).items():
        limits = [*(start for start, _, _ in intervals[1:]), length]  # intervals of a tier may not overlap
        whole = zip(intervals, limits, strict=False)
        inside = [(start, min(end, limit, length), label) for (start, end, label), limit in whole]
        grid.addTier(textgrid.IntervalTier(name, [one for one in inside if one[0] < one[1]], 0, length))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grid.TextGrid")
        grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)
        return path.read_text(encoding="utf-8")


def _tiers(result: Any) -> dict[str, list[tuple[float, float, str]]]:
    tiers = {
        "characters": [(chunk.start, chunk.end, chunk.text) for chunk in find_chunks(result)],
        "words": [(word.start, word.end, word.text) for word in find_words(result)],
        "entities": [],
        "segments": [(s["start"], s["end"], s["transcript"]) for s in result.get("segments", ())],
    }
    for entity in result["entities"]:
        start, end = entity["timestamp"]
        depth = 1
        while tiers.get(name := "entities" if depth == 1 else f"entities {depth}") and tiers[name][-1][1] > start:
            depth += 1
        tiers.setdefault(name, []).append((start, end, f"{entity['type']}: {entity['text']}"))
    return tiers


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        raise ImportError(f'this format needs {package}: pip install "citrinet[formats]"') from error


@dataclass(frozen=True)
class Format:
    """
    A file format.

    Args:
        suffix: suffix of its files.
        write: function that makes the text of a file.
        library: library that it needs, if any.
        has_times: whether it needs `chunks`.
        joins: whether the concatenated files of several recordings are a valid file.
    """

    suffix: str
    write: Callable[[Any, Recording], str]
    library: str | None = None
    has_times: bool = True
    joins: bool = False

    def check(self) -> None:
        """
        Check that files of this format can be written.

        Raises:
            ImportError: if the library is not installed.
        """
        if self.library:
            _library(self.library)


FORMATS = {
    "text": Format(".txt", _text, has_times=False, joins=True),
    "json": Format(".json", _json, has_times=False),
    "srt": Format(".srt", _srt, "pysubs2"),
    "vtt": Format(".vtt", _vtt, "pysubs2"),
    "textgrid": Format(".TextGrid", _textgrid, "praatio.textgrid"),
    "ctm": Format(".ctm", _ctm, joins=True),
    "tsv": Format(".tsv", _tsv),
}

__all__ = ["FORMATS", "Format", "Recording"]
