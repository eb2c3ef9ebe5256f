"""Options shared by several commands."""

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


def add_model(parser: argparse.ArgumentParser, others: str = "") -> None:
    """Add `--model`: one model, by default the package's own; `others` names what else it may be."""
    parser.add_argument(
        "--model",
        type=model_name,
        default=default_model(),
        metavar="DIR|REPO",
        help=f"model folder or Hub repository{others} (default: the package's small Mandarin model)",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the options that set batching, precision and device."""
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="files in a batch (default 1, or what fits --batch-seconds)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=seconds,
        metavar="S",
        help="seconds of audio in a batch, including padding; with --batch-size, whichever limit is reached first",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="precision of matrix products (default float32); bfloat16, int8 (on a CPU) and float16 (on a GPU) are "
        "faster and slightly less exact",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="cpu", metavar="D", help="PyTorch device: cpu (default), cuda, mps, ...")


def add_vad(parser: argparse.ArgumentParser) -> None:
    """Add `--vad` and `--no-vad`."""
    parser.add_argument(
        "--vad",
        action=argparse.BooleanOptionalAction,
        help="split audio at pauses and transcribe each segment separately (default: only audio over 30 s)",
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add the options of decoding, which [`decoding_options`] reads."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--lm", default=OWN, metavar="FILE|none",
        help="n-gram language model (ARPA, KenLM binary, .npz) of the model's characters or pieces; none to decode "
        "without one (default: the model's own, if it has one)",
    )  # fmt: skip
    group.add_argument(
        "--lm-weight", type=float, metavar="W",
        help=f"weight of the language model's log-probabilities (default: that stored in the model, or {WEIGHT})",
    )  # fmt: skip
    group.add_argument(
        "--word-bonus", type=float, metavar="B",
        help=f"score added for each token of the language model (default: that stored in the model, or {WORD_BONUS})",
    )  # fmt: skip
    group.add_argument("--hot-words", metavar="FILE", help="file of words to prefer, such as names, one per line")
    group.add_argument(
        "--hot-word-boost", type=float, default=HOT_WORD_BOOST, metavar="B",
        help=f"score added for each character of a hot word (default {HOT_WORD_BOOST})",
    )  # fmt: skip
    group.add_argument(
        "--beam-size", type=positive, default=BEAM_SIZE, metavar="N",
        help=f"number of hypotheses in beam search (default {BEAM_SIZE})",
    )  # fmt: skip


def decoding_options(options: argparse.Namespace, alternatives: int = 1) -> DecodingOptions:
    """
    Read the options that [`add_decoding`] adds.

    Raises:
        OSError, ValueError: if the language model or the hot words cannot be read.
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
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help=f"replace {output} if it exists")


def add_json(parser: argparse.ArgumentParser, output: str) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {output}")


def positive(text: str) -> int:
    """Parse an integer above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def seconds(text: str) -> float:
    """Parse a number of seconds, zero or more."""
    value = float(text)
    if not 0 <= value < math.inf:  # also false for NaN
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def model_name(text: str) -> str:
    """Parse the name of a model's folder or repository."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def quiet(unless_terminal: bool = False) -> None:
    """Switch off the progress bars of Transformers: always, or unless standard error is a terminal."""
    try:
        import transformers.utils.logging
    except ImportError:  # ONNX graphs run without Transformers
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
