"""
Checks in environments of their own: `nox -s "tests-3.13(highest)"`, `nox -s without_torch`, `nox --list`.

Environments come from uv. Each holds PyTorch with CUDA's libraries (6 GB, shared by hard links with uv's cache) unless
`UV_TORCH_BACKEND=cpu` is set. What stands after `--` goes to pytest.
"""

import os
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)  # of the classifiers
QUICK = ("-m", "not slow")
# Versions of which there is no wheel for a Python are passed over; these packages have none at all.
WHEELS = ("--only-binary", ":all:", *(word for name in ("citrinet", "jieba", "srt") for word in ("--no-binary", name)))

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", f"tests-{PYTHONS[-1]}"]


@nox.session(python=PYTHONS, venv_params=["--seed"])  # with pip, which fetches the tests of Transformers
@nox.parametrize("resolution", [nox.param("lowest-direct", id="lowest"), nox.param("highest", id="highest")])
def tests(session: nox.Session, resolution: str) -> None:
    """Quick tests with the lowest and the newest versions of what pyproject.toml names."""
    session.install("-e", ".[docs,test]", "--resolution", resolution, *WHEELS)
    session.run("uv", "pip", "freeze", external=True)  # into the log
    session.run("pytest", *(session.posargs or QUICK))


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in build/docs."""
    session.install("-e", ".[dev]")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "docs", "build/docs")


@nox.session
def without_torch(session: nox.Session) -> None:
    """What ONNX folders need and no more: requirements/onnx.txt in an environment of its own."""
    session.install(".[onnx]")
    session.log(f"with PyTorch: {_megabytes(Path(session.virtualenv.location))} MB")
    folder = Path(session.create_tmp())
    session.run("citrinet", "export", "onnx", "src/citrinet/mandarin_small", str(folder / "onnx"), "--force")

    python = Path(session.bin) / "python"
    session.run("uv", "venv", "--clear", "--python", str(python), str(folder / "small"), external=True)
    small = folder / "small" / Path(session.bin).name / "python"
    install = ("uv", "pip", "install", "--python", str(small))
    silero = next(line for line in PROJECT["project"]["dependencies"] if line.startswith("silero-vad"))
    session.run(*install, "--no-deps", ".", silero, external=True)
    session.run(*install, "--requirement", "requirements/onnx.txt", external=True)
    session.run(str(small), "tests/small_install.py", str(folder / "onnx"), external=True)
    session.log(f"without: {_megabytes(folder / 'small')} MB")


def _megabytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files) / 1e6)


@nox.session
def nemo(session: nox.Session) -> None:
    """Tests that run NeMo, whose interpreter the variable NEMO_PYTHON names."""
    if "NEMO_PYTHON" not in os.environ:
        session.error("set NEMO_PYTHON to the interpreter of an environment with nemo_toolkit, see CONTRIBUTING.md")
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "nemo", *session.posargs)
