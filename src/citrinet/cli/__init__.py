"""The `citrinet` command: one module a subcommand."""

import argparse
import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, NoReturn

from . import align, bench, console, convert, evaluate, export, info, listen, lm, serve, tokenizer, train, transcribe

_DESCRIPTION = """\
NVIDIA Citrinet speech recognisers in Transformers.

  citrinet convert model.nemo my-model           make a Transformers repository of a NeMo checkpoint
  citrinet transcribe --model my-model talk.wav  print what is said, the entities and the speaker's tags
  citrinet align talk.wav talk.txt --format srt  find when each character of a text is said
  citrinet listen --model my-model               print what is said into a microphone
  citrinet serve --model my-model                answer OpenAI's clients on this machine
  citrinet info my-model                         print what a checkpoint is
  citrinet tokenizer train.jsonl --output tok    train a tokenizer
  citrinet train recipe.yaml                     train or fine-tune a model
  citrinet evaluate --model my-model test.jsonl  measure how well one model or several transcribe
  citrinet bench --model my-model                measure how fast a model is here
  citrinet export nemo my-model model.nemo       make a NeMo checkpoint of a model
  citrinet export onnx my-model my-model-onnx    make ONNX graphs of a model
  citrinet lm train text.txt --output lm.arpa    train a language model for --lm
"""
_COMMANDS = (convert, transcribe, listen, align, serve, info, tokenizer, lm, train, evaluate, bench, export)
# What a shell reports of a program that SIGINT, SIGPIPE or SIGTERM ended.
_INTERRUPTED, _PIPE_CLOSED, _TERMINATED = 130, 141, 143


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: words after `citrinet`; those of the process if not given.

    Returns:
        The exit status: 0 if all went well, 1 if something failed, 2 for wrong usage, 130 if interrupted, 141 if
        nobody reads what is printed.
    """
    console.use_utf8()
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings(), _unwinding_when_terminated():
            if not options.traceback:
                console.show_warnings_in_one_line()
            return _run(options)
    finally:
        console.drop_output()


def program() -> NoReturn:
    """
    Run the command line, and end the process.

    What was interrupted ends at once. Python would look at each of a million objects before (1.1 s), and stop threads
    that read or compute wherever they are, which C++ answers now and then with an abort.
    """
    status = main()
    if status == _INTERRUPTED:
        atexit._run_exitfuncs()  # which remove temporary files
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
        expected = isinstance(error, (OSError, ValueError, ImportError))
        expected = expected or console.is_out_of_memory(error) or console.is_disk_full(error)
        if not expected:  # a mistake of ours
            line = f"unexpected {type(error).__name__}: {line} (run with --traceback for details)"
        return console.fail(line, error if options.traceback else None)


@contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """A terminated command unwinds like an interrupted one, so that what it was writing is cleaned up."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    """A parser, of the command or a subcommand, that knows what may stand after either."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,  # a subcommand's does not undo the command's
            help="show where in the program an error came up",
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
    """This package and those that matter in a report of a fault."""
    from .. import __version__

    others = []
    for package in ("torch", "transformers", "onnxruntime"):
        try:
            others.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    return f"citrinet {__version__} ({', '.join([*others, f'Python {python}'])})"
