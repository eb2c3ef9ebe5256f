"""Where audio comes from: rows of data sets, pipes, addresses; and files that would have others opened."""

import io
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from citrinet import AudioSegment, audio_source_citrinet, load_audio
from helpers import synthetic_speech

SPEECH = synthetic_speech(1.0)
WAV = io.BytesIO()
soundfile.write(WAV, SPEECH, 16000, format="WAV")
WAV = WAV.getvalue()


@pytest.fixture
def interrupt():
    """Ctrl-C after a while."""

    def after(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# Rows of data sets


@pytest.mark.parametrize("with_bytes", [True, False])
def test_rows_without_decoding(with_bytes, tmp_path):
    path = tmp_path / "speech.wav"
    path.write_bytes(WAV)
    row = {"bytes": WAV, "path": "speech.wav"} if with_bytes else {"bytes": None, "path": str(path)}
    assert np.abs(load_audio(row) - SPEECH).max() < 1e-4
    assert np.abs(load_audio(AudioSegment(row, 0.5)) - SPEECH[8000:]).max() < 1e-4


def test_rows_of_data_sets(tmp_path):
    """As `datasets` itself makes them, with files in the table and beside it."""
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "speech.wav"
    path.write_bytes(WAV)
    table = {"audio": [{"bytes": WAV, "path": None}, {"bytes": None, "path": str(path)}]}
    for row in datasets.Dataset.from_dict(table).cast_column("audio", datasets.Audio(decode=False)):
        assert np.abs(load_audio(row["audio"]) - SPEECH).max() < 1e-4


def test_decoded_rows():
    row = {"path": "gone.wav", "array": SPEECH, "sampling_rate": 16000, "bytes": None}
    assert np.array_equal(load_audio(row), SPEECH)


def test_errors_name_the_file_of_a_row():
    with pytest.raises(ValueError, match=r"^clips/1\.wav"):
        load_audio({"bytes": b"nothing that is audio", "path": "clips/1.wav"})


# Files that name other files


LISTS = {
    "list.ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
    "list.wav": "ffconcat version 1.0\nfile secret.wav\n",
    "list": "ffconcat version 1.0\nfile secret.wav\ninpoint 0.1\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nsecret.mp3\n#EXT-X-ENDLIST\n",
    "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000\nlist.m3u8\n",
    "list.mpd": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet contentType="audio" '
        'mimeType="audio/mp4"><Representation id="0" bandwidth="64000" codecs="mp4a.40.2" audioSamplingRate="16000">'
        "<BaseURL>secret.m4a</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_files_are_not_followed(name, ffmpeg, tmp_path):
    (tmp_path / "secret.wav").write_bytes(WAV)
    for suffix in ("mp3", "m4a"):
        subprocess.run(
            [ffmpeg, "-v", "error", "-i", tmp_path / "secret.wav", tmp_path / f"secret.{suffix}"], check=True
        )
    for file, content in LISTS.items():
        (tmp_path / file).write_text(content)
    command = [
        ffmpeg,
        "-v",
        "error",
        "-protocol_whitelist",
        "file",
        "-i",
        f"file:{tmp_path / name}",
        "-f",
        "f32le",
        "-",
    ]
    leak = subprocess.run(command, capture_output=True, check=False).stdout
    assert len(leak) > 4 * 8000, "ffmpeg does not follow this list, so nothing is tested"
    with pytest.raises(ValueError, match="a list of other files"):
        load_audio(tmp_path / name)


def test_lists_of_files_as_bytes(ffmpeg, monkeypatch, tmp_path):
    """Relative names start where the temporary file is, absolute ones and addresses need no such luck."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "secret.wav").write_bytes(WAV)
    for content in (*LISTS.values(), f"#EXTM3U\n#EXTINF:1,\nfile:{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"):
        with pytest.raises(ValueError, match="a list of other files"):
            load_audio(content.encode())


def test_patterns_of_names_are_names(ffmpeg, tmp_path):
    """ffmpeg would take all files whose names fit."""
    (tmp_path / "take1.jpg").write_bytes(WAV)
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "take%d.jpg")
    (tmp_path / "take%d.wav").write_bytes(WAV)
    assert len(load_audio(tmp_path / "take%d.wav")) == len(SPEECH)


@pytest.mark.parametrize("name", ["-i.wav", "concat:a|b.wav", "语音 1.wav", "http:.wav", "raw.raw"])
def test_odd_names(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(WAV)
    if not name.endswith(".raw"):  # soundfile takes its suffix to mean that there is no header
        assert len(load_audio(name)) == len(SPEECH)
    assert len(load_audio(Path(name).read_bytes())) == len(SPEECH)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_utf8(ffmpeg, tmp_path):
    for content in (WAV, WAV[:4] + b"?" + WAV[5:]):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb2\xe2\xca\xd4.wav"))
        path.write_bytes(content)
        if content is WAV:
            assert len(load_audio(path)) == len(SPEECH)
        else:
            subprocess.run(
                [
                    ffmpeg,
                    "-y",
                    "-v",
                    "error",
                    "-f",
                    "s16le",
                    "-ar",
                    "16000",
                    "-ac",
                    "1",
                    "-i",
                    os.fsencode(path),
                    "-f",
                    "ipod",
                    os.fsencode(path) + b".m4a",
                ],
                check=True,
            )
            assert len(load_audio(Path(f"{path}.m4a"))) > 0


# Pipes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(WAV,), daemon=True).start()
    assert np.abs(load_audio(pipe) - SPEECH).max() < 1e-4


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_devices_without_an_end(monkeypatch):
    monkeypatch.setattr(audio_source_citrinet, "MAX_BYTES", 10_000_000)
    with pytest.raises(OSError, match="may have no end"):
        load_audio("/dev/zero")
    with pytest.raises(ValueError, match="empty"):
        load_audio("/dev/null")


# Addresses


class Handler(BaseHTTPRequestHandler):
    """Each path another kind of server."""

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # when the client has had enough
            getattr(self, self.path.strip("/").split(".")[0])()

    def start(self, status=200, **headers) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def speech(self):
        self.start(Content_Type="audio/wav", Content_Length=str(len(WAV)))
        self.wfile.write(WAV)

    def moved(self):
        self.start(302, Location="/speech.wav")

    def missing(self):
        self.start(404)

    def page(self):
        self.start(Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<!doctype html><title>Log in</title>")

    def empty(self):
        self.start(Content_Length="0")

    def endless(self):
        self.start(Content_Type="audio/wav")
        while True:
            self.wfile.write(WAV)

    def dripping(self):
        self.start(Content_Type="audio/wav")
        for byte in WAV:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def dripping_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(200):
            self.wfile.write(b"X")
            self.wfile.flush()
            time.sleep(0.05)

    def broken_off(self):
        self.start(Content_Type="audio/wav", Content_Length=str(len(WAV)))
        self.wfile.write(WAV[:1000])

    def silent(self):
        time.sleep(5)

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("path", ["speech.wav", "moved"])
def test_addresses(server, path):
    assert np.abs(load_audio(f"{server}/{path}") - SPEECH).max() < 1e-4
    assert np.abs(load_audio(AudioSegment(f"{server}/{path}", 0.25, 0.5)) - SPEECH[4000:12000]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("missing", OSError, "answered 404"),
        ("page", OSError, "web page"),
        ("empty", ValueError, "empty"),
        ("broken_off", OSError, "broken_off: "),
        ("endless", OSError, "may have no end"),
        ("dripping", OSError, r"takes more than 0\.5 s"),
        ("dripping_headers", OSError, r"takes more than 0\.5 s"),
        ("silent", OSError, "silent: "),
    ],
)
def test_what_servers_do(server, path, error, message, monkeypatch):
    monkeypatch.setattr(audio_source_citrinet, "MAX_BYTES", 10_000_000)
    monkeypatch.setattr(audio_source_citrinet, "MAX_DOWNLOAD_S", 0.5 if path.startswith("dripping") else 20)
    monkeypatch.setattr(audio_source_citrinet, "STALLED_S", 0.5)
    start = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        load_audio(f"{server}/{path}")
    assert time.monotonic() - start < 4
    assert str(caught.value).startswith(server)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.wav", "http://no-such-host.invalid/x.wav", "http://[::1/x.wav"])
def test_addresses_that_cannot_be_reached(url):
    with pytest.raises(OSError, match=r"^http") as caught:
        load_audio(url)
    assert str(caught.value).count(url) == 1
    assert "\n" not in str(caught.value)


# Ctrl-C


def test_downloads_can_be_interrupted(server, interrupt):
    interrupt(0.3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load_audio(f"{server}/dripping")
    assert time.monotonic() - start < 2


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["flac", "mka"])
def test_decoding_can_be_interrupted(suffix, ffmpeg, interrupt, tmp_path):
    """Of bytes, too: the interruption must not be lost in a function that a C library calls."""
    path = tmp_path / f"long.{suffix}"
    sound = ["-f", "lavfi", "-i", "anoisesrc=r=16000:d=3600:a=0.01"]
    subprocess.run([ffmpeg, "-v", "error", *sound, "-c:a", "flac", "-compression_level", "0", path], check=True)
    content = path.read_bytes()
    interrupt(0.1)  # the whole takes well over a second
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load_audio(content)
    assert time.monotonic() - start < 3
