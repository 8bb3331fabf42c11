"""Overlap of boxes: in the image, from above, and in space. Differentiable, on any device.

Every IoU comes pairwise, (N,) against (M,) boxes giving (N, M), and ``_paired``, box i against box i giving (N,).

Promised for finite boxes, in float32 and float64: identical boxes have exactly 1, also when turned by pi (or, if square, by
pi / 2); touching and separate ones exactly 0; a box without extent (a zero or negative side, an area or volume below
``NO_EXTENT``) has 0 with everything, itself included; no result and no gradient is NaN.

The overlap from above needs no sorting of vertices and no case for parallel or coincident sides. In the frame of box A,
A is the rectangle |x| <= p, |z| <= q, and the field (0, clamp(z, -q, q)) on |x| <= p has divergence 1 inside A and 0
outside. By the divergence theorem the area of A and B together is the flux of that field out of B: a sum over the four
sides of B, each a straight line whose clamped mean has a closed form.
"""

from __future__ import annotations

import math

import torch

from monolift.geometry.boxes import Boxes3D
from monolift.typing import Float, Tensor

# Square or cubic metres (pixels): a cube of 10 nm. Dividing by less lets a float32 gradient overflow.
NO_EXTENT = 1e-24

# -- in the image ---------------------------------------------------------------------------------------------------


def iou_2d(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """IoU of every 2D box (x1, y1, x2, y2) of ``a`` with every one of ``b``; a width is x2 - x1, as in KITTI."""
    return _iou_2d(a[:, None], b[None])


def iou_2d_paired(a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """IoU of 2D box i of ``a`` with 2D box i of ``b``."""
    return _iou_2d(a, b)


def _iou_2d(a: Tensor, b: Tensor) -> Tensor:
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    area_a, area_b = ((r[..., 2:] - r[..., :2]).clamp_min(0).prod(-1) for r in (a, b))
    return _ratio(overlap.clamp_min(0).prod(-1), area_a, area_b)


# -- from above and in space --------------------------------------------------------------------------------------------


def bev_intersection(a: Boxes3D, b: Boxes3D) -> Float[Tensor, " n"]:
    """Area shared by box i of ``a`` and box i of ``b`` seen from above, square metres."""
    return _shared_area(_parts(a), _parts(b))


def iou_bev(a: Boxes3D, b: Boxes3D) -> Float[Tensor, "n m"]:
    """IoU seen from above of every box of ``a`` with every box of ``b``."""
    return _iou_bev(_parts(a, 1), _parts(b, 0))


def iou_bev_paired(a: Boxes3D, b: Boxes3D) -> Float[Tensor, " n"]:
    """IoU seen from above of box i of ``a`` with box i of ``b``."""
    return _iou_bev(_parts(a), _parts(b))


def iou_3d(a: Boxes3D, b: Boxes3D) -> Float[Tensor, "n m"]:
    """IoU of the volumes of every box of ``a`` with every box of ``b``."""
    return _iou_3d(_parts(a, 1), _parts(b, 0))


def iou_3d_paired(a: Boxes3D, b: Boxes3D) -> Float[Tensor, " n"]:
    """IoU of the volumes of box i of ``a`` and box i of ``b``."""
    return _iou_3d(_parts(a), _parts(b))


_Parts = tuple[Tensor, Tensor, Tensor]  # center (..., 3), size (..., 3), yaw (...)


def _parts(boxes: Boxes3D, axis: int | None = None) -> _Parts:
    """The tensors of the boxes, with a new axis to broadcast along; negative sides count as zero."""
    parts = boxes.center, boxes.size.clamp_min(0), boxes.yaw
    return parts if axis is None else tuple(t.unsqueeze(axis) for t in parts)  # type: ignore[return-value]


def _iou_bev(a: _Parts, b: _Parts) -> Tensor:
    return _ratio(_shared_area(a, b), *(size[..., 0] * size[..., 2] for _, size, _ in (a, b)))


def _iou_3d(a: _Parts, b: _Parts) -> Tensor:
    # Heights are compared in coordinates centred on a: y + h / 2 - (y - h / 2) is not h when y is large.
    step, half_a, half_b = b[0][..., 1] - a[0][..., 1], a[1][..., 1] / 2, b[1][..., 1] / 2
    height = torch.minimum(half_a, step + half_b) - torch.maximum(-half_a, step - half_b)
    # The order of the factors is that of the intersection, so that identical boxes give identical products.
    volumes = (size[..., 0] * size[..., 2] * size[..., 1] for _, size, _ in (a, b))
    return _ratio(_shared_area(a, b) * height.clamp_min(0), *volumes)


def _ratio(shared: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """shared / (a + b - shared), 0 for two boxes without extent."""
    shared = torch.minimum(shared, torch.minimum(a, b))
    union = a + b - shared
    solid = union > NO_EXTENT
    return torch.where(solid, shared / torch.where(solid, union, 1.0), 0.0)


def _shared_area(a: _Parts, b: _Parts) -> Tensor:
    """Area shared seen from above, by the flux of the module's docstring; all arguments broadcast."""
    (center_a, size_a, yaw_a), (center_b, size_b, yaw_b) = a, b
    angle, quarter = _turn(yaw_a, yaw_b)
    # B turned by a quarter is B with its sides exchanged: only |angle| <= pi / 4 is left, and exactness with it.
    half_b = torch.where(quarter[..., None], size_b[..., [2, 0]], size_b[..., [0, 2]]) / 2
    half_a = size_a[..., [0, 2]] / 2
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Centre of B in the frame of A. Subtracting first keeps the digits of boxes far from the origin.
    step = _turned((center_b - center_a)[..., [0, 2]], torch.cos(yaw_a), torch.sin(yaw_a))

    signs = half_b.new_tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]])  # clockwise in (x, z)
    corners = step[..., None, :] + _turned(signs * half_b[..., None, :], cos[..., None], -sin[..., None])
    start, end = corners, corners.roll(-1, -2)
    rightwards = start[..., 0] <= end[..., 0]
    left = torch.where(rightwards[..., None], start, end)
    right = torch.where(rightwards[..., None], end, start)
    p, q = half_a[..., None, 0], half_a[..., None, 1]
    width = torch.clamp(right[..., 0], -p, p) - torch.clamp(left[..., 0], -p, p)
    slope = right[..., 1] - left[..., 1]
    z_left = left[..., 1] + slope * _share_above(-right[..., 0], -left[..., 0], p)
    z_right = right[..., 1] - slope * _share_above(left[..., 0], right[..., 0], p)
    flux = width * _clamped_mean(torch.minimum(z_left, z_right), torch.maximum(z_left, z_right), q)
    area = torch.where(rightwards, flux, -flux).sum(-1)

    # Where an axis separates the two, rounding must not leave a crumb.
    apart = _apart(step, half_a, half_b, cos, sin) | _apart(_turned(step, cos, sin), half_b, half_a, cos, sin)
    return torch.where(apart, 0.0, area.clamp_min(0))


