"""ROI-10D's parameterisation of a 3D box, both ways: the numbers of the five branches of a 2D region.

branch    numbers  stands for
rotation     4     quaternion, any length, of what the object looks like along its viewing ray (allocentric)
centroid     2     projection of the 3D centre, from the region's middle, in region sizes
depth        1     z of the centre; "metric": metres from the data's mean (published: metric); "mean": the same in standard
                   deviations (ours); "roi": log(z / z0) in DEPTH_UNIT, z0 where an object of mean height fills the region's
                   height (ours)
extents      3     deviation from the class's mean length, height, width in standard deviations
shape        6     code of the shape space, any length; as many numbers as the space has

Eq. 1 lifts them: corners = R (+-l/2, +-h/2, +-w/2) + K^-1 (x z, y z, z), where R is the rotation turned along with the ray.
KITTI's labels have a yaw only; seen along a ray that looks down, what it looks like is a little tilted, and the branch learns
that. Labels with all three angles, rotation_2, train all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monolift.geometry import CORNER_SIGNS, Boxes3D, Camera
from monolift.geometry.rotations import (
    allocentric_from_egocentric,
    egocentric_from_allocentric,
    matrix_from_quaternion,
    matrix_from_yaw,
    quaternion_from_matrix,
    yaw_from_matrix,
)
from monolift.methods.base import focal_ratio
from monolift.methods.roi10d.config import ROI10DConfig
from monolift.typing import Float, Int, Tensor

DEPTH_UNIT = 0.25  # of log depth per unit of the branch, about the spread round the start
SMALLEST = 0.2  # of the mean extents: no branch can say less


@dataclass(frozen=True)
class Lifted:
    """N boxes of any rotation. center, size: metres; rotation: (N, 3, 3) cam_from_object."""

    center: Float[Tensor, "n 3"]
    size: Float[Tensor, "n 3"]
    rotation: Float[Tensor, "n 3 3"]

    @classmethod
    def of(cls, boxes: Boxes3D) -> Lifted:
        """Yaw boxes as such."""
        return cls(boxes.center, boxes.size, matrix_from_yaw(boxes.yaw))

    def corners(self) -> Float[Tensor, "n 8 3"]:
        """Corners, metres, camera frame, in the order of ``CORNER_SIGNS`` (ROI-10D eq. 1)."""
        signs = torch.tensor(CORNER_SIGNS, dtype=self.center.dtype, device=self.center.device)
        return signs * self.size[:, None] / 2 @ self.rotation.transpose(-1, -2) + self.center[:, None]

    def boxes(self) -> Boxes3D:
        """The yaw boxes next to them: the heading's direction in the ground plane, no pitch, no roll."""
        return Boxes3D(self.center, self.size, yaw_from_matrix(self.rotation))


class ROI10DCodec:
    """Boxes of N objects, of any rotation, <-> the numbers of the branches for their regions.

    roi: (N, 4) pixels; label: (N,) class; camera: of the network image, one or one per region.
    """

    def __init__(self, config: ROI10DConfig) -> None:
        self.config = config

    def encode(
        self, lifted: Lifted, roi: Float[Tensor, "n 4"], label: Int[Tensor, " n"], camera: Camera
    ) -> dict[str, Tensor]:
        """Inverse of `decode`; the quaternion of length 1 with w >= 0."""
        middle, side = _middle_side(roi)
        mean, deviation = self._sizes(label, roi)
        z = lifted.center[:, 2]
        if self.config.depth_start == "roi":
            depth = torch.log(z.clamp_min(1e-3) / self._start(roi, label, camera)) / DEPTH_UNIT
        else:
            depth = (
                z / focal_ratio(camera.fx.to(z), self.config.focal) - self.config.depth_mean
            ) / self._unit
        allocentric = allocentric_from_egocentric(lifted.rotation, _ray(lifted.center, camera))
        return {
            "rotation": quaternion_from_matrix(allocentric),
            "centroid": (camera.px_from_cam(lifted.center) - middle) / side,
            "depth": depth[:, None],
            "extents": (lifted.size - mean) / deviation,
        }

    def decode(
        self,
        numbers: dict[str, Tensor],
        roi: Float[Tensor, "n 4"],
        label: Int[Tensor, " n"],
        camera: Camera,
    ) -> Lifted:
        """Boxes of N regions' numbers. roi: pixels; camera: one, or one per region."""
        middle, side = _middle_side(roi)
        pixel = middle + numbers["centroid"] * side
        z = self._depth(numbers["depth"][:, 0], roi, label, camera)
        center = camera.cam_from_px(pixel, z)
        mean, deviation = self._sizes(label, roi)
        size = _at_least(mean + deviation * numbers["extents"], SMALLEST * mean)
        allocentric = matrix_from_quaternion(numbers["rotation"])
        rotation = egocentric_from_allocentric(allocentric, _ray(center, camera))
        return Lifted(center, size, rotation)

    def _depth(self, number: Tensor, roi: Tensor, label: Tensor, camera: Camera) -> Tensor:
        if self.config.depth_start == "roi":
            # a runaway exponential would be an infinite box; e^5 times the start is beyond anything
            return self._start(roi, label, camera) * torch.exp((DEPTH_UNIT * number).clamp(-5, 5))
        return (self.config.depth_mean + self._unit * number) * focal_ratio(
            camera.fx.to(number), self.config.focal
        )

    @property
    def _unit(self) -> float:
        """Metres per unit of the depth branch, where it counts from the mean."""
        return self.config.depth_std if self.config.depth_start == "mean" else 1.0

    def _start(self, roi: Tensor, label: Tensor, camera: Camera) -> Tensor:
        """Metres at which an object of the class's mean height is as high as the region."""
        _, side = _middle_side(roi)
        return camera.fy.to(roi) * self._sizes(label, roi)[0][:, 1] / side[:, 1]

    def _sizes(self, label: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.config.sizes)[label], like.new_tensor(self.config.size_deviations)[label]


def _at_least(value: Tensor, floor: Tensor) -> Tensor:
    """The larger of both, with the gradient of ``value`` in either case: below the floor there would be no way back."""
    return torch.where(value < floor, floor + (value - value.detach()), value)


def _middle_side(roi: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and sides, at least one pixel, of boxes."""
    return (roi[:, :2] + roi[:, 2:]) / 2, (roi[:, 2:] - roi[:, :2]).clamp_min(1)


def _ray(center: Tensor, camera: Camera) -> Tensor:
    """From the camera that took the image, which stands ``camera.translation`` beside the frame of the labels."""
    return center + camera.translation.to(center)
