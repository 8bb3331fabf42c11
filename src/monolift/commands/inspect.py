"""`monolift inspect`: is a data set in KITTI's layout sound?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from monolift.errors import InputError


@dataclass
class Inspect:
    """Check a data set: every bad line by file and line, counts, cameras, odd labels, statistics, pictures of samples.

    Example: monolift inspect kitti --split kitti/ImageSets/train.txt --plots samples
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder with label_2, calib and image_2 (or with training/ holding them)."""
    split: Path | None = None
    """File with one image id per line; without it all label files are checked."""
    json: str | None = None
    """Write all findings to this file, or to standard output with "-"."""
    plots: Path | None = None
    """Write pictures of random samples, labels drawn, to this folder."""
    samples: int = 8
    """Number of pictures."""
    decode: bool = False
    """Decode every image instead of reading its header only."""
    quiet: bool = False
    """Print no report; for use with --json or --plots."""

    def run(self) -> int:
        """Check, print, draw; returns 1 if something cannot be read or is missing, else 0. Raises InputError."""
        from monolift.data.kitti_format import write_atomically
        from monolift.evaluate.dataset import inspect, training_folder

        if self.samples < 0:
            raise InputError(f"--samples: expected a number of at least 0, got {self.samples}")
        findings = inspect(self.root, self.split, self.decode)
        if not self.quiet:
            print(findings, file=sys.stderr if self.json == "-" else sys.stdout)
        if self.json == "-":
            print(findings.to_json())
        elif self.json is not None:
            write_atomically(self.json, (findings.to_json() + "\n").encode())
        if self.plots is not None:
            from monolift.evaluate.sample_pictures import draw_samples

            drawn = draw_samples(training_folder(self.root), findings.ids, self.plots, self.samples)
            if not self.quiet:
                print(f"wrote {len(drawn)} pictures to {self.plots}", file=sys.stderr)
        return 1 if findings.errors else 0
