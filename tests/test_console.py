"""What the command prints, and how it ends: encodings, pipes, full disks, interruptions, warnings."""

import functools
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import citrinet
from citrinet.audio_citrinet import TruncatedAudioWarning
from citrinet.cli import main
from helpers import PACKAGE_ROOT, synthetic_speech

OUT_OF_MEMORY = "out of memory: a smaller --batch-size, --batch-seconds or --chunk-length needs less."
posix_names = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")


@pytest.fixture
def speech(tmp_path):
    """Two seconds in a file."""
    soundfile.write(tmp_path / "a.wav", synthetic_speech(2), 16000)
    return str(tmp_path / "a.wav")


@pytest.fixture
def transcribe(tiny_dir):
    """Run `citrinet transcribe` in this process."""
    return lambda *arguments: main(["transcribe", "--model", str(tiny_dir), *map(str, arguments)])


class Stream(io.TextIOWrapper):
    """A standard stream of another system."""

    def __init__(self, encoding, errors="strict"):
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors)

    def bytes(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.slow
@posix_names
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "gbk", "utf-16"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_output_is_utf8_and_names_are_as_given(transcribe, speech, tmp_path, monkeypatch, encoding, form):
    name = os.fsencode(tmp_path) + b"/\xbc\xd2\xd6 \xe4.wav"
    Path(speech).rename(os.fsdecode(name))
    output, errors = Stream(encoding), Stream(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    gone = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav")
    assert transcribe(*(["--json"] if form == "json" else []), os.fsdecode(name), gone) == 1
    if form == "json":
        assert os.fsencode(json.loads(output.bytes().decode("utf-8"))["audio"]) == name
    else:
        assert output.bytes().startswith(name + b": ")
        assert re.search("[\u4e00-\u9fff]", output.bytes()[len(name) :].decode("utf-8"))
    assert errors.bytes().decode("utf-8").endswith("\\udcff\\udcfe.wav: No such file or directory\n")


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(transcribe, speech, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    output, errors = os.fdopen(writer, "w", encoding="utf-8"), Stream("utf-8")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    assert transcribe(speech, speech, speech) == 141
    assert errors.bytes() == b""
    output.close()  # as Python does when it ends; what was left is gone


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", ["transcribe", "info"])
def test_a_full_disk(command, transcribe, speech, tiny_dir, monkeypatch, capsys):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert (transcribe(speech) if command == "transcribe" else main(["info", str(tiny_dir)])) == 1
    assert capsys.readouterr().err == "citrinet: the disk is full\n"


@pytest.mark.slow
def test_standard_input(transcribe, speech, monkeypatch, capsys):
    assert transcribe("--json", speech) == 0
    expected = json.loads(capsys.readouterr().out)
    with Path(speech).open("rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        assert transcribe("--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == {**expected, "audio": "-"}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no audio")))
    assert transcribe("-") == 1
    assert re.match(r"citrinet: -: .*not audio", capsys.readouterr().err)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.match(rf"citrinet {re.escape(citrinet.__version__)} \(torch \d.*transformers \d", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "after"])
def test_traceback_on_demand(transcribe, tmp_path, tiny_dir, capsys, place):
    gone = str(tmp_path / "gone.wav")
    assert transcribe(gone) == 1
    assert capsys.readouterr().err == f"citrinet: {gone}: No such file or directory\n"
    words = ["transcribe", "--model", str(tiny_dir), gone]
    words.insert(0 if place == "before" else 2 if place == "inside" else 4, "--traceback")
    assert main(words) == 1
    traced = capsys.readouterr().err
    assert traced.startswith("Traceback") and traced.endswith(f"citrinet: {gone}: No such file or directory\n")
    assert main(["export", "--traceback", "nemo", str(tmp_path / "gone"), str(tmp_path / "out.nemo")]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("bad\nthings"), "unexpected RuntimeError: bad things (run with --traceback for details)"),
        (KeyError("x"), "unexpected KeyError: 'x' (run with --traceback for details)"),
        (AssertionError(), "unexpected AssertionError: AssertionError (run with --traceback for details)"),
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), OUT_OF_MEMORY),
        (PermissionError(13, "Permission denied", "a/b.json"), "a/b.json: Permission denied"),
        (OSError(28, "No space left on device", "a", None, "b"), "a -> b: the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_any_error_in_one_line(error, said, tiny_dir, monkeypatch, capsys):
    def raises(*_, **__):
        raise error

    monkeypatch.setattr("citrinet.cli.info.load_recognizer", raises)
    assert main(["info", str(tiny_dir)]) == 1
    assert capsys.readouterr().err == f"citrinet: {said}\n"


@pytest.mark.slow
def test_main_in_a_thread(transcribe, speech, capsys):
    before = signal.getsignal(signal.SIGTERM)
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(transcribe(speech)))
    thread.start()
    thread.join()
    assert statuses == [0] and speech in capsys.readouterr().out
    assert main(["info", "/no/where"]) == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def stereo(tmp_path):
    """A call: two speakers, each on a channel of their own."""
    one, two = synthetic_speech(2, seed=3), synthetic_speech(2, seed=4)
    soundfile.write(tmp_path / "one.wav", one, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "two.wav", two, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "both.wav", np.stack([one, two], axis=1), 16000, subtype="FLOAT")
    return [str(tmp_path / f"{name}.wav") for name in ("one", "two", "both")]


@pytest.mark.slow
def test_channels(transcribe, stereo, tmp_path, capsys):
    one, two, both = stereo

    def texts(*arguments):
        assert transcribe("--json", *arguments) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(line["audio"], line.get("channel"), line["text"]) for line in lines]

    (_, _, first), (_, _, second) = texts(one, two)
    assert first != second
    assert texts("--channel", "all", both) == [(both, 0, first), (both, 1, second)]
    assert texts("--channel", "1", both) == [(both, 1, second)]
    assert texts(both)[0][1] is None and texts(both)[0][2] not in (first, second)
    manifest = tmp_path / "m.jsonl"
    rows = [{"audio_filepath": "both.wav", "channel_selector": selector} for selector in (1, "average", 0)]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    assert [text for _, _, text in texts(manifest)] == [second, texts(both)[0][2], first]
    assert transcribe("--channel", "all", both) == 0
    printed = capsys.readouterr().out
    assert f"{both}, channel 0: " in printed and f"{both}, channel 1: " in printed
    assert transcribe("--channel", "2", both) == 1
    assert "there is no channel 2" in capsys.readouterr().err


