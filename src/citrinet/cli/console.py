"""What a command prints: streams in UTF-8, JSON, errors and warnings in one line each."""

import errno
import io
import json
import os
import sys
import traceback
import warnings
from typing import Any

from tqdm.auto import tqdm


def use_utf8() -> None:
    """
    Print in UTF-8 whatever the console's encoding is.

    A file name that is not text leaves byte by byte as it came; where names are not bytes, and in messages, what cannot
    be encoded is escaped.
    """
    for stream, errors in (sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace"):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors if os.name == "posix" else "backslashreplace")


def to_json(value: Any, indent: int | None = None) -> str:
    r"""JSON with all characters as they are, except half ones (`\udcbc`), of which a name that is not text is made."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace").decode("utf-8")


def flush_output() -> None:
    """Write what is printed, here rather than when Python ends, so that a full disk or a closed pipe is an error."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Drop what cannot be written, which Python would try once more when it ends, and complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def fail(message: str, error: BaseException | None = None) -> int:
    """
    Say what went wrong, and return the exit status for it.

    Args:
        message: one line.
        error: what is to be traced back, for `--traceback`.
    """
    if error is not None:
        tqdm.write("".join(traceback.format_exception(error)), file=sys.stderr, end="")
    tqdm.write(f"citrinet: {message}", file=sys.stderr)
    return 1


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says so; those of libraries in Rust and C++ say it in their text alone."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so; PyTorch's, of a CPU and of a GPU, are others than Python's."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if is_out_of_memory(error):
        return "out of memory: a smaller --batch-size, --batch-seconds or --chunk-length needs less."
    if isinstance(error, OSError) and error.strerror:
        reason = "the disk is full" if is_disk_full(error) else error.strerror
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return f"{' -> '.join(names)}: {reason}" if names else reason
    if is_disk_full(error):
        return "the disk is full"
    return " ".join(str(error).split()) or type(error).__name__


def show_warnings_in_one_line() -> None:
    """Print warnings without the place in the program, until the caller's `warnings.catch_warnings` ends."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        tqdm.write(f"citrinet: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show
