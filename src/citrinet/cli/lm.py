"""`citrinet lm`."""

import argparse
from pathlib import Path
from typing import Any

from ..language_model.beam_search import WEIGHT, WORD_BONUS
from ..transcript_citrinet import target_text
from .options import add_force


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("lm", help="train a language model", description="Train language models for --lm.")
    actions: Any = parser.add_subparsers(metavar="ACTION", required=True)
    train = actions.add_parser(
        "train",
        help="train an n-gram model of characters or pieces",
        description="Train an n-gram model with modified Kneser-Ney smoothing on text files (one sentence per line) "
        "and NeMo manifests, optionally gzipped. Its tokens are characters, with ▁ for a space before a word, and "
        "entity markers; or the pieces of a model. Texts should have the case and punctuation that the model writes.",
    )
    train.add_argument("texts", nargs="+", metavar="TEXT", help=".txt, .jsonl or .json files, optionally with .gz")
    train.add_argument(
        "--output", required=True, metavar="FILE",
        help="FILE.arpa or FILE.arpa.gz, which other programs read, or FILE.npz, which is small and loads quickly; "
        "language_model.npz in a model's folder is the default of --lm",
    )  # fmt: skip
    train.add_argument("--order", type=int, default=4, metavar="N", help="length of the longest n-grams (default 4)")
    train.add_argument(
        "--prune", type=float, default=0.0, metavar="X",
        help="remove n-grams whose removal raises perplexity by a fraction below X, such as 1e-7 (default 0)",
    )  # fmt: skip
    train.add_argument("--pieces", metavar="DIR|REPO", help="model whose pieces are the tokens (default: characters)")
    train.add_argument(
        "--exclude", nargs="+", default=[], metavar="TEXT", help="files whose sentences are left out, such as test sets"
    )
    train.add_argument("--keep-tags", action="store_true", help="keep speaker tags, for a CTC head that writes them")
    train.add_argument("--drop-entities", action="store_true", help="leave entity markers out")
    train.add_argument(
        "--lm-weight", type=float, metavar="W",
        help=f"weight to store in FILE.npz as the default for decoding (otherwise {WEIGHT})",
    )  # fmt: skip
    train.add_argument("--word-bonus", type=float, metavar="B", help=f"the same for its bonus (otherwise {WORD_BONUS})")
    add_force(train, "FILE")
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..language_model.building import read_texts, train_language_model

    held_out = {_plain(text) for path in options.exclude for text in read_texts(Path(path))}
    settings = {"weight": options.lm_weight, "word_bonus": options.word_bonus}
    model = train_language_model(
        options.texts,
        options.output,
        order=options.order,
        prune=options.prune,
        pieces=options.pieces,
        keep_tags=options.keep_tags,
        keep_entities=not options.drop_entities,
        excluded=lambda text: _plain(text) in held_out,
        settings={name: value for name, value in settings.items() if value is not None},
        force=options.force,
    )
    counts = ", ".join(f"{count} {length}-grams" for length, count in enumerate(model.counts, start=1))
    print(f"{options.output}: {counts}")
    return 0


def _plain(text: str) -> str:
    return "".join(target_text(text, keep_tags=False, keep_entities=False).split())
