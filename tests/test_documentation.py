"""What README and guides tell people to type runs as it stands there, but for what needs a network, a microphone or a GPU."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from citrinet.cli import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
# A network, a microphone, a GPU, another machine, minutes of work, or what other tests start.
ELSEWHERE = re.compile(
    r"WhissleAI|citrinet (serve|bench|listen( |$)(?!-$))|cuda|10\.0\.0\.1|--ray|nemo-environment|base_url|import ray|my-onnx|export web"
)


@pytest.fixture
def checkout(tmp_path, monkeypatch, zh_small_dir):
    """A folder with what the pages speak of."""
    for name in ("examples", "tests", "recipes", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(zh_small_dir, tmp_path / "my-model")
    shutil.copyfile(ROOT / "examples/bus.flac", tmp_path / "talk.wav")
    monkeypatch.chdir(tmp_path)
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "citrinet").write_text(f'#!/bin/sh\nexec {sys.executable} -m citrinet.cli "$@"\n')
    (scripts / "citrinet").chmod(0o755)
    monkeypatch.setenv("PATH", str(scripts), prepend=":")
    return tmp_path


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of the code blocks of a page that can be run."""
    found = re.findall(r"^```(shell|python)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if not content.startswith("{")]  # a result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_runs(page, checkout, capfd):
    ran, names = 0, {}
    for language, content in blocks(page):
        if language == "python" and not ELSEWHERE.search(content):
            exec(compile(content, f"{page.name}: {content[:40]!r}", "exec"), names)
            ran += 1
        for line in content.splitlines() if language == "shell" else ():
            if line.startswith(("citrinet", "echo", "printf", "ffmpeg")) and not ELSEWHERE.search(line):
                run(line)
                ran += 1
    assert ran or page.stem in ("browser", "serve")


def run(line: str) -> None:
    """Run a line: in this process if it is a command of ours alone, which saves the time to import."""
    if re.search(r"[|>]", line):
        subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL)
    else:
        words = shlex.split(line, comments=True)
        assert main(words[1:]) == 0, line
