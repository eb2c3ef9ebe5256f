"""One way to make a recogniser: PyTorch and ONNX behind one protocol, with the same results."""

import numpy as np
import pytest

import citrinet
from citrinet.decoding_citrinet import DECODER_TOKENS, collapse
from helpers import forgive_scores, synthetic_speech


@pytest.fixture(scope="module")
def recognizers(tiny_dir, tiny_onnx_dir):
    """The same model in PyTorch, as it is and optimised, and in ONNX."""
    return {
        "ordinary": citrinet.load_recognizer(tiny_dir, optimized=False),
        "optimised": citrinet.load_recognizer(tiny_dir),
        "onnx": citrinet.load_recognizer(tiny_onnx_dir),
    }


@pytest.fixture(scope="module")
def sources():
    """Arrays at the model's rate and at others, stereo and bytes of integers."""
    return [
        synthetic_speech(1.3, seed=1),
        {"array": synthetic_speech(0.7, seed=2, rate=44100), "sampling_rate": 44100},
        {"array": synthetic_speech(1.1, seed=3, rate=8000), "sampling_rate": 8000},
        citrinet.audio_citrinet.AudioSegment(synthetic_speech(3.0, seed=4), offset=0.5, duration=1.2),
    ]


@pytest.mark.parametrize("timestamps", [None, "char", "word"])
def test_all_give_the_same_results(recognizers, sources, timestamps):
    expected = recognizers["ordinary"](sources, return_timestamps=timestamps)
    assert len({result["text"] for result in expected}) == len(sources), "the test would compare nothing"
    assert all(("chunks" in result) == (timestamps is not None) for result in expected)
    for name in ("optimised", "onnx"):
        for batches in ({"batch_size": 3}, {"batch_seconds": 3.0}, {"batch_size": 2, "batch_seconds": 600.0}):
            found = recognizers[name](sources, return_timestamps=timestamps, **batches)
            assert forgive_scores(found, 1e-3) == expected, (name, batches)


def test_onnx_batches_by_seconds(recognizers, sources, monkeypatch):
    shapes = []
    network = recognizers["onnx"]._network

    class Spy:
        def run(self, names, inputs):
            shapes.append(inputs["length"].tolist())
            return network.run(names, inputs)

    monkeypatch.setattr(recognizers["onnx"], "_network", Spy())
    recognizers["onnx"](sources, batch_seconds=3.0)
    assert shapes == [[130, 70], [110, 120]]


def test_a_result_has_the_keys_of_its_type(recognizers, sources):
    for recognizer in recognizers.values():
        result = recognizer(sources[0], return_timestamps="char")
        assert result.keys() == citrinet.RecognitionResult.__required_keys__ | {"chunks"}
        assert set(result["tags"]) == set(recognizer.tag_labels)


PLACES = [(4000, 20_000), (24_000, 90_000), (100_000, 132_000)]


@pytest.fixture
def pauses(monkeypatch):
    """Speech is found at `PLACES`, whatever the recording."""
    monkeypatch.setattr("citrinet.voice_activity_citrinet.speech_segments", lambda samples, rate: list(PLACES))


def test_segments_are_what_their_parts_give_alone(recognizers, pauses):
    samples = synthetic_speech(8.5, seed=6)
    for recognizer in recognizers.values():
        parts = recognizer([samples[start:stop] for start, stop in PLACES], return_timestamps="char", batch_size=2)
        whole = recognizer(samples, vad=True, return_timestamps="char", batch_size=2)
        assert len(whole["segments"]) == len(PLACES)
        for segment, part, (start, stop) in zip(whole["segments"], parts, PLACES, strict=True):
            assert {name: segment[name] for name in ("text", "transcript")} == {
                name: part[name] for name in ("text", "transcript")
            }
            assert (segment["start"], segment["end"]) == (start / 16_000, stop / 16_000)
            assert segment["tags"] == forgive_scores(part["tags"])
        expected = [
            chunk | {"timestamp": tuple(round(time + start / 16_000, 3) for time in chunk["timestamp"])}
            for part, (start, _) in zip(parts, PLACES, strict=True)
            for chunk in part["chunks"]
        ]
        assert [chunk | {"timestamp": pytest.approx(chunk["timestamp"], abs=2e-3)} for chunk in whole["chunks"]] == (
            forgive_scores(expected)
        )
        assert recognizer(samples, vad=False, return_timestamps="char")["segments"][0]["end"] == 8.5


def test_all_give_the_same_segments(recognizers, pauses):
    samples = synthetic_speech(8.5, seed=6)
    expected = recognizers["ordinary"](samples, vad=True, return_timestamps="word")
    for name in ("optimised", "onnx"):
        *steps, last = recognizers[name].follow(samples, vad=True, return_timestamps="word")
        assert forgive_scores(last.result, 1e-3) == expected
        assert len(steps) == 2 and 0.1 < steps[0].done < steps[1].done < 0.8


def test_a_decoder_sees_the_log_probabilities(recognizers, sources):
    seen = []

    def decoder(log_probs):
        seen.append(log_probs)
        return collapse(log_probs.argmax(axis=-1).tolist(), log_probs.shape[-1] - 1)[1:]

    for recognizer in recognizers.values():
        plain = recognizer(sources[0], return_timestamps="char")
        try:
            recognizer.decoder = decoder
            decoded = recognizer(sources[0], return_timestamps="char")
        finally:
            recognizer.decoder = None
        assert plain["text"].endswith(decoded["text"]) and len(decoded["text"]) < len(plain["text"])
        # Characters share the time of their token, and a word boundary at the start of the text, which is dropped, too.
        same = len(decoded["chunks"]) - max(map(len, recognizer.pieces))
        assert same > 0 and forgive_scores(decoded["chunks"][-same:]) == plain["chunks"][-same:]
        log_probs, kept = recognizer.log_probs(recognizer.load(sources[0])), np.isfinite(seen[-1])
        assert log_probs.shape == seen[-1].shape == (len(log_probs), len(recognizer.pieces) + 1)
        assert kept.sum(axis=-1).min() >= min(DECODER_TOKENS, log_probs.shape[-1])
        np.testing.assert_allclose(log_probs[kept], seen[-1][kept], atol=1e-4)


def test_windows_are_followed_to_the_result(recognizers, sources):
    for recognizer in recognizers.values():
        waveform = recognizer.load(synthetic_speech(9.0, seed=5))
        steps = list(recognizer.follow(waveform, chunk_length_s=3))
        assert [step.done for step in steps] == sorted(step.done for step in steps) and steps[-1].done == 1
        assert [step.result is None for step in steps] == [True] * (len(steps) - 1) + [False]
        assert steps[-1].result == next(recognizer.stream(iter([waveform]), chunk_length_s=3))
        assert 0 < steps[-1].result["confidence"] < 1


def test_every_recogniser_says_what_it_is(recognizers):
    for recognizer in recognizers.values():
        lines = recognizer.describe().splitlines()
        assert lines[0].startswith("Citrinet")
        assert [line for line in lines if line.startswith("  gender: FEMALE, MALE")], lines


def test_bad_audio_is_one_error_for_all(recognizers):
    for recognizer in recognizers.values():
        with pytest.raises(ValueError, match="at least 160"):
            recognizer(synthetic_speech(0.005))
        with pytest.raises(OSError, match=r"missing\.wav"):
            recognizer("missing.wav")
