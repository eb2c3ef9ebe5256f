"""Any audio in, mono float32 at 16 kHz out, or one clear error."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from citrinet import CitrinetFeatureExtractor, load_audio, resampling_citrinet
from citrinet.audio_citrinet import Resampler, resample
from helpers import synthetic_speech

SPEECH = synthetic_speech(1.0)


def encoded(samples, rate=16000, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def correlation(a, b):
    length = min(len(a), len(b))
    return float(np.corrcoef(a[:length], b[:length])[0, 1])


@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", None), ("mp3", None)])
def test_files_and_bytes(suffix, tolerance, tmp_path):
    content = encoded(SPEECH, format=suffix.upper())
    path = tmp_path / f"speech.{suffix}"
    path.write_bytes(content)
    for source in (path, str(path), content):
        samples = load_audio(source)
        assert samples.dtype == np.float32 and samples.ndim == 1
        if tolerance:
            assert np.abs(samples - SPEECH).max() < tolerance
        else:
            assert correlation(samples, SPEECH) > 0.95


def test_m4a_with_ffmpeg(ffmpeg, tmp_path):
    wav, m4a = tmp_path / "speech.wav", tmp_path / "speech.m4a"
    wav.write_bytes(encoded(SPEECH, format="WAV"))
    subprocess.run([ffmpeg, "-v", "error", "-i", wav, m4a], check=True)
    for source in (m4a, m4a.read_bytes()):
        assert correlation(load_audio(source), SPEECH) > 0.95


def test_m4a_without_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install ffmpeg"):
        load_audio(b"\0\0\0\x20ftypM4A " + bytes(100))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_sampling_rates(rate, tmp_path):
    seconds = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "tone.wav", tone, rate)
    for source in (tmp_path / "tone.wav", {"array": tone, "sampling_rate": rate}, {"raw": tone, "sampling_rate": rate}):
        samples = load_audio(source)
        assert len(samples) == 16000
        assert np.abs(samples[200:-200] - expected[200:-200]).max() < 5e-3


@pytest.mark.parametrize(
    "samples",
    [
        (SPEECH * 32767).round().astype(np.int16),
        (SPEECH.astype(np.float64) * (2**31 - 1)).round().astype(np.int32),
        SPEECH.astype(np.float64),
        SPEECH.tolist(),
        torch.from_numpy(SPEECH),
        torch.from_numpy((SPEECH * 32767).round().astype(np.int16)),
        np.stack([SPEECH, SPEECH]),
        np.stack([SPEECH, SPEECH], axis=1),
        SPEECH[None],
        SPEECH[:, None],
    ],
    ids=["int16", "int32", "float64", "list", "tensor", "int16 tensor", "(2, n)", "(n, 2)", "(1, n)", "(n, 1)"],
)
def test_arrays(samples):
    assert np.abs(load_audio(samples) - SPEECH).max() < 1e-4


def test_uint8_and_half_precision():
    assert np.abs(load_audio((SPEECH * 127 + 128).round().astype(np.uint8)) - SPEECH).max() < 1e-2
    assert np.abs(load_audio(torch.from_numpy(SPEECH).bfloat16()) - SPEECH).max() < 1e-2


def test_every_integer_is_scaled_alike():
    """Silence, and both ends of the scale."""
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        info = np.iinfo(dtype)
        samples = load_audio(np.array([info.min, (info.max >> 1) + 1 if info.min == 0 else 0, info.max] * 4, dtype))
        assert samples[0] == -1.0 and samples[1] == 0.0
        assert 1 - samples[2] <= 2.0 ** (1 - info.bits)


def test_rates_without_a_common_factor_take_little_memory():
    """A bank of filters for each pair of rates would take gigabytes here."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for rate in (15999, 44056, 96001):
        tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)
        samples = load_audio({"array": tone, "sampling_rate": rate})
        expected = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
        assert len(samples) == 32000
        assert np.abs(samples[200:-200] - expected[200:-200]).max() < 5e-3
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 200e6


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44056, 48000])
def test_a_resampler_of_pieces_gives_what_one_of_the_whole_does(rate):
    samples = np.random.default_rng(0).uniform(-1, 1, 3 * rate).astype(np.float32)
    resampler = Resampler(rate, 16000)
    pieces = [resampler(samples[start : start + 1234]) for start in range(0, len(samples), 1234)]
    joined = np.concatenate([*pieces, resampler(samples[:0], last=True)])
    assert np.array_equal(joined, resample(samples, rate, 16000))


