"""Load audio (file, URL, bytes, array, dict) as mono float32 at the model's sampling rate."""

import os
import sys
from typing import Any

import numpy as np

from .audio_file_citrinet import read_file
from .audio_segment_citrinet import AudioSegment, AudioTooLongError, TruncatedAudioWarning
from .audio_source_citrinet import as_file
from .resampling_citrinet import Resampler, check_rate, resample

MAX_CHANNELS = 8


def load_audio(source: Any, sampling_rate: int = 16000, *, max_seconds: float | None = None) -> np.ndarray:
    """
    Read audio as mono float32 samples: the mean of its channels, or one of them.

    Files are decoded block by block with soundfile, or with ffmpeg if it is installed and soundfile does not support
    the format. For a segment of a file, only that part is decoded.

    Args:
        source: A path, an http(s) URL, the bytes of a file, an array or tensor at `sampling_rate`, a torchcodec
            decoder, a dict with `"array"` or `"raw"` and its own `"sampling_rate"`, a row of `datasets` with `"bytes"`
            or `"path"`, as `Audio(decode=False)` gives, or an [`AudioSegment`] of any of these.
        sampling_rate (`int`, defaults to 16000): Sampling rate of the result in Hz.
        max_seconds (`float`, *optional*): Longest audio to accept; decoding stops there.

    Returns:
        `np.ndarray`: (n,) float32, full scale at 1.0.

    Warns:
        TruncatedAudioWarning: if there is less audio than the file's header or the segment says.

    Raises:
        AudioTooLongError: (a ValueError) if it is longer than `max_seconds`.
        ValueError: if the source is not audio, is empty, ends before the segment, or needs ffmpeg, which is missing.
        OSError: if a file cannot be opened or a URL cannot be fetched, see [`download`] for its limits.
        ImportError: if soxr is missing and the sampling rates differ.
    """
    segment = source if isinstance(source, AudioSegment) else AudioSegment(source)
    segment.check()
    recording = _file_of_row(segment.source)
    if isinstance(recording, (bytearray, memoryview)):
        recording = bytes(recording)
    if isinstance(recording, (str, os.PathLike, bytes)):
        with as_file(recording) as path:
            return read_file(path, segment, sampling_rate, max_seconds)
    samples, rate = _samples_and_rate(recording, sampling_rate)
    return resample(_cut(samples, check_rate(rate, segment.name), segment, max_seconds), rate, sampling_rate)


def check_samples(waveform: Any, at_least: int, rate: int) -> np.ndarray:
    """
    Convert a waveform to mono float32 and check that features can be computed from it.

    Args:
        waveform: Anything that [`to_mono_float32`] accepts.
        at_least (`int`): Smallest number of samples, one hop.
        rate (`int`): Sampling rate in Hz.

    Returns:
        `np.ndarray`: (n,) float32.

    Raises:
        ValueError: if the audio is shorter than one hop or has NaN or infinite samples.
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


def to_mono_float32(samples: Any) -> np.ndarray:
    """
    Convert samples to mono float32; integers are scaled to full scale at 1.0, channels are averaged.

    Args:
        samples: (n,), (channels, n) or (n, channels): array, tensor or list.

    Returns:
        `np.ndarray`: (n,) float32.

    Raises:
        ValueError: if there are no samples, values are not numbers, or the shape does not show which axis is time.
    """
    return _mono(_as_frames(samples), None)


def _file_of_row(source: Any) -> Any:
    """Return the file of a dict without samples, as `Audio(decode=False)` makes it; anything else unchanged."""
    if not isinstance(source, dict) or source.get("array") is not None or source.get("raw") is not None:
        return source
    content = source.get("bytes")
    return content if content is not None else source.get("path") or source


def _samples_and_rate(source: Any, sampling_rate: int) -> tuple[Any, Any]:
    if isinstance(source, dict):
        samples = source.get("raw") if source.get("raw") is not None else source.get("array")
        if samples is None or source.get("sampling_rate") is None:
            raise ValueError(
                'a dict of audio needs "array" (or "raw") and "sampling_rate", or "bytes" or "path"; this one has '
                f"{sorted(map(str, source))}."
            )
        return samples, source["sampling_rate"]
    if (torchcodec := sys.modules.get("torchcodec")) and isinstance(source, torchcodec.decoders.AudioDecoder):
        decoded = source.get_all_samples()
        return decoded.data, decoded.sample_rate
    return source, sampling_rate


def _cut(samples: Any, rate: int, segment: AudioSegment, max_seconds: float | None) -> np.ndarray:
    """Return the mono samples of a segment of an array."""
    frames = _as_frames(samples)
    segment.check_channel(frames.shape[1])
    start, wanted = segment.frames(rate)
    if start >= len(frames):
        raise segment.beyond(len(frames) / rate)
    part = frames[start : None if wanted is None else start + wanted]
    segment.check_limit(len(part), rate, max_seconds)
    segment.warn_if_short(len(part), rate)
    return _mono(part, segment.channel)


def _as_frames(samples: Any) -> np.ndarray:
    """Return samples of any kind as (n, channels), with their values unchanged."""
    array = samples.detach().float().cpu().numpy() if _is_float_tensor(samples) else np.asarray(samples)
    if array.size == 0:
        raise ValueError("audio is empty: there is nothing to transcribe.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"audio must be an array of numbers, got {type(samples).__name__} of {array.dtype}.")
    if array.ndim == 1:
        return array[:, None]
    channels = [axis for axis in range(array.ndim) if array.shape[axis] <= MAX_CHANNELS]
    if array.ndim != 2 or len(channels) != 1:
        raise ValueError(
            f"audio of shape {array.shape}: expected (n,), (channels, n) or (n, channels) with at most "
            f"{MAX_CHANNELS} channels and more samples than that."
        )
    return np.moveaxis(array, channels[0], 1)


def _mono(frames: np.ndarray, channel: int | None) -> np.ndarray:
    """Convert (n, channels) of any type to (n,) float32: one channel, or the mean of all."""
    if channel is None and frames.shape[1] > 1:
        mean: np.ndarray = _full_scale(frames).mean(axis=1)
        return mean
    samples = _full_scale(frames[:, channel or 0])
    return np.require(samples, requirements=["C", "W"])  # torch needs contiguous, writable memory


def _is_float_tensor(samples: Any) -> bool:
    """Whether to convert a tensor to float32 first: NumPy has no bfloat16. Integers keep their type for scaling."""
    torch = sys.modules.get("torch")  # if torch was not imported, this cannot be a tensor
    return torch is not None and isinstance(samples, torch.Tensor) and samples.is_floating_point()


def _full_scale(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    bits = 8 * array.dtype.itemsize
    if bits == 64:
        raise ValueError(f"audio of {array.dtype} has no known full scale: convert it to int16 or to float in [-1, 1].")
    middle = 1 << (bits - 1)
    if array.dtype.kind == "u":  # silence is the middle value: inverting the highest bit moves it to zero
        array = (array ^ array.dtype.type(middle)).view(f"i{array.dtype.itemsize}")
    scaled = array.astype(np.float32)
    scaled /= middle
    return scaled


__all__ = [
    "AudioSegment",
    "AudioTooLongError",
    "Resampler",
    "TruncatedAudioWarning",
    "check_samples",
    "load_audio",
    "resample",
    "to_mono_float32",
]
