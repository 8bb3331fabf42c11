"""What Prometheus reads at /metrics; one registry per application, so that two can live in a process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from monolift.serve.work import Answer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "monolift_requests", "Requests to /v1/detect by status and format", ["status", "format"],
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "monolift_refused",
            "Requests and connections that were refused, by reason",
            ["reason"],
            registry=registry,
        )
        self.seconds = Histogram(
            "monolift_request_seconds",
            "From the first byte to the answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "monolift_queue_seconds", "Longest wait of a batch's images", buckets=SECONDS, registry=registry
        )
        self.batch = Histogram(
            "monolift_batch_images", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.stage_seconds = Counter(
            "monolift_stage_seconds", "Seconds spent by stage", ["stage"], registry=registry
        )
        self.objects = Counter("monolift_objects", "Objects found by class", ["class"], registry=registry)
        self.waiting = Gauge("monolift_waiting_images", "Images in the queue", registry=registry)

    def on_batch(self, images: int, seconds: float) -> None:
        self.batch.observe(images)
        self.wait_seconds.observe(seconds)

    def refuse(self, reason: str) -> None:
        self.refused.labels(reason).inc()

    def count(self, answer: Answer) -> None:
        for name in answer.classes:
            self.objects.labels(name).inc()
        for stage, seconds in answer.seconds.items():
            self.stage_seconds.labels(stage).inc(seconds)

    def text(self) -> bytes:
        return bytes(generate_latest(self.registry))
