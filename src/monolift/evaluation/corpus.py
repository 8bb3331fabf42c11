"""Ground truth and predictions of one evaluation, and the pairs of boxes in them that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import FIELDS
from monolift.data.formats.kitti_table import KittiTable
from monolift.errors import InputError
from monolift.evaluation import overlap
from monolift.evaluation.protocol import CLASSES, DONT_CARE, LEVELS, NEIGHBOURS

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UNKNOWN_PLACE = -1000.0
_PAIRS_AT_ONCE = 250_000
_LARGEST = 1e9
"""Lengths beyond this are no lengths, and their volumes overflow."""

_CODES = {name.lower(): i for i, name in enumerate(CLASSES)}
_GROUPS = {**_CODES, **{v: _CODES[k] for k, v in NEIGHBOURS.items()}, DONT_CARE: len(CLASSES)}
_DONT_CARE_GROUP = len(CLASSES)


@dataclass(frozen=True, eq=False)
class Corpus:
    """What is compared: G ground truths and D detections of the same images.

    Raises:
        InputError: naming file, line and field, where a size is negative (the official program crashes on it) or a length
            is absurd.
    """

    ids: tuple[str, ...]
    gt: KittiTable
    det: KittiTable

    def __post_init__(self) -> None:
        for table in (self.gt, self.det):
            _check_sizes(table)

    @cached_property
    def gt_class(self) -> IntArray:
        """(G,) index into CLASSES, -1 for other names; names are compared without regard to case."""
        return _encode(self.gt.labels.names, _CODES)

    @cached_property
    def gt_group(self) -> IntArray:
        """(G,) the class in whose table this one appears: its own, or as a neighbour; len(CLASSES) for DontCare, or -1."""
        return _encode(self.gt.labels.names, _GROUPS)

    @cached_property
    def det_class(self) -> IntArray:
        """(D,) index into CLASSES, -1 for other names."""
        return _encode(self.det.labels.names, _CODES)

    @cached_property
    def det_height(self) -> FloatArray:
        """(D,) pixels."""
        return np.abs(self.det.labels.boxes2d[:, 3] - self.det.labels.boxes2d[:, 1])

    @cached_property
    def det_small(self) -> BoolArray:
        """(D, L) lower than the level's limit, whatever the class: the official program tests the height first."""
        return self.det_height[:, None] < np.array([level.min_height for level in LEVELS])

    @cached_property
    def gt_counts(self) -> BoolArray:
        """(G, L) within the level's limits; the class is not looked at."""
        labels = self.gt.labels
        height = labels.boxes2d[:, 3] - labels.boxes2d[:, 1]
        within = [
            (labels.occlusion <= v.max_occlusion)
            & (labels.truncation <= v.max_truncation)
            & (height > v.min_height)
            for v in LEVELS
        ]
        return np.stack(within, axis=1)

    @cached_property
    def pairs(self) -> Pairs:
        """Every overlapping pair that may matter to some table."""
        return _pair_up(self)


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of a ground truth and a detection of one image, sorted by ground truth, then detection, in file order."""

    gt: IntArray
    det: IntArray
    overlap: dict[str, FloatArray]
    """By metric, (P,): intersection over union; for DontCare, intersection over the detection's own size."""


def _encode(names: tuple[str, ...], codes: dict[str, int]) -> IntArray:
    known = {name: codes.get(name.lower(), -1) for name in set(names)}
    return np.array([known[name] for name in names], dtype=np.int64)


def _check_sizes(table: KittiTable) -> None:
    labels = table.labels
    numbers = np.column_stack([labels.boxes2d, labels.size_hwl, labels.bottom, labels.rotation_y])
    for row, column in np.argwhere(np.abs(numbers) > _LARGEST)[:1].tolist():
        raise InputError(
            f"{table.where(row)}: {FIELDS[4 + column]}: expected pixels, metres or radians within {_LARGEST:g}, got "
            f"{numbers[row, column]:g}"
        )
    placed = (labels.bottom[:, 0] != UNKNOWN_PLACE) & (labels.bottom[:, 2] != UNKNOWN_PLACE)
    bad = (labels.size_hwl < 0) & placed[:, None]
    for row, column in np.argwhere(bad).tolist():
        if labels.names[row].lower() != DONT_CARE:
            field = ("height", "width", "length")[column]
            raise InputError(
                f"{table.where(row)}: {field}: expected a size in metres of at least 0, got "
                f"{labels.size_hwl[row, column]:g} (a box known only in 2D has -1 -1 -1 -1000 -1000 -1000 -10)"
            )


