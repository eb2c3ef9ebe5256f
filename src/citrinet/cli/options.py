"""Options that several commands share."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from ..default import default_model
from ..language_model import DecodingOptions, read_hot_words
from ..language_model.beam_search import BEAM_SIZE, HOT_WORD_BOOST, WEIGHT, WORD_BONUS
from ..language_model.options import NONE, OWN
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


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How outputs are decoded; [`decoding_options`] reads it."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--lm", default=OWN, metavar="FILE|none",
        help="an n-gram model (ARPA, KenLM binary, .npz) of the model's characters or pieces; none to decode without "
        "(default: the model's own, if it has one)",
    )  # fmt: skip
    group.add_argument(
        "--lm-weight", type=float, metavar="W", help=f"of its log-probabilities (default: its own or {WEIGHT})"
    )
    group.add_argument(
        "--word-bonus", type=float, metavar="B", help=f"for each of its tokens (default: its own or {WORD_BONUS})"
    )
    group.add_argument("--hot-words", metavar="FILE", help="words to prefer, such as names, one a line")
    group.add_argument(
        "--hot-word-boost", type=float, default=HOT_WORD_BOOST, metavar="B",
        help=f"for each of their characters (default {HOT_WORD_BOOST})",
    )  # fmt: skip
    group.add_argument("--beam-size", type=positive, default=BEAM_SIZE, metavar="N", help=f"default {BEAM_SIZE}")


def decoding_options(options: argparse.Namespace, alternatives: int = 1) -> DecodingOptions:
    """
    What [`add_decoding`]'s options say.

    Raises:
        OSError, ValueError: if the hot words cannot be read.
    """
    if options.lm not in (OWN, NONE) and not Path(options.lm).is_file():
        raise FileNotFoundError(f"there is no language model {options.lm}: give a file, or none to decode without.")
    return DecodingOptions(
        language_model=options.lm,
        weight=options.lm_weight,
        word_bonus=options.word_bonus,
        hot_words=tuple(read_hot_words(options.hot_words)) if options.hot_words else (),
        hot_word_boost=options.hot_word_boost,
        beam_size=options.beam_size,
        alternatives=alternatives,
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
    "add_decoding",
    "add_device",
    "add_force",
    "add_json",
    "add_model",
    "add_runtime",
    "add_vad",
    "decoding_options",
    "fail",
    "model_name",
    "positive",
    "quiet",
    "seconds",
]
