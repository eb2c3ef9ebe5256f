import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import citrinet
from citrinet.cli import main
from citrinet.decoding_citrinet import collapse
from citrinet.error_rates import character_edits
from citrinet.language_model import BeamSearchDecoder, DecodingOptions, arpa, beam_search, read_hot_words
from citrinet.language_model.hot_words import HotWords
from citrinet.language_model.training import train
from citrinet.transcript_citrinet import find_markers, parse_transcript
from helpers import synthetic_speech

EXAMPLES = Path(__file__).parent.parent / "examples"
PIECES = ["a", "b", "c"]
TEXTS = [list(text) for text in ["abc", "abb", "bca", "cab", "caab", "abcc", "bacb", "cb", "ab", "bc", "abab"]]


@pytest.fixture
def everything(monkeypatch):
    """The search leaves nothing out."""
    monkeypatch.setattr(beam_search, "_TOKEN_MARGIN", 1e9)
    monkeypatch.setattr(beam_search, "_PREFIX_MARGIN", 1e9)


def outputs(frames, tokens, seed=0, scale=2.0):
    """(frames, tokens + 1) log-probabilities."""
    logits = np.random.default_rng(seed).standard_normal((frames, tokens + 1)) * scale
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def all_paths(log_probs):
    """Text (ids) -> the probabilities of all its paths, and its likeliest path."""
    frames, size = log_probs.shape
    sums, best = {}, {}
    for path in itertools.product(range(size), repeat=frames):
        text = tuple(token.id for token in collapse(path, size - 1))
        score = float(sum(log_probs[range(frames), path]))
        sums[text] = np.logaddexp(sums.get(text, -math.inf), score)
        best[text] = max(best.get(text, (-math.inf, None)), (score, path))
    return sums, {text: path for text, (_, path) in best.items()}


def language_model_score(model, text, weight, bonus):
    states, total = np.array([model.begin()]), 0.0
    for token in [*(PIECES[index] for index in text), "</s>"]:
        scores, states = model.score(states, np.array([model.ids[token]]))
        total += weight * float(scores[0]) + (bonus if token != "</s>" else 0)
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weight", [None, 0.7])
def test_all_texts_are_scored_as_if_every_path_were_counted(everything, seed, weight):
    log_probs = outputs(6, len(PIECES), seed)
    model = weight and train(TEXTS, 3)
    decoder = BeamSearchDecoder(PIECES, model or None, weight=weight, word_bonus=0.8, beam_size=10_000)
    sums, paths = all_paths(log_probs)
    if model:
        sums = {text: score + language_model_score(model, text, weight, 0.8) for text, score in sums.items()}
    found = decoder.n_best(log_probs, 10_000)
    assert len(found) == len(sums)
    assert [reading.score for reading in found] == sorted((reading.score for reading in found), reverse=True)
    for reading in found:
        text = tuple(token.id for token in reading.tokens)
        assert reading.score == pytest.approx(sums[text], abs=1e-4)
        assert reading.tokens == collapse(paths[text], len(PIECES)), "times are those of the likeliest path"


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_finds_the_best_text(seed):
    log_probs = outputs(7, len(PIECES), seed)
    model = train(TEXTS, 3)
    sums, _ = all_paths(log_probs)
    expected = max(sums, key=lambda text: sums[text] + language_model_score(model, text, 0.5, 1.0))
    decoder = BeamSearchDecoder(PIECES, model, weight=0.5, word_bonus=1.0, beam_size=16)
    assert tuple(token.id for token in decoder(log_probs)) == expected


def test_tokens_of_which_nothing_is_known_are_never_written():
    """Recognisers hand over the likeliest tokens of each frame alone, the others with a probability of 0."""
    log_probs = outputs(30, 20, scale=3)
    kept = np.argsort(-log_probs, axis=1)[:, :4]
    sparse = np.full_like(log_probs, -np.inf)
    np.put_along_axis(sparse, kept, np.take_along_axis(log_probs, kept, axis=1), axis=1)
    pieces = [chr(ord("a") + index) for index in range(20)]
    for reading in BeamSearchDecoder(pieces, alternatives=5).n_best(sparse, 5):
        assert math.isfinite(reading.score)
        for token in reading.tokens:
            assert np.isfinite(sparse[token.start : token.end, token.id]).all()