def within_images(
    corpus: Corpus, gt_rows: IntArray, det_rows: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs of these ground truths and detections that share an image, in blocks of whole ground truths."""
    per_image = np.bincount(corpus.det.image[det_rows], minlength=len(corpus.ids))
    first = np.cumsum(per_image) - per_image
    n = per_image[corpus.gt.image[gt_rows]]
    ends = np.cumsum(n)
    start = 0
    while start < len(gt_rows):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        block, count = gt_rows[start:stop], n[start:stop]
        gt = np.repeat(block, count)
        within = np.arange(len(gt)) - np.repeat(np.cumsum(count) - count, count)
        yield gt, det_rows[np.repeat(first[corpus.gt.image[block]], count) + within]
        start = stop


def _candidates(corpus: Corpus) -> Iterator[tuple[IntArray, IntArray]]:
    """The pairs that some table may look at."""
    small: BoolArray = np.asarray(corpus.det_small.any(axis=1))
    gt_rows, det_rows = np.flatnonzero(corpus.gt_group >= 0), np.flatnonzero((corpus.det_class >= 0) | small)
    for gt, det in within_images(corpus, gt_rows, det_rows):
        group = corpus.gt_group[gt]
        # a detection of another class matters only if it is small enough to be ignored at some level
        keep = (group == corpus.det_class[det]) | (group == _DONT_CARE_GROUP) | small[det]
        yield gt[keep], det[keep]


def _pair_up(corpus: Corpus) -> Pairs:
    g, d = corpus.gt.labels, corpus.det.labels
    reach_g = np.hypot(g.size_hwl[:, 1], g.size_hwl[:, 2]) / 2
    reach_d = np.hypot(d.size_hwl[:, 1], d.size_hwl[:, 2]) / 2
    blocks = []
    for gt, det in _candidates(corpus):
        flat = overlap.intersection_2d(d.boxes2d[det], g.boxes2d[gt])
        apart = np.hypot(d.bottom[det, 0] - g.bottom[gt, 0], d.bottom[det, 2] - g.bottom[gt, 2])
        near = apart < reach_d[det] + reach_g[gt]
        _check_empty(corpus, gt, det)
        keep = (flat > 0) | near
        blocks.append((gt[keep], det[keep], flat[keep], near[keep]))
    if not blocks:
        nothing = np.zeros(0, dtype=np.int64)
        blocks = [(nothing, nothing, nothing.astype(np.float64), nothing.astype(bool))]
    gt, det, flat, near = (np.concatenate(column) for column in zip(*blocks, strict=True))

    ground = np.zeros(len(gt))
    at = np.flatnonzero(near)
    ground[at] = overlap.intersection_bev(_rectangles(corpus.det, det[at]), _rectangles(corpus.gt, gt[at]))
    top = np.maximum(d.bottom[det, 1] - d.size_hwl[det, 0], g.bottom[gt, 1] - g.size_hwl[gt, 0])
    solid = ground * np.maximum(np.minimum(d.bottom[det, 1], g.bottom[gt, 1]) - top, 0.0)

    alone = corpus.gt_group[gt] == _DONT_CARE_GROUP
    footprint_d = d.size_hwl[:, 1] * d.size_hwl[:, 2]
    footprint_g = g.size_hwl[:, 1] * g.size_hwl[:, 2]
    sizes = {
        "bbox": (flat, overlap.area_2d(d.boxes2d)[det], overlap.area_2d(g.boxes2d)[gt]),
        "bev": (ground, footprint_d[det], footprint_g[gt]),
        "3d": (solid, (footprint_d * d.size_hwl[:, 0])[det], (footprint_g * g.size_hwl[:, 0])[gt]),
    }
    ratios = {
        metric: _ratio(common, a, np.where(alone, common, b)) for metric, (common, a, b) in sizes.items()
    }
    return Pairs(gt, det, ratios)


def _check_empty(corpus: Corpus, gt: IntArray, det: IntArray) -> None:
    """Two boxes without ground area in one image have no union: there the official program dies."""
    flat_d = (corpus.det.labels.size_hwl[:, 1:] == 0).any(axis=1)[det]
    flat_g = (corpus.gt.labels.size_hwl[:, 1:] == 0).any(axis=1)[gt]
    above = [c for c in range(len(CLASSES)) if is_evaluated(corpus, "bev", c)]
    both = np.flatnonzero(flat_d & flat_g & np.isin(corpus.gt_group[gt], above))
    if len(both):
        row, other = int(det[both[0]]), int(gt[both[0]])
        field = "width" if corpus.det.labels.size_hwl[row, 1] == 0 else "length"
        raise InputError(
            f"{corpus.det.where(row)}: {field}: expected a size above 0, got 0, as at {corpus.gt.where(other)}: "
            "the overlap of two empty boxes is undefined"
        )


def is_evaluated(corpus: Corpus, metric: str, class_index: int) -> bool:
    """Whether the official program evaluates this at all: one detection of the class, anywhere, has to qualify."""
    rows, labels = corpus.det_class == class_index, corpus.det.labels
    if metric == "bbox":
        return bool((labels.boxes2d[rows, 0] >= 0).any())
    place, size = labels.bottom[rows], labels.size_hwl[rows]
    fit = (
        (place[:, 0] != UNKNOWN_PLACE) & (place[:, 2] != UNKNOWN_PLACE) & (size[:, 1] > 0) & (size[:, 2] > 0)
    )
    if metric == "3d":
        fit &= (place[:, 1] != UNKNOWN_PLACE) & (size[:, 0] > 0)
    return bool(fit.any())


def _rectangles(table: KittiTable, rows: IntArray) -> FloatArray:
    """(P, 5) x, z, length, width, yaw."""
    labels = table.labels
    place, size = labels.bottom[rows], labels.size_hwl[rows]
    return np.column_stack([place[:, 0], place[:, 2], size[:, 2], size[:, 1], labels.rotation_y[rows]])


def _ratio(common: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """common / (a + b - common), and 0 where nothing is common."""
    union = a + b - common
    return np.divide(common, union, out=np.zeros_like(common), where=(common > 0) & (union > 0))
