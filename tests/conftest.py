"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch is imported: each worker has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from citrinet.convert import convert_nemo


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


@pytest.fixture
def ffmpeg(monkeypatch, tmp_path) -> str:
    """A folder on the path with an `ffmpeg` in it, the machine's own or the one that imageio-ffmpeg brings."""
    binary = shutil.which("ffmpeg") or pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(binary)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return binary


def _converted(nemo_file: Path, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("converted") / nemo_file.stem
    convert_nemo(nemo_file, output)
    return output
