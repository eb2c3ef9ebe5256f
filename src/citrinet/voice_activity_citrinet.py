"""Voice activity detection with Silero VAD, and cutting recordings at pauses."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .resampling_citrinet import Resampler

RATE = 16_000  # Hz, sampling rate of the network's input
FRAME = 512  # samples per probability
_CONTEXT = 64  # samples before a frame that are part of the network's input
_BLOCK = 1024  # frames processed at a time; smaller blocks lose where NumPy uses several threads
_PIECE_S = 32  # seconds of a recording processed at a time


class VoiceActivity:
    """
    Speech probabilities from Silero VAD, computed in NumPy, for a recording in pieces.

    The weights are those of the package silero-vad. Its code is not imported: it requires onnxruntime or TorchScript,
    and sets the number of PyTorch threads for the whole process.

    Raises:
        ImportError: if silero-vad is not installed.
    """

    def __init__(self) -> None:
        self._weights = _weights()
        self._context = np.zeros(_CONTEXT, np.float32)
        self._hidden = np.zeros(128, np.float32)
        self._cell = np.zeros(128, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """
        Process the next samples.

        Args:
            samples: (n * 512,) float32 at 16 kHz.

        Returns:
            (n,) float32 probabilities of speech.
        """
        parts = [self._block(samples[i : i + _BLOCK * FRAME]) for i in range(0, len(samples), _BLOCK * FRAME)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _block(self, samples: np.ndarray) -> np.ndarray:
        weights, frames = self._weights, samples.reshape(-1, FRAME).T
        seen = np.empty((_CONTEXT + FRAME + _CONTEXT, frames.shape[1]), np.float32)  # a column for each frame
        seen[:_CONTEXT, 0], seen[:_CONTEXT, 1:] = self._context, frames[-_CONTEXT:, :-1]
        seen[_CONTEXT:-_CONTEXT] = frames
        seen[-_CONTEXT:] = frames[-2 : -_CONTEXT - 2 : -1]  # reflected
        self._context = frames[-_CONTEXT:, -1].copy()
        gates = self._encode(seen).T @ weights["lstm.input"]
        gates += weights["lstm.bias"]
        hidden = self._remember(gates)
        logits = np.maximum(hidden, 0) @ weights["final.weight"] + weights["final.bias"]
        speech: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * logits)
        return speech

    def _encode(self, seen: np.ndarray) -> np.ndarray:
        """(640, n) samples -> (128, n): magnitudes of four spectra, reduced to one vector by four convolutions."""
        weights, count = self._weights, seen.shape[1]
        values, imaginary = np.empty((4, 129, count), np.float32), np.empty((4, 127, count), np.float32)
        for i in range(4):
            window = seen[128 * i : 128 * i + 256]
            left, right = window[1:129], window[:127:-1]  # cosines are the same on both sides, sines opposite
            np.matmul(weights["cosines"], left + right, out=values[i])
            np.matmul(weights["sines"], left - right, out=imaginary[i])
        values *= values
        imaginary *= imaginary
        values[:, 1:128] += imaginary
        np.sqrt(values, out=values)
        for name, stride in ("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1):
            values = _convolve(values, weights[f"{name}.weight"], weights[f"{name}.bias"], stride)
        encoded: np.ndarray = values[0]
        return encoded

    def _remember(self, inputs: np.ndarray) -> np.ndarray:
        """
        Run the LSTM.

        A sigmoid is (1 + tanh(x / 2)) / 2, so one tanh serves all gates; `_prepared` has halved the weights. Calling
        NumPy takes longer than most of what it does, so there are few calls, without new arrays and without scalars.

        Args:
            inputs: (n, 512), what the frames add to the gates.

        Returns:
            (n, 128) hidden states, doubled.
        """
        state = np.empty(640, np.float32)
        gates, sigmoids, cell = state[:512], state[:384], state[512:]  # gates: enter, keep, out, candidate
        enter_and_keep, out, candidate_and_cell = state[:256], state[256:384], state[384:]
        cell[:] = self._cell
        recurrent, products = np.empty(512, np.float32), np.empty(256, np.float32)
        entered, kept = products[:128], products[128:]
        ones, halves = np.ones(384, np.float32), np.full(128, 0.5, np.float32)
        weight, hidden, last = self._weights["lstm.hidden"], np.empty((len(inputs), 128), np.float32), self._hidden
        dot, add, multiply, tanh = np.dot, np.add, np.multiply, np.tanh
        for row, new in zip(inputs, hidden, strict=True):
            dot(last, weight, recurrent)
            add(recurrent, row, gates)
            tanh(gates, gates)
            add(sigmoids, ones, sigmoids)
            multiply(enter_and_keep, candidate_and_cell, products)
            add(entered, kept, entered)
            multiply(entered, halves, cell)
            tanh(cell, entered)
            multiply(out, entered, new)
            last = new
        self._hidden, self._cell = last.copy(), cell
        return hidden


class Segmenter:
    """
    Cuts speech at its pauses, for a recording in pieces.

    A segment ends when nobody speaks for `pause_s`. A segment that would become longer than `max_segment_s` is cut in
    the middle of the longest pause, however short, in its second half, or else in its second quarter; without a pause,
    where speech is least likely in its second half.

    Args:
        sampling_rate: sampling rate of the samples in Hz.
        max_segment_s: length of the longest segment in seconds.
        pause_s: seconds without speech that end a segment.
        padding_s: seconds added before and after the speech, unless they belong to another segment.
        threshold: speech probability at which speech begins; it ends below `threshold` - 0.15.
        min_speech_s: least seconds of speech in a segment; shorter speech is dropped.

    Raises:
        ImportError: if silero-vad is not installed.
        ValueError: if the sampling rate is not a valid number of Hz.
    """

    def __init__(
        self,
        sampling_rate: int = RATE,
        max_segment_s: float = 8.0,
        pause_s: float = 0.3,
        padding_s: float = 0.3,
        threshold: float = 0.5,
        min_speech_s: float = 0.1,
    ):
        self._rate = sampling_rate
        self._padding = round(padding_s * RATE)
        self._pause = -(-max(round(pause_s * RATE), self._padding, 1) // FRAME)  # at least as long as the padding
        self._longest = max(round((max_segment_s - 2 * padding_s) * RATE / FRAME), 4)
        self._shortest = min_speech_s * RATE / FRAME
        self._enter, self._leave = threshold, threshold - 0.15
        self._activity = VoiceActivity()
        self._resample = Resampler(sampling_rate, RATE)
        self._left = np.zeros(0, np.float32)  # rest of the input, less than a frame
        self._given = 0  # samples so far, at the rate of the recording
        self._frames = 0  # frames processed so far
        self._start: int | None = None  # first frame of the open segment
        self._end = 0  # frame after its last frame with speech
        self._speech: list[float] = []  # probabilities from its start on
        self._floor = 0  # end of the previous segment, in samples at 16 kHz

    @property
    def is_open(self) -> bool:
        """Whether there is speech, or was within the last `pause_s`."""
        return self._start is not None

    @property
    def begin(self) -> int:
        """Start of the open segment, or earliest start of the next one, in samples of the recording."""
        return self._position(self._begin(self._frames if self._start is None else self._start))

    def feed(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """
        Process the next samples.

        Args:
            samples: (n,) float32 at the sampling rate of the recording; may be empty.

        Returns:
            (start, end) of the segments finished by them, in samples of the whole recording.
        """
        self._given += len(samples)
        return self._take(self._resample(samples))

    def finish(self) -> list[tuple[int, int]]:
        """End the recording and return its last segments."""
        rest = self._resample(np.zeros(0, np.float32), last=True)
        done = self._take(np.pad(rest, (0, -(len(self._left) + len(rest)) % FRAME)))
        if self._start is not None:
            done += self._close(self._end * FRAME + self._padding)
        return done

    def _take(self, samples: np.ndarray) -> list[tuple[int, int]]:
        samples = np.concatenate([self._left, samples])
        whole = len(samples) // FRAME * FRAME
        self._left = samples[whole:].copy()
        done: list[tuple[int, int]] = []
        for speech in self._activity(samples[:whole]).tolist():
            done += self._advance(speech)
        return done

    def _advance(self, speech: float) -> list[tuple[int, int]]:
        """Advance by one frame with the given speech probability; return finished segments."""
        frame = self._frames
        self._frames += 1
        if self._start is None:
            if speech < self._enter:
                return []
            self._start = frame
        self._speech.append(speech)
        if speech >= self._leave:
            self._end = frame + 1
        if frame + 1 - self._end >= self._pause:
            return self._close(self._end * FRAME + self._padding)
        return self._split(self._best_cut()) if len(self._speech) == self._longest else []

    def _best_cut(self) -> int:
        """Frame before which to cut a segment that has become too long, counted from its start."""
        speech = np.array(self._speech)
        quarter, half = len(speech) // 4, len(speech) // 2
        for first, last in (half, len(speech)), (quarter, half):
            pause = self._longest_pause(speech[first:last])
            if pause is not None:
                return first + pause
        return half + int(speech[half:].argmin())

    def _longest_pause(self, speech: np.ndarray) -> int | None:
        """Middle of the longest and quietest pause in probabilities (n,), `None` if there is no pause."""
        silence = np.maximum(self._leave - speech, 0)
        borders = np.flatnonzero(np.diff(silence > 0, prepend=False, append=False))
        pauses = zip(borders[::2], borders[1::2], strict=True)
        best = max(pauses, key=lambda pause: silence[pause[0] : pause[1]].sum(), default=None)
        return None if best is None else int(best[0] + best[1]) // 2

    def _split(self, cut: int) -> list[tuple[int, int]]:
        """Close the segment at a frame counted from its start; the rest becomes the next segment."""
        assert self._start is not None
        border, speech, end = self._start + cut, self._speech[cut:], self._end
        self._end = min(end, border)
        done = self._close(border * FRAME)
        self._start, self._speech, self._end = border, speech, max(end, border)
        return done

    def _close(self, end: int) -> list[tuple[int, int]]:
        """Finish the segment at a sample of 16 kHz audio."""
        assert self._start is not None
        start, enough = self._begin(self._start), self._end - self._start >= self._shortest
        self._start, self._speech = None, []
        if not enough:
            return []
        self._floor = end
        return [(self._position(start), min(self._position(end), self._given))]

    def _begin(self, frame: int) -> int:
        return max(frame * FRAME - self._padding, self._floor)

    def _position(self, sample: int) -> int:
        """Convert a position in 16 kHz samples to samples of the recording."""
        return round(sample * self._rate / RATE)


def speech_segments(samples: np.ndarray, sampling_rate: int) -> list[tuple[int, int]]:
    """
    Cut a recording at its pauses.

    Args:
        samples: (n,) float32.
        sampling_rate: sampling rate of the samples in Hz.

    Returns:
        (start, end) of each segment in samples, in order, without overlaps and at most 8 s long; empty if nobody
        speaks.

    Raises:
        ImportError: if silero-vad is not installed.
        ValueError: if the sampling rate is not a valid number of Hz.
    """
    segmenter, done = Segmenter(sampling_rate), []
    for start in range(0, len(samples), _PIECE_S * sampling_rate):  # in pieces, to save memory
        done += segmenter.feed(samples[start : start + _PIECE_S * sampling_rate])
    return done + segmenter.finish()


@cache
def _weights() -> dict[str, np.ndarray]:
    package = importlib.util.find_spec("silero_vad")
    path = Path(package.origin).parent / "data" / "silero_vad_16k.safetensors" if package and package.origin else None
    if path is None or not path.is_file():
        raise ImportError('cutting at pauses needs silero-vad with its weights: pip install "silero-vad>=6.2.1"')
    return _prepared(load_file(path))


def _prepared(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Transpose, fold and scale Silero's weights for `VoiceActivity`."""
    fourier = weights["stft_conv.weight"][:, 0]
    middle = np.where(np.arange(128) == 127, np.float32(0.5), np.float32(1))  # it is on both sides
    prepared = {"cosines": fourier[:129, 1:129] * middle, "sines": fourier[130:257, 1:129]}
    for name in "conv1", "conv2", "conv3", "conv4":
        weight = weights[f"{name}.weight"]
        prepared[f"{name}.weight"] = weight.transpose(0, 2, 1).reshape(len(weight), -1)
        prepared[f"{name}.bias"] = weights[f"{name}.bias"][:, None]
    prepared["lstm.input"] = _gates(weights["lstm_cell.weight_ih"]).T
    prepared["lstm.bias"] = _gates(weights["lstm_cell.bias_ih"] + weights["lstm_cell.bias_hh"])
    prepared["lstm.hidden"] = _gates(weights["lstm_cell.weight_hh"]).T / 2  # hidden states are doubled
    prepared["final.weight"] = weights["final_conv.weight"][0, :, 0] / 2
    prepared["final.bias"] = weights["final_conv.bias"]
    return {name: np.ascontiguousarray(weight) for name, weight in prepared.items()}


def _gates(weight: np.ndarray) -> np.ndarray:
    """Put the gates in the order of `_remember`, the sigmoids' halved."""
    enter, keep, candidate, out = np.split(weight, 4)
    return np.concatenate([enter / 2, keep / 2, out / 2, candidate])


def _convolve(values: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Convolution with kernel size 3 and ReLU: (T, in, n) -> (T / stride, out, n); the weight is (out, 3 * in)."""
    length, channels, count = values.shape
    rows, steps = values.reshape(-1, count), range(0, length, stride)
    convolved = np.empty((len(steps), len(weight), count), np.float32)
    for i, step in enumerate(steps):
        first, last = max(step - 1, 0), min(step + 2, length)  # the zeros of the padding are left out
        taps = slice((first - step + 1) * channels, (last - step + 1) * channels)
        np.matmul(weight[:, taps], rows[first * channels : last * channels], out=convolved[i])
    convolved += bias
    return np.maximum(convolved, 0, out=convolved)


__all__ = ["Segmenter", "VoiceActivity", "speech_segments"]
