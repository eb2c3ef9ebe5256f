"""What of a long recording goes through the network at a time: stretches of speech, and overlapping windows."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

# Longer audio is read in overlapping windows unless the caller says otherwise: the memory for one pass grows with it.
LONG_AUDIO_S = 120.0
DEFAULT_CHUNK_S = 30.0
# Longer audio is cut at pauses, if it has any.
PAUSES_ABOVE_S = 30.0


def cut_at_pauses(
    samples: np.ndarray, sampling_rate: int, vad: bool | None = None, chunk_length_s: float | None = None
) -> list[tuple[int, int]]:
    """
    The parts of a recording that are read on their own, as the single sentences that the network was trained on.

    Args:
        samples: (n,) of the recording.
        sampling_rate: in Hz.
        vad: whether to cut at pauses; if not given, above 30 s and unless `chunk_length_s` says how to cut.
        chunk_length_s: as in [`cut_windows`].

    Returns:
        [start, stop) in samples of the stretches of speech in their order; the whole recording if it is not to be cut,
        or nobody is heard to speak.

    Raises:
        ImportError: if `vad` is asked for and there is nothing to find speech with.
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
    Overlapping windows over the features of one recording.

    Args:
        frames: how many frames of features there are.
        frame_s: seconds from one to the next.
        ratio: frames of features for each frame of logits.
        chunk_length_s: seconds of a window, 0 for a single one; windows of 30 s above 120 s if not given.
        stride_length_s: seconds of overlap, one number or (left, right); a sixth of the window if not given.

    Returns:
        (start, stop, logit frames to drop on the left, on the right) for each window.

    Raises:
        ValueError: if a length is negative or no number, if a window is shorter than one frame of logits, or if the
            overlaps leave nothing of it.
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
    """Feature frames nearest to a duration that make whole frames of logits."""
    return round(seconds / (frame_s * ratio)) * ratio


__all__ = ["cut_at_pauses", "cut_windows"]
