"""Another voice for an utterance: the warped mel bank."""

import numpy as np
import pytest

from citrinet import CitrinetFeatureExtractor
from citrinet.training.voice import warped_mel_filters

RATE = 16000


@pytest.mark.parametrize("options", [{}, {"sampling_rate": 8000, "n_fft": 256, "win_length": 200, "feature_size": 64}])
def test_no_warp_is_the_front_ends_own_bank(options):
    extractor = CitrinetFeatureExtractor(**options)
    filters = warped_mel_filters(extractor, 1.0)
    assert filters.dtype == np.float32 and filters.shape == extractor.mel_filters.shape
    np.testing.assert_allclose(filters, extractor.mel_filters, rtol=0, atol=1e-8)


def tone_peak(filters, hertz):
    """The mel bin that hears most of a tone."""
    extractor = CitrinetFeatureExtractor()
    extractor.mel_filters = filters
    tone = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
    return int(extractor.log_mel(tone).mean(1).argmax())


@pytest.mark.parametrize("warp", [0.8, 0.93, 1.1, 1.25])
@pytest.mark.parametrize("hertz", [500, 1300, 2700, 4200])
def test_a_tone_is_heard_where_the_warp_puts_it(warp, hertz):
    """At most a bin away from the tone of `warp` times the frequency through the unwarped bank."""
    extractor = CitrinetFeatureExtractor()
    expected = tone_peak(extractor.mel_filters, hertz * warp)
    found = tone_peak(warped_mel_filters(extractor, warp), hertz)
    assert abs(found - expected) <= 1
    assert found != tone_peak(extractor.mel_filters, hertz)


@pytest.mark.parametrize("warp", [0.5, 0.72, 1.38, 2.0])
def test_every_filter_hears_something_and_nyquist_stays(warp):
    extractor = CitrinetFeatureExtractor()
    filters = warped_mel_filters(extractor, warp)
    assert (filters.max(axis=0) > 0).all()
    assert filters[-2].argmax() == extractor.feature_size - 1
