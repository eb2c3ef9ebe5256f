"""Speech that goes on: what stands, what may change, what it costs; and `citrinet listen`."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import citrinet
from citrinet import voice_activity_citrinet as voice_activity
from citrinet.cli import listen, main
from citrinet.streaming import CitrinetStream, StreamText
from citrinet.voice_activity_citrinet import FRAME, Segmenter, speech_segments

CLIPS = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))


class Reader:
    """A recogniser that writes a letter for each half second, another one wherever the samples differ, and counts."""

    sampling_rate = 16000

    def __init__(self):
        self.given = []

    def stream(self, waveforms, *, return_timestamps=None, vad=None):
        assert vad is False
        for samples in waveforms:
            self.given.append(len(samples))
            letters = [chr(0x4E00 + int(np.abs(part).sum() * 7) % 5000) for part in np.array_split(samples, 3)]
            text, end = "".join(letters * (len(samples) // 24000 + 1)), len(samples) / 16000
            yield {
                "text": text,
                "transcript": text,
                "confidence": 1.0,
                "entities": [{"type": "X", "text": text[:1], "start": 0, "end": 1, "timestamp": (0.1, end)}],
                "tags": {},
                "segments": [{"text": text, "transcript": text, "start": 0.0, "end": end, "tags": {}}],
            }


@pytest.fixture
def loud(monkeypatch):
    """Voice activity of which the probability is the loudest sample of the frame."""

    class Loudness:
        def __call__(self, samples):
            return np.abs(samples).reshape(-1, FRAME).max(axis=1)

    monkeypatch.setattr(voice_activity, "VoiceActivity", Loudness)


def talk(rng, parts=40, longest=120):
    """Speech and silence in turn, of random lengths."""
    levels = [0.9 if index % 2 else 0.05 for index in range(parts)]
    noise = [rng.uniform(0.8, 1, FRAME * int(rng.integers(1, longest))) * level for level in levels]
    return np.concatenate(noise).astype(np.float32)


def cut(samples, size):
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("seed", range(10))
def test_stable_text_only_grows_and_is_the_offline_text_in_the_end(loud, seed):
    rng = np.random.default_rng(seed)
    samples, recognizer = talk(rng, parts=(40, 20, 8)[seed % 3], longest=(20, 120, 900)[seed % 3]), Reader()
    stream = CitrinetStream(recognizer, step_s=rng.uniform(0.05, 1), max_load=rng.uniform(0.5, 20))
    before, start = StreamText("", ""), 0
    while start < len(samples):
        size = int(rng.integers(1, (400, 30_000)[seed % 2]))
        now = stream.feed(samples[start : start + size], 16000)
        assert now.stable.startswith(before.stable) and now == stream.text
        before, start = now, start + size
    end = stream.finish()
    assert end.stable.startswith(before.stable) and end.provisional == ""
    segmenter = Segmenter()
    places = segmenter.feed(samples) + segmenter.finish()
    offline = [next(Reader().stream([samples[slice(*place)]], vad=False)) for place in places]
    assert end.stable == "".join(result["transcript"] for result in offline) and end.stable
    assert [result["transcript"] for result in stream.segments] == [result["transcript"] for result in offline]
    times = [segment["start"] for result in stream.segments for segment in result["segments"]]
    assert times == [round(begin / 16000, 3) for begin, _ in places]
    assert [result["entities"][0]["timestamp"] for result in stream.segments] == [
        (round(begin / 16000 + 0.1, 3), round(begin / 16000 + (stop - begin) / 16000, 3)) for begin, stop in places
    ]


@pytest.mark.parametrize("level", [0.9, 0.02])
@pytest.mark.parametrize(("step", "load"), [(0.1, 5.0), (0.5, 10.0), (2.0, 1.0)])
def test_work_is_bounded_however_long_one_speaks_or_is_silent(loud, level, step, load):
    recognizer = Reader()
    stream, given = CitrinetStream(recognizer, step_s=step, max_load=load), []
    rng, second = np.random.default_rng(0), 16000
    for _ in range(100):
        before = len(recognizer.given)
        for piece in cut(rng.uniform(0.9, 1, second).astype(np.float32) * level, 1600):
            stream.feed(piece, second)
        given.append(sum(recognizer.given[before:]))
        assert len(stream._samples) <= 9 * second and stream._segmenter.begin == stream._first
    assert sum(given) <= (load + 1) * 100 * second + 16 * second
    assert max(given) <= (load + 1 + 2 * 8) * second
    assert max(recognizer.given, default=0) <= 8 * second + FRAME
    assert bool(recognizer.given) == (level > 0.5)
    if level > 0.5:  # somebody who speaks on is read on
        assert len(recognizer.given) >= 100 / max(step, 8 / load) * 0.9


def test_provisional_text_goes_and_silence_is_not_kept(loud):
    recognizer = Reader()
    stream = CitrinetStream(recognizer, step_s=0.2)
    speech, silence = np.full(16000, 0.9, np.float32), np.zeros(1600, np.float32)
    for _ in range(100):
        assert stream.feed(silence, 16000) == ("", "")
    assert not recognizer.given and len(stream._samples) <= 4800 + FRAME
    stable, provisional = stream.feed(speech, 16000)
    assert not stable and provisional
    texts = [stream.feed(silence, 16000) for _ in range(4)]
    assert texts[-1].stable and not texts[-1].provisional
    done = len(recognizer.given)
    assert {stream.feed(silence, 16000) for _ in range(50)} == {texts[-1]} and len(recognizer.given) == done
    assert stream.finish() == texts[-1] == stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.feed(speech, 16000)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_pieces_are_resampled_as_one_stream(loud, rate):
    tone = (0.9 * np.sin(2 * np.pi * 440 * np.arange(rate * 3) / rate)).astype(np.float32)
    stream = CitrinetStream(Reader(), step_s=100)
    for piece in cut(tone, 777):
        stream.feed(piece, rate)
    whole = citrinet.load_audio({"array": tone, "sampling_rate": rate})
    assert len(whole) - 1600 < len(stream._samples) <= len(whole)  # the filter holds a little back
    np.testing.assert_allclose(stream._samples, whole[: len(stream._samples)], atol=2e-3)
    stream.finish()
    assert stream.segments[0]["segments"][0]["end"] == pytest.approx(3, abs=0.01)


def test_pieces_of_any_kind(loud):
    stream = CitrinetStream(Reader(), step_s=100)
    tone = np.cos(np.arange(16000) / 5) * 0.99
    left = np.stack([tone, 0 * tone], axis=1)
    odd = (tone[:1], tone[:0], left[:1], left[:0], left[:3], left)
    loudest = np.array([0.9] * FRAME)
    for piece in [loudest, *odd, *((part * 32767).astype(np.int16) for part in odd), tone.astype(np.float32)]:
        stream.feed(piece, 16000)
    assert len(stream._samples) == FRAME + 1 + 1 + 3 + 16000 + 1 + 1 + 3 + 16000 + 16000
    np.testing.assert_allclose(stream._samples[FRAME + 5 : FRAME + 16005], tone / 2, atol=1e-6)
    before = len(stream._samples)
    for rate in (44100, 8000, 16000, 22050, 16000):  # another microphone
        stream.feed(tone[: rate // 10], rate)
    assert len(stream._samples) == pytest.approx(before + 5 * 1600, abs=20)
    stream.feed([0.5, 0.25], 16000)
    assert stream._samples[-1] == 0.25


@pytest.mark.parametrize(
    ("piece", "rate", "message"),
    [
        (np.zeros(100), 0, "sampling rate"),
        (np.zeros(100), 10**9, "sampling rate"),
        (np.zeros(100), "x", "sampling rate"),
        (np.full(100, np.nan), 16000, "NaN"),
        (np.array(["x"] * 100), 16000, "numbers"),
        (np.zeros(100, np.int64), 16000, "full scale"),
        (np.zeros((2, 3, 4)), 16000, "shape"),
        (0.5, 16000, "shape"),
    ],
)
def test_a_piece_that_is_no_sound_changes_nothing(loud, piece, rate, message):
    stream = CitrinetStream(Reader())
    stream.feed(np.full(FRAME, 0.9), 16000)
    with pytest.raises(ValueError, match=message):
        stream.feed(piece, rate)
    stream.feed(np.full(100, 0.9), 16000)
    assert len(stream._samples) == FRAME + 100 and np.isfinite(stream._samples).all()


@pytest.mark.parametrize("options", [{"step_s": 0}, {"max_load": -1}, {"step_s": float("nan")}])
def test_settings_that_are_none(options):
    with pytest.raises(ValueError, match="must be above 0"):
        CitrinetStream(Reader(), **options)


def test_what_comes_while_the_network_works_is_taken_together(loud):
    samples = talk(np.random.default_rng(3), parts=10)
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Reader):
        def stream(self, waveforms, **options):
            entered.set()
            assert go_on.wait(20)
            return super().stream(waveforms, **options)

    stream = CitrinetStream(Slow(), step_s=0.1)
    pieces = [np.full(16000, 0.9, np.float32), *cut(samples, 1600)]
    threads = [threading.Thread(target=stream.feed, args=(piece, 16000)) for piece in pieces]
    for index, thread in enumerate(threads):
        thread.start()
        assert entered.wait(20)  # the network works on the first piece
        for _ in range(4000):
            if len(stream._waiting) == index:
                break
            time.sleep(0.005)
        assert len(stream._waiting) == index and stream.text == ("", "")
    go_on.set()
    for thread in threads:
        thread.join(20)
    alone = CitrinetStream(Reader())
    for piece in pieces:
        alone.feed(piece, 16000)
    text, segments = stream.text, len(stream.segments)
    assert text.stable and stream.finish().stable == alone.finish().stable
    assert segments + 1 <= len(stream.recognizer.given) <= len(stream.segments) + 2


@pytest.fixture(scope="module")
def recognizer():
    return citrinet.load_recognizer(citrinet.default_model())


@pytest.fixture(scope="module")
def joined():
    pause = np.zeros(12_000, np.float32)
    return np.concatenate([part for clip in CLIPS[:3] for part in (pause, citrinet.load_audio(clip))])


@pytest.fixture(scope="module")
def expected(recognizer, joined):
    """The offline results of the segments."""
    return [recognizer(joined[slice(*place)], vad=False) for place in speech_segments(joined, 16000)]


@pytest.mark.slow
def test_real_speech_gives_the_offline_results(recognizer, joined, expected):
    stream = CitrinetStream(recognizer, return_timestamps="char")
    shown = {stream.feed(piece, 16000).provisional for piece in cut(joined, 4000)}
    assert stream.finish().stable == "".join(result["transcript"] for result in expected)
    assert len(shown) > 5
    assert [result["tags"].keys() for result in stream.segments] == [result["tags"].keys() for result in expected]
    entities = [[entity["text"] for entity in result["entities"]] for result in stream.segments]
    assert entities == [[entity["text"] for entity in result["entities"]] for result in expected] and any(entities)
    times = [time for result in stream.segments for chunk in result["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times) and 0.7 < times[0] < times[-1] <= len(joined) / 16000
    for result in stream.segments:
        segment = result["segments"][0]
        inside = [time for chunk in result["chunks"] for time in chunk["timestamp"]]
        assert segment["start"] <= min(inside) and max(inside) <= segment["end"] + 0.04


@pytest.mark.slow
def test_graphs_take_a_stream_too(tiny_onnx_dir, joined):
    recognizer = citrinet.load_recognizer(tiny_onnx_dir)
    stream = CitrinetStream(recognizer)
    for piece in cut(joined, 8000):
        stream.feed(piece, 16000)
    end, places = stream.finish(), speech_segments(joined, 16000)
    offline = [recognizer(joined[slice(*place)], vad=False) for place in places]
    assert [result["text"] for result in stream.segments] == [result["text"] for result in offline if result["text"]]
    assert end.stable and stream.segments[0]["tags"].keys() == offline[0]["tags"].keys()


def said(printed):
    """The transcripts of printed lines."""
    return re.findall(r"^ +[\d.]+ +[\d.]+  (.*)$", printed, re.MULTILINE)


@pytest.mark.slow
def test_listen_reads_raw_sound_to_its_end(joined, expected):
    raw = (joined * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "citrinet.cli", "listen", "-"]
    printed = subprocess.run(command, input=raw + b"\0", capture_output=True, check=True).stdout.decode("utf-8")
    assert said(printed) == [result["transcript"] for result in expected]
    assert "\x1b" not in printed and "\r" not in printed


@pytest.mark.slow
def test_ctrl_c_ends_listening(joined, expected):
    command = [sys.executable, "-m", "citrinet.cli", "listen", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write((joined * 32767).astype("<i2").tobytes())
        process.stdin.flush()  # and nothing more, but no end
        first = process.stdout.readline().decode("utf-8")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors.decode()
    assert said(first) == [expected[0]["transcript"]]


@pytest.fixture
def quick(monkeypatch, loud):
    monkeypatch.setattr(listen, "load_recognizer", lambda *args, **options: Reader())


class Microphone:
    """What stands in for the package sounddevice: a microphone that gives what it is told to, and then Ctrl-C."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, samples, rate=16000):
        self.samples, self.rate, self.opened = samples, rate, []

    def InputStream(self, *, samplerate, device, channels, dtype, blocksize, callback):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        assert (channels, dtype, samplerate) == (1, "float32", self.rate)
        self.opened.append(device)

        def play():
            for piece in cut(self.samples[:, None], blocksize):
                reused = piece.copy()
                callback(reused, len(reused), None, None)
                reused[:] = 9  # PortAudio's memory is written again

        thread = threading.Thread(target=play)

        class Open:
            def __enter__(self):
                thread.start()

            def __exit__(self, *_):
                thread.join()

        return Open()


