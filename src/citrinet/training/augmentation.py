"""Augmentation of waveforms: voice, room, noise. Augmentation of features (SpecAugment) is in the model."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torchaudio.functional as F
from pydantic import Field

from .voice import Voice

Probability = Annotated[float, Field(ge=0, le=1)]
SMALLEST, LARGEST = 0.5, 2.0  # limits of the factors of a voice


@dataclass(frozen=True)
class Augmentation:
    """
    Random augmentation of waveforms in training. The defaults change nothing.

    Args:
        speeds: speed factors, one of which is drawn; pitch and formants change with the speed, as with a tape.
        voice_probability: probability that pitch, formants and tempo change, each independently by a factor drawn from
            its range.
        pitch: range of the pitch factor, such as [0.85, 1.2].
        formants: range of the formant factor (vocal tract length perturbation), such as [0.88, 1.14].
        tempo: range of the tempo factor, such as [0.8, 1.15].
        noise_probability: probability that noise is added.
        noise_snr_db: range of the signal-to-noise ratio in dB. The noise is between white and brown.
        room_probability: probability that a room is simulated by convolution with exponentially decaying noise.
        room_decay_s: range of the reverberation time in seconds, in which the room's sound falls by 60 dB.
    """

    speeds: tuple[float, ...] = (1.0,)
    voice_probability: Probability = 1.0
    pitch: tuple[float, float] = (1.0, 1.0)
    formants: tuple[float, float] = (1.0, 1.0)
    tempo: tuple[float, float] = (1.0, 1.0)
    noise_probability: Probability = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    room_probability: Probability = 0.0
    room_decay_s: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        if not self.speeds or min(self.speeds) <= 0:
            raise ValueError(f"`speeds` must be positive factors such as [0.9, 1.0, 1.1], got {list(self.speeds)}.")
        for name in ("pitch", "formants", "tempo"):
            low, high = getattr(self, name)
            if not SMALLEST <= low <= high <= LARGEST:
                raise ValueError(
                    f"`{name}` must be a range of factors from {SMALLEST} to {LARGEST} such as [0.9, 1.1], got "
                    f"{[low, high]}."
                )

    @property
    def max_tempo(self) -> float:
        """The largest tempo factor an utterance can get, which leaves the fewest frames."""
        return max(self.speeds) * (max(1.0, self.tempo[1]) if self.voice_probability else 1.0)

    def draw_voice(self, rng: np.random.Generator) -> Voice:
        """Draw the voice of an utterance, before any other random choice."""
        speed = float(rng.choice(self.speeds))
        ranges = (self.pitch, self.formants, self.tempo)
        if all(low == high == 1.0 for low, high in ranges) or rng.random() >= self.voice_probability:
            return Voice(speed)
        pitch, formants, tempo = (math.exp(rng.uniform(math.log(low), math.log(high))) for low, high in ranges)
        return Voice(speed, pitch, formants, tempo)

    def __call__(
        self, samples: np.ndarray, rate: int, rng: np.random.Generator, voice: Voice | None = None
    ) -> np.ndarray:
        """
        Augment one waveform.

        Args:
            samples: (n,) float32.
            rate: sampling rate in Hz.
            rng: random number generator; the same state gives the same result.
            voice: result of [`draw_voice`] with the same `rng`, by default drawn here. Its formants and tempo are
                applied by the front end of [`Voice.hear`].

        Returns:
            (m,) float32; the length differs if speed or pitch changed.
        """
        voice = voice or self.draw_voice(rng)
        waveform = voice.play(torch.from_numpy(samples), rate)
        if rng.random() < self.room_probability:
            waveform = _in_room(waveform, rng.uniform(*self.room_decay_s), rate, rng)
        if rng.random() < self.noise_probability:
            noise = _coloured_noise(len(waveform), rng.uniform(0, 2), rng)
            waveform = F.add_noise(waveform, noise, torch.tensor(rng.uniform(*self.noise_snr_db)))
        return waveform.numpy()


def _in_room(waveform: torch.Tensor, decay_s: float, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Add a diffuse tail that is 0 to 15 dB weaker than the direct sound."""
    time = np.arange(1, int(decay_s * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum())
    response = torch.from_numpy(np.concatenate([[1.0], tail]).astype(np.float32))
    echoed: torch.Tensor = F.fftconvolve(waveform, response)
    return echoed[: len(waveform)]


def _coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> torch.Tensor:
    """Noise whose power falls as frequency to the power of `slope`: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    spectrum[0] = 0
    return torch.from_numpy(np.fft.irfft(spectrum, samples).astype(np.float32))
