"""What several test files use."""

import numpy as np


def synthetic_speech(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """
    Chirps in bursts over a little noise: (n,) float32 in [-1, 1], the same for the same seed.

    Not speech, but like it in that its spectrum moves all the time, so that a model writes something and a mistake in
    the features or the padding shows.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    samples = 0.01 * rng.standard_normal(len(time))
    for _ in range(4):
        low, rise, burst, phase = rng.uniform([100, 50, 2, 0], [1500, 900, 6, 2 * np.pi])
        envelope = np.clip(np.sin(2 * np.pi * burst * time + phase), 0, None)
        samples += 0.15 * envelope * np.sin(2 * np.pi * (low + rise * np.sin(time)) * time)
    return np.clip(samples, -1, 1).astype(np.float32)
