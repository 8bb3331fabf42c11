"""Short versions of benchmarks/kill.py: subcommands killed at some of their calls end, repeated, as if undisturbed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import kill

pytestmark = [
    pytest.mark.skipif(not hasattr(kill.os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork in a process with threads
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    kill.make_inputs(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "points", "moments"),
    [
        ("synth", 2, 1),
        ("convert", 3, 1),
        ("coco", 3, 1),
        ("detect", 2, 0),
        ("train", 1, 0),
    ],
)
def test_a_killed_command_ends_as_if_undisturbed(
    inputs: Path, tmp_path: Path, name: str, points: int, moments: int
) -> None:
    """A sample of a few kills each: a kill costs two runs, and a training takes half a minute."""
    tally = kill.examine(name, inputs, tmp_path, moments=moments, points=points, rng=random.Random(name))
    assert sum(tally.kills.values()) >= points + moments
    assert tally.faults == []


def test_what_the_benchmark_looks_for_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is not atomic, and one that skips what is there, half or whole."""

    def command(arguments: list[str]) -> int:
        path = Path(arguments[1]) / "a.txt"
        if not path.exists():
            path.write_text("whole" * 1000)
            path.rename(path)
        return 0

    monkeypatch.setattr(kill, "main", command)
    command_line = kill.Subcommand(lambda _, out: ["write", str(out)])
    monkeypatch.setitem(kill.SUBCOMMANDS, "write", command_line)
    tally = kill.examine("write", tmp_path, tmp_path / "write", 0, None, random.Random(0))
    assert tally.calls == 2 and tally.kills == {"call": 2, "bytes": 1}
    assert len(tally.faults) == 1 and "half a file after the kill: a.txt" in tally.faults[0]
    assert "differs: a.txt" in tally.faults[0]
