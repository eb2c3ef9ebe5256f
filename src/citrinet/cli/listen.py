"""`citrinet listen`."""

import argparse
import os
import queue
import shutil
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..recognition import load_recognizer
from ..recognition.recognizer import PRECISIONS
from ..resampling_citrinet import check_rate
from ..result_citrinet import RecognitionResult
from ..streaming import CitrinetStream, StreamText
from .console import to_json
from .options import add_decoding, add_device, add_json, add_model, decoding_options, positive, quiet, seconds

_PIECE_S = 0.1  # seconds of audio in a block from the microphone
_AHEAD = 600  # blocks of standard input that may wait, so that a pipe is read no faster than it is transcribed
_POLL_S = 0.1  # interval at which Ctrl-C is noticed while no audio arrives
_CLEAR = "\r\x1b[K"  # move to the start of the line and erase it


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "listen",
        help="transcribe a microphone live",
        description="Transcribe a microphone, or raw audio from standard input, as it arrives. Each finished segment "
        "is printed on a line with its times in seconds; on a terminal, the provisional text of the current segment is "
        "shown below. Stop with Ctrl-C.",
    )
    parser.add_argument(
        "source", nargs="?", choices=["-"], metavar="-",
        help="read 16-bit little-endian mono samples from standard input instead of a microphone",
    )  # fmt: skip
    add_model(parser)
    add_json(parser, "one JSON object for each segment of speech")
    parser.add_argument(
        "--device-name",
        metavar="NAME",
        help="the microphone, by its number or part of its name (default: the system's default)",
    )
    parser.add_argument(
        "--rate", type=positive, default=16_000, metavar="HZ", help="sampling rate of the audio (default 16000)"
    )
    parser.add_argument(
        "--step", type=seconds, default=0.5, metavar="S",
        help="seconds between updates of the provisional text (default 0.5); smaller values need more computation",
    )  # fmt: skip
    parser.add_argument(
        "--precision", default="float32", choices=PRECISIONS, help="precision of matrix products (default float32)"
    )
    add_device(parser)
    add_decoding(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    rate = check_rate(options.rate, "--rate")
    if options.source and options.device_name:
        raise ValueError("--device-name names a microphone: give either that or -.")
    decoder = decoding_options(options)
    quiet()
    stop = threading.Event()
    source = _standard_input(stop) if options.source else _microphone(options.device_name, rate, stop)
    recognizer = load_recognizer(options.model, precision=options.precision, device=options.device, decoder=decoder)
    stream = CitrinetStream(recognizer, step_s=options.step)
    lines = _Lines(to_json if options.json else _line)
    with _ctrl_c_sets(stop), source as pieces:
        for piece in pieces:
            lines.show(stream.feed(piece, rate), stream.segments)
    lines.show(stream.finish(), stream.segments)
    return 0


@contextmanager
def _ctrl_c_sets(stop: threading.Event) -> Iterator[None]:
    """Make the first Ctrl-C end the audio, but still transcribe what has arrived; a second one ends the program."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield
        return

    def interrupt(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Lines:
    """Prints finished segments and, on a terminal, the provisional text on a line that is rewritten."""

    def __init__(self, line: Callable[[RecognitionResult], str]):
        self._line = line
        self._printed = 0
        self._shown = ""

    def show(self, text: StreamText, segments: list[RecognitionResult]) -> None:
        """Print what has changed since the last call."""
        is_terminal = sys.stdout.isatty()
        done = [self._line(segment) + "\n" for segment in segments[self._printed :]]
        self._printed = len(segments)
        shown = _tail(text.provisional.strip(), shutil.get_terminal_size().columns - 1) if is_terminal else ""
        if done or shown != self._shown:
            sys.stdout.write((_CLEAR if self._shown else "") + "".join(done) + shown)
            sys.stdout.flush()
        self._shown = shown


def _line(result: RecognitionResult) -> str:
    """Format a segment as text: its times, its transcript, a line for each entity."""
    segment = result["segments"][0]
    lines = [f"{segment['start']:8.2f} {segment['end']:8.2f}  {result['transcript']}"]
    for entity in result["entities"]:
        start, end = entity["timestamp"]
        lines.append(f"{'':19}{entity['type']}: {entity['text']} ({start:.2f}-{end:.2f} s)")
    return "\n".join(lines)


def _tail(text: str, columns: int) -> str:
    """The end of a text that fits a number of terminal columns; a Chinese character takes two."""
    for start, char in reversed(list(enumerate(text))):
        columns -= 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if columns < 0:
            return text[start + 1 :]
    return text


@contextmanager
def _standard_input(stop: threading.Event) -> Iterator[Iterator[np.ndarray]]:
    """Read 16-bit samples from standard input in a thread, and yield at each step all that have arrived."""
    waiting: queue.Queue[bytes] = queue.Queue(_AHEAD)

    def read() -> None:
        # Not through `sys.stdin`: a thread that still reads would hold its lock when Python ends.
        while content := os.read(0, 1 << 16):
            waiting.put(content)
        waiting.put(b"")

    threading.Thread(target=read, daemon=True).start()

    def pieces() -> Iterator[np.ndarray]:
        left, is_open = b"", True
        while is_open and (parts := _all_waiting(waiting, stop)):
            is_open = b"" not in parts
            content = left + b"".join(parts)
            whole = len(content) // 2 * 2
            left = content[whole:]
            yield np.frombuffer(content[:whole], "<i2")

    yield pieces()


@contextmanager
def _microphone(name: str | None, rate: int, stop: threading.Event) -> Iterator[Iterator[np.ndarray]]:
    """Record a microphone, and yield at each step all audio that arrived while the last was transcribed."""
    try:
        import sounddevice
    except ImportError as error:
        raise ImportError('a microphone needs the package sounddevice: pip install "citrinet[microphone]"') from error
    except OSError as error:  # no PortAudio: the wheels contain it for Windows and macOS only
        raise OSError(
            f"{error}: install PortAudio (apt install libportaudio2), or give sound on standard input."
        ) from error
    waiting: queue.Queue[np.ndarray] = queue.Queue()

    def keep(samples: np.ndarray, *_: Any) -> None:
        waiting.put(samples[:, 0].copy())

    device = int(name) if name and name.isdecimal() else name
    block = round(_PIECE_S * rate)
    try:
        opened = sounddevice.InputStream(
            samplerate=rate, device=device, channels=1, dtype="float32", blocksize=block, callback=keep
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(
            f"the microphone cannot be used: {error}. `python -m sounddevice` lists what there is."
        ) from error

    def pieces() -> Iterator[np.ndarray]:
        while parts := _all_waiting(waiting, stop):
            yield np.concatenate(parts)

    with opened:
        yield pieces()


def _all_waiting(waiting: "queue.Queue[Any]", stop: threading.Event) -> list[Any]:
    """Wait for a queue to fill, and return all that is in it; empty once `stop` is set."""
    while not stop.is_set():
        try:
            parts = [waiting.get(timeout=_POLL_S)]
        except queue.Empty:
            continue
        while not waiting.empty():
            parts.append(waiting.get())
        return parts
    return []
