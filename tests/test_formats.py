"""Results as files, read back by other programs' readers: Praat itself, srt, webvtt-py, strict ones for CTM and TSV."""

import csv
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

import citrinet
from citrinet import formats
from citrinet.cli import main
from citrinet.cli.outputs import _paths
from citrinet.cli.sources import Source, find_sources, split_channels
from helpers import synthetic_speech

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "examples" / "bus.flac"


def spoken(text, pauses=(), entities=(), step=0.25, length=0.2, **others):
    """A result whose characters begin every `step` seconds; `pauses`: index of a character -> seconds before it."""
    chunks, time = [], 0.0
    for index, char in enumerate(text):
        time += dict(pauses).get(index, 0.0)
        if not char.isspace():
            chunks.append({"text": char, "timestamp": (round(time, 3), round(time + length, 3)), "confidence": 0.5})
        time += step
    found = [
        {
            "type": kind,
            "text": text[start:end],
            "start": start,
            "end": end,
            "timestamp": (start * step, end * step - 0.05),
        }
        for kind, start, end in entities
    ]
    return {"text": text, "transcript": text, "entities": found, "tags": {}, "chunks": chunks, **others}


SONG = spoken("来首歌《吻 别》<b>{c}\\Nok", pauses=[(3, 1.0)], entities=[("SONG_NAME", 4, 7), ("PERSON_NAME", 4, 5)])
QUIET = spoken("")


def lines_of(result, **options):
    return [line.text for line in formats.cut_lines(result, **options)]


def test_lines_hold_twenty_chinese_characters_or_forty_two_letters():
    chinese = lines_of(spoken("甲" * 55, step=0.2))
    assert "".join(chinese) == "甲" * 55 and len(chinese) == 3 and max(map(len, chinese)) <= 20
    words = "the quick brown fox jumps over the lazy dog and runs away from the angry bear today"
    latin = lines_of(spoken(words, step=0.05, length=0.04))
    assert " ".join(latin) == words and min(map(len, latin)) >= 25 and max(map(len, latin)) <= 42


def test_a_latin_word_is_never_cut():
    long = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"
    assert lines_of(spoken(f"我在{long}买了", step=0.05, length=0.04)) == ["我在", long, "买了"]
    for before in range(25):
        assert any(
            "rock'n'roll" in line for line in lines_of(spoken("甲" * before + "rock'n'roll" + "乙" * 5, step=0.1))
        )


def test_brackets_stay_with_what_they_open():
    lines = lines_of(spoken("甲" * 19 + "《吻别》" + "乙" * 5, step=0.1))
    assert "".join(lines) == "甲" * 19 + "《吻别》" + "乙" * 5 and not any(line.endswith("《") for line in lines)


def test_a_pause_ends_a_line_and_a_short_one_is_where_it_breaks():
    assert lines_of(spoken("来首歌请放大声", pauses=[(3, 0.7)])) == ["来首歌", "请放大声"]
    assert lines_of(spoken("来首歌请放大声", pauses=[(3, 0.5)])) == ["来首歌请放大声"]
    assert lines_of(spoken("甲" * 12 + "乙" * 12, pauses=[(12, 0.4)], step=0.2)) == ["甲" * 12, "乙" * 12]


def test_lines_break_after_punctuation():
    text = "今天天气很好，我们一起去公园散步吧。然后回家吃饭。"
    assert lines_of(spoken(text, step=0.2)) == ["今天天气很好，我们一起去公园散步吧。", "然后回家吃饭。"]


def test_an_entity_is_cut_only_if_it_is_longer_than_a_line():
    text = "请播放" + "甲" * 14 + "月亮代表我的心" + "谢谢"
    assert "月亮代表我的心" in "\n".join(lines_of(spoken(text, entities=[("SONG_NAME", 17, 24)], step=0.2)))
    lines = lines_of(spoken("甲" * 45, entities=[("SONG_NAME", 0, 45)], step=0.1))
    assert len(lines) == 3 and max(map(len, lines)) <= 20


