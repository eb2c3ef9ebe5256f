"""When texts are said: paths against enumeration and torchaudio, tokens against SentencePiece's, known times."""

import io
import itertools
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile
from transformers import AutoTokenizer

import citrinet
from citrinet import formats
from citrinet.alignment import TextTokenizer, align_waveform, best_path
from citrinet.cli import main
from citrinet.manifest import read_manifest

ROOT = Path(__file__).parents[1]
CLIPS = ROOT / "examples" / "clips.jsonl"
BUS = ROOT / "examples" / "bus.flac"
MODEL = citrinet.default_model()


def random_emissions(rng, frames, columns):
    emissions = rng.normal(0, 3, (frames, columns))
    return (emissions - np.log(np.exp(emissions).sum(axis=1, keepdims=True))).astype(np.float32)


# Paths


def test_no_path_is_likelier():
    rng = np.random.default_rng(0)
    for _ in range(20):
        emissions, labels = random_emissions(rng, 6, 3), rng.integers(1, 3, rng.integers(1, 4))
        best, expected = -np.inf, None
        for path in itertools.product(range(3), repeat=6):
            runs = [(label, len(list(run))) for label, run in itertools.groupby(path)]
            if [label for label, _ in runs if label] != labels.tolist():
                continue
            score = emissions[range(6), path].sum(dtype=np.float64)
            if score > best:
                ends = np.cumsum([length for _, length in runs])
                spans = [[end - n, end] for (label, n), end in zip(runs, ends, strict=True) if label]
                best, expected = score, spans
        if expected is None:
            with pytest.raises(ValueError, match="too long for the audio"):
                best_path(emissions, labels)
            continue
        assert best_path(emissions, labels, "numpy").tolist() == expected


@pytest.mark.parametrize("frames", [30, 700])
def test_numpy_finds_the_path_of_torchaudio(frames):
    rng = np.random.default_rng(frames)
    for _ in range(40):
        columns = int(rng.integers(2, 9))
        labels = rng.integers(1, columns, rng.integers(1, frames // 3))
        emissions = random_emissions(rng, frames, columns)
        found = [best_path(emissions, labels, backend) for backend in ("numpy", "torchaudio")]
        np.testing.assert_array_equal(*found)
        assert (found[0][:, 0] < found[0][:, 1]).all() and (found[0][1:, 0] >= found[0][:-1, 1]).all()


def test_without_torchaudio_numpy_finds_the_path(monkeypatch):
    emissions = random_emissions(np.random.default_rng(0), 50, 4)
    labels = np.array([1, 1, 2, 3])
    expected = best_path(emissions, labels, "torchaudio")
    monkeypatch.setitem(sys.modules, "torchaudio.functional", None)
    np.testing.assert_array_equal(best_path(emissions, labels), expected)


def test_repeated_tokens_need_a_blank_between():
    assert len(best_path(random_emissions(np.random.default_rng(0), 5, 2), np.array([1, 1, 1]))) == 3
    with pytest.raises(ValueError, match="3 tokens need at least 5 frames, there are 4"):
        best_path(random_emissions(np.random.default_rng(0), 4, 2), np.array([1, 1, 1]))


# Tokens


TEXTS = ["今天北京的天气怎么样", "the quick brown fox let it be", "请播放 let it be 吧", "附近有没有去北山的公交车"]


def pieces_of(tokenizer):
    vocabulary = tokenizer.get_vocab()
    return sorted((piece for piece in vocabulary if piece != tokenizer.pad_token), key=vocabulary.get)


@pytest.mark.parametrize("fixture", ["zh_small_dir", "base_small_dir"])
def test_tokens_of_bpe_are_sentencepieces(fixture, request):
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(fixture))
    pieces = pieces_of(tokenizer)
    tokens = TextTokenizer(pieces)
    for text in TEXTS:
        expected = [i for i in tokenizer(text)["input_ids"] if i != tokenizer.unk_token_id and pieces[i] != "▁"]
        assert [token.id for token in tokens(text)] == expected


@pytest.mark.slow
def test_tokens_of_unigram_are_nearly_sentencepieces():
    texts = [entry.text for entry in read_manifest(CLIPS)] + TEXTS
    words = [
        w
        for n in range(300)
        for w in (f"{a}{b}" for a in ("re", "un", "co", "in") for b in ("do", "ing", "able", str(n)))
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts + words), model_writer=model, vocab_size=120, model_type="unigram",
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(index) for index in range(len(processor))]
    same = [
        [token.id for token in TextTokenizer(pieces)(word)] == [i for i in processor.encode(word) if pieces[i] != "▁"]
        for word in words
    ]
    assert np.mean(same) > 0.9


def test_tokens_know_their_characters():
    pieces = ["<unk>", "▁", "a", "b", "▁a", "ab", "我", "END", "ENTITY_SONG_NAME", "吻"]
    text = "我ＡＢ 吻x，A"
    tokens = TextTokenizer(pieces)(text)
    assert [(pieces[token.id], text[token.first : token.stop]) for token in tokens] == [
        ("我", "我"), ("ab", "ＡＢ"), ("吻", "吻"), ("a", "A")
    ]  # fmt: skip


