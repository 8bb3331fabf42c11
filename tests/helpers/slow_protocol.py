"""The official KITTI protocol as plain loops, one ground truth and one threshold at a time: the oracle for the fast one.

Written from the protocol's description, in the official program's order of operations. Overlaps are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NEIGHBOUR = {"Car": "Van", "Pedestrian": "Person_sitting"}
LIMITS = {"easy": (40, 0, 0.15), "moderate": (25, 1, 0.30), "hard": (25, 2, 0.50)}


@dataclass
class Box:
    """A label or a detection."""

    name: str
    height: float
    score: float = 0.0
    occlusion: int = 0
    truncation: float = 0.0
    alpha: float = 0.0


@dataclass
class Scene:
    """One image; overlap[i][j] of label i and detection j (for DontCare: share of the detection)."""

    labels: list[Box]
    detections: list[Box]
    overlap: list[list[float]] = field(default_factory=list)


def label_status(box: Box, class_name: str, level: str) -> str:
    height, occlusion, truncation = LIMITS[level]
    if box.name == NEIGHBOUR.get(class_name):
        return "ignored"
    if box.name != class_name:
        return "absent"
    fine = box.height > height and box.occlusion <= occlusion and box.truncation <= truncation
    return "valid" if fine else "ignored"


def detection_status(box: Box, class_name: str, level: str) -> str:
    if box.height < LIMITS[level][0]:
        return "ignored"
    return "valid" if box.name == class_name else "absent"


def scores_of_true_positives(scene: Scene, class_name: str, level: str, least: float) -> list[float]:
    """First pass: every label takes the free detection of highest score."""
    taken: set[int] = set()
    scores = []
    for i, label in enumerate(scene.labels):
        status = label_status(label, class_name, level)
        if status == "absent":
            continue
        best, best_score = None, -1e7
        for j, detection in enumerate(scene.detections):
            usable = j not in taken and detection_status(detection, class_name, level) != "absent"
            if usable and scene.overlap[i][j] > least and detection.score > best_score:
                best, best_score = j, detection.score
        if best is not None:
            taken.add(best)
            if status == "valid" and detection_status(scene.detections[best], class_name, level) == "valid":
                scores.append(best_score)
    return scores


def thresholds(scores: list[float], n_gt: int) -> list[float]:
    chosen, wanted = [], 0.0
    scores = sorted(scores, reverse=True)
    for i, score in enumerate(scores):
        here = (i + 1) / n_gt
        after = (i + 2) / n_gt if i + 1 < len(scores) else here
        if after - wanted < wanted - here and i + 1 < len(scores):
            continue
        chosen.append(score)
        wanted += 1 / 40
    return chosen


def count(
    scene: Scene, class_name: str, level: str, least: float, threshold: float
) -> tuple[int, int, int, float]:
    """Second pass: tp, fp, fn and the orientation similarity of one image at one threshold."""
    taken: set[int] = set()
    tp = fn = 0
    similarity = 0.0
    for i, label in enumerate(scene.labels):
        status = label_status(label, class_name, level)
        if status == "absent":
            continue
        best, best_overlap, best_is_ignored = None, 0.0, False
        for j, detection in enumerate(scene.detections):
            kind = detection_status(detection, class_name, level)
            if j in taken or kind == "absent" or detection.score < threshold or scene.overlap[i][j] <= least:
                continue
            if kind == "valid" and (scene.overlap[i][j] > best_overlap or best_is_ignored):
                best, best_overlap, best_is_ignored = j, scene.overlap[i][j], False
            elif kind == "ignored" and best is None:
                best, best_is_ignored = j, True
        if best is None:
            fn += status == "valid"
            continue
        taken.add(best)
        if status == "valid" and not best_is_ignored:
            tp += 1
            similarity += (1 + math.cos(label.alpha - scene.detections[best].alpha)) / 2
    fp = 0
    for j, detection in enumerate(scene.detections):
        if (
            j in taken
            or detection_status(detection, class_name, level) != "valid"
            or detection.score < threshold
        ):
            continue
        forgiven = any(
            label.name == "DontCare" and scene.overlap[i][j] > least for i, label in enumerate(scene.labels)
        )
        fp += not forgiven
    return tp, fp, fn, similarity


def curve(gained: list[float], spent: list[int]) -> list[float]:
    """41 slots, each the largest ratio from there on, in the manner of std::max_element (a NaN hides nothing but itself)."""
    raw = [g / s if s else math.nan for g, s in zip(gained, spent, strict=True)]
    raw += [0.0] * (41 - len(raw))
    smooth = []
    for i in range(41):
        best = raw[i]
        for value in raw[i + 1 :]:
            if best < value:
                best = value
        smooth.append(best)
    return smooth


def evaluate(scenes: list[Scene], class_name: str, level: str, least: float) -> dict[str, list[float] | int]:
    """Counts per threshold and the two curves of one class and level."""
    n_gt = sum(label_status(b, class_name, level) == "valid" for s in scenes for b in s.labels)
    scores = [v for s in scenes for v in scores_of_true_positives(s, class_name, level, least)]
    chosen = thresholds(scores, n_gt) if scores else []
    totals = [[count(s, class_name, level, least, t) for s in scenes] for t in chosen]
    tp, fp, fn, similarity = ([sum(c[k] for c in per_image) for per_image in totals] for k in range(4))
    spent = [a + b for a, b in zip(tp, fp, strict=True)]
    return {"n_gt": n_gt, "thresholds": chosen, "tp": tp, "fp": fp, "fn": fn,
            "precision": curve(tp, spent), "similarity": curve(similarity, spent)}  # fmt: skip