def test_nothing_is_heard_in_nothing():
    assert BeamSearchDecoder(PIECES)(np.zeros((0, 4), np.float32)) == []
    silence = np.log(np.array([[0.01, 0.01, 0.01, 0.97]] * 5, np.float32))
    assert BeamSearchDecoder(PIECES, train(TEXTS, 2))(silence) == []


def spoken(pieces, text, doubt=0.1):
    """Log-probabilities of a network that is rather sure of a text: a frame for each token, and a blank after it."""
    probs = np.full((2 * len(text), len(pieces) + 1), doubt / len(pieces))
    for index, token in enumerate(text):
        probs[2 * index, pieces.index(token)] = 1 - doubt
        probs[2 * index + 1, -1] = 1 - doubt
    return np.log(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def written(pieces, tokens):
    return "".join(pieces[token.id] for token in tokens)


def test_markers_that_the_language_model_does_not_know_cost_nothing():
    pieces = [*PIECES, "ENTITY_X", "END", "AGE_14_25"]
    decoder = BeamSearchDecoder(pieces, train(TEXTS, 3), weight=1.0, word_bonus=0.0)
    marked = ["ENTITY_X", "a", "b", "END", "c", "AGE_14_25"]
    heard = spoken(pieces, marked, doubt=1e-4)
    assert written(pieces, decoder(heard)) == "".join(marked)
    difference = decoder.n_best(heard, 1)[0].score - decoder.n_best(spoken(pieces, list("abc"), doubt=1e-4), 1)[0].score
    assert difference == pytest.approx(0, abs=0.01)


def test_markers_that_it_knows_are_tokens_of_it():
    pieces = [*PIECES, "ENTITY_X", "END"]
    model = train([["c", "ENTITY_X", "a", "b", "END"]] * 20 + TEXTS, 3)
    heard = spoken(pieces, ["c", "ENTITY_X", "a", "b", "END"], doubt=0.02)
    unsure = heard.copy()
    unsure[8] = heard[9]  # END is not heard well
    unsure[8, pieces.index("END")] = math.log(0.3)
    assert written(pieces, collapse(unsure.argmax(axis=1).tolist(), len(pieces))) == "cENTITY_Xab"
    assert written(pieces, BeamSearchDecoder(pieces, model, weight=1.0)(unsure)) == "cENTITY_XabEND"


def test_pieces_of_several_characters_are_scored_character_by_character(everything):
    pieces = ["▁a", "bc", "▁", "b", "c"]
    model = train([["▁", *text] for text in TEXTS], 3)
    decoder = BeamSearchDecoder(pieces, model, weight=1.0, word_bonus=0.5, beam_size=1000)
    log_probs = outputs(4, len(pieces))
    scores = {tuple(token.id for token in r.tokens): r.score for r in decoder.n_best(log_probs, 1000)}
    sums, _ = all_paths(log_probs)
    states, expected = np.array([model.begin()]), sums[0, 1]
    for token in ["▁", "a", "b", "c", "</s>"]:
        value, states = model.score(states, np.array([model.ids[token]]))
        expected += float(value[0]) + (0.5 if token != "</s>" else 0)
    assert scores[0, 1] == pytest.approx(expected, abs=1e-4)


def test_a_language_model_of_other_tokens_is_refused():
    with pytest.raises(ValueError, match="citrinet lm train"):
        BeamSearchDecoder(["▁x", "y"], train(TEXTS, 2))


def hot_word_score(words, text, boost):
    """What hot words add to a text that has ended: their characters, each word where it first ends, longest first."""
    total, start = 0, 0
    while start < len(text):
        word = next((w for w in sorted(words, key=len, reverse=True) if text.startswith(w, start)), "")
        total += boost * len(word)
        start += len(word) or 1
    return total


@pytest.mark.parametrize("words", [["abc"], ["ab", "cab"], ["bb", "ca"], ["aaa"], ["abca", "bb"]])
def test_hot_words_add_their_boost_and_nothing_else(everything, words):
    """Of words that do not overlap within a text; what has begun and is not whole adds nothing."""
    log_probs = outputs(5, len(PIECES), seed=1)
    decoder = BeamSearchDecoder(PIECES, hot_words=words, hot_word_boost=1.5, beam_size=10_000)
    sums, _ = all_paths(log_probs)
    for reading in decoder.n_best(log_probs, 10_000):
        text = written(PIECES, reading.tokens)
        occurrences = [(m, m + len(w)) for w in words for m in range(len(text)) if text.startswith(w, m)]
        if any(a < d and c < b for (a, b), (c, d) in itertools.combinations(sorted(occurrences), 2)):
            continue
        expected = sums[tuple(token.id for token in reading.tokens)] + hot_word_score(words, text, 1.5)
        assert reading.score == pytest.approx(expected, abs=1e-4), text


def test_a_word_that_goes_on_to_be_another_counts_once():
    hot = HotWords(["ab", "abc"], PIECES, 2.0)
    states, total = np.zeros(1, np.int64), 0.0
    sums = []
    for piece in (0, 1, 2, 0):
        gains, states = hot.advance(states, np.array([piece]))
        total += float(gains[0])
        sums.append(total - float(hot.unfinished(states)[0]))
    assert sums == [0.0, 4.0, 6.0, 6.0]


def test_hot_words_are_heard_where_the_network_is_unsure():
    pieces = list("汪王环黄说")
    heard = spoken(pieces, list("说王黄"), doubt=0.1)
    for frame, token in ((2, "汪"), (4, "环")):
        heard[frame, pieces.index(token)] = math.log(0.1)
    assert written(pieces, BeamSearchDecoder(pieces)(heard)) == "说王黄"
    assert written(pieces, BeamSearchDecoder(pieces, hot_words=["汪环"])(heard)) == "说汪环"


def test_hot_words_that_cannot_be_written_are_named():
    with pytest.warns(UserWarning, match="cannot write: 汪x"):
        BeamSearchDecoder(list("汪王"), hot_words=["汪x", "王汪"])


def test_hot_words_are_read(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff汪环\n\n# places\n 大庆 \n", encoding="utf-8")
    assert read_hot_words(str(path)) == ["汪环", "大庆"]
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="holds no words"):
        read_hot_words(str(path))
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="UTF-8"):
        read_hot_words(str(path))


