"""Features of many waveforms together on a device are those of each on its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

import citrinet
from citrinet import CitrinetFeatureExtractor, feature_extraction_citrinet
from helpers import synthetic_speech

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))
TOLERANCE = 1e-5
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")),
]
# One frame, one more sample than half a window (from which on it can be reflected), parts of a hop, seconds.
SECONDS = [0.01, 0.016, 0.0161, 0.5, 1.7, 0.2, 3.003]


@pytest.fixture(scope="module")
def speech():
    return [citrinet.load_audio(str(path)) for path in EXAMPLES]


@pytest.fixture(params=["nemo-2.5", "nemo-2.4"])
def extractor(request):
    return CitrinetFeatureExtractor(frontend=request.param)


def both(extractor, waveforms, device):
    """Features and masks, alone and together."""
    alone = extractor(waveforms, return_tensors="pt")
    together = extractor(waveforms, return_tensors="pt", device=device)
    assert {tensor.device.type for tensor in together.values()} == {device}
    return alone, {name: tensor.cpu() for name, tensor in together.items()}


@pytest.mark.parametrize("device", DEVICES)
def test_together_as_alone(extractor, speech, device):
    waveforms = [synthetic_speech(seconds, seed) for seed, seconds in enumerate(SECONDS)] + speech
    alone, together = both(extractor, waveforms, device)
    torch.testing.assert_close(together["attention_mask"], alone["attention_mask"], rtol=0, atol=0)
    torch.testing.assert_close(together["input_features"], alone["input_features"], rtol=0, atol=TOLERANCE)
    assert not together["input_features"][together["attention_mask"] == 0].any()


@pytest.mark.parametrize("device", DEVICES)
def test_long_audio_in_blocks(extractor, device, monkeypatch):
    computed = []
    log_mel_block = CitrinetFeatureExtractor._log_mel_block

    def spy(self, emphasized):
        if emphasized.ndim == 2:
            frames = log_mel_block(self, emphasized)
            computed.append(frames.shape[0] * frames.shape[2])
            return frames
        return log_mel_block(self, emphasized)

    monkeypatch.setattr(CitrinetFeatureExtractor, "_log_mel_block", spy)
    monkeypatch.setattr(feature_extraction_citrinet, "BLOCK_FRAMES", 100)
    monkeypatch.setattr(feature_extraction_citrinet, "BATCH_FRAMES", 250)
    monkeypatch.setattr(feature_extraction_citrinet, "FRAMES_STEP", 10)
    waveforms = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([0.3, 7.3, 1.001, 0.9])]
    alone, together = both(extractor, waveforms, device)
    torch.testing.assert_close(together["input_features"], alone["input_features"], rtol=0, atol=TOLERANCE)
    assert len(computed) > 3 and max(computed) <= 250


@pytest.mark.parametrize("device", DEVICES)
def test_bands_that_hold_little(extractor, device):
    """
    In an empty band the mean is exact; in one that is nearly so, features are as exact as a float32 mean divided by
    its deviation. The logarithm that rounds differs on a GPU, and with it what is left in an empty band.
    """
    calls = [{"array": citrinet.load_audio(str(path), 8000), "sampling_rate": 8000} for path in EXAMPLES[:4]]
    telephone = [citrinet.load_audio(call) for call in calls]
    alone, together = both(extractor, telephone, device)
    empty = 0
    for index, samples in enumerate(telephone):
        log_mel = extractor.log_mel(samples)
        frames = log_mel.shape[1]
        is_empty = log_mel.amax(dim=1) - log_mel.amin(dim=1) < feature_extraction_citrinet.EMPTY_RANGE
        empty += int(is_empty.sum())
        away = (alone["input_features"] - together["input_features"])[index, :frames].abs().amax(dim=0)
        if device == "cpu":
            assert away[is_empty].max() < TOLERANCE
        assert (away < TOLERANCE + 4e-6 / log_mel.std(dim=1))[~is_empty].all()
        assert together["input_features"][index, :frames].mean(dim=0)[is_empty].abs().max() < 1e-3
    assert empty > 20, "the test would compare nothing"


def test_what_is_asked_of_padding_is_done_on_devices_too(extractor):
    waveforms = [synthetic_speech(0.5, 1), synthetic_speech(0.2, 2)]
    for asked in (
        {"padding": "max_length", "max_length": 64},
        {"padding": "max_length", "max_length": 32, "truncation": True},
        {"padding": "longest", "pad_to_multiple_of": 7},
        {"pad_to_multiple_of": 1},
        {"return_attention_mask": False},
    ):
        alone = extractor(waveforms, return_tensors="pt", **asked)
        together = extractor(waveforms, return_tensors="pt", device="cpu", **asked)
        assert together.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor, rtol=0, atol=TOLERANCE)
    arrays = extractor(waveforms, padding=False, device="cpu")["input_features"]
    for found, samples in zip(arrays, waveforms, strict=True):
        np.testing.assert_allclose(found, extractor.extract(samples), rtol=0, atol=TOLERANCE)


def test_a_single_frame_becomes_zero(extractor):
    found = extractor(synthetic_speech(0.01), return_tensors="pt", device="cpu")
    if extractor.frontend == "nemo-2.5":
        assert found["attention_mask"].sum() == 1
        assert not found["input_features"].any()


@pytest.mark.parametrize("samples", [np.zeros(50, np.float32), np.full(1000, np.nan, np.float32)])
def test_what_is_no_audio_is_refused_on_devices_too(extractor, samples):
    with pytest.raises(ValueError, match=r"at least 160|NaN"):
        extractor([synthetic_speech(0.5), samples], device="cpu")
