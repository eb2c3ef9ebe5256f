"""Settings of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """
    Names and limits of a server.

    Args:
        name: model name in the API.
        language: language to report when a request names none.
        api_key: key that clients must send; `None` for no authentication.
        max_bytes: maximum size of an upload.
        max_seconds: maximum length of a recording.
        max_waiting: maximum number of recordings in the queue; further requests get status 503.
        max_live: maximum number of live connections.
        batch_size: maximum number of recordings in a batch.
        batch_seconds: maximum seconds of audio in a batch, including padding; a longer recording has its own batch.
    """

    name: str
    language: str = ""
    api_key: str | None = None
    max_bytes: int = 100 << 20
    max_seconds: float = 1800.0
    max_waiting: int = 64
    max_live: int = 16
    batch_size: int = 16
    batch_seconds: float = 120.0