@pytest.fixture(scope="module")
def clips():
    lines = (EXAMPLES / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    return [(str(EXAMPLES / entry["audio_filepath"]), entry["text"]) for entry in map(json.loads, lines)]


@pytest.fixture(scope="module")
def recognizer():
    return citrinet.load_recognizer(citrinet.default_model())


def errors(results, clips):
    """Character errors, and entities that are not the right ones."""
    characters = entities = 0
    for result, (_, said) in zip(results, clips, strict=True):
        parsed = parse_transcript(said, find_markers(said))
        characters += character_edits(parsed.transcript, result["transcript"]).errors
        right = {(entity.type, entity.text) for entity in parsed.entities}
        entities += len(right ^ {(entity["type"], entity["text"]) for entity in result["entities"]})
    return characters, entities


def test_the_embedded_model_decodes_with_its_language_model(recognizer, clips):
    assert isinstance(recognizer.decoder, BeamSearchDecoder)
    results = recognizer([path for path, _ in clips], return_timestamps="char")
    recognizer.decoder, own = None, recognizer.decoder
    try:
        greedy = recognizer([path for path, _ in clips], return_timestamps="char")
    finally:
        recognizer.decoder = own
    (with_model, entities), (without, entities_without) = errors(results, clips), errors(greedy, clips)
    assert with_model < without and entities < entities_without
    for ours, theirs in zip(results, greedy, strict=True):
        assert {c: tag["label"] for c, tag in ours["tags"].items()} == {
            c: tag["label"] for c, tag in theirs["tags"].items()
        }
        if ours["transcript"] == theirs["transcript"]:
            times = [[chunk["timestamp"] for chunk in result["chunks"]] for result in (ours, theirs)]
            assert np.abs(np.array(times[0]) - np.array(times[1])).max() <= 0.08  # two frames


def test_decoding_is_chosen(clips, tmp_path):
    load, model, path = citrinet.load_recognizer, citrinet.default_model(), clips[3][0]
    assert load(model, decoder=DecodingOptions("none")).decoder is None
    several = load(model, decoder=DecodingOptions(alternatives=3, hot_words=["汪环"], hot_word_boost=6.0))
    (segment,) = several(path)["segments"]
    assert len(segment["alternatives"]) == 3
    assert segment["alternatives"][0]["text"] == segment["text"]
    assert "汪环" in segment["transcript"]
    scores = [reading["score"] for reading in segment["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(ValueError, match="larger beam"):
        DecodingOptions(alternatives=10, beam_size=5)


@pytest.fixture
def with_language_model(tiny_dir, tmp_path):
    """`tiny_dir` and a language model of its pieces."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_dir, folder)
    pieces = citrinet.load_recognizer(tiny_dir).pieces
    with (folder / "language_model.npz").open("wb") as file:
        train([[piece, pieces[0]] for piece in pieces], 2).save(file)
    return folder


def test_graphs_decode_as_the_network_does(with_language_model, tiny_onnx_dir, tmp_path):
    graphs = tmp_path / "graphs"
    shutil.copytree(tiny_onnx_dir, graphs)
    samples = synthetic_speech(2.0)
    greedy = citrinet.load_recognizer(graphs)
    assert greedy.decoder is None
    shutil.copy(with_language_model / "language_model.npz", graphs)
    results = [citrinet.load_recognizer(folder)(samples) for folder in (with_language_model, graphs)]
    assert results[0]["text"] == results[1]["text"] != greedy(samples)["text"]


def test_export_takes_the_language_model_along(with_language_model, tmp_path, monkeypatch):
    hf_to_onnx = pytest.importorskip("citrinet.convert.hf_to_onnx")
    monkeypatch.setattr(hf_to_onnx, "_write_graphs", lambda *_: None)  # most of a minute
    monkeypatch.setattr(hf_to_onnx, "_difference", lambda *_: 0.0)
    for _ in range(2):  # the second one replaces the first
        output = hf_to_onnx.export_onnx(with_language_model, tmp_path / "graphs", force=True).output
        exported, own = (folder / "language_model.npz" for folder in (output, with_language_model))
        assert exported.read_bytes() == own.read_bytes()


@pytest.mark.slow
def test_command_decodes_as_it_is_told(clips, tmp_path, capsys):
    path = clips[3][0]

    def transcribe(*options):
        assert main(["transcribe", path, "--json", *map(str, options)]) == 0
        return json.loads(capsys.readouterr().out)

    own, greedy = transcribe(), transcribe("--lm", "none")
    assert own["transcript"] != greedy["transcript"] and "alternatives" not in own["segments"][0]
    model = train([list("提醒我凌晨十一点给王煌回电话")] * 3, 3)
    with (tmp_path / "lm.arpa").open("w", encoding="utf-8") as file:
        arpa.write(model, file)
    other = transcribe("--lm", tmp_path / "lm.arpa", "--lm-weight", "0.5", "--word-bonus", "1")
    assert "王煌" in other["transcript"]
    (tmp_path / "words.txt").write_text("汪环\n", encoding="utf-8")
    named = transcribe("--hot-words", tmp_path / "words.txt", "--hot-word-boost", "6", "--n-best", "2")
    assert "汪环" in named["transcript"] and len(named["segments"][0]["alternatives"]) == 2
    assert main(["transcribe", path, "--n-best", "3"]) == 0
    assert capsys.readouterr().out.count("ENTITY_TIME") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lm", "none.arpa"], "no language model none.arpa"),
        (["--lm", str(EXAMPLES / "clips.jsonl")], "no ARPA file"),
        (["--hot-words", "none.txt"], "none.txt"),
        (["--n-best", "40"], "larger beam"),
    ],
)
def test_command_refuses(options, message, capsys):
    assert main(["transcribe", str(EXAMPLES / "bus.flac"), *options]) == 1
    assert message in capsys.readouterr().err
