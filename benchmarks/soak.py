"""Memory and file descriptors over many detections and over hours of the service under mixed load.

python benchmarks/soak.py detect --count 10000 [--model smoke] [--json soak.json] [--plot soak.png]
python benchmarks/soak.py serve --minutes 120 --clients 8

detect: one process detects on small images again and again. serve: ``monolift serve`` gets sound images of several sizes and
formats, malformed requests, half-sent heads and clients that leave early. Memory and descriptors are sampled throughout; the
last lines compare the medians of the run's second and last quarters. Linux (reads /proc).
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import random
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """One sample. at: detections done, or minutes of the service."""

    at: float
    resident_mb: float
    descriptors: int


def sample(pid: int, at: float) -> Point:
    text = Path(f"/proc/{pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]
    return Point(at, round(resident, 1), len(list(Path(f"/proc/{pid}/fd").iterdir())))


def detections(count: int, model: str, samples: int = 50) -> list[Point]:
    """``count`` detections in this process."""
    import numpy as np

    from monolift.inference.model import load

    loaded = load(model, "cpu")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (96, width, 3), dtype=np.uint8) for width in (128, 160, 320)]
    points = []
    for number in range(count):
        image = images[number % len(images)]
        loaded.detect(image, (150, 150, image.shape[1] / 2, 48))
        if (number + 1) % max(1, count // samples) == 0:
            points.append(sample(os.getpid(), number + 1))
    return points


def service(
    minutes: float,
    clients: int,
    model: str,
    pause: float,
    on_point: Callable[[list[Point], dict[str, int]], None],
) -> tuple[list[Point], dict[str, int]]:
    """The service under mixed load; its points, and the answers by status. pause: seconds between a client's requests."""
    from load import Server, image
    from malformed import requests

    server = Server("--model", model, "--head-seconds", "5")
    sound = [image(size, kind) for size in (0.1, 0.5, 2) for kind in ("noise", "flat")]
    broken = requests(0, 500)
    until = time.monotonic() + 60 * minutes
    said: collections.Counter[str] = collections.Counter()
    threads = [
        threading.Thread(target=_client, args=(server, sound, broken, until, said, number, pause))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    points = []
    began = time.monotonic()
    while time.monotonic() < until:
        points.append(sample(server.process.pid, round((time.monotonic() - began) / 60, 2)))
        on_point(points, dict(said))
        time.sleep(max(1.0, 60 * minutes / 100))
    for thread in threads:
        thread.join()
    server.stop()
    return points, dict(said)


def _client(server, sound, broken, until, said, seed, pause) -> None:  # type: ignore[no-untyped-def]
    from load import ask
    from malformed import send

    rng = random.Random(seed)
    while time.monotonic() < until:
        time.sleep(rng.uniform(0, 2) * pause)
        try:
            match rng.randrange(10):
                case 0 | 1:
                    said[f"malformed {send(server.host, server.port, rng.choice(broken))}"] += 1
                case 2:  # leaves in the middle of a head, or of a body
                    with socket.create_connection((server.host, server.port), 10) as connection:
                        connection.sendall(rng.choice(broken).content[: rng.randrange(1, 400)])
                    said["left"] += 1
                case _:
                    kind = rng.choice(("json", "json", "kitti", "png", "html"))
                    body = rng.choice(sound)
                    media = "image/png" if body[:4] == b"\x89PNG" else "image/jpeg"
                    said[str(ask(server, f"/v1/detect?fov=81&format={kind}", body, media)[0])] += 1
        except OSError:
            said["refused"] += 1


def plot(points: list[Point], title: str, path: Path) -> None:
    """Resident memory over the run, from 0, with descriptors below."""
    from PIL import Image, ImageDraw

    width, height, left = 720, 240, 60
    drawing = Image.new("RGB", (width, 2 * height), "white")
    pen = ImageDraw.Draw(drawing)
    for row, (name, values) in enumerate(
        (
            ("resident MB", [p.resident_mb for p in points]),
            ("descriptors", [float(p.descriptors) for p in points]),
        )
    ):
        top, bottom = row * height + 30, (row + 1) * height - 30
        most = max(values) * 1.1
        span = max(points[-1].at, 1e-9)
        line = [
            (left + (width - left - 20) * p.at / span, bottom - (bottom - top) * v / most)
            for p, v in zip(points, values, strict=True)
        ]
        pen.line([(left, top), (left, bottom), (width - 20, bottom)], fill="black")
        pen.line(line, fill=(40, 80, 200), width=2)
        pen.text((left, top - 20), f"{title}: {name}, {min(values):g} to {max(values):g}", fill="black")
        pen.text((8, bottom - 6), "0", fill="black")
        pen.text((8, top), f"{most:.0f}", fill="black")
        pen.text((width - 90, bottom + 8), f"{points[-1].at:g}", fill="black")
    drawing.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["detect", "serve"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0, help="mean seconds between a client's requests")
    parser.add_argument("--model", default="smoke")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    start, said = time.monotonic(), {}

    def keep(title: str, points: list[Point], said: dict[str, int]) -> None:
        """What is measured so far is a file: a soak that is interrupted is not lost."""
        if options.json:
            seconds = round(time.monotonic() - start)
            content = {
                "what": title,
                "seconds": seconds,
                "answers": said,
                "points": [asdict(p) for p in points],
            }
            options.json.write_text(json.dumps(content, indent=1) + "\n")

    if options.what == "detect":
        points = detections(options.count, options.model)
        title = f"{options.count} detections"
    else:
        title = f"service, {options.clients} clients, {options.minutes:g} minutes"
        points, said = service(
            options.minutes, options.clients, options.model, options.pause, functools.partial(keep, title)
        )
    keep(title, points, said)
    if options.plot:
        plot(points, title, options.plot)
    quarter = max(1, len(points) // 4)
    early, late = points[quarter : 2 * quarter] or points, points[-quarter:]
    memory = [statistics.median(p.resident_mb for p in part) for part in (early, late)]
    files = [statistics.median(p.descriptors for p in part) for part in (early, late)]
    print(f"{title}, {time.monotonic() - start:.0f} s. {said or ''}")
    change = memory[1] / memory[0] - 1
    print(
        f"resident MB: median {memory[0]:.1f} in the second quarter, {memory[1]:.1f} in the last ({change:+.1%})"
    )
    print(f"descriptors: median {files[0]:g}, then {files[1]:g}; most {max(p.descriptors for p in points)}")


if __name__ == "__main__":
    main()
