"""`citrinet lm`."""

import argparse
from pathlib import Path
from typing import Any

from ..language_model.beam_search import WEIGHT, WORD_BONUS
from ..transcript_citrinet import target_text
from .options import add_force


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("lm", help="train a language model", description="Language models for --lm.")
    actions: Any = parser.add_subparsers(metavar="ACTION", required=True)
    train = actions.add_parser(
        "train",
        help="train an n-gram model of characters or pieces",
        description="Train an n-gram model with modified Kneser-Ney smoothing on text files (one sentence a line) and "
        "NeMo manifests, also compressed with gzip. Its tokens are characters, spaces before words as ▁, and entity "
        "markers; or the pieces of a model. Texts should be written as the model writes: its case, its punctuation.",
    )
    train.add_argument("texts", nargs="+", metavar="TEXT", help=".txt, .jsonl or .json, perhaps with .gz")
    train.add_argument(
        "--output", required=True, metavar="FILE",
        help="FILE.arpa or FILE.arpa.gz, which other programs read, or FILE.npz, which is small and quickly read; as "
        "language_model.npz in a model's folder it is used unless --lm says otherwise",
    )  # fmt: skip
    train.add_argument("--order", type=int, default=4, metavar="N", help="length of the longest n-grams (default 4)")
    train.add_argument(
        "--prune", type=float, default=0.0, metavar="X",
        help="leave out n-grams without which the perplexity rises by less than this part, such as 1e-7 (default 0)",
    )  # fmt: skip
    train.add_argument(
        "--pieces", metavar="DIR|REPO", help="the model whose pieces are the tokens (default: characters)"
    )
    train.add_argument(
        "--exclude", nargs="+", default=[], metavar="TEXT", help="files whose sentences are left out, such as test sets"
    )
    train.add_argument("--keep-tags", action="store_true", help="keep tags, for a CTC head that writes them")
    train.add_argument("--drop-entities", action="store_true", help="leave entity markers out")
    train.add_argument(
        "--lm-weight", type=float, metavar="W", help=f"to be used with it, kept in .npz (default {WEIGHT})"
    )
    train.add_argument("--word-bonus", type=float, metavar="B", help=f"the same (default {WORD_BONUS})")
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
