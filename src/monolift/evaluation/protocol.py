"""The constants of the official KITTI object protocol (devkit of 2019) and nothing else.

docs/evaluation.md says in words what they do.
"""

from __future__ import annotations

from collections.abc import Mapping

from monolift.data import kitti_facts

CLASSES = ("Car", "Pedestrian", "Cyclist")
NEIGHBOURS = {own.lower(): names[0].lower() for own, names in kitti_facts.NEIGHBOURS.items()}
"""Ground truth of these classes is neither wanted nor held against a detection. Cyclist has no neighbour."""
DONT_CARE = "dontcare"

METRICS = ("bbox", "bev", "3d")
"""2D boxes, bird's-eye view, 3D. The fourth, "aos", re-weighs the matches of "bbox"."""

NO_SCORE = -1e7
"""The official program's mark for "no detection": a score at or below it can never match."""
N_SAMPLES = 41
LEVELS = kitti_facts.LEVELS


Overlaps = Mapping[str, tuple[float, float, float]]
_OFFICIAL = (0.7, 0.5, 0.5)
_LOOSE = (0.5, 0.25, 0.25)
STRICT: Overlaps = {"bbox": _OFFICIAL, "bev": _OFFICIAL, "3d": _OFFICIAL}
LOOSE: Overlaps = {"bbox": _OFFICIAL, "bev": _LOOSE, "3d": _LOOSE}
MODES: Mapping[str, Overlaps] = {"strict": STRICT, "loose": LOOSE}
"""Least overlap (exclusive) of each class by metric. "loose" is no official table, but papers print it beside the other."""


def ap_caps(n_gt: int) -> tuple[float, float]:
    """(R11, R40) in percent that perfect detections of `n_gt` objects reach: n objects fill only n of 41 slots."""
    filled = min(n_gt, N_SAMPLES)
    return 100.0 * len(range(0, filled, 4)) / 11, 100.0 * max(filled - 1, 0) / 40
