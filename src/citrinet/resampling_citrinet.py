"""Resampling of all audio with soxr in high quality, as in NeMo's loader, which uses it through librosa."""

from typing import Any

import numpy as np

try:
    import soxr
except ImportError:
    soxr = None

MIN_RATE, MAX_RATE = 1000, 768_000  # Hz; rates outside come from damaged headers


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """
    Change the sampling rate.

    Args:
        samples (`np.ndarray`): (n,) float32.
        rate, target_rate (`int`): Sampling rates before and after, in Hz.

    Returns:
        `np.ndarray`: (n * target_rate / rate,) float32, rounded to whole samples.

    Raises:
        ImportError: if soxr is missing and the rates differ.
        ValueError: if `rate` is not a whole number of Hz from 1 kHz to 768 kHz.
    """
    if check_rate(rate) == target_rate:
        return samples
    resampled: np.ndarray = _soxr(rate, target_rate).resample(samples, rate, target_rate)
    return resampled


class Resampler:
    """
    Resample a recording in pieces; joined, the outputs are bit-identical to [`resample`] of the whole recording.

    Args:
        rate, target_rate (`int`): Sampling rates before and after, in Hz.

    Raises:
        ImportError, ValueError: as in [`resample`].
    """

    def __init__(self, rate: int, target_rate: int):
        self._stream: Any = None
        if check_rate(rate) != target_rate:
            self._stream = _soxr(rate, target_rate).ResampleStream(rate, target_rate, 1, dtype="float32")

    def __call__(self, piece: np.ndarray, last: bool = False) -> np.ndarray:
        """
        Resample the next piece and return the samples that are ready.

        Args:
            piece (`np.ndarray`): (n,) float32, may be empty.
            last (`bool`): Whether this is the last piece; before it the filter holds back some milliseconds.

        Returns:
            `np.ndarray`: (m,) float32.
        """
        return piece if self._stream is None else self._stream.resample_chunk(piece, last=last)


def check_rate(rate: Any, name: str = "audio") -> int:
    """
    Check a sampling rate given by a file or a caller.

    Args:
        rate: value of any type.
        name (`str`, defaults to `"audio"`): Name of the recording, for messages.

    Returns:
        `int`: the sampling rate.

    Raises:
        ValueError: if it is not a whole number of Hz from 1 kHz to 768 kHz.
    """
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole <= 0 or whole != rate:
        raise ValueError(f"{name}: the sampling rate must be a positive whole number of Hz, got {rate!r}.")
    if not MIN_RATE <= whole <= MAX_RATE:
        raise ValueError(
            f"{name}: a sampling rate of {whole} Hz, expected {MIN_RATE} to {MAX_RATE} Hz. The header of the file is "
            "damaged, or the number is not in Hz."
        )
    return whole


def _soxr(rate: int, target_rate: int) -> Any:
    if soxr is None:
        raise ImportError(f"audio of {rate} Hz has to be resampled to {target_rate} Hz: pip install soxr")
    return soxr


__all__ = ["Resampler", "check_rate", "resample"]
