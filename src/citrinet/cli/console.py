"""Console output of the commands: UTF-8 streams, JSON, one-line errors and warnings."""

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
    Print in UTF-8, regardless of the console's encoding.

    A file name that is not valid text is written to standard output with its original bytes. On standard error, and on
    systems where names are not bytes, characters that cannot be encoded are escaped.
    """
    for stream, errors in (sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace"):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors if os.name == "posix" else "backslashreplace")


def to_json(value: Any, indent: int | None = None) -> str:
    r"""Format as JSON, with only lone surrogates (`\udcbc`, from file names that are not valid text) escaped."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace").decode("utf-8")


def flush_output() -> None:
    """Flush standard output, here rather than when Python ends, so that a full disk or a closed pipe is an error."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Discard output that cannot be written, which Python would try to write again when it ends, and complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def fail(message: str, error: BaseException | None = None) -> int:
    """
    Print an error, and return the exit status for it.

    Args:
        message: one line.
        error: the exception whose traceback is printed, for `--traceback`.
    """
    if error is not None:
        tqdm.write("".join(traceback.format_exception(error)), file=sys.stderr, end="")
    tqdm.write(f"citrinet: {message}", file=sys.stderr)
    return 1


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means a full disk; libraries in Rust and C++ say so only in the message."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; PyTorch raises its own errors on CPUs and GPUs."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def one_line(error: BaseException) -> str:
    """Format an error in one line."""
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
    """Print warnings without their place in the code, until the caller's `warnings.catch_warnings` ends."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        tqdm.write(f"citrinet: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show
