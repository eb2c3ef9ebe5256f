"""Any audio (file, URL, bytes, array, dict) to mono float32 at the model's sampling rate."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

try:
    import soundfile
except (ImportError, OSError):  # OSError: the package is there, the library it wraps is not
    soundfile = None
try:
    import soxr
except ImportError:
    soxr = None

MAX_CHANNELS = 8


@dataclass(frozen=True)
class AudioSegment:
    """
    A part of a recording, as a NeMo manifest names it.

    Args:
        source: what [`load_audio`] takes.
        offset: seconds from its start.
        duration: seconds from there; to the end if not given.
        channel: which of its channels, counted from 0; the mean of all if not given.
    """

    source: Any
    offset: float = 0.0
    duration: float | None = None
    channel: int | None = None

    def __str__(self) -> str:
        """The name of the recording, with the part of it."""
        name = "the given bytes" if isinstance(self.source, (bytes, bytearray)) else str(self.source)
        if not self.offset and self.duration is None:
            return name
        end = "" if self.duration is None else f"{self.offset + self.duration:g}"
        return f"{name} ({self.offset:g}-{end} s)"


def load_audio(source, sampling_rate: int = 16000) -> np.ndarray:
    """
    Read audio as mono float32 samples.

    Args:
        source: A path, an http(s) URL, the bytes of a file, an array or tensor at `sampling_rate`, a torchcodec
            decoder, a dict with `"array"` or `"raw"` and its own `"sampling_rate"`, or an [`AudioSegment`] of any of
            these.
        sampling_rate (`int`, defaults to 16000): Samples a second to return.

    Returns:
        `np.ndarray`: (n,) float32, full scale at 1.0.

    Raises:
        ValueError: when the source is not audio, is empty, or needs ffmpeg and there is none.
        OSError: when a file cannot be opened or a URL not fetched.
    """
    if isinstance(source, AudioSegment):
        samples, rate = read_audio(source.source, sampling_rate)
        samples = to_mono_float32(samples)[int(source.offset * rate) :]
        samples = samples if source.duration is None else samples[: int(source.duration * rate)]
        return resample(samples, rate, sampling_rate)
    samples, rate = read_audio(source, sampling_rate)
    return resample(to_mono_float32(samples), rate, sampling_rate)


def read_audio(source, sampling_rate: int = 16000) -> tuple:
    """
    Read audio as it is.

    Args:
        source: What [`load_audio`] takes.
        sampling_rate (`int`, defaults to 16000): The rate of an array that does not say its own.

    Returns:
        Samples as [`to_mono_float32`] takes them, and their rate.

    Raises:
        ValueError, OSError: as [`load_audio`] does.
    """
    if isinstance(source, (str, os.PathLike, bytes, bytearray)):
        return _decode(source, sampling_rate)
    if isinstance(source, dict):
        return _from_dict(source)
    if (torchcodec := sys.modules.get("torchcodec")) and isinstance(source, torchcodec.decoders.AudioDecoder):
        decoded = source.get_all_samples()
        return decoded.data, decoded.sample_rate
    return source, sampling_rate


def check_samples(waveform, at_least: int, rate: int) -> np.ndarray:
    """
    Samples that a front end can take, or the reason why it cannot.

    Args:
        waveform: What [`to_mono_float32`] takes.
        at_least (`int`): Samples of one hop.
        rate (`int`): Samples a second.

    Returns:
        `np.ndarray`: (n,) float32.

    Raises:
        ValueError: for audio shorter than one hop, or NaN or infinite samples.
    """
    samples = to_mono_float32(waveform)
    if len(samples) < at_least:
        raise ValueError(
            f"audio has {len(samples)} samples: at least {at_least} are needed ({1000 * at_least / rate:g} ms at "
            f"{rate} Hz)."
        )
    if not np.isfinite([samples.min(), samples.max()]).all():  # NaN is both
        raise ValueError("audio holds NaN or infinite samples: repair the recording or drop it.")
    return samples


def to_mono_float32(samples) -> np.ndarray:
    """
    Turn samples into mono float32; integers are scaled to full scale at 1.0, channels averaged.

    Args:
        samples: (n,), (channels, n) or (n, channels): array, tensor or list.

    Returns:
        `np.ndarray`: (n,) float32.

    Raises:
        ValueError: for no samples, values that are not numbers, or a shape that does not say which axis is time.
    """
    array = samples.detach().float().cpu().numpy() if _is_float_tensor(samples) else np.asarray(samples)
    if array.size == 0:
        raise ValueError("audio is empty: there is nothing to transcribe.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"audio must be an array of numbers, got {type(samples).__name__} of {array.dtype}.")
    floats = _full_scale(array)
    if floats.ndim == 1:
        return np.require(floats, requirements=["C", "W"])  # torch wants contiguous memory that it may write
    channels = [axis for axis in range(floats.ndim) if floats.shape[axis] <= MAX_CHANNELS]
    if floats.ndim != 2 or len(channels) != 1:
        raise ValueError(
            f"audio of shape {floats.shape}: expected (n,), (channels, n) or (n, channels) with at most "
            f"{MAX_CHANNELS} channels and more samples than that."
        )
    return floats.mean(axis=channels[0])


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """
    Change the sampling rate with the SoX resampler (soxr, high quality), as NeMo's loader does through librosa.

    Args:
        samples (`np.ndarray`): (n,) float32.
        rate, target_rate (`int`): Samples a second before and after.

    Returns:
        `np.ndarray`: (n * target_rate / rate,) float32, rounded to whole samples.

    Raises:
        ImportError: if soxr is missing and the rates differ.
        ValueError: if `rate` is not a positive number.
    """
    if not rate > 0 or rate != int(rate):
        raise ValueError(f"the sampling rate must be a positive whole number of Hz, got {rate!r}.")
    if rate == target_rate:
        return samples
    if soxr is None:
        raise ImportError(f"audio of {rate} Hz has to be resampled to {target_rate} Hz: pip install soxr")
    return soxr.resample(samples, rate, target_rate)


def _is_float_tensor(samples) -> bool:
    """Torch tensors go through float32, since numpy has no bfloat16; integer ones keep their type for scaling."""
    torch = sys.modules.get("torch")  # none of its tensors comes from where it was not imported
    return torch is not None and isinstance(samples, torch.Tensor) and samples.is_floating_point()


def _full_scale(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    info = np.iinfo(array.dtype)
    if info.bits == 64:
        raise ValueError(f"audio of {array.dtype} has no known full scale: convert it to int16 or to float in [-1, 1].")
    zero = 0 if info.min < 0 else 1 << (info.bits - 1)
    return ((array.astype(np.float64) - zero) / (1 << (info.bits - 1))).astype(np.float32)


def _from_dict(source: dict) -> tuple:
    samples = source.get("raw") if source.get("raw") is not None else source.get("array")
    if samples is None or source.get("sampling_rate") is None:
        raise ValueError(
            f'a dict of audio needs "array" (or "raw") and "sampling_rate"; this one has {sorted(map(str, source))}.'
        )
    return samples, source["sampling_rate"]


def _decode(source, sampling_rate: int) -> tuple[np.ndarray, int]:
    """Decode with soundfile; what it does not know (m4a, webm, video) goes to ffmpeg where that is installed."""
    name, content = _contents(source)
    if not content:
        raise ValueError(f"{name}: the audio file is empty.")
    if soundfile is not None:
        try:
            samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
            return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1), rate
        except soundfile.LibsndfileError:
            pass
    return _decode_with_ffmpeg(content, name, sampling_rate), sampling_rate


def _contents(source) -> tuple[str, bytes]:
    """Name, for messages, and bytes of a file wherever it is."""
    if isinstance(source, (bytes, bytearray)):
        return "the given bytes", bytes(source)
    if str(source).startswith(("http://", "https://")):
        return str(source), _fetch(str(source))
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the audio files in it.")
    return str(path), path.read_bytes()


def _decode_with_ffmpeg(content: bytes, name: str, sampling_rate: int) -> np.ndarray:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{name}: not an audio format that soundfile reads (wav, flac, mp3, ogg). If it is another format, such "
            "as m4a, install ffmpeg; otherwise the file is damaged or not audio."
        )
    # A file rather than a pipe, since the index of an m4a may stand at its end; only that file may be opened.
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(content)
    try:
        command = [ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i", file.name, "-vn"]
        command += ["-ac", "1", "-ar", str(sampling_rate), "-f", "f32le", "-"]
        run = subprocess.run(command, capture_output=True, check=False)
    finally:
        Path(file.name).unlink()
    samples = np.frombuffer(run.stdout, np.float32)
    if run.returncode or not len(samples):
        raise ValueError(f"{name}: neither soundfile nor ffmpeg can read this as audio; it is damaged or not audio.")
    return samples


def _fetch(url: str) -> bytes:
    from huggingface_hub.utils import get_session

    response = get_session().get(url, follow_redirects=True, timeout=60)
    if response.status_code != 200:
        raise OSError(f"{url}: the server answered {response.status_code}.")
    return response.content


__all__ = ["AudioSegment", "check_samples", "load_audio", "read_audio", "resample", "to_mono_float32"]
