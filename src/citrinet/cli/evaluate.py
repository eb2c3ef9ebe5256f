"""`citrinet evaluate`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..default import default_model
from .console import fail, to_json
from .options import add_decoding, add_json, add_runtime, add_vad, decoding_options, model_name, quiet

if TYPE_CHECKING:
    from ..evaluation import ModelResult


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of models",
        description="Transcribe the recordings of a NeMo manifest (JSON lines with `audio_filepath` and `text`) and "
        "print error rates, tag accuracies, entity scores and speed. A recording that cannot be read is reported, the "
        'others are evaluated, and the exit status is 1. Needs `pip install "citrinet[evaluate]"`.',
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="NeMo manifest of recordings and their texts")
    parser.add_argument(
        "--model", type=model_name, action="append", metavar="DIR|REPO",
        help="any speech recognition model, Citrinet or not; may be repeated to compare models in one table "
        "(default: the package's small Mandarin model)",
    )  # fmt: skip
    add_json(parser, "the report as JSON")
    parser.add_argument(
        "--output", metavar="OUT_DIR", help="folder for report.html (with plots), report.json and utterances.jsonl"
    )
    parser.add_argument(
        "--calibrate", action="store_true",
        help="find the temperature that calibrates confidence, and write it to config.json of --model",
    )  # fmt: skip
    add_decoding(parser)
    add_vad(parser)
    add_runtime(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from .. import evaluation

    quiet()
    if options.output:  # check before hours of work
        from ..evaluation import page  # noqa: F401 - raises if a package is missing

        Path(options.output).mkdir(parents=True, exist_ok=True)
    models = options.model or [default_model()]
    if options.calibrate and (len(models) != 1 or not options.model or not (Path(models[0]) / "config.json").is_file()):
        raise ValueError("--calibrate writes into a model's folder: give one --model FOLDER.")
    report = evaluation.evaluate(
        models,
        options.manifest,
        options.batch_size,
        options.device,
        precision=options.precision,
        batch_seconds=options.batch_seconds,
        vad=options.vad,
        decoding=decoding_options(options),
    )
    for recording in report.failed:
        fail(f"{recording['audio']}: {recording['error']}")
    if options.output:
        evaluation.write_report(report, options.output)
    print(to_json(report.to_dict()) if options.json else evaluation.format_report(report))
    if options.calibrate:
        _calibrate(report.models[0], models[0])
    return 1 if report.failed else 0


def _calibrate(result: "ModelResult", model: str) -> None:
    from ..evaluation import write_temperature

    found = result.calibration
    if found is None:
        raise ValueError(f"{model} wrote no character to calibrate with: are the recordings in its language?")
    temperature = write_temperature(model, found.temperature)
    print(
        f"calibration error {100 * found.error:.1f} %, and {100 * found.error_at_temperature:.1f} % with "
        f"confidence_temperature {temperature:g}, which is in {Path(model) / 'config.json'} now",
        file=sys.stderr,
    )
