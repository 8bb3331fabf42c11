"""The service under load: clients that send images without a pause for a while; errors, latencies, memory.

python benchmarks/serve_load.py --clients 32 --seconds 120 [--model smoke]

Starts ``monolift serve`` itself on a free port. Memory is the server's resident set, sampled every second: its median in the
first quarter of the run (after a warm-up) against that in the last.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from monolift.inference.zoo import EXAMPLE

WARM_UP = 10.0  # seconds that do not count


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def client(host: str, port: int, image: bytes, until: float, seen: list[tuple[float, float, int]]) -> None:
    path = "/v1/detect?camera=721.5377,721.5377,609.5593,172.854"
    connection = http.client.HTTPConnection(host, port, timeout=120)
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            connection.request("POST", path, image, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except OSError:
            status = 0
            connection.close()
            connection = http.client.HTTPConnection(host, port, timeout=120)
        seen.append((start, time.monotonic() - start, status))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", default="smoke")
    options = parser.parse_args()
    command = [sys.executable, "-m", "monolift", "serve", "--port", "0", "--model", options.model]
    server = subprocess.Popen(
        [*command, "--quiet", "--max-seconds", "120"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    match = re.search(r"http://([\d.]+):(\d+)", server.stderr.readline())
    assert match is not None
    image = (EXAMPLE / "example.jpg").read_bytes()
    seen: list[tuple[float, float, int]] = []
    memory: list[tuple[float, float]] = []
    began = time.monotonic() + WARM_UP
    until = began + options.seconds
    clients = [
        threading.Thread(target=client, args=(match[1], int(match[2]), image, until, seen))
        for _ in range(options.clients)
    ]
    for thread in clients:
        thread.start()
    while time.monotonic() < until:
        memory.append((time.monotonic(), resident_mb(server.pid)))
        time.sleep(1)
    for thread in clients:
        thread.join()
    server.terminate()
    server.wait(30)
    counted = [(seconds, status) for start, seconds, status in seen if start >= began]
    quarter = options.seconds / 4
    early = statistics.median(mb for t, mb in memory if began <= t < began + quarter)
    late = statistics.median(mb for t, mb in memory if t >= until - quarter)
    latency = sorted(seconds for seconds, _ in counted)
    print(
        f"{options.clients} clients, {options.seconds:g} s: {len(counted)} answers, {len(counted) / options.seconds:.2f}/s"
    )
    print(f"status: {dict(collections.Counter(status for _, status in counted))}")
    print(f"latency s: median {latency[len(latency) // 2]:.2f}, 95 % {latency[int(0.95 * len(latency))]:.2f}")
    print(f"memory MB: {early:.0f} in the first quarter, {late:.0f} in the last ({late / early - 1:+.1%})")


if __name__ == "__main__":
    main()
