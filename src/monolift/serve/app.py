"""The routes. Everything a client can get wrong is answered 4xx as ``{"error": {"field": ..., "message": ...}}``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from monolift import __version__
from monolift.files.json_text import format_json
from monolift.inference.model import Model
from monolift.inference.results import Results3D
from monolift.serve.batching import Batcher, QueueFullError
from monolift.serve.describe import DESCRIPTION, DETECT
from monolift.serve.metrics import Metrics
from monolift.serve.request import FORMATS, Limits, Order, RefusedError, read_order
from monolift.viewer import result_html

PAGE = Path(__file__).with_name("page.html")
MOST_FIELDS = 16  # of a form
IMAGE_TYPES = ("image/", "application/octet-stream")
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def create_app(
    model: Model, limits: Limits | None = None, largest_batch: int = 4, wait_s: float = 0.005, depth: int = 64
) -> FastAPI:
    """The service round one model. depth: images that may wait; more are answered 503."""
    limits = limits or Limits()
    metrics = Metrics()
    batcher = Batcher(model, largest_batch, wait_s, depth, metrics.on_batch)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(batcher.close)

    app = FastAPI(
        title="monolift", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url="/docs"
    )
    app.state.batcher, app.state.metrics = batcher, metrics

    @app.post("/v1/detect", **DETECT)
    async def detect(request: Request) -> Response:
        start = time.perf_counter()
        kind = "unknown"
        try:
            order = await _order(request, model, limits)
            kind = order.format
            left = limits.seconds - (time.perf_counter() - start)
            result, response = await asyncio.wait_for(_served(batcher, order), max(left, 0.001))
        except RefusedError as error:
            response = _problem(error.status, error.field, error.message)
        except QueueFullError as error:
            response = _problem(503, "", str(error), {"Retry-After": "1"})
        except asyncio.TimeoutError:
            response = _problem(504, "", f"no answer within {limits.seconds:g} s")
        except ClientDisconnect:
            response = _problem(400, "body", "the client went away")
        else:
            _count(metrics, result)
        metrics.requests.labels(str(response.status_code), kind).inc()
        metrics.seconds.observe(time.perf_counter() - start)
        metrics.waiting.set(batcher.waiting)
        return response

    _add_plain_routes(app, model, batcher, metrics)
    return app


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


async def _order(request: Request, model: Model, limits: Limits) -> Order:
    """The request, read within its limits. Raises RefusedError."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind and kind != "multipart/form-data" and not kind.startswith(IMAGE_TYPES):
        raise RefusedError(
            415, "content-type", f"expected multipart/form-data or image/..., got {kind[:60]!r}"
        )
    body = await _body(request, limits)
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


async def _body(request: Request, limits: Limits) -> bytes:
    """All of the body, but never more than the limit, whatever its header claims."""

    async def read() -> bytes:
        parts, total = [], 0
        async for part in request.stream():
            total += len(part)
            if total > limits.bytes:
                raise RefusedError(413, "body", f"expected at most {limits.bytes:,} bytes")
            parts.append(part)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(read(), limits.seconds)
    except asyncio.TimeoutError:
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


async def _served(batcher: Batcher, order: Order) -> tuple[Results3D, Response]:
    found = await asyncio.wrap_future(batcher.submit(order.shot, order.score))
    result = found.filter(classes=order.classes)
    return result, await run_in_threadpool(_answer, result, order.format)


def _answer(result: Results3D, kind: str) -> Response:
    media = FORMATS[kind]
    if kind == "json":
        return Response(format_json(result.to_dict()), media_type=media, headers=HEADERS)
    if kind == "kitti":
        return Response(result.to_kitti(), media_type=media, headers=HEADERS)
    if kind == "html":
        return Response(result_html(result), media_type=media, headers=HEADERS)
    from io import BytesIO

    data = BytesIO()
    result.plot().save(data, "PNG", compress_level=1)
    return Response(data.getvalue(), media_type=media, headers=HEADERS)


def _problem(status: int, field: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content = {"error": {"field": field, "message": message}}
    return JSONResponse(content, status, headers={**HEADERS, **(headers or {})})


def _count(metrics: Metrics, result: Results3D) -> None:
    for name in result.classes:
        metrics.objects.labels(name).inc()
    for stage, seconds in result.timings.items():
        metrics.stage_seconds.labels(stage).inc(seconds)
