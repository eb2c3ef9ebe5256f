"""The demo: its parts, its API under load, and the page in a real browser."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

import citrinet
from citrinet.recognition import Progress

gradio_client = pytest.importorskip("gradio_client")
ROOT = Path(__file__).parents[1]
SPACE = ROOT / "space"
sys.path.insert(0, str(SPACE))
recognition, view = (pytest.importorskip(name) for name in ("recognition", "view"))

CLIPS = sorted((ROOT / "examples").glob("*.flac"))
CHOICE = "citrinet · float32"
CHUNKS = [{"text": c, "timestamp": (i / 2, i / 2 + 0.3)} for i, c in enumerate("来首歌")]
CHUNKS += [{"text": "<吻", "timestamp": (3.0, 3.2)}]
RESULT = {
    "confidence": 0.9,
    "text": "来首歌 ENTITY_SONG_NAME <吻 END",
    "transcript": "来首歌<吻",
    "entities": [{"type": "SONG_NAME", "text": "<吻", "start": 3, "end": 5, "timestamp": (3.0, 3.2)}],
    "tags": {"AGE": {"label": "AGE_<14", "score": 0.75, "source": "head", "head": "AGE_<14", "text": None}},
    "chunks": CHUNKS,
}


def test_files_for_other_programs(tmp_path):
    app = pytest.importorskip("app")
    quiet = {**RESULT, "text": "", "transcript": "", "entities": [], "chunks": []}
    done = [
        (name, recognition.Recognition(result, np.zeros(64000, np.float32), 0.1, is_speech=True))
        for name, result in [("1-talk", RESULT), ("2-talk", quiet)]
    ]
    for label, kind in app.FORMATS.items():
        files = app.write_files(done, kind, tmp_path)
        expected = [citrinet.formats.to_text(one.result, kind, name=name, duration=4.0) for name, one in done]
        assert [Path(file).read_text(encoding="utf-8") for file in files] == expected, label
    other = recognition.Recognition({**RESULT}, np.zeros(16000, np.float32), 0.1, is_speech=True)
    del other.result["chunks"]
    with pytest.raises(app.gr.Error, match="no times"):
        app.write_files([("1-a", other)], "srt", tmp_path)


def test_page_marks_entities_and_escapes():
    samples = np.random.default_rng(0).standard_normal(64000).astype(np.float32)
    page = view.page(recognition.Recognition(RESULT, samples, 0.1, is_speech=True))
    assert 'data-type="SONG_NAME">&lt;吻<small>' in page and "<吻" not in page
    assert "75%" in page and "90%" in page and "&lt;14" in page and view.DOUBTFUL not in page
    starts = [float(start) for start in re.findall(r'data-start="([\d.]+)"', page)]
    assert starts == [0.0, 0.5, 1.0, 3.0]


def test_a_character_lasts_until_the_next():
    assert view.pieces(CHUNKS, 3.1) == [(0.0, 0.4, "来"), (0.5, 0.9, "首"), (1.0, 1.4, "歌"), (3.0, 3.1, "<吻")]


@pytest.fixture
def bad(tmp_path, monkeypatch):
    monkeypatch.setattr(recognition, "MAX_SECONDS", 20.0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "long.wav", np.ones(16000 * 21) / 2, 16000)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    shutil.copy(ROOT / "README.md", tmp_path / "text.wav")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "choose a file first"),
        ("silent.wav", "silent"),
        ("long.wav", "limit"),
        ("nothing.wav", "empty"),
        ("text.wav", r"cannot be read as audio.*\(text\.wav"),
        ("gone.wav", "was deleted"),
    ],
)
def test_bad_input_gets_one_message(bad, name, message):
    with pytest.raises(recognition.Refused, match=message) as caught:
        recognition.read(name and str(bad / name))
    assert str(bad) not in str(caught.value)


def test_stereo_at_96_khz_is_read(tmp_path):
    samples = np.random.default_rng(0).standard_normal((96000, 2)) / 10
    soundfile.write(tmp_path / "studio.wav", samples, 96000)
    assert recognition.read(str(tmp_path / "studio.wav")).shape == (16000,)


@pytest.mark.slow
def test_segments_report_progress_and_give_the_recognisers_result():
    samples = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS] * 7)[: 16000 * 125]
    *parts, heard = recognition.recognise(samples, "citrinet", "float32")
    assert len(parts) > 4 and parts[-1] == 1.0
    assert all(0 <= after - before < 0.2 for before, after in zip([0.0, *parts], parts, strict=False))
    assert heard.result == recognition.recognizer("citrinet", "float32")(samples, return_timestamps="char")


def test_hot_words_and_no_language_model():
    clip = citrinet.load_audio(next(path for path in CLIPS if "person" in str(path)))
    texts = []
    for options in ((), ("戴法权", True), ("", False), ()):
        *_, heard = recognition.recognise(clip, "citrinet", "float32", *options)
        texts.append(heard.result["transcript"])
    assert "戴法权" in texts[1] and len(set(texts[:3])) == 3 and texts[3] == texts[0]


@pytest.mark.parametrize(("model", "doubtful"), [("citrinet", True), ("other", False)])
def test_page_says_which_heads_are_not_to_be_trusted(model, doubtful, monkeypatch):
    monkeypatch.setitem(recognition._loaded, ("other", "float32"), recognition.recognizer("citrinet", "float32"))
    *_, heard = recognition.recognise(citrinet.load_audio(CLIPS[0]), model, "float32")
    cards = re.findall(r'data-tag="(\w+)"(.*?)</small></div>', view.page(heard))
    assert len(cards) == 3
    said = {category for category, card in cards if view.DOUBTFUL in card}
    assert said == ({"AGE", "DIALECT"} if doubtful else set())


@pytest.mark.parametrize("colour", [0, 1])
def test_noise_is_not_taken_for_speech(colour):
    noise = np.random.default_rng(0).standard_normal(16000 * 4).astype(np.float32)
    noise = np.cumsum(noise) if colour else noise
    noise /= 2 * np.abs(noise).max()
    *_, heard = recognition.recognise(noise, "citrinet", "float32")
    page = view.page(heard)
    assert heard.result["transcript"] and view.NO_SPEECH in page and "ct-tag" not in page and "data-start" not in page
    assert not recognition.Listener("citrinet", "float32").hear(noise, 16000)


@pytest.mark.slow
def test_a_listener_gives_the_text_of_a_stream():
    samples = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS[:3]])
    listener = recognition.Listener("citrinet", "float32")
    stream = citrinet.CitrinetStream(recognition.recognizer("citrinet", "float32"))
    for start in range(0, len(samples), 8000):
        piece = (samples[start : start + 8000] * 32767).astype(np.int16)
        assert listener.hear(piece, 16000) == "".join(stream.feed(piece, 16000))
    said = listener.end()
    assert said == stream.finish().stable and len(said) > 20
    piece = citrinet.load_audio(CLIPS[3])
    assert listener.hear(piece, 16000).startswith(said)  # what comes late is not lost
    assert listener.end().startswith(said) and len(listener.text) > len(said)


@pytest.mark.parametrize(
    ("piece", "rate", "message"),
    [
        (np.zeros(100), 0, "sampling rate"),
        (np.zeros(100), 10**9, "sampling rate"),
        (np.full(100, np.nan), 16000, "NaN"),
        (np.array(["x"] * 100), 16000, "not audio"),
        (np.zeros(16000 * 61), 16000, "at most"),
    ],
)
def test_a_piece_that_is_no_sound_is_refused(piece, rate, message):
    with pytest.raises(recognition.Refused, match=message):
        recognition.Listener("citrinet", "float32").hear(piece, rate)


def test_pieces_of_the_page():
    samples = np.array([0, -32768, 32767, 5], np.int16)
    np.testing.assert_array_equal(recognition.decode_piece(base64.b64encode(samples).decode()), samples)
    for nonsense in ("?", "AAAA", None, 5):
        with pytest.raises(recognition.Refused, match="not audio"):
            recognition.decode_piece(nonsense)


@pytest.fixture
def no_models(monkeypatch):
    monkeypatch.setattr(recognition, "_loaded", {})


@pytest.mark.slow
def test_a_model_is_loaded_once_however_many_ask(no_models, monkeypatch):
    loads = []

    def load(model, **options):
        loads.append((model, options["precision"]))
        time.sleep(0.2)
        return object()

    monkeypatch.setattr(citrinet, "load_recognizer", load)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: recognition.recognizer("m", ("float32", "int8")[i % 2]), range(8)))
    assert sorted(loads) == [("m", "float32"), ("m", "int8")]
    assert len(set(map(id, found))) == 2
    for index in range(2 * recognition.KEPT_MODELS):
        recognition.recognizer(f"m{index}", "int8")
    assert len(recognition._loaded) == recognition.KEPT_MODELS


def test_a_model_that_cannot_be_loaded(no_models, tmp_path, capsys):
    for _ in range(2):
        with pytest.raises(recognition.Refused, match="cannot be loaded at the moment"):
            list(recognition.recognise(np.ones(16000), str(tmp_path), "float32"))
    assert "config.json" in capsys.readouterr().out


def test_stop_ends_between_windows(no_models, monkeypatch):
    windows = []

    class Slow:
        def load(self, source):
            return source["array"]

        def follow(self, waveform, **options):
            for index in range(10):
                windows.append(index)
                yield Progress((index + 1) / 10)

    monkeypatch.setattr(citrinet, "load_recognizer", lambda *args, **options: Slow())
    work = recognition.recognise(np.ones(16000), "m", "float32")
    assert [next(work), next(work)] == [0.1, 0.2]
    work.close()
    assert windows == [0, 1]


@pytest.mark.slow
def test_graphs_are_served(tiny_onnx_dir):
    folder = str(tiny_onnx_dir)
    choices = recognition.choices_of([folder, "other"])
    assert list(choices) == [folder, "other · float32", "other · bfloat16", "other · int8"]
    samples = citrinet.load_audio(CLIPS[0])
    *parts, done = recognition.recognise(samples, *choices[folder])
    assert parts == [1.0]
    assert done.result == citrinet.load_recognizer(folder)(samples, return_timestamps="char")
    assert "ct-facts" in view.page(done)


def test_requirements_are_the_packages_own():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["space"]]
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8").split() == needed


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The Space as it is uploaded, without the rest of the repository."""
    folder = tmp_path_factory.mktemp("space") / "built"
    subprocess.run([sys.executable, SPACE / "build.py", folder], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder.parent / "uploads"), "MAX_SECONDS": "20"}
    settings |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with (folder.parent / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=log
        )
        try:
            for _ in range(240):
                with socket.socket() as test:
                    if process.poll() is not None or not test.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.5)
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(log.read())
            yield f"http://127.0.0.1:{port}", Path(log.name)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def expected():
    recognizer = recognition.recognizer("citrinet", "float32")
    return {clip: recognizer(str(clip))["transcript"] for clip in CLIPS}


