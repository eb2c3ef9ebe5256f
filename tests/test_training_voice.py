"""Another voice for an utterance: pitch, formants and tempo, each without the others."""

import numpy as np
import pytest
import torch

from citrinet import CitrinetFeatureExtractor, CitrinetProcessor
from citrinet.training import Augmentation
from citrinet.training.data import UNKNOWN, SpeechDataset
from citrinet.training.selection import Example
from citrinet.training.voice import Voice, warped_mel_filters
from helpers import synthetic_speech, write_wav
from tiny_models import tiny_tokenizer

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


# What is heard


PERIOD, FORMANT = 100, 2000  # samples of the fundamental, 160 Hz; Hz


def vowel(seconds=2.0):
    """Pulses, each of which rings at one formant: pitch, formant and length can be measured one by one."""
    ring = np.arange(400) / RATE
    response = np.exp(-300 * ring) * np.sin(2 * np.pi * FORMANT * ring)
    pulses = np.zeros(round(seconds * RATE))
    pulses[::PERIOD] = 1
    return np.convolve(pulses, response)[: len(pulses)].astype(np.float32)


def measure(voice):
    """Period in samples, the loudest mel bin, and how many frames."""
    extractor = CitrinetFeatureExtractor()
    played = voice.play(torch.from_numpy(vowel()), RATE).numpy()
    correlation = np.correlate(played[:4000], played[:4000], "full")[4000 - 1 :]
    log_mel = voice.hear(extractor).log_mel(played)
    return 60 + int(correlation[60:180].argmax()), int(log_mel[:, 20:-20].mean(1).argmax()), log_mel.shape[1]


def formant_bin(hertz):
    return tone_peak(CitrinetFeatureExtractor().mel_filters, hertz)


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_pitch_formants_and_tempo_change_without_one_another(factor):
    """The period within a sample, the formant within two bins of some 3 %, the frames within one in a hundred."""
    for voice in (Voice(pitch=factor), Voice(formants=factor), Voice(tempo=factor), Voice(speed=factor)):
        period, peak, frames = measure(voice)
        assert period == pytest.approx(PERIOD / (voice.speed * voice.pitch), abs=1), voice
        assert abs(peak - formant_bin(FORMANT * voice.speed * voice.formants)) <= 2, voice
        assert frames == pytest.approx(200 / (voice.speed * voice.tempo), rel=0.01), voice
    assert abs(formant_bin(FORMANT * factor) - formant_bin(FORMANT)) > 3


def test_no_change_is_the_front_end_itself():
    extractor, waveform = CitrinetFeatureExtractor(), torch.from_numpy(vowel(0.1))
    assert Voice().hear(extractor) is extractor and Voice(0.9).hear(extractor) is extractor
    assert Voice().play(waveform, RATE) is waveform
    changed = Voice(pitch=1.1).hear(extractor)
    assert (extractor.hop_length, changed.hop_length) == (160, 145)
    assert np.array_equal(extractor.mel_filters, CitrinetFeatureExtractor().mel_filters)


# What a recipe draws


def test_voices_are_within_their_ranges_and_as_frequent_as_asked():
    augmentation = Augmentation(voice_probability=0.5, pitch=(0.85, 1.2), formants=(0.9, 1.1), tempo=(0.7, 1.3))
    voices = [augmentation.draw_voice(np.random.default_rng(seed)) for seed in range(2000)]
    changed = [voice for voice in voices if voice != Voice()]
    assert 900 < len(changed) < 1100
    for name, low, high in (("pitch", 0.85, 1.2), ("formants", 0.9, 1.1), ("tempo", 0.7, 1.3)):
        values = np.log([getattr(voice, name) for voice in changed])
        assert np.log(low) <= values.min() < np.log(low) + 0.01 and np.log(high) - 0.01 < values.max() <= np.log(high)
        assert abs(values.mean() - (np.log(low) + np.log(high)) / 2) < 0.02
    logs = np.log([[voice.pitch, voice.formants, voice.tempo] for voice in changed])
    assert np.abs(np.corrcoef(logs.T) - np.eye(3)).max() < 0.15


