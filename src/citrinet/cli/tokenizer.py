"""`citrinet tokenizer`."""

import argparse
from typing import Any

from ..manifest import read_manifest
from ..transcript_citrinet import target_text
from .options import positive


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "tokenizer",
        help="train a tokenizer on the texts of manifests",
        description="Train a SentencePiece model. Entity markers, and speaker tags if kept, become one symbol each. "
        "DIR is then a tokenizer for recipes and AutoTokenizer, with the SentencePiece model in tokenizer.model.",
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="NeMo manifests")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the folder to write: a new one, or that of an earlier tokenizer"
    )
    parser.add_argument(
        "--vocab-size", type=positive, default=5000, metavar="N", help="maximum number of pieces (default 5000)"
    )
    parser.add_argument(
        "--model-type", default="bpe", choices=["bpe", "unigram", "char"],
        help="type of the SentencePiece model (default bpe)",
    )  # fmt: skip
    parser.add_argument("--keep-tags", action="store_true", help="let the CTC head write speaker tags too")
    parser.add_argument("--drop-entities", action="store_true", help="leave entity markers out")
    parser.add_argument(
        "--user-defined-symbols",
        nargs="+",
        default=[],
        metavar="TAG",
        help="extra symbols, which texts need not contain",
    )
    parser.add_argument("--no-dummy-prefix", action="store_true", help="start texts without a word boundary")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..tokenizer.training import check_tokenizer_folder, save_tokenizer, train_sentencepiece

    check_tokenizer_folder(options.output)  # check before minutes of work
    texts = [
        target_text(entry.text or "", options.keep_tags, not options.drop_entities)
        for path in options.manifests
        for entry in read_manifest(path)
    ]
    model = train_sentencepiece(
        texts,
        options.vocab_size,
        options.model_type,
        add_dummy_prefix=not options.no_dummy_prefix,
        user_defined_symbols=options.user_defined_symbols,
    )
    tokenizer = save_tokenizer(options.output, model)
    print(f"{options.output}: {len(tokenizer)} tokens, the blank included")
    return 0
