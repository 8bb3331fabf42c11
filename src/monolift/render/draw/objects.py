"""What is drawn: anything that has boxes, class names and, perhaps, scores and covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from monolift.geometry import Boxes3D
from monolift.typing import Float, Tensor


@runtime_checkable
class Drawable(Protocol):
    """N boxes of one camera frame, as ``data.sample.Objects`` holds them."""

    @property
    def boxes(self) -> Boxes3D: ...
    @property
    def classes(self) -> Sequence[str]:
        """Each box's class name."""
        ...

    @property
    def scores(self) -> Float[Tensor, " n"] | None:
        """Of detections."""
        ...

    @property
    def covariance(self) -> Float[Tensor, "n 7 7"] | None:
        """Of x, y, z, log length, log height, log width, yaw, where the method knows it: drawn from above."""
        ...
