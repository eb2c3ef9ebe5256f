"""Train a language model on text files and write it to a file."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..convert.output import Kind, Output
from ..manifest import SUFFIXES
from ..transcript_citrinet import target_text
from . import arpa
from .ngram import NGramModel
from .spelling import split_characters
from .training import train

_ARPA, _COMPRESSED, _OWN = ".arpa", ".arpa.gz", ".npz"


class _ModelFile(Kind):
    """A language model file."""

    def difference(self, path: Path) -> str | None:
        if not path.is_file():
            return "is no file"
        start = path.read_bytes()[:6]
        known = start.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\\data\\"))
        return None if known or not start else "is no language model"


def train_language_model(
    texts: Sequence[str | Path],
    output: str | Path,
    *,
    order: int = 4,
    prune: float = 0.0,
    pieces: str | None = None,
    keep_tags: bool = False,
    keep_entities: bool = True,
    excluded: Callable[[str], bool] | None = None,
    settings: dict[str, float] | None = None,
    force: bool = False,
) -> NGramModel:
    """
    Train a language model and write it to a file; the same texts give the same bytes.

    Args:
        texts: files with one sentence per line, or JSON lines with `text`, optionally compressed with gzip.
        output: output file, ending in `.arpa`, `.arpa.gz` or `.npz`.
        order, prune: see [`train`].
        pieces: model whose pieces are the tokens; by default the tokens are characters and markers.
        keep_tags, keep_entities: which markers to keep in the texts.
        excluded: function that returns `True` for texts to leave out.
        settings: `weight` and `word_bonus` for decoders; only `.npz` files can hold them.
        force: whether to replace an existing language model.

    Raises:
        FileExistsError: if `output` exists and is not a language model, or `force` is not set.
        OSError: if a file cannot be read or written.
        ValueError: if `output` has another ending, or a text is damaged or empty.
    """
    if not str(output).endswith((_ARPA, _COMPRESSED, _OWN)):
        raise ValueError(f"{output}: name a file that ends in {_ARPA}, {_COMPRESSED} or {_OWN}.")
    if settings and not str(output).endswith(_OWN):
        raise ValueError(f"{output}: only {_OWN} files hold weight and bonus.")
    place = Output(output, _ModelFile(), force=force, inputs=texts)
    split = split_characters if pieces is None else _tokenizer(pieces)
    lines = (line for path in texts for line in tqdm(read_texts(Path(path)), desc=str(path), unit="line", disable=None))
    kept = lines if excluded is None else (line for line in lines if not excluded(line))
    sentences = (split(target_text(line, keep_tags, keep_entities)) for line in kept)
    model = replace(train(sentences, order, prune), settings=settings or {})
    with place.complete() as path:
        _write(model, path, str(output))
    return model


def _tokenizer(model: str) -> Callable[[str], list[str]]:
    from ..checkpoint import load_tokenizer

    split: Callable[[str], list[str]] = load_tokenizer(model).tokenize
    return split


def read_texts(path: Path) -> Iterator[str]:
    """
    Read the texts of a file.

    Args:
        path: file with one sentence per line, or JSON lines with `text`, optionally compressed with gzip.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not UTF-8, or a line is not a JSON object.
    """
    is_compressed = path.suffix == ".gz"
    kind = Path(path.stem).suffix if is_compressed else path.suffix
    opened: Any = gzip.open if is_compressed else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for line in file:
                number += 1
                if text := _text(line) if kind in SUFFIXES else line.strip():
                    yield text
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}, line {number}, or the next: no UTF-8, or no JSON: {error}") from error


def _text(line: str) -> str:
    if not line.strip():
        return ""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a JSON object a line is expected")
    return str(found.get("text") or "").strip()


def _write(model: NGramModel, path: Path, name: str) -> None:
    if name.endswith(_OWN):
        with path.open("wb") as own:
            model.save(own)
        return
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if name.endswith(_COMPRESSED):  # without time and name, for reproducible bytes
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        arpa.write(model, stack.enter_context(io.TextIOWrapper(file, "utf-8", newline="\n")))


__all__ = ["read_texts", "train_language_model"]
