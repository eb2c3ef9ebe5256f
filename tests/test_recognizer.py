"""One protocol: what is given as list, iterator or generator, in windows or whole, in one thread or several."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

import citrinet
from citrinet.language_model import DecodingOptions
from helpers import forgive_scores, synthetic_speech


@pytest.fixture(scope="module")
def recognizer(tiny_dir):
    return citrinet.load_recognizer(tiny_dir)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A Wav2Vec2 of a few weights."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    (folder / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}', encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    config = Wav2Vec2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    return citrinet.load_recognizer(folder, citrinet_only=False)


@pytest.fixture(params=["recognizer", "other"])
def any_recognizer(request):
    return request.getfixturevalue(request.param)


def test_waveforms_may_come_in_any_way(any_recognizer):
    waveforms = [synthetic_speech(seconds, seed=index) for index, seconds in enumerate((0.7, 1.3, 0.4))]
    expected = [any_recognizer(waveform) for waveform in waveforms]
    ways = (waveforms, iter(waveforms), (waveform for waveform in waveforms), map(np.copy, waveforms))
    for way in ways:
        assert forgive_scores(list(any_recognizer.stream(way))) == expected
    assert forgive_scores(any_recognizer(waveforms)) == expected
    assert list(any_recognizer.stream(iter(()))) == []


def test_no_waveform_is_held_once_the_next_is_there(any_recognizer):
    alive = []

    def waveforms():
        while True:
            samples = synthetic_speech(0.5)
            alive.append(weakref.ref(samples))
            yield samples
            del samples

    results = any_recognizer.stream(waveforms())
    for _ in range(5):
        next(results)
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 1
    assert len(alive) <= 6


def test_a_list_is_read_as_it_is_needed(recognizer, monkeypatch):
    steps = []
    load, forward = recognizer.load, recognizer.pipeline.forward
    monkeypatch.setattr(recognizer, "load", lambda source: steps.append("read") or load(source))
    monkeypatch.setattr(recognizer.pipeline, "forward", lambda *a, **k: steps.append("heard") or forward(*a, **k))
    recognizer([synthetic_speech(0.5)] * 3)
    assert steps == ["read", "heard"] * 3


def test_a_bad_recording_says_why(any_recognizer, tmp_path):
    with pytest.raises(OSError, match="gone"):
        any_recognizer(str(tmp_path / "gone.wav"))
    with pytest.raises(ValueError, match="NaN"):
        any_recognizer([synthetic_speech(0.5), np.full(16000, np.nan, np.float32)])
    with pytest.raises(ValueError, match="samples"):
        any_recognizer(np.zeros(10, np.float32))


@pytest.mark.parametrize("chunk_length_s", [None, 0, 2.0, 5.0])
def test_following_gives_what_a_call_gives(recognizer, chunk_length_s):
    samples = synthetic_speech(9.3)
    options = {"return_timestamps": "char", "chunk_length_s": chunk_length_s}
    *parts, last = recognizer.follow(samples, **options)
    assert last.done == 1.0 and last.result == recognizer(samples, **options)
    assert 0 < last.result["confidence"] < 1
    assert len(parts) == {2.0: 6, 5.0: 2}.get(chunk_length_s, 0) or (chunk_length_s and len(parts) > 1)
    done = [part.done for part in parts]
    assert done == sorted(done) and all(0 < part.done < 1 and part.result is None for part in parts)


def test_windows_are_made_as_they_are_needed(recognizer, monkeypatch):
    made = []
    preprocess = recognizer.pipeline.preprocess

    def counted(*args, **kwargs):
        for window in preprocess(*args, **kwargs):
            made.append(1)
            yield window

    monkeypatch.setattr(recognizer.pipeline, "preprocess", counted)
    steps = recognizer.follow(synthetic_speech(9), chunk_length_s=2)
    next(steps)
    assert len(made) == 1


def test_another_librarys_model_has_no_segments_and_no_times(other):
    samples = synthetic_speech(1)
    (last,) = other.follow(samples, return_timestamps="char")
    assert last.result["segments"] == [] and last.result == other(samples)
    assert last.result["text"] == last.result["transcript"] and "chunks" not in last.result


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_threads_share_a_recogniser(tiny_dir, precision):
    shared = citrinet.load_recognizer(tiny_dir, precision=precision)
    waveforms = [synthetic_speech(0.5 + index / 8, seed=index) for index in range(8)]
    expected = [shared(waveform, return_timestamps="char") for waveform in waveforms]

    def ask(index):
        way = index % 2
        if way:
            return shared(waveforms[index // 2 % 8], return_timestamps="char")
        *_, last = shared.follow(waveforms[index // 2 % 8], return_timestamps="char")
        return last.result

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(32))) == [expected[index // 2 % 8] for index in range(32)]


def test_a_beam_search_is_for_citrinets(other):
    with pytest.raises(ValueError, match="no Citrinet"):
        citrinet.load_recognizer(other.model, citrinet_only=False, decoder=DecodingOptions(hot_words=["a"]))
