"""`monolift evaluate`: official KITTI AP of one or several prediction folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.evaluate.comparison import Comparison
    from monolift.evaluate.table import Evaluation


@dataclass
class Evaluate:
    """KITTI average precision (2D, AOS, bird's eye, 3D; R40 and R11), equal to the official program; no GPU needed.

    Example: monolift evaluate --labels training/label_2 --predictions results --split val.txt --json ap.json --plots report
    """

    labels: Path
    """Folder of label files (label_2)."""
    predictions: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
    """Folder of result files. Several are compared, with intervals; NAME=DIR names one, and folders of equal name are
    summarised as seeds of one recipe."""
    split: Path | None = None
    """File with one image id per line; without it all label files are evaluated."""
    json: str | None = None
    """Write everything at full precision to this file, or to standard output with "-"."""
    plots: Path | None = None
    """Write report.html and diagnostics.json to this folder."""
    train_split: Path | None = None
    """Split trained on: its labels make the histograms behind the recall in the report."""
    missing: Literal["error", "empty"] = "error"
    """An image without a prediction file: an error, as in the official program, or an image without detections."""
    bootstrap: int = 500
    """Samples over images for the intervals when several folders are compared."""
    quiet: bool = False
    """Print neither progress nor table; for use with --json or --plots."""

    def run(self) -> int:
        """Evaluate, print, write; returns the exit code 0. Raises InputError for input that cannot be evaluated."""
        from monolift.data.kitti_format import read_split, write_atomically
        from monolift.evaluate.comparison import compare, parse_name
        from monolift.evaluate.load import Truth
        from monolift.evaluate.table import evaluate_against

        folders = [folder for given in self.predictions for folder in given]
        if not folders:
            raise InputError("--predictions: expected a folder of result files, got none")
        if self.bootstrap < 1:
            raise InputError(f"--bootstrap: expected at least 1 sample, got {self.bootstrap}")
        truth = Truth(self.labels, self.split)
        result: Evaluation | Comparison
        runs: tuple[Evaluation, ...]
        comparison: Comparison | None = None
        if len(folders) == 1:
            name, folder = parse_name(folders[0])
            result = evaluate_against(truth, folder, self.missing, name)
            runs = (result,)
        else:
            self._say(
                f"comparing {len(folders)} folders on {len(truth.ids):,} images, {self.bootstrap} samples"
            )
            result = comparison = compare(truth, folders, missing=self.missing, draws=self.bootstrap)
            runs = comparison.runs
        if not self.quiet:
            print(result, file=sys.stderr if self.json == "-" else sys.stdout)
        if self.json == "-":
            print(result.to_json())
        elif self.json is not None:
            write_atomically(self.json, (result.to_json() + "\n").encode())
        if self.plots is not None:
            from monolift.evaluate.report import write_report

            training = truth.read(read_split(self.train_split)).labels if self.train_split else None
            self._say(f"wrote {write_report(self.plots, runs, comparison, training)}")
        return 0

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)
