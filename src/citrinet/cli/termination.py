"""SIGTERM, which ends a program as Ctrl-C does."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TERMINATED = 128 + signal.SIGTERM  # what a shell reports of such a program


@contextmanager
def unwinding_when_terminated() -> Iterator[None]:
    """Unwind the stack on SIGTERM, so that unfinished output is cleaned up and finished output is saved."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["unwinding_when_terminated"]
