"""``monolift evaluate``: official KITTI AP of one or several folders of results."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.evaluation.comparison import Comparison
    from monolift.evaluation.table import Evaluation


@dataclass(frozen=True)
class Evaluate:
    """Compute KITTI AP (2D, AOS, bird's eye, 3D), equal to the official program.

    monolift evaluate --labels training/label_2 --predictions results --split val.txt --json ap.json --plots report
    """

    labels: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of ground-truth label files (label_2)."""
    predictions: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DIR [DIR ...]")
    ]
    """Folder of result files. Several are compared, with confidence intervals; NAME=DIR names a run, equal names are seeds."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids, one per line (default: all label files)."""
    json: Annotated[str | None, option("FILE")] = None
    """Write all figures at full precision as JSON to FILE, or to standard output with "-"."""
    plots: Annotated[Path | None, option("DIR")] = None
    """Output folder of report.html and diagnostics.json."""
    train_split: Annotated[Path | None, option("FILE")] = None
    """Training ids; the report shows their label histograms behind the recall."""
    missing: Literal["error", "empty"] = "error"
    """Image without a prediction file: error (as the official program) or empty (no detections)."""
    bootstrap: int = 500
    """Number of bootstrap samples for the confidence intervals."""
    quiet: bool = False
    """Print neither table nor progress; for use with --json or --plots."""


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
