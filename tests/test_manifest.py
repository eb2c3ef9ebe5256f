"""Manifests: encodings, paths, times and channels, as NeMo reads them."""

import json
from pathlib import Path

import pytest

from citrinet.manifest import read_manifest


@pytest.fixture
def write(tmp_path):
    """Write a manifest, of bytes, text or columns."""

    def write(content, name="m.jsonl"):
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join(json.dumps(columns) for columns in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


LINE = '{"audio_filepath": "a.wav", "text": "%s"}'


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x1c", "\x0b", "\x0c", "\r"])
def test_only_a_newline_ends_a_line(write, separator):
    text = f"one{separator}two"
    lines = "\n".join(json.dumps({"audio_filepath": "a.wav", "text": text}, ensure_ascii=False) for _ in range(2))
    assert [entry.text for entry in read_manifest(write(lines))] == [text, text]


def test_byte_order_mark_crlf_and_blank_lines(write):
    content = b"\xef\xbb\xbf" + (LINE % "附近" + "\r\n\r\n  \r\n" + LINE % "二" + "\r\n").encode()
    assert [entry.text for entry in read_manifest(write(content))] == ["附近", "二"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "gbk", "big5"])
def test_other_encodings_are_named_as_such(write, encoding):
    manifest = write("\n".join([LINE % "ok", LINE % "北山公交"]).encode(encoding))
    with pytest.raises(ValueError, match=r"convert.* UTF-8") as caught:
        read_manifest(manifest)
    assert str(manifest) in str(caught.value) and "\n" not in str(caught.value)
    if encoding in ("gbk", "big5"):
        assert "line 2" in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_an_empty_manifest(write, content):
    with pytest.raises(ValueError, match="the manifest is empty"):
        read_manifest(write(content))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(write, indent):
    content = json.dumps([{"audio_filepath": "a.wav"}], indent=indent)
    with pytest.raises(ValueError, match=r"m\.jsonl is a JSON array: .*one JSON object a line"):
        read_manifest(write(content))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ('{"audio_filepath": "a.wav"} {}', "no JSON"),
        ('"a.wav"', "a JSON object is expected"),
        ("null", "a JSON object is expected"),
        ('{"a":' * 100_000, "brackets"),
        ('{"text": "x"}', "audio_filepath"),
        ('{"audio_filepath": ""}', "audio_filepath"),
        ('{"audio_filepath": ["a.wav", "b.wav"]}', "audio_filepath"),
        ('{"audio_filepath": 3}', "audio_filepath"),
        ('{"audio_filepath": "a", "offset": "1.5"}', "offset"),
        ('{"audio_filepath": "a", "offset": -0.1}', "offset"),
        ('{"audio_filepath": "a", "offset": NaN}', "offset"),
        ('{"audio_filepath": "a", "offset": true}', "offset"),
        ('{"audio_filepath": "a", "offset": Infinity}', "offset"),
        ('{"audio_filepath": "a", "offset": 1%s}' % ("0" * 400), "offset"),
        ('{"audio_filepath": "a", "duration": [1]}', "duration"),
        ('{"audio_filepath": "a", "duration": -1}', "duration"),
        ('{"audio_filepath": "a", "channel_selector": "left"}', "channel_selector"),
        ('{"audio_filepath": "a", "channel_selector": -1}', "channel_selector"),
        ('{"audio_filepath": "a", "channel_selector": 0.0}', "channel_selector"),
        ('{"audio_filepath": "a", "channel_selector": true}', "channel_selector"),
        ('{"audio_filepath": "a", "channel_selector": [0, 1]}', "channel_selector"),
    ],
)
def test_a_damaged_line_is_named(write, line, said):
    manifest = write(LINE % "good" + "\n\n" + line + "\n" + LINE % "good")
    with pytest.raises(ValueError, match=f"m.jsonl, line 3: .*{said}") as caught:
        read_manifest(manifest)
    assert len(str(caught.value).removeprefix(str(manifest))) < 200 and "\n" not in str(caught.value)


def test_segments_and_channels(write):
    rows = [
        {"offset": 1, "duration": 2.5, "channel_selector": 1, "speaker": "s"},
        {"offset": None, "duration": None, "channel_selector": None},
        {"channel_selector": "average"},
        {"channel_selector": [2]},
        {},
    ]
    entries = read_manifest(write([{"audio_filepath": "/a.wav", **row} for row in rows]))
    assert [(entry.offset, entry.duration, entry.channel) for entry in entries] == [
        (1.0, 2.5, 1),
        (0.0, None, None),
        (0.0, None, None),
        (0.0, None, 2),
        (0.0, None, None),
    ]
    assert entries[0].columns == {"speaker": "s"}
    segment = entries[0].segment
    assert (segment.source, segment.offset, segment.duration, segment.channel) == (Path("/a.wav"), 1.0, 2.5, 1)


def test_where_relative_paths_start(write, tmp_path, monkeypatch):
    here, home = tmp_path / "here", tmp_path / "home"
    for place in (tmp_path, here, home):
        (place / "clips").mkdir(parents=True)
    (here / "clips" / "both.wav").touch()
    (tmp_path / "clips" / "both.wav").touch()
    (tmp_path / "clips" / "beside.wav").touch()
    (home / "own.wav").touch()
    (tmp_path / "~tilde.wav").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    names = [
        "clips/both.wav",
        "clips/beside.wav",
        "clips/nowhere.wav",
        "~/own.wav",
        "~tilde.wav",
        "~no-such-user/x.wav",
    ]
    names += [str(tmp_path / "clips" / "beside.wav"), "http://localhost:9/a.wav?b=c//d", "x" * 300]
    entries = read_manifest(write([{"audio_filepath": name} for name in names]))
    found = [entry.audio if isinstance(entry.audio, str) else (here / entry.audio) for entry in entries]
    assert found == [
        here / "clips" / "both.wav",
        tmp_path / "clips" / "beside.wav",
        tmp_path / "clips" / "nowhere.wav",
        home / "own.wav",
        tmp_path / "~tilde.wav",
        tmp_path / "~no-such-user" / "x.wav",
        tmp_path / "clips" / "beside.wav",
        "http://localhost:9/a.wav?b=c//d",
        tmp_path / ("x" * 300),
    ]
