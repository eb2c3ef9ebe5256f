"""Most likely CTC path through given tokens, with torchaudio, or NumPy for long audio and without PyTorch."""

import importlib
import math
import sys
from typing import Any

import numpy as np

BLANK = 0
# Frames times tokens above which torchaudio is not used, since its time and memory grow with them.
_LARGE = 2**25


def best_path(emissions: np.ndarray, labels: np.ndarray, backend: str | None = None) -> np.ndarray:
    """
    Find the frames of a given sequence of tokens: the Viterbi path of CTC (Graves et al. 2006).

    Args:
        emissions: (T', C) log-probabilities, with the blank first.
        labels: (N,) column of each token; not that of the blank.
        backend: `"torchaudio"` or `"numpy"`, which give the same path; by default `"torchaudio"` if PyTorch is already
            imported, torchaudio is available and the audio is not too long, otherwise `"numpy"`.

    Returns:
        (N, 2) frames [start, end) of each token.

    Raises:
        ImportError: if `backend` is `"torchaudio"` and it is not installed.
        ValueError: if there are too few frames for the tokens.
    """
    repeats = int((labels[1:] == labels[:-1]).sum())
    if len(emissions) < len(labels) + repeats:
        raise ValueError(
            f"the text is too long for the audio: {len(labels)} tokens need at least {len(labels) + repeats} frames, "
            f"there are {len(emissions)}."
        )
    if not len(labels):
        return np.zeros((0, 2), np.int64)
    if backend is None:
        backend = "torchaudio" if len(emissions) * len(labels) <= _LARGE and _has_torchaudio() else "numpy"
    states = (_path_of_torchaudio if backend == "torchaudio" else _path_of_numpy)(emissions, labels)
    return _spans(states, len(labels))


def _spans(states: np.ndarray, count: int) -> np.ndarray:
    """(T',) index of the token emitted in each frame, -1 for the blank, -> (N, 2) frames."""
    frames = np.flatnonzero(states >= 0)
    tokens = states[frames]
    starts = np.searchsorted(tokens, np.arange(count))
    stops = np.searchsorted(tokens, np.arange(count), side="right")
    return np.stack([frames[starts], frames[stops - 1] + 1], axis=1)


def _has_torchaudio() -> bool:
    """Whether torchaudio is available without importing PyTorch, which recognisers of ONNX graphs do not need."""
    if "torch" not in sys.modules:
        return False
    try:
        return hasattr(importlib.import_module("torchaudio.functional"), "forced_align")
    except (ImportError, OSError, RuntimeError):  # the latter if built for another PyTorch
        return False


def _path_of_torchaudio(emissions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    import torch
    from torchaudio.functional import forced_align

    log_probs = torch.from_numpy(np.ascontiguousarray(emissions, np.float32))[None]
    path = forced_align(log_probs, torch.from_numpy(labels.astype(np.int64))[None], blank=BLANK)[0][0].numpy()
    begins = (path != BLANK) & (path != np.concatenate([[BLANK], path[:-1]]))
    return np.where(path == BLANK, -1, begins.cumsum() - 1)


class _Trellis:
    """
    Scores of the most likely paths to all states at one frame.

    States are a blank before each token, the tokens, and a blank at the end. Values are added in the same order as in
    torchaudio, to get the same rounding.
    """

    def __init__(self, labels: np.ndarray):
        self._labels = labels
        self._follows = np.where(labels[1:] != labels[:-1], 0, -np.inf).astype(np.float32)
        self.blanks = np.full(len(labels) + 1, -np.inf, np.float32)
        self.tokens = np.full(len(labels), -np.inf, np.float32)
        self.blanks[0] = 0  # before the first frame

    def copy(self) -> tuple[np.ndarray, np.ndarray]:
        return self.blanks.copy(), self.tokens.copy()

    def step(self, row: np.ndarray, blank_from: Any = None, token_from: Any = None) -> None:
        """
        Advance by one frame.

        Args:
            row: (C,) float32 log-probabilities of the frame.
            blank_from: (N + 1,) output, whether the best path to each blank comes from the token before it.
            token_from: (N,) output, by how many states the best path to each token advances.
        """
        from_blank, from_token = self.blanks[:-1], self.tokens[:-1] + self._follows
        tokens = np.maximum(self.tokens, from_blank)
        if token_from is not None:
            np.greater(from_blank, self.tokens, out=blank_from[1:])
            token_from[:] = blank_from[1:]
            token_from[1:][from_token > tokens[1:]] = 2
            np.greater(self.tokens, self.blanks[1:], out=blank_from[1:])
        np.maximum(tokens[1:], from_token, out=tokens[1:])
        np.maximum(self.blanks[1:], self.tokens, out=self.blanks[1:])
        self.blanks += row[BLANK]
        tokens += row[self._labels]
        self.tokens = tokens


def _path_of_numpy(emissions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find the path with back-pointers for only the square root of the frames: blocks are recomputed backwards."""
    frames, count = len(emissions), len(labels)
    block = 2 * math.isqrt(frames) + 1
    trellis = _Trellis(labels)
    saved = []
    for start in range(0, frames, block):
        saved.append(trellis.copy())
        for row in emissions[start : start + block].astype(np.float32):
            trellis.step(row)
    is_token = trellis.tokens[-1] >= trellis.blanks[-1]
    token = count - 1 if is_token else count  # or the blank before it
    states = np.empty(frames, np.int64)
    for start in reversed(range(0, frames, block)):
        trellis.blanks, trellis.tokens = saved.pop()
        rows = emissions[start : start + block].astype(np.float32)
        blank_from = np.zeros((len(rows), count + 1), bool)
        token_from = np.zeros((len(rows), count), np.uint8)
        for row, *pointers in zip(rows, blank_from, token_from, strict=True):
            trellis.step(row, *pointers)
        for frame in range(len(rows) - 1, -1, -1):
            states[start + frame] = token if is_token else -1
            if not is_token:
                is_token = bool(blank_from[frame, token])
                token -= is_token
            elif token_from[frame, token]:
                is_token = token_from[frame, token] == 2
                token -= is_token
    return states


__all__ = ["BLANK", "best_path"]
