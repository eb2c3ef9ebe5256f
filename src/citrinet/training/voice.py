"""
Another voice for an utterance: pitch, formants and tempo, each for itself.

Source: *Vocal Tract Length Perturbation (VTLP) improves speech recognition* (Jaitly & Hinton 2013).
"""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torchaudio.functional as F
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from ..feature_extraction_citrinet import CitrinetFeatureExtractor

KNEE = 0.85  # of Nyquist's frequency: formants lie below
LIKENESS = 0.1  # the part by which pitch and formants may change before age and gender of the voice are in doubt


@dataclass(frozen=True)
class Voice:
    """
    How an utterance is spoken, as factors of how it was.

    Args:
        speed: of the tape, which changes pitch, formants and tempo alike.
        pitch: of the fundamental frequency, beside that.
        formants: of the frequencies that tell vowels apart and grow as the vocal tract shortens, beside that.
        tempo: of the syllables in a second, beside that.
    """

    speed: float = 1.0
    pitch: float = 1.0
    formants: float = 1.0
    tempo: float = 1.0

    @property
    def is_like_the_speakers(self) -> bool:
        """Whether age and gender may still be heard: formants of men and women differ by some 15 %."""
        factors = self.speed * self.pitch, self.speed * self.formants
        return all(abs(factor - 1) <= LIKENESS + 1e-6 for factor in factors)

    def play(self, waveform: torch.Tensor, rate: int) -> torch.Tensor:
        """
        Resample, which gives speed and pitch; formants and tempo go with the pitch until [`hear`] corrects them.

        Args:
            waveform: (n,) float32.
            rate: Hz.

        Returns:
            (m,) float32, some n / (speed * pitch) samples.
        """
        factor = self.speed * self.pitch
        if factor == 1.0:
            return waveform
        # Whole hundreds have a factor in common with the rate, without which torchaudio takes seconds.
        played: torch.Tensor = F.resample(waveform, round(rate * factor / 100) * 100, rate)
        return played

    def hear(self, extractor: CitrinetFeatureExtractor) -> CitrinetFeatureExtractor:
        """
        A front end that hears in what is played formants and tempo of this voice, by its mel filters and its hop.

        Args:
            extractor: the network's front end.

        Returns:
            A copy; the front end itself if nothing is to be corrected.
        """
        if self.pitch == self.formants == self.tempo:
            return extractor
        changed = copy.copy(extractor)
        changed.mel_filters = warped_mel_filters(extractor, self.formants / self.pitch)
        # Rounded down: never fewer frames than the tempo leaves.
        changed.hop_length = int(extractor.hop_length * self.tempo / self.pitch + 1e-6)
        return changed


def warped_mel_filters(extractor: CitrinetFeatureExtractor, warp: float) -> npt.NDArray[np.float32]:
    """
    The mel filters of a front end, moved so that energy at a frequency f counts as energy at `warp` * f.

    Up to 85 % of Nyquist's frequency, before and after; from there on straight to Nyquist's, which stays in its place.

    Args:
        extractor: the front end.
        warp: above 1 a shorter vocal tract, below a longer one; 1 gives the front end's own filters.

    Returns:
        (n_fft // 2 + 1, feature_size) float32.
    """
    nyquist = extractor.sampling_rate / 2
    mels = np.linspace(hertz_to_mel(0.0, "slaney"), hertz_to_mel(nyquist, "slaney"), extractor.feature_size + 2)
    edges = np.asarray(mel_to_hertz(mels, "slaney"))
    knee = KNEE * nyquist * min(1.0, 1.0 / warp)
    bins = np.linspace(0.0, nyquist, extractor.n_fft // 2 + 1)
    bins = np.interp(bins, [0.0, knee, nyquist], [0.0, warp * knee, nyquist])
    rising = (bins[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins[:, None]) / np.diff(edges)[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float32] = (triangles * (2.0 / (edges[2:] - edges[:-2]))).astype(np.float32)
    return filters
