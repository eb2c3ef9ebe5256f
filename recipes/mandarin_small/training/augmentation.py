"""
Augmentation of speech in batches on the device: voice, room, noise and channel.

All random choices except noise samples are drawn in advance with NumPy, one entry per utterance ([`draw`]). Pitch
changes with the step at which samples are read, formants with the mel bank (VTLP, Jaitly and Hinton 2013), tempo with
the hop length, each independently.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from .features import warp_index

RATE = 16_000
HOP = 160
TAPS, PHASES = 8, 512  # of the filter that interpolates between samples
RESPONSE = 8_000  # samples of a room's impulse response
TINY = 1e-10
OFF = np.inf  # value of an effect that is not applied
EFFECTS = ("babble1", "babble2", "decay", "clip", "levels")  # computed only for the rows that have them
BANDS = 5  # of the equaliser

Numbers = dict[str, NDArray[Any]]


@dataclass
class Changes:
    """
    Augmentation parameters of B utterances.

    Args:
        numbers: name -> (B,). In samples: `gap` between the two recordings of a pair, `lead` of silence before them,
            `length` of the result; its `frames`; `warp`, an index in `WARPS`. `pitch`, the factor by which all
            frequencies rise; `hop`, samples from one frame to the next. `snr`, of a noise whose power falls as
            frequency to the power of `slope` and whose level varies by `flutter` nepers. `babble1` and `babble2`,
            signal-to-noise ratios of the next two utterances of the batch. `decay`, seconds in which a room's sound
            falls by 60 dB; `direct`, dB by which the direct sound is above it; `dull`, Hz above which it is damped.
            `eq1` ..., coefficients of the equaliser; `lowpass` and `highpass` in Hz; `gain` in dB; `clip`, a fraction
            of the peak; `levels` of mu-law coding on either side of 0.
        faithful: (B,), whether the voice is still like the speaker's.
    """

    numbers: Numbers
    faithful: NDArray[np.bool_]


def draw(
    rng: np.random.Generator,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    child: NDArray[np.float64],
    strength: float,
    clean: float,
) -> Changes:
    """
    Draw the augmentation of utterances.

    Args:
        rng: random number generator.
        first: (B,) samples of each utterance.
        second: (B,) samples of the utterance that is joined to it; 0 for none.
        child: (B,) pitch factor that turns the voice into a child's; 1 for no change.
        strength: from 0 to 1, frequency and amount of the augmentation.
        clean: fraction of utterances that hardly change.
    """
    count = len(first)
    kind, is_child = rng.random(count), child > 1
    untouched, strong = kind < clean, kind > 1 - 0.6 * strength

    def spread(strong_range: tuple[float, float], mild_range: tuple[float, float]) -> NDArray[np.float64]:
        mild = np.where(untouched, 0.0, rng.uniform(*mild_range, count))
        return np.where(strong & ~untouched, rng.uniform(*strong_range, count), mild)

    def some(share: float) -> NDArray[np.bool_]:
        return (rng.random(count) < share * strength) & ~untouched

    def at_times(share: float, low: float, high: float, otherwise: float = OFF) -> NDArray[np.float64]:
        return np.where(some(share), rng.uniform(low, high, count), otherwise)

    def silence() -> NDArray[np.int64]:
        seconds = np.where(untouched | (rng.random(count) > 0.6), 0.0, rng.uniform(0, 0.4, count))
        return (seconds * RATE).astype(np.int64)

    pitch = spread((-0.20, 0.20), (-0.03, 0.03))
    formants = spread((-0.16, 0.16), (-0.05, 0.05)) + np.where(strong, 0.4 * pitch, 0.0)
    # Synthetic voices are faster than people who read, so tempo falls more often than it rises.
    tempo = spread((-0.30, 0.15), (-0.18, 0.10))
    pitch = np.where(is_child, np.log(child) + rng.uniform(-0.06, 0.06, count), pitch)
    formants = np.where(is_child, np.log(child_formants(child)) + rng.uniform(-0.05, 0.05, count), formants)
    gap = np.where(second > 0, rng.uniform(0.05, 0.6, count) * RATE, 0).astype(np.int64)
    lead = silence()
    numbers = voice(first + gap + second, np.exp(pitch), np.exp(formants), np.exp(tempo), lead, silence())
    usual = np.where(untouched, rng.uniform(45, 70, count), rng.uniform(25, 60, count))
    noisy = some(0.4)
    numbers |= {
        "gap": gap,
        "snr": np.where(noisy, rng.uniform(4, 28, count), usual),
        "slope": rng.uniform(0, 2.2, count),
        "flutter": at_times(0.3, 0.2, 1.0, otherwise=0.0),
        "babble1": at_times(0.10, 8, 25),
        "babble2": at_times(0.06, 8, 25),
        "decay": at_times(0.3, 0.1, 0.7),
        "direct": rng.uniform(-2, 15, count),
        "dull": np.exp(rng.uniform(np.log(1_500), np.log(12_000), count)),
        "lowpass": at_times(0.15, 3_000, 7_000),
        "highpass": at_times(0.15, 60, 350, otherwise=1e-3),
        "gain": np.where(untouched, 0.0, rng.uniform(-18, 4, count)),
        "clip": at_times(0.05, 0.15, 0.6),
        "levels": np.where(some(0.06), rng.choice([16.0, 32.0, 64.0, 127.0], count), OFF),
    }
    equalised = some(0.5)
    for band in range(1, BANDS + 1):
        numbers[f"eq{band}"] = np.where(equalised, rng.normal(0, 0.5 / math.sqrt(band), count), 0.0)
    return Changes(numbers, is_child | ((np.abs(pitch) < 0.09) & (np.abs(formants) < 0.075)))


def voice(
    samples: NDArray[np.int64],
    pitch: NDArray[np.float64],
    formants: NDArray[np.float64],
    tempo: NDArray[np.float64],
    lead: NDArray[np.int64],
    trail: NDArray[np.int64],
) -> Numbers:
    """
    Parameters that change pitch, formants and tempo of speech by these factors, with silence around it.

    Reading samples faster already moves formants and shortens the speech: the mel bank moves formants by the rest, and
    the hop length corrects the tempo.

    Args:
        samples: (B,) of each recording.
        pitch: (B,) factors.
        formants: (B,) factors.
        tempo: (B,) factors.
        lead: (B,) samples of silence before the speech.
        trail: (B,) samples of silence after it.
    """
    length = np.floor(samples / pitch).astype(np.int64) + lead + trail
    hop = HOP * tempo / pitch
    frames, warp = np.floor(length / hop).astype(np.int64), warp_index(formants / pitch)
    return {"lead": lead, "length": length, "frames": frames, "warp": warp, "pitch": pitch, "hop": hop}


def child_formants(child: NDArray[np.float64]) -> NDArray[np.float64]:
    """Formant factor of a child for its pitch factor: half as much change, for a shorter vocal tract."""
    return 1 + (child - 1) / 2


class Augmenter:
    """
    Reads recordings and applies [`Changes`] to them.

    Args:
        device: device of the computation and of all tensors.
    """

    def __init__(self, device: torch.device):
        self.device = device
        offset = np.arange(TAPS)[None] - (TAPS // 2 - 1) - np.arange(PHASES + 1)[:, None] / PHASES
        taps = np.sinc(offset) * np.cos(np.pi * offset / TAPS).clip(0) ** 2
        self.taps = torch.from_numpy((taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)).to(device)

    def read(self, audio: torch.Tensor, numbers: dict[str, torch.Tensor], size: int) -> torch.Tensor:
        """
        Read one recording, or two with silence between them, at the given pitch.

        Args:
            audio: (n,) int16, all recordings, with `TAPS` zeros around each.
            numbers: `start1`, `length1`, `start2`, `length2` in `audio`, and those of [`Changes`].
            size: samples of the result.

        Returns:
            (B, size) float32, from -1 to 1.
        """
        places = torch.arange(size, device=self.device)
        place = (places - numbers["lead"][:, None]).double() * numbers["pitch"][:, None]
        index = place.floor()
        phase = ((place - index) * PHASES).round_().long()
        index = index.long()
        later = index - (numbers["length1"] + numbers["gap"])[:, None]
        in_first = (index >= 0) & (index < numbers["length1"][:, None])
        in_second = (later >= 0) & (later < numbers["length2"][:, None])
        source = torch.where(in_second, numbers["start2"][:, None] + later, numbers["start1"][:, None] + index)
        inside = (in_first | in_second) & (places < numbers["length"][:, None])
        source = torch.where(inside, source - (TAPS // 2 - 1), 0)
        waves = torch.zeros(source.shape, device=self.device)
        for tap in range(TAPS):
            waves.addcmul_(audio[source + tap].float(), self.taps[:, tap][phase])
        return waves * (inside / 32768.0)

    def __call__(
        self, audio: torch.Tensor, numbers: dict[str, torch.Tensor], rows: dict[str, torch.Tensor], size: int
    ) -> torch.Tensor:
        """
        Read and augment utterances; nothing is read back from the device.

        Args:
            audio: as in [`read`].
            numbers: as in [`read`].
            rows: effect (one of `EFFECTS`) -> indices of the utterances that have it.
            size: at least the largest `length`.

        Returns:
            (B, size) float32, zero after the end of each utterance.
        """
        waves = self.read(audio, numbers, size)
        inside = torch.arange(size, device=self.device) < numbers["length"][:, None]
        spoken = (numbers["length1"] + numbers["length2"]) / numbers["pitch"].float()
        power = waves.square().sum(dim=1) / spoken + TINY
        for name, distance in (("babble1", 1), ("babble2", 2)):
            at = rows[name]
            other = (at + distance) % len(waves)
            level = _amplitude(power[at] / power[other], numbers[name][at]).clamp(max=20.0)
            waves = waves.index_add(0, at, waves[other] * level[:, None])
        length = _transform_size(size + RESPONSE)
        noise = self._noise(numbers, size, length)
        noise_power = (noise.square() * inside).sum(dim=1) / numbers["length"]
        noise = noise * _amplitude(power / noise_power, numbers["snr"])[:, None]
        spectrum = torch.fft.rfft(waves, n=length)
        if len(at := rows["decay"]):
            spectrum = spectrum.index_put((at,), spectrum[at] * self._rooms(numbers, at, length))
        spectrum = (spectrum + torch.fft.rfft(noise, n=length)) * self._channel(numbers, length)
        waves = torch.fft.irfft(spectrum, n=length)[:, :size]
        for name, change in (("clip", _clipped), ("levels", _coded)):
            if len(at := rows[name]):
                waves = waves.index_put((at,), change(waves[at], numbers[name][at][:, None]))
        gained: torch.Tensor = waves * inside * 10 ** (numbers["gain"][:, None] / 20)
        return gained

    def _noise(self, numbers: dict[str, torch.Tensor], size: int, length: int) -> torch.Tensor:
        """(B, size): coloured noise whose level varies, with a new random level every quarter of a second."""
        frequency, batch = self._frequencies(length), len(numbers["slope"])
        spectrum = torch.randn(batch, len(frequency), dtype=torch.complex64, device=self.device)
        spectrum = spectrum * torch.exp(-0.5 * numbers["slope"][:, None] * (frequency + 60).log())
        wander = torch.randn(batch, 1, 2 + size // (RATE // 4), device=self.device)
        wander = F.interpolate(wander, size=size, mode="linear", align_corners=True)[:, 0]
        noise: torch.Tensor = torch.fft.irfft(spectrum, n=length)[:, :size]
        return noise * torch.exp(numbers["flutter"][:, None] * wander)

    def _rooms(self, numbers: dict[str, torch.Tensor], at: torch.Tensor, length: int) -> torch.Tensor:
        """(R, bins): the direct sound, a few reflections, and a tail that becomes denser and duller as it decays."""
        time = torch.arange(RESPONSE, device=self.device) / RATE
        tail = torch.randn(len(at), RESPONSE, device=self.device) * 10 ** (-3 * time / numbers["decay"][at][:, None])
        tail = tail * (torch.rand(tail.shape, device=self.device) < (time / 0.04).square()) * (time > 0.001)
        spectrum: torch.Tensor = torch.fft.rfft(tail, n=length)
        spectrum = spectrum * (1 + (self._frequencies(length) / numbers["dull"][at][:, None]).square()).rsqrt()
        power = 2 * torch.view_as_real(spectrum).square().sum(dim=(1, 2)) / length  # of the response's samples
        return 1 + spectrum * _amplitude(1 / (power + TINY), numbers["direct"][at])[:, None]

    def _channel(self, numbers: dict[str, torch.Tensor], length: int) -> torch.Tensor:
        """(B, bins) gains: a smooth curve, and the band limits of a telephone or a small microphone."""
        frequency = self._frequencies(length)
        bands = torch.arange(1, BANDS + 1, device=self.device)
        curve = torch.cos(math.pi * bands[:, None] * (frequency / frequency[-1]).sqrt())
        gain = torch.stack([numbers[f"eq{band}"] for band in range(1, BANDS + 1)], dim=1) @ curve
        octave = (frequency + 1).log()
        gain = gain - 0.5 * F.softplus(16 * (octave - numbers["lowpass"][:, None].log()))
        return torch.exp(gain - 0.5 * F.softplus(6 * (numbers["highpass"][:, None].log() - octave)))

    def _frequencies(self, length: int) -> torch.Tensor:
        return torch.linspace(0, RATE / 2, length // 2 + 1, device=self.device)


def _amplitude(ratio: torch.Tensor, decibels: torch.Tensor) -> torch.Tensor:
    """The factor that brings the second of two powers, given their ratio, to `decibels` below the first."""
    return torch.sqrt(ratio * 10 ** (-decibels / 10))


def _clipped(waves: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    limit = waves.abs().amax(dim=1, keepdim=True) * part
    return waves.clamp(-limit, limit)


def _coded(waves: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Encode in mu-law (ITU-T G.711) with a number of levels on either side of 0, and decode."""
    peak = waves.abs().amax(dim=1, keepdim=True) + TINY
    coded = (waves / peak).sign() * (torch.log1p(255 * (waves / peak).abs()) / math.log(256) * levels).round() / levels
    return coded.sign() * torch.expm1(coded.abs() * math.log(256)) / 255 * peak


def _transform_size(size: int) -> int:
    """Round up to one of a few sizes with factors of 2, 3 and 5, so that FFT plans are reused."""
    sizes = [factor << power for factor in (8, 9, 10, 12, 15) for power in range(8, 20)]
    return min(fitting for fitting in sizes if fitting >= size)
