"""The figures of each experiment, one JSON file per claim, committed beside this module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims.claim import Claim, Figures

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """Figures of one experiment and the random seeds they come from."""

    seeds: tuple[int, ...]
    figures: Figures


def read_result(claim: Claim, folder: Path = FOLDER) -> Result | None:
    """The kept result of a claim; None where there is none. Raises ValueError for a file of another claim."""
    path = folder / f"{claim.id}.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["claim"] != claim.id:
        raise ValueError(f"{path}: expected the result of {claim.id}, got that of {kept['claim']}")
    return Result(tuple(kept["seeds"]), kept["figures"])


def write_result(claim: Claim, seeds: Sequence[int], figures: Figures, folder: Path = FOLDER) -> Path:
    """Keep a result; floats with six significant digits. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{claim.id}.json"
    kept = {"claim": claim.id, "seeds": list(seeds), "figures": _rounded(figures)}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return path


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
