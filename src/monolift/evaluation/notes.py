"""Remarks on common pitfalls of the official protocol that affect this evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monolift.evaluation.ap import Row
from monolift.evaluation.corpus import UNKNOWN_PLACE, Corpus, is_evaluated
from monolift.evaluation.protocol import CLASSES, LEVELS, METRICS, N_SAMPLES, NO_SCORE, ap_caps

_TITLES = {"bbox": "2D", "bev": "bird's eye", "3d": "3D"}


def remarks(corpus: Corpus, rows: Sequence[Row]) -> list[str]:
    """All remarks on an evaluation, the gravest first; empty when nothing is odd."""
    return [
        *_not_evaluated(corpus),
        *_orientation_off(corpus),
        *_below_height(corpus),
        *_capped(rows),
        *_undefined(rows),
        *_odd_rows(corpus),
    ]


def _not_evaluated(corpus: Corpus) -> list[str]:
    notes = []
    for c, name in enumerate(CLASSES):
        reasons: dict[str, list[str]] = {}
        for metric in METRICS:
            if not is_evaluated(corpus, metric, c):
                reasons.setdefault(_why_not(corpus, metric, c), []).append(_TITLES[metric])
        n_gt = int((corpus.gt_class == c).sum())
        for why, titles in reasons.items():
            if n_gt or (corpus.det_class == c).any():
                notes.append(
                    f"{name}: not evaluated in {', '.join(titles)}: {why}. The official program prints nothing here, "
                    f"not 0 ({n_gt:,} labelled)"
                )
    return notes


def _why_not(corpus: Corpus, metric: str, c: int) -> str:
    labels, own = corpus.det.labels, corpus.det_class == c
    n = f"{int(own.sum()):,}"
    if not own.any():
        return "no prediction of this class in any file"
    if metric == "bbox":
        return f"all {n} predictions have a left edge below 0"
    if (labels.bottom[own][:, [0, 2]] == UNKNOWN_PLACE).any(axis=1).all():
        return f"all {n} predictions are 2D only (x or z is -1000)"
    if metric == "3d" and is_evaluated(corpus, "bev", c):
        return f"all {n} predictions lack a height or y"
    return f"all {n} predictions lack a place or a size above 0"


def _orientation_off(corpus: Corpus) -> list[str]:
    without = np.flatnonzero(corpus.det.labels.alpha == -10)
    if not len(without):
        return []
    return [
        f"AOS is switched off for all classes: {len(without):,} of {len(corpus.det.labels):,} predictions have "
        f"alpha = -10 (first: {corpus.det.where(int(without[0]))})"
    ]


def _below_height(corpus: Corpus) -> list[str]:
    notes = []
    for c, name in enumerate(CLASSES):
        own = corpus.det_class == c
        levels = [v for i, v in enumerate(LEVELS) if own.any() and corpus.det_small[own, i].all()]
        if levels:
            notes.append(
                f"{name}: all {int(own.sum()):,} predictions are lower than the limit of "
                + ", ".join(f"{v.name} ({v.min_height:g} px)" for v in levels)
                + f" and are ignored, in bird's eye and 3D too; the tallest has {corpus.det_height[own].max():.1f} px"
            )
    return notes


def _capped(rows: Sequence[Row]) -> list[str]:
    levels: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if row.n_gt < N_SAMPLES and row.difficulty not in levels.setdefault((row.class_name, row.n_gt), []):
            levels[row.class_name, row.n_gt].append(row.difficulty)
    notes = []
    for (class_name, n_gt), names in levels.items():
        r11, r40 = ap_caps(n_gt)
        notes.append(
            f"{class_name} {', '.join(names)}: only {n_gt} ground truth{'' if n_gt == 1 else 's'}, fewer than 41, so AP "
            f"cannot exceed {r40:.2f} (R40) and {r11:.2f} (R11), even if every detection is right"
        )
    return notes


def _undefined(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.class_name} {row.difficulty}, {row.metric} {row.mode}: AP is not a number, because at some threshold "
        "nothing counts as true or false; so it is in the official program"
        for row in rows
        if not (np.isfinite(row.ap_r11) and np.isfinite(row.ap_r40))
    ]


def _odd_rows(corpus: Corpus) -> list[str]:
    labels = corpus.det.labels
    boxes, size = labels.boxes2d, labels.size_hwl
    assert labels.score is not None
    known = corpus.det_class >= 0
    placed = (labels.bottom[:, 0] != UNKNOWN_PLACE) & (labels.bottom[:, 2] != UNKNOWN_PLACE)
    odd = {
        "with a class name other than Car, Pedestrian, Cyclist: never evaluated": ~known,
        "with right < left or bottom < top: match nothing in 2D": known
        & ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])),
        "with a size of 0: match nothing in bird's eye or 3D": known & placed & (size == 0).any(axis=1),
        "with a score of -1e7 or less: never match": known & (labels.score <= NO_SCORE),
    }
    notes = [
        f"{int(mask.sum()):,} prediction{'' if mask.sum() == 1 else 's'} {what} "
        f"(first: {corpus.det.where(int(np.flatnonzero(mask)[0]))})"
        for what, mask in odd.items()
        if mask.any()
    ]
    if known.sum() > 1 and len(np.unique(labels.score[known])) == 1:
        notes.append("all predictions have the same score: each curve has a single point")
    return notes
