"""The `citrinet` command, with one module for each subcommand."""

import argparse
import atexit
import os
import sys
import warnings
from importlib import metadata
from typing import Any, NoReturn

from . import align, bench, console, convert, evaluate, export, info, listen, lm, serve, tokenizer, train, transcribe
from .termination import unwinding_when_terminated

_DESCRIPTION = """\
NVIDIA Citrinet speech recognisers in Transformers.

  citrinet convert model.nemo my-model           convert a NeMo checkpoint to a Transformers repository
  citrinet transcribe --model my-model talk.wav  print the transcript, the entities and the speaker tags
  citrinet align talk.wav talk.txt --format srt  find when each character of a text is said
  citrinet listen --model my-model               transcribe a microphone live
  citrinet serve --model my-model                serve a model through OpenAI's transcription API
  citrinet info my-model                         describe a checkpoint
  citrinet tokenizer train.jsonl --output tok    train a tokenizer
  citrinet train recipe.yaml                     train or fine-tune a model
  citrinet evaluate --model my-model test.jsonl  measure the accuracy of one or several models
  citrinet bench --model my-model                measure the speed of a model on this machine
  citrinet export nemo my-model model.nemo       export a model to a NeMo checkpoint
  citrinet export onnx my-model my-model-onnx    export a model to ONNX graphs
  citrinet lm train text.txt --output lm.arpa    train a language model for --lm
"""
_COMMANDS = (convert, transcribe, listen, align, serve, info, tokenizer, lm, train, evaluate, bench, export)
# The exit statuses that a shell reports for a program ended by SIGINT, SIGPIPE or SIGTERM.
_INTERRUPTED, _PIPE_CLOSED = 130, 141


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: the command-line arguments after `citrinet`, by default those of the process.

    Returns:
        The exit status: 0 on success, 1 if something failed, 2 for wrong usage, 130 if interrupted, 141 if the reader
        of standard output has closed it.
    """
    console.use_utf8()
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings(), unwinding_when_terminated():
            if not options.traceback:
                console.show_warnings_in_one_line()
            return _run(options)
    finally:
        console.drop_output()


def program() -> NoReturn:
    """
    Run the command line, then end the process.

    An interrupted process exits at once. Python's own shutdown would first visit each of a million objects (1.1 s) and
    stop threads in the middle of reading or computing, to which C++ code sometimes responds with an abort.
    """
    status = main()
    if status == _INTERRUPTED:
        atexit._run_exitfuncs()  # they remove temporary files
        os._exit(status)
    sys.exit(status)


def _run(options: argparse.Namespace) -> int:
    try:
        status: int = options.run(options)
        console.flush_output()
        return status
    except KeyboardInterrupt:
        console.fail("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return _PIPE_CLOSED
    except Exception as error:
        line = console.one_line(error)
        if isinstance(error, ModuleNotFoundError):  # where only what ONNX folders need is installed
            line = f"{line}: it comes with the ordinary installation, without --no-deps"
        expected = isinstance(error, (OSError, ValueError, ImportError))
        expected = expected or console.is_out_of_memory(error) or console.is_disk_full(error)
        if not expected:  # a bug in this package
            line = f"unexpected {type(error).__name__}: {line} (run with --traceback for details)"
        return console.fail(line, error if options.traceback else None)


class _Parser(argparse.ArgumentParser):
    """Parser of the command or a subcommand, with the options that both accept."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,  # the subcommand's default must not overwrite the command's value
            help="print the traceback of an error",
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="citrinet", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(traceback=False)
    commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _version() -> str:
    """The versions of this package, its main dependencies and Python, for bug reports."""
    from .. import __version__

    others = []
    for package in ("torch", "transformers", "onnxruntime"):
        try:
            others.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    return f"citrinet {__version__} ({', '.join([*others, f'Python {python}'])})"
