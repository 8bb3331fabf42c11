"""Suspicious labels: behind the camera, off their 2D box, duplicate, of impossible size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import KittiLabels
from monolift.evaluation.overlap import area_2d, intersection_2d, iou_3d
from monolift.evaluation.protocol import DONT_CARE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NEAR = 0.1
"""Metres: boxes are cut at this plane before projection, because what lies behind the camera projects upside down."""
MIN_IOU = 0.5
DOUBLE_IOU = 0.8
ALPHA_TOLERANCE = 0.3

# Corners of the unit box around its bottom centre (length, height, width), and its twelve edges.
_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-1.0, 0.0) for z in (-0.5, 0.5)])
_EDGES = np.array([(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1])


def find(
    table: KittiLabels,
    found: Sequence[tuple[str, str]],
    cameras: Mapping[str, FloatArray],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, list[str]]:
    """Findings by kind, each place as `label_2/000123.txt:4 Car ...`; kinds without findings are left out.

    `found` gives the (image id, place) of each row; cameras P2 and sizes (width, height) by image id, as far as known.
    """
    objects = np.flatnonzero([name.lower() != DONT_CARE for name in table.names])
    kinds: dict[str, list[str]] = {}

    def add(kind: str, rows: npt.ArrayLike, extra: Sequence[str] | None = None) -> None:
        for k, row in enumerate(np.asarray(rows, dtype=np.int64).tolist()):
            more = f" {extra[k]}" if extra else ""
            kinds.setdefault(kind, []).append(f"{found[row][1]} {table.names[row]}{more}")

    z, size = table.bottom[objects, 2], table.size_hwl[objects]
    unknown = (table.bottom[objects] == -1000).any(axis=1)
    add(
        "objects behind the camera (z <= 0)",
        objects[(z <= 0) & ~unknown],
        [f"z {v:g}" for v in z[(z <= 0) & ~unknown]],
    )
    add("objects with a size of 0 or less", objects[(size <= 0).any(axis=1) & ~unknown])
    boxes = table.boxes2d[objects]
    add("2D boxes without area", objects[(boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])])
    state = table.occlusion[objects]
    add("occlusions other than 0, 1, 2, 3 (or -1)", objects[(state < -1) | (state > 3)])
    share = table.truncation[objects]
    add("truncations outside 0 to 1", objects[((share < 0) & (share != -1)) | (share > 1)])
    turned = _alpha_error(table, objects[~unknown])
    wrong = np.abs(turned) > ALPHA_TOLERANCE
    add(
        f"objects whose alpha is not rotation_y - atan2(x, z) (off by more than {ALPHA_TOLERANCE:g})",
        objects[~unknown][wrong],
        [f"off by {v:+.2f}" for v in turned[wrong]],
    )
    rows, overlaps = _projected_overlap(
        table, objects[~unknown & (z > 0) & (size > 0).all(axis=1)], found, cameras, sizes
    )
    off = overlaps < MIN_IOU
    add(f"3D boxes whose projection misses the 2D box (IoU below {MIN_IOU:g})", rows[off],
        [f"IoU {v:.2f}" for v in overlaps[off]])  # fmt: skip
    first, second = _doubles(table, objects, found)
    add(
        f"duplicates (same class, 3D IoU above {DOUBLE_IOU:g}, or equal 2D boxes)",
        second,
        [f"repeats {found[i][1]}" for i in first],
    )
    return kinds


def project_box(p2: FloatArray, bottom: FloatArray, size_hwl: FloatArray, yaw: FloatArray) -> FloatArray:
    """(N, 12, 2, 2) the twelve edges of N boxes in pixels by P2 (N, 3, 4), cut at NEAR; NaN for edges wholly behind it."""
    points = _CORNERS * size_hwl[:, None, [2, 0, 1]]
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x = cos * points[..., 0] + sin * points[..., 2] + bottom[:, None, 0]
    y = points[..., 1] + bottom[:, None, 1]
    z = -sin * points[..., 0] + cos * points[..., 2] + bottom[:, None, 2]
    corners = np.stack([x, y, z], axis=-1)
    ends = corners[:, _EDGES]  # (N, 12, 2 ends, 3)
    a, b = ends[:, :, 0], ends[:, :, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (NEAR - a[..., 2]) / (b[..., 2] - a[..., 2])
    cut = a + np.nan_to_num(t, posinf=0.0, neginf=0.0)[..., None] * (b - a)
    behind_a, behind_b = a[..., 2] < NEAR, b[..., 2] < NEAR
    a = np.where(behind_a[..., None], cut, a)
    b = np.where(behind_b[..., None], cut, b)
    line = np.stack([a, b], axis=2)
    line[behind_a & behind_b] = np.nan
    pixels = np.einsum("nij,nekj->neki", p2[:, :, :3], line) + p2[:, None, None, :, 3]
    return pixels[..., :2] / pixels[..., 2:]


def _projected_overlap(
    table: KittiLabels,
    rows: IntArray,
    found: Sequence[tuple[str, str]],
    cameras: Mapping[str, FloatArray],
    sizes: Mapping[str, tuple[int, int]],
) -> tuple[IntArray, FloatArray]:
    """IoU of each 2D box with the projected 3D box, cut to the image where its size is known."""
    rows = np.array([row for row in rows if found[row][0] in cameras], dtype=np.int64)
    if not len(rows):
        return rows, np.zeros(0)
    p2 = np.stack([cameras[found[row][0]] for row in rows])
    pixels = project_box(p2, table.bottom[rows], table.size_hwl[rows], table.rotation_y[rows])
    low, high = np.nanmin(pixels, axis=(1, 2)), np.nanmax(pixels, axis=(1, 2))
    # labels end at the last pixel's centre; without an image the labels' own extent has to do
    extent = table.boxes2d[:, 2:].max(axis=0)
    limit = [np.subtract(sizes[i], 1) if (i := found[row][0]) in sizes else extent for row in rows]
    box = np.concatenate([np.maximum(low, 0), np.minimum(high, np.array(limit, dtype=np.float64))], axis=1)
    common = intersection_2d(box, table.boxes2d[rows])
    union = np.abs(area_2d(box)) + np.abs(area_2d(table.boxes2d[rows])) - common
    return rows, np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _alpha_error(table: KittiLabels, rows: IntArray) -> FloatArray:
    """Wrapped difference of alpha to rotation_y - atan2(x, z); 0 where alpha is unknown."""
    ray = np.arctan2(table.bottom[rows, 0], table.bottom[rows, 2])
    error = table.alpha[rows] - (table.rotation_y[rows] - ray)
    return np.where(table.alpha[rows] == -10, 0.0, (error + np.pi) % (2 * np.pi) - np.pi)


def _doubles(
    table: KittiLabels, objects: IntArray, found: Sequence[tuple[str, str]]
) -> tuple[IntArray, IntArray]:
    """Pairs of rows of one image and class that describe one object."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row in objects.tolist():
        groups.setdefault((found[row][0], table.names[row]), []).append(row)
    pairs = [(a, b) for rows in groups.values() for k, b in enumerate(rows) for a in rows[:k]]
    if not pairs:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    first, second = np.array(pairs).T
    boxes = np.column_stack([table.bottom, table.size_hwl, table.rotation_y])
    same_flat = (table.boxes2d[first] == table.boxes2d[second]).all(axis=1)
    same = same_flat | (iou_3d(boxes[first], boxes[second]) > DOUBLE_IOU)
    return first[same], second[same]
