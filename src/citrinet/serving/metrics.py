"""Metrics of a server, for Prometheus."""

from typing import Any

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .engine import Engine


class Metrics:
    """
    Requests by path and status, their duration, seconds of audio, and waiting recordings.

    Args:
        engine: the engine whose queue is measured.
    """

    def __init__(self, engine: Engine):
        self._registry = CollectorRegistry()
        of: Any = {"registry": self._registry}
        self._requests = Counter("citrinet_requests", "Requests", ["path", "status"], **of)
        self._time = Histogram("citrinet_request_seconds", "Seconds to an answer", ["path"], **of)
        self._audio = Counter("citrinet_audio_seconds", "Seconds of audio that were sent", **of)
        Gauge("citrinet_waiting", "Recordings that wait", **of).set_function(lambda: engine.waiting)

    def request(self, route: Any, status: int, seconds: float) -> None:
        """Count a request under the path of its route, not under the path that the client sent."""
        path = getattr(route, "path", "other")
        self._requests.labels(path, str(status)).inc()
        self._time.labels(path).observe(seconds)

    def audio(self, seconds: float) -> None:
        """Count seconds of audio."""
        self._audio.inc(seconds)

    def response(self) -> Response:
        """All metrics in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
