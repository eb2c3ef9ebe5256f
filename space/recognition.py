"""Recognition for the demo: recognisers by model and precision, recordings, and live speech."""

import base64
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import citrinet
from citrinet import AudioTooLongError, CitrinetStream, DecodingOptions, load_audio
from citrinet.recognition import Recognizer, is_onnx_folder
from citrinet.result_citrinet import is_speech
from citrinet.transcript_citrinet import joint

try:
    import spaces  # ZeroGPU, if the machine has it

    gpu = spaces.GPU
except ImportError:

    def gpu(function):
        """Return the function unchanged, without ZeroGPU."""
        return function


EMBEDDED = "citrinet"
# Tags that are wrong more often, on real speech of new speakers, than always guessing the most frequent label (see the
# model card).
DOUBTFUL_TAGS = {EMBEDDED: ("AGE", "DIALECT")}
MODELS = [name.strip() for name in os.environ.get("MODEL_ID", EMBEDDED).split(",")]
DEVICE = os.environ.get("DEVICE", "cpu")
PRECISIONS = ("float32", "bfloat16", "int8") if DEVICE == "cpu" else ("float32", "float16", "bfloat16")
MAX_SECONDS = float(os.environ.get("MAX_SECONDS", "600"))
MAX_MB = float(os.environ.get("MAX_MB", "50"))
RATE = 16_000
RATES = (1_000, 384_000)  # lowest and highest sampling rate of microphones, in Hz
MAX_PIECE_S = 60.0  # longest piece of a stream, in seconds
SILENCE = 1e-3  # fraction of full scale
KEPT_MODELS = 4


def choices_of(models: list[str]) -> dict[str, tuple[str, str]]:
    """Menu entry -> model and precision. The precision of ONNX graphs is fixed."""
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
    A transcribed recording.

    Args:
        result: result of the recogniser, with characters in `chunks` if the model is a Citrinet.
        samples: (n,) float32 at 16 kHz.
        seconds: seconds of computation.
        is_speech: whether speech was recognised with enough confidence.
        doubtful_tags: tag categories in which the model is not reliable.
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
    """The input cannot be transcribed; the message is shown to the user."""


def chosen(choice: str | None) -> tuple[str, str]:
    """
    Model and precision of a menu entry.

    Raises:
        Refused: if there is no such entry.
    """
    if choice not in CHOICES:
        raise Refused("Choose a model first. · 请先选择模型。")
    return CHOICES[choice]


_loaded: dict[tuple[str, str], Recognizer] = {}
_loading = threading.Lock()


def recognizer(model: str, precision: str) -> Recognizer:
    """
    Load the recogniser of a model, or get it from the cache of the last few.

    Raises:
        Refused: if it cannot be loaded; the log has the reason.
    """
    key = model, precision
    if found := _loaded.get(key):
        return found
    with _loading:  # one at a time: Transformers changes process-wide settings while loading
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
                raise Refused(f"The model {model} cannot be loaded at the moment. · 模型暂时无法加载。") from error
        found = _loaded[key]
        while len(_loaded) > KEPT_MODELS:
            del _loaded[next(iter(_loaded))]
        return found


def read(path: str | None) -> np.ndarray:
    """
    Read the samples (n,) of an uploaded file.

    Raises:
        Refused: if there is no file, or it is too long, silent or not audio.
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


def decode_piece(samples: str) -> np.ndarray:
    """
    Decode a piece of a stream: 16-bit samples (n,), which pages send in base64.

    Raises:
        Refused: if it is not such a piece.
    """
    try:
        return np.frombuffer(base64.b64decode(samples, validate=True), "<i2")
    except (TypeError, ValueError) as error:
        raise Refused("This is not audio. · 这不是音频。") from error


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples (n,) are empty or silent."""
    return not len(samples) or np.abs(samples).max() < SILENCE


