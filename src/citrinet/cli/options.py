"""What several commands share: options, progress bars and messages."""

import argparse
import sys

from tqdm.auto import tqdm


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`, one model, the package's own if not given."""
    parser.add_argument(
        "--model", metavar="DIR|REPO", help="a folder or a Hub repository (default: a small Mandarin one)"
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Where and how a model computes."""
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="files at a time (default 1)")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16", "int8"],
        help="of matrix products; bfloat16 and int8 are faster and a little less exact (default float32)",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, mps, ...")


def add_force(parser: argparse.ArgumentParser, output: str) -> None:
    """`--force`."""
    parser.add_argument("--force", action="store_true", help=f"replace {output} if it exists")


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def quiet(unless_terminal: bool = False) -> None:
    """Switch off the progress bars of Transformers: always, or where nobody sees them."""
    from transformers.utils import logging

    if not (unless_terminal and sys.stderr.isatty()):
        logging.disable_progress_bar()


def fail(message: str) -> int:
    """Say what went wrong, and return the exit status for it."""
    tqdm.write(f"citrinet: {message}", file=sys.stderr)
    return 1
