"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile

# Both before PyTorch is imported. Each worker has a core of its own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# MKL's FFT for Intel's own CPUs rounds quiet bands otherwise than the one that NeMo's reference outputs were made with:
# features differ by up to 5e-4 from them, and by 4e-5 with the kernels that MKL has for all CPUs (docs/decisions/030).
_CPU = Path("/proc/cpuinfo")
if _CPU.is_file() and "GenuineIntel" in _CPU.read_text(encoding="utf-8"):
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import torch

if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter, which it asks for when it is imported: after PyTorch, and not by it.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC, CitrinetProcessor, default_model, load_audio
from citrinet.convert import convert_nemo
from tiny_models import TWO_BLOCKS, tiny_config, tiny_tokenizer


@pytest.fixture(scope="session")
def nemo_dir() -> Path:
    """The `.nemo` files: real layouts with few channels and random weights."""
    return Path(__file__).parent / "fixtures" / "nemo"


@pytest.fixture(scope="session")
def zh_small_dir(nemo_dir, tmp_path_factory) -> Path:
    """`zh_small.nemo` converted: Chinese pieces, inline markers, adapters, tag heads. Not to be written to."""
    return _converted(nemo_dir / "zh_small.nemo", tmp_path_factory)


@pytest.fixture(scope="session")
def base_small_dir(nemo_dir, tmp_path_factory) -> Path:
    """`base_small.nemo` converted: neither markers nor adapters nor tag heads. Not to be written to."""
    return _converted(nemo_dir / "base_small.nemo", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory) -> Path:
    """Two blocks with adapters, tag heads and a tokenizer, random weights: enough to transcribe. Not to be written to."""

    def make(folder: Path) -> None:
        tokenizer = tiny_tokenizer("bpe")
        torch.manual_seed(0)
        network = CitrinetForCTC(tiny_config(**TWO_BLOCKS, vocab_size=len(tokenizer), num_mel_bins=80))
        network.save_pretrained(folder)
        CitrinetProcessor(CitrinetFeatureExtractor(), tokenizer).save_pretrained(folder)

    return made_once("tiny", make, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_graphs(tiny_dir, tmp_path_factory) -> Path:
    """`tiny_dir` as ONNX graphs, in a folder for each type. Not to be written to."""
    return _exported(tiny_dir, "tiny_graphs", ["int8"], tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_onnx_dir(tiny_graphs) -> Path:
    """`tiny_dir` as ONNX graphs. Not to be written to."""
    return tiny_graphs / "float32"


@pytest.fixture(scope="session")
def embedded_graphs(tmp_path_factory) -> Path:
    """The embedded model as ONNX graphs, in a folder for each type. Not to be written to."""
    return _exported(default_model(), "embedded_graphs", ["float16", "int8"], tmp_path_factory)


@pytest.fixture
def tiny_is_traced(tiny_graphs, monkeypatch) -> None:
    """An export of `tiny_dir` takes the graphs that there are."""
    _take_graphs(tiny_graphs / "float32", monkeypatch)


@pytest.fixture
def ffmpeg(monkeypatch, tmp_path) -> str:
    """A folder on the path with an `ffmpeg` in it, the machine's own or the one that imageio-ffmpeg brings."""
    binary = shutil.which("ffmpeg") or pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(binary)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return binary


def _converted(nemo_file: Path, tmp_path_factory) -> Path:
    return made_once(nemo_file.stem, lambda folder: convert_nemo(nemo_file, folder), tmp_path_factory)


def made_once(name: str, make: Callable[[Path], object], tmp_path_factory) -> Path:
    """A folder that `make` writes, once for all workers of pytest-xdist."""
    run = tmp_path_factory.getbasetemp()
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    with filelock.FileLock(run / f"{name}.lock"):
        if not (run / name).exists():
            make(run / f"{name}.part")
            (run / f"{name}.part").rename(run / name)
    return run / name


def _exported(model: Path, name: str, smaller: Iterable[str], tmp_path_factory) -> Path:
    """A model's graphs in float32 and smaller types. Of int8 nothing is traced anew."""
    hf_to_onnx = pytest.importorskip("citrinet.convert.hf_to_onnx")

    def export(folder: Path) -> None:
        folder.mkdir()
        hf_to_onnx.export_onnx(model, folder / "float32")
        with pytest.MonkeyPatch.context() as patch:
            _take_graphs(folder / "float32", patch)
            for dtype in smaller:
                hf_to_onnx.export_onnx(model, folder / dtype, dtype=dtype)

    return made_once(name, export, tmp_path_factory)


def _take_graphs(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let exports of the same model copy its graphs in float32 from a folder: tracing takes long."""
    hf_to_onnx = pytest.importorskip("citrinet.convert.hf_to_onnx")

    def copying(graph: Path, write: Callable[..., None]) -> Callable[..., None]:
        def copy(module, path, opset, dtype=torch.float32):
            if dtype == torch.float32:
                shutil.copyfile(graph, path)
            else:
                write(module, path, opset, dtype)

        return copy

    graphs = {
        "write_front_end": "frontend.onnx",
        "write_network": "model.onnx",
        "write_tag_heads": "tag_classifier.onnx",
    }
    for name, file in graphs.items():
        patch.setattr(hf_to_onnx, name, copying(folder / file, getattr(hf_to_onnx, name)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, into the microphone of which somebody speaks: the clip of the bus, over and over."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    spoken = tmp_path_factory.mktemp("microphone") / "bus.wav"
    samples = load_audio(Path(__file__).parents[1] / "examples" / "bus.flac")
    soundfile.write(spoken, np.pad(samples, (0, 16000)), 16000)
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={spoken}"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()
