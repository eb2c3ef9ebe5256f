"""Speech that goes on: text while somebody speaks, results at every pause."""

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
    What was heard so far.

    Args:
        stable: the text of all segments that are finished; it only grows.
        provisional: the text of the one that is not, to be written behind `stable`; the next may be another.
    """

    stable: str
    provisional: str


class CitrinetStream:
    r"""
    Recognise speech while it comes in.

    ```python
    >>> stream = CitrinetStream(citrinet.load_recognizer("my-model"))
    >>> for piece in microphone:
    ...     stable, provisional = stream.feed(piece, 48_000)
    >>> stream.finish().stable
    >>> stream.segments  # results with entities and tags
    ```

    A [`Segmenter`] cuts the sound at its pauses. A segment is recognised as a recording of its own when it is finished,
    and before that again and again for the provisional text. Silence is neither kept nor recognised.

    The network gets at most `max_load` + 1 seconds of audio for each second of sound, however long somebody speaks, and
    nothing in silence. Where it is slower than the sound nothing is lost: what other threads bring to [`feed`] while it
    works is recognised together.

    Args:
        recognizer: what [`load_recognizer`] makes.
        step_s: seconds of sound between one provisional text and the next; more where `max_load` asks for it.
        max_load: seconds of audio that provisional texts may cost for each second of sound.
        max_segment_s: seconds of the longest segment; who speaks longer is cut where speech is least likely.
        pause_s: seconds without speech that end a segment.
        return_timestamps: `"char"` or `"word"` for `chunks` in the results.

    Raises:
        ImportError: without silero-vad.
        ValueError: if a number is not above zero.
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
        self._samples = np.zeros(0, np.float32)  # what may still be part of a segment
        self._first = 0  # where they begin, counted from the start of the stream
        self._read_until = 0  # where the last provisional text ended
        self._credit = 0.0  # samples that provisional texts may cost
        self._most_credit = 2 * max_segment_s * self._rate
        self._resample = Resampler(self._rate, self._rate)
        self._source_rate = self._rate
        self._waiting: deque[tuple[np.ndarray, int]] = deque()
        self._busy = threading.Lock()
        self._finished = False

    @property
    def text(self) -> StreamText:
        """What was heard so far."""
        return self._text

    def feed(self, samples: Any, rate: int) -> StreamText:
        """
        Go on with the next samples.

        Args:
            samples: (n,) or (n, channels), integers or floats with full scale at 1.0; may be none.
            rate: of the samples, in Hz; it may change.

        Returns:
            The text so far.

        Raises:
            ValueError: if this is no sound, or the stream is finished; nothing changes then.
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
        """End the stream: all that was heard is stable. Calling it again changes nothing."""
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
        """What came in the meantime, resampled."""
        return [self._resampled(*self._waiting.popleft()) for _ in range(len(self._waiting))]

    def _go_on(self, samples: np.ndarray) -> None:
        """Take samples in, and recognise what was said of the segment that is not finished, if it is time to."""
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
        """Take samples in, settle the segments that they finish; whether there are any."""
        self._samples = np.concatenate([self._samples, samples])
        done = self._segmenter.feed(samples)
        self._settle(done)
        kept = self._segmenter.begin
        self._samples = self._samples[kept - self._first :].copy()
        self._first = kept
        return bool(done)

    def _settle(self, segments: list[tuple[int, int]]) -> None:
        """Recognise segments that are finished."""
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
        """Samples (n,) at the model's rate; the filter goes on from piece to piece as long as theirs stays the same."""
        before = np.zeros(0, np.float32)
        if rate != self._source_rate:
            before = self._resample(before, last=True)
            self._resample, self._source_rate = Resampler(rate, self._rate), rate
        return np.concatenate([before, self._resample(samples)])


def _mono(samples: Any) -> np.ndarray:
    """(n,) or (n, channels) of any kind -> (n,) float32."""
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
    """A result with all times later by some seconds."""

    def later(span: tuple[float, float]) -> tuple[float, float]:
        return round(span[0] + seconds, 3), round(span[1] + seconds, 3)

    for timed in (*result["entities"], *result.get("chunks", ())):
        timed["timestamp"] = later(timed["timestamp"])
    for segment in result["segments"]:
        segment["start"], segment["end"] = later((segment["start"], segment["end"]))
    return result


__all__ = ["CitrinetStream", "StreamText"]
