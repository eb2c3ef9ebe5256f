"""`citrinet transcribe`."""

import argparse
import sys
from contextlib import closing
from typing import Any

from tqdm.auto import tqdm

from ..result_citrinet import RecognitionResult
from . import cluster
from .console import fail, one_line
from .options import add_decoding, add_model, add_runtime, add_vad, decoding_options, positive, quiet, seconds
from .outputs import Outputs, add_format
from .sources import Source, find_sources, split_channels
from .workers import Job, Outcome, Worker, Workers


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
    job = _job(options, "char" if outputs.format.has_times else options.timestamps)
    count = min(options.workers[1], len(sources))
    worker = Workers(job, count) if count > 1 else Worker(job)
    failed: list[Outcome] = []
    with closing(worker(sources)) as outcomes, tqdm(total=len(sources), unit="file", disable=None) as progress:
        for outcome in outcomes:
            if outcome.result is None:
                failed.append(outcome)
            else:
                outputs.put(outcome.index, outcome.result, outcome.seconds)
            progress.update()
    for outcome in failed:
        source = sources[outcome.index]
        assert outcome.error is not None
        fail(f"{source}: {_reason(source, outcome.error)}", outcome.error if options.traceback else None)
    if options.batch_seconds is not None or (options.batch_size or 1) > 1:
        print(f"{worker.batched.padding:.1%} of the batches was padding", file=sys.stderr)
    return 1 if failed else 0


def _job(options: argparse.Namespace, timestamps: str | None) -> Job:
    fewest, most = options.workers
    if fewest != most:
        raise ValueError(f"--workers {fewest}-{most} is for --ray: give one number.")
    recognizer = {
        "model": options.model,
        "precision": options.precision,
        "device": options.device,
        "decoder": decoding_options(options, options.n_best),
    }
    limits = {"batch_size": options.batch_size, "batch_seconds": options.batch_seconds}
    call = {"return_timestamps": timestamps, "chunk_length_s": options.chunk_length, "vad": options.vad}
    return Job(recognizer, limits, call, options.strict)


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
