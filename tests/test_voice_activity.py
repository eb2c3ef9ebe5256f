"""Voice activity against Silero's own graph, and how recordings are cut."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import citrinet
from citrinet import voice_activity_citrinet as voice_activity
from citrinet.voice_activity_citrinet import FRAME, Segmenter, VoiceActivity, speech_segments

CLIPS = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))
PADDING = 4800  # samples of 0.3 s


@pytest.fixture(scope="module")
def clips():
    return [citrinet.load_audio(clip) for clip in CLIPS]


def silence(seconds):
    return np.zeros(round(16000 * seconds), np.float32)


def noise(seconds, level=0.003):
    return (level * np.random.default_rng(0).standard_normal(round(16000 * seconds))).astype(np.float32)


def in_pieces(segmenter, samples, sizes):
    """Segments of samples that are given in pieces of these sizes, over and over."""
    done, start, index = [], 0, 0
    while start < len(samples):
        done += segmenter.feed(samples[start : start + sizes[index % len(sizes)]])
        start += sizes[index % len(sizes)]
        index += 1
    return done + segmenter.finish()


def silero_graph():
    """Silero's ONNX graph, which takes many frames at once, and its weights by our names: those are of another training."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = Path(importlib.util.find_spec("silero_vad").origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    if not path.is_file():
        pytest.skip("silero-vad has this graph since 6.2.2")
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    weights = {"stft_conv.weight": arrays["stft.forward_basis_buffer"]}
    for kind in ("weight", "bias"):
        weights[f"final_conv.{kind}"] = arrays[f"output.{kind}"]
        weights |= {f"conv{i + 1}.{kind}": arrays[f"encoder.{i}.{kind}"] for i in range(4)}
    ih, hh, biases = (arrays[name] for name in sorted(name for name in arrays if "LSTM" in name))
    parts = {"weight_ih": ih[0], "weight_hh": hh[0], "bias_ih": biases[0, :512], "bias_hh": biases[0, 512:]}
    for name, value in parts.items():
        enter, out, keep, cell = np.split(value, 4)  # ONNX's order
        weights[f"lstm_cell.{name}"] = np.concatenate([enter, keep, cell, out])
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), weights


