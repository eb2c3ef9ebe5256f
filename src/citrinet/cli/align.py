"""`citrinet align`."""

import argparse
import sys
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .. import manifest
from ..alignment import Alignment, align_waveform
from ..recognition import load_recognizer
from ..transcript_citrinet import joint
from .console import fail, one_line
from .options import add_device, add_model, quiet
from .outputs import Outputs, add_format
from .sources import STANDARD_INPUT, Source, find_sources

FORMATS = ("json", "srt", "vtt", "textgrid", "ctm", "tsv")


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "align",
        help="find when each character of a text is said",
        description="Find when the characters, words and entities of a text are said in a recording, or in the "
        "recordings of a NeMo manifest. Words that were probably not said are reported; speech that the text omits is "
        "skipped.",
    )
    parser.add_argument("audio", metavar="AUDIO|MANIFEST", help="a recording, or a .jsonl manifest with texts")
    parser.add_argument(
        "text", nargs="?", metavar="TEXT_FILE",
        help="transcript of the recording in UTF-8, with or without entity markers; - is standard input",
    )  # fmt: skip
    add_model(parser)
    add_format(parser, FORMATS)
    add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    sources = find_sources(options.audio)
    texts = _texts(options, len(sources))
    outputs = Outputs(options, sources, None)
    quiet()
    recognizer = load_recognizer(options.model, device=options.device)
    failed = False
    for index, (source, text) in enumerate(zip(tqdm(sources, unit="file", disable=None), texts, strict=True)):
        try:
            waveform = recognizer.load(source.audio)
            alignment = align_waveform(recognizer, waveform, text)
        except (OSError, ValueError) as error:
            failed = True
            fail(f"{source}: {one_line(error)}", error if options.traceback else None)
            continue
        outputs.put(index, alignment, len(waveform) / recognizer.sampling_rate)
        _tell_unsaid(source, alignment)
    return 1 if failed else 0


def _texts(options: argparse.Namespace, count: int) -> list[str]:
    """The text of each recording."""
    is_manifest = Path(options.audio).suffix.lower() in manifest.SUFFIXES
    if options.text is None:
        if not is_manifest:
            raise ValueError(f"give the file with the text of {options.audio}, or a manifest with texts.")
        return [entry.text or "" for entry in manifest.read_manifest(options.audio)]
    if is_manifest or count != 1:
        raise ValueError(f"{options.audio} is not one recording: give one, or a manifest with texts alone.")
    if options.text == STANDARD_INPUT:
        if options.audio == STANDARD_INPUT:
            raise ValueError("not both the recording and the text can come from standard input.")
        content = sys.stdin.buffer.read()
    else:
        content = Path(options.text).read_bytes()
    try:
        return [content.decode("utf-8-sig")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.text} is not a text file in UTF-8: convert it to UTF-8.") from error


def _tell_unsaid(source: Source, alignment: Alignment) -> None:
    """Report the words that were probably not said, consecutive ones together."""
    runs = []
    for said, words in groupby(alignment["words"], key=lambda word: word["said"]):
        if not said:
            first, *others = words
            text = reduce(lambda text, word: text + joint(text, word["text"]) + word["text"], others, first["text"])
            runs.append(f"{text} ({first['timestamp'][0]:.2f} s)")
    if runs:
        tqdm.write(f"{source}: likely not said: {', '.join(runs)}", file=sys.stderr)
