"""Files of utterances that the steps exchange: sentences with their speakers, as compressed JSON lines."""

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
    A sentence and its speaker.

    Args:
        id: unique among all utterances of a run, including held-out ones.
        text: characters; the markers `ENTITY_<TYPE>` and `END` directly enclose the characters of an entity.
        phonemes: symbols of Kokoro's vocabulary for Kokoro to speak.
        voice: Kokoro's voices and their weights, which sum to one.
        speed: speaking rate relative to the voice; above 1 is faster.
        child: pitch factor that turns the voice into a child's; 1 for no change.
        age: label of the tag AGE.
        gender: label of the tag GENDER; `None` for a child, whose voice does not show it.
        dialect: label of the tag DIALECT.
        source: source of the sentence.
        set: held-out set of the sentence; `None` in training.
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
        """Voices and weights as one string, the same for the same timbre."""
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
        OSError: if the file cannot be read or is not gzipped.
        ValueError: if the file is truncated, or a line is not an utterance; the message names the line.
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
    Write a file of utterances, which appears only when it is complete. The same utterances give the same bytes.

    Args:
        path: a `.jsonl.gz`; its folder is created.
        utterances: the utterances.

    Raises:
        OSError: if the file cannot be written.
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