@pytest.fixture
def microphone(monkeypatch):
    samples = talk(np.random.default_rng(5))
    device = Microphone(samples)
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    heard = [0]

    def until_the_end(pieces, stop):
        if heard[0] == len(samples):
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(20)
            return []
        piece = pieces.get(timeout=20)  # one by one, however slow the machine is
        heard[0] += len(piece)
        return [piece]

    monkeypatch.setattr(listen, "_all_waiting", until_the_end)
    return device


def offline(samples):
    segmenter = Segmenter()
    places = segmenter.feed(samples) + segmenter.finish()
    return [next(Reader().stream([samples[slice(*place)]], vad=False))["transcript"] for place in places]


@pytest.mark.parametrize(("name", "device"), [(None, None), ("3", 3), ("USB", "USB")])
def test_listen_takes_a_microphone_until_ctrl_c(quick, microphone, capsys, name, device):
    assert main(["listen", "--json", *(["--device-name", name] if name else [])]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["transcript"] for line in lines] == offline(microphone.samples)
    assert microphone.opened == [device]
    assert lines[1]["segments"][0]["start"] > lines[0]["segments"][0]["start"]


def test_a_terminal_shows_what_is_being_said(quick, microphone, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["listen", "--step", "0.2"]) == 0
    assert "\r\x1b[K" in screen.getvalue()
    lines = screen.getvalue().split("\n")
    visible = [line.split("\r\x1b[K")[-1] for line in lines]  # what stood there before is away
    assert said("\n".join(visible)) == offline(microphone.samples) and visible[-1] == ""
    shown = [part for part in screen.getvalue().split("\r\x1b[K") if "\n" not in part]
    assert shown and all(2 * len(part) < 20 for part in shown)


def test_the_end_of_a_long_text_is_shown():
    assert listen._tail("来首歌abc", 7) == "首歌abc"
    assert listen._tail("来首歌abc", 9) == "来首歌abc"
    assert listen._tail("来首歌", 1) == "" and listen._tail("", 5) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device-name", "none"], "the microphone cannot be used: No input device"),
        (["-", "--device-name", "x"], "give either"),
        (["-", "--rate", "5"], "expected 1000 to"),
        (["--step", "0"], "`step_s` must be above 0"),
    ],
)
def test_listen_refuses_in_one_line(quick, microphone, capsys, arguments, message):
    assert main(["listen", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(("missing", "remedy"), [("package", "citrinet[microphone]"), ("library", "libportaudio2")])
def test_listen_without_sounddevice(quick, monkeypatch, tmp_path, capsys, missing, remedy):
    raised = "ImportError('no')" if missing == "package" else "OSError('PortAudio library not found')"
    (tmp_path / "sounddevice.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    assert main(["listen"]) == 1
    assert remedy in capsys.readouterr().err
