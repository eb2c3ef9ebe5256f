"""
Results as files for other programs: text, JSON, SRT, WebVTT, Praat's TextGrid, NIST's CTM, Whisper's TSV.

```python
>>> result = recognizer("talk.wav", return_timestamps="char")
>>> formats.write(result, "talk.srt")
```
"""

import tempfile
from pathlib import Path
from typing import Any

from .lines import Piece, cut_lines, find_chunks, find_words
from .writers import FORMATS, Format, Recording


def to_text(result: Any, kind: str, *, name: str = "audio", duration: float | None = None, channel: int = 1) -> str:
    """
    One result in one of the formats.

    Args:
        result: a [`RecognitionResult`], with `chunks` of characters for formats with times, or an [`Alignment`].
        kind: a key of `FORMATS`.
        name: of the recording, which CTM says.
        duration: its seconds, which TextGrid says and no subtitle outlasts; to the end of what is said if not given.
        channel: counted from 1, which CTM says.

    Returns:
        The text of a file.

    Raises:
        ImportError: if the library for the format is missing.
        ValueError: for another format, or a result without times where they are needed.
    """
    return _format(kind).write(result, Recording(name, duration, channel))


def write(
    result: Any,
    path: str | Path,
    kind: str | None = None,
    *,
    name: str | None = None,
    duration: float | None = None,
    channel: int = 1,
) -> Path:
    """
    Write one result to a file, which is replaced at once if it is there.

    Args:
        result, duration, channel: as in [`to_text`].
        path: the file.
        kind: a key of `FORMATS`; what the name of the file says if not given.
        name: as in [`to_text`], that of the file if not given.

    Returns:
        The path.

    Raises:
        ImportError, ValueError: as [`to_text`] does.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    if kind is None:
        kinds = {form.suffix.lower(): kind for kind, form in FORMATS.items()}
        if path.suffix.lower() not in kinds:
            raise ValueError(f"{path} does not say its format: name it {', '.join(kinds)}, or give `kind`.")
        kind = kinds[path.suffix.lower()]
    text = to_text(result, kind, name=path.stem if name is None else name, duration=duration, channel=channel)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}-") as scratch:
        complete = Path(scratch, "complete")
        complete.write_bytes(text.encode("utf-8", "backslashreplace"))  # a name may be bytes that are no text
        complete.replace(path)
    return path


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise ValueError(f"there is no format {kind!r}: use {', '.join(FORMATS)}.")
    return FORMATS[kind]


__all__ = ["FORMATS", "Format", "Piece", "cut_lines", "find_chunks", "find_words", "to_text", "write"]