def test_a_line_lasts_as_long_as_it_takes_to_see_it():
    short = spoken("好是", pauses=[(1, 0.7)], length=0.05)
    first, second = formats.cut_lines(short)
    assert first.end == pytest.approx(5 / 6) and second.end - second.start == pytest.approx(5 / 6)
    assert formats.cut_lines(short, duration=1.2)[-1].end == 1.2
    slow = formats.cut_lines(spoken("甲" * 20, step=0.7, length=0.2))
    assert all(line.end - line.start <= 7 for line in slow) and len(slow) == 2


def test_an_hour_of_lines():
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("甲乙丙丁，。a b"), 14_000))
    result = spoken(text, pauses={int(i): 0.9 for i in rng.choice(14_000, 500, replace=False)})
    lines = formats.cut_lines(result)
    assert "".join("".join(line.text.split()) for line in lines) == "".join(text.split())
    assert all(before.end <= after.start for before, after in pairwise(lines))


@pytest.mark.parametrize("unit", ["char", "word"])
def test_words_are_those_of_the_transcript(unit):
    result = spoken("播放 let it be，谢谢")
    if unit == "word":
        result["chunks"] = [{"text": w.text, "timestamp": (w.start, w.end)} for w in formats.find_words(result)]
    words = formats.find_words(result)
    assert [word.text for word in words] == ["播", "放", "let", "it", "be，", "谢", "谢"]
    assert (words[2].start, words[2].end) == (0.75, 1.45)
    assert [result["transcript"][word.first : word.stop] for word in words] == [word.text for word in words]


def test_srt_is_read_by_srt():
    srt = pytest.importorskip("srt")
    subtitles = list(srt.parse(formats.to_text(SONG, "srt")))
    assert [subtitle.content.replace("\u2060", "") for subtitle in subtitles] == ["来首歌", "《吻 别》<b>{c}\\Nok"]
    assert [subtitle.index for subtitle in subtitles] == [1, 2]
    assert subtitles[0].start.total_seconds() == 0 and subtitles[0].end.total_seconds() == 0.833
    assert subtitles[1].start.total_seconds() == 1.75
    assert formats.to_text(QUIET, "srt") == "" and not list(srt.parse(""))


def test_vtt_is_read_by_webvtt():
    webvtt = pytest.importorskip("webvtt")
    captions = webvtt.from_string(formats.to_text(SONG, "vtt")).captions
    assert captions[1].raw_text.replace("\u2060", "") == "《吻 别》&lt;b&gt;{c}\\Nok"
    assert (captions[0].start, captions[0].end) == ("00:00:00.000", "00:00:00.833")
    assert formats.to_text(QUIET, "vtt").strip() == "WEBVTT"


def test_textgrid_is_read_by_praat(tmp_path):
    parselmouth = pytest.importorskip("parselmouth")
    segments = [{"text": "x", "transcript": 'say "来"', "start": 0.0, "end": 3.2, "tags": {}, "confidence": 0.5}]
    path = formats.write({**SONG, "segments": segments}, tmp_path / "a.TextGrid", duration=6.0)
    grid = parselmouth.read(str(path))
    call = parselmouth.praat.call
    assert grid.xmax == 6.0 and call(grid, "Get number of tiers") == 5
    tiers = {}
    for tier in range(1, 6):
        count = call(grid, "Get number of intervals", tier)
        labels = [call(grid, "Get label of interval", tier, index + 1) for index in range(count)]
        tiers[call(grid, "Get tier name", tier)] = [label for label in labels if label]
    assert tiers["characters"] == [char for char in SONG["transcript"] if char != " "]
    assert tiers["words"] == ["来", "首", "歌", "《吻", "别》<", "b>", "{c}\\Nok"]
    assert tiers["entities"] == ["SONG_NAME: 吻 别"] and tiers["entities 2"] == ["PERSON_NAME: 吻"]
    assert tiers["segments"] == ['say "来"']
    empty = parselmouth.read(str(formats.write(QUIET, tmp_path / "b.TextGrid", duration=1.5)))
    assert empty.xmax == 1.5 and call(empty, "Get number of intervals", 1) == 1


