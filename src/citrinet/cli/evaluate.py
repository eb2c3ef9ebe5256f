"""`citrinet evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from ..default import default_model
from .console import fail, to_json
from .options import add_json, add_runtime, model_name, quiet


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure how well models transcribe",
        description="Transcribe the recordings of a NeMo manifest (JSON lines with `audio_filepath` and `text`) and "
        "print error rates, tag accuracies, entity scores and speed. A recording that cannot be read is reported, the "
        'others are done, and the exit status is 1. Needs `pip install "citrinet[evaluate]"`.',
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="what is spoken in which files")
    parser.add_argument(
        "--model", type=model_name, action="append", metavar="DIR|REPO",
        help="any model of automatic speech recognition, Citrinet or not; given several times, they share one table "
        "(default: the small Mandarin model of the package)",
    )  # fmt: skip
    add_json(parser, "the report as JSON")
    parser.add_argument(
        "--output", metavar="OUT_DIR", help="write report.html (with plots), report.json and utterances.jsonl there"
    )
    add_runtime(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from .. import evaluation

    quiet()
    if options.output:  # before hours of work
        from ..evaluation import page  # noqa: F401 - says what is missing

        Path(options.output).mkdir(parents=True, exist_ok=True)
    models = options.model or [default_model()]
    report = evaluation.evaluate(
        models,
        options.manifest,
        options.batch_size,
        options.device,
        precision=options.precision,
        batch_seconds=options.batch_seconds,
    )
    for recording in report.failed:
        fail(f"{recording['audio']}: {recording['error']}")
    if options.output:
        evaluation.write_report(report, options.output)
    print(to_json(report.to_dict()) if options.json else evaluation.format_report(report))
    return 1 if report.failed else 0
