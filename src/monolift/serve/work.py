"""From an order to its answer: what is decoded, found and drawn at one moment is bounded, and so is each order's time.

Orders wait as the bytes that came, not as pixels. An order is decoded when there is room for its pixels, and keeps that room
until its answer is written: memory is bounded by `Limits.held_bytes` and `Limits.held_pixels`, however many clients there are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from monolift.files.json_text import format_json
from monolift.inference.model import Model
from monolift.inference.results import Results3D
from monolift.serve.batching import Batcher
from monolift.serve.request import Limits, Order
from monolift.serve.room import Room
from monolift.viewer import result_html

THREADS = 2  # that decode and draw


class BusyError(Exception):
    """The service has no room or no time for this order now. reason: "queue" or "memory"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Answer:
    """What is sent, and what is counted."""

    content: bytes
    classes: tuple[str, ...]
    seconds: Mapping[str, float]


class _Job:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.begun = False  # decoded, or about to be
        self.abandoned = False  # nobody waits any more
        self.found: Future[Results3D] | None = None


class Works:
    """Decodes, detects and draws within the limits. depth: orders that may wait besides those of a batch."""

    def __init__(self, model: Model, batcher: Batcher, limits: Limits, most_orders: int) -> None:
        self._batcher, self._limits, self._most = batcher, limits, most_orders
        self._threads = ThreadPoolExecutor(THREADS, "monolift-image")
        self._pixels = Room(max(limits.held_pixels, limits.pixels))
        self.bytes = Room(max(limits.held_bytes, 2 * limits.bytes))  # a form is in memory twice
        self.orders = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, order: Order, seconds: float) -> Answer:
        """The order's answer within ``seconds``.

        Raises BusyError when too many wait or its turn does not come, RefusedError for an image that cannot be used,
        asyncio.TimeoutError when it takes too long.
        """
        if self.orders >= self._most:
            raise BusyError("queue", f"{self.orders} images are waiting already")
        job = _Job(order)
        self.orders += 1
        task = asyncio.ensure_future(self._done(job))
        task.add_done_callback(_looked_at)
        try:
            # not cancelled with its caller: a thread that decodes cannot be stopped, and its memory is still taken
            return await asyncio.wait_for(asyncio.shield(task), max(seconds, 0.001))
        except asyncio.TimeoutError:
            if job.begun and (job.found is None or not job.found.cancel()):
                raise
            raise BusyError("queue", "the turn of this image did not come in time") from None
        finally:
            job.abandoned = True
            if not job.begun:
                task.cancel()
            elif job.found is not None:
                job.found.cancel()

    async def _done(self, job: _Job) -> Answer:
        try:
            pixels = job.order.pixels
            try:  # half of the time at most: the other half is for the work
                await asyncio.wait_for(self._pixels.wait(pixels), self._limits.seconds / 2)
            except asyncio.TimeoutError:
                raise BusyError("queue", "the turn of this image did not come in time") from None
            try:
                job.begun = True
                return await self._worked(job)
            finally:
                self._pixels.free(pixels)
        finally:
            self.orders -= 1

    async def _worked(self, job: _Job) -> Answer:
        loop, order = asyncio.get_running_loop(), job.order
        shot = await loop.run_in_executor(self._threads, order.shot)
        order.forget()
        if job.abandoned:
            raise asyncio.CancelledError
        job.found = self._batcher.submit(shot, order.score)
        del shot
        result = await asyncio.wrap_future(job.found)
        if job.abandoned:
            raise asyncio.CancelledError
        return await loop.run_in_executor(self._threads, written, result, order)


def written(result: Results3D, order: Order) -> Answer:
    """The result in the order's format."""
    result = result.filter(classes=order.classes)
    if order.format == "json":
        content = format_json(result.to_dict()).encode()
    elif order.format == "kitti":
        content = result.to_kitti().encode()
    elif order.format == "html":
        content = result_html(result).encode()
    else:
        data = BytesIO()
        result.plot().save(data, "PNG", compress_level=1)
        content = data.getvalue()
    return Answer(content, result.classes, dict(result.timings))


def _looked_at(task: asyncio.Future[Answer]) -> None:
    """An order that nobody waits for may fail without a word."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
