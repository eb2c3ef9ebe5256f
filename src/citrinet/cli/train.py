"""`citrinet train`."""

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "train",
        help="train or fine-tune a model",
        description="Train a model from a recipe with Transformers' Trainer. Also runs under `accelerate launch`.",
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="data, model, tokenizer and training arguments")
    parser.add_argument(
        "changes", nargs="*", metavar="KEY=VALUE", help="values that replace the recipe's: training.learning_rate=1e-3"
    )
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint, if there is one")
    parser.set_defaults(run=run)
    _allow_options_anywhere(parser)


def _allow_options_anywhere(parser: argparse.ArgumentParser) -> None:
    """Accept `--resume` before, between and after the other arguments, which subcommand parsers do not by default."""
    ordinary = parser.parse_known_args

    def intermixed(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = ordinary  # type: ignore[method-assign]  # the next line calls it
        return parser.parse_known_intermixed_args(args, namespace)

    parser.parse_known_args = intermixed  # type: ignore[method-assign]


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..training import is_main_process, read_recipe, train

    metrics = train(read_recipe(options.recipe, options.changes), resume=options.resume)
    if is_main_process():
        print(json.dumps(metrics, indent=2))
    return 0
