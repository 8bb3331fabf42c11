"""Short versions of benchmarks/kill.py: subcommands killed at some of their calls end, repeated, as if undisturbed.

kill.py forks, and a process must not fork once threads of OpenMP have run in it, as they have in pytest's: its children would
wait for ever. So each test starts an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"
NOT_ATOMIC = """
import random, sys
from pathlib import Path
import kill

def command(arguments):
    path = Path(arguments[1]) / "a.txt"
    if not path.exists():
        path.write_text("whole" * 1000)
        path.rename(path)
    return 0

kill.main = command
kill.SUBCOMMANDS["write"] = kill.Subcommand(lambda _, out: ["write", str(out)])
folder = Path(sys.argv[1])
tally = kill.examine("write", folder, folder / "write", 0, None, random.Random(0))
assert tally.calls == 2 and tally.kills == {"call": 2, "bytes": 1}, tally
assert len(tally.faults) == 1 and "half a file after the kill: a.txt" in tally.faults[0], tally.faults
assert "differs: a.txt" in tally.faults[0], tally.faults
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def python(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", *arguments],
        cwd=KILL.parent, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "points", "moments"),
    [(("synth", "convert", "coco"), 2, 1), (("detect",), 1, 0)],
)
def test_a_killed_command_ends_as_if_undisturbed(
    tmp_path: Path, names: tuple[str, ...], points: int, moments: int
) -> None:
    """A sample of a few kills each: a kill costs two runs."""
    figures = tmp_path / "kill.json"
    options = ("--points", str(points), "--moments", str(moments), "--json", str(figures))
    ended = python(str(KILL), *names, *options, seconds=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name, tally in json.loads(figures.read_text()).items():
        assert sum(tally["kills"].values()) + tally["ended_before"] >= points + moments, name
        assert sum(tally["kills"].values()) >= points and tally["faults"] == [], name


@pytest.mark.slow
def test_what_the_benchmark_looks_for_it_finds(tmp_path: Path) -> None:
    """A writer that is not atomic, and one that skips what is there, half or whole."""
    ended = python("-c", NOT_ATOMIC, str(tmp_path), seconds=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr


HANGS = """
import sys, threading, time
from pathlib import Path
import kill

log = Path(sys.argv[1])
assert kill.forked(lambda: 3, log, limit=60) == 3
assert kill.forked(lambda: time.sleep(600) or 0, log, limit=0.2) == kill.NO_END
assert "no end after 0.2 s" in log.read_text()
stopped = threading.Event()
threading.Thread(target=stopped.wait).start()
try:
    kill.forked(lambda: 0, log)
except SystemExit as error:
    assert "2 threads run in this process" in str(error)
else:
    raise AssertionError("it forked")
finally:
    stopped.set()
"""


@pytest.mark.slow
def test_a_run_that_hangs_is_ended_and_threads_are_refused(tmp_path: Path) -> None:
    ended = python("-c", HANGS, str(tmp_path / "log"), seconds=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ended = python(str(KILL), "unknown", seconds=300)
    assert ended.returncode == 2 and "expected synth, augment" in ended.stderr


@pytest.mark.slow
def test_inputs_and_outputs_may_vanish() -> None:
    ended = python(
        str(KILL.with_name("vanished.py")), "coco", "--points", "1", "--kinds", "input", "output", seconds=600
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "taken: 1 input, 1 output; 0 faults" in ended.stdout