def test_without_ranges_nothing_is_drawn_but_the_speed():
    """Recipes without them train as they did before there were any."""
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    voice = Augmentation((0.9, 1.0, 1.1)).draw_voice(ours)
    assert voice == Voice(float(theirs.choice((0.9, 1.0, 1.1)))) and ours.random() == theirs.random()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1.0),
        ({"speeds": (0.9, 1.1)}, 1.1),
        ({"speeds": (0.9, 1.1), "tempo": (0.8, 1.2)}, 1.32),
        ({"speeds": (0.9, 1.1), "tempo": (0.8, 0.9)}, 1.1),
        ({"tempo": (0.8, 1.2), "voice_probability": 0.0}, 1.0),
    ],
)
def test_the_fastest_that_an_utterance_becomes(options, expected):
    assert Augmentation(**options).max_tempo == pytest.approx(expected)


@pytest.mark.parametrize(
    ("voice", "alike"),
    [
        (Voice(), True),
        (Voice(speed=0.9), True),
        (Voice(speed=1.1), True),
        (Voice(tempo=0.6), True),
        (Voice(pitch=1.15), False),
        (Voice(formants=0.88), False),
        (Voice(speed=1.1, formants=1.05), False),
        (Voice(speed=0.9, pitch=1.1, formants=1.1), True),
    ],
)
def test_when_age_and_gender_are_still_heard(voice, alike):
    assert voice.is_like_the_speakers is alike


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    path = write_wav(tmp_path_factory.mktemp("voice") / "a.wav", synthetic_speech(1.0))
    return [Example(path, "今天", 1.0, {"GENDER": "F", "AGE": "OLD", "DIALECT": "NORTH"})] * 20


def test_labels_of_age_and_gender_are_unknown_where_the_voice_is_another(examples):
    """Which utterances these are follows from seed, pass and index alone, with variants and without."""
    labels = {"GENDER": ["NONE", "F"], "AGE": ["NONE", "OLD"], "DIALECT": ["NONE", "NORTH"]}
    augmentation = Augmentation(voice_probability=0.5, pitch=(1.3, 1.4))
    processor = CitrinetProcessor(CitrinetFeatureExtractor(), tiny_tokenizer("char"))
    for variants in (0, 2):
        data = SpeechDataset(examples, processor, labels, augmentation, seed=3, variants=variants)
        data.epoch = 5
        version = data.epoch % variants if variants else data.epoch
        rngs = [np.random.default_rng((3, version, index)) for index in range(20)]
        changed = [augmentation.draw_voice(rng).pitch != 1 for rng in rngs]
        tags = [data[index]["tag_labels"] for index in range(20)]
        assert 3 < sum(changed) < 17
        assert [tag["GENDER"] for tag in tags] == [UNKNOWN if other else 1 for other in changed]
        assert [tag["AGE"] for tag in tags] == [tag["GENDER"] for tag in tags]
        assert {tag["DIALECT"] for tag in tags} == {1}


def test_variants_keep_the_voices_that_they_were_made_with(examples, tmp_path):
    processor = CitrinetProcessor(CitrinetFeatureExtractor(), tiny_tokenizer("char"))
    augmentation = Augmentation(pitch=(0.85, 1.2), formants=(0.9, 1.1), tempo=(0.8, 1.2), noise_probability=0.5)
    anew = SpeechDataset(examples, processor, augmentation=augmentation)
    kept = SpeechDataset(examples, processor, augmentation=augmentation, variants=2, cache=tmp_path)
    for epoch in (0, 1, 2, 3):
        anew.epoch, kept.epoch = epoch % 2, epoch
        for index in range(3):
            ours, theirs = kept[index]["input_features"], anew[index]["input_features"]
            np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert len(list(tmp_path.glob("*/*.npy"))) == 6
    assert len({anew[index]["input_features"].shape[0] for index in range(20)}) > 5