# Times


class Spoken:
    """A recogniser of one recording, in which tokens peak in given frames of 40 ms."""

    pieces = ["<unk>", "▁", *"来首歌吻别我好", "ENTITY_SONG_NAME", "END"]
    frame_s, sampling_rate = 0.04, 16000

    def __init__(self, said, frames=50):
        self.said, self.frames = said, frames

    def load(self, source):
        return source

    def log_probs(self, waveform):
        probabilities = np.full((self.frames, len(self.pieces) + 1), 1e-6, np.float32)
        probabilities[:, -1] = 1
        for frame, piece in self.said.items():
            probabilities[frame, -1], probabilities[frame, self.pieces.index(piece)] = 1e-6, 1
        return np.log(probabilities / probabilities.sum(axis=1, keepdims=True))


def aligned(said, text, **options):
    return align_waveform(Spoken(said), np.zeros(32000, np.float32), text, **options)


SONG = {5: "来", 9: "首", 13: "歌", 30: "吻", 34: "别"}


@pytest.mark.parametrize("backend", ["numpy", "torchaudio"])
def test_a_character_begins_before_its_peak_and_lasts_to_the_next(backend):
    alignment = aligned(SONG, "来首歌吻别", backend=backend)
    assert [chunk["text"] for chunk in alignment["chunks"]] == list("来首歌吻别")
    times = [(0.16, 0.32), (0.32, 0.48), (0.48, 0.66), (1.16, 1.32), (1.32, 1.5)]
    assert [chunk["timestamp"] for chunk in alignment["chunks"]] == times
    assert all(chunk["said"] and chunk["known"] and chunk["confidence"] > 0.99 for chunk in alignment["chunks"])


def test_markers_in_the_text_or_in_what_is_heard_change_no_time():
    plain = aligned(SONG, "来首歌吻别")["chunks"]
    marked = "来首歌 ENTITY_SONG_NAME 吻别 END"
    heard = {**SONG, 28: "ENTITY_SONG_NAME", 36: "END", 2: "▁"}
    for said, text in ((SONG, marked), (heard, marked), (heard, "来首歌吻别")):
        assert aligned(said, text)["chunks"] == plain
    (entity,) = aligned(SONG, marked)["entities"]
    assert (entity["type"], entity["text"], entity["start"], entity["end"]) == ("SONG_NAME", "吻别", 3, 5)
    assert entity["timestamp"] == pytest.approx((1.16, 1.5)) and entity["said"]


def test_characters_that_the_model_cannot_write():
    chunks = aligned(SONG, "来首歌，x1吻别。")["chunks"]
    found = {chunk["text"]: chunk for chunk in chunks}
    assert found["，"]["timestamp"] == (0.66, 0.66) and not found["，"]["known"] and found["，"]["said"]
    assert found["x"]["timestamp"] == pytest.approx((0.66, 0.91)) and not found["x"]["known"]
    assert found["1"]["timestamp"] == pytest.approx((0.91, 1.16)) and found["1"]["confidence"] == 0
    between = aligned(SONG, "来1首歌吻别")["chunks"]
    assert between[0]["timestamp"] == pytest.approx((0.16, 0.24)) and between[1]["timestamp"] == pytest.approx(
        (0.24, 0.32)
    )
    for text in ("《来首歌", "12来首歌", "来首歌..."):
        times = [time for chunk in aligned(SONG, text)["chunks"] for time in chunk["timestamp"]]
        assert times == sorted(times) and times[-1] <= 2


