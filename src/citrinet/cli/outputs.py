"""Output of many recordings' results: printed, written into a folder, or next to each recording."""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .. import formats
from .console import to_json
from .options import add_force
from .sources import STANDARD_INPUT, Source, is_address


def add_format(parser: argparse.ArgumentParser, kinds: Sequence[str] = tuple(formats.FORMATS)) -> None:
    """Add `--format`, `--json`, `--output`, `--beside` and `--force`."""
    parser.add_argument("--format", choices=kinds, default=kinds[0], help=f"output format (default {kinds[0]})")
    parser.add_argument(
        "--json", dest="format", action="store_const", const="json", help="same as --format json: one object per line"
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--output", metavar="DIR", help="write a file for each recording into DIR, in the subfolders where it was found"
    )
    places.add_argument("--beside", action="store_true", help="write a file next to each recording")
    add_force(parser, "an output file")


class Outputs:
    """
    Writes or prints the results of recordings as the options of [`add_format`] say.

    Args:
        options: parsed options, with those of [`add_format`].
        sources: the recordings.
        as_text: formats a result for the format `text`.

    Raises:
        FileExistsError: if an output file exists, without `--force`.
        ImportError: if the library for the format is missing.
        OSError: if a folder cannot be made.
        ValueError: if several recordings would be printed in a format that holds one per file, or for `--beside` with
            a recording from standard input or a URL.
    """

    def __init__(
        self, options: argparse.Namespace, sources: Sequence[Source], as_text: Callable[[Source, Any], str] | None
    ):
        self.format = formats.FORMATS[options.format]
        self.format.check()
        self._kind, self._sources, self._as_text = options.format, sources, as_text
        self._paths: list[Path] | None = None
        if options.output is not None or options.beside:
            self._paths = _paths(sources, None if options.beside else options.output, self.format.suffix)
            for path, source in zip(self._paths, sources, strict=True):
                _check(path, source, options.force)
            if options.output is not None:  # fail before the work
                Path(options.output).mkdir(parents=True, exist_ok=True)
        elif len(sources) > 1 and not (self.format.joins or self._kind == "json"):
            raise ValueError(
                f"{len(sources)} recordings cannot be printed as one {self._kind} file: write one for each with "
                "--output DIR or --beside."
            )

    @property
    def is_printed(self) -> bool:
        """Whether results go to standard output."""
        return self._paths is None

    def put(self, index: int, result: Any, duration: float) -> None:
        """
        Print or write a result.

        Args:
            index: index of its source.
            result: a [`RecognitionResult`], or an [`Alignment`].
            duration: length of the recording in seconds.
        """
        source = self._sources[index]
        names: dict[str, Any] = {"name": Path(source.place).stem, "duration": duration}
        if source.audio.channel is not None:
            names["channel"] = source.audio.channel + 1
        if self._paths is not None:
            content = {**describe(source), **result} if self._kind == "json" else result
            self._paths[index].parent.mkdir(parents=True, exist_ok=True)
            formats.write(content, self._paths[index], self._kind, **names)
            return
        if self._kind == "json":
            text = to_json({**describe(source), **result}) + "\n"
        elif self._kind == "text" and self._as_text:
            text = self._as_text(source, result) + "\n"
        else:
            text = formats.to_text(result, self._kind, **names)
        with tqdm.external_write_mode():
            print(text, end="", flush=True)


def describe(source: Source) -> dict[str, Any]:
    """The fields that identify a recording in JSON."""
    audio = source.audio
    place: dict[str, Any] = {"audio": source.name}
    if audio.offset or audio.duration is not None:
        place |= {"offset": audio.offset, "duration": audio.duration}
    if audio.channel is not None:
        place["channel"] = audio.channel
    return place


def _paths(sources: Sequence[Source], folder: str | None, suffix: str) -> list[Path]:
    """
    A path for each recording: all different, also on file systems that ignore case.

    A name is the recording's without its suffix, plus the part and the channel. Recordings that would share a name
    keep their suffix, then the folders of their name as given; the rest is numbered.
    """
    ways: list[Callable[[Source], Path]] = [_stem, lambda source: Path(source.place), _whole]
    if folder is None:
        unplaced = [source for source in sources if source.name == STANDARD_INPUT or is_address(source.name)]
        if unplaced:
            raise ValueError(f"{unplaced[0]} has no folder to write to: give --output DIR.")
        ways = [lambda source: Path(source.name).with_suffix(""), lambda source: Path(source.name)]
    names = [""] * len(sources)
    for way in ways:
        sharing = Counter(name for name, _ in {(n.casefold(), s.name) for n, s in zip(names, sources, strict=True)})
        names = [
            f"{way(source)}{_part(source)}" if not name or sharing[name.casefold()] > 1 else name
            for name, source in zip(names, sources, strict=True)
        ]
    return [Path(folder or "", name + suffix) for name in _numbered(names)]


def _stem(source: Source) -> Path:
    return Path(source.place).with_suffix("")


def _whole(source: Source) -> Path:
    """The name as given, without the parts that lead out of a folder."""
    path = Path(source.name)
    return Path(*(part for part in path.parts if part not in (path.anchor, "..") and not part.endswith(":")))


def _numbered(names: list[str]) -> list[str]:
    taken: set[str] = set()
    numbered = []
    for name in names:
        number, unique = 1, name
        while unique.casefold() in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique.casefold())
        numbered.append(unique)
    return numbered


def _part(source: Source) -> str:
    audio = source.audio
    part = ""
    if audio.offset or audio.duration is not None:
        end = "" if audio.duration is None else f"{audio.offset + audio.duration:g}"
        part = f"_{audio.offset:g}-{end}s"
    return part if audio.channel is None else f"{part}_channel-{audio.channel}"


def _check(path: Path, source: Source, force: bool) -> None:
    """Refuse to replace the recording, anything but a plain file and, without `force`, any file."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise FileExistsError(f"{path} is no plain file: it is not replaced, write to another place.")
    if Path(source.name).exists() and path.samefile(source.name):
        raise FileExistsError(f"{path} is the recording: it is not replaced, write to another place.")
    if not force:
        raise FileExistsError(f"{path} exists: write to another place, or replace it with --force.")


__all__ = ["Outputs", "add_format", "describe"]
