"""Transcribe recordings in this process, or in several processes with a recogniser each."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np

from ..audio_segment_citrinet import TruncatedAudioWarning
from ..recognition import ReadAhead, check_model, load_recognizer, readers_for
from ..recognition.read_ahead import WINDOW
from ..result_citrinet import RecognitionResult
from .console import show_warnings_in_one_line, use_utf8
from .options import quiet
from .sources import Source

CHUNK = 512  # most recordings that a process gets at a time
THREADS = "OMP_NUM_THREADS"  # read by PyTorch, and by NumPy's OpenBLAS
CHUNKS_EACH = 4  # of a process, so that none waits long for the last one


@dataclass(frozen=True)
class Job:
    """
    What to do with recordings.

    Args:
        recognizer: arguments of [`load_recognizer`].
        limits: `batch_size` and `batch_seconds`, see [`Recognizer.stream`].
        options: further arguments of [`Recognizer.stream`].
        is_strict: whether a recording that is shorter than its header says counts as unreadable.
    """

    recognizer: dict[str, Any]
    limits: dict[str, Any]
    options: dict[str, Any]
    is_strict: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of the recording at an index and its length in seconds, or the reason why it could not be read."""

    index: int
    result: RecognitionResult | None
    seconds: float
    error: OSError | ValueError | None = None


class Batched(NamedTuple):
    """Seconds of audio in batches, without and with padding."""

    seconds: float = 0.0
    padded: float = 0.0

    @property
    def padding(self) -> float:
        """Fraction of the batches that was padding."""
        return 1 - self.seconds / self.padded if self.padded else 0.0

    def plus(self, other: "Batched") -> "Batched":
        """Return the sums."""
        return Batched(self.seconds + other.seconds, self.padded + other.padded)


class Worker:
    """
    Transcribes recordings with one recogniser.

    Args:
        job: what to do.
        processes: number of workers on this machine, which share its reading threads.

    Raises:
        ImportError, OSError, ValueError: as [`load_recognizer`].
    """

    def __init__(self, job: Job, processes: int = 1):
        # Show it for every file: by default Python shows a warning with the same text only once.
        warnings.simplefilter("error" if job.is_strict else "always", TruncatedAudioWarning)
        self._job, self._recognizer = job, load_recognizer(**job.recognizer)
        self._readers = max(readers_for(job.recognizer["device"]) // processes, 1)
        self.batched = Batched()

    def __call__(self, sources: Sequence[Source]) -> Generator[Outcome, None, None]:
        """Yield the outcomes in the order of the recordings; those that could not be read come last."""
        seconds: dict[int, float] = {}

        def load(index: int) -> np.ndarray:
            samples = self._load(sources[index])
            seconds[index] = len(samples) / self._recognizer.sampling_rate
            return samples

        rate, limits = self._recognizer.sampling_rate, self._job.limits
        ahead = ReadAhead(range(len(sources)), load, rate, readers=self._readers, **limits)
        for result in self._recognizer.stream(iter(ahead), **limits, **self._job.options):
            for index, done in ahead.in_order(result):
                yield Outcome(index, done, seconds.pop(index))
        for index, error in ahead.failed:
            yield Outcome(index, None, 0.0, error)
        self.batched = self.batched.plus(Batched(ahead.seconds, ahead.padded_seconds))

    def _load(self, source: Source) -> np.ndarray:
        try:
            return self._recognizer.load(source.audio)
        except TruncatedAudioWarning as warning:  # raised as an error if the job is strict
            raise ValueError(str(warning)) from warning


class Workers:
    """
    Transcribes recordings in several processes, each with its own recogniser.

    One Python process decodes on one core, however fast the network is on a GPU or on other cores.

    Args:
        job: what to do.
        processes: number of processes.

    Raises:
        ImportError, OSError, ValueError: as [`check_model`].
    """

    def __init__(self, job: Job, processes: int):
        check_model(**{name: job.recognizer[name] for name in ("model", "precision", "device")})
        self._job, self._processes = job, processes
        self.batched = Batched()

    def __call__(self, sources: Sequence[Source]) -> Generator[Outcome, None, None]:
        """
        Yield the outcomes as [`Worker`] does, for one part of the recordings after the other.

        Raises:
            ImportError, OSError, ValueError: as [`load_recognizer`].
            ChildProcessError: if a process ends early.
        """
        starts = range(0, len(sources), self._chunk(len(sources)))
        parts = (sources[start : start + starts.step] for start in starts)
        try:
            with _shared_cores(self._processes), _pool(self._job, self._processes) as pool:
                for start, (outcomes, batched) in zip(starts, pool.map(_work, parts), strict=True):
                    self.batched = self.batched.plus(batched)
                    yield from (replace(outcome, index=start + outcome.index) for outcome in outcomes)
        except BrokenProcessPool as error:
            raise ChildProcessError("a worker ended early, perhaps for lack of memory: use fewer --workers.") from error

    def _chunk(self, count: int) -> int:
        """Number of recordings that a process gets at a time: if possible, enough to sort them by length."""
        sorted_together = WINDOW * (self._job.limits["batch_size"] or 1)
        wanted = max(count // (CHUNKS_EACH * self._processes), sorted_together)
        return min(wanted, -(-count // self._processes), CHUNK)


@contextmanager
def _pool(job: Job, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end when the block is left, even if they are at work."""
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")  # a fork could not use a GPU
    pool = ProcessPoolExecutor(processes, context, _start, (job, processes))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - set(others):
            child.terminate()
            child.join()


@contextmanager
def _shared_cores(processes: int) -> Iterator[None]:
    """Divide the cores among processes that are started in the block, unless the user has done so."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(max((os.cpu_count() or 1) // processes, 1))
    try:
        yield
    finally:
        del os.environ[THREADS]


_worker: Worker | Exception  # of this process


def _start(job: Job, processes: int) -> None:
    """Prepare a process of [`Workers`]; an error is kept for [`_work`], which can report it."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_utf8()
    show_warnings_in_one_line()
    quiet()
    try:
        _worker = Worker(job, processes)
    except Exception as error:
        _worker = error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(sources: Sequence[Source]) -> tuple[list[Outcome], Batched]:
    if isinstance(_worker, Exception):
        raise _worker
    _worker.batched = Batched()
    return list(_worker(sources)), _worker.batched


__all__ = ["Job", "Outcome", "Worker", "Workers"]
