"""One recogniser for concurrent requests: recordings that wait are batched."""

import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..batching_citrinet import batches
from ..language_model import BeamSearchDecoder
from ..recognition import Recognizer
from ..result_citrinet import RecognitionResult

logger = logging.getLogger(__name__)


class Busy(Exception):
    """The queue is full."""


@dataclass
class _Job:
    waveform: np.ndarray
    hot_words: tuple[str, ...]
    answer: "Future[RecognitionResult]"


class Engine:
    """
    Background thread that transcribes submitted recordings in batches.

    While it works, requests wait in a queue; then it takes all of them, short ones first, in batches. Batching does
    not change results.

    Args:
        recognizer: the recogniser; the engine must be its only user.
        batch_size: maximum number of recordings in a batch.
        batch_seconds: maximum seconds of audio in a batch, including padding.
        max_waiting: maximum number of recordings without a result.
    """

    def __init__(self, recognizer: Recognizer, batch_size: int, batch_seconds: float, max_waiting: int):
        self.recognizer = recognizer
        self._limits: Any = {"batch_size": batch_size, "batch_seconds": batch_seconds}
        self._max_waiting = max_waiting
        self._waiting = 0
        self._counting = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recognition", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of recordings that were submitted and have no result yet."""
        return self._waiting

    def submit(
        self, waveform: np.ndarray, hot_words: Sequence[str] = (), always: bool = False
    ) -> "Future[RecognitionResult]":
        """
        Submit a recording; its result will have characters in `chunks`.

        Args:
            waveform: (n,) float32, as [`Recognizer.load`] returns it.
            hot_words: hot words for this recording, used if the recogniser decodes with beam search.
            always: whether to accept the recording even if the queue is full.

        Raises:
            Busy: if the queue is full.
        """
        job = _Job(waveform, tuple(hot_words), Future())
        with self._counting:
            if self._waiting >= self._max_waiting and not always:
                raise Busy
            self._waiting += 1
        job.answer.add_done_callback(self._answered)
        self._jobs.put(job)
        return job.answer

    def _answered(self, _: "Future[RecognitionResult]") -> None:
        with self._counting:
            self._waiting -= 1

    def close(self) -> None:
        """Finish all submitted recordings, then stop the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, ends = [job], False
            while not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    ends = True
                    break
                jobs.append(following)
            self._recognise([job for job in jobs if job.answer.set_running_or_notify_cancel()])
            del jobs, job  # recordings are large
            if ends:
                return

    def _recognise(self, jobs: list[_Job]) -> None:
        jobs.sort(key=lambda job: (job.hot_words, len(job.waveform)))
        rate = self.recognizer.sampling_rate
        limits = self._limits["batch_size"], self._limits["batch_seconds"]
        for hot_words, same in groupby(jobs, key=lambda job: job.hot_words):
            for batch in batches(same, lambda job: len(job.waveform) / rate, *limits):
                try:
                    self._answer(batch, hot_words)
                except Exception as error:
                    logger.exception("recognition failed")
                    for job in batch:
                        if not job.answer.done():
                            job.answer.set_exception(error)

    def _answer(self, batch: list[_Job], hot_words: tuple[str, ...]) -> None:
        recognizer, usual = self.recognizer, self.recognizer.decoder
        if hot_words and isinstance(usual, BeamSearchDecoder):
            recognizer = recognizer.with_decoder(usual.with_hot_words(hot_words))
        waveforms = [job.waveform for job in batch]
        results = recognizer.stream(waveforms, return_timestamps="char", **self._limits)
        for job, result in zip(batch, results, strict=True):
            job.answer.set_result(result)


class Shared:
    """Recogniser that submits to an engine, with the methods that [`CitrinetStream`] needs."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self.sampling_rate = engine.recognizer.sampling_rate

    def stream(self, waveforms: Iterable[np.ndarray], **options: Any) -> Iterator[RecognitionResult]:
        """Transcribe waveforms one at a time, with the engine's options instead of these."""
        for waveform in waveforms:
            yield self._engine.submit(waveform, always=True).result()


__all__ = ["Busy", "Engine", "Shared"]
