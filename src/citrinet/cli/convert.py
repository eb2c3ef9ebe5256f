"""`citrinet convert`."""

import argparse
from typing import Any

from .options import add_force, quiet


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "convert",
        help="convert a NeMo checkpoint to a Transformers repository",
        description="Convert a NeMo Citrinet CTC checkpoint, from a file or the Hub. Nothing in it is executed, and "
        "OUT_DIR appears only when it is complete. Only files of an earlier conversion are ever replaced.",
    )
    parser.add_argument(
        "model", metavar="MODEL.nemo|REPO|URL", help="a .nemo file, its URL, or a Hub repository or folder with one"
    )
    parser.add_argument("output", metavar="OUT_DIR", help="the folder to write")
    parser.add_argument("--file", metavar="NAME", help="which .nemo file of the repository, if it holds several")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of the repository")
    parser.add_argument("--token", metavar="T", help="access token of the Hub (default: that of `hf auth login`)")
    parser.add_argument(
        "--frontend",
        choices=["nemo-2.5", "nemo-2.4"],
        help="NeMo version whose feature extraction the model was trained with: 2.5 and later (default), or 2.4 and "
        "earlier; NeMo's files do not record it, those of `citrinet export nemo` do",
    )
    parser.add_argument(
        "--tag-labels",
        metavar="FILE",
        help='labels of the tag heads, if the vocabulary lacks them: a JSON file like {"AGE": {"0": "NONE", ...}}',
    )
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="dtype of the weights"
    )
    parser.add_argument("--language", metavar="CODE", help="ISO code for the model card, such as zh")
    add_force(parser, "an earlier conversion in OUT_DIR")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the result to this Hub repository (owner/name)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..convert import convert_nemo

    quiet(unless_terminal=True)
    report = convert_nemo(
        options.model,
        options.output,
        file=options.file,
        revision=options.revision,
        token=options.token,
        frontend=options.frontend,
        tag_labels=options.tag_labels,
        dtype=options.dtype,
        language=options.language,
        force=options.force,
        push_to_hub=options.push_to_hub,
    )
    print(report)
    return 0
