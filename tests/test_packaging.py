"""`citrinet` and `citrinet.convert` are there from a wheel, an editable install and a checkout, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import citrinet
import release

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


def copy_sources(folder: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "convert", "space/browser"):
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )


@pytest.fixture(scope="module", params=["link", "text file"])
def distributions(request, tmp_path_factory):
    """
    Source distribution and the wheel made of it, from a copy, so that the build leaves nothing in the checkout.

    Where Git makes no links, as on Windows, those to the converter and the page for browsers are text files.
    """
    source = tmp_path_factory.mktemp("source")
    copy_sources(source)
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


def test_distributions_hold_every_file_once_and_nothing_else(distributions, tmp_path):
    assert release.content_problems(*distributions, ROOT) == []
    wheel = shutil.copy(distributions[1], tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tests/conftest.py", "")
    copy_sources(tmp_path)
    (tmp_path / "src" / "citrinet" / "evaluation" / "other.html.jinja").touch()
    (tmp_path / "convert" / "other.py").touch()
    assert release.content_problems(distributions[0], Path(wheel), tmp_path) == [
        "the wheel lacks citrinet/convert/other.py",
        "the wheel lacks citrinet/evaluation/other.html.jinja",
        "the wheel holds tests/conftest.py",
        "the source distribution lacks convert/other.py",
    ]


def test_wheel(distributions, tmp_path):
    zipfile.ZipFile(distributions[1]).extractall(tmp_path / "installed")
    assert release.read_metadata(distributions[1])["Version"] == citrinet.__version__
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


@pytest.mark.parametrize(
    ("heading", "cited", "problems"),
    [
        ("1.2.0, 2026-11-27", "1.2.0", []),
        ("1.2.0, not yet released", "1.2.0", ["CHANGELOG.md is '1.2.0, not yet released', not '1.2.0, YYYY-MM-DD'"]),
        ("1.1.0, 2026-11-27", "1.1.0", ["is '1.1.0, 2026-11-27', not", "version 1.1.0, the package 1.2.0"]),
    ],
)
def test_a_release_has_one_version(tmp_path, heading, cited, problems):
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n## 1.0.0, 2025-01-01\n")
    (tmp_path / "CITATION.cff").write_text(f"version: {cited}\n")
    found = release.version_problems("1.2.0", tmp_path)
    assert len(found) == len(problems) and all(part in line for part, line in zip(problems, found, strict=True))


def test_a_release_is_of_the_repository_that_the_package_names(tmp_path):
    def git(*words: str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    metadata = Message()
    metadata["Version"], metadata["Project-URL"] = "1.2.0", "Repository, https://example.org/me/it"
    git("init")
    (tmp_path / "file").touch()
    assert len(release.repository_problems(metadata, tmp_path)) == 2  # a change, no origin
    git("add", "file")
    git("commit", "--message", "one")
    git("tag", "v1.2.0")
    for origin in ("https://example.org/me/it.git", "git@example.org:me/it.git", "ssh://git@example.org/me/it"):
        git("config", "remote.origin.url", origin)
        assert release.repository_problems(metadata, tmp_path) == []
    git("commit", "--allow-empty", "--message", "two")
    assert release.repository_problems(metadata, tmp_path) == ["the tag v1.2.0 is on another commit: raise the version"]
    git("tag", "v1.3.0")
    git("config", "remote.origin.url", "https://example.org/you/it")
    assert [line.split()[0] for line in release.repository_problems(metadata, tmp_path)] == ["origin", "the", "this"]
