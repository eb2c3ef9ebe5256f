"""Recognisers by model and precision, and one recording through one of them, window by window."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import pipeline

import citrinet
from citrinet import CitrinetPipeline, load_audio
from citrinet.optimized import inference_arguments

EMBEDDED = "citrinet"
MODELS = [name.strip() for name in os.environ.get("MODEL_ID", EMBEDDED).split(",")]
PRECISIONS = ("float32", "bfloat16", "int8")
MAX_SECONDS = float(os.environ.get("MAX_SECONDS", "600"))
MAX_MB = float(os.environ.get("MAX_MB", "50"))
RATE = 16_000
SILENCE = 1e-3  # of full scale
DOUBT = 0.4  # mean probability of the tokens: of real speech 0.47 and more, of most noise 0.1 to 0.3


@dataclass
class Recognition:
    """
    What was heard.

    Args:
        result: the pipeline's dictionary, with characters in `chunks`.
        samples: (n,) float32 at 16 kHz.
        seconds: that the work took.
        is_speech: whether something was recognised, and not in doubt.
    """

    result: dict[str, Any]
    samples: np.ndarray
    seconds: float
    is_speech: bool

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / RATE


class Refused(ValueError):
    """Audio that cannot be transcribed; the message is for the person who sent it."""


@lru_cache(maxsize=4)
def recognizer(model: str, precision: str) -> Any:
    """The pipeline of a model."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = citrinet.default_model() if model == EMBEDDED else model
    arguments = inference_arguments(name, precision, device)
    return pipeline("automatic-speech-recognition", name, device=device, **arguments)


def read(path: str | None) -> np.ndarray:
    """
    Samples (n,) of an uploaded file.

    Raises:
        Refused: if there is none, or it is too long, silent or not audio.
    """
    if not path:
        raise Refused("Record something or choose a file first. · 请先录音或选择文件。")
    try:
        with soundfile.SoundFile(path) as file:
            _check_length(len(file) / file.samplerate)
    except soundfile.LibsndfileError:
        pass  # another format, or not audio: the next step knows
    try:
        samples = load_audio(path, RATE)
    except (OSError, ValueError) as error:
        reason = str(error).replace(str(path), Path(path).name)
        raise Refused(f"This file cannot be read as audio. · 无法读取音频。 ({reason})") from error
    _check_length(len(samples) / RATE)
    if np.abs(samples).max() < SILENCE:
        raise Refused("The recording is silent: is the microphone on? · 没有声音，请检查麦克风。")
    return samples


def _check_length(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        limit = f"{MAX_SECONDS / 60:g}"
        raise Refused(
            f"The recording has {seconds / 60:.0f} minutes, the limit is {limit}. · 录音超过 {limit} 分钟的上限。"
        )


def recognise(samples: np.ndarray, model: str, precision: str) -> Iterator[float | Recognition]:
    """
    Transcribe samples (n,).

    Yields:
        The part that is done, from 0 to 1, after each window of a long recording; in the end a [`Recognition`].

    Raises:
        Refused: if the audio is too short or damaged.
    """
    pipe = recognizer(model, precision)
    start = time.perf_counter()
    try:
        if isinstance(pipe, CitrinetPipeline):
            windows = list(pipe.preprocess(samples))
            outputs = []
            for index, window in enumerate(windows):
                outputs.append(pipe.forward(window))
                outputs[-1].pop("is_last")
                yield (index + 1) / len(windows)
            sure = _confidence(outputs, pipe.tokenizer.pad_token_id) >= DOUBT
            result = pipe.postprocess(outputs, return_timestamps="char")
        else:
            result, sure = pipe(samples.copy()), True
    except ValueError as error:
        raise Refused(f"This cannot be transcribed. · 无法识别。 ({error})") from error
    seconds = time.perf_counter() - start
    print(f"{len(samples) / RATE:.1f} s of audio in {seconds:.2f} s", flush=True)
    result = {"transcript": result["text"], "entities": [], "tags": {}, **result}
    yield Recognition(result, samples, seconds, sure and bool(result["transcript"]))


def _confidence(outputs: list[dict[str, torch.Tensor]], blank: int) -> float:
    """Mean probability of the tokens of all windows."""
    tokens, scores = (torch.cat([output[name].flatten() for output in outputs]) for name in ("tokens", "scores"))
    written = scores[tokens != blank]
    return written.mean().item() if len(written) else 0.0


class Listener:
    """
    Text of speech that goes on: the last seconds are recognised again with every piece that comes.

    Args:
        model: its name.
        precision: see `PRECISIONS`.
    """

    WINDOW, KEPT = 12.0, 6.0  # seconds that are recognised again; seconds that stay when the window is full

    def __init__(self, model: str, precision: str):
        self.model, self.precision = model, precision
        self.settled = ""
        self.samples = np.zeros(0, np.float32)

    def hear(self, piece: np.ndarray, rate: int) -> str:
        """Samples of any kind, at `rate` -> the text so far."""
        self.samples = np.concatenate([self.samples, load_audio({"array": piece, "sampling_rate": rate}, RATE)])
        if len(self.samples) < RATE // 4 or np.abs(self.samples).max() < SILENCE:
            return self.settled
        *_, heard = recognise(self.samples, self.model, self.precision)
        assert isinstance(heard, Recognition)
        text = self.settled + (heard.result["transcript"] if heard.is_speech else "")
        if heard.duration > self.WINDOW:
            self._settle(heard)
        return text

    def _settle(self, heard: Recognition) -> None:
        """Let go of all but the last seconds, between two characters."""
        border = heard.duration - self.KEPT
        chunks = heard.result.get("chunks", []) if heard.is_speech else []
        done = [chunk for chunk in chunks if chunk["timestamp"][1] <= border]
        if done:
            border = done[-1]["timestamp"][1]
        self.settled += "".join(chunk["text"] for chunk in done)
        self.samples = self.samples[int(border * RATE) :]
