"""The short form of benchmarks/fuzz.py: some mutated inputs of every kind of file, and what longer runs have found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SLOW = (
    "checkpoint-config",
    "checkpoint-weights",
    "textured",
    "textured-config",
    "shape-space",
    "shape-space-config",
)


def test_mutated_files_raise_only_our_own_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz
    from fuzz_targets import targets

    found = []
    known = targets(tmp_path / "seeds")
    assert len(known) > 40 and len({t.name for t in known}) == len(known)
    for target in known:
        folder = tmp_path / target.name
        folder.mkdir()
        for number, content in fuzz.inputs(target, 1, 0, 1 if target.name in SLOW else 6):
            finding = fuzz.read(target, content, folder, number)
            found += [finding] if finding else []
    assert not found
    for name in ("fuzz", "fuzz_targets", "malformed"):
        sys.modules.pop(name, None)


def test_sound_files_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fuzzer whose sound files are refused at their first line tries nothing behind it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from fuzz_targets import targets

    for target in targets(tmp_path / "seeds"):
        if target.name in SLOW:
            continue
        folder = tmp_path / target.name
        folder.mkdir()
        accepted = 0
        for seed in target.seeds:
            try:
                target.read(target.write(folder, seed))
                accepted += 1
            except (ValueError, *target.allowed) as error:
                last = error
        assert accepted, (target.name, last)
    for name in ("fuzz_targets", "malformed"):
        sys.modules.pop(name, None)
