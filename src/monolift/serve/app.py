"""The routes. Everything a client can get wrong is answered 4xx as ``{"error": {"field": ..., "message": ...}}``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from monolift import __version__
from monolift.errors import InputError
from monolift.inference.model import Model
from monolift.serve.batching import Batcher, QueueFullError
from monolift.serve.describe import DESCRIPTION, DETECT
from monolift.serve.guard import HEADERS, Guard, Hosts
from monolift.serve.metrics import Metrics
from monolift.serve.request import FORMATS, OPTIONS, Limits, Order, RefusedError, read_order
from monolift.serve.room import Room
from monolift.serve.work import Answer, BusyError, Works

PAGE = Path(__file__).with_name("page.html")
MOST_FIELDS = 16  # of a form
IMAGE_TYPES = ("image/", "application/octet-stream")
RETRY = {"Retry-After": "1"}
STILL_COMING = 3.0  # seconds since the last part of a body
PIECE = 1 << 18  # bytes of an answer that are handed over at once


def create_app(
    model: Model,
    limits: Limits | None = None,
    largest_batch: int = 4,
    wait_s: float = 0.005,
    depth: int = 64,
    hosts: Hosts | None = None,
    token: str | None = None,
) -> FastAPI:
    """The service round one model.

    depth: images that may wait; more are answered 503. hosts: the names by which it may be called, None for every name (a
    caller that embeds it checks them); token: what Authorization: Bearer has to hold, None for no authentication.
    """
    if token is not None and not token.strip():
        raise InputError("token: expected text, got nothing")
    limits = limits or Limits()
    metrics = Metrics()
    batcher = Batcher(model, largest_batch, wait_s, depth + largest_batch, metrics.on_batch)
    works = Works(model, batcher, limits, depth + largest_batch)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(batcher.close)
        works.close()

    app = FastAPI(
        title="monolift", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url="/docs"
    )
    app.state.batcher, app.state.metrics, app.state.works = batcher, metrics, works
    app.add_middleware(Guard, hosts=hosts, token=token, on_refused=metrics.refuse)

    @app.post("/v1/detect", **DETECT)
    async def detect(request: Request) -> Response:
        start = time.perf_counter()
        response, kind, reason = await _detected(request, model, works, limits, start)
        if reason:
            metrics.refuse(reason)
        elif isinstance(response, Sent):
            metrics.count(response.answer)
        metrics.requests.labels(str(response.status_code), kind).inc()
        metrics.seconds.observe(time.perf_counter() - start)
        metrics.waiting.set(works.orders)
        return response

    _add_plain_routes(app, model, batcher, metrics)
    return app


async def _detected(
    request: Request, model: Model, works: Works, limits: Limits, start: float
) -> tuple[Response, str, str]:
    """The response, the format that was asked for, and why it was refused ("" where it was not)."""
    kind = "unknown"
    body = Held(works.bytes)
    try:
        order = await _order(request, model, limits, body)
        kind = order.format
        answer = await works.answer(order, limits.seconds - (time.perf_counter() - start))
        body.release()
        return Sent(answer, FORMATS[kind], works.bytes), kind, ""
    except RefusedError as error:
        return _problem(error.status, error.field, error.message), kind, _reason(error)
    except BusyError as error:
        return _problem(503, "", str(error), RETRY), kind, error.reason
    except QueueFullError as error:
        return _problem(503, "", str(error), RETRY), kind, "queue"
    except asyncio.TimeoutError:
        return _problem(504, "", f"no answer within {limits.seconds:g} s"), kind, "time"
    except ClientDisconnect:
        return _problem(400, "body", "the client went away"), kind, "gone"
    except Exception:  # a fault of ours, or a network that fails: the client learns no more than that
        logging.getLogger("uvicorn.error").exception("an image could not be served")
        return _problem(500, "", "the service failed on this image"), kind, "fault"
    finally:
        body.release()


def _reason(error: RefusedError) -> str:
    """A refusal's label for the metrics: one of few, whatever the client sent."""
    if error.status == 413:
        return "bytes" if error.field == "body" else "pixels"
    if error.status == 422:
        return error.field if error.field in (*OPTIONS, "image", "query") else "option"
    return {400: "body", 408: "body_time", 415: "type"}.get(error.status, "other")


class Held:
    """Bytes of one request, taken from the room as they come."""

    def __init__(self, room: Room) -> None:
        self._room, self._amount = room, 0

    def add(self, amount: int) -> None:
        """Raises BusyError where there is no room."""
        if not self._room.take(amount):
            raise BusyError("memory", "the service holds as much as it may: retry later")
        self._amount += amount

    def release(self) -> None:
        self._room.free(self._amount)
        self._amount = 0


