"""NeMo manifests: JSON lines with recordings, their texts and tags of their speakers."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .audio_citrinet import AudioSegment
from .transcript_citrinet import parse_transcript

SUFFIXES = {".json", ".jsonl"}
MAX_SECONDS = 1e9  # larger numbers are not times, and may not fit a float


@dataclass(frozen=True)
class ManifestEntry:
    """
    One recording of a manifest.

    Args:
        audio: path or URL of the audio file.
        text: transcript, including markers if the manifest has them; `None` if not given.
        duration: length in seconds; `None` if not given.
        offset: start of the recording in the file, in seconds.
        channel: index of the channel; `None` averages all channels.
        columns: all other values of the line.
    """

    audio: Path | str
    text: str | None = None
    duration: float | None = None
    offset: float = 0.0
    channel: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def segment(self) -> AudioSegment:
        """The recording as a segment, for [`load_audio`]."""
        return AudioSegment(self.audio, self.offset, self.duration, self.channel)

    def tags(self, categories: list[str]) -> dict[str, str]:
        """
        Return the speaker tags: from columns named like a category, in any case, otherwise from the text.

        Args:
            categories: names of tag categories, such as `GENDER`.

        Returns:
            category -> label, for the categories that the entry has. Empty columns are ignored.
        """
        written = parse_transcript(self.text or "", categories=categories).tags
        columns = {name.upper(): value for name, value in self.columns.items() if isinstance(value, str) and value}
        found = {category: columns.get(category.upper(), written.get(category)) for category in categories}
        return {category: label for category, label in found.items() if label}


def read_manifest(path: str | Path) -> list[ManifestEntry]:
    """
    Read a manifest.

    As in NeMo (`nemo.collections.common.parts.preprocessing.manifest`), a relative `audio_filepath` refers to a file in
    the current folder if there is one, otherwise to the manifest's folder, and `~` is the home folder. URLs are kept
    unchanged.

    Args:
        path: a UTF-8 file of JSON lines with `audio_filepath` and optionally `text`, `duration` and `offset` in
            seconds, and `channel_selector` (a channel counted from 0, or `"average"`).

    Returns:
        Entries of the manifest, at least one.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is empty or not UTF-8, or a line is invalid; the message names the line.
    """
    manifest = Path(path)
    entries = [_entry(manifest, number, line) for number, line in _lines(manifest)]
    if not entries:
        raise ValueError(f"{manifest}: the manifest is empty.")
    return entries


def _lines(manifest: Path) -> Iterator[tuple[int, str]]:
    """Yield non-blank lines with their numbers; only line feeds end a line, since texts may hold other separators."""
    content = manifest.read_bytes()
    if b"\0" in content:  # UTF-16, which may decode as UTF-8
        raise ValueError(f"{manifest} is not a text file in UTF-8: convert it to UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{manifest}, line {number}: not in UTF-8: convert the file to UTF-8.") from error
    if text.lstrip().startswith("["):
        raise ValueError(f"{manifest} is a JSON array: a manifest has one JSON object a line, without brackets around.")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _entry(manifest: Path, number: int, line: str) -> ManifestEntry:
    try:
        columns = json.loads(line)
        if not isinstance(columns, dict):
            raise ValueError(f"a JSON object is expected, not {line.strip()[:40]}")
        text = columns.pop("text", None)
        return ManifestEntry(
            _audio(manifest.parent, columns.pop("audio_filepath", None)),
            None if text is None else str(text),
            _seconds("duration", columns.pop("duration", None)),
            _seconds("offset", columns.pop("offset", None)) or 0.0,
            _channel(columns.pop("channel_selector", None)),
            columns,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{manifest}, line {number}: no JSON ({error.msg}, column {error.colno}).") from error
    except RecursionError as error:
        raise ValueError(f"{manifest}, line {number}: brackets inside brackets without an end.") from error
    except ValueError as error:
        raise ValueError(f"{manifest}, line {number}: {error}.") from error


def _audio(folder: Path, name: Any) -> Path | str:
    if not isinstance(name, str) or not name:
        raise ValueError(f'"audio_filepath" must be the name of a file, not {json.dumps(name)}')
    if name.startswith(("http://", "https://")):
        return name
    home = os.path.expanduser(name)  # noqa: PTH111 - Path.expanduser raises if there is no such user
    places = Path(name), folder / name, Path(home)
    found = (place for place in places if os.path.isfile(place))  # noqa: PTH113 - Path.is_file raises for long names
    return next(found, folder / home)


def _seconds(column: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f'"{column}" must be seconds, 0 or more, not {json.dumps(value)[:40]}')
    return float(value)


def _channel(selector: Any) -> int | None:
    """Return the channel of a `channel_selector`; `None` is the mean of all channels."""
    if isinstance(selector, list) and len(selector) == 1:
        selector = selector[0]
    if selector is None or selector == "average":
        return None
    if isinstance(selector, bool) or not isinstance(selector, int) or selector < 0:
        raise ValueError(
            f'"channel_selector" must be one channel, counted from 0, or "average", not {json.dumps(selector)[:40]}'
        )
    return selector
