"""The recipe's third step: speech in the device's memory, augmentation, features, batches, the run and what it leaves."""

import itertools
import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional as AF
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from citrinet import CitrinetFeatureExtractor, load_audio, load_recognizer
from citrinet.cli import main as transcribe
from citrinet.manifest import read_manifest
from citrinet.tokenizer.training import train_tokenizer
from citrinet.training.voice import warped_mel_filters
from mandarin_small.__main__ import main
from mandarin_small.speech.fetch import fetch
from mandarin_small.training import loop, splices, train
from mandarin_small.training.augmentation import EFFECTS, OFF, RATE, TAPS, Augmenter, draw, voice
from mandarin_small.training.batches import Loader, Planner, PlanStream, plain_plan
from mandarin_small.training.data import REAL, SYNTHETIC, UNKNOWN, Corpus, Labels, Recording, read_recordings
from mandarin_small.training.features import WARPS, FrontEnd, warp_index
from mandarin_small.training.options import Options
from mandarin_small.training.schedule import Clock, Schedule
from mandarin_small.training.splices import FADE, Voice, find_cuts, join, splice
from mandarin_small.training.syllables import usual_readings
from mandarin_small.utterance import Utterance, write_utterances
from mandarin_small.utterance import spoken as characters

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[1] / "examples"
CHARACTERS = "今天北京的气怎么样播放一首好听歌明早上七点叫我起床海温是二十五度"
PLAIN = {"snr": 200.0, "slope": 1.0, "flutter": 0.0, "direct": 5.0, "dull": 4000.0, "highpass": 1e-3, "gain": 0.0}


def sentences(count):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(CHARACTERS), rng.integers(3, 8))) for _ in range(count)]
    return [text if i % 3 else f"播放ENTITY_SONG_NAME{text}END" for i, text in enumerate(texts)]


def tone(text, rng):
    """A pitch for each character, a quarter of a second long, in a little noise."""
    parts = [
        np.sin(2 * np.pi * (200 + 50 * CHARACTERS.index(c)) * np.arange(4000) / RATE) for c in text if c in CHARACTERS
    ]
    return (3000 * np.concatenate(parts) + rng.normal(0, 30, 4000 * len(parts))).astype(np.int16)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(1)
    recordings = [
        Recording(
            "held" if i % 10 == 0 else SYNTHETIC,
            tone(text, rng),
            text,
            {"GENDER": ["GENDER_MALE", "GENDER_FEMALE"][i % 2]},
            1.1 if i % 7 == 0 else 1.0,
        )
        for i, text in enumerate(sentences(60))
    ]
    texts = [recording.text for recording in recordings]
    return Corpus.of(recordings, Labels(train_tokenizer(texts, 100, "char", add_dummy_prefix=False), texts), CPU)


def numbers_of(lengths, **changes):
    """What [`Augmenter`] takes, for recordings of these lengths one after the other that are left alone but for `changes`."""
    lengths = np.array(lengths, np.int64)
    zero = np.zeros(len(lengths), np.int64)
    numbers = voice(
        lengths,
        np.full(len(lengths), changes.pop("pitch", 1.0)),
        np.ones(len(lengths)),
        np.ones(len(lengths)),
        zero,
        zero,
    )
    starts = TAPS + np.cumsum(lengths + TAPS) - (lengths + TAPS)
    numbers |= {"gap": zero, "start1": starts, "length1": lengths, "start2": zero, "length2": zero}
    real = PLAIN | dict.fromkeys([*EFFECTS, "lowpass"], OFF) | {f"eq{band}": 0.0 for band in range(1, 6)} | changes
    numbers |= {name: np.full(len(lengths), value) for name, value in real.items()}
    rows = {name: torch.from_numpy(np.flatnonzero(np.isfinite(numbers[name]))) for name in EFFECTS}
    tensors = {name: torch.from_numpy(values) for name, values in numbers.items()}
    return {
        name: value.float() if value.is_floating_point() and name != "pitch" else value
        for name, value in tensors.items()
    }, rows


def on_tape(*waves):
    silence = np.zeros(TAPS, np.int16)
    parts = [part for wave in waves for part in (wave, silence)]
    return torch.from_numpy(np.concatenate([silence, *parts]))