def client(server):
    return gradio_client.Client(server[0], verbose=False, httpx_kwargs={"timeout": 60})


@pytest.mark.slow
def test_twenty_clients_at_once_get_their_own_results(server, expected):
    clips = [CLIPS[i % len(CLIPS)] for i in range(20)]

    def ask(clip):
        page, result = client(server).predict(gradio_client.handle_file(clip), CHOICE, api_name="/transcribe")
        assert view.escape(json.loads(result)["transcript"][:1]) in page
        return json.loads(result)["transcript"]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, clips)) == [expected[clip] for clip in clips]
    logged = [line for line in server[1].read_text().splitlines() if "of audio" in line]
    assert len(logged) >= 20 and not any(set(text) & set(line) for line in logged for text in expected.values())


@pytest.mark.slow
def test_every_endpoint(server, expected, tmp_path):
    asked = client(server)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    files = [gradio_client.handle_file(file) for file in (CLIPS[0], silent, CLIPS[1])]
    table, written = asked.predict(files, CHOICE, "JSON", api_name="/transcribe_files")
    assert [row[2] for row in table["data"]][::2] == [expected[CLIPS[0]], expected[CLIPS[1]]]
    assert "silent" in table["data"][1][2]
    results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in written]
    assert [result["transcript"] for result in results] == [expected[CLIPS[0]], expected[CLIPS[1]]]
    one, two = asked.predict(files[0], CHOICE, "citrinet · bfloat16", api_name="/compare")
    assert "ct-said" in one and "ct-said" in two
    with pytest.raises(gradio_client.exceptions.AppError, match="silent"):
        asked.predict(files[1], CHOICE, api_name="/transcribe")
    page, alignment = asked.predict(files[0], "附近有没有去天津的公交车", CHOICE, api_name="/align")
    words = json.loads(alignment)["words"]
    assert "".join(word["text"] for word in words) == "附近有没有去天津的公交车" and "天 津" in page
    assert [word["text"] for word in words if not word["said"]] == ["天", "津"]
    with pytest.raises(Exception, match="Enter the text"):
        asked.predict(files[0], "", CHOICE, api_name="/align")
    endpoints = asked.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/transcribe", "/align", "/listen", "/transcribe_files", "/compare"}


