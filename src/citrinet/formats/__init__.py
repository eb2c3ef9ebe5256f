"""
Write results for other programs: text, JSON, SRT, WebVTT, Praat's TextGrid, NIST's CTM, Whisper's TSV.

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
    Convert a result to the text of a file.

    Args:
        result: a [`RecognitionResult`], with `chunks` for formats with times, or an [`Alignment`].
        kind: format, a key of `FORMATS`.
        name: name of the recording, for CTM.
        duration: length of the recording in seconds: that of a TextGrid, and the limit for subtitles. By default a
            TextGrid ends with the last item, and subtitles have no limit.
        channel: channel counted from 1, for CTM.

    Returns:
        The text of the file.

    Raises:
        ImportError: if the library for the format is not installed.
        ValueError: if the format is unknown, or needs times and the result has none.
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
    Write a result to a file. An existing file is replaced when the new one is complete.

    Args:
        result, duration, channel: as in [`to_text`].
        path: output file.
        kind: format, a key of `FORMATS`; by default it follows from the suffix of `path`.
        name: as in [`to_text`]; defaults to the name of the file without suffix.

    Returns:
        The path.

    Raises:
        ImportError, ValueError: as in [`to_text`].
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
        complete.write_bytes(text.encode("utf-8", "backslashreplace"))  # a name may not be valid text
        complete.replace(path)
    return path


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise ValueError(f"there is no format {kind!r}: use {', '.join(FORMATS)}.")
    return FORMATS[kind]


__all__ = ["FORMATS", "Format", "Piece", "cut_lines", "find_chunks", "find_words", "to_text", "write"]
