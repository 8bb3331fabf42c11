"""Camera and boxes in numpy: camera frame x right, y down, z forward; metres, pixels with their centres at integers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .camera_check import CameraNumbers, check_numbers

Array = npt.NDArray[Any]
LARGEST_SIDE = 1_000_000  # pixels of a stated image size
NEAR_PLANE = 0.1  # metres; what lies nearer is cut off before projecting

# corners 0-3 go round the bottom (+y), 4-7 round the top, each from the front on the +z side
CORNER_SIGNS = np.array(
    [(1, 1, 1), (1, 1, -1), (-1, 1, -1), (-1, 1, 1), (1, -1, 1), (1, -1, -1), (-1, -1, -1), (-1, -1, 1)]
)
_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


@dataclass(frozen=True)
class Lens:
    """A pinhole camera: a point X of the camera frame is seen at K (X + t). width, height: of its image, pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    tx: float = 0.0
    ty: float = 0.0
    tz: float = 0.0
    width: int = 0
    height: int = 0

    @classmethod
    def of(cls, camera: Any, width: int, height: int) -> Lens:
        """From fx, fy, cx, cy (numbers or "fx,fy,cx,cy"), a (3, 3) K, or a (3, 4) projection K [I | t] as KITTI's P2.

        Raises:
            ValueError: that says what was expected.
        """
        numbers = _numbers(camera)
        if numbers.shape == (6,):
            raise ValueError("camera: expected fx,fy,cx,cy in pixels, or a 3x3 or 3x4 matrix, got 6 numbers")
        return cls._of(numbers, width, height)

    @classmethod
    def checked(cls, camera: Any, width: int, height: int) -> tuple[Lens, tuple[str, ...]]:
        """The camera of an image of this size, and what is odd about it.

        Args:
            camera: as for `of`, or fx, fy, cx, cy, width, height of the images that it was calibrated on.

        Raises:
            ValueError: where it cannot belong to the image, as ``monolift detect`` does.
        """
        numbers = _numbers(camera)
        if numbers.shape != (6,):
            lens = cls._of(numbers, width, height)
            return lens, check_numbers(lens.numbers, width, height, "camera")
        own = numbers[4:].tolist()
        if not all(1 <= side <= LARGEST_SIDE and side == int(side) for side in own):
            raise ValueError(f"camera: expected a size of whole pixels, got {own[0]:g} x {own[1]:g}")
        lens = cls._of(numbers[:4], int(own[0]), int(own[1]))
        odd = check_numbers(lens.numbers, lens.width, lens.height, "camera", stated=True)
        if abs(lens.width * height - lens.height * width) > max(lens.width, lens.height) + max(width, height):
            raise ValueError(
                f"camera: it is for images of {lens.width} x {lens.height}, this one has {width} x {height}: another shape, so "
                "it was cropped; give the cropped image's camera"
            )
        return lens._resized(width, height), odd

    @classmethod
    def _of(cls, numbers: Array, width: int, height: int) -> Lens:
        if numbers.shape == (4,):
            c = CameraNumbers(*numbers.tolist())
        else:
            c = CameraNumbers.of_projection(numbers.tolist(), "camera")
        values = [c.fx, c.fy, c.cx, c.cy, *c.translation]
        if not all(map(math.isfinite, values)) or c.fx <= 0 or c.fy <= 0:
            raise ValueError(f"camera: expected finite numbers and positive focal lengths, got {values[:4]}")
        return cls(c.fx, c.fy, c.cx, c.cy, *c.translation, width, height)

    @property
    def numbers(self) -> CameraNumbers:
        return CameraNumbers(self.fx, self.fy, self.cx, self.cy, self.translation)

    def _resized(self, width: int, height: int) -> Lens:
        """Camera of the same image at another size."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=sx * (self.cx + 0.5) - 0.5,
            cy=sy * (self.cy + 0.5) - 0.5,
            width=width,
            height=height,
        )

    @property
    def translation(self) -> tuple[float, float, float]:
        return (self.tx, self.ty, self.tz)

    def scaled_and_cut(self, scale: float, left: float, top: float, width: int, height: int) -> Lens:
        """Camera of the window at (left, top) of the image scaled by ``scale``."""
        return replace(
            self,
            fx=self.fx * scale,
            fy=self.fy * scale,
            cx=scale * (self.cx + 0.5) - 0.5 - left,
            cy=scale * (self.cy + 0.5) - 0.5 - top,
            width=width,
            height=height,
        )

    def pixels(self, points: Array) -> Array:
        """(..., 2) of points (..., 3); depth held at 1 mm for what is behind the camera."""
        z = np.maximum(points[..., 2] + self.tz, 1e-3)
        u = self.fx * (points[..., 0] + self.tx) / z + self.cx
        v = self.fy * (points[..., 1] + self.ty) / z + self.cy
        return np.stack([u, v], -1)

    def points(self, pixels: Array, z: Array) -> Array:
        """(..., 3) with camera-frame depth z seen at pixels (..., 2): the inverse of `pixels`."""
        depth = z + self.tz
        x = (pixels[..., 0] - self.cx) * depth / self.fx - self.tx
        y = (pixels[..., 1] - self.cy) * depth / self.fy - self.ty
        return np.stack([x, y, z], -1)

    def inside(self, boxes2d: Array) -> Array:
        """Rectangles (N, 4) cut to the image, where its size is known."""
        if not (self.width and self.height):
            return boxes2d
        limit = np.array([self.width - 1, self.height - 1] * 2, boxes2d.dtype)
        return np.minimum(np.maximum(boxes2d, 0), limit)


def _numbers(camera: Any) -> Array:
    """(4,), (6,), (3, 3) or (3, 4) numbers, float64. Raises ValueError for anything else."""
    try:
        numbers = np.asarray(camera.split(",") if isinstance(camera, str) else camera, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape not in ((4,), (6,), (3, 3), (3, 4)):
        raise ValueError(
            f"camera: expected fx,fy,cx,cy in pixels, or a 3x3 or 3x4 matrix, got {repr(camera)[:80]}"
        )
    return numbers


def wrap(angle: Array) -> Array:
    """Radians to [-pi, pi)."""
    return angle - 2 * math.pi * np.floor((angle + math.pi) / (2 * math.pi))


def corners(center: Array, size: Array, yaw: Array) -> Array:
    """(N, 8, 3) of boxes with size (length, height, width)."""
    own = CORNER_SIGNS * size[:, None] / 2
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y, z = own[..., 0], own[..., 1], own[..., 2]
    return np.stack([c * x + s * z, y, -s * x + c * z], -1) + center[:, None]


def rectangles(center: Array, size: Array, yaw: Array, lens: Lens, clip: bool = True) -> Array:
    """(N, 4) round the part of each box in front of the camera, with ``clip`` cut to the image; zeros for a box wholly behind.

    Edges that cross the near plane are cut there: corners behind the camera would project to the wrong side.
    """
    points = corners(center, size, yaw)
    start, end = points[:, _EDGES[:, 0]], points[:, _EDGES[:, 1]]
    z0, z1 = start[..., 2] + lens.tz, end[..., 2] + lens.tz
    crossing = (z0 < NEAR_PLANE) != (z1 < NEAR_PLANE)
    share = np.clip((NEAR_PLANE - z0) / np.where(crossing, z1 - z0, 1.0), 0, 1)[..., None]
    cut = np.where(crossing[..., None], start + share * (end - start), points[:, :1])
    visible = np.concatenate([points[..., 2] + lens.tz >= NEAR_PLANE, crossing], 1)[..., None]
    pixels = lens.pixels(np.concatenate([points, cut], 1))
    low = np.where(visible, pixels, np.inf).min(1)
    high = np.where(visible, pixels, -np.inf).max(1)
    rectangle = np.where(visible.any(1), np.concatenate([low, high], 1), 0.0)
    return lens.inside(rectangle) if clip else rectangle


def best_of_rivals(boxes2d: Array, scores: Array, labels: Array, threshold: float) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression within each label: indices of the kept, best first; equal scores keep their order."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for i in order.tolist():
        if all(labels[i] != labels[k] or _overlap(boxes2d[i], boxes2d[k]) <= threshold for k in kept):
            kept.append(i)
    return np.array(kept, np.int64)


def beaten_by_rival(boxes2d: Array, scores: Array, labels: Array, threshold: float) -> npt.NDArray[np.bool_]:
    """Which boxes overlap a better one of another label by an IoU above the threshold; of equal scores the first is better."""
    order = np.argsort(-scores, kind="stable").tolist()
    beaten = np.zeros(len(scores), bool)
    for n, i in enumerate(order):
        for k in order[:n]:
            if labels[k] != labels[i] and _overlap(boxes2d[k], boxes2d[i]) > threshold:
                beaten[i] = True
                break
    return beaten


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two rectangles."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))
