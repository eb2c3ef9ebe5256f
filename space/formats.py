"""Results as files for other programs: JSON lines, SRT subtitles, Praat's TextGrid."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import srt
from praatio import textgrid

PAUSE_S = 0.6  # a longer one begins a new subtitle
LINE = 18  # characters of a subtitle
FORMATS = ("JSON lines", "SRT", "TextGrid")


def write(results: list[tuple[str, float, dict[str, Any]]], kind: str, folder: Path) -> list[str]:
    """
    Write results into a folder.

    Args:
        results: name, seconds and the pipeline's dictionary of every recording.
        kind: one of `FORMATS`. JSON lines make one file of all, the others one each.
        folder: where to.

    Returns:
        Paths.
    """
    if kind == "JSON lines":
        path = folder / "transcripts.jsonl"
        lines = (json.dumps({"file": name, "duration": s, **result}, ensure_ascii=False) for name, s, result in results)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return [str(path)]
    writer, suffix = {"SRT": (_srt, ".srt"), "TextGrid": (_textgrid, ".TextGrid")}[kind]
    paths = []
    for index, (name, seconds, result) in enumerate(results, 1):
        path = folder / f"{index}-{Path(name).stem}{suffix}"
        path.write_text(writer(seconds, result), encoding="utf-8")
        paths.append(str(path))
    return paths


def _srt(seconds: float, result: dict[str, Any]) -> str:
    subtitles = [
        srt.Subtitle(index, *(timedelta(seconds=time) for time in _ends(line)), "".join(c["text"] for c in line))
        for index, line in enumerate(_lines(result.get("chunks", [])), 1)
    ]
    return srt.compose(subtitles)


def _ends(line: list[dict[str, Any]]) -> tuple[float, float]:
    return line[0]["timestamp"][0], line[-1]["timestamp"][1]


def _lines(chunks: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Characters in groups: a new one after a pause, and when the last is full."""
    lines: list[list[dict[str, Any]]] = []
    for chunk in chunks:
        pauses = not lines or chunk["timestamp"][0] - lines[-1][-1]["timestamp"][1] > PAUSE_S
        if pauses or len(lines[-1]) == LINE:
            lines.append([])
        lines[-1].append(chunk)
    return lines


def _textgrid(seconds: float, result: dict[str, Any]) -> str:
    """Tiers of characters and entities."""
    tiers = {
        "characters": [(*chunk["timestamp"], chunk["text"]) for chunk in result.get("chunks", [])],
        "entities": [(*entity["timestamp"], f"{entity['type']}: {entity['text']}") for entity in result["entities"]],
    }
    grid = textgrid.Textgrid(0, seconds)
    for name, intervals in tiers.items():
        inside = [(start, min(end, seconds), label) for start, end, label in intervals if start < min(end, seconds)]
        grid.addTier(textgrid.IntervalTier(name, inside, 0, seconds))
    return _text_of(grid)


def _text_of(grid: textgrid.Textgrid) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/grid.TextGrid"
        grid.save(path, format="long_textgrid", includeBlankSpaces=True)
        return Path(path).read_text(encoding="utf-8")
