"""Many files for the pipeline: read ahead, batched by length, handed back in order."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

WINDOW = 8  # batches that are sorted by length together


class FileReader:
    """
    Files for a pipeline: a thread reads ahead while the network works.

    In batches, recordings of similar length stand together, and `in_order` puts the results in order again. A file that
    cannot be read is passed over and noted.

    Args:
        sources: files or addresses.
        load: makes a waveform (n,) of one of them, or raises OSError or ValueError.
        batch_size: the pipeline's.
    """

    def __init__(self, sources: list[str], load: Callable[[str], np.ndarray], batch_size: int = 1):
        self.failed: list[tuple[str, Exception]] = []
        self._sources = sources
        self._load = load
        self._batch_size = batch_size
        self._given: deque[str] = deque()  # in the order of the files
        self._sent: deque[str] = deque()  # in the order of the pipeline
        self._done: dict[str, list] = defaultdict(list)
        self._spoken = self._computed = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Waveforms (n,)."""
        window = 1 if self._batch_size == 1 else WINDOW * self._batch_size
        sources = iter(self._sources)
        with ThreadPoolExecutor(1) as pool:
            ahead = deque(pool.submit(self._read, source) for source in islice(sources, 2 * window))
            while ahead:
                read = [ahead.popleft().result() for _ in range(min(window, len(ahead)))]
                ahead.extend(pool.submit(self._read, source) for source in islice(sources, window))
                good = deque(self._by_length(read))
                read.clear()
                while good:
                    self._sent.append(good[0][0])
                    yield good.popleft()[1]  # which nothing here holds while it is transcribed

    def in_order(self, result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Take the pipeline's next result; give the files, with their results, whose turn has come."""
        self._done[self._sent.popleft()].append(result)
        while self._given and self._done[self._given[0]]:
            source = self._given.popleft()
            yield source, self._done[source].pop()

    @property
    def padding(self) -> float:
        """The part of the batches that was padding."""
        return 1 - self._spoken / max(self._computed, 1)

    def _read(self, source: str) -> tuple[str, np.ndarray | Exception]:
        try:
            return source, self._load(source)
        except (OSError, ValueError) as error:
            return source, error

    def _by_length(self, read: list[tuple[str, np.ndarray | Exception]]) -> list[tuple[str, np.ndarray]]:
        self.failed += [(source, samples) for source, samples in read if isinstance(samples, Exception)]
        good = [(source, samples) for source, samples in read if not isinstance(samples, Exception)]
        self._given.extend(source for source, _ in good)
        good.sort(key=lambda pair: len(pair[1]))
        for start in range(0, len(good), self._batch_size):
            lengths = [len(samples) for _, samples in good[start : start + self._batch_size]]
            self._spoken += sum(lengths)
            self._computed += len(lengths) * max(lengths)
        return good