def _turn(yaw_a: Tensor, yaw_b: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation from A to B without its quarter turns, in [-pi/4, pi/4], and whether their number is odd.

    Differences within the rounding of the yaws become exactly 0 (their gradient stays 1), so that a box turned by pi is
    parallel to itself although pi has no exact value.
    """
    turn = yaw_b - yaw_a
    quarters = torch.round(turn.detach() / (math.pi / 2))
    angle = turn - quarters * (math.pi / 2)
    rounding = 2 * torch.finfo(turn.dtype).eps * (yaw_a.abs() + yaw_b.abs() + 1).detach()
    angle = torch.where(angle.abs() <= rounding, angle - angle.detach(), angle)
    return angle, quarters % 2 != 0


def _turned(xz: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x, z) of the parent frame in the frame of yaw (cos, sin); the inverse takes -sin."""
    x, z = xz.unbind(-1)
    return torch.stack([cos * x - sin * z, sin * x + cos * z], -1)


def _share_above(low: Tensor, high: Tensor, bound: Tensor) -> Tensor:
    """The share of [low, high] above ``bound`` if it lies between the two, else 0."""
    length = high - low
    between = (low < bound) & (bound < high) & (length > torch.finfo(length.dtype).tiny)
    return torch.where(between, (high - bound) / torch.where(between, length, 1.0), 0.0)


def _clamped_mean(low: Tensor, high: Tensor, bound: Tensor) -> Tensor:
    """Mean of clamp(z, -bound, bound) for z running evenly from ``low`` to ``high``."""
    middle = (torch.clamp(low, -bound, bound) + torch.clamp(high, -bound, bound)) / 2
    above, below = _share_above(low, high, bound), _share_above(-high, -low, bound)
    return middle + above * (bound - middle) - below * (bound + middle)


def _apart(step: Tensor, half: Tensor, half_other: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Whether an axis of a rectangle round the origin separates it from another, ``step`` away and turned."""
    reach = _turned(half_other, cos, -sin.abs()), _turned(half_other, cos, sin.abs())
    spread = torch.stack([reach[0][..., 0], reach[1][..., 1]], -1)
    return (step.abs() >= half + spread).any(-1)
