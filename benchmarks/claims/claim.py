"""What a claim is, what its experiment finds, and how the finding is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["holds", "holds in part", "does not hold here", "needs full KITTI", "not run"]
VERDICTS: tuple[Verdict, ...] = (
    "holds",
    "holds in part",
    "does not hold here",
    "needs full KITTI",
    "not run",
)
Cost = Literal["cheap", "medium", "long"]
COSTS: tuple[Cost, ...] = ("cheap", "medium", "long")
"""cheap: within a minute of one core; medium: within twenty minutes; long: more."""
METHODS = ("smoke", "ss3d", "roi10d", "monodr")
Figures = dict[str, Any]
"""What an experiment measures: plain JSON, the same on every machine but for rounding. No dates, no paths, no times."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, as the page prints them."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """What the figures of an experiment say about its claim.

    verdict: one of `VERDICTS`; reason: one or two sentences with the figures that decide; table: all figures that matter.
    """

    verdict: Verdict
    reason: str
    table: Table | None = None


@dataclass(frozen=True)
class Workspace:
    """What an experiment may use.

    out:   folder for whatever is kept between runs (trained weights, fits); a run that was stopped resumes there
    seeds: random seeds that the experiment averages over, at least one
    kitti: a KITTI folder (training/image_2, label_2, calib), or None
    """

    out: Path
    seeds: tuple[int, ...] = (0, 1)
    kitti: Path | None = None


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper and the experiment that tries it.

    id:       METHOD-NAME, also the name of its result file
    method:   one of `METHODS`
    sentence: the claim in our words
    source:   paper, section or table
    setup:    the experiment: data, size, metric with split, R11 or R40 and IoU
    cost:     of the experiment, see `COSTS`
    judge:    figures -> verdict with reason
    run:      the experiment; returns None where the workspace lacks what it needs. None: it cannot run at this size at all, and
              the verdict is "needs full KITTI"
    full:     commands of the experiment at the paper's size (one GPU, full KITTI)
    script:   the command of an experiment that is a script of its own, whose figures are collected in the result file
    origin:   where the figures stand that were measured elsewhere and copied into the result file; the page names it
    """

    id: str
    method: str
    sentence: str
    source: str
    setup: str
    cost: Cost
    judge: Callable[[Figures], Finding] = field(repr=False)
    run: Callable[[Workspace], Figures | None] | None = field(default=None, repr=False)
    full: str = ""
    script: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS or not self.id.startswith(f"{self.method}-"):
            raise ValueError(f"{self.id}: expected METHOD-NAME with a method of {', '.join(METHODS)}")
        if self.cost not in COSTS:
            raise ValueError(f"{self.id}: expected a cost of {', '.join(COSTS)}, got {self.cost!r}")
        if not (self.sentence and self.source and self.setup):
            raise ValueError(f"{self.id}: expected a sentence, a source and a setup")
        if self.run is None and not self.script and not self.full:
            raise ValueError(f"{self.id}: expected an experiment: run, script or full")

    @property
    def command(self) -> str:
        """The command that repeats the experiment here; empty where it needs the full data."""
        if self.script:
            return self.script
        return f"python -m benchmarks.claims --only {self.id} --again" if self.run else ""


def without_figures(claim: Claim) -> Finding:
    """The finding on a claim without figures."""
    if claim.command:
        return Finding("not run", "The experiment is there; nobody has run it yet.")
    return Finding("needs full KITTI", "Its experiment needs the whole data set.")


def mean_and_half_range(values: Sequence[float], digits: int = 1, scale: float = 1.0) -> str:
    """A figure over seeds as the page prints it: mean ± half the range; the figure alone of one seed."""
    scaled = [scale * value for value in values]
    mean = f"{sum(scaled) / len(scaled):.{digits}f}"
    return mean if len(scaled) == 1 else f"{mean} ± {(max(scaled) - min(scaled)) / 2:.{digits}f}"
