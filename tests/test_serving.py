"""The server, asked by OpenAI's own client, by curl, over a WebSocket, and by many at once."""

import io
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pysubs2
import pytest
import soundfile

if sys.version_info < (3, 11):
    pytest.skip("FastAPI limits the size of requests since 0.165, which needs Python 3.11", allow_module_level=True)

import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import citrinet
from citrinet.serving import Busy, Engine, Settings, create_app

EXAMPLES = Path(__file__).parents[1] / "examples"
CLIPS = sorted(EXAMPLES.glob("*.flac"))
BUS = EXAMPLES / "bus.flac"


class Served:
    """A server in a thread of its own, on a port that was free."""

    def __init__(self, recognizer, **settings):
        app = create_app(recognizer, Settings(name="small", **settings))
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=30))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.address = f"127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self.url = f"http://{self.address}"
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    def client(self, key="none"):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def recognizer():
    return citrinet.load_recognizer(citrinet.default_model())


@pytest.fixture(scope="module")
def expected(recognizer):
    return {clip: recognizer(str(clip), return_timestamps="char") for clip in CLIPS}


@pytest.fixture(scope="module")
def server(recognizer):
    with Served(recognizer, language="zh", max_bytes=2 << 20, max_seconds=60) as served:
        yield served


def test_openais_client_in_every_format(server, expected):
    create, wanted = server.client().audio.transcriptions.create, expected[BUS]
    plain = create(model="small", file=BUS)
    assert plain.text == wanted["transcript"] and plain.usage.seconds == 4
    assert (
        create(model="whisper-1", file=BUS, response_format="text", prompt="北山", language="zh") == f"{plain.text}\n"
    )
    for kind in ("srt", "vtt"):
        lines = pysubs2.SSAFile.from_string(create(model="small", file=BUS, response_format=kind), kind)
        assert "".join(line.plaintext for line in lines).replace("\n", "") == plain.text
    full = create(model="small", file=BUS, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (full.text, full.language, full.task) == (plain.text, "zh", "transcribe")
    assert full.duration == pytest.approx(3.125)
    assert [word.word for word in full.words] == list(plain.text)
    assert [(word.start, word.end) for word in full.words] == [chunk["timestamp"] for chunk in wanted["chunks"]]
    (segment,) = full.segments
    assert segment.text == plain.text and segment.end == 3.125 and 0 <= segment.no_speech_prob < 0.1
    ours = full.citrinet
    assert ours["entities"][0]["text"] == "北山" and ours["tags"]["GENDER"]["label"] == "GENDER_MALE"
    only_words = create(model="small", file=BUS, response_format="verbose_json", timestamp_granularities=["word"])
    assert only_words.segments is None and only_words.words


def test_text_comes_segment_by_segment(server, expected):
    clips = [expected[clip]["transcript"] for clip in CLIPS[:3]]
    samples = [np.pad(citrinet.load_audio(str(clip), 16_000), (8_000, 8_000)) for clip in CLIPS[:3]]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(samples), 16_000, format="FLAC")
    events = list(server.client().audio.transcriptions.create(model="small", file=file.getvalue(), stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert events[-1].type == "transcript.text.done" and events[-1].text == "".join(deltas)
    assert len(deltas) >= 3 and len(events[-1].text) == pytest.approx(len("".join(clips)), abs=4)


def test_models(server):
    assert [model.id for model in server.client().models.list()] == ["small"]
    assert server.client().models.retrieve("small").owned_by == "citrinet"
    with pytest.raises(openai.NotFoundError, match="ask for 'small'"):
        server.client().models.retrieve("large")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(server, expected):
    def curl(*words):
        done = subprocess.run(["curl", "-s", "-w", "%{http_code}", *words], capture_output=True, check=True)
        return done.stdout.decode()

    address = f"{server.url}/v1/audio/transcriptions"
    answer = curl(address, "-F", f"file=@{BUS}", "-F", "model=small")
    assert answer.endswith("200") and json.loads(answer[:-3])["text"] == expected[BUS]["transcript"]
    assert curl(address, "-F", "model=small").endswith("400")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"model": "large"}, 404, "'large' is not here"),
        ({"response_format": "diarized_json"}, 400, "use json, verbose_json, text, srt, vtt"),
        ({"file": b"no sound at all"}, 400, "cannot be read as audio"),
        ({"file": b""}, 400, "empty"),
        ({"timestamp_granularities": ["phoneme"], "response_format": "verbose_json"}, 400, "use word, segment"),
        ({"stream": True, "response_format": "srt"}, 400, "`stream` goes with"),
        ({"temperature": "warm"}, 400, "temperature"),
    ],
)
def test_bad_requests(server, options, status, message):
    with pytest.raises(openai.APIStatusError, match=message) as caught:
        server.client().audio.transcriptions.create(**{"model": "small", "file": BUS, **options})
    assert caught.value.status_code == status
    assert set(caught.value.response.json()["error"]) == {"message", "type", "param", "code"}


