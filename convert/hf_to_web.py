"""Export a Transformers repository to a web page that transcribes in the browser, for any static file server."""

import base64
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import citrinet
from citrinet.recognition.onnx_folder import CONFIG, FRONT_END, NETWORK, TAG_HEADS, TAG_LABELS, VOCABULARY

from .hf_to_onnx import export_onnx
from .output import FolderKind, Output
from .report import ConversionReport
from .source import download

ONNXRUNTIME_WEB = "1.30.0"
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_REGISTRY = "https://registry.npmjs.org"
# Members of the npm package -> their names next to the page. Not every server serves .mjs as JavaScript.
_WASM = "ort-wasm-simd-threaded.wasm"
_RUNTIME = {"dist/ort.wasm.bundle.min.mjs": "onnxruntime-web.js", f"dist/{_WASM}": _WASM}
_PAGE = ("index.html", "page.css", "page.js", "worker.js", "result.js")
_FETCHED = (CONFIG, VOCABULARY, TAG_LABELS, FRONT_END, NETWORK, TAG_HEADS, _WASM)
_SIZES = "files.json"  # name -> size of each file that the page downloads, for its progress bar
_EXPORTED = FolderKind(
    "a page of `citrinet export web`",
    files=(*_PAGE, *_FETCHED, *_RUNTIME.values(), _SIZES),
    mark=("index.html", "citrinet export web"),
)
_RUNTIME_BYTES = 15_000_000


def export_web(
    model: str | Path, output: str | Path, *, onnxruntime_web: str | Path | None = None, force: bool = False
) -> ConversionReport:
    """
    Write a model and a web page that runs it in the visitor's browser.

    The folder, which appears only when it is complete, has the page, the int8 graphs of [`export_onnx`] and
    onnxruntime-web. It is also a model for `citrinet transcribe`.

    Args:
        model: a converted or trained folder, or a Hub repository.
        output: the folder to write.
        onnxruntime_web: the npm package of that name, unpacked or as `npm pack` writes it; by default a fixed version
            is downloaded from npm's registry and cached.
        force: whether to replace an earlier page in `output`; anything else there is never replaced.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: as in [`export_onnx`].
        FileExistsError: if `output` exists and is not such a page, or `force` is not set.
        OSError: if the model or onnxruntime-web cannot be found or downloaded, or `output` cannot be written.
        ValueError: if `onnxruntime_web` is not that package.
    """
    inputs = [model] if onnxruntime_web is None else [model, onnxruntime_web]
    place = Output(output, _EXPORTED, force=force, inputs=inputs)
    place.require(_RUNTIME_BYTES)
    package = Path(onnxruntime_web) if onnxruntime_web is not None else _from_registry()
    with place.complete() as folder:
        folder.mkdir()
        _write_runtime(package, folder)
        for name in _PAGE:
            shutil.copyfile(Path(citrinet.__file__).parent / "browser" / name, folder / name)
        report = _write_graphs(model, folder)
        sizes = {name: (folder / name).stat().st_size for name in _FETCHED if (folder / name).exists()}
        (folder / _SIZES).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
        megabytes = sum(sizes.values()) / 1e6
    return replace(report, output=place.path, notes=[*report.notes, f"a visitor downloads {megabytes:.0f} MB"])


def _write_graphs(model: str | Path, folder: Path) -> ConversionReport:
    graphs = folder / "graphs"
    report = export_onnx(model, graphs, dtype="int8")
    for name in _FETCHED:
        if (graphs / name).exists():
            (graphs / name).rename(folder / name)
    shutil.rmtree(graphs)  # the remaining files, for programs in other languages
    return report


def _write_runtime(package: Path, folder: Path) -> None:
    """Copy the files of onnxruntime-web that the page needs."""
    if not package.exists():
        raise FileNotFoundError(f"{package} does not exist: give the npm package onnxruntime-web, unpacked or packed.")
    try:
        if package.is_dir():
            for member, name in _RUNTIME.items():
                shutil.copyfile(package / member, folder / name)
            return
        with tarfile.open(package) as tar:
            for member, name in _RUNTIME.items():
                content = tar.extractfile(f"package/{member}")
                if content is None:
                    raise KeyError(f"{member} is no file")
                with content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (FileNotFoundError, KeyError, tarfile.TarError) as error:
        raise ValueError(
            f"{package} is not the npm package onnxruntime-web, such as `npm pack onnxruntime-web@{ONNXRUNTIME_WEB}` "
            f"writes: {error}"
        ) from error


def _from_registry() -> Path:
    """
    Download the package from npm's registry, unless it is in the cache.

    Raises:
        OSError: if it cannot be downloaded, or its hash is not that of the published package.
    """
    name = f"onnxruntime-web-{ONNXRUNTIME_WEB}.tgz"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citrinet" / name
    if kept.is_file() and _integrity(kept) == _INTEGRITY:
        return kept
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or _REGISTRY  # npm's own variable
    url = f"{registry.rstrip('/')}/onnxruntime-web/-/{name}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        fetched = Path(folder) / name
        try:
            with fetched.open("wb") as file:
                download(url, file)
        except OSError as error:
            raise OSError(f"{error} Or give the npm package with --onnxruntime-web (onnxruntime_web=).") from error
        if _integrity(fetched) != _INTEGRITY:
            raise OSError(f"{url} is not onnxruntime-web {ONNXRUNTIME_WEB} as it was published: its hash is another.")
        fetched.replace(kept)
    return kept


def _integrity(path: Path) -> str:
    """Hash of a file in npm's format."""
    return f"sha512-{base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()}"


__all__ = ["export_web"]
