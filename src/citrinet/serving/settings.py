"""What a server allows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """
    Limits and names of a server.

    Args:
        name: of the model, as clients ask for it.
        language: of the model, for clients that are to be told one; what they say themselves if not given.
        api_key: what clients have to know; anybody may ask if there is none.
        max_bytes: of an upload.
        max_seconds: of a recording.
        max_waiting: recordings in the queue; who comes then is told to come again.
        max_live: connections of live speech at a time.
        batch_size: recordings that are recognised together at most.
        batch_seconds: seconds of audio that are recognised together, padding counted; one that is longer is alone.
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
