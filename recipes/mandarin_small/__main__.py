"""
Make a small Mandarin model: `python -m mandarin_small all OUT --seconds 900`, or run its steps one by one.

Each step can be interrupted (Ctrl-C, SIGTERM); the same command resumes it.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

# Batches differ in length, and the next should reuse the memory of the last; read when CUDA starts.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

SPEECH_SHARE = 0.3  # fraction of the time that is left after making texts


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns 0 on success or if it can be resumed, 1 after an error, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError, ImportError) as error:
        print(f"{options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.command}: interrupted; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mandarin_small", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True)
    steps = {
        "text": ("write sentences with their pronunciation and speakers", _text, [_text_options]),
        "speech": ("speak the sentences with Kokoro-82M", _speech, [_file_options, _time_options, _speech_options]),
        "training": ("train a network on the speech", _training, [_file_options, _time_options, _training_options]),
        "language_model": ("train the model's language model", _language_model, [_language_model_options]),
        "all": (
            "run all steps, except those that are done",
            _all,
            [_text_options, _file_options, _time_options, _speech_options, _training_options],
        ),
    }
    for name, (summary, run, groups) in steps.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("out", type=Path, help="folder of the run, for intermediate files and the model")
        command.add_argument("--seed", type=int, default=1, help="random seed (default: %(default)s)")
        for add in groups:
            add(command)
        command.set_defaults(run=run)
    return parser


def _text_options(parser: argparse.ArgumentParser) -> None:
    files: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "FILE"}
    parser.add_argument("--transcripts", **files, help="plain sentences, one per line, or NeMo manifests")
    parser.add_argument("--exclude", **files, help="manifests whose sentences are left out of training")
    parser.add_argument(
        "--sentences", type=int, default=90_000, help="number of training sentences (default: %(default)s)"
    )


def _file_options(parser: argparse.ArgumentParser) -> None:
    files: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "FILE"}
    parser.add_argument("--train", **files, help="utterances to use instead of OUT/text/train.jsonl.gz")
    parser.add_argument("--heldout", **files, help="utterances to use instead of OUT/text/heldout.jsonl.gz")


def _time_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="time for everything; training fits its schedule to it")
    parser.add_argument("--device", help="PyTorch device, such as cuda or cpu (default: cuda if available)")


def _speech_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kokoro", type=Path, metavar="FOLDER", help="folder of Kokoro-82M (default: downloaded)")
    parser.add_argument("--limit", type=int, help="maximum utterances each for training and held-out (default: all)")


def _training_options(parser: argparse.ArgumentParser) -> None:
    files: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "MANIFEST"}
    parser.add_argument("--real", **files, help="recordings to train on in addition")
    parser.add_argument("--validation", **files, help="recordings to validate on")
    parser.add_argument("--steps", type=int, help="number of training steps, instead of --seconds")
    parser.add_argument("--size", default="base", help="size of the network, base or tiny (default: %(default)s)")
    parser.add_argument(
        "--batch-seconds", type=float, help="seconds of speech in a batch (default: 1500 on a GPU, else 60)"
    )


def _language_model_options(parser: argparse.ArgumentParser) -> None:
    files: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "FILE"}
    parser.add_argument("--texts", **files, help="texts to use instead of OUT/text/train.jsonl.gz")
    parser.add_argument("--exclude", **files, help="manifests whose sentences are left out of training")


def _text(options: argparse.Namespace) -> None:
    from .text import run

    run(options.out, options.transcripts, options.sentences, options.seed, options.exclude)


def _speech(options: argparse.Namespace, seconds: float | None = None) -> None:
    from .speech.speak import Options, run

    run(
        Options(
            options.out,
            options.seconds if seconds is None else seconds,
            options.limit,
            options.train,
            options.heldout,
            device=options.device,
            model=options.kokoro,
            seed=options.seed,
        )
    )


def _training(options: argparse.Namespace, seconds: float | None = None) -> None:
    from .training.options import Options
    from .training.train import run

    run(
        Options(
            options.out,
            options.seconds if seconds is None else seconds,
            options.steps,
            options.train,
            options.heldout,
            options.real,
            options.validation,
            options.size,
            options.batch_seconds,
            device=options.device,
            seed=options.seed,
        )
    )


def _language_model(options: argparse.Namespace) -> None:
    from .language_model import run

    run(options.out, options.texts, options.exclude)


def _all(options: argparse.Namespace) -> None:
    from .training.train import check, is_begun

    start = time.monotonic()
    check(options.seconds, options.steps, options.size)
    options.exclude = [*options.exclude, *options.validation]
    if not is_begun(options.out):  # once training has begun, the speech must not change
        if not options.train and not (options.out / "text" / "train.jsonl.gz").exists():
            _text(options)
        _speech(options, options.seconds and SPEECH_SHARE * _left(options, start))
    _training(options, options.seconds and _left(options, start))
    options.texts = options.train
    _language_model(options)


def _left(options: argparse.Namespace, start: float) -> float:
    return max(1.0, float(options.seconds) - (time.monotonic() - start))


if __name__ == "__main__":
    sys.exit(main())