@gpu
def recognise(
    samples: np.ndarray, model: str, precision: str, hot_words: str = "", language_model: bool = True
) -> Iterator[float | Recognition]:
    """
    Transcribe samples (n,).

    Args:
        samples: samples of the recording.
        model: name of the model.
        precision: see `PRECISIONS`.
        hot_words: words to prefer, separated by spaces or commas.
        language_model: whether to use the model's own language model, if it has one.

    Yields:
        Progress from 0 to 1 after each window of a long recording; at the end a [`Recognition`].

    Raises:
        Refused: if the audio is too short or damaged, or the model cannot be loaded.
    """
    ready = recognizer(model, precision)
    start = time.perf_counter()
    try:
        if hot_words.strip() or not language_model:
            words = tuple(re.findall(r"\w+", hot_words))
            options = DecodingOptions("own" if language_model else "none", hot_words=words)
            ready = ready.with_decoder(options.decoder(ready.model, ready.pieces))
        waveform = ready.load({"array": samples, "sampling_rate": RATE})
        for step in ready.follow(waveform, return_timestamps="char"):
            yield step.done
    except ValueError as error:
        raise Refused(f"The recording cannot be transcribed. · 无法识别。 ({error})") from error
    seconds = time.perf_counter() - start
    print(f"{len(samples) / RATE:.1f} s of audio in {seconds:.2f} s", flush=True)
    assert step.result is not None
    heard = is_speech(step.result, samples, RATE)
    yield Recognition(dict(step.result), samples, seconds, heard, DOUBTFUL_TAGS.get(model, ()))


@gpu
def align(samples: np.ndarray, text: str, model: str, precision: str) -> Recognition:
    """
    Find when each character of a text is said in samples (n,).

    Raises:
        Refused: if there is no text, or it does not fit the audio.
    """
    if not text.strip():
        raise Refused("Enter the text first. · 请先输入文本。")
    ready = recognizer(model, precision)
    start = time.perf_counter()
    try:
        result = citrinet.align(ready, {"array": samples, "sampling_rate": RATE}, text)
    except ValueError as error:
        raise Refused(f"The text cannot be aligned. · 无法对齐。 ({error})") from error
    return Recognition(dict(result), samples, time.perf_counter() - start, is_speech=True)


@gpu
def read_aloud(samples: np.ndarray, model: str, precision: str) -> dict[str, Any]:
    """Transcribe a segment (n,) of a stream."""
    start = time.perf_counter()
    result = next(iter(recognizer(model, precision).stream([samples], vad=False)))
    print(f"{len(samples) / RATE:.1f} s of audio in {time.perf_counter() - start:.2f} s", flush=True)
    return dict(result)


class Live:
    """
    Recogniser for a `CitrinetStream` that uses the Space's models.

    Args:
        model: name of the model.
        precision: see `PRECISIONS`.
    """

    sampling_rate = RATE

    def __init__(self, model: str, precision: str):
        self.choice = model, precision

    def stream(self, waveforms: list[np.ndarray], **_: Any) -> Iterator[dict[str, Any]]:
        """Transcribe waveforms."""
        for samples in waveforms:
            yield read_aloud(samples, *self.choice)


class Listener:
    """
    Live transcription of a stream.

    Args:
        model: name of the model.
        precision: see `PRECISIONS`.

    Raises:
        Refused: if the model cannot be loaded.
    """

    def __init__(self, model: str, precision: str):
        recognizer(model, precision)
        self._live = Live(model, precision)
        self._stream = CitrinetStream(self._live)
        self._before = ""  # text of finished streams

    @property
    def text(self) -> str:
        """The text so far."""
        heard = "".join(self._stream.text)
        return self._before + joint(self._before, heard) + heard

    def hear(self, piece: np.ndarray, rate: int) -> str:
        """
        Transcribe the next samples.

        Args:
            piece: (n,) or (n, channels), integers or floats.
            rate: sampling rate of the piece in Hz.

        Returns:
            The text so far.

        Raises:
            Refused: if the piece is too long or not audio.
        """
        if not RATES[0] <= rate <= RATES[1]:
            raise Refused(f"A sampling rate of {rate} Hz is not supported. · 不支持该采样率。")
        if len(piece) > MAX_PIECE_S * rate:
            raise Refused(f"A piece of a stream is at most {MAX_PIECE_S:g} s. · 每段音频不能超过 {MAX_PIECE_S:g} 秒。")
        try:
            self._stream.feed(piece, rate)
        except ValueError as error:
            raise Refused(f"This is not audio. · 这不是音频。 ({error})") from error
        return self.text

    def end(self) -> str:
        """Transcribe the remaining samples and return the whole text; later samples start a new stream."""
        stream, self._stream = self._stream, CitrinetStream(self._live)
        heard = stream.finish().stable
        self._before += joint(self._before, heard) + heard
        return self.text
