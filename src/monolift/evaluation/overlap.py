"""Overlaps of paired boxes, vectorised over the pairs: 2D, bird's-eye (rotated rectangles) and 3D.

Boxes are KITTI's: size (height, width, length), bottom centre (x, y, z), yaw about +y. In the bird's-eye plane a corner
(a, b) with |a| = length / 2 and |b| = width / 2 lies at X = cos(yaw) a + sin(yaw) b + x, Z = -sin(yaw) a + cos(yaw) b + z.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Corners of the unit rectangle in order around it.
_A = np.array([0.5, 0.5, -0.5, -0.5])
_B = np.array([0.5, -0.5, -0.5, 0.5])


def intersection_2d(a: FloatArray, b: FloatArray) -> FloatArray:
    """(P,) common area of boxes (P, 4) left, top, right, bottom, in pixels without the "+1"; inverted boxes have none."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    return np.where((width > 0) & (height > 0), width * height, 0.0)


def area_2d(boxes: FloatArray) -> FloatArray:
    """(P,) signed area, as the official program takes it: a box inverted both ways has a positive one."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersection_bev(a: FloatArray, b: FloatArray) -> FloatArray:
    """(P,) common area of rectangles (P, 5): x, z, length, width, yaw; exact for any rotation.

    With Phi the map that clamps a point into rectangle b, area(a and b) is the area that the image of a's outline encloses:
    a point inside b has one pre-image, everything else collapses onto b's outline. By Green's theorem that area is the
    integral of X dY along the outline, where X and Y, the clamped coordinates, are piecewise linear. No polygon is
    built and no edge is in or out, so coincident edges (identical boxes) cost no more than rounding.
    """
    dx, dz = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    cos_b, sin_b = np.cos(b[:, 4]), np.sin(b[:, 4])
    turn = a[:, 4] - b[:, 4]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    along, across = np.abs(a[:, 2, None]) * _A, np.abs(a[:, 3, None]) * _B
    # a's corners in b's own axes
    x0 = cos * along + sin * across + (cos_b * dx - sin_b * dz)[:, None]
    y0 = cos * across - sin * along + (sin_b * dx + cos_b * dz)[:, None]
    x1, y1 = np.roll(x0, -1, axis=1), np.roll(y0, -1, axis=1)
    half_x, half_y = np.abs(b[:, 2, None]) / 2, np.abs(b[:, 3, None]) / 2

    # Along an edge t runs from 0 to 1. X bends where it crosses +-half_x; both bends are sorted and cut to the edge.
    slope_x, slope_y = x1 - x0, y1 - y0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bend_1, bend_2 = (-half_x - x0) / slope_x, (half_x - x0) / slope_x
    bend_1, bend_2 = np.where(slope_x == 0, 0.0, bend_1), np.where(slope_x == 0, 0.0, bend_2)
    early, late = np.clip(np.minimum(bend_1, bend_2), 0, 1), np.clip(np.maximum(bend_1, bend_2), 0, 1)

    area = np.zeros(len(a))
    start = (np.zeros_like(early), x0, y0)
    for t, x, y in ((early, None, None), (late, None, None), (np.ones_like(early), x1, y1)):
        end = (t, x0 + t * slope_x if x is None else x, y0 + t * slope_y if y is None else y)
        area += _below(start, end, half_x, half_y).sum(axis=1)
        start = end
    return np.abs(area)


def _below(
    start: tuple[FloatArray, FloatArray, FloatArray],
    end: tuple[FloatArray, FloatArray, FloatArray],
    half_x: FloatArray,
    half_y: FloatArray,
) -> FloatArray:
    """The integral of X dY over a stretch on which X does not bend: X's mean over the part where Y moves, times dY."""
    (_, xs, ys), (_, xe, ye) = start, end
    low, high = np.clip(ys, -half_y, half_y), np.clip(ye, -half_y, half_y)
    rise = ye - ys
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        first, last = (low - ys) / rise, (high - ys) / rise  # the share of the stretch where |Y| < half_y
        middle = xs + 0.5 * (first + last) * (xe - xs)
    middle = np.where(low == high, 0.0, np.clip(middle, -half_x, half_x))
    return middle * (high - low)


def iou_3d(a: FloatArray, b: FloatArray) -> FloatArray:
    """(P,) intersection over union of boxes (P, 7): bottom x, y, z, height, width, length, yaw; 0 where a box is empty."""
    ground = intersection_bev(a[:, [0, 2, 5, 4, 6]], b[:, [0, 2, 5, 4, 6]])
    top = np.maximum(a[:, 1] - a[:, 3], b[:, 1] - b[:, 3])
    common = ground * np.maximum(np.minimum(a[:, 1], b[:, 1]) - top, 0.0)
    union = np.prod(a[:, 3:6], axis=1) + np.prod(b[:, 3:6], axis=1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=(common > 0) & (union > 0))