def test_without_soxr(monkeypatch):
    monkeypatch.setattr(resampling_citrinet, "soxr", None)
    assert np.array_equal(load_audio(SPEECH), SPEECH)
    with pytest.raises(ImportError, match="pip install soxr"):
        load_audio({"array": SPEECH, "sampling_rate": 8000})
    with pytest.raises(ImportError, match="pip install soxr"):
        load_audio(encoded(SPEECH, 8000, format="WAV"))


def test_stereo_is_averaged(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.stack([SPEECH, -SPEECH], axis=1), 16000)
    assert np.abs(load_audio(tmp_path / "stereo.wav")).max() < 1e-4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (b"", "empty"),
        ([], "empty"),
        (np.zeros((100, 100)), "shape"),
        (np.zeros((2, 3, 100)), "shape"),
        (np.array(["a", "b"]), "numbers"),
        (np.zeros(100, np.int64), "full scale"),
        ({"array": SPEECH}, "sampling_rate"),
        ({"sampling_rate": 16000}, "array"),
        ({"array": SPEECH, "sampling_rate": 0}, "positive"),
        ({"array": SPEECH, "sampling_rate": -8000}, "positive"),
        ({"array": SPEECH, "sampling_rate": 44100.5}, "whole"),
        ({"array": SPEECH, "sampling_rate": float("nan")}, "positive"),
        ({"array": SPEECH, "sampling_rate": "16 kHz"}, "positive"),
        ({"array": SPEECH, "sampling_rate": 16}, "1000 to 768000 Hz"),
        ({"array": SPEECH, "sampling_rate": 4_000_000_000}, "1000 to 768000 Hz"),
        ({"bytes": None, "path": None}, '"bytes" or "path"'),
        ({"bytes": b"", "path": "x.wav"}, "empty"),
        (None, "numbers"),
        (b"RIFF but not really a wav file", "not an audio format|neither"),
    ],
)
def test_refuses(source, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)


def test_refuses_paths(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        load_audio(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "nothing.wav")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(1, np.float32), "at least 160"),
        (np.zeros(159, np.float32), "at least 160"),
        (np.full(1600, np.nan, np.float32), "NaN"),
        (np.array([0.0] * 999 + [np.inf]), "NaN or infinite"),
    ],
)
def test_features_refuse(samples, message):
    with pytest.raises(ValueError, match=message):
        CitrinetFeatureExtractor()(samples, sampling_rate=16000)


def test_features_refuse_another_rate():
    with pytest.raises(ValueError, match="resample"):
        CitrinetFeatureExtractor()(SPEECH, sampling_rate=8000)
    with pytest.raises(ValueError, match="frontend"):
        CitrinetFeatureExtractor(frontend="kaldi")


@pytest.mark.parametrize("samples", [160, 161, 319, 320, 512])
def test_the_shortest_audio(samples):
    features = CitrinetFeatureExtractor()(SPEECH[:samples], sampling_rate=16000, return_tensors="np")
    assert features["input_features"].shape == (1, 16, 80)
    assert features["attention_mask"].sum() == samples // 160
    assert np.isfinite(features["input_features"]).all()


def test_a_two_dimensional_array_is_a_batch():
    extractor = CitrinetFeatureExtractor()
    batch = extractor(np.stack([SPEECH, SPEECH[::-1]]), sampling_rate=16000, return_tensors="np")["input_features"]
    alone = extractor(SPEECH, sampling_rate=16000, return_tensors="np")["input_features"]
    assert batch.shape[0] == 2
    assert np.array_equal(batch[0], alone[0])