def test_the_arithmetic_is_that_of_silero(clips, monkeypatch):
    session, weights = silero_graph()
    monkeypatch.setattr(voice_activity, "_weights", lambda: voice_activity._prepared(weights))
    samples = np.concatenate([clips[0], noise(1, 0.01), clips[1]])
    samples = samples[: len(samples) // FRAME * FRAME]
    frames = samples.reshape(-1, FRAME)
    contexts = np.concatenate([np.zeros((1, 64), np.float32), frames[:-1, -64:]])
    state = np.zeros((1, 1, 128), np.float32)
    inputs = {"input": np.concatenate([contexts, frames], axis=1), "h": state, "c": state}
    expected = session.run(["speech_probs"], inputs)[0].ravel()
    assert expected.min() < 0.05 and expected.max() > 0.95
    np.testing.assert_allclose(VoiceActivity()(samples), expected, atol=2e-5)


@pytest.mark.parametrize("frames", [1, 7, 100])
def test_blocks_of_frames_give_the_same_probabilities(clips, frames, monkeypatch):
    samples = np.concatenate([clips[0], noise(1, 0.01), clips[1]])
    samples = samples[: len(samples) // FRAME * FRAME]
    expected = VoiceActivity()(samples)
    activity, size = VoiceActivity(), frames * FRAME
    pieces = [activity(samples[start : start + size]) for start in range(0, len(samples), size)]
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=2e-5)
    monkeypatch.setattr(voice_activity, "_BLOCK", frames)
    np.testing.assert_allclose(VoiceActivity()(samples), expected, atol=2e-5)


def test_silero_has_a_symmetric_window_so_that_spectra_can_be_folded():
    path = Path(importlib.util.find_spec("silero_vad").origin).parent / "data" / "silero_vad_16k.safetensors"
    real, imaginary = np.split(load_file(path)["stft_conv.weight"][:, 0], 2)
    np.testing.assert_allclose(real[:, 1:], real[:, :0:-1], atol=1e-6)
    np.testing.assert_allclose(imaginary[:, 1:], -imaginary[:, :0:-1], atol=1e-6)
    for unused in real[:, 0], imaginary[:, 0], imaginary[0], imaginary[128]:
        np.testing.assert_allclose(unused, 0, atol=1e-6)


def test_speech_is_found_and_nothing_else(clips):
    gap = noise(1.5)
    samples, places = [gap], []
    for clip in clips:
        start = sum(map(len, samples))
        loud = np.flatnonzero(np.abs(clip) > 0.05 * np.abs(clip).max())
        places.append((start + loud[0], start + loud[-1]))
        samples += [clip, gap]
    samples = np.concatenate(samples)
    segments = speech_segments(samples, 16000)
    inside = np.zeros(len(samples), bool)
    for start, end in segments:
        inside[start:end] = True
    for start, end in places:
        assert inside[start:end].mean() > 0.97  # nothing but a word's faint end, or a pause within, is left out
        assert not inside[start - 12_000 : start - 9_600].any()  # beyond the padding and the clip's own silence
    borders = [border for segment in segments for border in segment]
    assert borders == sorted(borders) and borders[0] >= 0 and borders[-1] <= len(samples)
    assert len(segments) >= len(clips)


@pytest.mark.parametrize("kind", ["nothing", "silence", "noise", "hum"])
def test_where_nobody_speaks(kind):
    hum = (0.1 * np.sin(2 * np.pi * 100 * np.arange(48000) / 16000)).astype(np.float32)
    samples = {"nothing": silence(0), "silence": silence(3), "noise": noise(3, 0.02), "hum": hum}[kind]
    assert speech_segments(samples, 16000) == []


@pytest.mark.parametrize("sizes", [(160,), (1, 511, 513, 7000), (100_000,)])
def test_pieces_give_what_the_whole_gives(clips, sizes):
    samples = np.concatenate([part for clip in clips[:3] for part in (clip, silence(0.4))])
    assert in_pieces(Segmenter(), samples, sizes) == speech_segments(samples, 16000)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_another_rate_is_counted_in_its_own_samples(clips, rate):
    samples = np.concatenate([silence(1), clips[0], silence(1), clips[1], silence(1)])
    expected = np.array(speech_segments(samples, 16000)) / 16000
    other = citrinet.audio_citrinet.resample(samples, 16000, rate)
    segments = in_pieces(Segmenter(rate), other, (rate // 10,))
    assert segments == speech_segments(other, rate)
    np.testing.assert_allclose(np.array(segments) / rate, expected, atol=0.13)  # high frequencies are heard as well


def test_without_the_weights_there_is_one_remedy(monkeypatch):
    monkeypatch.setattr(voice_activity, "_weights", voice_activity._weights.__wrapped__)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install \"silero-vad"):
        speech_segments(silence(1), 16000)


@pytest.fixture
def loud(monkeypatch):
    """Voice activity of which the probability is the loudest sample of the frame."""

    class Loudness:
        def __call__(self, samples):
            return np.abs(samples).reshape(-1, FRAME).max(axis=1)

    monkeypatch.setattr(voice_activity, "VoiceActivity", Loudness)


def sound(*parts):
    """Samples of (frames, probability)."""
    return np.concatenate([np.full(frames * FRAME, level, np.float32) for frames, level in parts])


def test_a_pause_ends_a_segment_and_padding_surrounds_it(loud):
    samples = sound((40, 0), (30, 0.9), (9, 0), (30, 0.9), (40, 0), (30, 0.9))
    ends = 109 * FRAME + PADDING
    assert speech_segments(samples, 16000) == [
        (40 * FRAME - PADDING, ends),  # 9 frames, 0.29 s, are no pause
        (149 * FRAME - PADDING, 179 * FRAME),
    ]


def test_paddings_do_not_overlap(loud):
    first, second = speech_segments(sound((30, 0.9), (10, 0), (30, 0.9), (40, 0)), 16000)
    assert first == (0, 30 * FRAME + PADDING) and second == (first[1], 70 * FRAME + PADDING)


def test_speech_begins_and_ends_at_different_probabilities(loud):
    assert speech_segments(sound((30, 0.45)), 16000) == []
    assert speech_segments(sound((20, 0), (30, 0.6), (30, 0.4), (30, 0.3)), 16000) == [
        (20 * FRAME - PADDING, 80 * FRAME + PADDING)
    ]


def test_a_click_is_no_speech(loud):
    assert speech_segments(sound((20, 0), (3, 0.9), (40, 0), (4, 0.9), (40, 0)), 16000) == [
        (63 * FRAME - PADDING, 67 * FRAME + PADDING)
    ]


def longest(segments):
    return max(end - start for start, end in segments)


def test_too_long_a_segment_is_cut_in_its_longest_pause(loud):
    samples = sound((150, 0.9), (2, 0.1), (70, 0.9), (6, 0.1), (20, 0.9), (2, 0), (200, 0.9))
    segments = in_pieces(Segmenter(), samples, (5000,))
    assert segments == [(0, 225 * FRAME), (225 * FRAME, len(samples))]


def test_an_early_pause_serves_where_there_is_no_later_one(loud):
    samples = sound((80, 0.9), (4, 0.1), (180, 0.9), (40, 0))
    segments = in_pieces(Segmenter(), samples, (5000,))
    assert segments == [(0, 82 * FRAME), (82 * FRAME, 264 * FRAME + PADDING)]


def test_who_never_pauses_is_cut_where_speech_is_least_likely(loud):
    rng = np.random.default_rng(0)
    samples = np.concatenate([sound((1, level)) for level in rng.uniform(0.5, 1, 3000)])
    segments = in_pieces(Segmenter(), samples, (9999,))
    assert longest(segments) <= 8 * 16000
    assert segments[0][0] == 0 and segments[-1][1] == len(samples)
    for (start, end), (following, _) in itertools.pairwise(segments):
        assert end == following and end - start > 3.6 * 16000
        assert samples[end] == samples[start + 115 * FRAME : start + 231 * FRAME].min()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_said_segments_are_ordered_and_bounded(loud, seed):
    rng = np.random.default_rng(seed)
    parts = [(int(rng.integers(1, 60)), rng.choice([0, 0.2, 0.34, 0.36, 0.49, 0.51, 0.9])) for _ in range(200)]
    samples, options = sound(*parts), {"max_segment_s": rng.uniform(2, 20)}
    segments = in_pieces(Segmenter(**options), samples, (len(samples),))
    assert in_pieces(Segmenter(**options), samples, (int(rng.integers(1, 9000)) + 300, 777)) == segments
    borders = [border for segment in segments for border in segment]
    assert borders == sorted(borders) and all(start < end for start, end in segments)
    assert longest(segments) <= options["max_segment_s"] * 16000 + FRAME
    outside = np.ones(len(samples), bool)
    for start, end in segments:
        outside[start:end] = False
    loud_outside = np.diff((outside & (samples > 0.5)).astype(int), prepend=0, append=0)
    runs = np.flatnonzero(loud_outside < 0) - np.flatnonzero(loud_outside > 0)
    assert runs.max(initial=0) <= 3 * FRAME  # clicks


def test_a_segment_begins_where_the_segmenter_says_that_it_may(loud):
    samples = sound((50, 0), (30, 0.9), (60, 0), (400, 0.9), (50, 0), (2, 0.9), (50, 0), (30, 0.9))
    segmenter, begins, done = Segmenter(), [], []
    for start in range(0, len(samples), 700):
        begins.append(segmenter.begin)
        new = segmenter.feed(samples[start : start + 700])
        assert all(begin >= begins[-1] for begin, _ in new)
        done += new
    assert begins == sorted(begins) and len(done) == 4 and not done[-1][1] > segmenter.begin
    assert segmenter.is_open and segmenter.finish()


def test_memory_does_not_grow_with_silence_or_speech(loud):
    segmenter = Segmenter()
    for level in (0, 0.9):
        for _ in range(100):
            segmenter.feed(sound((100, level)))
            held = [value for value in vars(segmenter).values() if isinstance(value, (list, np.ndarray))]
            assert sum(map(len, held)) < 8 * 16000 / FRAME + FRAME
