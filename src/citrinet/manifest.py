"""NeMo manifests: JSON lines that name recordings and say what is spoken in them, and by whom."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .audio_citrinet import AudioSegment
from .transcript_citrinet import parse_transcript

SUFFIXES = {".json", ".jsonl"}


@dataclass(frozen=True)
class ManifestEntry:
    """
    One recording of a manifest.

    Args:
        audio: the file.
        text: what is spoken, with markers if the manifest writes them; none if it does not say.
        duration: seconds, if the manifest says.
        offset: seconds from the start of the file at which the recording begins.
        channel: which channel of the file it is; the mean of all if not given.
        columns: everything else in the line.
    """

    audio: Path
    text: str | None = None
    duration: float | None = None
    offset: float = 0.0
    channel: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def segment(self) -> AudioSegment:
        """The recording, for [`load_audio`]."""
        return AudioSegment(self.audio, self.offset, self.duration, self.channel)

    def tags(self, categories: list[str]) -> dict[str, str]:
        """
        Speaker tags: those of columns named like a category, whatever the case, else those written in the text.

        Args:
            categories: names of tag categories, such as `GENDER`.

        Returns:
            category -> label, for the categories that the manifest knows. A column that is empty says unknown.
        """
        written = parse_transcript(self.text or "", categories=categories).tags
        columns = {name.upper(): value for name, value in self.columns.items() if isinstance(value, str) and value}
        found = {category: columns.get(category.upper(), written.get(category)) for category in categories}
        return {category: label for category, label in found.items() if label}


def read_manifest(path: str | Path) -> list[ManifestEntry]:
    """
    Read a manifest. As in NeMo, a relative `audio_filepath` starts at the manifest's folder.

    Args:
        path: a file of JSON lines with `audio_filepath` and, as a rule, `text` and `duration`.

    Raises:
        OSError: if it cannot be read.
        ValueError: for a line that is not such JSON; it names the line.
    """
    manifest = Path(path)
    return [_entry(manifest, number, line) for number, line in _lines(manifest)]


def _lines(manifest: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            yield number, line


def _entry(manifest: Path, number: int, line: str) -> ManifestEntry:
    try:
        columns = json.loads(line)
        audio = manifest.parent / columns.pop("audio_filepath")
        text, duration = columns.pop("text", None), columns.pop("duration", None)
        return ManifestEntry(
            audio,
            None if text is None else str(text),
            None if duration is None else float(duration),
            float(columns.pop("offset", None) or 0.0),
            columns.pop("channel_selector", None),
            columns,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{manifest}, line {number}: expected JSON with "audio_filepath" ({error!r}).') from error
