"""The `citrinet` command: one module a subcommand."""

import argparse
import signal
import sys
from typing import Any

from . import bench, convert, evaluate, export, info, tokenizer, train, transcribe
from .options import fail

_DESCRIPTION = """\
NVIDIA Citrinet speech recognisers in Transformers.

  citrinet convert model.nemo my-model           make a Transformers repository of a NeMo checkpoint
  citrinet transcribe --model my-model talk.wav  print what is said, the entities and the speaker's tags
  citrinet info my-model                         print what a checkpoint is
  citrinet tokenizer train.jsonl --output tok    train a tokenizer
  citrinet train recipe.yaml                     train or fine-tune a model
  citrinet evaluate --model my-model test.jsonl  measure how well one model or several transcribe
  citrinet bench --model my-model                measure how fast a model is here
  citrinet export nemo my-model model.nemo       make a NeMo checkpoint of a model
  citrinet export onnx my-model my-model-onnx    make ONNX graphs of a model
"""
_COMMANDS = (convert, transcribe, info, tokenizer, train, evaluate, bench, export)


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: words after `citrinet`; those of the process if not given.

    Returns:
        The exit status: 0 if all went well, 1 if something failed, 2 for wrong usage.
    """
    options = _parser().parse_args(arguments)
    # A terminated command unwinds like an interrupted one, so that what it was writing is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return fail("interrupted")
    except (OSError, ValueError, ImportError) as error:  # bad input or a missing extra; all else is a bug
        return fail(" ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="citrinet", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
