"""One resampler for all audio: SoX's (soxr, high quality), as NeMo's loader uses it through librosa."""

from typing import Any

import numpy as np

try:
    import soxr
except ImportError:
    soxr = None

MIN_RATE, MAX_RATE = 1000, 768_000  # Hz; what lies outside comes from damaged headers


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """
    Change the sampling rate.

    Args:
        samples (`np.ndarray`): (n,) float32.
        rate, target_rate (`int`): Samples a second before and after.

    Returns:
        `np.ndarray`: (n * target_rate / rate,) float32, rounded to whole samples.

    Raises:
        ImportError: if soxr is missing and the rates differ.
        ValueError: if `rate` is not a whole number of Hz from 1 kHz to 768 kHz.
    """
    if check_rate(rate) == target_rate:
        return samples
    return _soxr(rate, target_rate).resample(samples, rate, target_rate)


class Resampler:
    """
    The same for a recording that comes in pieces: together they give, bit for bit, what `resample` gives of the whole.

    Args:
        rate, target_rate (`int`): Samples a second before and after.

    Raises:
        ImportError, ValueError: as [`resample`] does.
    """

    def __init__(self, rate: int, target_rate: int):
        self._stream: Any = None
        if check_rate(rate) != target_rate:
            self._stream = _soxr(rate, target_rate).ResampleStream(rate, target_rate, 1, dtype="float32")

    def __call__(self, piece: np.ndarray, last: bool = False) -> np.ndarray:
        """
        Take the next piece, give what is ready.

        Args:
            piece (`np.ndarray`): (n,) float32, may be empty.
            last (`bool`): Whether the recording ends with it: the filter holds some milliseconds back until then.

        Returns:
            `np.ndarray`: (m,) float32.
        """
        return piece if self._stream is None else self._stream.resample_chunk(piece, last=last)


def check_rate(rate: Any, name: str = "audio") -> int:
    """
    Check a sampling rate that a file or a caller names.

    Args:
        rate: anything.
        name (`str`, defaults to `"audio"`): Of the recording, for messages.

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
