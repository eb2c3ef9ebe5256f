"""`citrinet` and `citrinet.convert` are there from a wheel, an editable install and a checkout, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
_FACTS = """
import importlib.util, json, sys
import citrinet.convert
print(json.dumps({
    "convert": citrinet.convert.__file__,
    "paths": [*sys.path, *citrinet.__path__],
    "strays": [name for name in ("citrinet.tests", "citrinet.space", "citrinet.recipes", "citrinet.src", "convert")
               if importlib.util.find_spec(name)],
}))
"""


def facts(path: Path | None, folder: Path) -> dict:
    """What an interpreter finds when `path` is first on the module path; run in `folder`."""
    run = subprocess.run(
        [sys.executable, "-c", _FACTS],
        env={**os.environ, "PYTHONPATH": str(path or "")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def check_paths(found: dict) -> None:
    """The repository's root holds tests, recipes and the Space, which are no part of the package."""
    assert found["strays"] == []
    assert ROOT.resolve() not in {Path(path).resolve() for path in found["paths"] if path}


@pytest.fixture(scope="module", params=["link", "text file"])
def distributions(request, tmp_path_factory):
    """
    Source distribution and the wheel made of it, from a copy, so that the build leaves nothing in the checkout.

    Where Git makes no links, as on Windows, those to the converter and the page for browsers are text files.
    """
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "convert", "space/browser"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("convert", "space/browser"):
        link = source / "src" / "citrinet" / Path(name).name
        assert str(link.readlink()) == f"../../{name}"
        if request.param == "text file":
            link.unlink()
            link.write_text(f"../../{name}")
    output = tmp_path_factory.mktemp("distributions")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(output.glob("*.tar.gz")), next(output.glob("*.whl"))


def test_distributions_hold_every_module_once_and_nothing_else(distributions):
    source, wheel = distributions
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "citrinet").rglob("*.py")}
    modules = {name for name in modules if not name.startswith("citrinet/convert/")}
    modules |= {f"citrinet/convert/{path.name}" for path in (ROOT / "convert").glob("*.py")}
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if name.endswith(".py")) == sorted(modules)
    assert len(names) == len(set(names))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"citrinet"}
    data = {"citrinet/py.typed", "citrinet/evaluation/page.html.jinja", "citrinet/mandarin_small/model.safetensors"}
    data |= {f"citrinet/browser/{path.name}" for path in (ROOT / "space" / "browser").iterdir()}
    assert data <= set(names)
    with tarfile.open(source) as tar:
        members = [member.name.split("/", 1)[-1] for member in tar if member.isfile()]
        assert not any(member.issym() for member in tar)
    converter = sorted(name for name in members if "convert/" in name)
    assert converter == sorted(f"convert/{path.name}" for path in (ROOT / "convert").glob("*.py"))


def test_wheel(distributions, tmp_path):
    zipfile.ZipFile(distributions[1]).extractall(tmp_path / "installed")
    found = facts(tmp_path / "installed", tmp_path)
    assert Path(found["convert"]) == tmp_path / "installed" / "citrinet" / "convert" / "__init__.py"
    check_paths(found)


def test_checkout(tmp_path):
    found = facts(ROOT / "src", tmp_path)
    assert Path(found["convert"]).resolve() == ROOT / "convert" / "__init__.py"
    check_paths(found)


def test_the_installed_package(tmp_path):
    """Editable in development and in CI; whatever it is, it must hold the converter."""
    found = facts(None, tmp_path)
    assert Path(found["convert"]).name == "__init__.py"
    check_paths(found)