def test_what_was_not_said_is_flagged():
    alignment = aligned(SONG, "来首好歌 ENTITY_SONG_NAME 我好 END 吻别")
    assert [chunk["text"] for chunk in alignment["chunks"] if not chunk["said"]] == ["好", "我", "好"]
    assert not alignment["entities"][0]["said"] and alignment["confidence"] == pytest.approx(5 / 8, abs=0.01)
    times = [time for chunk in alignment["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times)


def test_what_the_text_leaves_out_is_passed_over():
    chunks = aligned(SONG | {20: "我", 22: "好", 24: "我"}, "来首歌吻别")["chunks"]
    assert [chunk["timestamp"] for chunk in chunks] == [c["timestamp"] for c in aligned(SONG, "来首歌吻别")["chunks"]]


def test_lines_are_segments_and_formats_take_alignments():
    alignment = aligned(SONG, "来首歌，\n\n ENTITY_SONG_NAME 吻别 END \n")
    assert [(one["transcript"], one["start"]) for one in alignment["segments"]] == [("来首歌，", 0.16), ("吻别", 1.16)]
    assert "SONG_NAME" in alignment["segments"][1]["text"] and alignment["transcript"] == "来首歌，\n吻别"
    assert json.loads(formats.to_text(alignment, "json"))["words"][0]["text"] == "来"
    assert formats.to_text(alignment, "tsv").splitlines()[1:] == ["160\t993\t来首歌，", "1160\t1993\t吻别"]
    assert formats.to_text(alignment, "ctm").splitlines()[2].startswith("audio 1 0.480 0.180 歌， 1.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "no text to align"),
        ("abc", "knows no character of the text 'abc'"),
        ("来" * 40, "too long for the audio"),
    ],
)
def test_texts_that_cannot_be_aligned(text, message):
    with pytest.raises(ValueError, match=message):
        aligned(SONG, text)


# Models


@pytest.fixture(scope="module")
def recognizer():
    return citrinet.load_recognizer(MODEL)


@pytest.mark.slow
def test_onnx_finds_the_times_of_pytorch(tiny_dir, tiny_onnx_dir):
    samples = citrinet.load_audio(BUS)
    heard = citrinet.load_recognizer(tiny_dir)(samples)["transcript"]
    found = [citrinet.align(model, samples, heard) for model in (tiny_dir, tiny_onnx_dir)]
    times = [[chunk["timestamp"] for chunk in alignment["chunks"]] for alignment in found]
    assert len(times[0]) > 2 and times[0] == times[1]


@pytest.mark.slow
def test_peaks_are_those_that_were_recognised(recognizer):
    for entry in read_manifest(CLIPS):
        heard = recognizer(entry.audio, return_timestamps="char")
        chunks = citrinet.align(recognizer, entry.audio, heard["transcript"])["chunks"]
        for chunk, recognised in zip(chunks, heard["chunks"], strict=True):
            start, end = recognised["timestamp"]
            assert chunk["timestamp"][0] == pytest.approx((start + end) / 2 - 0.06, abs=0.041)
            assert chunk["said"]


@pytest.mark.slow
def test_a_word_that_was_not_said_is_found(recognizer):
    text = "附近有没有去 ENTITY_LOCATION 天津 END 的公交车"
    alignment = citrinet.align(recognizer, BUS, text)
    assert [word["text"] for word in alignment["words"] if not word["said"]] == ["天", "津"]
    assert not alignment["entities"][0]["said"]


@pytest.mark.slow
def test_a_long_recording_with_its_whole_text(recognizer):
    """Clips one after the other, with pauses and without: each text lies in its clip."""
    waveforms, texts, borders = [], [], [0.0]
    for entry in list(read_manifest(CLIPS)) * 3:
        samples = citrinet.load_audio(entry.audio)
        waveforms += [samples, np.zeros(8000 * (len(texts) % 2), np.float32)]
        texts.append(entry.text)
        borders.append(borders[-1] + (len(samples) + len(waveforms[-1])) / 16000)
    audio = np.concatenate(waveforms)
    assert len(audio) > 50 * 16000
    alignment = citrinet.align(recognizer, audio, "\n".join(texts))
    for segment, (start, end) in zip(alignment["segments"], pairwise(borders), strict=True):
        assert start <= segment["start"] < segment["end"] <= end + 0.05
    by_numpy = citrinet.align(recognizer, audio, "\n".join(texts), backend="numpy")
    assert by_numpy == alignment


# The command


@pytest.mark.slow
def test_align_a_text_file(tmp_path, capsys):
    srt = pytest.importorskip("srt")
    text = tmp_path / "bus.txt"
    text.write_text("附近有没有去\nENTITY_LOCATION 天津 END 的公交车", encoding="utf-8")
    assert main(["align", str(BUS), str(text), "--format", "srt"]) == 0
    captured = capsys.readouterr()
    assert (
        "".join(subtitle.content for subtitle in srt.parse(captured.out)).replace(" ", "") == "附近有没有去天津的公交车"
    )
    assert "likely not said: 天津 (1.44 s)\n" in captured.err


@pytest.mark.slow
def test_align_a_manifest(tmp_path, capsys, monkeypatch):
    lines = [{"audio_filepath": str(BUS), "text": "附近有没有去北山的公交车"}, {"audio_filepath": str(BUS)}]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert main(["align", str(manifest), "--output", str(tmp_path / "out")]) == 1
    assert "no text to align" in capsys.readouterr().err
    (file,) = (tmp_path / "out").iterdir()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["audio"] == str(BUS) and all(word["said"] for word in written["words"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.wav"], "give the file with the text of a.wav, or a manifest"),
        (["examples/clips.jsonl", "a.txt"], "is not one recording"),
        (["a.wav", "nothing.txt"], "nothing.txt"),
        (["a.wav", "bad.txt"], "not a text file in UTF-8"),
    ],
)
def test_wrong_arguments(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    Path("bad.txt").write_bytes("今天".encode("gbk"))
    soundfile.write("a.wav", np.zeros(1600), 16000)
    assert main(["align", *words]) == 1
    assert message in capsys.readouterr().err
