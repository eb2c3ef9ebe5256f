"""`citrinet transcribe`."""

import argparse
import json
import sys
from typing import Any

from tqdm.auto import tqdm

from ..default import default_model
from ..recognition import ReadAhead, load_recognizer
from ..result_citrinet import RecognitionResult
from .options import add_model, add_runtime, fail, quiet
from .sources import find_sources


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "transcribe",
        help="print what is said in audio files",
        description="Transcribe audio files, all those in a folder, or those that a NeMo manifest (JSON lines with "
        "`audio_filepath`) names. A file that cannot be read is reported, the others are done, and the exit status "
        "is 1.",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE|FOLDER|MANIFEST", help="audio, folders, .jsonl manifests")
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--timestamps", choices=["char", "word"], help="times of characters or words as well")
    parser.add_argument(
        "--chunk-length", type=float, metavar="S",
        help="read longer audio in windows of S seconds, 0 for never (default: windows of 30 s above 120 s)",
    )  # fmt: skip
    add_runtime(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    sources = [source for path in options.paths for source in find_sources(path)]
    quiet()
    recognizer = load_recognizer(options.model or default_model(), precision=options.precision, device=options.device)
    ahead = ReadAhead(sources, recognizer.load, recognizer.sampling_rate, options.batch_size)
    call: Any = {"return_timestamps": options.timestamps, "chunk_length_s": options.chunk_length}
    with tqdm(total=len(sources), unit="file", disable=None) as progress:
        for result in recognizer.stream(iter(ahead), batch_size=options.batch_size, **call):
            for index, done in ahead.in_order(result):
                progress.write(_line(str(sources[index]), done, options.json), file=sys.stdout)
            progress.update()
    for index, error in ahead.failed:
        source = sources[index]
        fail(f"{source}: {str(error).removeprefix(f'{source}: ')}")
    if options.batch_size > 1:
        print(f"{ahead.padding:.1%} of the batches was padding", file=sys.stderr)
    return 1 if ahead.failed else 0


def _line(name: str, result: RecognitionResult, as_json: bool) -> str:
    if as_json:
        return json.dumps({"audio": name, **result}, ensure_ascii=False)
    lines = [f"{name}: {result['transcript']}"]
    lines += [
        f"  {chunk['timestamp'][0]:8.2f} {chunk['timestamp'][1]:8.2f}  {chunk['text']}"
        for chunk in result.get("chunks", ())
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
