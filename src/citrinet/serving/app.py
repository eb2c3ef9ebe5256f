"""The server: OpenAI's transcription and model endpoints, live speech, health and metrics."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Form, Request, Response, UploadFile, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from ..audio_citrinet import AudioTooLongError, load_audio
from ..recognition import Recognizer
from ..result_citrinet import RecognitionResult
from ..transcript_citrinet import joint
from ..windows_citrinet import cut_at_pauses
from .answers import GRANULARITIES, RESPONSE_FORMATS, Transcription, event
from .engine import Busy, Engine
from .live import Live
from .metrics import Metrics
from .settings import Settings

MAX_HOT_WORDS = 100  # taken from a prompt
ALIAS = "whisper-1"  # the model name of clients written for OpenAI's server only
_KINDS = {401: "authentication_error", 404: "not_found_error", 503: "server_error", 500: "server_error"}


def create_app(recognizer: Recognizer, settings: Settings) -> FastAPI:
    """
    Create the FastAPI application.

    Args:
        recognizer: the recogniser; the application must be its only user.
        settings: names and limits.
    """
    engine = Engine(recognizer, settings.batch_size, settings.batch_seconds, settings.max_waiting)
    metrics = Metrics(engine)
    live = Live(engine, settings.max_live)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close)

    app = FastAPI(title="citrinet", lifespan=lifespan, max_body_size=settings.max_bytes)
    transcriptions = _Transcriptions(recognizer, engine, settings, metrics)

    def check_key(request: Request) -> None:
        if not _knows_key(request.headers.get("authorization"), settings.api_key):
            raise HTTPException(401, "Incorrect API key: give it as `Authorization: Bearer KEY`.")

    known = [Depends(check_key)]
    app.post("/v1/audio/transcriptions", dependencies=known, response_model=None)(transcriptions.answer)

    @app.get("/v1/models", dependencies=known)
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(settings.name)]}

    @app.get("/v1/models/{name:path}", dependencies=known)
    def model(name: str) -> dict[str, Any]:
        transcriptions.check_model(name)
        return _model(settings.name)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": engine.waiting}

    @app.get("/metrics")
    def read_metrics() -> Response:
        return metrics.response()

    @app.websocket("/v1/listen")
    async def listen(socket: WebSocket, rate: int = 16_000) -> None:
        if not _knows_key(socket.headers.get("authorization"), settings.api_key):
            await socket.close(1008, "Incorrect API key.")
            return
        await live.serve(socket, rate)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, f"{first['loc'][-1]}: {first['msg']}", None, str(first["loc"][-1]))

    @app.middleware("http")
    async def count(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        start = time.perf_counter()
        response = await call(request)
        metrics.request(request.scope.get("route"), response.status_code, time.perf_counter() - start)
        return response

    return app


class _Transcriptions:
    """`POST /v1/audio/transcriptions`."""

    def __init__(self, recognizer: Recognizer, engine: Engine, settings: Settings, metrics: Metrics):
        self._recognizer, self._engine, self._settings, self._metrics = recognizer, engine, settings, metrics

    async def answer(
        self,
        file: UploadFile,
        model: Annotated[str, Form()],
        response_format: Annotated[str, Form()] = "json",
        language: Annotated[str | None, Form()] = None,
        prompt: Annotated[str | None, Form()] = None,
        temperature: Annotated[float, Form()] = 0.0,
        stream: Annotated[bool, Form()] = False,
        timestamp_granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    ) -> Response:
        """Transcribe an uploaded file. The words of `prompt` are hot words; `temperature` has no effect."""
        self.check_model(model)
        granularities = timestamp_granularities or ["segment"]
        _check("response_format", [response_format], RESPONSE_FORMATS)
        _check("timestamp_granularities[]", granularities, GRANULARITIES)
        waveform = await run_in_threadpool(self._load, await file.read())
        seconds = len(waveform) / self._recognizer.sampling_rate
        self._metrics.audio(seconds)
        words = re.findall(r"\w+", prompt or "")[:MAX_HOT_WORDS]
        if stream:
            if response_format not in ("json", "text"):
                raise HTTPException(400, f"`stream` goes with the formats json and text, not with {response_format}.")
            return StreamingResponse(await self._events(waveform, words), media_type="text/event-stream")
        result = await self._recognise(waveform, words)
        language = language or self._settings.language
        body, media_type = RESPONSE_FORMATS[response_format](Transcription(result, seconds, language, granularities))
        return Response(body, media_type=media_type)

    def check_model(self, name: str) -> None:
        """
        Check that a model name is that of this server.

        Raises:
            HTTPException: 404 for another model.
        """
        if name not in (self._settings.name, ALIAS):
            raise HTTPException(404, f"The model {name!r} is not here: ask for {self._settings.name!r}.")

    def _load(self, content: bytes) -> np.ndarray:
        try:
            rate = self._recognizer.sampling_rate
            samples = load_audio(content, rate, max_seconds=self._settings.max_seconds)
            return self._recognizer.load({"array": samples, "sampling_rate": rate})
        except AudioTooLongError as error:
            limit = f"{self._settings.max_seconds:g} seconds"
            raise HTTPException(413, f"The recording is longer than {limit}, the limit of this server.") from error
        except (OSError, ValueError) as error:
            reason = str(error).removeprefix("the given bytes: ")
            raise HTTPException(400, f"This file cannot be read as audio: {reason}") from error

    async def _recognise(self, waveform: np.ndarray, words: list[str]) -> RecognitionResult:
        try:
            return await asyncio.wrap_future(self._engine.submit(waveform, words))
        except Busy:
            raise HTTPException(503, "Too many recordings wait: come again.", {"Retry-After": "1"}) from None
        except (RuntimeError, OSError, ValueError, MemoryError) as error:
            raise HTTPException(500, f"Recognition failed: {type(error).__name__}.") from error

    async def _events(self, waveform: np.ndarray, words: list[str]) -> AsyncIterator[str]:
        """Yield the text of each segment as soon as it is recognised, then the whole text."""
        places = await run_in_threadpool(cut_at_pauses, waveform, self._recognizer.sampling_rate, True)
        first = await self._recognise(waveform[slice(*places[0])], words)  # here, an error still sets the status

        async def events() -> AsyncIterator[str]:
            text = ""
            for place in places:
                result = first if place == places[0] else await self._recognise(waveform[slice(*place)], words)
                delta = joint(text, result["transcript"]) + result["transcript"]
                text += delta
                if delta:
                    yield event("transcript.text.delta", delta=delta)
            yield event("transcript.text.done", text=text)

        return events()


def _knows_key(header: str | None, key: str | None) -> bool:
    return key is None or secrets.compare_digest((header or "").encode(), f"Bearer {key}".encode())


def _check(name: str, values: list[str], allowed: Any) -> None:
    for value in values:
        if value not in allowed:
            raise HTTPException(400, f"`{name}` is {value!r}: use {', '.join(allowed)}.")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "citrinet"}


def _error(status: int, message: str, headers: Any = None, param: str | None = None) -> JSONResponse:
    kind = _KINDS.get(status, "invalid_request_error")
    content = {"error": {"message": message, "type": kind, "param": param, "code": None}}
    return JSONResponse(content, status, headers)


__all__ = ["create_app"]
