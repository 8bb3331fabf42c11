"""Confidence intervals of AP by the bootstrap over images.

Images, not objects, are drawn with replacement, because the objects of one image are not independent (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, percentile interval). Thresholds are chosen anew for each sample, as they would be.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from monolift.evaluation.ap import Matched, interpolate, threshold_ranks
from monolift.evaluation.protocol import LEVELS, N_SAMPLES

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Key = tuple[str, str, str, float]
"""(metric, class, difficulty, IoU threshold)"""

_CELLS = 1_000_000


def draw_images(n_images: int, draws: int, seed: int = 0) -> FloatArray:
    """(n_images, draws) how often each image is in each sample; the same for every run, so that runs compare in pairs."""
    rng = np.random.default_rng(seed)
    picks = [rng.integers(0, n_images, size=n_images) for _ in range(draws)]
    return np.stack([np.bincount(pick, minlength=n_images) for pick in picks], axis=1).astype(np.float64)


def resample(matched: Mapping[tuple[str, str, float], Matched], weights: FloatArray) -> dict[Key, FloatArray]:
    """AP R40 in percent of every sample, (draws,), for each row; NaN where a sample has no ground truth."""
    samples: dict[Key, FloatArray] = {}
    for one in matched.values():
        for i, level in enumerate(LEVELS):
            values = _resample_level(one, i, weights)
            for metric, sample in zip((one.metric, "aos"), values, strict=False):
                samples[metric, one.class_name, level.name, one.min_overlap] = sample
    return samples


def _resample_level(one: Matched, level: int, weights: FloatArray) -> list[FloatArray]:
    """[AP] or [AP, AOS] of every sample, (draws,) each."""
    s = one.steps
    columns = [s.tp[:, level], s.fp[:, level]] + ([s.similarity[:, level]] if one.has_orientation else [])
    used = np.flatnonzero(np.any([c != 0 for c in columns], axis=0) | s.hit[:, level])
    columns = [c[used] for c in columns]
    hits = np.flatnonzero(s.hit[used, level])
    # detections of equal score become visible together: the count at a score is the one at the last of its equals
    last = np.searchsorted(-one.score[used], -one.score[used], side="right") - 1
    n_gt = one.gt_per_image[:, level] @ weights
    draws = weights.shape[1]
    out = [np.where(n_gt > 0, 0.0, np.nan) for _ in columns[1:]]
    if not len(used):
        return out
    at_once = max(1, _CELLS // max(1, len(used)))
    for start in range(0, draws, at_once):
        block = weights[one.det_image[used], start : start + at_once]
        now = slice(start, start + block.shape[1])
        rows = _threshold_rows(np.cumsum(block[hits], axis=0), n_gt[now], last[hits])
        totals = [np.cumsum(block * c[:, None], axis=0) for c in columns]
        tp, fp, *similarity = (np.take_along_axis(total, rows, axis=0).T for total in totals)
        for value, gained in zip(out, (tp, *similarity), strict=True):
            past = rows.T < 0
            curve = interpolate(np.where(past, 0.0, gained), np.where(past, 1.0, tp + fp))
            value[now] = np.where(n_gt[now] > 0, curve[:, 1:].mean(axis=1) * 100, np.nan)
    return out


def _threshold_rows(hit_count: FloatArray, n_gt: FloatArray, last: IntArray) -> IntArray:
    """(41, samples) up to which detection each threshold lets see, -1 past the last threshold.

    hit_count (hits, samples): true positives so far; last (hits,): the last detection whose score equals the hit's.
    """
    rows = np.full((N_SAMPLES, len(n_gt)), -1)
    if not len(hit_count):
        return rows
    ranks = threshold_ranks(hit_count[-1].astype(np.int64), n_gt.astype(np.int64))
    for k, column in enumerate(hit_count.T):
        taken = ranks[k][ranks[k] >= 0]
        rows[: len(taken), k] = last[np.searchsorted(column, taken, side="right")]
    return rows


def interval(sample: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a sample; NaN if nothing in it is finite."""
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