@pytest.mark.slow
def test_clients_listen_each_for_themselves(server):
    streams = [citrinet.CitrinetStream(recognition.recognizer("citrinet", "float32")) for _ in range(2)]
    clients, texts = [client(server) for _ in streams], ["", ""]
    waveforms = [citrinet.load_audio(clip) for clip in CLIPS[:2]]
    for start in range(0, max(map(len, waveforms)), 8000):
        for index, (asked, samples) in enumerate(zip(clients, waveforms, strict=True)):
            if len(piece := samples[start : start + 8000]):
                texts[index] = asked.predict(piece.tolist(), 16000, CHOICE, api_name="/listen")
                assert texts[index] == "".join(streams[index].feed(piece, 16000))
    assert texts[0] != texts[1] and all(texts)
    ends = [asked.predict([], 16000, CHOICE, api_name="/listen") for asked in clients]
    assert ends == [stream.finish().stable for stream in streams]
    assert clients[0].predict(None, 16000, CHOICE, api_name="/listen") == ""
    assert clients[0].predict([0.0] * 8000, 16000, CHOICE, api_name="/listen") == ""
    assert clients[0].predict([0.5], 44100, CHOICE, api_name="/listen") == ""
    assert clients[1].predict([], 16000, CHOICE, api_name="/listen") == ends[1]
    for nonsense in ("abc", {"array": [1]}, [[1], [1, 2]]):
        with pytest.raises(gradio_client.exceptions.AppError, match="list of numbers"):
            clients[0].predict(nonsense, 16000, CHOICE, api_name="/listen")


