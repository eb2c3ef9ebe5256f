"""
Change the voice of an utterance: pitch, formants and tempo independently.

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

KNEE = 0.85  # fraction of the Nyquist frequency; formants lie below
LIKENESS = 0.1  # relative change of pitch and formants above which age and gender labels are in doubt


@dataclass(frozen=True)
class Voice:
    """
    Change of a voice, as factors relative to the recording.

    Args:
        speed: playback speed, which changes pitch, formants and tempo alike.
        pitch: fundamental frequency, in addition to `speed`.
        formants: formant frequencies, which rise as the vocal tract shortens, in addition to `speed`.
        tempo: syllables per second, in addition to `speed`.
    """

    speed: float = 1.0
    pitch: float = 1.0
    formants: float = 1.0
    tempo: float = 1.0

    @property
    def is_like_the_speakers(self) -> bool:
        """Whether age and gender labels still apply: formants of men and women differ by about 15 %."""
        factors = self.speed * self.pitch, self.speed * self.formants
        return all(abs(factor - 1) <= LIKENESS + 1e-6 for factor in factors)

    def play(self, waveform: torch.Tensor, rate: int) -> torch.Tensor:
        """
        Resample for speed and pitch; formants and tempo change with the pitch until [`hear`] corrects them.

        Args:
            waveform: (n,) float32.
            rate: sampling rate in Hz.

        Returns:
            (m,) float32, about n / (speed * pitch) samples.
        """
        factor = self.speed * self.pitch
        if factor == 1.0:
            return waveform
        # Rounded to hundreds for a common divisor with the rate, without which torchaudio takes seconds.
        played: torch.Tensor = F.resample(waveform, round(rate * factor / 100) * 100, rate)
        return played

    def hear(self, extractor: CitrinetFeatureExtractor) -> CitrinetFeatureExtractor:
        """
        Make a front end whose mel filters and hop length give the played waveform the formants and tempo of this voice.

        Args:
            extractor: the network's front end.

        Returns:
            A changed copy; the front end itself if nothing needs correction.
        """
        if self.pitch == self.formants == self.tempo:
            return extractor
        changed = copy.copy(extractor)
        changed.mel_filters = warped_mel_filters(extractor, self.formants / self.pitch)
        # Rounded down, so that there are never fewer frames than the tempo implies.
        changed.hop_length = int(extractor.hop_length * self.tempo / self.pitch + 1e-6)
        return changed


def warped_mel_filters(extractor: CitrinetFeatureExtractor, warp: float) -> npt.NDArray[np.float32]:
    """
    Warp the mel filters of a front end, so that energy at a frequency f counts as energy at `warp` * f.

    This holds as long as both frequencies are below 85 % of the Nyquist frequency; above, the warping is linear up to
    the Nyquist frequency, which does not move.

    Args:
        extractor: the front end.
        warp: factor, above 1 for a shorter vocal tract, below 1 for a longer one; 1 gives the front end's own filters.

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
