"""Recordings from bytes, http(s) URLs and pipes (which may be endless), as files."""

import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MAX_BYTES = 2**30  # nine hours of 16-bit samples at 16 kHz
MAX_DOWNLOAD_S = 600.0
STALLED_S = 30.0  # without a byte
BLOCK = 2**20
PAGES = ("text/html", "application/xhtml+xml")


@contextmanager
def as_file(source: "str | os.PathLike[str] | bytes") -> Iterator[Path]:
    """
    Context manager that gives a recording as a file.

    Bytes are written to a file too: a decoder that reads them through Python callbacks swallows Ctrl-C.

    Args:
        source: a path, an http(s) URL or the bytes of a file.

    Raises:
        ValueError: if it is a folder or empty.
        OSError: if it cannot be opened or, for a URL, as in [`download`].
    """
    is_address = isinstance(source, str) and source.startswith(("http://", "https://"))
    place = None if isinstance(source, bytes) or is_address else Path(source)
    if place is not None and _is_ordinary(place):
        yield place
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "audio"
        with copy.open("wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            elif place is None:
                download(str(source), file)
            else:
                _copy_pipe(place, file)
        if not copy.stat().st_size:
            name = "the given bytes" if isinstance(source, bytes) else source
            raise ValueError(f"{name}: the audio file is empty.")
        yield copy


def download(url: str, file: IO[bytes]) -> None:
    """
    Download a URL to a file.

    Args:
        url (`str`): http(s) URL.
        file: File open for writing.

    Raises:
        OSError: if the server cannot be reached or does not answer with a file, or if the download exceeds 1 GiB
            (`MAX_BYTES`), 10 minutes (`MAX_DOWNLOAD_S`) or 30 s without a byte.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        try:
            _write(url, file, given_up)
            outcome.put(None)
        except Exception as error:  # the HTTP library, and so its errors, is huggingface_hub's choice
            outcome.put(error)

    # In a thread, so that one time limit covers everything: name resolution, redirects and headers can stall too.
    threading.Thread(target=work, daemon=True).start()
    try:
        error = outcome.get(timeout=MAX_DOWNLOAD_S)
    except queue.Empty:
        raise OSError(f"{url}: the download takes more than {MAX_DOWNLOAD_S:g} s: download it first.") from None
    finally:
        given_up.set()
    if error is not None:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise OSError(reason if reason.startswith(url) else f"{url}: {reason}") from error


def _write(url: str, file: IO[bytes], given_up: threading.Event) -> None:
    try:
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError("audio at an address needs huggingface_hub: pip install huggingface_hub") from error
    session: Any = get_session()
    with session.stream("GET", url, follow_redirects=True, timeout=STALLED_S) as response:
        if response.status_code != 200:
            raise OSError(f"{url}: the server answered {response.status_code}.")
        if response.headers.get("content-type", "").split(";")[0].strip().lower() in PAGES:
            raise OSError(f"{url}: the server answered with a web page, not with audio: give the address of the file.")
        total = 0
        for block in response.iter_bytes():
            if given_up.is_set():
                return
            total += len(block)
            _check_size(total, url)
            file.write(block)


def _is_ordinary(path: Path) -> bool:
    """Whether this is a file that can be read more than once, unlike a pipe."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the audio files in it.")
    if path.is_file() or not path.exists():
        with path.open("rb") as file:  # raises if the file is missing or not readable
            if not file.read(1):
                raise ValueError(f"{path}: the audio file is empty.")
        return True
    return False


def _copy_pipe(path: Path, file: IO[bytes]) -> None:
    total = 0
    with path.open("rb") as pipe:
        while block := pipe.read(BLOCK):
            total += len(block)
            _check_size(total, str(path))
            file.write(block)


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise OSError(f"{name}: more than {MAX_BYTES / 2**30:g} GiB, it may have no end.")


__all__ = ["as_file", "download"]
