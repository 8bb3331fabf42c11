"""The ledger has a row for every sentence, and what its rows name is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEDGER = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
ROWS = {"A": 22, "B": 20, "C": 26, "D": 75, "E": 60}
"""Sentences of each document; D has a row 10b too."""


def test_every_sentence_has_one_row() -> None:
    found = re.findall(r"^\| ([A-E]\d+b?) \|", LEDGER, re.MULTILINE)
    expected = {f"{letter}{k}" for letter, count in ROWS.items() for k in range(1, count + 1)} | {"D10b"}
    assert set(found) == expected and len(found) == len(expected) == 204


def test_the_summary_counts_the_rows() -> None:
    kinds = ("implemented and tried", "implemented", "partly", "deviates, admitted", "missing", "context")
    verdicts = re.findall(r"^\| [A-E]\d+b? \| [^|]* \| ([^|]*) \|", LEDGER, re.MULTILINE)
    found = [next(kind for kind in kinds if verdict.startswith(kind)) for verdict in verdicts]
    (summary,) = re.findall(r"^\| all \| (.*) \|$", LEDGER, re.MULTILINE)
    assert [int(n) for n in summary.split(" | ")] == [len(found), *(found.count(kind) for kind in kinds)]


def test_tests_and_files_that_the_rows_name_are_there() -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", text))
    named = set(re.findall(r"`(test_\w+)`", LEDGER))
    assert named and not named - there
    files = set(re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)", LEDGER))
    assert files and all((ROOT / file).is_file() for file in files)


def test_claims_that_the_rows_name_are_on_their_page() -> None:
    """Which `tests/benchmarks/test_claims.py` keeps equal to the catalogue."""
    known = set(
        re.findall(r"^### ([\w-]+)$", (ROOT / "docs" / "claims.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {
        n for row in re.findall(r"claims? (`[^|]*)", LEDGER) for n in re.findall(r"`([a-z0-9]+-[\w-]+)`", row)
    }
    assert named and not named - known
    for path in (ROOT / "benchmarks" / "claims" / "results").glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["claim"] in known
