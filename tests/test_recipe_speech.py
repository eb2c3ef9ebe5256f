"""The recipe's second step: Kokoro in PyTorch against its ONNX file, and what becomes of its speech."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
import torch.nn.functional as F

from citrinet.manifest import read_manifest
from mandarin_small.speech import fetch as fetching
from mandarin_small.speech import speak as speaking
from mandarin_small.speech.fetch import fetch, kokoro_folder
from mandarin_small.speech.layers import AdaIN, Conv1d, ConvTranspose1d, SnakeBlock, StyledBlock
from mandarin_small.speech.prompts import Prompts
from mandarin_small.speech.recordings import like_a_child, write_recordings
from mandarin_small.speech.sound import finish
from mandarin_small.speech.speak import Options, run, speak
from mandarin_small.speech.store import SpeechStore, SpeechWriter
from mandarin_small.speech.voice import load_voice
from mandarin_small.utterance import Utterance, write_utterances

PHONEMES = ("tʰjɛ→nʨʰi↘ xə↓nxau↓.", "ni↓xau↓", "i↘ ʂou↓ kɤ→.")  # 天气很好, 你好, 一首歌
VOICES = ((("zf_xiaobei", 0.6), ("af_heart", 0.4)), (("zm_yunxi", 1.0),), (("zf_xiaoyi", 1.0),))


def an_utterance(number=0, **changes):
    columns = {
        "id": number,
        "text": "你好",
        "phonemes": PHONEMES[number % 3],
        "voice": VOICES[number % 3],
        "speed": (1.0, 1.1, 0.9)[number % 3],
        "child": 1.0,
        "age": "NONE",
        "gender": "GENDER_FEMALE",
        "dialect": "DIALECT_NORTH",
        "source": "test",
    }
    return Utterance(**columns | changes)


# Folders of speech


def test_what_is_written_is_read(tmp_path):
    pieces = {number: np.arange(number, number + 5 * number, dtype=np.int16) for number in (7, 3, 12)}
    with SpeechWriter(tmp_path / "speech") as writer:
        for number, piece in pieces.items():
            writer.append(number, piece)
    store = SpeechStore(tmp_path / "speech")
    assert len(store) == 3 and 7 in store and 8 not in store
    assert all(np.array_equal(store[number], piece) for number, piece in pieces.items())
    assert np.array_equal(
        np.fromfile(tmp_path / "speech" / "audio.int16", np.int16), np.concatenate([*pieces.values()])
    )


def test_a_folder_without_speech_is_empty(tmp_path):
    with SpeechWriter(tmp_path):
        pass
    assert len(SpeechStore(tmp_path)) == 0


def test_half_written_samples_are_cut_off(tmp_path):
    with SpeechWriter(tmp_path) as writer:
        writer.append(1, np.full(10, 1, np.int16))
    with (tmp_path / "audio.int16").open("ab") as file:
        file.write(b"\x05" * 7)
    with SpeechWriter(tmp_path) as writer:
        assert writer.ids == {1} and writer.samples == 10
        writer.append(2, np.full(4, 2, np.int16))
    store = SpeechStore(tmp_path)
    assert store[1].tolist() == [1] * 10 and store[2].tolist() == [2] * 4
    assert (tmp_path / "audio.int16").stat().st_size == 28


def test_utterances_without_their_samples_are_forgotten(tmp_path):
    with SpeechWriter(tmp_path) as writer:
        writer.append(1, np.full(10, 1, np.int16))
        writer.append(2, np.full(10, 2, np.int16))
    with (tmp_path / "audio.int16").open("r+b") as file:
        file.truncate(30)
    with SpeechWriter(tmp_path) as writer:
        assert writer.ids == {1}
    assert (tmp_path / "audio.int16").stat().st_size == 20


# Speaking


class Counting:
    """Speaks an utterance as ten times its id, two at a time; says nothing for negative ones."""

    def __init__(self, then=None):
        self.spoken, self._then = 0, then

    def speak(self, utterances):
        for start in range(0, len(utterances), 2):
            if self._then and start == 4:
                self._then()
            batch = utterances[start : start + 2]
            self.spoken += len(batch)
            yield [(u, np.full(10, u.id, np.int16) if u.id >= 0 else None) for u in batch]


def the_same_as_spoken_at_once(folder, numbers):
    store = SpeechStore(folder)
    assert sorted(store.index["id"]) == sorted(numbers)
    return all(store[number].tolist() == [number] * 10 for number in numbers)


def test_everything_is_spoken_once(tmp_path, capsys):
    utterances = [an_utterance(number) for number in range(9)]
    assert speak(utterances[:5], tmp_path, Counting())
    again = Counting()
    assert speak(utterances, tmp_path, again)
    assert again.spoken == 4 and the_same_as_spoken_at_once(tmp_path, range(9))
    assert "9 utterances" in capsys.readouterr().out


def test_what_cannot_be_spoken_is_named(tmp_path, capsys):
    assert speak([an_utterance(number) for number in (-4, 1, -2)], tmp_path, Counting())
    assert "silent or too long: -4, -2" in capsys.readouterr().out
    assert SpeechStore(tmp_path).index["id"].tolist() == [1]


def test_the_clock_stops_it(tmp_path, capsys):
    assert not speak([an_utterance(number) for number in range(9)], tmp_path, Counting(), end=0.0)
    assert len(SpeechStore(tmp_path)) == 2 and "7 are left" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(tmp_path):
    utterances = [an_utterance(number) for number in range(9)]

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        speak(utterances, tmp_path, Counting(interrupt))
    assert the_same_as_spoken_at_once(tmp_path, range(4))
    assert speak(utterances, tmp_path, Counting())
    assert the_same_as_spoken_at_once(tmp_path, range(9))


def test_a_terminated_run_goes_on(tmp_path):
    utterances = [an_utterance(number) for number in range(9)]
    with pytest.raises(SystemExit, match="143"), speaking.unwinding_when_terminated():
        speak(utterances, tmp_path, Counting(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert speak(utterances, tmp_path, Counting())
    assert the_same_as_spoken_at_once(tmp_path, range(9))


KILLS_ITSELF = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from mandarin_small.speech import speak
from test_recipe_speech import Counting, an_utterance
speak._SAVE_EVERY = 0.0
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
speak.speak([an_utterance(number) for number in range(9)], Path(sys.argv[1]), Counting(die))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    tests = Path(__file__).parent
    command = [sys.executable, "-c", KILLS_ITSELF, str(tmp_path), str(tests.parent / "recipes"), str(tests)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert the_same_as_spoken_at_once(tmp_path, range(4))
    assert speak([an_utterance(number) for number in range(9)], tmp_path, Counting())
    assert the_same_as_spoken_at_once(tmp_path, range(9))


# Sound


def a_tone(seconds, before, after, frequency=440.0, level=0.3, rate=24_000):
    time = np.arange(round(seconds * rate)) / rate
    tone = level * np.sin(2 * np.pi * frequency * time)
    return np.concatenate([np.zeros(round(before * rate)), tone, np.zeros(round(after * rate))]).astype(np.float32)


def finished(*waves):
    lengths = [len(wave) for wave in waves]
    rows = [np.pad(wave, (0, max(lengths) - len(wave)), constant_values=0.7) for wave in waves]
    return finish(torch.tensor(np.array(rows)), lengths)


def test_silence_is_cut_to_150_ms():
    short, long = finished(a_tone(0.5, 0.05, 0.1), a_tone(1.0, 0.6, 0.9))
    assert len(short) == 0.65 * 16_000  # what comes after a row's end is not heard
    assert len(long) == pytest.approx(1.3 * 16_000, abs=160)  # two blocks
    assert np.abs(long[:2_240]).max() < 100 < np.abs(long[2_600:2_700]).max()


def test_resampled_as_soxr_does():
    wave = a_tone(0.5, 0, 0, frequency=3_000)
    expected = soxr.resample(wave, 24_000, 16_000)
    (piece,) = finished(wave)
    inside = slice(400, -400)
    assert np.abs(piece / 32767 - expected)[inside].max() < 2e-3 * 0.3


def test_clipping_is_avoided_and_quiet_speech_left_alone():
    loud, quiet = finished(a_tone(0.3, 0, 0, level=3.0), a_tone(0.3, 0, 0, level=0.02))
    assert np.abs(loud).max() == pytest.approx(0.99 * 32767, rel=1e-3)
    assert np.abs(quiet).max() == pytest.approx(0.02 * 32767, rel=1e-2)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_and_silent_speech_is_none(broken):
    wave = a_tone(0.3, 0, 0)
    wave[1000] = broken
    fine, *others = finished(a_tone(0.3, 0, 0), wave, 1e-5 * a_tone(0.3, 0, 0), np.tile(a_tone(0.3, 0, 0), 101))
    assert fine is not None and others == [None, None, None]  # the last is longer than 30 s


def test_a_child_has_a_higher_voice_and_a_shorter_throat():
    """Harmonics of 200 Hz under one formant at 1200 Hz."""
    time = np.arange(16_000) / 16_000
    harmonics = np.arange(200, 7_000, 200)
    formant = 1 / (1 + ((harmonics - 1_200) / 150) ** 2) + 1e-3
    voice = sum(level * np.sin(2 * np.pi * f * time) for f, level in zip(harmonics, formant, strict=True))
    samples = (8_000 * voice / np.abs(voice).max()).astype(np.int16)
    assert np.array_equal(like_a_child(samples, 1.0), samples)
    child = like_a_child(samples, 1.3)
    assert len(child) == len(samples)
    power = np.abs(np.fft.rfft(child[4_000:12_000] * np.hanning(8_000))) ** 2
    frequencies = np.fft.rfftfreq(8_000, 1 / 16_000)
    peaks = {k: power[np.abs(frequencies - 260 * k) < 20].sum() for k in range(1, 12)}
    between = sum(power[np.abs(frequencies - 260 * (k + 0.5)) < 20].sum() for k in range(1, 12))
    assert sum(peaks.values()) > 100 * between
    assert max(peaks, key=peaks.get) in (5, 6)  # 1300 or 1560; it was 1200, and 1380 is asked for
    assert peaks[5] > peaks[4] and peaks[6] > peaks[7]


def test_recordings_are_manifests(tmp_path):
    utterances = [
        an_utterance(1, set="open", text="你好"),
        an_utterance(2, set="aishell/test", gender=None, age="AGE_<14"),
        an_utterance(3, set="open"),
        an_utterance(4, set="open"),
    ]
    samples = (a_tone(0.4, 0, 0, rate=16_000) * 32767).astype(np.int16)
    with SpeechWriter(tmp_path / "speech") as writer:
        for number in (1, 2, 3):
            writer.append(number, samples)
    for _ in range(2):
        write_recordings(utterances, SpeechStore(tmp_path / "speech"), tmp_path / "sets")
    assert sorted(path.name for path in (tmp_path / "sets").glob("*.jsonl")) == ["aishell.jsonl", "open.jsonl"]
    (entry,) = read_manifest(tmp_path / "sets" / "aishell.jsonl")
    assert entry.duration == pytest.approx(0.4)
    assert entry.tags(["AGE", "GENDER", "DIALECT"]) == {"AGE": "AGE_<14", "DIALECT": "DIALECT_NORTH"}
    assert [Path(entry.audio).name for entry in read_manifest(tmp_path / "sets" / "open.jsonl")] == ["1.flac", "3.flac"]


# Layers, against PyTorch's


def test_convolutions_are_pytorchs():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 50)
    for layer, function in (
        (Conv1d(6, 8, 7, padding=9, dilation=3), F.conv1d),
        (Conv1d(6, 8, 12, stride=6, padding=3), F.conv1d),
        (ConvTranspose1d(6, 8, 20, stride=10, padding=5), F.conv_transpose1d),
        (ConvTranspose1d(6, 6, 3, stride=2, padding=1, output_padding=1, groups=6), F.conv_transpose1d),
    ):
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
        if function is F.conv_transpose1d:
            settings["output_padding"] = layer.output_padding
        torch.testing.assert_close(layer(x), function(x, layer.weight, layer.bias, **settings), rtol=1e-4, atol=1e-5)


def test_adaptive_instance_norm():
    """PyTorch's instance norm of the samples that count, then scale and shift of the style."""
    torch.manual_seed(0)
    norm, x, style = AdaIN(8, 5), torch.randn(2, 5, 40) * 3 + 10, torch.randn(2, 8)
    mask = torch.arange(40) < torch.tensor([40, 25])[:, None, None]
    scale, shift = norm.fc(style).chunk(2, 1)
    y = norm(x, style, mask)
    for row, length in enumerate((40, 25)):
        alone = F.instance_norm(x[row : row + 1, :, :length])
        expected = alone[0] * (1 + scale[row, :, None]) + shift[row, :, None]
        torch.testing.assert_close(y[row, :, :length], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "make", [lambda: StyledBlock(6, 4, 8, True), lambda: StyledBlock(6, 6, 8), lambda: SnakeBlock(6, 7, 8)]
)
def test_company_does_not_matter_to_blocks(make):
    torch.manual_seed(0)
    block, x, style = make(), torch.randn(2, 6, 30), torch.randn(2, 8)
    together = block(x, style, torch.arange(30) < torch.tensor([30, 17])[:, None, None])
    alone = block(x[1:, :, :17], style[1:], torch.ones(1, 1, 17, dtype=torch.bool))
    torch.testing.assert_close(together[1:, :, : alone.shape[-1]], alone, rtol=1e-4, atol=1e-5)


