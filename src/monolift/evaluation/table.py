"""The result of an evaluation: rows, remarks, a table to read and JSON to keep."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monolift.evaluation.ap import Matched, Row, average_precision
from monolift.evaluation.corpus import Corpus
from monolift.evaluation.load import PathLike, Truth, load
from monolift.evaluation.notes import remarks
from monolift.evaluation.protocol import CLASSES, LEVELS, MODES, Overlaps

WIDTH = 80  # columns: tables fit a terminal window as it opens
TITLES = {"bbox": "2D box", "aos": "orientation (AOS)", "bev": "bird's eye", "3d": "3D box"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One prediction set against its ground truth. `str()` gives the table, `to_json()` everything at full precision."""

    name: str
    split: str | None
    """Name of the split file; None when all label files were evaluated."""
    images: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What the official program does silently, and why rows are absent."""
    corpus: Corpus = field(repr=False)
    matched: Mapping[tuple[str, str, float], Matched] = field(repr=False)
    """By (metric, class, IoU threshold): what the rows were summed from."""

    def row(self, metric: str, class_name: str, difficulty: str, mode: str = "strict") -> Row | None:
        """One row, or None where the official program does not evaluate."""
        wanted = (metric, class_name, difficulty, mode)
        return next((row for row in self.rows if row.key == wanted), None)

    def share_of_2d(
        self, metric: str, class_name: str, difficulty: str, mode: str = "strict"
    ) -> float | None:
        """AP R40 of bird's eye or 3D in percent of the 2D AP, which bounds it: an object that is missed in 2D is missed in 3D.

        ROI-10D, section 4.2, names the correction and gives no figures. Quotients, not the official protocol: they compare
        poses of detectors that find different objects. With an IoU in 2D that is stricter than the one in 3D they can pass 100.

        Returns:
            None where a row is absent or the 2D AP is 0.
        """
        own, in_2d = self.row(metric, class_name, difficulty, mode), self.row("bbox", class_name, difficulty)
        if own is None or in_2d is None or not in_2d.ap_r40 > 0:
            return None
        return 100 * own.ap_r40 / in_2d.ap_r40

    def to_dict(self) -> dict[str, Any]:
        """split, images, rows, notes: what `to_json` writes."""
        return {
            "split": self.split,
            "images": self.images,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """JSON text: percent at full precision, null for NaN, no row where the official program refuses to evaluate."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        images = f"{self.images:,} image{'' if self.images == 1 else 's'}"
        lines = [f"{self.name}: {images}, {'split ' + self.split if self.split else 'all label files'}"]
        for class_name in CLASSES:
            for mode in dict.fromkeys(row.mode for row in self.rows):
                block = self._block(class_name, mode)
                lines += ["", *block] if block else []
        if not self.rows:
            lines += ["", "Nothing to evaluate."]
        return "\n".join(
            [*lines, *([""] if self.notes else []), *(fold(f"Note: {note}") for note in self.notes)]
        )

    def _block(self, class_name: str, mode: str) -> list[str]:
        rows = {row.key: row for row in self.rows if row.class_name == class_name and row.mode == mode}
        # 2D and AOS do not differ between the modes: print them once
        metrics = [m for m in TITLES if mode == "strict" or m in ("bev", "3d")]
        body = []
        for metric in metrics:
            found = [rows.get((metric, class_name, level.name, mode)) for level in LEVELS]
            if any(found):
                least = next(r.min_overlap for r in found if r)
                r40 = _columns("-" if r is None else f"{r.ap_r40:.2f}" for r in found)
                r11 = _columns("-" if r is None else f"{r.ap_r11:.2f}" for r in found)
                body.append(f"  {TITLES[metric]:<18}{least:>5.2f} {r40}   {r11}")
        if not body:
            return []
        levels = _columns(level.name for level in LEVELS)
        title = f"{class_name}, {mode}"
        if mode == "strict":
            counts = {row.difficulty: row.n_gt for row in rows.values()}
            body.append(f"  {'ground truths':<24}" + _columns(f"{counts[level.name]:,}" for level in LEVELS))
        return [
            f"{title:<26}{'AP R40, percent':>{len(levels)}}   {'AP R11, percent':>{len(levels)}}",
            f"  {'':<20}IoU {levels}   {levels}",
            *body,
        ]


def _columns(cells: Iterable[str]) -> str:
    """Cells right under the names of LEVELS."""
    return "".join(
        f"{cell:>{max(7, len(level.name) + 1)}}" for cell, level in zip(cells, LEVELS, strict=True)
    )


def fold(text: str) -> str:
    """Text over lines of at most WIDTH columns, the further ones indented; a path is never cut."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def evaluate(
    labels: PathLike,
    predictions: PathLike,
    split: PathLike | None = None,
    missing: str = "error",
    name: str | None = None,
) -> Evaluation:
    """The official KITTI object evaluation of one folder of result files.

    labels: folder of label files; predictions: folder of result files; split: file with one image id per line (default: all
    label files); missing: "error", or "empty" to count images without a prediction file as images without detections.
    Raises InputError, naming file, line and field, for input that the official program would crash on or misread.
    """
    return evaluate_against(Truth(labels, split), predictions, missing, name)


def evaluate_against(
    truth: Truth,
    predictions: PathLike,
    missing: str = "error",
    name: str | None = None,
    modes: Mapping[str, Overlaps] = MODES,
) -> Evaluation:
    """`evaluate` with the labels already read, and optionally with other IoU thresholds."""
    corpus, notes = load(truth, predictions, missing)
    rows, matched = average_precision(corpus, modes)
    return Evaluation(
        name=name or str(predictions),
        split=truth.split,
        images=len(truth.ids),
        rows=tuple(rows),
        notes=(*notes, *remarks(corpus, rows)),
        corpus=corpus,
        matched=matched,
    )
