"""What is known of KITTI's object data set before any file is read: sizes, neighbour classes, levels. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Size = tuple[float, float, float]

SIZES: Mapping[str, Size] = {
    "Car": (3.88, 1.53, 1.63),
    "Pedestrian": (0.84, 1.76, 0.66),
    "Cyclist": (1.76, 1.74, 0.60),
    "Van": (5.08, 2.21, 1.90),
    "Truck": (10.11, 3.25, 2.59),
    "Tram": (16.09, 3.53, 2.54),
    "Person_sitting": (0.80, 1.28, 0.60),
}
"""Mean length, height, width of each class, metres, over all labels of trainval."""
CAR_SIZE = SIZES["Car"]
CAR_DEVIATION: Size = (0.43, 0.14, 0.10)
"""Standard deviation of length, height, width of the 28,742 labelled cars, metres."""

NEIGHBOURS: Mapping[str, tuple[str, ...]] = {"Car": ("Van",), "Pedestrian": ("Person_sitting",)}
"""Classes that look like a class: labels of these are ignored, neither the class nor background. Cyclist has none."""


@dataclass(frozen=True)
class Level:
    """Which labels count: limits inclusive for occlusion and truncation, exclusive for the 2D box's height in pixels."""

    name: str
    min_height: float
    max_occlusion: int
    max_truncation: float


LEVELS = (Level("easy", 40, 0, 0.15), Level("moderate", 25, 1, 0.30), Level("hard", 25, 2, 0.50))


def looks_like(name: str, classes: tuple[str, ...]) -> bool:
    """Whether labels of class ``name``, which is none of ``classes``, are ignored for one of them."""
    return any(name in NEIGHBOURS.get(own, ()) for own in classes)
