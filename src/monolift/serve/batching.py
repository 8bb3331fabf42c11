"""Micro-batching: one worker thread owns the model; what waits together goes through the network together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from monolift.inference.model import Model
from monolift.inference.results import Results3D
from monolift.inference.shots import Failed, Shot


class QueueFullError(RuntimeError):
    """More images wait than the service accepts."""


@dataclass
class _Job:
    shot: Shot
    score: float | None
    future: Future[Results3D] = field(default_factory=Future)
    born: float = field(default_factory=time.perf_counter)


class Batcher:
    """Runs a model on images from many threads.

    largest: images in one batch; wait_s: how long the first image of a batch waits for company; depth: images that may
    wait. on_batch: called with the number of images and the seconds the oldest one waited.
    """

    def __init__(
        self,
        model: Model,
        largest: int = 4,
        wait_s: float = 0.005,
        depth: int = 64,
        on_batch: Callable[[int, float], None] = lambda n, s: None,
    ) -> None:
        self._model, self._largest, self._wait_s, self._on_batch = model, largest, wait_s, on_batch
        self._queue: queue.Queue[_Job | None] = queue.Queue(depth)
        self._thread = threading.Thread(target=self._work, name="monolift-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, shot: Shot, score: float | None) -> Future[Results3D]:
        """The result to come; cancelling it before its turn spares the work. Raises QueueFullError."""
        job = _Job(shot, score)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise QueueFullError(f"{self._queue.maxsize} images are waiting already") from None
        return job.future

    def close(self) -> None:
        """Finishes what waits, then stops the worker."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            jobs, closing = self._company(job)
            jobs = [j for j in jobs if j.future.set_running_or_notify_cancel()]
            if jobs:
                self._on_batch(len(jobs), time.perf_counter() - jobs[0].born)
                self._run(jobs)
            if closing:
                return

    def _company(self, job: _Job) -> tuple[list[_Job], bool]:
        """The job and those that come within ``wait_s``; whether the end was among them."""
        jobs, until = [job], time.perf_counter() + self._wait_s
        while len(jobs) < self._largest:
            try:
                other = self._queue.get(timeout=max(0.0, until - time.perf_counter()))
            except queue.Empty:
                break
            if other is None:
                return jobs, True
            jobs.append(other)
        return jobs, False

    def _run(self, jobs: list[_Job]) -> None:
        for score in dict.fromkeys(j.score for j in jobs):
            group = [j for j in jobs if j.score == score]
            # one bad image must end neither the service nor its neighbours: its caller gets the error
            for j, outcome in zip(
                group, self._model.detect_each([j.shot for j in group], score), strict=True
            ):
                if isinstance(outcome, Failed):
                    j.future.set_exception(outcome.error)
                else:
                    j.future.set_result(outcome)