def noise(samples, seed=0, band=(100, 4000)):
    """Noise of some frequencies alone, as int16."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum[(frequency < band[0]) | (frequency > band[1])] = 0
    wave = np.fft.irfft(spectrum, samples)
    return (wave / np.abs(wave).max() * 20000).astype(np.int16)


def augmented(waves, **changes):
    numbers, rows = numbers_of([len(wave) for wave in waves], **changes)
    size = int(numbers["length"].max())
    torch.manual_seed(0)
    return Augmenter(CPU)(on_tape(*waves), numbers, rows, size)


# Features


def test_features_are_those_of_the_extractor():
    extractor, front_end = CitrinetFeatureExtractor(), FrontEnd(CitrinetFeatureExtractor(), CPU)
    waves = [noise(16000, 1), noise(23456, 2), noise(4000, 3, band=(20, 8000))]
    lengths = torch.tensor([len(wave) for wave in waves])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(w / np.float32(32768)) for w in waves], batch_first=True)
    features, mask = front_end(padded, lengths, lengths // 160, int(lengths.max()) // 160)
    expected = extractor([wave / np.float32(32768) for wave in waves], return_tensors="pt")
    assert torch.equal(mask, expected["attention_mask"].bool())
    torch.testing.assert_close(features, expected["input_features"], atol=1e-3, rtol=0)
    same = torch.full((3,), len(WARPS) // 2)
    warped, _ = front_end(padded, lengths, lengths // 160, int(lengths.max()) // 160, torch.full((3,), 160.0), same)
    torch.testing.assert_close(warped, features, atol=1e-3, rtol=0)


def test_a_band_of_nothing_but_rounding_becomes_zero():
    wave = torch.from_numpy(noise(32000, 4, band=(100, 2000)) / np.float32(32768))[None]
    wave = torch.fft.irfft(torch.fft.rfft(wave) * (torch.arange(16001) < 3000), n=32000)  # silent above 1.5 kHz
    features, _ = FrontEnd(CitrinetFeatureExtractor(), CPU)(wave, torch.tensor([32000]), torch.tensor([200]), 200)
    assert features[0, 10:190, 70:].abs().max() < 0.1


def test_a_warped_bank_moves_formants_and_a_hop_changes_tempo():
    extractor = CitrinetFeatureExtractor()
    front_end = FrontEnd(extractor, CPU)
    np.testing.assert_array_equal(front_end.banks[len(WARPS) // 2], extractor.mel_filters)
    assert [warp_index(warp) for warp in (1.0, 0.5, 2.0)] == [len(WARPS) // 2, 0, len(WARPS) - 1]
    index = int(warp_index(1.2))
    np.testing.assert_array_equal(front_end.banks[index], warped_mel_filters(extractor, float(WARPS[index])))
    wave = torch.from_numpy(noise(16000) / np.float32(32768))[None]
    twice = front_end(wave, torch.tensor([16000]), torch.tensor([50]), 50, torch.tensor([320.0]))[0]
    once = front_end(wave, torch.tensor([16000]), torch.tensor([100]), 100)[0]
    # Every other frame, but for the statistics by which both are normalised.
    correlation = torch.corrcoef(torch.stack([twice[0, :50].flatten(), once[0, :100:2].flatten()]))[0, 1]
    assert correlation > 0.99


def test_another_front_end_is_refused():
    with pytest.raises(ValueError, match=r"nemo-2\.5"):
        FrontEnd(CitrinetFeatureExtractor(frontend="nemo-2.4"), CPU)


# Augmentation


def test_untouched_speech_is_what_was_recorded():
    waves = [noise(16000), noise(9999, 1)]
    numbers, _ = numbers_of([len(wave) for wave in waves])
    read = Augmenter(CPU).read(on_tape(*waves), numbers, 16000)
    for row, wave in zip(read, waves, strict=True):
        np.testing.assert_allclose(row[: len(wave)], wave / 32768, atol=1e-6)
        assert not row[len(wave) :].any()
    np.testing.assert_allclose(augmented(waves), read, atol=1e-5)  # with all effects switched off


def test_reading_faster_is_resampling():
    wave = noise(32000)
    numbers, _ = numbers_of([32000], pitch=1.25)
    read = Augmenter(CPU).read(on_tape(wave), numbers, 25600)[0]
    expected = AF.resample(torch.from_numpy(wave / np.float32(32768)), 20000, 16000, lowpass_filter_width=64)[:25600]
    inner = slice(200, 25400)
    assert (read - expected)[inner].square().mean() < 1e-4 * expected[inner].square().mean()  # 40 dB


def test_pairs_have_silence_between_and_before_them():
    waves = [noise(8000), noise(8000, 1)]
    numbers, _ = numbers_of([8000])
    numbers |= {"start2": torch.tensor([2 * TAPS + 8000]), "length2": torch.tensor([8000]), "gap": torch.tensor([1600])}
    numbers |= {"lead": torch.tensor([800]), "length": torch.tensor([18400])}
    read = Augmenter(CPU).read(on_tape(*waves), numbers, 20000)[0]
    silence = np.zeros(1600)
    expected = np.concatenate([silence[:800], waves[0] / 32768, silence, waves[1] / 32768, silence])
    np.testing.assert_allclose(read, expected, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_noise_has_the_ratio_and_the_colour_that_were_asked_for(slope):
    wave = noise(32000, band=(200, 3000))
    added = (augmented([wave, wave], snr=10.0, slope=slope) - torch.from_numpy(wave / np.float32(32768))).numpy()
    power = np.square(wave / 32768).mean()
    np.testing.assert_allclose(10 * np.log10(power / np.square(added).mean(axis=1)), 10.0, atol=0.1)
    spectrum = np.square(np.abs(np.fft.rfft(added))).mean(axis=0)
    frequency = np.fft.rfftfreq(32000, 1 / RATE)
    bands = [spectrum[(frequency > low) & (frequency < 1.2 * low)].mean() for low in (1000, 4000)]
    assert abs(10 * np.log10(bands[0] / bands[1]) - slope * 10 * np.log10(4)) < 1.0


def test_others_talk_at_the_level_that_was_asked_for():
    waves = [noise(16000, seed) for seed in range(3)]
    clean = torch.from_numpy(np.stack(waves) / np.float32(32768))
    added = augmented(waves, babble1=12.0) - clean
    for row in range(3):
        other = clean[(row + 1) % 3]
        factor = (added[row] @ other) / (other @ other)
        torch.testing.assert_close(added[row], factor * other, atol=1e-4, rtol=0)
        ratio = 10 * torch.log10(clean[row].square().mean() / added[row].square().mean())
        assert abs(ratio - 12.0) < 0.1


def test_a_room_dies_away_as_fast_and_is_as_loud_as_asked_for():
    click = np.zeros(16000, np.int16)
    click[2000] = 30000
    response = augmented([click] * 40, decay=0.3, direct=3.0, dull=1e6, snr=300.0).numpy()[:, 2000:] / (30000 / 32768)
    np.testing.assert_allclose(response[:, 0], 1.0, atol=1e-3)
    tail = np.square(response[:, 1:8000]).mean(axis=0)
    assert abs(10 * np.log10(tail.sum()) + 3.0) < 0.3
    fall = [10 * np.log10(tail[start : start + 400].mean()) for start in (1600, 3200)]
    assert abs(fall[0] - fall[1] - 60 * 0.1 / 0.3) < 2.0  # dB in a tenth of a second


def test_filters_take_away_what_is_outside_of_the_band():
    wave = noise(32000, band=(20, 7900))
    before, after = (
        np.abs(np.fft.rfft(row)) for row in (wave / 32768, augmented([wave], lowpass=3000.0, highpass=300.0)[0].numpy())
    )
    frequency = np.fft.rfftfreq(32000, 1 / RATE)

    def gain(low, high):
        band = (frequency > low) & (frequency < high)
        return 10 * np.log10(np.square(after[band]).sum() / np.square(before[band]).sum())

    assert abs(gain(800, 1500)) < 1.0 and gain(6000, 7500) < -40 and gain(30, 60) < -12


def test_clipping_coding_and_gain():
    wave = noise(16000)
    clean = wave / np.float32(32768)
    clipped = augmented([wave], clip=0.5, gain=-6.0)[0].numpy() / 10 ** (-6 / 20)
    np.testing.assert_allclose(
        clipped, np.clip(clean, -0.5 * np.abs(clean).max(), 0.5 * np.abs(clean).max()), atol=1e-4
    )
    coded = augmented([wave], levels=127.0)[0].numpy() / np.abs(clean).max()
    expected = AF.mu_law_decoding(AF.mu_law_encoding(torch.from_numpy(clean / np.abs(clean).max()), 256), 256).numpy()
    assert len(np.unique(coded.round(6))) <= 255
    # Its levels lie half a step from those of torchaudio, and a step is 4.4 % there.
    assert np.abs(coded - expected).max() < 0.045
    assert np.square(coded - expected).mean() < 1e-3 * np.square(expected).mean()


def test_what_is_drawn_stays_within_what_can_be_computed():
    rng = np.random.default_rng(0)
    lengths, child = rng.integers(8000, 80000, 2000), np.where(rng.random(2000) < 0.1, 1.3, 1.0)
    changes = draw(rng, lengths, np.where(rng.random(2000) < 0.1, 8000, 0), child, 1.0, 0.1)
    numbers = changes.numbers
    assert all(len(values) == 2000 for values in numbers.values())
    assert numbers["warp"].min() >= 0 and numbers["warp"].max() < len(WARPS)
    seconds = numbers["frames"] / 100 / ((numbers["length"] - numbers["lead"]) / RATE)
    assert 0.5 < np.median(seconds) < 2 and (numbers["frames"] > 0).all()
    assert changes.faithful[child > 1].all() and 0.3 < changes.faithful.mean() < 0.8
    weak = draw(np.random.default_rng(0), lengths, np.zeros(2000, np.int64), np.ones(2000), 0.0, 0.0).numbers
    assert not any(np.isfinite(weak[name]).any() for name in EFFECTS)


# Data and batches


@pytest.mark.slow
def test_a_manifest_becomes_recordings_with_marks(tmp_path):
    lines = [
        ("a", 16000, "明天早上七点叫我起床", {"gender": "GENDER_MALE", "speaker": "x"}),
        ("b", 8000, "abc", {}),
        ("c", 9000, "播放ENTITY_SONG_NAME好歌END", {}),
    ]
    for name, samples, _, _ in lines:
        soundfile.write(tmp_path / f"{name}.flac", noise(samples), RATE)
    manifest = tmp_path / "real.jsonl"
    manifest.write_text(
        "".join(
            json.dumps({"audio_filepath": f"{name}.flac", "text": text, **more}) + "\n" for name, _, text, more in lines
        )
    )
    recordings = read_recordings(manifest, REAL)
    assert [recording.text for recording in recordings] == [lines[0][2], lines[2][2]]
    np.testing.assert_array_equal(recordings[0].samples, noise(16000))
    assert (recordings[0].tags, recordings[0].speaker) == ({"GENDER": "GENDER_MALE"}, "x")
    marked = [train._marked(recording).text for recording in recordings]
    assert marked == ["ENTITY_TIME早上七点END".join(["明天", "叫我起床"]), lines[2][2]]
    soundfile.write(tmp_path / "a.flac", noise(1600), RATE)
    with pytest.raises(ValueError, match="shorter than"):
        read_recordings(manifest, REAL)


def test_the_corpus_holds_every_sample_and_label(corpus):
    rng = np.random.default_rng(1)
    waves = [tone(text, rng) for text in corpus.texts]
    for index in (0, 7, 59):
        start = corpus.starts[index]
        np.testing.assert_array_equal(corpus.audio[start : start + corpus.lengths[index]], waves[index])
        assert not corpus.audio[start - TAPS : start].any()
    assert corpus.tag_labels["GENDER"] == ["NONE", "GENDER_FEMALE", "GENDER_MALE"]
    assert corpus.validation_sets() == ["held"] and len(corpus.members("held")) == 6
    batch = Loader(corpus, CitrinetFeatureExtractor())(plain_plan(corpus, np.array([3, 1])), augment=False)
    assert batch.features.shape[0] == 2 and batch.tags["GENDER"].tolist() == [1, 1]
    spoken = [characters(corpus.texts[index]) for index in (3, 1)]
    assert batch.syllable_lengths.tolist() == [len(text) for text in spoken]
    markers = [2 * ("ENTITY" in corpus.texts[index]) for index in (3, 1)]
    assert batch.token_lengths.tolist() == [len(text) + more for text, more in zip(spoken, markers, strict=True)]
    np.testing.assert_array_equal(batch.frames, corpus.lengths[[3, 1]] // 160)


def test_readings_follow_the_context_where_most_do():
    readings = usual_readings(["音乐", "音乐会", "快乐", "听音乐", "银行", "行"])
    assert (readings["乐"], readings["音"], readings["行"]) == ("yue4", "yin1", "hang2")


def test_batches_are_full_and_of_similar_length(corpus):
    planner = Planner(corpus, Schedule(), 20.0, 4, seed=3)
    plans = planner.chunk(0.5)
    assert len(plans) > 20
    for plan in plans:
        frames = plan.numbers["frames"]
        assert frames.max() * len(plan) <= 2000
        needed = plan.numbers["token_length1"] + plan.numbers["token_length2"]
        assert (-(-frames // 4) > needed).all()
    padded = sum(plan.numbers["frames"].max() * len(plan) for plan in plans) / 100
    assert sum(plan.seconds for plan in plans) > 0.8 * padded
    held = corpus.starts[corpus.members("held")]
    assert not any(np.isin(plan.numbers["start1"], held).any() for plan in plans)
    assert any((plan.numbers["length2"] > 0).any() for plan in plans)
    early = planner.chunk(0.0)
    assert max(plan.numbers["length1"].max() for plan in early) < max(plan.numbers["length1"].max() for plan in plans)
    assert not any(plan.numbers["length2"].any() for plan in early)


def test_each_utterance_comes_once_before_any_comes_again(corpus):
    planner, members = Planner(corpus, Schedule(), 2.0, 4), corpus.members(SYNTHETIC)
    drawn = np.concatenate([planner._draw(SYNTHETIC, 0.5, np.random.default_rng(0)) for _ in range(10)])
    for start in range(0, len(drawn) - len(members), len(members)):
        assert sorted(drawn[start : start + len(members)]) == sorted(members)


def test_unlike_voices_and_pairs_have_no_gender(corpus):
    plans = Planner(corpus, Schedule(), 20.0, 4).chunk(0.5)
    genders, seconds = (np.concatenate([plan.numbers[name] for plan in plans]) for name in ("GENDER", "length2"))
    assert (genders[seconds > 0] == UNKNOWN).all()
    assert 0.2 < (genders == UNKNOWN).mean() < 0.8


def test_a_stream_goes_on_where_its_state_was_taken(corpus):
    def take(stream, count):
        return [int(stream.next(0.01 * step).numbers["frames"].sum()) for step in range(count)]

    whole = PlanStream(Planner(corpus, Schedule(), 5.0, 4))
    per_chunk = len(whole._plans)
    before = take(whole, per_chunk + 3)
    state = json.loads(json.dumps(whole.state_dict()))
    after = take(whole, 2 * per_chunk)
    again = PlanStream(Planner(corpus, Schedule(), 5.0, 4), state)
    assert take(again, 2 * per_chunk) == after and before != after
    whole.close()
    again.close()


# The run


def speak(folder, utterances):
    """What the step before leaves, but for the voice."""
    rng = np.random.default_rng(2)
    waves = [tone(utterance.text, rng) for utterance in utterances]
    lengths = np.array([len(wave) for wave in waves])
    index = np.zeros(len(waves), [("id", np.int64), ("start", np.int64), ("length", np.int64)])
    index["id"], index["length"] = [utterance.id for utterance in utterances], lengths
    index["start"] = np.cumsum(lengths) - lengths
    folder.mkdir(parents=True)
    np.concatenate(waves).tofile(folder / "audio.int16")
    np.save(folder / "index.npy", index)


@pytest.fixture
def out(tmp_path):
    for name, first, count, group in (("train", 0, 40, None), ("heldout", 900, 6, "catalogue")):
        utterances = [
            Utterance(
                first + i, text, "", (("zf", 1.0),), 1.0, 1.0, "NONE", "GENDER_FEMALE", "DIALECT_NORTH", "test", group
            )
            for i, text in enumerate(sentences(count))
        ]
        write_utterances(tmp_path / "text" / f"{name}.jsonl.gz", utterances)
        speak(tmp_path / "speech" / name, utterances)
    return tmp_path


def options(out, **changes):
    return Options(out, **{"steps": 6, "size": "tiny", "batch_seconds": 6.0, "device": "cpu", **changes})


@pytest.mark.slow
def test_a_run_leaves_a_model_a_log_and_a_picture(out, capsys):
    assert train.run(options(out))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert {"tokens", "syllables", "tags", "gradient", "rate", "steps_per_second"} <= lines[0].keys()
    scores = [line for line in lines if "validation" in line]
    assert [line["step"] for line in scores] == [5, 6]
    assert set(scores[0]["validation"]) == {"catalogue"} and scores[0]["validation"]["catalogue"]["recordings"] == 6
    assert (out / "log.png").read_bytes().startswith(b"\x89PNG")
    recognizer = load_recognizer(str(out / "model"))
    wave = tone("今天", np.random.default_rng(0)) / np.float32(32768)
    assert recognizer.tag_labels["GENDER"] == ["NONE", "GENDER_FEMALE"]
    assert isinstance(recognizer(wave)["transcript"], str)
    assert (out / "model" / "preprocessor_config.json").exists()
    config = json.loads((out / "model" / "config.json").read_text())
    assert (config["freq_masks"], config["time_masks"]) == (0, 0)
    weights = load_file(out / "model" / "model.safetensors")
    matrices = {name for name, weight in weights.items() if weight.dtype == torch.float16}
    assert matrices == {name for name, weight in weights.items() if weight.ndim > 1} and len(weights) > len(matrices)
    assert not list(out.glob(".*")) and not (out / "training.pt").exists()
    capsys.readouterr()
    assert train.run(options(out)) and "remove it to train again" in capsys.readouterr().out


def stop_after(monkeypatch, steps):
    """A signal in the middle of a step."""
    take = loop.Training._take_step

    def take_step(self, progress, stream):
        if self.step == steps - 1:
            signal.raise_signal(signal.SIGTERM)
        take(self, progress, stream)

    monkeypatch.setattr(loop.Training, "_take_step", take_step)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(out, tmp_path_factory, monkeypatch, capsys):
    other = tmp_path_factory.mktemp("other") / "out"
    shutil.copytree(out, other)
    assert train.run(options(out, steps=20, batch_seconds=3.0))
    stop_after(monkeypatch, 10)
    assert not train.run(options(other, steps=20, batch_seconds=3.0))
    assert "stopped after 10 steps" in capsys.readouterr().out
    load_recognizer(str(other / "model"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="of a run with other steps"):
        train.run(options(other, steps=30))
    assert train.run(options(other, steps=20, batch_seconds=3.0))
    assert "going on after 10 steps" in capsys.readouterr().out
    whole, parts = load_file(out / "model" / "model.safetensors"), load_file(other / "model" / "model.safetensors")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (out, other)]
    assert [(line["step"], line.get("loss"), line.get("validation")) for line in logs[0]] == [
        (line["step"], line.get("loss"), line.get("validation")) for line in logs[1]
    ]


class NothingReadBack(TorchDispatchMode):
    """Forbids what would make a GPU's host wait: numbers of tensors, and shapes that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "repeat_interleave")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in self.WAITS, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
