"""Recognisers by model and precision, one recording through one of them, and speech that goes on."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import citrinet
from citrinet import AudioTooLongError, load_audio
from citrinet.audio_citrinet import Resampler, to_mono_float32
from citrinet.recognition import Recognizer, is_onnx_folder
from citrinet.result_citrinet import is_speech

try:
    import spaces  # ZeroGPU, where the machine has it

    gpu = spaces.GPU
except ImportError:

    def gpu(function):
        """Where there is no ZeroGPU, nothing is asked of it."""
        return function


EMBEDDED = "citrinet"
# Whose heads are wrong more often, on real speech of new speakers, than always the most frequent label: its card.
DOUBTFUL_TAGS = {EMBEDDED: ("AGE", "DIALECT")}
MODELS = [name.strip() for name in os.environ.get("MODEL_ID", EMBEDDED).split(",")]
DEVICE = os.environ.get("DEVICE", "cpu")
PRECISIONS = ("float32", "bfloat16", "int8") if DEVICE == "cpu" else ("float32", "float16", "bfloat16")
MAX_SECONDS = float(os.environ.get("MAX_SECONDS", "600"))
MAX_MB = float(os.environ.get("MAX_MB", "50"))
RATE = 16_000
RATES = (1_000, 384_000)  # of microphones
MAX_PIECE_S = 60.0  # of a stream
SILENCE = 1e-3  # of full scale
KEPT_MODELS = 4


def choices_of(models: list[str]) -> dict[str, tuple[str, str]]:
    """What the menus offer -> model and precision. ONNX graphs have a precision of their own."""
    choices = {}
    for model in models:
        if is_onnx_folder(model):
            choices[model] = (model, "float32")
        else:
            choices |= {f"{model} · {precision}": (model, precision) for precision in PRECISIONS}
    return choices


CHOICES = choices_of(MODELS)


@dataclass
class Recognition:
    """
    What was heard.

    Args:
        result: the recogniser's, with characters in `chunks` if it is a Citrinet's.
        samples: (n,) float32 at 16 kHz.
        seconds: that the work took.
        is_speech: whether something was recognised, and not in doubt.
        doubtful_tags: categories in which the model is not to be trusted.
    """

    result: dict[str, Any]
    samples: np.ndarray
    seconds: float
    is_speech: bool
    doubtful_tags: tuple[str, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / RATE


class Refused(ValueError):
    """What cannot be transcribed; the message is for the person who asked."""


def chosen(choice: str | None) -> tuple[str, str]:
    """
    Model and precision of a choice.

    Raises:
        Refused: if there is none of that name.
    """
    if choice not in CHOICES:
        raise Refused("Choose a model first. · 请先选择模型。")
    return CHOICES[choice]


_loaded: dict[tuple[str, str], Recognizer] = {}
_loading = threading.Lock()


def recognizer(model: str, precision: str) -> Recognizer:
    """
    The recogniser of a model, loaded once however many ask; the last few are kept.

    Raises:
        Refused: if it cannot be loaded; the log says why.
    """
    key = model, precision
    if found := _loaded.get(key):
        return found
    with _loading:  # one at a time: Transformers changes settings of the whole process while it loads
        if key not in _loaded:
            try:
                _loaded[key] = citrinet.load_recognizer(
                    citrinet.default_model() if model == EMBEDDED else model,
                    precision=precision,
                    device="cpu" if is_onnx_folder(model) else DEVICE,
                    citrinet_only=False,
                )
            except (ImportError, OSError, ValueError) as error:
                print(f"{model} in {precision} cannot be loaded: {error}", flush=True)
                raise Refused(f"The model {model} cannot be loaded now. · 模型暂时无法加载。") from error
        found = _loaded[key]
        while len(_loaded) > KEPT_MODELS:
            del _loaded[next(iter(_loaded))]
        return found


def read(path: str | None) -> np.ndarray:
    """
    Samples (n,) of an uploaded file.

    Raises:
        Refused: if there is none, or it is too long, silent or not audio.
    """
    if not path:
        raise Refused("Record something or choose a file first. · 请先录音或选择文件。")
    if not Path(path).is_file():
        raise Refused("This recording was deleted: choose it again. · 文件已被删除，请重新选择。")
    try:
        samples = load_audio(path, RATE, max_seconds=MAX_SECONDS)
    except AudioTooLongError as error:
        limit = f"{MAX_SECONDS / 60:g}"
        raise Refused(
            f"The recording is longer than the limit of {limit} minutes. · 录音超过 {limit} 分钟的上限。"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).replace(str(path), Path(path).name)
        raise Refused(f"This file cannot be read as audio. · 无法读取音频。 ({reason})") from error
    if is_silent(samples):
        raise Refused("The recording is silent: is the microphone on? · 没有声音，请检查麦克风。")
    return samples


def read_piece(path: str) -> tuple[np.ndarray, int]:
    """
    Samples (n, channels) and sampling rate of a piece of a stream, which browsers send as WAV.

    Raises:
        Refused: if it is something else.
    """
    try:
        with soundfile.SoundFile(path) as file:
            most = round(MAX_PIECE_S * file.samplerate) + 1
            return file.read(most, dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise Refused("This is no sound. · 这不是音频。") from error


def is_silent(samples: np.ndarray) -> bool:
    """Whether nothing is heard in samples (n,), which may be none."""
    return not len(samples) or np.abs(samples).max() < SILENCE


@gpu
def recognise(samples: np.ndarray, model: str, precision: str) -> Iterator[float | Recognition]:
    """
    Transcribe samples (n,).

    Yields:
        The part that is done, from 0 to 1, after each window of a long recording; in the end a [`Recognition`].

    Raises:
        Refused: if the audio is too short or damaged, or the model cannot be loaded.
    """
    ready = recognizer(model, precision)
    start = time.perf_counter()
    try:
        waveform = ready.load({"array": samples, "sampling_rate": RATE})
        for step in ready.follow(waveform, return_timestamps="char"):
            yield step.done
    except ValueError as error:
        raise Refused(f"This cannot be transcribed. · 无法识别。 ({error})") from error
    seconds = time.perf_counter() - start
    print(f"{len(samples) / RATE:.1f} s of audio in {seconds:.2f} s", flush=True)
    assert step.result is not None
    heard = is_speech(step.result, samples, RATE)
    yield Recognition(dict(step.result), samples, seconds, heard, DOUBTFUL_TAGS.get(model, ()))


class Listener:
    """
    Text of speech that goes on: the last seconds are recognised again after every quarter of a second.

    Silence ends what was being said: it is not kept, and no network runs for it.

    Args:
        model: its name.
        precision: see `PRECISIONS`.
    """

    STEP = 0.25  # seconds of sound between one recognition and the next; browsers send a tenth of a second at a time
    WINDOW, KEPT = 12.0, 6.0  # seconds that are recognised again; seconds that stay when the window is full
    PAUSE = 1.0  # seconds of silence that end what is said

    def __init__(self, model: str, precision: str):
        self.model, self.precision = model, precision
        self.settled = self.text = ""
        self.samples = np.zeros(0, np.float32)
        self._new = self._silence = 0  # samples at the end that were not recognised yet, and that are silent
        self._resample, self._rate = Resampler(RATE, RATE), RATE
        self._busy = threading.Lock()

    def hear(self, piece: np.ndarray, rate: int) -> str:
        """
        Go on with the next samples.

        Args:
            piece: (n,) or (n, channels), integers or floats; an empty one asks for what is left of the last step.
            rate: of the piece, in Hz.

        Returns:
            The text so far.

        Raises:
            Refused: for a piece that is too long or no sound.
        """
        with self._busy:
            return self._hear(self._resampled(_mono(piece, rate), rate))

    def _hear(self, samples: np.ndarray) -> str:
        silent = is_silent(samples)
        if silent and not len(self.samples):
            return self.text
        self.samples = np.concatenate([self.samples, samples])
        self._new += len(samples)
        self._silence = self._silence + len(samples) if silent else 0
        step = self.STEP * RATE
        if len(self.samples) >= step and (self._new >= step or (self._new and not len(samples))):
            self._new = 0
            self._recognise()
        return self.text

    def _recognise(self) -> None:
        *_, heard = recognise(self.samples, self.model, self.precision)
        assert isinstance(heard, Recognition)
        self.text = self.settled + (heard.result["transcript"] if heard.is_speech else "")
        if self._silence >= self.PAUSE * RATE:
            self.settled, self.samples = self.text, np.zeros(0, np.float32)
        elif heard.duration > self.WINDOW:
            self._settle(heard)

    def _settle(self, heard: Recognition) -> None:
        """Keep but the last seconds, from between two characters on."""
        border = heard.duration - self.KEPT
        chunks = heard.result.get("chunks", []) if heard.is_speech else []
        done = [chunk for chunk in chunks if chunk["timestamp"][1] <= border]
        if done:
            border = done[-1]["timestamp"][1]
        self.settled += "".join(chunk["text"] for chunk in done)
        self.samples = self.samples[int(border * RATE) :]

    def _resampled(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Samples (n,) at 16 kHz; the filter goes on from piece to piece, as long as the rate stays the same."""
        before = np.zeros(0, np.float32)
        if rate != self._rate:
            before = self._resample(before, last=True)
            self._resample, self._rate = Resampler(rate, RATE), rate
        return np.concatenate([before, self._resample(samples)])


def _mono(piece: np.ndarray, rate: int) -> np.ndarray:
    """(n,) or (n, channels) of any kind -> (n,) float32."""
    if not RATES[0] <= rate <= RATES[1]:
        raise Refused(f"A sampling rate of {rate} Hz cannot be used. · 不支持该采样率。")
    if not piece.size:
        return np.zeros(0, np.float32)
    if len(piece) > MAX_PIECE_S * rate:
        raise Refused(f"A piece of a stream has {MAX_PIECE_S:g} s at most. · 每段音频不能超过 {MAX_PIECE_S:g} 秒。")
    try:
        samples = to_mono_float32(piece.ravel()).reshape(len(piece), -1).mean(axis=1)
    except ValueError as error:
        raise Refused(f"This is no sound. · 这不是音频。 ({error})") from error
    if not np.isfinite(samples).all():
        raise Refused("The sound holds values that are no numbers. · 音频数据已损坏。")
    return samples
