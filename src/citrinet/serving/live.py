"""Live speech over a WebSocket."""

from typing import Any

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool

from ..resampling_citrinet import check_rate
from ..streaming import CitrinetStream
from .engine import Engine, Shared

END = "end"
_TRY_AGAIN, _BAD_DATA = 1013, 1003


class Live:
    """
    Live transcription, with one stream per WebSocket connection.

    A client sends 16-bit little-endian mono samples as binary messages, and `end` as a text message. After each message
    it receives `{"segment": ...}` with the result of each segment that is finished, then
    `{"stable": ..., "provisional": ...}`, after `end` with `"final": true`. The connection is closed after that.

    Args:
        engine: transcribes the audio.
        limit: maximum number of connections; others are closed with code 1013.
    """

    def __init__(self, engine: Engine, limit: int):
        self._engine, self._limit, self._open = engine, limit, 0

    async def serve(self, socket: WebSocket, rate: int) -> None:
        """Serve one connection, with samples at a sampling rate of `rate` Hz."""
        await socket.accept()
        try:
            check_rate(rate, "`rate`")
        except ValueError as error:
            await socket.close(_BAD_DATA, str(error)[:120])
            return
        if self._open >= self._limit:
            await socket.close(_TRY_AGAIN, "Too many connections: come again.")
            return
        self._open += 1
        try:
            await self._listen(socket, rate)
        except WebSocketDisconnect:
            pass
        finally:
            self._open -= 1

    async def _listen(self, socket: WebSocket, rate: int) -> None:
        recognizer: Any = Shared(self._engine)
        stream, told = CitrinetStream(recognizer, return_timestamps="char"), 0
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            ends = message.get("text") == END
            if ends:
                text = await run_in_threadpool(stream.finish)
            else:
                content = message.get("bytes")
                if not content or len(content) % 2:
                    await socket.close(_BAD_DATA, "Send 16-bit samples as binary messages, or `end`.")
                    return
                text = await run_in_threadpool(stream.feed, np.frombuffer(content, "<i2"), rate)
            for segment in stream.segments[told:]:
                await socket.send_json({"segment": segment})
            told = len(stream.segments)
            await socket.send_json({**text._asdict(), **({"final": True} if ends else {})})
            if ends:
                await socket.close()
                return
