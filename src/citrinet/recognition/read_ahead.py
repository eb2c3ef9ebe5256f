"""Many recordings for a recogniser: read ahead, batched by length, handed back in order."""

import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from ..batching_citrinet import batches, limits
from ..result_citrinet import RecognitionResult

READ_AHEAD_S = 1800.0  # 115 MB at 16 kHz
WINDOW = 8  # batches that are sorted by length together
INTERRUPTIBLE_S = 0.5  # Windows tells a waiting thread of Ctrl-C only between two waits

Source = TypeVar("Source")


class ReadAhead(Generic[Source]):
    """
    Recordings for a recogniser: a thread reads ahead while the network works.

    No more than half an hour of audio (`READ_AHEAD_S`) is held, and one recording if that alone is longer. In batches,
    recordings of similar length stand together, and `in_order` puts the results in order again. A recording that cannot
    be read is passed over, and `failed` holds its index and the error.

    Args:
        sources: what to read.
        load: makes a waveform (n,) of one of them, or raises OSError or ValueError.
        sampling_rate: of the waveforms, in Hz.
        batch_size, batch_seconds: the recogniser's.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        load: Callable[[Source], np.ndarray],
        sampling_rate: int = 16000,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
    ):
        self.failed: list[tuple[int, OSError | ValueError]] = []
        self._sources, self._load = sources, load
        self._count, self._seconds = limits(batch_size, batch_seconds)
        self._rate = sampling_rate
        self._sent: deque[int] = deque()  # in the order of the recogniser
        self._results: dict[int, RecognitionResult] = {}
        self._unanswered: deque[int] = deque()  # in the order of the sources
        self._read_samples = self._computed_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Waveforms (n,)."""
        count = 1 if self._count == 1 else WINDOW * self._count
        samples_of_window = WINDOW * self._seconds * self._rate
        reader = _ReadingThread(self._sources, self._load, int(READ_AHEAD_S * self._rate))
        try:
            while window := reader.take(count, samples_of_window):
                waveforms = deque(self._by_length(window))
                window.clear()
                while waveforms:
                    index, samples = waveforms.popleft()
                    self._sent.append(index)
                    reader.release(len(samples))
                    yield samples
                    del samples  # nothing here holds it while it is transcribed
        finally:
            reader.stop()

    def in_order(self, result: RecognitionResult) -> Iterator[tuple[int, RecognitionResult]]:
        """Take the recogniser's next result; give those whose turn has come, with the indices of their sources."""
        self._results[self._sent.popleft()] = result
        while self._unanswered and self._unanswered[0] in self._results:
            index = self._unanswered.popleft()
            yield index, self._results.pop(index)

    @property
    def seconds(self) -> float:
        """Length of what was read."""
        return self._read_samples / self._rate

    @property
    def padding(self) -> float:
        """The part of the batches that was padding."""
        return 1 - self._read_samples / max(self._computed_samples, 1)

    def _by_length(self, window: "list[tuple[int, np.ndarray | BaseException]]") -> list[tuple[int, np.ndarray]]:
        waveforms = []
        for index, read in window:
            if isinstance(read, (OSError, ValueError)):
                self.failed.append((index, read))
            elif isinstance(read, BaseException):
                raise read
            else:
                waveforms.append((index, read))
        self._unanswered.extend(index for index, _ in waveforms)
        waveforms.sort(key=lambda pair: len(pair[1]))
        lengths_in_order = (len(samples) for _, samples in waveforms)
        for lengths in batches(lengths_in_order, float, self._count, self._seconds * self._rate):
            self._read_samples += sum(lengths)
            self._computed_samples += len(lengths) * max(lengths)
        return waveforms


class _ReadingThread(Generic[Source]):
    """
    A thread that reads sources in their order, as long as fewer than `limit` samples are held.

    It is a daemon: an interrupted program does not wait for a slow address.
    """

    def __init__(self, sources: Sequence[Source], load: Callable[[Source], np.ndarray], limit: int):
        self._sources, self._load, self._limit = sources, load, limit
        self._read: deque[tuple[int, np.ndarray | BaseException]] = deque()
        self._left = len(sources)
        self._held = 0
        self._stopped = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def take(self, count: int, samples: float) -> "list[tuple[int, np.ndarray | BaseException]]":
        """Up to `count` sources, fewer if they reach `samples` or the limit; none when all were taken."""
        taken: list[tuple[int, np.ndarray | BaseException]] = []
        with self._changed:
            while len(taken) < count and self._left and not (taken and samples <= 0):
                if self._read:
                    index, read = self._read.popleft()
                    taken.append((index, read))
                    self._left -= 1
                    samples -= 0 if isinstance(read, BaseException) else len(read)
                elif taken and self._held >= self._limit:
                    break
                else:
                    self._changed.wait(INTERRUPTIBLE_S)
        return taken

    def release(self, samples: int) -> None:
        """Samples that were taken are held no longer."""
        with self._changed:
            self._held -= samples
            self._changed.notify_all()

    def stop(self) -> None:
        """Read no more."""
        with self._changed:
            self._stopped = True
            self._read.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        for index, source in enumerate(self._sources):
            with self._changed:
                while self._held >= self._limit and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
            try:
                read: np.ndarray | BaseException = self._load(source)
            except BaseException as error:  # for whoever takes it, who would wait for ever otherwise
                _clear_locals(error)
                read = error
            with self._changed:
                self._read.append((index, read))
                self._held += 0 if isinstance(read, BaseException) else len(read)
                self._changed.notify_all()
            del read


def _clear_locals(error: BaseException | None) -> None:
    """An error that is kept does not keep what the functions held through which it went, such as hours of audio."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