def read_ctm(text):
    """NIST's `ctm` as sclite reads it: five columns and a confidence, sorted by start within a recording."""
    rows = [line.split(" ") for line in text.splitlines()]
    assert all(len(row) == 6 for row in rows)
    words = [(row[0], row[1], float(row[2]), float(row[3]), row[4], float(row[5])) for row in rows]
    assert all(before[:2] != after[:2] or before[2] <= after[2] for before, after in pairwise(words))
    assert all(start >= 0 and length >= 0 and 0 <= score <= 1 for _, _, start, length, _, score in words)
    return words


def test_ctm():
    words = read_ctm(formats.to_text(SONG, "ctm", name="my talk", channel=2))
    assert words[0] == ("my_talk", "2", 0.0, 0.2, "来", 0.5)
    assert "".join(word[4] for word in words) == SONG["transcript"].replace(" ", "")
    assert formats.to_text(QUIET, "ctm") == ""
    unknown = {**SONG, "chunks": [{"text": "来", "timestamp": (0, 1)}]}
    assert formats.to_text(unknown, "ctm") == "audio 1 0.000 1.000 来 NA\n"


def test_tsv_has_whispers_columns():
    rows = list(csv.DictReader(formats.to_text(SONG, "tsv").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[1] == {"start": "1750", "end": "5450", "text": "《吻 别》<b>{c}\\Nok"}
    assert formats.to_text(QUIET, "tsv") == "start\tend\ttext\n"


def test_text_and_json():
    segments = [{"transcript": text} for text in ("来首歌", "谢谢")]
    assert formats.to_text({**SONG, "segments": segments}, "text") == "来首歌\n谢谢\n"
    assert formats.to_text(QUIET, "text") == ""
    assert json.loads(formats.to_text(SONG, "json"))["entities"] == json.loads(json.dumps(SONG["entities"]))


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = formats.write(SONG, tmp_path / "a.srt")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no times"):
        formats.write({key: value for key, value in SONG.items() if key != "chunks"}, path)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        formats.write(QUIET, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_format_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"does not say its format.*\.srt"):
        formats.write(SONG, tmp_path / "a.doc")
    with pytest.raises(ValueError, match="no format 'doc': use text, json"):
        formats.to_text(SONG, "doc")


@pytest.mark.parametrize(("kind", "library"), [("srt", "pysubs2"), ("textgrid", "praatio")])
def test_a_missing_library_is_named(kind, library, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "praatio.textgrid", raising=False)
    assert main(["transcribe", "--format", kind, str(CLIP)]) == 1
    assert f'needs {library}: pip install "citrinet[formats]"' in capsys.readouterr().err


@pytest.mark.slow
def test_no_library_is_loaded_with_the_package():
    found = "print([n for n in ('pysubs2', 'praatio') if n in sys.modules])"
    code = f"import sys, citrinet, citrinet.formats; {found}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Where files go.


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("talks/a.wav", "talks/more/a.wav", "talks/b.wav", "talks/b.flac", "other/a.wav"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(name, synthetic_speech(0.5), 16000)
    return tmp_path


def names(*arguments, folder="out", suffix=".srt"):
    sources = [source for argument in arguments for source in find_sources(argument)]
    return [path.as_posix() for path in _paths(sources, folder, suffix)]


def test_a_folder_keeps_its_structure(recordings):
    assert names("talks") == ["out/a.srt", "out/b.flac.srt", "out/b.wav.srt", "out/more/a.srt"]


def test_no_two_recordings_share_a_file(recordings):
    assert names("talks/a.wav", "other/a.wav") == ["out/talks/a.wav.srt", "out/other/a.wav.srt"]
    assert names("talks/a.wav", "talks/a.wav") == ["out/a.srt", "out/a-2.srt"]
    assert names("../outside/A.wav", "other/a.wav", "http://host/a.wav")[:2] == [
        "out/outside/A.wav.srt",
        "out/other/a.wav.srt",
    ]
    rng = np.random.default_rng(0)
    for _ in range(20):
        given = [str(name) for name in rng.choice(["talks", "other", "talks/a.wav", "talks/b.flac", "a", "a.wav"], 5)]
        found = [name.casefold() for name in names(*given)]
        assert len(set(found)) == len(found) and all(".." not in Path(name).parts for name in found)


def test_segments_and_channels_have_files_of_their_own(recordings):
    segments = [{"offset": 0.0, "duration": 1.5}, {"offset": 1.5, "duration": 0.25}, {}]
    lines = [{"audio_filepath": "talks/a.wav", **segment} for segment in segments]
    Path("list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert names("list.jsonl") == ["out/a_0-1.5s.srt", "out/a_1.5-1.75s.srt", "out/a.srt"]
    soundfile.write("two.wav", np.zeros((8000, 2)), 16000)
    sources = split_channels(find_sources("two.wav")[0])
    assert [path.name for path in _paths(sources, "out", ".ctm")] == ["two_channel-0.ctm", "two_channel-1.ctm"]


def test_beside_the_recordings(recordings):
    assert names("talks", "other/a.wav", folder=None, suffix=".vtt") == [
        "talks/a.vtt", "talks/b.flac.vtt", "talks/b.wav.vtt", "talks/more/a.vtt", "other/a.vtt"
    ]  # fmt: skip
    address = Source("http://host/a.wav", find_sources("http://host/a.wav")[0].audio, "a.wav")
    with pytest.raises(ValueError, match="no folder to write to: give --output"):
        _paths([address], None, ".srt")


def transcribe(*arguments):
    return main(["transcribe", *map(str, arguments)])


def test_what_is_printed_is_one_file(recordings, capsys):
    assert transcribe("--format", "srt", "talks") == 1
    assert "4 recordings cannot be printed as one srt file" in capsys.readouterr().err


@pytest.mark.slow
def test_formats_of_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    webvtt = pytest.importorskip("webvtt")
    assert transcribe("--format", "vtt", CLIP) == 0
    (caption,) = webvtt.from_string(capsys.readouterr().out).captions
    recognised = citrinet.load_recognizer(citrinet.default_model())(CLIP, return_timestamps="char")
    assert caption.text == recognised["transcript"]
    assert transcribe("--format", "ctm", CLIP, ROOT / "examples" / "song.flac") == 0
    files = {word[0] for word in read_ctm(re.sub(r" NA$", " 0.5", capsys.readouterr().out, flags=re.MULTILINE))}
    assert files == {"bus", "song"}
    assert transcribe("--json", "--timestamps", "char", CLIP) == 0
    assert json.loads(capsys.readouterr().out)["transcript"] == recognised["transcript"]


@pytest.mark.slow
def test_files_are_not_replaced_unasked(recordings, tiny_dir, capsys):
    command = ["--model", tiny_dir, "--format", "json", "--output", "out", "talks"]
    assert transcribe(*command) == 0
    files = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.json"))
    assert files == ["a.json", "b.flac.json", "b.wav.json", "more/a.json"]
    assert json.loads(Path("out/more/a.json").read_text())["audio"] == str(Path("talks/more/a.wav"))
    Path("out/a.json").write_text("my notes")
    assert transcribe(*command) == 1
    assert "exists: write to another place, or replace it with --force" in capsys.readouterr().err
    assert Path("out/a.json").read_text() == "my notes"
    assert transcribe(*command, "--force") == 0
    assert json.loads(Path("out/a.json").read_text())["audio"] == str(Path("talks/a.wav"))
    assert transcribe("--model", tiny_dir, "--format", "text", "--beside", "talks") == 0
    assert all(Path(name).is_file() for name in ("talks/a.txt", "talks/b.wav.txt", "talks/more/a.txt"))
    assert not capsys.readouterr().out


def test_an_output_that_is_a_file_is_found_out_before_the_work(recordings, capsys):
    assert transcribe("--model", "nowhere", "--format", "ctm", "--output", "talks/a.wav", "other") == 1
    assert "talks/a.wav" in capsys.readouterr().err and Path("talks/a.wav").is_file()


def test_neither_links_nor_folders_nor_recordings_are_replaced(recordings, capsys):
    Path("out/b").mkdir(parents=True)
    Path("out/a.srt").symlink_to(recordings / "talks/a.wav")
    assert transcribe("--format", "srt", "--output", "out", "--force", "talks/a.wav") == 1
    assert "no plain file" in capsys.readouterr().err
    Path("talks/c.txt").write_bytes(Path("talks/a.wav").read_bytes())
    assert transcribe("--format", "text", "--beside", "--force", "talks/c.txt") == 1
    assert "is the recording" in capsys.readouterr().err
