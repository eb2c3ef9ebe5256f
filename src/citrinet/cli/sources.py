"""Recordings named by command-line arguments."""

import os
import sys
import urllib.parse
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .. import manifest
from ..audio_file_citrinet import count_channels
from ..audio_segment_citrinet import AudioSegment
from ..audio_source_citrinet import BLOCK, MAX_BYTES, as_file

STANDARD_INPUT = "-"
# Formats that soundfile or ffmpeg reads.
AUDIO_SUFFIXES = {
    *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2"),
    *(".mp3", ".oga", ".ogg", ".opus", ".snd", ".spx", ".w64", ".wav", ".wma", ".wv"),
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
}


@dataclass(frozen=True)
class Source:
    """
    A recording, or a part of one.

    Args:
        name: name as given.
        audio: the audio, and the part and channel of it.
        place: path relative to the folder that was given; the file name if the file itself or a manifest was given.
    """

    name: str
    audio: AudioSegment
    place: str = ""

    def __str__(self) -> str:
        """The name, with the part of the recording."""
        return str(replace(self.audio, source=self.name))


def find_sources(path: str, channel: int | None = None) -> list[Source]:
    """
    Find the recordings that an argument names: the file or URL itself, those in a folder, those of a manifest.

    Args:
        path: the argument; `-` is a file on standard input.
        channel: channel of the files to use; by default the mean of all, or the channel that a manifest gives.

    Raises:
        OSError: if a folder or a manifest cannot be read.
        ValueError: if a folder holds no audio, or a manifest is damaged.
    """
    if path == STANDARD_INPUT:
        return [Source(path, AudioSegment(_read_standard_input(), channel=channel), "standard-input")]
    if not is_address(path):
        if Path(path).is_dir():
            files = _audio_files(path)
            return [Source(file, AudioSegment(file, channel=channel), os.path.relpath(file, path)) for file in files]
        if Path(path).suffix.lower() in manifest.SUFFIXES:
            segments = (entry.segment for entry in manifest.read_manifest(path))
            return [
                _source(str(segment.source), segment if channel is None else replace(segment, channel=channel))
                for segment in segments
            ]
    return [_source(path, AudioSegment(path, channel=channel))]


def split_channels(source: Source) -> list[Source]:
    """Each channel of a recording; the recording unchanged if it cannot be read, so that reading it fails later."""
    audio = source.audio
    try:
        with as_file(audio.source) as file:
            if not isinstance(audio.source, bytes) and file != Path(audio.source):  # from a network or a pipe
                audio = replace(audio, source=file.read_bytes())
            channels = range(count_channels(file))
    except (OSError, ValueError):
        return [replace(source, audio=audio)]
    return [replace(source, audio=replace(audio, channel=channel)) for channel in channels]


def is_address(name: str) -> bool:
    """Whether a name is a URL."""
    return name.startswith(("http://", "https://"))


def _source(name: str, audio: AudioSegment) -> Source:
    path = urllib.parse.unquote(urllib.parse.urlsplit(name).path) if is_address(name) else name
    return Source(name, audio, os.path.basename(path) or "recording")  # noqa: PTH119 - names may be any bytes


def _read_standard_input() -> bytes:
    """Read all of standard input, here and not in the thread that reads ahead, which would keep Python from ending."""
    content = bytearray()
    while block := sys.stdin.buffer.read(BLOCK):
        content += block
        if len(content) > MAX_BYTES:
            raise OSError(f"{STANDARD_INPUT}: more than {MAX_BYTES / 2**30:g} GiB, it may have no end.")
    return bytes(content)


def _audio_files(folder: str) -> list[str]:
    files = sorted(file for file in _files(folder) if Path(file).suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no audio files in this folder.")
    return files


def _files(folder: str) -> Iterator[str]:
    """Files that are not hidden, in a folder and its subfolders: each folder once, even if links lead to it."""
    folders, links = deque([folder]), deque[str]()
    seen = set()
    while folders or links:
        place = folders.popleft() if folders else links.popleft()
        status = os.stat(place)  # noqa: PTH116 - names may begin with `./`, which Path drops
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):  # such as the `._*` files that macOS writes next to audio
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(entry.path)
                else:
                    yield entry.path
