"""What the pages tell people to type runs as it stands there, and prints what they say that it prints."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from citrinet.cli import main
from helpers import Block, code_blocks
from hub_server import Hub

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/guides").glob("*.md"))]
# What is not run here, and who runs it.
ELSEWHERE = {
    r"citrinet listen( --| *#|$)": "needs a microphone; tests/test_streaming.py has a stand-in",
    r"--ray|import ray": "starts Ray; tests/test_ray.py",
    r"export web|http\.server": "needs npm's registry; tests/test_browser.py",
    r"citrinet bench": "takes minutes; tests/test_bench.py",
    r"docker": "needs a daemon",
    r"pytest": "runs this",
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
FROM_HUB = "citrinet convert WhissleAI/STT-meta-ZH-150m my-model"
SERVER_WAIT_S = 300
NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def from_hub(nemo_dir, tmp_path_factory):
    """What `FROM_HUB` makes, of a small checkpoint on a Hub that is a stand-in."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "repository").mkdir()
    shutil.copyfile(nemo_dir / "zh_small.nemo", folder / "repository/model.nemo")
    with Hub({"WhissleAI/STT-meta-ZH-150m": folder / "repository"}) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder)}
        words = [sys.executable, "-m", "citrinet.cli", *FROM_HUB.split()[1:]]
        subprocess.run(words, cwd=folder, env=os.environ | settings, check=True)
    return folder / "my-model"


@pytest.fixture
def checkout(request, tmp_path, monkeypatch, zh_small_dir, tiny_dir, tiny_is_traced):
    """A folder with what the pages speak of, and programs on the path."""
    exports = request.node.callspec.params["page"].stem in ("export", "space")  # graphs of 23 blocks take minutes
    for name in ("examples", "tests", "recipes", "src", "space"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(tiny_dir if exports else zh_small_dir, tmp_path / "my-model")
    shutil.copyfile(ROOT / "examples/bus.flac", tmp_path / "talk.wav")
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "citrinet").write_text(f'#!/bin/sh\nexec {sys.executable} -m citrinet.cli "$@"\n')
    (scripts / "citrinet").chmod(0o755)
    ffmpeg = shutil.which("ffmpeg") or pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    (scripts / "ffmpeg").symlink_to(ffmpeg)
    monkeypatch.setenv("PATH", str(scripts), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reader(checkout, from_hub):
    with ExitStack() as stack:
        yield Reader(from_hub, stack)


class Reader:
    """Somebody who types what a page says; without a GPU on the CPU, and without the patience to train to the end."""

    def __init__(self, from_hub: Path, stack: ExitStack):
        self.from_hub, self.stack = from_hub, stack
        self.names: dict[str, object] = {}  # of the page's Python
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def type(self, block: Block) -> None:
        content = block.content.replace("--port 8000", f"--port {self.port}").replace(":8000/", f":{self.port}/")
        if not torch.cuda.is_available():
            content = content.replace("cuda", "cpu")
        if block.language == "python":
            exec(compile(content, f"line {block.line}", "exec"), self.names)
            return
        for line in content.replace("\\\n", "").splitlines():
            if line.strip() and not is_elsewhere(line):
                self._run(line)

    def _run(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        if words[0] == "pip":
            check_install(words)
        elif words[:2] == ["citrinet", "serve"]:
            self._serve(words[1:])
        elif line == FROM_HUB:
            shutil.rmtree("my-model")
            shutil.copytree(self.from_hub, "my-model")
        elif words[:2] == ["citrinet", "train"]:
            assert main([*words[1:], "training.max_steps=1"]) == 0, line
        elif words[0] == "citrinet" and not re.search(r"[|>]", line):
            assert main(words[1:]) == 0, line  # in this process, which saves the time to import
        else:
            assert words[0] in ("citrinet", "curl", "echo", "ffmpeg", "printf"), f"nobody knows how to test: {line}"
            subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True)

    def _serve(self, words: list[str]) -> None:
        server = subprocess.Popen([sys.executable, "-m", "citrinet.cli", *words])
        self.stack.callback(server.wait)
        self.stack.callback(server.terminate)
        for _ in range(SERVER_WAIT_S):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10):
                return
            with suppress(subprocess.TimeoutExpired):
                server.wait(1)
                break
        pytest.fail("the server does not answer")


def is_elsewhere(code: str) -> bool:
    return any(re.search(pattern, code) for pattern in ELSEWHERE)


def is_run(block: Block) -> bool:
    """Results in Python's notation are not run."""
    if block.language == "python":
        return not block.content.startswith("{") and not is_elsewhere(block.content)
    return block.language == "shell"


def check_install(words: list[str]) -> None:
    """Nothing is installed: the extras and lists of requirements must be there."""
    assert all((ROOT / name).is_file() for option, name in pairwise(words) if option == "-r"), words
    for extras in re.findall(r"(?:\.|citrinet)\[([\w,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= EXTRAS.keys(), words


def check_printed(expected: str, printed: str) -> None:
    """All lines of a block are printed, in their order."""
    lines = iter(printed.splitlines())
    missing = [line for line in expected.splitlines() if not any(is_same(line, other) for other in lines)]
    assert not missing, f"{missing} is not in\n{printed}"


def is_same(line: str, other: str) -> bool:
    """Another CPU may round otherwise."""
    numbers = (map(float, NUMBER.findall(text)) for text in (line, other))
    shapes = {NUMBER.sub("#", text.strip()) for text in (line, other)}
    return len(shapes) == 1 and all(abs(one - two) <= 0.02 for one, two in zip(*numbers, strict=True))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(is_run, code_blocks(page)))], ids=lambda page: page.stem
)
def test_what_a_page_says_runs(page, reader, capfd):
    for block in filter(is_run, code_blocks(page)):
        capfd.readouterr()
        reader.type(block)
        if block.output is not None and not is_elsewhere(block.content):
            check_printed(block.output, "".join(capfd.readouterr()))


def test_each_exclusion_is_needed():
    code = "\n".join(block.content for page in PAGES for block in code_blocks(page))
    assert not [pattern for pattern in ELSEWHERE if not re.search(pattern, code, re.MULTILINE)]
