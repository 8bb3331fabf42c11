"""``monolift evaluate``: official KITTI AP of one or several folders of results."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.evaluation.comparison import Comparison
    from monolift.evaluation.table import Evaluation


@dataclass(frozen=True)
class Evaluate:
    """KITTI average precision (2D, AOS, bird's eye, 3D; R40 and R11), equal to the official program; no GPU needed.

    monolift evaluate --labels training/label_2 --predictions results --split val.txt --json ap.json --plots report
    """

    labels: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of label files (label_2)."""
    predictions: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DIR [DIR ...]")
    ]
    """Folder of result files. Several are compared, with intervals; NAME=DIR names one; equal names: seeds of one recipe."""
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with one image id per line; without it all label files are evaluated."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Everything at full precision in this file, or on standard output with "-"."""
    plots: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write report.html and diagnostics.json to this folder."""
    train_split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Split trained on: its labels make the histograms behind the recall in the report."""
    missing: Literal["error", "empty"] = "error"
    """An image without a prediction file: an error, as officially, or an image without detections."""
    bootstrap: int = 500
    """Samples over images for the intervals of a comparison."""
    quiet: bool = False
    """Neither table nor progress; for use with --json or --plots."""


def run(options: Evaluate) -> int:
    """Evaluate, print, write. Raises InputError for input that cannot be evaluated."""
    from monolift.data.formats.kitti_format import read_split, write_atomically
    from monolift.evaluation.comparison import compare, parse_name
    from monolift.evaluation.load import Truth
    from monolift.evaluation.table import evaluate_against

    folders = [folder for given in options.predictions for folder in given]
    if not folders:
        raise InputError("--predictions: expected a folder of result files, got none")
    if options.bootstrap < 1:
        raise InputError(f"--bootstrap: expected at least 1 sample, got {options.bootstrap}")
    truth = Truth(options.labels, options.split)
    result: Evaluation | Comparison
    runs: tuple[Evaluation, ...]
    comparison: Comparison | None = None
    if len(folders) == 1:
        name, folder = parse_name(folders[0])
        result = evaluate_against(truth, folder, options.missing, name)
        runs = (result,)
    else:
        images = f"{len(truth.ids):,} images"
        _say(options, f"comparing {len(folders)} folders by {options.bootstrap} samples of {images}")
        result = comparison = compare(truth, folders, missing=options.missing, draws=options.bootstrap)
        runs = comparison.runs
    if not options.quiet:
        (sys.stderr if options.json == "-" else sys.stdout).write(f"{result}\n")
    if options.json == "-":
        sys.stdout.write(result.to_json() + "\n")
    elif options.json is not None:
        write_atomically(options.json, (result.to_json() + "\n").encode())
    if options.plots is not None:
        from monolift.evaluation.report import write_report

        training = truth.read(read_split(options.train_split)).labels if options.train_split else None
        _say(options, f"wrote {write_report(options.plots, runs, comparison, training)}")
    return 0


def _say(options: Evaluate, text: str) -> None:
    if not options.quiet:
        sys.stderr.write(f"{text}\n")
