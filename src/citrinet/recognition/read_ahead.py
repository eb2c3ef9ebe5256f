"""Feed many recordings to a recogniser: read ahead, batched by length, with results in the original order."""

import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from ..batching_citrinet import batches, limits
from ..result_citrinet import RecognitionResult

READ_AHEAD_S = 1800.0  # 115 MB at 16 kHz
WINDOW = 8  # number of batches whose recordings are sorted by length together
MAX_READERS = 16
INTERRUPTIBLE_S = 0.5  # on Windows, Ctrl-C reaches a waiting thread only between waits

Source = TypeVar("Source")


class ReadAhead(Generic[Source]):
    """
    Waveforms for a recogniser, read ahead by threads while the network works.

    At most half an hour of audio (`READ_AHEAD_S`) is held, or a single recording that is longer. Recordings of similar
    length are put into the same batch, and `in_order` restores the order of the results. A recording that cannot be
    read is skipped, and `failed` holds its index and the error.

    Args:
        sources: recordings to read.
        load: function that returns the waveform (n,) of a source, or raises OSError or ValueError.
        sampling_rate: sampling rate of the waveforms in Hz.
        batch_size, batch_seconds: as given to the recogniser.
        readers: number of reading threads, see [`readers_for`].
    """

    def __init__(
        self,
        sources: Sequence[Source],
        load: Callable[[Source], np.ndarray],
        sampling_rate: int = 16000,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        readers: int = 1,
    ):
        self.failed: list[tuple[int, OSError | ValueError]] = []
        self._sources, self._load = sources, load
        self._count, self._seconds = limits(batch_size, batch_seconds)
        self._rate, self._readers = sampling_rate, readers
        self._sent: deque[int] = deque()  # in the order of the recogniser
        self._results: dict[int, RecognitionResult] = {}
        self._unanswered: deque[int] = deque()  # in the order of the sources
        self._read_samples = self._computed_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield waveforms (n,)."""
        count = 1 if self._count == 1 else WINDOW * self._count
        samples_of_window = WINDOW * self._seconds * self._rate
        reader = _Readers(self._sources, self._load, int(READ_AHEAD_S * self._rate), self._readers)
        try:
            while window := reader.take(count, samples_of_window):
                waveforms = deque(self._by_length(window))
                window.clear()
                while waveforms:
                    index, samples = waveforms.popleft()
                    self._sent.append(index)
                    reader.release(len(samples))
                    yield samples
                    del samples  # do not hold it while it is transcribed
        finally:
            reader.stop()

    def in_order(self, result: RecognitionResult) -> Iterator[tuple[int, RecognitionResult]]:
        """Take the recogniser's next result; yield the results next in order, with the indices of their sources."""
        self._results[self._sent.popleft()] = result
        while self._unanswered and self._unanswered[0] in self._results:
            index = self._unanswered.popleft()
            yield index, self._results.pop(index)

    @property
    def seconds(self) -> float:
        """Seconds of audio read so far."""
        return self._read_samples / self._rate

    @property
    def padded_seconds(self) -> float:
        """Seconds of audio read so far, with the padding of their batches."""
        return self._computed_samples / self._rate

    @property
    def padding(self) -> float:
        """Fraction of the batches that was padding."""
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


class _Readers(Generic[Source]):
    """
    Threads that read sources in order, while fewer than `limit` samples are held.

    Several threads read at a time only if they stay within the limit when each reads as much as the longest source so
    far. They are daemon threads: an interrupted program does not wait for a slow server.
    """

    def __init__(self, sources: Sequence[Source], load: Callable[[Source], np.ndarray], limit: int, count: int):
        self._sources, self._load, self._limit = sources, load, limit
        self._read: dict[int, np.ndarray | BaseException] = {}
        self._started = self._taken = 0  # sources, in their order
        self._reading = 0
        self._held = self._longest = 0
        self._stopped = False
        self._changed = threading.Condition()
        for _ in range(min(count, len(sources))):
            threading.Thread(target=self._run, daemon=True).start()

    def take(self, count: int, samples: float) -> "list[tuple[int, np.ndarray | BaseException]]":
        """Take up to `count` sources, fewer if they reach `samples` or the limit; empty when all were taken."""
        taken: list[tuple[int, np.ndarray | BaseException]] = []
        with self._changed:
            while len(taken) < count and self._taken < len(self._sources) and not (taken and samples <= 0):
                if self._taken in self._read:
                    read = self._read.pop(self._taken)
                    taken.append((self._taken, read))
                    self._taken += 1
                    samples -= _length(read)
                elif taken and self._held >= self._limit:
                    break
                else:
                    self._changed.wait(INTERRUPTIBLE_S)
        return taken

    def release(self, samples: int) -> None:
        """Report that samples which were taken are not held any more."""
        with self._changed:
            self._held -= samples
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop reading."""
        with self._changed:
            self._stopped = True
            self._read.clear()
            self._changed.notify_all()

    def _may_start(self) -> bool:
        if self._reading == 0:
            return self._held < self._limit
        expected = (self._reading + 1) * self._longest
        return self._longest > 0 and self._held + expected <= self._limit

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopped or self._started == len(self._sources) or self._may_start()):
                    self._changed.wait()
                if self._stopped or self._started == len(self._sources):
                    return
                index = self._started
                self._started += 1
                self._reading += 1
            try:
                read: np.ndarray | BaseException = self._load(self._sources[index])
            except BaseException as error:  # raised in `take`'s thread, which would otherwise wait forever
                _clear_locals(error)
                read = error
            with self._changed:
                self._reading -= 1
                if not self._stopped:
                    self._read[index] = read
                self._held += _length(read)
                self._longest = max(self._longest, _length(read))
                self._changed.notify_all()
            del read


def _length(read: np.ndarray | BaseException) -> int:
    return 0 if isinstance(read, BaseException) else len(read)


def readers_for(device: str) -> int:
    """Number of reading threads: one for a network on a CPU, which uses all cores, otherwise one per core, up to 16."""
    return 1 if device == "cpu" else min(MAX_READERS, os.cpu_count() or 1)


def _clear_locals(error: BaseException | None) -> None:
    """Clear the frames of an error, so that keeping it does not keep their variables, such as hours of audio."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
