"""
Another voice for an utterance: pitch, formants and tempo, each for itself.

Source: *Vocal Tract Length Perturbation (VTLP) improves speech recognition* (Jaitly & Hinton 2013).
"""

import numpy as np
import numpy.typing as npt
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from ..feature_extraction_citrinet import CitrinetFeatureExtractor

KNEE = 0.85  # of Nyquist's frequency: formants lie below


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
