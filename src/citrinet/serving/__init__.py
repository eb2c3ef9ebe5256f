"""Server for OpenAI's transcription API, and for live speech over a WebSocket; `citrinet serve` runs it."""

from .app import create_app
from .engine import Busy, Engine
from .settings import Settings

__all__ = ["Busy", "Engine", "Settings", "create_app"]
