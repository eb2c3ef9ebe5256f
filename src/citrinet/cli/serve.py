"""`citrinet serve`."""

import argparse
import os
from pathlib import Path
from typing import Any

from .options import add_decoding, add_device, add_model, decoding_options, positive, quiet, seconds

KEY = "CITRINET_API_KEY"


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    from ..recognition.recognizer import PRECISIONS

    parser = commands.add_parser(
        "serve",
        help="serve OpenAI's transcription API and live speech",
        description="Serve /v1/audio/transcriptions and /v1/models for OpenAI's clients, live speech on the WebSocket "
        f"/v1/listen, /health and /metrics. Clients need the API key in the environment variable {KEY}; if it is not "
        'set, there is no authentication. Needs `pip install "citrinet[serve]"`.',
    )
    add_model(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=_port, default=8000, metavar="P", help="port to listen on (default 8000)")
    parser.add_argument("--name", metavar="N", help="model name in the API (default: the name of --model)")
    parser.add_argument("--language", default="", metavar="CODE", help="language to report when a request names none")
    parser.add_argument(
        "--max-mb", type=positive, default=100, metavar="MB", help="maximum size of an upload in MiB (default 100)"
    )
    parser.add_argument(
        "--max-seconds", type=seconds, default=1800.0, metavar="S",
        help="maximum length of a recording in seconds (default 1800)",
    )  # fmt: skip
    parser.add_argument(
        "--max-waiting", type=positive, default=64, metavar="N", help="maximum recordings in the queue (default 64)"
    )
    parser.add_argument(
        "--max-live", type=positive, default=16, metavar="N", help="maximum WebSocket connections (default 16)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="maximum recordings in a batch (default 16)"
    )
    parser.add_argument(
        "--batch-seconds", type=seconds, default=120.0, metavar="S",
        help="maximum seconds of audio in a batch, including padding (default 120)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", default="float32", choices=PRECISIONS, help="precision of matrix products (default float32)"
    )
    add_device(parser)
    add_decoding(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    try:
        import uvicorn

        from ..serving import Settings, create_app
    except ModuleNotFoundError as error:
        raise ImportError(f'the server needs {error.name}: pip install "citrinet[serve]"') from error
    from ..recognition import load_recognizer

    quiet()
    decoding = decoding_options(options)
    recognizer = load_recognizer(options.model, precision=options.precision, device=options.device, decoder=decoding)
    settings = Settings(
        name=options.name or Path(options.model).name,
        language=options.language,
        api_key=os.environ.get(KEY) or None,
        max_bytes=options.max_mb << 20,
        max_seconds=options.max_seconds,
        max_waiting=options.max_waiting,
        max_live=options.max_live,
        batch_size=options.batch_size,
        batch_seconds=options.batch_seconds,
    )
    uvicorn.run(create_app(recognizer, settings), host=options.host, port=options.port, timeout_graceful_shutdown=60)
    return 0


def _port(text: str) -> int:
    """A port to listen on; 0 is any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, a number of 0 to 65535")
    return int(text)
