"""The page for browsers: its export, its JavaScript against Python, and all of it in Chromium."""

import base64
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

import citrinet
from citrinet.audio_citrinet import resample
from citrinet.cli import main
from citrinet.decoding_citrinet import Emissions, PieceJoiner, punctuation_marks
from citrinet.result_citrinet import SPEECH_CONFIDENCE, Heard, ResultBuilder
from citrinet.windows_citrinet import LONG_AUDIO_S

hf_to_web = pytest.importorskip("citrinet.convert.hf_to_web")
ROOT = Path(__file__).parents[1]
CLIPS = sorted((ROOT / "examples").glob("*.flac"))
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
WAIT_MS = 120_000


class Server(ThreadingHTTPServer):
    """Python's server of static files, with headers of ours, for as long as the context lasts."""

    def __init__(self, folder, headers=None):
        class Handler(SimpleHTTPRequestHandler):
            def end_headers(self):
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                super().end_headers()

            def log_message(self, *args):
                self.server.asked.append(self.path)

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.asked = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()


@pytest.fixture
def package(tmp_path):
    """What stands for onnxruntime-web, as npm packs it."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in hf_to_web._RUNTIME:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def copy_graphs(graphs):
    """What stands for `export_onnx` where the graphs are there."""

    def export(model, output, **options):
        assert options == {"dtype": "int8"}
        shutil.copytree(graphs, output)
        return citrinet.convert.ConversionReport(citrinet.CitrinetConfig(), {}, 0)

    return export


@pytest.fixture
def quick(tiny_dir, tiny_onnx_dir, monkeypatch):
    """The tiny model."""
    monkeypatch.setattr(hf_to_web, "export_onnx", copy_graphs(tiny_onnx_dir))
    return tiny_dir


@pytest.mark.slow
def test_a_page_is_written_whole_and_replaced_only_by_force(quick, package, tmp_path, capsys):
    command = ["export", "web", str(quick), str(tmp_path / "page"), "--onnxruntime-web", str(package)]
    assert main(command) == 0
    written = {path.name: path.stat().st_size for path in (tmp_path / "page").iterdir()}
    page = {path.name for path in (ROOT / "space" / "browser").iterdir()}
    assert page < set(written) and not {"tokens.txt", "vocab.txt"} & set(written)
    sizes = json.loads((tmp_path / "page" / "files.json").read_text())
    assert sizes.items() <= written.items()
    assert set(written) == page | set(sizes) | {"files.json", "onnxruntime-web.js"}
    assert citrinet.load_recognizer(tmp_path / "page").tag_labels
    assert main(command) == 1 and "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    (tmp_path / "page" / "mine.txt").touch()
    assert main([*command, "--force"]) == 1 and "mine.txt" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["absent", "empty folder", "no archive", "another package"])
def test_what_is_no_onnxruntime_web_leaves_nothing(quick, tmp_path, kind):
    given = tmp_path / "given"
    if kind == "empty folder":
        given.mkdir()
    elif kind == "no archive":
        given.write_text("text")
    elif kind == "another package":
        with tarfile.open(given, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("package/package.json"))
    with pytest.raises((ValueError, FileNotFoundError), match="npm package onnxruntime-web"):
        hf_to_web.export_web(quick, tmp_path / "page", onnxruntime_web=given)
    assert {path.name for path in tmp_path.iterdir()} <= {"given"}


@pytest.mark.slow
def test_the_package_is_fetched_once_and_its_hash_is_checked(quick, package, tmp_path, monkeypatch):
    registry = tmp_path / "registry"
    served = registry / "onnxruntime-web" / "-" / f"onnxruntime-web-{hf_to_web.ONNXRUNTIME_WEB}.tgz"
    served.parent.mkdir(parents=True)
    content = package.read_bytes()
    served.write_bytes(content + b"more")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(hf_to_web, "_INTEGRITY", f"sha512-{digest}")
    with Server(registry) as server:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{server.address}/")
        with pytest.raises(OSError, match="its hash is another"):
            hf_to_web.export_web(quick, tmp_path / "page")
        assert not list((tmp_path / "cache" / "citrinet").iterdir()) and not (tmp_path / "page").exists()
        served.write_bytes(content)
        for _ in range(2):
            hf_to_web.export_web(quick, tmp_path / "page", force=True)
        assert len(server.asked) == 2
        (kept,) = (tmp_path / "cache" / "citrinet").iterdir()
        kept.write_bytes(content[:-1])
        hf_to_web.export_web(quick, tmp_path / "page", force=True)
        assert len(server.asked) == 3 and kept.read_bytes() == content
        kept.unlink()
        served.unlink()
        with pytest.raises(OSError, match=r"404.*--onnxruntime-web"):
            hf_to_web.export_web(quick, tmp_path / "other")


def test_the_pages_limits_are_those_of_the_package():
    page = (ROOT / "space" / "browser" / "page.js").read_text(encoding="utf-8")
    assert f"const SPEECH_CONFIDENCE = {SPEECH_CONFIDENCE:g};" in page
    assert f"const MAX_SECONDS = {LONG_AUDIO_S:g};" in page


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """onnxruntime-web, by npm, which knows the registry, the proxy and the checksum; kept in the cache."""
    version = f"onnxruntime-web-{hf_to_web.ONNXRUNTIME_WEB}"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citrinet-tests" / f"{version}.tgz"
    if not kept.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("onnxruntime-web cannot be had: no npm on this machine")
        folder = tmp_path_factory.mktemp("npm")
        wanted = f"onnxruntime-web@{hf_to_web.ONNXRUNTIME_WEB}"
        run = subprocess.run([npm, "pack", wanted, "--fetch-retries=1"], cwd=folder, capture_output=True, text=True)
        if run.returncode:
            pytest.skip(f"onnxruntime-web cannot be had: {run.stderr[-200:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / kept.name, kept.with_suffix(f".{os.getpid()}"))
        kept.with_suffix(f".{os.getpid()}").replace(kept)
    assert hf_to_web._integrity(kept) == hf_to_web._INTEGRITY
    return kept


@pytest.fixture(scope="module")
def site(runtime, embedded_graphs, tmp_path_factory):
    """The page with the package's own model."""
    output = tmp_path_factory.mktemp("web") / "page"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_to_web, "export_onnx", copy_graphs(embedded_graphs / "int8"))
        return hf_to_web.export_web(citrinet.default_model(), output, onnxruntime_web=runtime).output


