"""The service under the worst load that its limits allow: many clients with the largest images at the same moment.

python benchmarks/load.py --clients 40 --megapixels 25 [--kind noise|flat] [--format json] [--form]
python benchmarks/load.py --heads 1200

The first starts ``monolift serve``, lets all clients send at once, and prints the answers by status, the times and
the peak of its resident memory. The second opens connections that send half of a request's head and wait, asks for /health/live
meanwhile, and prints how long they stayed open and how many descriptors the server had. Linux (reads /proc).
"""

from __future__ import annotations

import argparse
import collections
import http.client
import io
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

PATH = "/v1/detect?fov=81&format="


class Server:
    """``monolift serve`` on a free port, in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "monolift", "serve", "--port", "0", "--quiet", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://([\d.]+):(\d+)", line)
        if found is None:
            raise SystemExit(f"the service does not start: {line}{self.process.stderr.read()}")
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}"
        threading.Thread(target=self._drain, daemon=True).start()
        self.lines = 0

    def _drain(self) -> None:
        for _ in self.process.stderr:  # type: ignore[union-attr]
            self.lines += 1

    def _status(self, field: str) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def resident_mb(self) -> float:
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        return self._status("VmHWM")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def refused(self) -> dict[str, int]:
        """The service's own count, by reason."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return {
            k: round(float(v))
            for k, v in re.findall(r'monolift_refused_total\{reason="(\w+)"\} ([\d.]+)', text)
        }

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)


def image(megapixels: float, kind: str) -> bytes:
    """noise: a JPEG of about 0.5 bytes a pixel; flat: a PNG of few bytes."""
    side = int((megapixels * 1e6) ** 0.5)
    data = io.BytesIO()
    if kind == "flat":
        Image.new("RGB", (side, side), (90, 90, 90)).save(data, "PNG")
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data, "JPEG", quality=60)
    return data.getvalue()


def ask(server: Server, path: str, body: bytes, kind: str, timeout: float = 180) -> tuple[int, float]:
    """Status (0: no answer) and seconds."""
    start = time.monotonic()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.monotonic() - start
    except OSError:
        return 0, time.monotonic() - start
    finally:
        connection.close()


def flood(clients: int, megapixels: float, kind: str, format: str, form: bool) -> bool:
    """Whether every client was answered 200 or 503."""
    server = Server()
    body = image(megapixels, kind)
    media = "image/jpeg"
    size = len(body)
    if form:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        body, media = head + body + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    before = server.resident_mb()
    said: list[tuple[int, float]] = []
    threads = [
        threading.Thread(target=lambda: said.append(ask(server, PATH + format, body, media)))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after, sound = ask(server, PATH + "json", image(0.3, "noise"), "image/jpeg")
    statuses = collections.Counter(status for status, _ in said)
    seconds = sorted(s for _, s in said)
    sent = f"{kind}, {size / 1e6:.1f} MB{', as a form' if form else ''}"
    print(f"{clients} clients at once, {megapixels:g} megapixels ({sent}), format {format}")
    print(f"answers: {dict(statuses)}; a small image afterwards: {after} in {sound:.1f} s")
    print(f"seconds: median {seconds[len(seconds) // 2]:.1f}, longest {seconds[-1]:.1f}")
    print(
        f"resident MB: {before:.0f} before, {server.peak_mb():.0f} at most, {server.resident_mb():.0f} after"
    )
    print(f"refused: {server.refused()}")
    server.stop()
    return set(statuses) <= {200, 503} and after == 200


def heads(count: int, seconds: float) -> bool:
    """Whether health is answered while ``count`` half-sent heads are open, and all of them are closed in the end."""
    server = Server("--head-seconds", str(seconds))
    quiet = server.descriptors()
    sockets = []
    start = time.monotonic()
    for _ in range(count):
        try:
            one = socket.create_connection((server.host, server.port), 5)
            one.sendall(b"POST /v1/detect HTTP/1.1\r\nX: ")
            sockets.append(one)
        except OSError:
            pass  # refused at once
    most = server.descriptors()
    health = []
    while time.monotonic() - start < 3 * seconds + 5:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
        began = time.monotonic()
        try:
            connection.request("GET", "/health/live")
            health.append((connection.getresponse().status, time.monotonic() - began))
        except (OSError, http.client.HTTPException):
            health.append((0, time.monotonic() - began))
        connection.close()
        if server.descriptors() <= quiet + 1:
            break
        time.sleep(0.5)
    ended = time.monotonic() - start
    left = server.descriptors() - quiet
    statuses = collections.Counter(status for status, _ in health)
    print(
        f"{count} half-sent heads, limit {seconds:g} s: {most} descriptors at most, {left} left after {ended:.1f} s"
    )
    print(
        f"/health/live meanwhile: {dict(statuses)}; refused: {server.refused()}; lines logged: {server.lines}"
    )
    server.stop()
    for one in sockets:
        one.close()
    return left <= 1 and health[-1][0] == 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--megapixels", type=float, default=25)
    parser.add_argument("--kind", choices=["noise", "flat"], default="noise")
    parser.add_argument("--format", choices=["json", "kitti", "png", "html"], default="json")
    parser.add_argument("--form", action="store_true")
    parser.add_argument("--heads", type=int, default=0)
    parser.add_argument("--head-seconds", type=float, default=10)
    options = parser.parse_args()
    if options.heads:
        return 0 if heads(options.heads, options.head_seconds) else 1
    return 0 if flood(options.clients, options.megapixels, options.kind, options.format, options.form) else 1


if __name__ == "__main__":
    raise SystemExit(main())
