"""Stream recogniser: text while somebody speaks, a result at every pause."""

import threading
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from .audio_citrinet import Resampler, to_mono_float32
from .recognition import Recognizer
from .recognition.protocol import Timestamps
from .resampling_citrinet import check_rate
from .result_citrinet import RecognitionResult
from .transcript_citrinet import joint
from .voice_activity_citrinet import Segmenter


class StreamText(NamedTuple):
    """
    The text recognised so far.

    Args:
        stable: text of all finished segments; it only grows.
        provisional: text of the unfinished segment, to be shown after `stable`; it may change with the next call.
    """

    stable: str
    provisional: str


class CitrinetStream:
    r"""
    Recognise speech while it is spoken.

    ```python
    >>> stream = CitrinetStream(citrinet.load_recognizer("my-model"))
    >>> for piece in microphone:
    ...     stable, provisional = stream.feed(piece, 48_000)
    >>> stream.finish().stable
    >>> stream.segments  # results with entities and tags
    ```

    A [`Segmenter`] cuts the audio at its pauses. A segment is recognised as a separate recording when it is finished,
    and repeatedly before that for the provisional text. Silence is neither kept nor recognised.

    The network processes at most `max_load` + 1 seconds of audio for each second of input, for any length of speech,
    and nothing during silence. If it is slower than the input, nothing is lost: audio that other threads pass to
    [`feed`] in the meantime is recognised together.

    Args:
        recognizer: a recogniser from [`load_recognizer`].
        step_s: seconds of audio between provisional texts; longer if `max_load` requires it.
        max_load: seconds of audio that may be recognised for provisional texts per second of input.
        max_segment_s: length of the longest segment in seconds; longer speech is cut at a short pause or, without one,
            where speech is least likely.
        pause_s: seconds without speech that end a segment.
        return_timestamps: `"char"` or `"word"` for `chunks` in the results.

    Raises:
        ImportError: if silero-vad is not installed.
        ValueError: if `step_s` or `max_load` is not above zero.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        step_s: float = 0.5,
        max_load: float = 10.0,
        max_segment_s: float = 8.0,
        pause_s: float = 0.3,
        return_timestamps: Timestamps | None = None,
    ):
        for name, value in ("step_s", step_s), ("max_load", max_load):
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0, got {value}.")
        self.recognizer = recognizer
        self.segments: list[RecognitionResult] = []
        self._rate = recognizer.sampling_rate
        self._step = step_s * self._rate
        self._max_load = max_load
        self._segmenter = Segmenter(self._rate, max_segment_s, pause_s)
        self._options: Any = {"return_timestamps": return_timestamps, "vad": False}
        self._text = StreamText("", "")
        self._samples = np.zeros(0, np.float32)  # those that may still be part of a segment
        self._first = 0  # position of the first of them in the stream
        self._read_until = 0  # end of the audio of the last provisional text
        self._credit = 0.0  # samples that may be recognised for provisional texts
        self._most_credit = 2 * max_segment_s * self._rate
        self._resample = Resampler(self._rate, self._rate)
        self._source_rate = self._rate
        self._waiting: deque[tuple[np.ndarray, int]] = deque()
        self._busy = threading.Lock()
        self._finished = False

    @property
    def text(self) -> StreamText:
        """The text recognised so far."""
        return self._text

    def feed(self, samples: Any, rate: int) -> StreamText:
        """
        Add the next samples.

        Args:
            samples: (n,) or (n, channels), integers or floats with full scale at 1.0; may be empty.
            rate: sampling rate of the samples in Hz; it may change between calls.

        Returns:
            The text so far.

        Raises:
            ValueError: if the samples are invalid or the stream is finished; the stream is then unchanged.
        """
        piece = _mono(samples), check_rate(rate, "a piece of a stream")
        if self._finished:
            raise ValueError("this stream is finished: make another one for what comes after.")
        self._waiting.append(piece)
        with self._busy:
            if pieces := self._taken():
                self._go_on(np.concatenate(pieces))
            return self._text

    def finish(self) -> StreamText:
        """End the stream and make all text stable. Calling it again has no effect."""
        with self._busy:
            if not self._finished:
                self._finished = True
                pieces = self._taken()
                self._hear(np.concatenate([*pieces, self._resample(np.zeros(0, np.float32), last=True)]))
                self._settle(self._segmenter.finish())
                self._text = StreamText(self._text.stable, "")
                self._samples = self._samples[:0].copy()
            return self._text

    def _taken(self) -> list[np.ndarray]:
        """Take the waiting samples and resample them."""
        return [self._resampled(*self._waiting.popleft()) for _ in range(len(self._waiting))]

    def _go_on(self, samples: np.ndarray) -> None:
        """Add samples, and recognise the unfinished segment if its next provisional text is due."""
        self._credit = min(self._credit + self._max_load * len(samples), self._most_credit)
        is_cut = self._hear(samples)
        begin, end = self._segmenter.begin, self._first + len(self._samples)
        if is_cut or not self._segmenter.is_open:
            self._text = StreamText(self._text.stable, "")
        if not self._segmenter.is_open or self._credit < end - begin:
            return
        if is_cut or end - self._read_until >= self._step:
            self._read_until = end
            self._credit -= end - begin
            written = self._recognise(begin, end)["transcript"]
            stable = self._text.stable
            self._text = StreamText(stable, joint(stable, written) + written)

    def _hear(self, samples: np.ndarray) -> bool:
        """Add samples and recognise the segments that they finish; return whether there are any."""
        self._samples = np.concatenate([self._samples, samples])
        done = self._segmenter.feed(samples)
        self._settle(done)
        kept = self._segmenter.begin
        self._samples = self._samples[kept - self._first :].copy()
        self._first = kept
        return bool(done)

    def _settle(self, segments: list[tuple[int, int]]) -> None:
        """Recognise finished segments."""
        for start, end in segments:
            result = _moved(self._recognise(start, end), start / self._rate)
            if result["text"]:
                self.segments.append(result)
            stable, written = self._text.stable, result["transcript"]
            self._text = StreamText(stable + joint(stable, written) + written, self._text.provisional)

    def _recognise(self, start: int, end: int) -> RecognitionResult:
        samples = self._samples[start - self._first : end - self._first]
        return next(iter(self.recognizer.stream([samples], **self._options)))

    def _resampled(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Resample (n,) samples to the model's rate; the filter keeps its state while the input rate is the same."""
        before = np.zeros(0, np.float32)
        if rate != self._source_rate:
            before = self._resample(before, last=True)
            self._resample, self._source_rate = Resampler(rate, self._rate), rate
        return np.concatenate([before, self._resample(samples)])


def _mono(samples: Any) -> np.ndarray:
    """Convert (n,) or (n, channels) of any type to (n,) float32."""
    piece = np.asarray(samples)
    if piece.ndim not in (1, 2):
        raise ValueError(f"a piece of a stream has shape (n,) or (n, channels), not {piece.shape}.")
    if not piece.size:
        return np.zeros(0, np.float32)
    mono: np.ndarray = to_mono_float32(piece.ravel()).reshape(len(piece), -1).mean(axis=1)
    if not np.isfinite(mono).all():
        raise ValueError("a piece of a stream holds NaN or infinite samples.")
    return mono


def _moved(result: RecognitionResult, seconds: float) -> RecognitionResult:
    """Shift all times of a result by some seconds."""

    def later(span: tuple[float, float]) -> tuple[float, float]:
        return round(span[0] + seconds, 3), round(span[1] + seconds, 3)

    for timed in (*result["entities"], *result.get("chunks", ())):
        timed["timestamp"] = later(timed["timestamp"])
    for segment in result["segments"]:
        segment["start"], segment["end"] = later((segment["start"], segment["end"]))
    return result


__all__ = ["CitrinetStream", "StreamText"]
