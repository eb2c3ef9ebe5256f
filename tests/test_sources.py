"""What the words of `citrinet transcribe` stand for: files, folders, manifests, addresses, standard input."""

import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from citrinet.cli.sources import find_sources, split_channels


def names(path, **kwargs):
    return [source.name for source in find_sources(str(path), **kwargs)]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "audio"
    place.mkdir()
    return place


@pytest.mark.parametrize(
    "suffix",
    [".mkv", ".mov", ".wma", ".oga", ".w64", ".au", ".aifc", ".caf", ".amr", ".3gp", ".m4b", ".opus", ".mka", ".avi",
     ".ts", ".WAV", ".Mp3", ".flac", ".webm", ".m4a"],
)  # fmt: skip
def test_suffixes_of_a_folder(folder, suffix):
    (folder / f"a{suffix}").touch()
    (folder / "a.txt").touch()
    (folder / "mkv").touch()
    assert names(folder) == [str(folder / f"a{suffix}")]


def test_hidden_files_are_not_taken(folder):
    for name in ("._a.wav", ".b.wav", ".trash/c.wav", "__MACOSX/._a.wav", "good.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert names(folder) == [str(folder / "good.wav")]
    (folder / ".trash").rename(folder.parent / ".named")
    assert names(folder.parent / ".named") == [str(folder.parent / ".named" / "c.wav")]


def test_links_are_followed_and_each_folder_is_read_once(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (folder / "real").mkdir()
    (elsewhere / "deep" / "e.wav").touch()
    (folder / "real" / "r.wav").touch()
    (folder / "a-link").symlink_to(elsewhere)
    (folder / "b-link").symlink_to(elsewhere / "deep")  # seen by way of `a-link`
    (folder / "first").symlink_to(folder / "real")  # the folder itself goes before links to it
    (folder / "loop").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    (folder / "file.wav").symlink_to(elsewhere / "deep" / "e.wav")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    found = names(folder)
    assert str(folder / "real" / "r.wav") in found and str(folder / "file.wav") in found
    assert len(found) == 3 and found == sorted(found)
    assert str(folder / "a-link" / "deep" / "e.wav") in found
    (tmp_path / "to-folder").symlink_to(folder)
    assert str(tmp_path / "to-folder" / "file.wav") in names(tmp_path / "to-folder")


def test_names_are_those_that_were_given(folder, monkeypatch):
    (folder / "a.wav").touch()
    monkeypatch.chdir(folder.parent)
    assert names("audio") == names("audio/") == ["audio/a.wav"]
    assert names("./audio") == ["./audio/a.wav"]
    assert names("x//y.wav") == ["x//y.wav"]
    assert names("http://localhost:9/a b.json") == ["http://localhost:9/a b.json"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_of_any_bytes(folder):
    raw = [b"\xbc\xd2.flac", b"new\nline.wav", b"\xff\xfe.wav", "中文.wav".encode()]
    for name in raw:
        (folder / os.fsdecode(name)).touch()
    assert sorted(os.fsencode(name) for name in names(folder)) == sorted(os.fsencode(folder) + b"/" + n for n in raw)


def test_a_folder_with_nothing_in_it(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match="no audio files in this folder"):
        find_sources(str(folder))


def test_standard_input_is_read_whole(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"content")))
    [source] = find_sources("-", channel=1)
    assert (source.name, str(source)) == ("-", "-")
    assert (source.audio.source, source.audio.channel) == (b"content", 1)


def test_standard_input_without_an_end(monkeypatch):
    class Endless:
        given = 0

        def read(self, count):
            self.given += count
            return bytes(count)

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless))
    monkeypatch.setattr("citrinet.cli.sources.MAX_BYTES", 5 * 2**20)
    with pytest.raises(OSError, match="it may have no end"):
        find_sources("-")
    assert endless.given == 6 * 2**20


def test_parts_and_channels_of_a_manifest(tmp_path):
    manifest = tmp_path / "m.jsonl"
    rows = [{"offset": 1.5, "duration": 2}, {"channel_selector": 1}, {"offset": 3}]
    manifest.write_text("\n".join(json.dumps({"audio_filepath": "a.wav", **row}) for row in rows))
    audio = tmp_path / "a.wav"
    assert [str(source) for source in find_sources(str(manifest))] == [
        f"{audio} (1.5-3.5 s)",
        f"{audio}",
        f"{audio} (3- s)",
    ]
    assert [source.audio.channel for source in find_sources(str(manifest))] == [None, 1, None]
    assert [source.audio.channel for source in find_sources(str(manifest), channel=0)] == [0, 0, 0]


def test_each_channel_of_a_recording(tmp_path, monkeypatch):
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.zeros((800, 2)), 8000)
    mono = tmp_path / "mono.flac"
    soundfile.write(mono, np.zeros(800), 8000)
    (tmp_path / "bad.wav").write_bytes(b"no audio")

    def channels(path):
        return [
            (part.name, part.audio.channel) for source in find_sources(str(path)) for part in split_channels(source)
        ]

    assert channels(stereo) == [(str(stereo), 0), (str(stereo), 1)]
    assert channels(mono) == [(str(mono), 0)]
    assert channels(tmp_path / "bad.wav") == [(str(tmp_path / "bad.wav"), None)]
    assert channels(tmp_path / "missing.wav") == [(str(tmp_path / "missing.wav"), None)]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stereo.read_bytes())))
    assert channels("-") == [("-", 0), ("-", 1)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_read_once_for_all_channels(tmp_path):
    import threading

    stereo, pipe = tmp_path / "stereo.wav", tmp_path / "pipe"
    soundfile.write(stereo, np.zeros((800, 2)), 8000)
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(stereo.read_bytes()), daemon=True).start()
    parts = [part for source in find_sources(str(pipe)) for part in split_channels(source)]
    assert [(part.name, part.audio.channel) for part in parts] == [(str(pipe), 0), (str(pipe), 1)]
    assert all(part.audio.source == stereo.read_bytes() for part in parts)
