"""Comparison of several runs on the same ground truth, with confidence intervals and seed statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monolift.errors import InputError
from monolift.evaluation.ap import Row
from monolift.evaluation.bootstrap import FloatArray, Key, draw_images, interval, resample
from monolift.evaluation.load import PathLike, Truth
from monolift.evaluation.protocol import CLASSES, LEVELS
from monolift.evaluation.table import TITLES, Evaluation, evaluate_against, fold

DRAWS = 500
_SEED = re.compile(r"[-_./ ]?seed[-_= ]?\d+", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations of several runs; the first is what the others are compared with."""

    runs: tuple[Evaluation, ...]
    recipes: tuple[str, ...]
    """The experiment of each run; runs that differ in the seed only share the name."""
    samples: tuple[dict[Key, FloatArray], ...]
    """For each run and row the AP R40 of every bootstrap sample; the samples of different runs are of the same images."""

    def interval(self, run: int, row: Row) -> tuple[float, float]:
        """95 % interval of AP R40, percent."""
        return interval(self.samples[run][_key(row)])

    def difference(self, run: int, row: Row) -> tuple[float, float, float] | None:
        """AP R40 of a run minus that of the first, with its 95 % interval; None where either has no such row."""
        base = self.runs[0].row(*row.key)
        here = self.runs[run].row(*row.key)
        if base is None or here is None:
            return None
        low, high = interval(self.samples[run][_key(row)] - self.samples[0][_key(row)])
        return here.ap_r40 - base.ap_r40, low, high

    def seeds(self) -> dict[str, list[int]]:
        """The runs of each recipe that has more than one."""
        groups: dict[str, list[int]] = {}
        for i, recipe in enumerate(self.recipes):
            groups.setdefault(recipe, []).append(i)
        return {recipe: runs for recipe, runs in groups.items() if len(runs) > 1}

    def spread(self, runs: Sequence[int], key: tuple[str, str, str, str]) -> dict[str, float] | None:
        """Mean, sample standard deviation, least and largest AP R40 of some runs; None unless all have the row."""
        rows = [self.runs[i].row(*key) for i in runs]
        values = np.array([row.ap_r40 for row in rows if row is not None])
        if len(values) < len(runs):
            return None
        return {
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)),
            "min": float(values.min()),
            "max": float(values.max()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Each run as its own evaluation with intervals, then differences to the first run, then seeds."""
        first = self.runs[0]
        return {
            "split": first.split,
            "images": first.images,
            "runs": [self._run_dict(i) for i in range(len(self.runs))],
            "baseline": first.name,
            "draws": self._draws(),
            "differences": [d for i in range(1, len(self.runs)) for d in self._difference_dicts(i)],
            "seeds": [
                {"recipe": recipe, "runs": len(members), **_named(key), **spread}
                for recipe, members in self.seeds().items()
                for key in self._keys()
                if (spread := self.spread(members, key))
            ],
        }

    def _run_dict(self, i: int) -> dict[str, Any]:
        run = self.runs[i]
        rows = [{**row.to_dict(), "ap_r40_interval": _finite(self.interval(i, row))} for row in run.rows]
        return {"name": run.name, "recipe": self.recipes[i], **run.to_dict(), "rows": rows}

    def _difference_dicts(self, i: int) -> list[dict[str, Any]]:
        listed = []
        for row in self.runs[i].rows:
            change = self.difference(i, row)
            if change:
                value, *interval = _finite(change)
                listed.append(
                    {"run": self.runs[i].name, **_named(row.key), "ap_r40": value, "interval": interval}
                )
        return listed

    def _draws(self) -> int:
        return len(next(iter(self.samples[0].values()), ()))

    def to_json(self) -> str:
        """JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def _keys(self) -> list[tuple[str, str, str, str]]:
        return list(dict.fromkeys(row.key for run in self.runs for row in run.rows))

    def __str__(self) -> str:
        keys = self._keys()
        first = self.runs[0]
        split = "split " + first.split if first.split else "all label files"
        about = (
            f"{len(self.runs)} runs on {first.images:,} images, {split}; AP in percent; in brackets 95 % of "
            f"{self._draws()} bootstrap samples over images, differences to {first.name}; "
            "* = the interval excludes 0"
        )
        lines = [fold(about)]
        for class_name in CLASSES:
            for mode in dict.fromkeys(key[3] for key in keys):
                for metric in TITLES:
                    levels = [
                        key for key in keys if key[0] == metric and key[1] == class_name and key[3] == mode
                    ]
                    if levels and (mode == "strict" or metric in ("bev", "3d")):
                        lines += ["", *self._block(class_name, mode, metric)]
        notes = [fold(f"Note: {run.name}: {note}") for run in self.runs for note in run.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def _block(self, class_name: str, mode: str, metric: str) -> list[str]:
        keys = [(metric, class_name, level.name, mode) for level in LEVELS]
        least = next(row.min_overlap for run in self.runs for key in keys if (row := run.row(*key)))
        title = f"{class_name}, {mode}, {TITLES[metric]}, IoU {least:.2f}"
        lines = [title, _line("", [level.name for level in LEVELS])]
        for i, run in enumerate(self.runs):
            rows = [run.row(*key) for key in keys]
            r40 = [_cell(None if row is None else (row.ap_r40, *self.interval(i, row))) for row in rows]
            r11 = ["-" if row is None else f"{row.ap_r11:.2f}" for row in rows]
            lines += [f"  {run.name}", _line("R40", r40), _line("R11", r11)]
            if i and any(rows):
                changes = [None if row is None else self.difference(i, row) for row in rows]
                lines.append(_line("R40 change", [_cell(c, sign=True) for c in changes]))
        for recipe, members in self.seeds().items():
            spreads = [self.spread(members, key) for key in keys]
            if any(spreads):
                cells = ["-" if s is None else f"{s['mean']:.2f} +- {s['std']:.2f}" for s in spreads]
                lines += [f"  {recipe}, {len(members)} seeds, mean +- deviation", _line("R40", cells)]
        return lines


CELL = 21  # columns of a value with its interval: three of them and a word fill 80


def _line(what: str, cells: Sequence[str]) -> str:
    return f"    {what:<10}" + "".join(f" {cell:>{CELL}}" for cell in cells)


def compare(
    labels: PathLike | Truth,
    predictions: Sequence[PathLike],
    split: PathLike | None = None,
    missing: str = "error",
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Evaluate several prediction folders on the same images.

    A folder may be written NAME=DIR. Runs with equal names are seeds of one recipe; without names, folders that differ only
    in a number after "seed" are. The bootstrap is seeded, so the same call gives the same intervals.
    Raises InputError as `evaluate` does, and for less than two folders.
    """
    if len(predictions) < 2:
        raise InputError(f"expected at least two prediction folders to compare, got {len(predictions)}")
    truth = labels if isinstance(labels, Truth) else Truth(labels, split)
    named = [parse_name(p) for p in predictions]
    names = _unique([name or str(path) for name, path in named])
    runs = [
        evaluate_against(truth, path, missing, name) for name, (_, path) in zip(names, named, strict=True)
    ]
    weights = draw_images(len(truth.ids), draws, seed)
    return Comparison(
        runs=tuple(runs),
        recipes=tuple(name or _SEED.sub("", str(path)) for name, path in named),
        samples=tuple(resample(run.matched, weights) for run in runs),
    )


def parse_name(text: PathLike) -> tuple[str | None, str]:
    """("smoke", "runs/3/results") of "smoke=runs/3/results"; no name where none is given."""
    name, equals, path = str(text).partition("=")
    return (name, path) if equals and path and "/" not in name and "\\" not in name else (None, str(text))


def _unique(names: list[str]) -> list[str]:
    """Names counted where they repeat: smoke #1, smoke #2."""
    counts = {name: names.count(name) for name in names}
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(f"{name} #{seen[name]}" if counts[name] > 1 else name)
    return out


def _named(key: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("metric", "class", "difficulty", "mode"), key, strict=True))


def _key(row: Row) -> Key:
    return row.metric, row.class_name, row.difficulty, row.min_overlap


def _cell(value: tuple[float, float, float] | None, sign: bool = False) -> str:
    """A value with its interval, whose bounds have as many decimals as fit."""
    if value is None:
        return "-"
    plus = "+" if sign else ""
    star = "*" if sign and (value[1] > 0 or value[2] < 0) else ""
    texts = [
        f"{value[0]:{plus}.2f} [{value[1]:{plus}.{k}f}, {value[2]:{plus}.{k}f}]{star}" for k in (2, 1, 0)
    ]
    return next((text for text in texts if len(text) <= CELL), texts[-1])


def _finite(values: Sequence[float]) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in values]
