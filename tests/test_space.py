"""The demo: its parts, its API under load, and the page in a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import pipeline

import citrinet

gradio_client = pytest.importorskip("gradio_client")
ROOT = Path(__file__).parents[1]
SPACE = ROOT / "space"
sys.path.insert(0, str(SPACE))
formats, recognition, view = (pytest.importorskip(name) for name in ("formats", "recognition", "view"))

CLIPS = sorted((ROOT / "examples").glob("*.flac"))
CHOICE = "citrinet · float32"
CHUNKS = [{"text": c, "timestamp": (i / 2, i / 2 + 0.3)} for i, c in enumerate("来首歌")]
CHUNKS += [{"text": "<吻", "timestamp": (3.0, 3.2)}]
RESULT = {
    "text": "来首歌 ENTITY_SONG_NAME <吻 END",
    "transcript": "来首歌<吻",
    "entities": [{"type": "SONG_NAME", "text": "<吻", "start": 3, "end": 5, "timestamp": (3.0, 3.2)}],
    "tags": {"AGE": {"label": "AGE_<14", "score": 0.75, "source": "head", "head": "AGE_<14", "text": None}},
    "chunks": CHUNKS,
}


def test_files_for_other_programs(tmp_path):
    from praatio import textgrid

    results = [("talk.wav", 4.0, RESULT), ("quiet.wav", 1.0, {**RESULT, "entities": [], "chunks": []})]
    (lines,) = formats.write(results, "JSON lines", tmp_path)
    read = [json.loads(line) for line in Path(lines).read_text(encoding="utf-8").splitlines()]
    assert [one["file"] for one in read] == ["talk.wav", "quiet.wav"]
    assert read[0]["transcript"] == RESULT["transcript"]
    talk, quiet = formats.write(results, "SRT", tmp_path)
    assert Path(talk).read_text(encoding="utf-8") == (
        "1\n00:00:00,000 --> 00:00:01,300\n来首歌\n\n2\n00:00:03,000 --> 00:00:03,200\n<吻\n\n"
    )
    assert not Path(quiet).read_text(encoding="utf-8")
    talk, quiet = formats.write(results, "TextGrid", tmp_path)
    grid = textgrid.openTextgrid(talk, includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("characters").entries] == ["来", "首", "歌", "<吻"]
    assert tuple(grid.getTier("entities").entries[0]) == (3.0, 3.2, "SONG_NAME: <吻")
    assert grid.maxTimestamp == 4.0
    assert textgrid.openTextgrid(quiet, includeEmptyIntervals=False).tierNames == ("characters", "entities")


def test_page_marks_entities_and_escapes():
    samples = np.random.default_rng(0).standard_normal(64000).astype(np.float32)
    page = view.page(recognition.Recognition(RESULT, samples, 0.1, is_speech=True))
    assert 'data-type="SONG_NAME">&lt;吻<small>' in page and "<吻" not in page
    assert "75%" in page and "&lt;14" in page
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


def test_windows_report_progress_and_give_the_pipelines_result():
    samples = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS] * 7)[: 16000 * 125]
    *parts, heard = recognition.recognise(samples, "citrinet", "float32")
    assert parts == pytest.approx([(i + 1) / len(parts) for i in range(len(parts))]) and len(parts) > 4
    expected = pipeline("automatic-speech-recognition", citrinet.default_model())(samples, return_timestamps="char")
    assert heard.result == expected


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
def test_a_listener_keeps_what_it_heard_and_lets_go_of_the_sound():
    samples = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS] * 2)[: 16000 * 30]
    listener, text = recognition.Listener("citrinet", "float32"), ""
    for start in range(0, len(samples), 8000):
        text = listener.hear((samples[start : start + 8000] * 32767).astype(np.int16), 16000)
        assert text.startswith(listener.settled)
        assert len(listener.samples) <= 16000 * (listener.WINDOW + 0.5)
    assert len(listener.settled) > 20 and len(text) > len(listener.settled)


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
    recognizer = pipeline("automatic-speech-recognition", citrinet.default_model())
    return {clip: recognizer(str(clip))["transcript"] for clip in CLIPS}


def client(server):
    return gradio_client.Client(server[0], verbose=False)


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
    table, written = asked.predict(files, CHOICE, "JSON lines", api_name="/transcribe_files")
    assert [row[2] for row in table["data"]][::2] == [expected[CLIPS[0]], expected[CLIPS[1]]]
    assert "silent" in table["data"][1][2]
    written = written[0] if isinstance(written, list) else written
    lines = [json.loads(line) for line in Path(written).read_text(encoding="utf-8").splitlines()]
    assert [line["transcript"] for line in lines] == [expected[CLIPS[0]], expected[CLIPS[1]]]
    one, two = asked.predict(files[0], CHOICE, "citrinet · bfloat16", api_name="/compare")
    assert "ct-said" in one and "ct-said" in two
    with pytest.raises(gradio_client.exceptions.AppError, match="silent"):
        asked.predict(files[1], CHOICE, api_name="/transcribe")
    assert {"/transcribe", "/listen", "/transcribe_files", "/compare"} <= set(
        asked.view_api(print_info=False, return_format="dict")["named_endpoints"]
    )


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


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


@pytest.mark.slow
def test_an_example_and_a_live_recording_in_a_browser(server, browser, expected):
    """Chromium's own test microphone beeps; what matters is that the page takes the stream and answers."""
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.goto(server[0])
    page.get_by_text("bus.flac").click()
    page.wait_for_selector(".ct .ct-tag", timeout=60_000)
    written = page.locator(".ct-json .cm-content").first.inner_text()
    assert f'"transcript": "{expected[ROOT / "examples" / "bus.flac"]}"' in written
    before = server[1].read_text().count("of audio")
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Record").last.click()
    deadline = time.monotonic() + 30
    while server[1].read_text().count("of audio") < before + 2 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    assert server[1].read_text().count("of audio") >= before + 2
    assert page.locator(".toast-body.error").count() == 0
    context.close()
