"""Diagnostics of an AP: recall by depth and rotation, errors of matched boxes, causes of false negatives.

These are this project's own measures, not KITTI's. Objects are the labels of a class within the limits of "hard". For errors
and causes an object is paired with a detection by their 2D boxes (IoU > 0.5), for recall by the overlap in question; each
time the detections choose in the order of their scores, each the free object of largest overlap, and no score is too low.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import KittiLabels
from monolift.evaluation.ap import Matched
from monolift.evaluation.corpus import Corpus, within_images
from monolift.evaluation.overlap import area_2d, intersection_2d, iou_3d
from monolift.evaluation.protocol import CLASSES, LEVELS, LOOSE, STRICT

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DEPTH_EDGES = np.array([0.0, 10, 20, 30, 40, 50, 60, 70, 80])
"""Metres; what is farther falls into the last bin."""
YAW_EDGES = np.arange(-180.0, 181, 30)
"""Degrees of rotation_y; 0 faces right, -90 away from the camera (KITTI's convention)."""
IOU_2D = 0.5

CAUSES = {
    "found": "found",
    "unseen": "2D missed: no detection of any class here",
    "confused": "2D missed: a detection of another class here",
    "depth": "depth off: right once slid along its ray to the true depth",
    "size": "size off: right with the true size",
    "yaw": "yaw off: right with the true yaw",
    "place": "place off: right at the true place, depth alone does not fix it",
    "several": "several at once: no single correction fixes it",
    "taken": "overlaps enough, but counts for a neighbour",
}


@dataclass(frozen=True)
class Binned:
    """Counts per bin: all objects, those found by each overlap, and the objects of the training split if it was given."""

    edges: list[float]
    objects: list[int]
    found: dict[str, list[int]]
    training: list[int] | None


@dataclass(frozen=True)
class ClassDiagnostics:
    """One class; None where nothing was matched."""

    objects: int
    matched_2d: int
    recall_by_depth: Binned
    recall_by_rotation: Binned
    depth_error: dict[str, list[float | None]]
    """Per depth bin: count, mean_abs and median_abs (m), bias (m, detected minus labelled), mean_relative (share)."""
    size_error: dict[str, dict[str, float | None]]
    """Per dimension: mean_abs (m), bias (m), mean_relative (share)."""
    yaw_error: dict[str, Any]
    """median, mean (degrees), flipped (share beyond 90), and counts in bins of 10 degrees from 0 to 180."""
    failures: dict[str, dict[str, list[int]]]
    """Per mode and cause the number of objects in each depth bin."""
    curves: list[dict[str, Any]]
    """Full precision-recall curves: metric, min_overlap, difficulty, recall, precision."""


def diagnose(
    corpus: Corpus, matched: Sequence[Matched], training: KittiLabels | None = None
) -> dict[str, ClassDiagnostics]:
    """Diagnostics of every class that has labels or detections. `training`: labels for the histograms behind the recall."""
    return {
        name: _diagnose_class(corpus, c, [m for m in matched if m.class_name == name], training)
        for c, name in enumerate(CLASSES)
        if (corpus.gt_class == c).any() or (corpus.det_class == c).any()
    }


def to_json(diagnostics: dict[str, ClassDiagnostics]) -> str:
    """JSON text of the diagnostics, with the meaning of the causes."""
    classes = {name: asdict(one) for name, one in diagnostics.items()}
    return json.dumps({"causes": CAUSES, "classes": classes}, indent=1)


def assign(corpus: Corpus, class_index: int, metric: str, least: float) -> IntArray:
    """(G,) the detection given to each object of a class, or -1: one to one, by falling score, by largest overlap."""
    pairs, score = corpus.pairs, corpus.det.labels.score
    assert score is not None
    own = (corpus.det_class[pairs.det] == class_index) & (corpus.gt_class[pairs.gt] == class_index)
    use = np.flatnonzero(own & (pairs.overlap[metric] > least))
    gt, det, overlap = pairs.gt[use], pairs.det[use], pairs.overlap[metric][use]
    order = np.lexsort((-overlap, det, -score[det]))
    taker = np.full(len(corpus.gt.labels), -1)
    placed: set[int] = set()
    for g, d in zip(gt[order].tolist(), det[order].tolist(), strict=True):
        if taker[g] < 0 and d not in placed:
            taker[g] = d
            placed.add(d)
    return taker


def _covered_by_others(corpus: Corpus, class_index: int, rows: IntArray) -> BoolArray:
    """(N,) whether a detection of another class lies where the object is."""
    others = np.flatnonzero((corpus.det_class >= 0) & (corpus.det_class != class_index))
    covered = np.zeros(len(corpus.gt.labels), dtype=bool)
    for gt, det in within_images(corpus, rows, others):
        a, b = corpus.gt.labels.boxes2d[gt], corpus.det.labels.boxes2d[det]
        common = intersection_2d(a, b)
        covered[gt[common > IOU_2D * (area_2d(a) + area_2d(b) - common)]] = True
    return covered[rows]


def _diagnose_class(
    corpus: Corpus, c: int, matched: Sequence[Matched], training: KittiLabels | None
) -> ClassDiagnostics:
    rows = np.flatnonzero((corpus.gt_class == c) & corpus.gt_counts[:, -1])
    overlaps = {
        "2D": ("bbox", STRICT),
        "bird's eye, strict": ("bev", STRICT),
        "bird's eye, loose": ("bev", LOOSE),
        "3D, strict": ("3d", STRICT),
        "3D, loose": ("3d", LOOSE),
    }
    found = {
        f"{title} (> {table[metric][c]:g})": assign(corpus, c, metric, table[metric][c])[rows] >= 0
        for title, (metric, table) in overlaps.items()
    }
    partner = assign(corpus, c, "bbox", IOU_2D)[rows]
    gt, det = rows[partner >= 0], partner[partner >= 0]
    train = None if training is None else _counted(training, CLASSES[c])
    labels = corpus.gt.labels
    return ClassDiagnostics(
        objects=len(rows),
        matched_2d=len(gt),
        recall_by_depth=_binned(DEPTH_EDGES, _depth_bin, labels, rows, found, train),
        recall_by_rotation=_binned(YAW_EDGES, _yaw_bin, labels, rows, found, train),
        depth_error=_depth_error(corpus, gt, det),
        size_error=_size_error(corpus, gt, det),
        yaw_error=_yaw_error(corpus, gt, det),
        failures={mode: _failures(corpus, c, rows, partner, table["3d"][c]) for mode, table in
                  (("strict", STRICT), ("loose", LOOSE))},
        curves=[curve for one in matched for curve in _curves(one)],
    )  # fmt: skip


def _counted(labels: KittiLabels, name: str) -> KittiLabels:
    limits = LEVELS[-1]
    height = labels.boxes2d[:, 3] - labels.boxes2d[:, 1]
    named = np.array([n.lower() == name.lower() for n in labels.names], dtype=bool)
    within = (labels.occlusion <= limits.max_occlusion) & (labels.truncation <= limits.max_truncation)
    return labels.select(named & within & (height > limits.min_height))


def _depth_bin(labels: KittiLabels) -> IntArray:
    return np.clip(np.digitize(labels.bottom[:, 2], DEPTH_EDGES) - 1, 0, len(DEPTH_EDGES) - 2)


def _yaw_bin(labels: KittiLabels) -> IntArray:
    degrees = np.degrees(_wrap(labels.rotation_y))
    return np.clip(np.digitize(degrees, YAW_EDGES) - 1, 0, len(YAW_EDGES) - 2)


def _binned(
    edges: FloatArray,
    place: Any,
    labels: KittiLabels,
    rows: IntArray,
    found: dict[str, BoolArray],
    train: Any,
) -> Binned:
    n, where = len(edges) - 1, place(labels)[rows]
    return Binned(
        edges=edges.tolist(),
        objects=np.bincount(where, minlength=n).tolist(),
        found={title: np.bincount(where[hit], minlength=n).tolist() for title, hit in found.items()},
        training=None if train is None else np.bincount(place(train), minlength=n).tolist(),
    )


def _depth_error(corpus: Corpus, gt: IntArray, det: IntArray) -> dict[str, list[float | None]]:
    true, seen = corpus.gt.labels.bottom[gt, 2], corpus.det.labels.bottom[det, 2]
    error, where = seen - true, _depth_bin(corpus.gt.labels)[gt]
    bins = [where == i for i in range(len(DEPTH_EDGES) - 1)]
    return {
        "edges": DEPTH_EDGES.tolist(),
        "count": [int(b.sum()) for b in bins],
        "mean_abs": [_mean(np.abs(error[b])) for b in bins],
        "median_abs": [_median(np.abs(error[b])) for b in bins],
        "bias": [_mean(error[b]) for b in bins],
        "mean_relative": [_mean(np.abs(error[b]) / np.maximum(true[b], 1e-9)) for b in bins],
    }


def _size_error(corpus: Corpus, gt: IntArray, det: IntArray) -> dict[str, dict[str, float | None]]:
    true, seen = corpus.gt.labels.size_hwl[gt], corpus.det.labels.size_hwl[det]
    error = seen - true
    return {
        name: {
            "mean_abs": _mean(np.abs(error[:, i])),
            "bias": _mean(error[:, i]),
            "mean_relative": _mean(np.abs(error[:, i]) / np.maximum(true[:, i], 1e-9)),
        }
        for i, name in ((2, "length"), (0, "height"), (1, "width"))
    }


def _yaw_error(corpus: Corpus, gt: IntArray, det: IntArray) -> dict[str, Any]:
    error = np.abs(np.degrees(_wrap(corpus.det.labels.rotation_y[det] - corpus.gt.labels.rotation_y[gt])))
    counts = np.bincount(np.minimum(error // 10, 17).astype(np.int64), minlength=18)
    return {
        "median": _median(error),
        "mean": _mean(error),
        "flipped": _mean(error > 90),
        "edges": np.arange(0.0, 181, 10).tolist(),
        "counts": counts.tolist(),
    }


def _failures(
    corpus: Corpus, c: int, rows: IntArray, partner: IntArray, least: float
) -> dict[str, list[int]]:
    """Per cause (in the order of CAUSES) the objects of each depth bin. Each object has exactly one cause."""
    found = assign(corpus, c, "3d", least)[rows] >= 0
    other = _covered_by_others(corpus, c, rows)
    seen = partner >= 0
    truth, guess = _boxes(corpus.gt.labels, rows), _boxes(corpus.det.labels, np.maximum(partner, 0))
    # the detection slid along the ray of its own bottom centre, which keeps its place in the image
    ray = np.clip(truth[:, 2] / np.where(guess[:, 2] > 1e-3, guess[:, 2], np.nan), -1e6, 1e6)
    fixes = {
        "taken": guess,
        "depth": np.column_stack([guess[:, :3] * ray[:, None], guess[:, 3:]]),
        "size": np.column_stack([guess[:, :3], truth[:, 3:6], guess[:, 6:]]),
        "yaw": np.column_stack([guess[:, :6], truth[:, 6:]]),
        "place": np.column_stack([truth[:, :3], guess[:, 3:]]),
    }
    cause = np.where(seen, "several", np.where(other, "confused", "unseen"))
    for name in reversed(fixes):  # the first fix that suffices is written last
        with np.errstate(invalid="ignore"):
            cause = np.where(seen & (iou_3d(fixes[name], truth) > least), name, cause)
    cause = np.where(found, "found", cause)
    where, n = _depth_bin(corpus.gt.labels)[rows], len(DEPTH_EDGES) - 1
    return {name: np.bincount(where[cause == name], minlength=n).tolist() for name in CAUSES}


def _boxes(labels: KittiLabels, rows: IntArray) -> FloatArray:
    """(N, 7) bottom x, y, z, height, width, length, yaw; zeros where there is no row at all."""
    table = np.column_stack([labels.bottom, labels.size_hwl, labels.rotation_y])
    return table[rows] if len(table) else np.zeros((len(rows), 7))


def _curves(one: Matched) -> list[dict[str, Any]]:
    """Precision against recall at every score, thinned to at most 200 points."""
    curves = []
    for i, level in enumerate(LEVELS):
        tp, fp = np.cumsum(one.steps.tp[:, i]), np.cumsum(one.steps.fp[:, i])
        n_gt = int(one.gt_per_image[:, i].sum())
        last = np.flatnonzero((np.diff(one.score, append=-np.inf) != 0) & (tp + fp > 0))
        if len(last) > 200:
            last = last[np.unique(np.linspace(0, len(last) - 1, 200).astype(np.int64))]
        curves.append(
            {
                "metric": one.metric,
                "min_overlap": one.min_overlap,
                "difficulty": level.name,
                "recall": [round(v, 5) for v in (tp[last] / max(n_gt, 1)).tolist()],
                "precision": [round(v, 5) for v in (tp[last] / (tp + fp)[last]).tolist()],
            }
        )
    return curves


def _wrap(angle: FloatArray) -> FloatArray:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if len(values) else None
