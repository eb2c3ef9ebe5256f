"""`citrinet info`."""

import argparse
from pathlib import Path
from typing import Any

from ..recognition import load_recognizer
from .options import quiet


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "info",
        help="describe a checkpoint",
        description="Print the architecture, size, vocabulary, adapters and labels of a converted folder, a Hub "
        "repository, a folder of ONNX graphs or a .nemo file. A .nemo file is checked as by `convert`, but nothing is "
        "written.",
    )
    parser.add_argument("model", metavar="DIR|REPO|FILE.nemo", help="the checkpoint")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.model.endswith(".nemo") and Path(options.model).is_file():
        from ..convert import read_nemo

        print(read_nemo(options.model).report)
    else:
        quiet()
        print(load_recognizer(options.model, optimized=False).describe())
    return 0
