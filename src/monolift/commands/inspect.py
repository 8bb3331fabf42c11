"""``monolift inspect``: checks a KITTI-format data set."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from monolift.commands.option import option
from monolift.errors import InputError


@dataclass(frozen=True)
class Inspect:
    """Check a KITTI-format data set: invalid lines, suspicious labels, statistics.

    monolift inspect kitti --split kitti/ImageSets/train.txt --plots samples
    """

    root: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder with label_2, calib and image_2, or with training/ that has them."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids, one per line (default: all label files)."""
    json: Annotated[str | None, option("FILE")] = None
    """Write all findings as JSON to FILE, or to standard output with "-"."""
    plots: Annotated[Path | None, option("DIR")] = None
    """Output folder of random sample images with their labels drawn."""
    samples: int = 8
    """Number of sample images."""
    decode: bool = False
    """Decode every image, not only its header."""
    kitti: bool = False
    """Check a download of KITTI instead: files, labels per class, image sizes, splits against the published counts."""
    quiet: bool = False
    """Print no report; for use with --json or --plots."""


def run(options: Inspect) -> int:
    """Check, print, draw; returns 1 if something cannot be read or is missing. Raises InputError for a wrong ROOT."""
    from monolift.data.formats.kitti_format import write_atomically
    from monolift.inspection.dataset import inspect, training_folder

    if options.kitti:
        return _check_download(options)
    if options.samples < 0:
        raise InputError(f"--samples: expected a number of at least 0, got {options.samples}")
    findings = inspect(options.root, options.split, options.decode)
    if not options.quiet:
        (sys.stderr if options.json == "-" else sys.stdout).write(f"{findings}\n")
    if options.json == "-":
        sys.stdout.write(findings.to_json() + "\n")
    elif options.json is not None:
        write_atomically(options.json, (findings.to_json() + "\n").encode())
    if options.plots is not None:
        from monolift.inspection.sample_images import draw_samples

        drawn = draw_samples(training_folder(options.root), findings.ids, options.plots, options.samples)
        if not options.quiet:
            sys.stderr.write(f"wrote {len(drawn)} images to {options.plots}\n")
    return 1 if findings.errors else 0


def _check_download(options: Inspect) -> int:
    """Compares with KITTI's own counts; returns 1 if something is missing."""
    from monolift.inspection.kitti_download import check_kitti

    ignored = [
        name for name in ("split", "json", "plots", "decode") if getattr(options, name) not in (None, False)
    ]
    if ignored:
        raise InputError(
            f"--kitti checks a whole download: expected no {', '.join('--' + n for n in ignored)}"
        )
    found = check_kitti(options.root)
    if not options.quiet:
        sys.stdout.write(f"{found}\n")
    return 1 if found.missing else 0
