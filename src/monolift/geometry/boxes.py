"""3D boxes that stand on the ground: centre, size, yaw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from monolift.geometry.camera import Camera
from monolift.geometry.rotations import alpha_from_yaw, matrix_from_yaw, wrap
from monolift.typing import Float, Tensor

# Signs of (x, y, z) at the eight corners in the object's own frame. 0-3 go round the bottom (y is down, so +y), 4-7 round the
# top, each starting at the front (x = length axis, the heading) on the +z side; corner i + 4 is above corner i.
CORNER_SIGNS = (
    (+1, +1, +1), (+1, +1, -1), (-1, +1, -1), (-1, +1, +1),
    (+1, -1, +1), (+1, -1, -1), (-1, -1, -1), (-1, -1, +1),
)  # fmt: skip
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
FRONT = (0, 1, 5, 4)  # the face in the heading's direction
NEAR_PLANE = 0.1  # metres; what lies nearer is cut off before projecting


@dataclass(frozen=True)
class Boxes3D:
    """N boxes of one camera frame.

    Attributes:
        center: (N, 3) geometric centre, metres (KITTI's files hold the bottom centre; ``data.kitti`` converts)
        size: (N, 3) length, height, width = the box's own x, y, z, metres
        yaw: (N,) about +y, radians, 0 = heading along +x
    """

    center: Float[Tensor, "n 3"]
    size: Float[Tensor, "n 3"]
    yaw: Float[Tensor, " n"]

    def __post_init__(self) -> None:
        n = self.center.shape[:-1]
        if self.center.shape[-1:] != (3,) or self.size.shape != (*n, 3) or self.yaw.shape != n or len(n) != 1:
            raise ValueError(
                "Boxes3D expects center (N, 3), size (N, 3), yaw (N,), got "
                f"{tuple(self.center.shape)}, {tuple(self.size.shape)}, {tuple(self.yaw.shape)}"
            )

    @classmethod
    def empty(cls, dtype: torch.dtype = torch.float32, device: Any = None) -> Boxes3D:
        zeros = torch.zeros(0, 3, dtype=dtype, device=device)
        return cls(zeros, zeros, zeros[:, 0])

    @classmethod
    def cat(cls, boxes: Sequence[Boxes3D]) -> Boxes3D:
        return cls(*(torch.cat([getattr(b, name) for b in boxes]) for name in ("center", "size", "yaw")))

    def __len__(self) -> int:
        return self.center.shape[0]

    def __getitem__(self, index: Any) -> Boxes3D:
        """A subset by slice, index tensor or mask; a bare integer keeps the box axis."""
        if isinstance(index, int):
            index = [index]
        return Boxes3D(self.center[index], self.size[index], self.yaw[index])

    def to(self, *args: Any, **kwargs: Any) -> Boxes3D:
        """As ``Tensor.to``: another device or dtype."""
        return Boxes3D(*(t.to(*args, **kwargs) for t in (self.center, self.size, self.yaw)))

    @property
    def bottom(self) -> Float[Tensor, "n 3"]:
        """Centre of the bottom face, KITTI's location."""
        down = torch.zeros_like(self.center)
        down[:, 1] = self.size[:, 1] / 2
        return self.center + down

    @property
    def alpha(self) -> Float[Tensor, " n"]:
        """Observation angle, yaw - atan2(x, z)."""
        return alpha_from_yaw(self.yaw, self.center)

    def corners(self) -> Float[Tensor, "n 8 3"]:
        """Corners in metres, in the order of ``CORNER_SIGNS``."""
        signs = torch.tensor(CORNER_SIGNS, dtype=self.center.dtype, device=self.center.device)
        in_object = signs * self.size[:, None] / 2
        return in_object @ matrix_from_yaw(self.yaw).transpose(-1, -2) + self.center[:, None]

    def projected(self, camera: Camera, clip: bool = True) -> Float[Tensor, "n 4"]:
        """2D bounding boxes (x1, y1, x2, y2), pixels, of the part of each box in front of the camera.

        ``camera`` is one camera, or a batch with one per box. Edges that cross the near plane are cut there: corners behind
        the camera would project to the wrong side. A box wholly behind gives zeros. With ``clip`` and a camera of known size
        the rectangle is cut to the image, [0, W - 1] x [0, H - 1] as KITTI's labels are.
        """
        corners = self.corners()
        if camera.fx.ndim:
            camera = camera[:, None]
        start, end = corners[:, [a for a, _ in EDGES]], corners[:, [b for _, b in EDGES]]
        z0, z1 = camera.depth(start), camera.depth(end)
        crossing = (z0 < NEAR_PLANE) != (z1 < NEAR_PLANE)
        share = ((NEAR_PLANE - z0) / torch.where(crossing, z1 - z0, 1.0)).clamp(0, 1)[..., None]
        points = torch.cat(
            [corners, torch.where(crossing[..., None], start + share * (end - start), corners[:, :1])], 1
        )
        visible = torch.cat([camera.depth(corners) >= NEAR_PLANE, crossing], 1)[..., None]
        pixels = camera.px_from_cam(points)
        low = torch.where(visible, pixels, float("inf")).amin(1)
        high = torch.where(visible, pixels, float("-inf")).amax(1)
        rectangle = torch.where(visible.any(1), torch.cat([low, high], 1), 0.0)
        return camera.clip(rectangle) if clip else rectangle

    def mirrored(self) -> Boxes3D:
        """The boxes of the world mirrored in x: x -> -x, yaw -> wrap(pi - yaw). Twice is the identity."""
        flip = torch.tensor([-1.0, 1.0, 1.0], dtype=self.center.dtype, device=self.center.device)
        return Boxes3D(self.center * flip, self.size, wrap(torch.pi - self.yaw))
