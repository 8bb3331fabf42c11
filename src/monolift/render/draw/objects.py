"""What is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monolift.geometry import Boxes3D
from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class Objects:
    """N boxes of one camera frame, their class names and, for detections, scores (N,) and covariance (N, 7, 7) of x, y, z,
    log length, log height, log width, yaw where the method knows it: the view from above shows it."""

    boxes: Boxes3D
    classes: Sequence[str]
    scores: Float[Tensor, " n"] | None = None
    covariance: Float[Tensor, "n 7 7"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)