@pytest.mark.slow
def test_segments_say_where_they_are(transcribe, stereo, tmp_path, capsys):
    one, two, _ = stereo
    joined = tmp_path / "joined.wav"
    soundfile.write(joined, np.concatenate([soundfile.read(name)[0] for name in (one, two)]), 16000, subtype="FLOAT")
    manifest = tmp_path / "m.jsonl"
    rows = [{"offset": 0, "duration": 2}, {"offset": 2, "duration": 2.0}, {"offset": 2}]
    manifest.write_text("\n".join(json.dumps({"audio_filepath": "joined.wav", **row}) for row in rows))
    assert transcribe("--json", "--batch-size", 2, manifest, one, two) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line.get("offset"), line.get("duration")) for line in lines] == [
        (0, 2),
        (2, 2),
        (2, None),
        (None,) * 2,
        (None,) * 2,
    ]
    assert [line["text"] for line in lines[:3]] == [lines[3]["text"], lines[4]["text"], lines[4]["text"]]
    assert transcribe(manifest) == 0
    printed = capsys.readouterr().out
    assert all(f"{joined} ({part}): " in printed for part in ("0-2 s", "2-4 s", "2- s"))


@pytest.fixture
def cut_short(tmp_path):
    """Files with a second less than their header says."""
    names = []
    for seed in (1, 2):
        names.append(str(tmp_path / f"cut{seed}.wav"))
        soundfile.write(names[-1], synthetic_speech(2, seed=seed), 16000)
        os.truncate(names[-1], Path(names[-1]).stat().st_size - 32000)
    return names