def test_a_step_reads_nothing_back(out):
    training = loop.Training(options(out), *train.prepare(options(out)))
    stream = PlanStream(Planner(training.corpus, training.schedule, 20.0, 4))
    with pytest.raises(AssertionError, match="waits for the device"), NothingReadBack():
        torch.ones(1).item()
    for progress in (0.0, 0.5):
        with NothingReadBack():
            training._take_step(progress, stream)
    stream.close()
    assert training.step == 2


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    for arguments, message in (
        (["training", tmp_path], "give --seconds or --steps"),
        (["all", tmp_path, "--steps", "1", "--size", "huge"], "there is no size 'huge'"),
        (["training", tmp_path, "--steps", "1"], "holds no speech"),
    ):
        assert main([str(argument) for argument in arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and message in lines[0]


def test_the_schedule():
    schedule, clock = Schedule(), Clock(None, 20)
    rates = [schedule.rate(progress) for progress in np.linspace(0, 1, 101)]
    assert max(rates) == schedule.learning_rate and rates[0] > 0 and rates[-1] < 1e-9
    assert np.argmax(rates) == 6 and rates[25] == schedule.learning_rate and (np.diff(rates[25:]) <= 0).all()
    assert [schedule.is_early(progress) for progress in (0, 0.059, 0.06)] == [True, True, False]
    assert [clock.progress(step) for step in (0, 5, 20, 30)] == [0.0, 0.25, 1.0, 1.0]
    assert Clock(100.0, None, elapsed=200.0).progress(0) == 1.0


@pytest.mark.parametrize("name", ["real", "catalogue"])
def test_a_validation_set_is_not_mixed_up_with_another(out, name):
    with pytest.raises(ValueError, match=f"there is a set {name} already"):
        train.prepare(options(out, validation=[out / f"{name}.jsonl"]))


# Splices


def test_a_voice_says_what_it_has_in_runs_as_long_as_there_are():
    voice = Voice({}, "a")
    wave = np.arange(1000, dtype=np.int16)
    voice.add(wave, ["jin1", "tian1", "tian1", "qi4"], [100, 200, 300, 400, 500])
    voice.add(wave, ["qi4", "hao3"], [0, 50, 90])
    pieces = voice.say(["jin1", "tian1", "hao3"], random.Random(0))
    assert [(piece[0], piece[-1] + 1) for piece in pieces] == [(100, 300), (50, 90)]
    assert voice.say(["jin1", "huai4"], random.Random(0)) is None
    assert voice.say(["hao3", "jin1", "qi4", "hao3", "jin1"] * 2, random.Random(0)) is not None
    assert voice.say(["hao3", "hao3"] * 10, random.Random(0)) is None  # each alone


def test_pieces_blend():
    a, b = np.full(1000, 1000, np.int16), np.full(500, -1000, np.int16)
    joined = join([a, b])
    assert len(joined) == 1340 and (joined[:840] == 1000).all() and (joined[1000:] == -1000).all()
    assert (np.diff(joined[840:1000].astype(int)) <= 0).all()


@pytest.mark.slow
def test_characters_are_found_where_recordings_were_joined():
    clips = [entry for entry in read_manifest(EXAMPLES / "clips.jsonl") if entry.text]
    waves = [(load_audio(entry.segment) * 32767).astype(np.int16) for entry in clips]
    recordings = [Recording(REAL, *pair, {}) for pair in zip(waves, [characters(e.text) for e in clips], strict=True)]
    found = list(find_cuts(recordings, CPU))
    for recording, cuts in zip(recordings, found, strict=True):
        assert len(cuts) == len(recording.text) + 1 and cuts == sorted(cuts)
        assert cuts[0] >= 0 and cuts[-1] <= len(recording.samples)
    joined, borders, counts = [], [], []
    for (a, first), (b, second) in itertools.pairwise(zip(recordings, found, strict=True)):
        samples = np.concatenate([a.samples[: first[-1]], b.samples[second[0] :]])
        joined.append(Recording(REAL, samples, a.text + b.text, {}))
        borders.append(first[-1])
        counts.append(len(a.text))
    later = [cuts[count] - border for cuts, count, border in zip(find_cuts(joined, CPU), counts, borders, strict=True)]
    assert np.abs(later).max() < 0.1 * RATE


@pytest.mark.slow
def test_sentences_are_said_with_pieces_of_recordings(monkeypatch):
    monkeypatch.setattr(splices, "FEWEST", 2)
    cuts = {"今天天气好": [0, 4000, 8000, 12000, 16000, 20000], "天气不好": [0, 4000, 8000, 12000, 16000]}
    monkeypatch.setattr(
        splices, "find_cuts", lambda recordings, device: (cuts[recording.text] for recording in recordings)
    )
    recordings = [
        Recording(REAL, noise(len(c) * 4000), text, {"GENDER": "GENDER_MALE"}, speaker="a") for text, c in cuts.items()
    ]
    made = splice(recordings, ["今天ENTITY_SONG_NAME不好END", "你是谁", "好"], 5, CPU)
    assert 0 < len(made) <= 5 and {one.text for one in made} == {"今天ENTITY_SONG_NAME不好END"}
    assert {len(one.samples) for one in made} == {4 * 4000 - FADE} and made[0].tags == {"GENDER": "GENDER_MALE"}


# All three steps


@pytest.mark.slow
def test_from_nothing_to_a_model_that_transcribes(tmp_path, capsys):
    try:
        fetch()
    except OSError as error:
        pytest.skip(str(error))
    command = ["all", str(tmp_path), "--sentences", "20", "--limit", "3", "--steps", "3", "--size", "tiny"]
    assert main(command) == 0
    assert "3 steps" in capsys.readouterr().out
    assert transcribe(["transcribe", "--model", str(tmp_path / "model"), "--json", str(EXAMPLES / "bus.flac")]) == 0
    assert "transcript" in json.loads(capsys.readouterr().out)
    assert main(command) == 0 and "trained already" in capsys.readouterr().out