@pytest.mark.slow
def test_the_readmes_code(server, capsys, monkeypatch, expected):
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(.*?)```", (SPACE / "README.md").read_text(encoding="utf-8"), re.DOTALL).group(1)
    exec(code.replace("http://127.0.0.1:7860", server[0]), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == expected[ROOT / "examples" / "bus.flac"] and len(lines) > 8


@pytest.fixture
def short_lived(tmp_path, monkeypatch):
    """`main` in a thread of this process, with uploads that are deleted after a second."""
    app = pytest.importorskip("app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(app, "KEEP_S", 1)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    for name, value in (("GRADIO_SERVER_PORT", str(port)), ("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))):
        monkeypatch.setenv(name, value)
    pages, build = [], app.build
    monkeypatch.setattr(app, "build", lambda: pages.append(build()) or pages[0])
    thread = threading.Thread(target=app.main, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx.get(f"{address}/config").is_success:
                break
        except httpx.TransportError:
            assert thread.is_alive()
        time.sleep(0.1)
    yield address, tmp_path / "uploads"
    pages[0].close()


def upload(address, name):
    """The path of a file of that name, which is no audio, on the server."""
    return httpx.post(f"{address}/gradio_api/upload", files={"files": (name, b"no audio")}).json()[0]


def ask(address, name, *data):
    """An endpoint's last answer, as a browser has it."""
    event = httpx.post(f"{address}/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    lines = httpx.get(f"{address}/gradio_api/call/{name}/{event}", timeout=60).text.splitlines()
    return json.loads(next(line.removeprefix("data: ") for line in reversed(lines) if line.startswith("data: ")))


@pytest.mark.slow
def test_a_files_name_is_no_html(server):
    sent = {"path": upload(server[0], "a&b<img src=x onerror=alert(1)>.wav"), "meta": {"_type": "gradio.FileData"}}
    message = ask(server[0], "transcribe", sent, CHOICE, "", True)["error"]
    assert "cannot be read as audio" in message and "a&amp;b" in message and "<img" not in message
    table = ask(server[0], "transcribe_files", [sent], CHOICE, "SRT")[0]["data"]
    assert "cannot be read as audio" in table[0][2] and "a&b" in table[0][0]


@pytest.mark.slow
def test_examples_stay_when_uploads_are_deleted(short_lived, expected):
    address, uploads = short_lived
    sent = {"path": upload(address, "late.wav"), "meta": {"_type": "gradio.FileData"}}
    for _ in range(100):
        if not list(uploads.rglob("*.wav")):
            break
        time.sleep(0.2)
    assert not list(uploads.rglob("*.wav"))
    assert "was deleted" in ask(address, "transcribe", sent, CHOICE, "", True)["error"]
    for index, path in enumerate(CLIPS):
        clip = ask(address, "load_example", index)[0]["value"]
        assert httpx.get(clip["url"]).content == path.read_bytes()
    assert json.loads(ask(address, "transcribe", clip, CHOICE, "", True)[1])["transcript"] == expected[path]
    assert httpx.get(f"{address}/gradio_api/file={ROOT / 'examples' / 'clips.jsonl'}").status_code == 403


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_page_in_a_browser(server, browser, expected, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server[0])
    clip = ROOT / "examples" / "song.flac"
    page.locator("input[type=file]").first.set_input_files(clip)
    page.wait_for_selector(".ct .ct-tag", timeout=60_000)
    said = page.locator(".ct-said").evaluate("node => { node.querySelectorAll('small').forEach(s => s.remove());"
                                             " return node.textContent }")  # fmt: skip
    assert said == expected[clip]
    assert {"AGE", "DIALECT", "GENDER"} == set(
        page.locator(".ct-tag").evaluate_all("nodes => nodes.map(node => node.dataset.tag)")
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    piece = page.locator(".ct-letters button").nth(2)
    piece.click()
    assert page.evaluate("document.querySelector('.ct audio').currentTime") >= float(piece.get_attribute("data-start"))
    assert not errors
    context.close()


REMEMBER_CONTEXTS = """
    window.contexts = [];
    const construct = (base, args, target) => {
        const made = Reflect.construct(base, args, target);
        window.contexts.push(made);
        return made;
    };
    window.AudioContext = new Proxy(window.AudioContext, { construct });
"""


@pytest.mark.slow
def test_an_example_and_a_live_recording_in_a_browser(server, browser, expected):
    """
    Nothing that was spoken is lost, however slow the network is: the sentence is there again and again.

    Speech is heard again after the browser suspended the sound and collected garbage.
    """
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.add_init_script(REMEMBER_CONTEXTS)
    page.goto(server[0])
    page.get_by_text("bus.flac").click()
    page.wait_for_selector(".ct .ct-tag", timeout=60_000)
    written = page.locator(".ct-json .cm-content").first.inner_text()
    said = expected[ROOT / "examples" / "bus.flac"]
    assert f'"transcript": "{said}"' in written
    page.get_by_role("tab", name="Live").click()
    page.evaluate("window.contexts = []")  # from here on the microphone's
    page.get_by_role("button", name="Listen").click()
    heard = page.locator("label", has_text="Text so far").locator("textarea")
    page.wait_for_function("window.contexts[0]?.state === 'running'")
    page.evaluate("window.contexts[0].suspend()")
    context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    deadline = time.monotonic() + 60
    while heard.input_value().count(said) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    page.locator("button:visible", has_text="Stop").click()
    page.wait_for_timeout(1000)
    assert heard.input_value().count(said) >= 2, heard.input_value()
    assert page.locator(".toast-body.error").count() == 0
    context.close()
