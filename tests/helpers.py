"""What several test files use."""

import json
import os
import re
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import citrinet

TESTS = Path(__file__).resolve().parent
PACKAGE_ROOT = Path(citrinet.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Block:
    """
    A code block of a page.

    Args:
        language: what stands behind the fence; nothing in outputs.
        content: its lines.
        line: where it begins, counted from 1.
        output: the content of the block without a language that follows at once, or after a paragraph that speaks of
            what is printed.
    """

    language: str
    content: str
    line: int
    output: str | None = None


def code_blocks(page: Path) -> list[Block]:
    """The code blocks of a page in Markdown that name a language."""
    text = page.read_text(encoding="utf-8")
    fences = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    blocks = []
    for fence, after in pairwise([*fences, None]):
        output = None
        if after is not None and not after[1]:
            between = text[fence.end() : after.start()].strip()
            output = after[2] if not between or ("print" in between and "\n\n" not in between) else None
        if fence[1]:
            blocks.append(Block(fence[1], fence[2], text.count("\n", 0, fence.start()) + 1, output))
    return blocks


def synthetic_speech(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """
    Chirps in bursts over a little noise: (n,) float32 in [-1, 1], the same for the same seed.

    Not speech, but like it in that its spectrum moves all the time, so that a model writes something and a mistake in
    the features or the padding shows.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    samples = 0.01 * rng.standard_normal(len(time))
    for _ in range(4):
        low, rise, burst, phase = rng.uniform([100, 50, 2, 0], [1500, 900, 6, 2 * np.pi])
        envelope = np.clip(np.sin(2 * np.pi * burst * time + phase), 0, None)
        samples += 0.15 * envelope * np.sin(2 * np.pi * (low + rise * np.sin(time)) * time)
    return np.clip(samples, -1, 1).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> str:
    """Write samples as 16-bit mono and return the path as a string."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)


def forgive_scores(results: Any, tolerance: float = 1.5e-4) -> Any:
    """
    Let scores and confidences compare equal within `tolerance`, everything else exactly.

    In another batch, or elsewhere than in torch, the same sums are added up in another order; a score that lies between
    two roundings to four digits may then become either.
    """
    if isinstance(results, list):
        return [forgive_scores(result, tolerance) for result in results]
    if isinstance(results, dict):
        return {
            name: pytest.approx(value, abs=tolerance)
            if name in ("score", "confidence")
            else forgive_scores(value, tolerance)
            for name, value in results.items()
        }
    return results


@dataclass
class Probe:
    """
    A function of `probe.py` to be run in a fresh interpreter, and how that went.

    Args:
        function: its name.
        package: whether the interpreter knows `citrinet`; if not, importing it fails even where it is installed.
        home: folder for the caches of Transformers and the Hub; a new one if not given, so that nothing stale helps.
        environment: further variables.
        arguments: what the function gets, JSON values only.
    """

    function: str
    package: bool
    arguments: dict[str, Any]
    home: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    facts: Any = None
    log: str = ""
    hosts: list[str] = field(default_factory=list)
    citrinet_modules: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        """A fact that the function found out; that it could not be found out fails the test."""
        fact = self.facts[name]
        assert not (isinstance(fact, dict) and "error" in fact), fact["error"]
        return fact

    def start(self, folder: Path) -> subprocess.Popen:
        home = self.home or folder / "home"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "PYTHON"))
            and not name.lower().endswith("_proxy")
        }
        path = [str(TESTS), str(PACKAGE_ROOT)] if self.package else [str(TESTS)]
        ours = {
            "HF_HOME": str(home),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONIOENCODING": "utf-8",
            "OMP_NUM_THREADS": "1",  # results must agree to the last bit
            "CUDA_VISIBLE_DEVICES": "",
            "PROBE_PACKAGE": "1" if self.package else "0",
            "PROBE_RESULT": str(folder / "result.json"),
        }
        command = [sys.executable, str(TESTS / "probe.py"), self.function, json.dumps(self.arguments)]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=folder, env={**inherited, **ours, **self.environment}, stdout=log, stderr=subprocess.STDOUT
            )

    def finish(self, folder: Path, process: subprocess.Popen) -> None:
        status = process.wait(timeout=300)
        self.log = (folder / "log").read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"{self.function} in an interpreter of its own failed:\n{self.log[-6000:]}"
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        self.facts, self.hosts, self.citrinet_modules = result["facts"], result["hosts"], result["citrinet_modules"]


def run_probes(*probes: Probe) -> None:
    """Run the probes side by side; an interpreter that fails fails the test with what it printed."""
    with tempfile.TemporaryDirectory(prefix="citrinet-probe-") as scratch:
        folders = [Path(scratch, str(index)) for index in range(len(probes))]
        for folder in folders:
            folder.mkdir()
        started = [probe.start(folder) for probe, folder in zip(probes, folders, strict=True)]
        try:
            for probe, folder, process in zip(probes, folders, started, strict=True):
                probe.finish(folder, process)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