@pytest.mark.slow
def test_truncated_files_are_transcribed_with_a_warning(transcribe, cut_short, capsys):
    assert transcribe("--json", *cut_short, cut_short[0]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    said = captured.err.splitlines()
    assert len(said) == 3  # one line each, the file that comes twice too
    for name, line in zip([*cut_short, cut_short[0]], said, strict=True):
        assert re.match(rf"citrinet: warning: {re.escape(name)}: .*2\.00 s.*1\.00 s", line)


@pytest.mark.slow
def test_truncated_files_fail_if_strict(transcribe, cut_short, speech, capsys):
    assert transcribe("--strict", "--json", *cut_short, speech) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["audio"] for line in captured.out.splitlines()] == [speech]
    said = captured.err.splitlines()
    assert len(said) == 2
    for name, line in zip(cut_short, said, strict=True):
        assert line.count(name) == 1 and re.match(rf"citrinet: {re.escape(name)}: .*2\.00 s.*1\.00 s", line)


@pytest.mark.slow
def test_filters_of_warnings_are_those_of_before(transcribe, cut_short):
    assert transcribe("--strict", *cut_short) == 1
    with pytest.warns(TruncatedAudioWarning):
        citrinet.load_audio(cut_short[0])
    assert not any(category is TruncatedAudioWarning for _, _, category, _, _ in warnings.filters)


@pytest.mark.parametrize("length", ["-1", "nan", "inf", "x"])
def test_windows_that_are_none(length, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["transcribe", f"--chunk-length={length}", "a.wav"])
    assert caught.value.code == 2
    assert "--chunk-length" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("length", ["1e-9", "0.01"])
def test_windows_that_are_too_short(length, transcribe, speech, capsys):
    assert transcribe("--chunk-length", length, speech) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and "chunk_length_s" in captured.err


@pytest.mark.parametrize("command", ["transcribe", "evaluate", "bench"])
def test_an_empty_name_is_no_default(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--model", "", *([] if command == "bench" else ["a.jsonl"])])
    assert caught.value.code == 2
    assert "the name is empty" in capsys.readouterr().err


def test_models_to_compare_are_checked_before_work_begins(tiny_dir, speech, tmp_path, monkeypatch, capsys):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": speech, "text": "x"}))
    module = importlib.import_module("citrinet.evaluation.evaluate")  # the package has a function of that name
    monkeypatch.setattr(module, "load_recognizer", lambda *_, **__: pytest.fail("work began"))
    assert main(["evaluate", "--model", str(tiny_dir), "--model", str(tmp_path / "gone"), str(manifest)]) == 1
    assert capsys.readouterr().err.startswith(f"citrinet: {tmp_path / 'gone'}: there is no such folder")


@pytest.mark.parametrize("command", ["transcribe", "evaluate"])
def test_manifests_that_are_none(command, tmp_path, capsys):
    for content in (None, b"", b"\xff\xfe"):
        if content is not None:
            (tmp_path / "m.jsonl").write_bytes(content)
        assert main([command, str(tmp_path / "m.jsonl")]) == 1
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and "m.jsonl" in said


class _Slow(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.set()
        time.sleep(30)

    def log_message(self, format, *args):
        pass


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="signals and pipes of POSIX")
def test_an_interrupted_command_ends_at_once(tiny_dir, tmp_path):
    """It waits for an address that does not answer, or for a pipe into which nobody writes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    server.daemon_threads, server.asked = True, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "citrinet.cli", "transcribe", "--model", str(tiny_dir)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "HF_HUB_OFFLINE": "0"}
    # Of a shell's background jobs SIGINT is ignored, and so it is of their children.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, "preexec_fn": listen}
    runs = [
        subprocess.Popen([*command, source], **options)
        for source in (f"http://127.0.0.1:{server.server_port}/a.wav", str(pipe))
    ]
    try:
        assert server.asked.wait(120)
        writer = os.open(pipe, os.O_WRONLY)  # returns when the other end is open too
        time.sleep(1)  # until the commands themselves have come to wait for their readers
        for run in runs:
            run.send_signal(signal.SIGINT)
        start = time.monotonic()
        for run in runs:
            _, errors = run.communicate(timeout=20)
            assert (run.returncode, errors.decode()) == (130, "citrinet: interrupted\n")
        assert time.monotonic() - start < 10  # 0.4 s of work for each, on machines that may have a lot to do
    finally:
        for run in runs:
            run.kill()
            run.communicate()
        server.shutdown()
        server.server_close()
    os.close(writer)
