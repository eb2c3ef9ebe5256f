"""`citrinet transcribe`."""

import argparse
import sys
import warnings
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..audio_segment_citrinet import TruncatedAudioWarning
from ..recognition import ReadAhead, Recognizer, load_recognizer, readers_for
from ..result_citrinet import RecognitionResult
from . import cluster
from .console import fail, one_line
from .options import add_decoding, add_model, add_runtime, add_vad, decoding_options, positive, quiet, seconds
from .outputs import Outputs, add_format
from .sources import Source, find_sources, split_channels


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "transcribe",
        help="transcribe audio files",
        description="Transcribe audio files, all audio files in a folder, or those listed in a NeMo manifest (JSON "
        "lines with `audio_filepath`). A file that cannot be read is reported, the others are transcribed, and the "
        "exit status is 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="FILE|FOLDER|MANIFEST",
        help="audio files or their URLs, folders, .jsonl manifests; - reads a file from standard input",
    )  # fmt: skip
    add_model(parser)
    add_format(parser)
    parser.add_argument(
        "--timestamps", choices=["char", "word"],
        help="add the times of characters or words to text and JSON; other formats always have times",
    )  # fmt: skip
    parser.add_argument(
        "--chunk-length", type=seconds, metavar="S",
        help="transcribe longer audio in windows of S seconds, 0 to disable (default: split at pauses, and use windows "
        "of 30 s above 120 s without a pause)",
    )  # fmt: skip
    parser.add_argument(
        "--channel", type=_channel, metavar="0|1|all",
        help="transcribe one channel, counted from 0, or each channel separately (default: the mean of all)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="treat a file that is shorter than its header says as failed"
    )
    parser.add_argument("--n-best", type=positive, default=1, metavar="N", help="print the N best hypotheses")
    add_decoding(parser)
    add_vad(parser)
    add_runtime(parser)
    cluster.add_cluster(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.ray:
        return cluster.run(options)
    channel = options.channel if isinstance(options.channel, int) else None
    sources = [source for path in options.paths for source in find_sources(path, channel)]
    if options.channel == "all":
        sources = [part for source in sources for part in split_channels(source)]
    outputs = Outputs(options, sources, _text)
    quiet()
    decoder = decoding_options(options, options.n_best)
    recognizer = load_recognizer(options.model, precision=options.precision, device=options.device, decoder=decoder)
    # Show it for every file: by default Python shows a warning with the same text only once.
    warnings.simplefilter("error" if options.strict else "always", TruncatedAudioWarning)
    limits: Any = {"batch_size": options.batch_size, "batch_seconds": options.batch_seconds}
    durations: dict[int, float] = {}

    def load(source: Source) -> np.ndarray:
        samples = _load(recognizer, source)
        durations[id(source)] = len(samples) / recognizer.sampling_rate
        return samples

    ahead = ReadAhead(
        sources,
        load,
        recognizer.sampling_rate,
        readers=readers_for(options.device),
        **limits,
    )
    timestamps = "char" if outputs.format.has_times else options.timestamps
    call: Any = {"return_timestamps": timestamps, "chunk_length_s": options.chunk_length, "vad": options.vad}
    with tqdm(total=len(sources), unit="file", disable=None) as progress:
        for result in recognizer.stream(iter(ahead), **limits, **call):
            for index, done in ahead.in_order(result):
                outputs.put(index, done, durations.pop(id(sources[index])))
            progress.update()
    for index, error in ahead.failed:
        source = sources[index]
        fail(f"{source}: {_reason(source, error)}", error if options.traceback else None)
    if options.batch_seconds is not None or (options.batch_size or 1) > 1:
        print(f"{ahead.padding:.1%} of the batches was padding", file=sys.stderr)
    return 1 if ahead.failed else 0


def _load(recognizer: Recognizer, source: Source) -> np.ndarray:
    try:
        return recognizer.load(source.audio)
    except TruncatedAudioWarning as warning:  # raised as an error with --strict
        raise ValueError(str(warning)) from warning


def _reason(source: Source, error: OSError | ValueError) -> str:
    """Why a recording failed, without its name, which most messages start with."""
    reason = one_line(error)
    for name in (str(source.audio), source.audio.name):
        reason = reason.removeprefix(f"{name}: ")
    return reason


def _text(source: Source, result: RecognitionResult) -> str:
    channel = "" if source.audio.channel is None else f", channel {source.audio.channel}"
    lines = [f"{source}{channel}: {result['transcript']}"]
    lines += [
        f"  {chunk['timestamp'][0]:8.2f} {chunk['timestamp'][1]:8.2f}  {chunk['text']}"
        for chunk in result.get("chunks", ())
    ]
    lines += [
        f"  {reading['score']:8.2f}  {reading['text']}"
        for segment in result["segments"]
        for reading in segment.get("alternatives", ())
    ]
    for entity in result["entities"]:
        start, end = entity["timestamp"]
        lines.append(f"  {entity['type']}: {entity['text']} ({start:.2f}-{end:.2f} s)")
    if result["tags"]:
        tags = (
            f"{category} {tag['label']} ({tag['score']:.0%}, {tag['source']})"
            for category, tag in result["tags"].items()
        )
        lines.append("  " + ", ".join(tags))
    return "\n".join(lines)


def _channel(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither a channel, counted from 0, nor all")
    return int(text)
