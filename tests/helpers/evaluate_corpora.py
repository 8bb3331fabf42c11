"""Small corpora in KITTI's format, written for a test."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path


def label(name: str = "Car", x: float = 0.0, top: float = 100.0, height: float = 80.0, z: float = 20.0,
          yaw: float = 0.3, occluded: int = 0, truncated: float = 0.0, wide: float = 100.0) -> str:  # fmt: skip
    """A label row; its 2D box moves with x, so that boxes at different x do not overlap in 2D either."""
    left = 500 + 20 * x
    return (
        f"{name} {truncated:.2f} {occluded} {yaw - math.atan2(x, z):.4f} {left:.2f} {top:.2f} {left + wide:.2f} "
        f"{top + height:.2f} 1.50 1.60 4.00 {x:.2f} 1.65 {z:.2f} {yaw:.2f}"
    )


def write(folder: Path, images: Iterable[Iterable[str]]) -> Path:
    """One file 000000.txt, 000001.txt ... per image, one line per row."""
    folder.mkdir(parents=True)
    for i, rows in enumerate(images):
        (folder / f"{i:06d}.txt").write_text("".join(f"{row}\n" for row in rows))
    return folder
