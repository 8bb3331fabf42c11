"""Average precision of the official KITTI protocol from matched boxes: thresholds, curves, rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.evaluation.corpus import Corpus, is_evaluated
from monolift.evaluation.matching import Problem, Steps, solve
from monolift.evaluation.protocol import CLASSES, LEVELS, METRICS, MODES, N_SAMPLES, NO_SCORE, Overlaps

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Row:
    """One cell of the table: a metric, class, difficulty and mode."""

    metric: str
    """bbox, aos, bev or 3d."""
    class_name: str
    difficulty: str
    mode: str
    min_overlap: float
    n_gt: int
    thresholds: FloatArray = field(repr=False)
    """(T,) scores at which the curve is sampled, descending; T <= 41."""
    tp: IntArray = field(repr=False)
    fp: IntArray = field(repr=False)
    fn: IntArray = field(repr=False)
    """(T,) counts at each threshold."""
    precision: FloatArray = field(repr=False)
    """(41,) interpolated precision (orientation similarity for aos); slots past the last threshold are 0."""

    @property
    def ap_r11(self) -> float:
        """Percent; mean of slots 0, 4, ..., 40. NaN where the official program has NaN."""
        return float(self.precision[::4].sum() / 11 * 100)

    @property
    def ap_r40(self) -> float:
        """Percent; mean of slots 1 to 40: KITTI's measure since October 2019."""
        return float(self.precision[1:].sum() / 40 * 100)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """(metric, class, difficulty, mode)."""
        return self.metric, self.class_name, self.difficulty, self.mode

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON, percent at full precision, None for NaN."""
        return {
            "metric": self.metric,
            "class": self.class_name,
            "difficulty": self.difficulty,
            "mode": self.mode,
            "min_overlap": self.min_overlap,
            "n_gt": self.n_gt,
            "ap_r11": _finite(self.ap_r11),
            "ap_r40": _finite(self.ap_r40),
        }


@dataclass(frozen=True, eq=False)
class Matched:
    """Everything a class and metric at one IoU threshold contributes, ready to be summed for any images.

    Detections (D, sorted by falling score) carry their steps; ground truths count towards recall.
    """

    metric: str
    class_name: str
    min_overlap: float
    has_orientation: bool
    score: FloatArray
    """(D,) falling."""
    det_image: IntArray
    """(D,)"""
    steps: Steps
    """(D, L) in the order of score."""
    gt_per_image: IntArray
    """(images, L) valid ground truths."""


def match(corpus: Corpus, metric: str, class_index: int, min_overlap: float) -> Matched:
    """Match one class by one metric."""
    g, d = corpus.gt.labels, corpus.det.labels
    assert d.score is not None
    can_match = d.score > NO_SCORE
    own = corpus.det_class == class_index
    ignored = corpus.det_small & can_match[:, None]
    valid = (own & can_match)[:, None] & ~corpus.det_small

    pairs = corpus.pairs
    above = pairs.overlap[metric] > min_overlap
    gt_group = corpus.gt_group[pairs.gt]
    free = np.zeros(len(d), dtype=bool)
    free[pairs.det[above & (gt_group == len(CLASSES))]] = True
    wanted = np.flatnonzero(above & (gt_group == class_index) & (valid | ignored).any(axis=1)[pairs.det])
    gt, det = pairs.gt[wanted], pairs.det[wanted]
    gt_valid = corpus.gt_counts & (corpus.gt_class == class_index)[:, None]
    problem = Problem(
        gt_valid=gt_valid,
        det_valid=valid,
        det_ignored=ignored,
        det_free=free,
        score=d.score,
        pair_gt=gt,
        pair_det=det,
        overlap=pairs.overlap[metric][wanted],
        similarity=(1 + np.cos(g.alpha[gt] - d.alpha[det])) / 2,
    )
    steps = solve(problem)
    fields = ("tp", "fp", "swallowed", "similarity", "hit")
    used = np.flatnonzero(np.any([getattr(steps, f) != 0 for f in fields], axis=(0, 2)))
    order = used[np.argsort(-d.score[used], kind="stable")]
    images = len(corpus.ids)
    per_image = np.stack([np.bincount(corpus.gt.image[v], minlength=images) for v in gt_valid.T], axis=1)
    return Matched(
        metric=metric,
        class_name=CLASSES[class_index],
        min_overlap=min_overlap,
        # one detection of any class without an angle switches AOS off for all of them
        has_orientation=metric == "bbox" and not bool((d.alpha == -10).any()),
        score=d.score[order],
        det_image=corpus.det.image[order],
        steps=Steps(*(getattr(steps, f)[order] for f in fields)),
        gt_per_image=per_image,
    )


def rows_of(matched: Matched, mode: str) -> list[Row]:
    """The rows of one class and metric: three levels, and the same for AOS where there are angles."""
    s = matched.steps
    totals = [np.cumsum(x, axis=0) for x in (s.tp, s.fp, s.swallowed, s.similarity)]
    rows, aos = [], []
    gt_counts = matched.gt_per_image.sum(axis=0)
    ranks = threshold_ranks(s.hit.sum(axis=0), gt_counts)
    for i, level in enumerate(LEVELS):
        n_gt = int(gt_counts[i])
        thresholds = matched.score[s.hit[:, i]][ranks[i][ranks[i] >= 0]]
        last = np.searchsorted(-matched.score, -thresholds, side="right") - 1
        tp, fp, swallowed, similarity = (x[last, i] for x in totals)
        fn = n_gt - tp - swallowed
        common = (matched.class_name, level.name, mode, matched.min_overlap, n_gt, thresholds, tp, fp, fn)
        rows.append(Row(matched.metric, *common, interpolate(tp, tp + fp)))
        if matched.has_orientation:
            aos.append(Row("aos", *common, interpolate(similarity, tp + fp)))
    return rows + aos


def threshold_ranks(n: IntArray, n_gt: IntArray) -> IntArray:
    """Which of n true positives, by falling score, become thresholds: where recall is nearest to 0, 1/40, 2/40 ...

    n and n_gt are (S,), one pair per sample; the result is (S, 41) ranks from 0, then -1. From the one taken before,
    the official program walks down the scores to the first at which recall is not nearer to the wanted one than at the
    next; the last score is always taken. The wanted recall is accumulated in double precision as it does, because
    rounding decides ties.
    """
    ranks = np.full((len(n), N_SAMPLES), -1)
    found = np.maximum(n_gt, 1)
    wanted, rank = 0.0, np.full(len(n), -1)
    for k in range(N_SAMPLES):
        # in real numbers the walk ends at ceil(found * wanted - 1.5): jump there less one, then test as it does
        step = np.maximum(rank + 1, np.floor(found * wanted - 1.5).astype(np.int64) - 1)
        for _ in range(3):
            step += (step + 2) / found - wanted < wanted - (step + 1) / found
        more = rank < n - 1
        rank = np.where(more, np.minimum(step, n - 1), rank)
        ranks[:, k] = np.where(more, rank, -1)
        wanted += 1 / (N_SAMPLES - 1)
    return ranks


def interpolate(gained: npt.NDArray[Any], spent: npt.NDArray[Any]) -> FloatArray:
    """(..., 41) from (..., T): the largest ratio at this or any later threshold, 0 in slots past the last.

    0 / 0 is NaN and, as officially, stays in its own slot.
    """
    curve = np.zeros((*gained.shape[:-1], N_SAMPLES))
    with np.errstate(invalid="ignore"):
        curve[..., : gained.shape[-1]] = gained / spent
    undefined = np.isnan(curve)
    best = np.maximum.accumulate(np.where(undefined, -np.inf, curve)[..., ::-1], axis=-1)[..., ::-1]
    return np.where(undefined, np.nan, best)


def average_precision(
    corpus: Corpus, modes: Mapping[str, Overlaps] = MODES
) -> tuple[list[Row], dict[tuple[str, str, float], Matched]]:
    """All rows of all modes, and what they were summed from by (metric, class, IoU threshold)."""
    solved: dict[tuple[str, str, float], Matched] = {}
    rows: list[Row] = []
    for mode, overlaps in modes.items():
        for metric in METRICS:
            for c, name in enumerate(CLASSES):
                if not is_evaluated(corpus, metric, c):
                    continue
                key = (metric, name, overlaps[metric][c])
                if key not in solved:
                    solved[key] = match(corpus, *(metric, c, overlaps[metric][c]))
                rows += rows_of(solved[key], mode)
    return sort_rows(rows), solved


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """By mode, then metric, class and difficulty, in the order people print them."""
    modes = list(dict.fromkeys(row.mode for row in rows))
    metrics, levels = ("bbox", "aos", "bev", "3d"), [level.name for level in LEVELS]
    return sorted(
        rows,
        key=lambda r: (
            modes.index(r.mode),
            metrics.index(r.metric),
            CLASSES.index(r.class_name),
            levels.index(r.difficulty),
        ),
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
