"""The recordings that the words on a command line stand for."""

from pathlib import Path

from .. import manifest
from ..audio_citrinet import AudioSegment

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".aif", ".aiff"}


def find_sources(path: str) -> list[str | AudioSegment]:
    """
    The recordings that an argument stands for: a file or an address itself, those in a folder, those of a manifest.

    Raises:
        OSError: if a manifest cannot be read.
        ValueError: if a folder holds no audio, or a manifest is damaged.
    """
    if path.startswith(("http://", "https://")):
        return [path]
    place = Path(path)
    if place.is_dir():
        files = sorted(str(file) for file in place.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise ValueError(f"{path}: no audio files in this folder.")
        return files
    if place.suffix.lower() not in manifest.SUFFIXES:
        return [path]
    return [entry.segment for entry in manifest.read_manifest(place)]
