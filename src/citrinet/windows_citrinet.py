"""Cut long recordings for the network: into segments of speech, and into overlapping windows."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

# By default, longer audio is cut into overlapping windows: the memory for one pass grows with its length.
LONG_AUDIO_S = 120.0
DEFAULT_CHUNK_S = 30.0
# By default, longer audio is cut at pauses.
PAUSES_ABOVE_S = 30.0


def cut_at_pauses(
    samples: np.ndarray, sampling_rate: int, vad: bool | None = None, chunk_length_s: float | None = None
) -> list[tuple[int, int]]:
    """
    Cut a recording into parts that are recognised separately, like the single sentences of the training data.

    Args:
        samples: (n,) samples of the recording.
        sampling_rate: sampling rate in Hz.
        vad: whether to cut at pauses; by default only above 30 s, and only if `chunk_length_s` is not given.
        chunk_length_s: as in [`cut_windows`].

    Returns:
        [start, stop) of the segments of speech in samples, in order; the whole recording if it is not to be cut or no
        speech is found.

    Raises:
        ImportError: if `vad` is true and silero-vad is not installed.
    """
    whole = [(0, len(samples))]
    is_long = len(samples) > PAUSES_ABOVE_S * sampling_rate
    if vad is False or (vad is None and (not is_long or chunk_length_s is not None)):
        return whole
    from .voice_activity_citrinet import speech_segments

    try:
        return speech_segments(samples, sampling_rate) or whole
    except ImportError as error:
        if vad:
            raise
        warnings.warn(f"Long audio is read in windows, not cut at pauses: {error}", stacklevel=2)
        return whole


def cut_windows(
    frames: int,
    frame_s: float,
    ratio: int,
    chunk_length_s: float | None = None,
    stride_length_s: float | Sequence[float] | None = None,
) -> list[tuple[int, int, int, int]]:
    """
    Cut the features of one recording into overlapping windows.

    Args:
        frames: number of feature frames.
        frame_s: seconds per feature frame.
        ratio: number of feature frames per frame of logits.
        chunk_length_s: window length in seconds, 0 for a single window; defaults to 30 s for more than 120 s of audio,
            otherwise 0.
        stride_length_s: overlap in seconds, one number or (left, right); defaults to a sixth of the window.

    Returns:
        (start, stop, logit frames to drop on the left, on the right) for each window.

    Raises:
        ValueError: if a length is negative or not finite, a window is shorter than one frame of logits, or the overlaps
            cover the whole window.
    """
    if chunk_length_s is None:
        chunk_length_s = DEFAULT_CHUNK_S if frames * frame_s > LONG_AUDIO_S else 0
    if stride_length_s is None:
        stride_length_s = chunk_length_s / 6
    strides = stride_length_s if isinstance(stride_length_s, Sequence) else (stride_length_s, stride_length_s)
    for name, seconds in ("chunk_length_s", chunk_length_s), *(("stride_length_s", stride) for stride in strides):
        if not 0 <= seconds < math.inf:  # NaN is neither
            raise ValueError(f"`{name}` must be seconds, 0 or more, not {seconds}.")
    chunk = _whole_ratios(chunk_length_s, frame_s, ratio)
    if chunk_length_s and not chunk:
        raise ValueError(
            f"`chunk_length_s` ({chunk_length_s:g}) is less than one output of the network ({frame_s * ratio:g} s): "
            "give 0 for a single pass, or some seconds."
        )
    if not chunk or frames <= chunk:
        return [(0, frames, 0, 0)]
    left, right = (_whole_ratios(stride, frame_s, ratio) for stride in strides)
    if left + right >= chunk or sum(strides) >= chunk_length_s:
        raise ValueError(
            f"`chunk_length_s` ({chunk_length_s}) must be longer than the strides on both sides ({strides})."
        )
    windows = []
    for start in range(0, frames, chunk - left - right):
        stop = min(start + chunk, frames)
        windows.append((start, stop, left // ratio if start else 0, right // ratio if stop < frames else 0))
        if stop == frames:
            break
    return windows


def _whole_ratios(seconds: float, frame_s: float, ratio: int) -> int:
    """Round a duration to feature frames that are a multiple of `ratio`."""
    return round(seconds / (frame_s * ratio)) * ratio


__all__ = ["cut_at_pauses", "cut_windows"]
