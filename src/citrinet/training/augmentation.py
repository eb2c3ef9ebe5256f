"""Augmentation of waveforms: speed, room, noise. What belongs to features (SpecAugment) is in the model."""

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio.functional as F


@dataclass(frozen=True)
class Augmentation:
    """
    What may happen to a waveform in training. The defaults change nothing.

    Args:
        speeds: factors of speed, one of which is drawn; pitch and formants change with it, as with a tape.
        noise_probability: how often noise is added.
        noise_snr_db: range of the signal-to-noise ratio. The noise is between white and brown.
        room_probability: how often the voice is put in a room: convolved with exponentially decaying noise.
        room_decay_s: range of the time in which the room's sound falls by 60 dB.
    """

    speeds: tuple[float, ...] = (1.0,)
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    room_probability: float = 0.0
    room_decay_s: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        if not self.speeds or min(self.speeds) <= 0:
            raise ValueError(f"`speeds` must be positive factors such as [0.9, 1.0, 1.1], got {list(self.speeds)}.")

    def __call__(self, samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        """
        Augment one waveform.

        Args:
            samples: (n,) float32.
            rate: Hz.
            rng: where the chance comes from; the same state gives the same result.

        Returns:
            (m,) float32; another length if the speed changed.
        """
        waveform = torch.from_numpy(samples)
        speed = float(rng.choice(self.speeds))
        if speed != 1.0:
            waveform = F.resample(waveform, round(rate * speed / 100) * 100, rate)
        if rng.random() < self.room_probability:
            waveform = _in_room(waveform, rng.uniform(*self.room_decay_s), rate, rng)
        if rng.random() < self.noise_probability:
            noise = _coloured_noise(len(waveform), rng.uniform(0, 2), rng)
            waveform = F.add_noise(waveform, noise, torch.tensor(rng.uniform(*self.noise_snr_db)))
        return waveform.numpy()


def _in_room(waveform: torch.Tensor, decay_s: float, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """The direct sound and a diffuse tail that is 0 to 15 dB weaker."""
    time = np.arange(1, int(decay_s * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum())
    response = torch.from_numpy(np.concatenate([[1.0], tail]).astype(np.float32))
    echoed: torch.Tensor = F.fftconvolve(waveform, response)
    return echoed[: len(waveform)]


def _coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> torch.Tensor:
    """Noise whose power falls with frequency to the power of `slope`: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    spectrum[0] = 0
    return torch.from_numpy(np.fft.irfft(spectrum, samples).astype(np.float32))
