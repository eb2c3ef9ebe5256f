"""One way to make a recogniser: PyTorch and ONNX behind one protocol, with the same results."""

import pytest

import citrinet
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
