"""Options that several commands share."""

import argparse
import math
import sys
from typing import Any

from ..default import default_model
from ..recognition.recognizer import PRECISIONS
from .console import fail


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`, one model, the package's own if not given."""
    parser.add_argument(
        "--model",
        type=model_name,
        default=default_model(),
        metavar="DIR|REPO",
        help="a folder or a Hub repository (default: a small Mandarin one)",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Where and how a model computes."""
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="files at a time (default 1, or what --batch-seconds holds)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=seconds,
        metavar="S",
        help="seconds of audio at a time, padding counted; with --batch-size too, what is reached first",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="of matrix products (default float32); faster and a little less exact are bfloat16, int8 on a CPU and "
        "float16 on a GPU",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, mps, ...")


def add_vad(parser: argparse.ArgumentParser) -> None:
    """`--vad`, `--no-vad`."""
    parser.add_argument(
        "--vad",
        action=argparse.BooleanOptionalAction,
        help="cut audio at pauses and read each stretch of speech on its own (default: audio of more than 30 s)",
    )


def add_force(parser: argparse.ArgumentParser, output: str) -> None:
    """`--force`."""
    parser.add_argument("--force", action="store_true", help=f"replace {output} if it exists")


def add_json(parser: argparse.ArgumentParser, output: str) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {output}")


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def seconds(text: str) -> float:
    """A time of zero or more."""
    value = float(text)
    if not 0 <= value < math.inf:  # NaN is neither
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def model_name(text: str) -> str:
    """A model's folder or repository."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def quiet(unless_terminal: bool = False) -> None:
    """Switch off the progress bars of Transformers: always, or where nobody sees them."""
    try:
        import transformers.utils.logging
    except ImportError:  # ONNX graphs do without
        return
    logging: Any = transformers.utils.logging
    if not (unless_terminal and sys.stderr.isatty()):
        logging.disable_progress_bar()


__all__ = [
    "add_device",
    "add_force",
    "add_json",
    "add_model",
    "add_runtime",
    "add_vad",
    "fail",
    "model_name",
    "positive",
    "quiet",
    "seconds",
]
