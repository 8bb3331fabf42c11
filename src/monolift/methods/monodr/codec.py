"""A box in the variables of the fit, and back.

MonoDR section 3, after ROI-10D: the offset of the projected centre from the 2D box's centre, in widths and heights of that
box; the centre's depth; the deviation from the mean size; and the angle at which the object is seen (allocentric: only of this
one is the negative the pose with the same silhouette).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from monolift.geometry import Boxes3D, Camera, yaw_from_alpha
from monolift.geometry.rotations import matrix_from_yaw
from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class Variables:
    """What is optimised, of N objects.

    offset: (N, 2) projected centre minus 2D box centre, in box widths and heights
    depth:  (N,) z of the centre, metres, camera frame
    size:   (N, 3) length, height, width minus their means, metres
    alpha:  (N,) observation angle, radians
    shape, texture: (N, 8) codes, of any length
    """

    offset: Float[Tensor, "n 2"]
    depth: Float[Tensor, " n"]
    size: Float[Tensor, "n 3"]
    alpha: Float[Tensor, " n"]
    shape: Float[Tensor, "n 8"]
    texture: Float[Tensor, "n 8"]

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(self, f.name) for f in fields(self))

    def with_alpha(self, alpha: Float[Tensor, " n"]) -> Variables:
        return replace(self, alpha=alpha)

    def leaves(self) -> Variables:
        """Copies that an optimiser may move."""
        return Variables(*(value.detach().clone().requires_grad_() for value in self))


@dataclass(frozen=True)
class MonoDRCodec:
    """Boxes of N objects <-> their variables, given each one's 2D box and camera."""

    boxes2d: Float[Tensor, "n 4"]
    cameras: Camera
    size_mean: Float[Tensor, "3"]

    @property
    def _middle_and_extent(self) -> tuple[Tensor, Tensor]:
        low, high = self.boxes2d[:, :2], self.boxes2d[:, 2:]
        return (low + high) / 2, high - low

    def encode(self, boxes: Boxes3D, shape: Float[Tensor, "n 8"], texture: Float[Tensor, "n 8"]) -> Variables:
        """The variables of boxes; the inverse of `decode` but for full turns."""
        middle, extent = self._middle_and_extent
        offset = (self.cameras.px_from_cam(boxes.center) - middle) / extent
        return Variables(offset, boxes.center[:, 2], boxes.size - self.size_mean, boxes.alpha, shape, texture)

    def decode(self, variables: Variables) -> Boxes3D:
        """The boxes of variables; differentiable. Yaw is wrapped."""
        middle, extent = self._middle_and_extent
        center = self.cameras.cam_from_px(middle + variables.offset * extent, variables.depth)
        return Boxes3D(center, self.size_mean + variables.size, yaw_from_alpha(variables.alpha, center))


def place(unit_vertices: Float[Tensor, "n v 3"], boxes: Boxes3D) -> Float[Tensor, "n v 3"]:
    """Vertices of unit boxes in the boxes, camera frame, metres."""
    turned = (unit_vertices * boxes.size[:, None]) @ matrix_from_yaw(boxes.yaw).transpose(1, 2)
    return turned + boxes.center[:, None]
