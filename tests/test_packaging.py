"""`citrinet.convert` is there from a wheel, from an editable install and from a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def imported_from(path: Path | None, folder: Path) -> Path:
    """Where `citrinet.convert` comes from when `path` is first on the module path; run in `folder`."""
    run = subprocess.run(
        [sys.executable, "-c", "import citrinet.convert; print(citrinet.convert.__file__)"],
        env={**os.environ, "PYTHONPATH": str(path or "")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(run.stdout.strip())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, so that the build leaves nothing in the checkout.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "src", "convert"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel(wheel, tmp_path):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "citrinet").rglob("*.py")}
    modules |= {f"citrinet/convert/{path.name}" for path in (ROOT / "convert").glob("*.py")}
    data = {"citrinet/py.typed", "citrinet/evaluation/page.html.jinja", "citrinet/mandarin_small/model.safetensors"}
    assert modules | data <= names
    assert not any(name.startswith(("tests/", "convert/")) for name in names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    found = imported_from(tmp_path / "installed", tmp_path)
    assert found == tmp_path / "installed" / "citrinet" / "convert" / "__init__.py"


def test_checkout(tmp_path):
    assert imported_from(ROOT / "src", tmp_path).resolve() == ROOT / "convert" / "__init__.py"


def test_the_installed_package(tmp_path):
    """Editable in development and in CI; whatever it is, it must hold the converter."""
    assert imported_from(None, tmp_path).name == "__init__.py"
