"""
Makes a release and checks it; uploads nothing: `python scripts/release.py`, in an environment of `.[dev]`.

Builds what is committed, checks the distributions and what they hold, installs the wheel in an environment of its own
and transcribes a clip with it. `dist/` appears if all of that is well. Ends with what is still to be done.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).resolve().parents[1]
CLIP, TRANSCRIPT = "examples/bus.flac", "附近有没有去北山的公交车"
_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def main() -> int:
    """Run all checks; the exit status is 1 if something is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = work / "source"
        _run("git", "clone", "--quiet", ROOT, source)
        _run(sys.executable, "-m", "build", "--outdir", work / "dist", source)
        sdist, wheel = next(work.glob("dist/*.tar.gz")), next(work.glob("dist/*.whl"))
        _run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
        metadata = read_metadata(wheel)
        problems = [*content_problems(sdist, wheel, source), *_use_problems(wheel, metadata["Version"], work)]
        if not problems:
            shutil.rmtree(ROOT / "dist", ignore_errors=True)
            shutil.copytree(work / "dist", ROOT / "dist")
    problems += [*version_problems(metadata["Version"], ROOT), *repository_problems(metadata, ROOT)]
    for problem in problems:
        print(f"not ready: {problem}")
    if not problems:
        tag = f"v{metadata['Version']}"
        print(f"Ready. What remains:\n  git tag --annotate {tag} --message {tag}\n  git push origin {tag}")
        print(f"  twine upload dist/{sdist.name} dist/{wheel.name}")
    return 1 if problems else 0


def read_metadata(wheel: Path) -> Message:
    """Read what a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def content_problems(sdist: Path, wheel: Path, source: Path) -> list[str]:
    """Compare the distributions with the tree: every file of the package once, links followed, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
    expected = {f"citrinet/{name}" for name in _package_files(source)} | {f"{info}/{name}" for name in _INFO}
    problems = [f"the wheel lacks {name}" for name in sorted(expected - set(names))]
    problems += [f"the wheel holds {name}" for name in sorted(set(names) - expected)]
    problems += [f"the wheel holds {name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    with tarfile.open(sdist) as tar:
        members = [(member, PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in tar]
    problems += [f"the source distribution holds a link, {path}" for member, path in members if not _is_plain(member)]
    for folder, link in (("convert", "src/citrinet/convert"), ("space/browser", "src/citrinet/browser")):
        held = {path.relative_to(folder).as_posix() for _, path in members if path.parent.as_posix() == folder}
        wanted = {path.name for path in (source / folder).iterdir() if path.is_file()}
        problems += [f"the source distribution lacks {folder}/{name}" for name in sorted(wanted - held)]
        if any(path.is_relative_to(f"{link}/") for _, path in members if path.as_posix() != link):
            problems.append(f"the source distribution holds {folder} twice")
    return problems


def version_problems(version: str, root: Path) -> list[str]:
    """Compare the version with the changelog's first heading and with the citation."""
    problems = []
    heading = re.search(r"^## (.*)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if heading is None or not re.fullmatch(rf"{re.escape(version)}, \d{{4}}-\d\d-\d\d", heading[1]):
        found = heading[1] if heading else "missing"
        problems.append(f"the first heading of CHANGELOG.md is {found!r}, not '{version}, YYYY-MM-DD'")
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    if str(citation.get("version")) != version:
        problems.append(f"CITATION.cff has version {citation.get('version')}, the package {version}")
    return problems


def repository_problems(metadata: Message, root: Path) -> list[str]:
    """Compare the repository with what the package says of it."""
    problems = []
    if _git(root, "status", "--porcelain"):
        problems.append("the tree has changes that are not committed")
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL") or [])
    origin = _git(root, "config", "--get", "remote.origin.url")
    address = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", origin).removesuffix(".git")
    if address != urls.get("Repository"):
        problems.append(f"origin is {origin or 'missing'}, project.urls names {urls.get('Repository')}")
    tag = f"v{metadata['Version']}"
    tagged = _git(root, "rev-parse", "--quiet", "--verify", f"refs/tags/{tag}^{{commit}}")
    if tagged and tagged != _git(root, "rev-parse", "HEAD"):
        problems.append(f"the tag {tag} is on another commit: raise the version")
    others = set(_git(root, "tag", "--points-at", "HEAD").split()) - {tag}
    problems += [f"this commit has the tag {other}, not {tag}" for other in sorted(others)]
    return problems


def _use_problems(wheel: Path, version: str, work: Path) -> list[str]:
    """Install the wheel where the checkout is not on the path, and use it."""
    venv.create(work / "environment", with_pip=True)
    programs = work / "environment" / ("Scripts" if os.name == "nt" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    (work / "elsewhere").mkdir()
    shutil.copy(ROOT / CLIP, work / "elsewhere" / "clip.flac")
    problems = []
    for words, expected in ((["--version"], f"citrinet {version} "), (["transcribe", "clip.flac"], TRANSCRIPT)):
        printed = _run(programs / "citrinet", *words, cwd=work / "elsewhere")
        if expected not in printed:
            problems.append(f"`citrinet {' '.join(words)}` of the installed wheel prints {printed!r}")
    return problems


def _package_files(source: Path) -> set[str]:
    """Files of the package in the tree. Two of its folders are links, or text files where Git makes no links."""
    package = source / "src" / "citrinet"
    links = {"convert": source / "convert", "browser": source / "space" / "browser"}
    files = {path for path in package.rglob("*") if path.is_file() and path.relative_to(package).parts[0] not in links}
    found = {path.relative_to(package).as_posix() for path in files}
    for name, folder in links.items():
        found |= {f"{name}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isfile() or member.isdir()


def _git(root: Path, *words: str) -> str:
    """What Git prints, nothing if it finds nothing."""
    return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False).stdout.strip()


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a program, with what it prints shown; ends all if it fails."""
    print("+", *words, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(words, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    print(run.stdout, end="", flush=True)
    if run.returncode:
        sys.exit(f"{words[0]} failed with exit status {run.returncode}")
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
