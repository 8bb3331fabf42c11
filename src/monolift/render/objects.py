"""What is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monolift.geometry import Boxes3D
from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class Objects:
    """N boxes of one camera frame, their class names and, for detections, scores (N,)."""

    boxes: Boxes3D
    classes: Sequence[str]
    scores: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)