# The model


def test_the_model_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("KOKORO_MODEL", str(tmp_path / "here"))
    assert kokoro_folder() == tmp_path / "here"
    monkeypatch.delenv("KOKORO_MODEL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kokoro_folder() == tmp_path / "citrinet_recipes" / "kokoro"


def test_a_download_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def no_network(command, **_):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(OSError, match=r"cannot fetch Kokoro .* KOKORO_MODEL"):
        fetch(tmp_path / "cache" / "kokoro")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(OSError, match="has no kokoro"):
        fetch(tmp_path)
    assert (tmp_path / "vocab.json").read_text() == "{}"


def test_other_contents_are_refused():
    with pytest.raises(OSError, match="other contents"):
        fetching._checked("vocab.json", b"{}")


def test_devices_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="--backend onnx speaks on the CPU"):
        load_voice(tmp_path, "onnx", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            load_voice(tmp_path, device="cuda")


@pytest.fixture(scope="module")
def kokoro():
    """Kokoro's folder, fetched once for all test runs."""
    try:
        return fetch()
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_prompts(kokoro):
    prompts = Prompts(kokoro)
    vocabulary = json.loads((kokoro / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    tokens, style = prompts(an_utterance(phonemes="ni↓☃xau↓"))
    assert tokens == [0, *(vocabulary[symbol] for symbol in "ni↓xau↓"), 0]
    blend = [
        weight * np.fromfile(kokoro / "voices" / f"{v}.bin", np.float32)[6 * 256 : 7 * 256] for v, weight in VOICES[0]
    ]
    np.testing.assert_allclose(style, sum(blend), rtol=1e-6)
    assert len(prompts(an_utterance(phonemes="a" * 510))[0]) == 512
    assert prompts(an_utterance(phonemes="a" * 511)) is None and prompts(an_utterance(phonemes="☃")) is None
    with pytest.raises(ValueError, match=r"no voice 'nobody'; it has .*zf_xiaobei"):
        prompts(an_utterance(voice=(("nobody", 1.0),)))


@pytest.fixture(scope="module")
def network(kokoro):
    from mandarin_small.speech.network import Kokoro
    from mandarin_small.speech.weights import read_weights

    network = Kokoro()
    network.load_state_dict(read_weights(kokoro / "kokoro.onnx"))
    return network.eval()


@pytest.fixture(scope="module")
def reference(kokoro):
    """Of the first utterance: what its float32 ONNX graph computes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from kokoro_float import TAPS, float_graph

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # that constants are no inputs
    session = onnxruntime.InferenceSession(float_graph(kokoro / "kokoro.onnx").SerializeToString(), options)
    utterance = an_utterance()
    tokens, style = Prompts(kokoro)(utterance)
    inputs = {"tokens": np.array([tokens]), "style": style[None], "speed": np.array([utterance.speed], np.float32)}
    outputs = session.run(None, inputs)
    return {name: torch.from_numpy(value) for name, value in zip(("audio", *TAPS), outputs, strict=True)}


@pytest.fixture(scope="module")
def encoded(kokoro, network):
    """The first utterance's frames for prosody and sound, its style, and their number."""
    tokens, style = Prompts(kokoro)(an_utterance())
    style, length = torch.from_numpy(style)[None], torch.tensor([len(tokens)])
    with torch.inference_mode():
        read = network.encode(torch.tensor([tokens]), length, style, torch.tensor([1.0]))
    prosody, sound = (part.repeat_interleave(read.durations[0], dim=1) for part in (read.prosody, read.sound))
    return prosody, sound, read.durations.sum(1), style


def differ(mine, theirs):
    """Largest difference, as a part of the largest value."""
    return float((mine - theirs).abs().max() / theirs.abs().max())


@pytest.mark.slow
@torch.inference_mode()
def test_prosody_and_decoder_are_the_files(network, encoded, reference):
    prosody, sound, frames, style = encoded
    assert 600 * int(frames) == reference["audio"].numel()
    mask = torch.ones(1, int(frames), dtype=torch.bool)
    pitch, energy = network.predictor.draw(prosody, style[:, 128:], mask, frames)
    assert differ(pitch, reference["pitch"]) < 1e-5
    assert differ(energy, reference["energy"]) < 1e-5
    decoded = []
    network.decoder.decode[3].register_forward_hook(lambda *call: decoded.append(call[2]))
    network.speak(prosody, sound, frames, style, noise=False)
    assert differ(decoded[0], reference["decoded"]) < 1e-5


@pytest.mark.slow
@torch.inference_mode()
def test_source_and_spectra_are_the_files(network, reference):
    """The file adds up its phases in float32."""
    generator, samples = network.decoder.generator, reference["audio"].numel()
    source = generator.m_source(reference["pitch"], noise=False)
    assert differ(source, reference["source"].view(1, -1)) < 0.03
    spectra = generator._spectra(reference["source"].view(1, -1), torch.tensor([[samples]]))
    (magnitudes, phases), (expected, expected_phases) = spectra.chunk(2, 1), reference["spectra"].chunk(2, 1)
    assert differ(magnitudes, expected) < 1e-5
    shorter = torch.cat([reference["source"].view(1, -1)[:, :6_000], torch.ones(1, samples - 6_000)], 1)
    pair = generator._spectra(torch.cat([source, shorter]), torch.tensor([[samples], [6_000]]))
    torch.testing.assert_close(
        pair[1:, :11, :1201], generator._spectra(shorter[:, :6_000], torch.tensor([[6_000]]))[:, :11]
    )
    turns = (phases - expected_phases) / (2 * torch.pi)  # what is not there has no phase
    assert (turns - turns.round()).abs()[expected > 1e-3].max() < 1e-3


@pytest.mark.slow
@torch.inference_mode()
def test_the_generator_is_the_files(network, encoded, reference, monkeypatch):
    """On the file's own spectra. Its inverse STFT is 1.5 times too loud, and not at all normalised at the ends."""
    monkeypatch.setattr(network.decoder.generator, "_spectra", lambda *_: reference["spectra"])
    audio = network.speak(*encoded, noise=False)
    inside = slice(20, -20)
    assert differ(audio[0, inside], reference["audio"].view(-1)[inside] / 1.5) < 2e-4


@pytest.mark.slow
def test_together_as_alone(kokoro, network, monkeypatch):
    from mandarin_small.speech import torch_voice
    from mandarin_small.speech.network import Generator

    monkeypatch.setattr(torch_voice, "Kokoro", lambda: network)
    monkeypatch.setattr(torch_voice, "read_weights", lambda _: network.state_dict())
    spectra, rounded = (
        Generator._spectra,
        torch.arange(22)[:, None] < 11,
    )  # the sign of what is nearly 0 is a phase of π
    monkeypatch.setattr(Generator, "_spectra", lambda *arguments: spectra(*arguments) * rounded)
    voice = torch_voice.TorchVoice(kokoro, noise=False)
    utterances = [an_utterance(number) for number in (1, 2)]
    voice._frames_at_once = 10_000
    (batch,) = voice.speak(utterances)
    assert sorted(utterance.id for utterance, _ in batch) == [1, 2]
    voice._frames_at_once = 1
    alone = {utterance.id: samples for ((utterance, samples),) in voice.speak(utterances)}
    for utterance, samples in batch:
        assert samples.shape == alone[utterance.id].shape
        assert np.abs(samples.astype(int) - alone[utterance.id]).max() <= 1e-3 * np.abs(samples).max()


@pytest.mark.slow
@torch.inference_mode()
def test_half_precision(network, encoded):
    """What a GPU does, on this CPU, in the format that it has."""
    whole, half = network.speak(*encoded, noise=False), network.speak(*encoded, noise=False, half=torch.float16)
    assert half.dtype == torch.float32
    assert torch.corrcoef(torch.stack([whole[0], half[0]]))[0, 1] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_texts_become_speech(kokoro, tmp_path, backend, monkeypatch):
    write_utterances(
        tmp_path / "text" / "train.jsonl.gz", [an_utterance(1), an_utterance(4, phonemes="☃"), an_utterance(7)]
    )
    write_utterances(
        tmp_path / "text" / "heldout.jsonl.gz", [an_utterance(10, set="open", child=1.2), an_utterance(11)]
    )
    options = Options(tmp_path, backend=backend, device="cpu", limit=2, model=kokoro)
    assert run(options)
    train, heldout = (SpeechStore(tmp_path / "speech" / name) for name in ("train", "heldout"))
    assert train.index["id"].tolist() == [1] and sorted(heldout.index["id"]) == [10, 11]
    assert 0.6 * 16_000 < len(train[1]) < 1.6 * 16_000
    assert 1_000 < np.abs(train[1]).max() < 32_767
    (entry,) = read_manifest(tmp_path / "heldout" / "open.jsonl")
    assert entry.duration == pytest.approx(len(heldout[10]) / 16_000)

    monkeypatch.setattr(speaking, "load_voice", lambda *_: Counting())
    assert run(options)
    assert SpeechStore(tmp_path / "speech" / "train").index["id"].tolist() == [1, 4]