class Sent(Response):
    """An answer that is sent in pieces, as fast as the client reads; it counts as held until it is gone."""

    def __init__(self, answer: Answer, media_type: str, room: Room) -> None:
        self._held = Held(room)
        self._held.add(len(answer.content))
        self.answer = answer
        super().__init__(answer.content, media_type=media_type, headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            body = memoryview(self.body)
            for first in range(0, max(len(body), 1), PIECE):
                piece = bytes(body[first : first + PIECE])
                await send(
                    {"type": "http.response.body", "body": piece, "more_body": first + PIECE < len(body)}
                )
        finally:
            self._held.release()


def _add_plain_routes(app: FastAPI, model: Model, batcher: Batcher, metrics: Metrics) -> None:
    """The page, the model's card, health and metrics, and how other errors are answered."""

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=HEADERS)

    @app.get("/v1/model", summary="The model: method, classes, card")
    async def about() -> dict[str, Any]:
        return {
            "name": model.name,
            "method": model.detector.method,
            "classes": list(model.classes),
            "score": model.score,
            "card": model.card,
            "monolift": __version__,
        }

    @app.get("/health/live", summary="The process answers", response_class=PlainTextResponse)
    async def live() -> str:
        return "ok"

    @app.get(
        "/health/ready",
        summary="Images are being served",
        response_class=PlainTextResponse,
        responses={503: {"description": "The worker has stopped"}},
    )
    async def ready() -> Response:
        if batcher.alive:
            return PlainTextResponse("ready")
        return PlainTextResponse("the worker has stopped", status_code=503)

    @app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, "", str(error.detail), dict(error.headers or {}))


async def _order(request: Request, model: Model, limits: Limits, held: Held) -> Order:
    """The request, read within its limits. Raises RefusedError, and BusyError where there is no room for its bytes."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind and kind != "multipart/form-data" and not kind.startswith(IMAGE_TYPES):
        raise RefusedError(
            415, "content-type", f"expected multipart/form-data or image/..., got {kind[:60]!r}"
        )
    body = await _body(request, limits, held, copies=2 if kind == "multipart/form-data" else 1)
    options = dict(request.query_params)
    if len(options) < len(request.query_params.multi_items()):
        raise RefusedError(422, "query", "an option is given twice")
    if kind == "multipart/form-data":
        body, fields = await _form(request, body, limits)
        twice = set(options) & set(fields)
        if twice:
            raise RefusedError(422, twice.pop(), "given in the query and in the form")
        options |= fields
    work: Callable[[], Order] = partial(read_order, body, options, model.classes, limits)
    return await run_in_threadpool(work)


async def _body(request: Request, limits: Limits, held: Held, copies: int) -> bytes:
    """All of the body, but never more than the limit, whatever its header claims. copies: how often it will be in memory."""

    latest = time.monotonic()
    stated = request.headers.get("content-length", "")
    reserved = int(stated) if re.fullmatch("[0-9]{1,18}", stated) else 0
    if reserved > limits.bytes:
        raise RefusedError(413, "body", f"expected at most {limits.bytes:,} bytes")
    held.add(copies * reserved)  # at once: many bodies that are let in by halves would all be refused

    async def read() -> bytes:
        nonlocal latest
        parts, total = [], 0
        async for part in request.stream():
            latest = time.monotonic()
            total += len(part)
            if total > limits.bytes:
                raise RefusedError(413, "body", f"expected at most {limits.bytes:,} bytes")
            held.add(copies * max(0, min(len(part), total - reserved)))
            parts.append(part)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(read(), limits.seconds)
    except asyncio.TimeoutError:
        if time.monotonic() - latest < min(
            STILL_COMING, limits.seconds / 2
        ):  # more come than can be read at once
            raise BusyError("body_time", f"the body was still coming after {limits.seconds:g} s") from None
        raise RefusedError(408, "body", f"not complete after {limits.seconds:g} s") from None


async def _form(request: Request, body: bytes, limits: Limits) -> tuple[bytes, dict[str, str]]:
    """The image and the other fields of a multipart form. Calibrations may be files too."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, receive).form(
            max_files=2, max_fields=MOST_FIELDS, max_part_size=limits.bytes
        )
    except (MultiPartException, HTTPException, KeyError, ValueError, UnicodeError) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
        raise RefusedError(400, "body", f"not a readable form ({str(reason)[:120]})") from None
    try:
        return await _fields(form)
    finally:
        await form.close()


async def _fields(form: FormData) -> tuple[bytes, dict[str, str]]:
    fields: dict[str, str] = {}
    image: bytes | None = None
    for name, value in form.multi_items():
        if name in fields or (name == "image" and image is not None):
            raise RefusedError(422, name[:100], "given twice")
        if isinstance(value, str):
            if name == "image":
                raise RefusedError(422, "image", "expected a file, got text")
            fields[name] = value
            continue
        content = await value.read()
        if name == "image":
            image = content
            if value.filename and "name" not in fields:
                fields["name"] = value.filename
        elif name == "calib":
            fields[name] = content.decode("utf-8", "replace")
        else:
            raise RefusedError(422, name[:100], "unexpected file: expected image, and calib if any")
    if image is None:
        raise RefusedError(422, "image", "missing: expected an image in the field image")
    return image, fields


def _problem(status: int, field: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content = {"error": {"field": field, "message": message}}
    return JSONResponse(content, status, headers={**HEADERS, **(headers or {})})