def test_limits_of_uploads(server):
    long = io.BytesIO()
    soundfile.write(long, np.zeros(61 * 8000, np.int16), 8000, format="FLAC")
    for content, message in ((bytes(3 << 20), "413|Too Large"), (long.getvalue(), "longer than 60 seconds")):
        with pytest.raises(openai.APIStatusError, match=message) as caught:
            server.client().audio.transcriptions.create(model="small", file=content)
        assert caught.value.status_code == 413

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield bytes(1 << 16)

    answer = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        content=endless(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413


def test_the_key(recognizer):
    with Served(recognizer, api_key="secret") as served:
        assert served.client("secret").audio.transcriptions.create(model="small", file=BUS).text
        with pytest.raises(openai.AuthenticationError, match="API key"):
            served.client("guess").audio.transcriptions.create(model="small", file=BUS)
        assert httpx.get(f"{served.url}/v1/models").status_code == 401
        assert httpx.get(f"{served.url}/health").json() == {"status": "ok", "waiting": 0}
        with pytest.raises(InvalidStatus, match="403"), connect(f"ws://{served.address}/v1/listen"):
            pass


@pytest.mark.slow
def test_fifty_clients_at_once_get_the_right_answers(server, recognizer, expected, monkeypatch):
    sizes = []
    stream = recognizer.stream
    monkeypatch.setattr(
        recognizer, "stream", lambda waveforms, **options: sizes.append(len(waveforms)) or stream(waveforms, **options)
    )
    clips = [CLIPS[index % len(CLIPS)] for index in range(50)]
    with ThreadPoolExecutor(50) as pool:
        client = server.client()
        texts = list(pool.map(lambda clip: client.audio.transcriptions.create(model="small", file=clip).text, clips))
    assert texts == [expected[clip]["transcript"] for clip in clips]
    assert sum(sizes) == 50 and max(sizes) > 1
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    count = next(
        line
        for line in lines
        if line.startswith("citrinet_requests_total") and 'status="200"' in line and "transcriptions" in line
    )
    assert float(count.split()[-1]) >= 50


def test_a_prompt_holds_hot_words(server, expected):
    create = server.client().audio.transcriptions.create
    clip = EXAMPLES / "person.flac"
    assert "戴发旬" not in expected[clip]["transcript"]
    assert "戴发旬" in create(model="small", file=clip, prompt="戴发旬，北山").text
    assert create(model="small", file=clip).text == expected[clip]["transcript"]


class Slow:
    """A recogniser that waits until it is told to go on."""

    sampling_rate, decoder = 16_000, None

    def __init__(self):
        self.go = threading.Event()

    def load(self, source):
        return source["array"]

    def stream(self, waveforms, **options):
        for waveform in waveforms:
            assert self.go.wait(30)
            yield {
                "transcript": str(len(waveform)),
                "text": "",
                "chunks": [],
                "entities": [],
                "tags": {},
                "segments": [],
                "confidence": 1.0,
            }


def test_who_comes_when_the_queue_is_full_is_told_to_come_again():
    slow = Slow()
    with Served(slow, max_waiting=2) as served, ThreadPoolExecutor(2) as pool:
        create = served.client().audio.transcriptions.create
        first = [pool.submit(create, model="small", file=BUS) for _ in range(2)]
        while httpx.get(f"{served.url}/health").json()["waiting"] < 2:
            time.sleep(0.01)
        with pytest.raises(openai.InternalServerError, match="come again") as caught:
            create(model="small", file=BUS)
        assert caught.value.status_code == 503 and caught.value.response.headers["retry-after"] == "1"
        slow.go.set()
        assert [future.result().text for future in first] == ["50000"] * 2


def test_an_engine_ends_once_all_is_answered():
    slow = Slow()
    engine = Engine(slow, 4, 100.0, 10)
    answers = [engine.submit(np.zeros(n, np.float32)) for n in (3, 1, 2)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    slow.go.set()
    closing.join(30)
    assert [answer.result()["transcript"] for answer in answers] == ["3", "1", "2"] and engine.waiting == 0


def test_an_engine_outlives_an_error():
    class Failing(Slow):
        def stream(self, waveforms, **options):
            if len(waveforms[0]) == 1:
                raise RuntimeError("broken")
            yield from super().stream(waveforms, **options)

    failing = Failing()
    failing.go.set()
    engine = Engine(failing, 1, 100.0, 1)
    with pytest.raises(RuntimeError, match="broken"):
        engine.submit(np.zeros(1, np.float32)).result(30)
    assert engine.submit(np.zeros(2, np.float32)).result(30)["transcript"] == "2"
    failing.go.clear()
    waiting = engine.submit(np.zeros(2, np.float32))
    with pytest.raises(Busy):
        engine.submit(np.zeros(2, np.float32))
    failing.go.set()
    waiting.result(30)
    engine.close()


@pytest.mark.slow
def test_live_speech(server, expected):
    samples = (citrinet.load_audio(str(BUS), 16_000) * 32767).astype("<i2")
    messages = []
    with connect(f"ws://{server.address}/v1/listen?rate=16000") as socket:
        for start in range(0, len(samples), 4000):
            socket.send(samples[start : start + 4000].tobytes())
        socket.send("end")
        with pytest.raises(ConnectionClosed):
            while True:
                messages.append(json.loads(socket.recv()))
    assert messages[-1]["final"] and messages[-1]["stable"] == expected[BUS]["transcript"]
    texts = [message["stable"] for message in messages if "stable" in message]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    (segment,) = [message["segment"] for message in messages if "segment" in message]
    assert segment["entities"][0]["text"] == "北山"


@pytest.mark.parametrize(("rate", "message"), [(16_000, "text"), (16_000, b"odd"), (5, b"")])
def test_live_speech_that_is_none(server, rate, message):
    with connect(f"ws://{server.address}/v1/listen?rate={rate}") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.send(message)
        socket.recv()
    assert closed.value.rcvd.code == 1003


def test_connections_are_limited(recognizer):
    with Served(recognizer, max_live=1) as served, connect(f"ws://{served.address}/v1/listen") as first:
        first.send(bytes(320))
        assert json.loads(first.recv()) == {"stable": "", "provisional": ""}
        with connect(f"ws://{served.address}/v1/listen") as second, pytest.raises(ConnectionClosed) as closed:
            second.recv()
        assert closed.value.rcvd.code == 1013