@pytest.fixture(scope="module")
def recognizer(site):
    return citrinet.load_recognizer(site)


@pytest.fixture
def open_page(browser):
    """Opens a page in a window of its own and waits for its model; what goes wrong on it fails the test."""
    contexts, errors = [], []

    def opened(address, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto(address)
        page.wait_for_selector("#file:enabled", timeout=WAIT_MS)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def heard(page):
    """The result that the page shows."""
    page.wait_for_selector("#result:visible, #error:visible", timeout=WAIT_MS)
    assert not page.locator("#error").is_visible(), page.inner_text("#error")
    page.wait_for_selector("#file:enabled")
    return json.loads(page.text_content("#json"))


def recognise(page, file):
    page.set_input_files("#file", file)
    return heard(page)


def check(found, expected, tolerance, path="result"):
    """Whether two results are the same: texts exactly, numbers within a tolerance."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            check(found[key], expected[key], tolerance, f"{path}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            check(one, other, tolerance, f"{path}[{index}]")
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance, path
    else:
        assert found == expected, path


def without_scores(result):
    """A result without what depends on the last bits of probabilities."""
    kept = [[{key: value for key, value in one.items() if key != "confidence"} for one in result[name]]
            for name in ("entities", "chunks")]  # fmt: skip
    tags = {category: tag["label"] for category, tag in result["tags"].items()}
    return [result["text"], result["transcript"], *kept, tags]


@pytest.mark.slow
def test_clips_give_what_the_recogniser_of_the_graphs_gives(site, recognizer, open_page):
    with Server(site) as server:
        page = open_page(server.address)
        page.context.set_offline(True)  # all that it needs has come
        for clip in CLIPS:
            result = recognise(page, clip)
            expected = recognizer(clip, return_timestamps="char")
            check(without_scores(result), without_scores(expected), 1e-3)
            check(result, expected, 0.1)  # int8: steps of activations follow their extremes
        assert sorted(server.asked) == sorted(set(server.asked))


@pytest.mark.slow
def test_the_page_shows_the_result(site, open_page):
    with Server(site) as server:
        page = open_page(server.address, viewport={"width": 390, "height": 800})
        result = recognise(page, ROOT / "examples" / "weather.flac")
        marks = page.locator("#transcript mark")
        assert marks.evaluate_all("all => all.map(mark => [mark.dataset.type, mark.firstChild.data])") == [
            [entity["type"], entity["text"]] for entity in result["entities"]
        ]
        assert len(result["entities"]) == 2
        without_names = "node => [...node.querySelectorAll('small')].map(name => name.remove()) && node.textContent"
        assert page.locator("#transcript").evaluate(without_names) == result["transcript"]
        assert page.locator("#tags li").evaluate_all("all => all.map(tag => tag.dataset.tag)") == list(result["tags"])
        letters = page.locator("#letters button")
        assert letters.evaluate_all("all => all.map(one => [+one.dataset.start, +one.dataset.end])") == [
            chunk["timestamp"] for chunk in result["chunks"]
        ]
        letters.nth(5).focus()
        page.keyboard.press("Enter")
        page.wait_for_function("document.getElementById('audio').currentTime > 0")
        assert page.evaluate("document.getElementById('audio').currentTime") >= result["chunks"][5]["timestamp"][0]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        names = "all => all.map(one => one.textContent.trim() || one.labels?.[0]?.textContent.trim())"
        assert all(page.locator("button, input").evaluate_all(names))


@pytest.mark.slow
def test_speech_from_the_microphone(site, open_page):
    with Server(site) as server:
        page = open_page(server.address, permissions=["microphone"])
        page.click("#record")
        page.wait_for_selector("#record.recording")
        page.wait_for_timeout(9000)  # the clip, wherever in it that began
        page.click("#record")
        assert "北山的公交车" in heard(page)["transcript"]
        assert "Record" in page.inner_text("#record")


@pytest.mark.slow
def test_files_of_other_rates_and_channels(site, recognizer, open_page, tmp_path):
    samples = citrinet.load_audio(ROOT / "examples" / "bus.flac")
    samples = resample(samples, 16000, 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([1.2 * samples, 0.8 * samples], axis=1), 44100)
    with Server(site) as server:
        result = recognise(open_page(server.address), tmp_path / "stereo.wav")
    assert result["text"] == recognizer(tmp_path / "stereo.wav")["text"]


@pytest.mark.slow
def test_bad_files_get_one_line(site, open_page, tmp_path):
    noise = np.random.default_rng(0).standard_normal(16000 * 3) / 10
    sounds = {"silent": np.zeros(16000), "short": np.ones(100) / 2, "long": np.ones(16000 * 121) / 2, "noise": noise}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    shutil.copy(ROOT / "README.md", tmp_path / "text.wav")
    (tmp_path / "empty.wav").touch()
    messages = {"text": "cannot be read", "empty": "cannot be read", "silent": "silent"}
    messages |= {"short": "too short", "long": "2 minutes"}
    with Server(site) as server:
        page = open_page(server.address)
        for name, message in messages.items():
            page.set_input_files("#file", tmp_path / f"{name}.wav")
            page.wait_for_selector("#error:visible", timeout=WAIT_MS)
            assert message in page.inner_text("#error") and "\n" not in page.inner_text("#error").strip()
            assert not page.locator("#result").is_visible()
            page.evaluate("document.getElementById('error').hidden = true")
        recognise(page, tmp_path / "noise.wav")
        assert "No speech" in page.inner_text("#transcript") and not page.locator("#tags li").count()
        assert recognise(page, CLIPS[0])["transcript"]


@pytest.mark.slow
def test_threads_where_the_page_is_isolated(site, recognizer, open_page):
    with Server(site, ISOLATED) as server:
        page = open_page(server.address)
        assert page.evaluate("crossOriginIsolated")
        assert recognise(page, CLIPS[0])["text"] == recognizer(CLIPS[0])["text"]
        threads = min(page.evaluate("navigator.hardwareConcurrency"), 4)
        assert page.inner_text("#facts").endswith(f" {threads}")


@pytest.mark.slow
def test_a_model_without_tag_heads(site, open_page, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(site, folder)
    sizes = json.loads((folder / "files.json").read_text())
    for name in ("tag_classifier.onnx", "tag_classifier.json"):
        (folder / name).unlink()
        del sizes[name]
    (folder / "files.json").write_text(json.dumps(sizes))
    with Server(folder) as server:
        result = recognise(open_page(server.address), CLIPS[0])
    expected = citrinet.load_recognizer(folder)(CLIPS[0], return_timestamps="char")
    assert expected["entities"] and not expected["tags"]
    check(without_scores(result), without_scores(expected), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["absent", "cut short", "no graph"])
def test_a_folder_that_was_not_copied_whole(site, browser, tmp_path, damage):
    shutil.copytree(site, tmp_path / "page")
    graph = tmp_path / "page" / "model.onnx"
    size = graph.stat().st_size
    graph.write_bytes({"absent": b"", "cut short": graph.read_bytes()[:-1], "no graph": bytes(size)}[damage])
    if damage == "absent":
        graph.unlink()
    with Server(tmp_path / "page") as server:
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_selector("#error:visible", timeout=WAIT_MS)
        assert "The model cannot be loaded" in page.inner_text("#error")
        assert damage == "no graph" or "model.onnx" in page.inner_text("#error")
        assert page.locator("#file").is_disabled()
        page.close()


PIECES = ["<unk>", "END", "ENTITY_SONG_NAME", "ENTITY_TIME", "▁AGE_14_25", "AGE_<14", "MY_KIND_A", "▁the", "ing", "▁"]
PIECES += ["▁Ab", "我", "你", "𠀀", "，", ",", "?", "NORTH", "DIALECT_", "EN", "D", "_", "▁▁x", "x,y", "OTHER_TAG", "é"]
LABELS = {"AGE": ["NONE", "AGE_14_25", "AGE_<14"], "DIALECT": ["NONE", "DIALECT_NORTH"], "MY_KIND": ["MY_KIND_A"]}


def random_outputs(rng):
    """(T', V) log-probabilities in which tokens last some frames, many of them blanks and markers; logits of tags."""
    size = len(PIECES) + 1
    weights = np.array([4.0 if piece.startswith(("END", "ENTITY")) else 1.0 for piece in PIECES] + [8.0])
    ids = rng.choice(size, size=25, p=weights / weights.sum()).repeat(rng.integers(1, 3, size=25))
    logits = rng.standard_normal((len(ids), size))
    logits[np.arange(len(ids)), ids] += rng.uniform(4, 9, size=len(ids))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return log_probs.astype(np.float32), [rng.standard_normal(len(labels)) for labels in LABELS.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pieces", "labels", "leading", "temperature"),
    [
        (PIECES, LABELS, "keep", 1.0),
        (PIECES, LABELS, "drop_one", 1.4),
        (PIECES, {}, "drop_all", 1.0),
        ([piece.replace("ENTITY", "entity") for piece in PIECES], LABELS, "drop_all", 1.0),  # END is a word
        ([piece.replace("ENTITY_", "ENTITY-") for piece in PIECES], LABELS, "keep", 1.0),
    ],
)
def test_results_are_those_of_python(browser, pieces, labels, leading, temperature):
    rng = np.random.default_rng(0)
    cases = [random_outputs(rng) for _ in range(100)]
    preprocessor = {"sample_rate": 16000, "hop_length": 160}
    config = {"preprocessor": preprocessor, "subsampling_factor": 4, "confidence_temperature": temperature}
    vocabulary = {"vocabulary": pieces, "blank_id": len(pieces), "unknown_id": 0, "leading_boundaries": leading}
    classifier = {"categories": {category: {"labels": names} for category, names in labels.items()}} if labels else None
    sent = [[log_probs.ravel().tolist(), len(log_probs), [one.tolist() for one in tags]] for log_probs, tags in cases]
    with Server(ROOT / "space" / "browser") as server:
        page = browser.new_page()
        page.goto(f"{server.address}/result.js")  # a page of that address, with nothing on it
        found = page.evaluate(
            """async (sent) => {
                const [files, cases] = JSON.parse(sent);
                const { ResultBuilder } = await import("/result.js");
                const builder = new ResultBuilder(...files);
                return cases.map(([logProbs, frames, tags]) => builder.build(logProbs, frames, tags, 12345));
            }""",
            json.dumps([[vocabulary, config, classifier], sent]),
        )
        page.close()
    joiner = PieceJoiner(dict(enumerate(pieces)).get, 0, leading, punctuation_marks(pieces))
    ids = {piece: index for index, piece in enumerate(pieces)}
    builder = ResultBuilder(ids, 0.04, labels, joiner.text_with_spans, temperature)
    entities = 0
    for (log_probs, tags), result in zip(cases, found, strict=True):
        decoded = Emissions.of(log_probs, 1).decode(None, len(pieces), len(pieces) + 1)
        logits = np.concatenate(tags) if labels else np.zeros(0)
        said = Heard(decoded, len(log_probs), logits, 0.0, 12345 / 16000)
        expected = builder.build([said], "char")
        check(result, expected, 1.01e-3)  # a last digit may be rounded the other way
        entities += len(expected["entities"])
    assert entities > 30 or "ENTITY_TIME" not in pieces
