"""The same command line once per device, as processes of this machine that find each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

PATIENCE = 10.0  # seconds for the others to end by themselves after one has failed


def run_on_several(devices: int, arguments: Sequence[str]) -> int:
    """Run ``monolift ARGUMENTS`` in ``devices`` processes; return the exit code of the first that fails, or 0.

    The first process speaks; what another one says is printed only if that one alone fails.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started: list[tuple[subprocess.Popen[bytes], IO[bytes] | None]] = []
    try:
        for rank in range(devices):
            said = tempfile.TemporaryFile() if rank else None  # noqa: SIM115 - read after the process has ended
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "monolift", *arguments]
            started.append((subprocess.Popen(command, env=environment, stderr=said), said))
        return _wait(started)
    finally:
        for process, log in started:
            process.kill()
            process.wait()
            if log is not None:
                log.close()


def _wait(started: Sequence[tuple[subprocess.Popen[bytes], IO[bytes] | None]]) -> int:
    """Exit code of the first process that fails; the others are given a moment to say why themselves."""
    processes = [process for process, _ in started]
    while all(process.poll() is None or process.returncode == 0 for process in processes):
        if all(process.returncode == 0 for process in processes):
            return 0
        time.sleep(0.1)
    failed = next(k for k, process in enumerate(processes) if process.returncode)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and processes[0].poll() is None:
        time.sleep(0.1)
    said = started[failed][1]
    if said is not None and not processes[0].returncode:
        said.seek(0)
        sys.stderr.write(said.read().decode("utf-8", "replace"))
    return abs(processes[failed].returncode) if processes[failed].returncode > 0 else 1
