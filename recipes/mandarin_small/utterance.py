"""What the steps hand on: sentences with their speakers, one JSON object a line, compressed."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MARKER = re.compile("ENTITY_[A-Z_]+|END")


@dataclass(frozen=True)
class Utterance:
    """
    One sentence and who says it.

    Args:
        id: unique among all utterances of a run, held-out ones included.
        text: characters; `ENTITY_<TYPE>` and `END` are glued to the characters they enclose.
        phonemes: what Kokoro speaks, in symbols of its vocabulary.
        voice: Kokoro's voices and their weights, which sum to one.
        speed: 1 is the voice's own, above it is faster.
        child: factor of pitch that makes a child of the voice; 1 leaves it.
        age: label of the tag AGE.
        gender: label of the tag GENDER; none for a child, whose voice does not tell.
        dialect: label of the tag DIALECT.
        source: where the sentence comes from.
        set: the held-out set that it belongs to; none in training.
    """

    id: int
    text: str
    phonemes: str
    voice: tuple[tuple[str, float], ...]
    speed: float
    child: float
    age: str
    gender: str | None
    dialect: str
    source: str
    set: str | None = None

    @property
    def spoken(self) -> str:
        """The characters without markers."""
        return spoken(self.text)

    @property
    def speaker(self) -> str:
        """Voices and weights as one word, the same for the same timbre."""
        return "+".join(f"{name}*{weight:g}" for name, weight in self.voice)


def spoken(text: str) -> str:
    """A text without its markers."""
    return _MARKER.sub("", text)


def read_utterances(path: str | Path) -> Iterator[Utterance]:
    """
    Read a file of utterances.

    Args:
        path: a `.jsonl.gz`.

    Yields:
        Its utterances, in their order.

    Raises:
        OSError: if it cannot be read or is not compressed by gzip.
        ValueError: if it ends too early, or for a line that is no utterance; it names the line.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _utterance(line, f"{path}, line {number}")
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is broken ({error}): make it again.") from error


def _utterance(line: str, place: str) -> Utterance:
    try:
        columns = json.loads(line)
        voice = tuple((str(name), float(weight)) for name, weight in columns.pop("voice"))
        return Utterance(voice=voice, **columns)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{place}: no utterance ({error!r}): make the file again.") from error


def write_utterances(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """
    Write a file of utterances, whole or not at all, and the same bytes for the same utterances.

    Args:
        path: a `.jsonl.gz`; its folder is made.
        utterances: what to write.

    Raises:
        OSError: if it cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    with (
        unfinished.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        for utterance in utterances:
            columns = {name: value for name, value in vars(utterance).items() if name != "set" or value is not None}
            file.write(json.dumps(columns, ensure_ascii=False, separators=(",", ":")) + "\n")
    unfinished.replace(target)
