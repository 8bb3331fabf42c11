"""The experiments behind MonoDR's claims: fits of cars with known ground truth, kept portion by portion.

Cars are of the procedural family, unseen in the decoder's training, on random patterns (``tests/helpers/monodr_cars.py``). A
random seed draws the cars, their places, the noise of their 2D boxes and depth maps. Arms of one experiment see the same cars.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.claims.claim import Figures, Workspace
from benchmarks.monodr import (
    Case,
    Found,
    boxes_of,
    confidence,
    images_of,
    known_cars,
    portion,
    write_corpus,
)

import monolift
from monolift.geometry import iou_bev_paired, wrap
from monolift.methods.monodr import MonoDR, MonoDRConfig, paper

LEVELS = ("easy", "moderate", "hard")
APART = 100
"""Portions of different random seeds are numbered so far apart."""


def fits(cases: Sequence[Case], seed: int, portions: int, folder: Path) -> dict[str, Found]:
    """Some portions of every case; portion by portion, so that a run that is cut short has compared all of them."""
    kept: dict[str, list[dict[str, list[object]]]] = {case.name: [] for case in cases}
    for k in range(portions):
        for case in cases:
            rows = portion(case, APART * seed + k, folder)
            first = images_of(case) * APART * seed
            kept[case.name].append({**rows, "image": [p - first for p in rows["image"]]})
    return {
        name: Found(**{key: np.array([v for p in parts for v in p[key]], float) for key in parts[0]})
        for name, parts in kept.items()
    }


def average_precision(found: Found, score: np.ndarray, folder: Path) -> dict[str, list[float]]:
    """AP R40 of Car in percent, easy / moderate / hard, by the project's KITTI evaluator; keys "3d 0.7", "bev 0.5" ..."""
    write_corpus(found, score, folder)
    table = monolift.evaluate(labels=folder / "label_2", predictions=folder / "data")
    rows = {}
    for metric in ("3d", "bev"):
        for mode, iou in (("strict", 0.7), ("loose", 0.5)):
            cells = [table.row(metric, "Car", level, mode) for level in LEVELS]
            rows[f"{metric} {iou}"] = [0.0 if cell is None else float(cell.ap_r40) for cell in cells]
    return rows


def geometry(found: Found) -> dict[str, float]:
    """How near boxes are to the ground truth: shares of yaws within 15 degrees and of axes, mean bird's-eye IoU, shares above
    0.5 and 0.7, median errors of the centre (metres), the depth and the three sizes (shares, sizes signed: too large is
    above 0)."""
    boxes, truth = boxes_of(found.found), boxes_of(found.truth)
    iou = iou_bev_paired(boxes, truth)
    yaw = wrap(boxes.yaw - truth.yaw).abs().rad2deg()
    axis = torch.minimum(yaw, 180 - yaw)
    size = (boxes.size / truth.size).log().mean(1)
    off = (boxes.center - truth.center).norm(dim=1)
    depth = ((boxes.center - truth.center)[:, 2] / truth.center[:, 2]).abs()
    values = {
        "objects": float(len(found)),
        "yaw": _share(yaw < 15),
        "axis": _share(axis < 15),
        "iou": float(iou.mean()),
        "0.5": _share(iou > 0.5),
        "0.7": _share(iou > 0.7),
        "center": float(off.median()),
        "depth": float(depth.median()),
        "size": float(size.median()),
    }
    return {name: round(value, 5) for name, value in values.items()}


def _share(which: torch.Tensor) -> float:
    return float(which.double().mean())


def by_seed(
    workspace: Workspace, cases: Sequence[Case], portions: int, name: str, precision: bool = False
) -> Figures:
    """Geometry of each arm, and with ``precision`` its AP with the confidence of eq. 8: arm -> figure -> one value per seed."""
    figures: dict[str, dict[str, list[object]]] = {case.name: {} for case in cases}
    for seed in workspace.seeds:
        folder = workspace.out / name
        for arm, found in fits(cases, seed, portions, folder).items():
            values: dict[str, object] = {**geometry(found)}
            if precision:
                values |= average_precision(found, confidence(found), folder / "corpora" / f"{arm}-{seed}")
            for key, value in values.items():
                figures[arm].setdefault(key, []).append(value)
    return figures


def confidences(workspace: Workspace, case: Case, portions: int, name: str) -> Figures:
    """Table 3: AP of one arm's boxes with the factors of eq. 8 left out in turn."""
    figures: dict[str, dict[str, list[object]]] = {}
    for seed in workspace.seeds:
        found = fits([case], seed, portions, workspace.out / name)[case.name]
        scores = {
            "eq. 8": confidence(found),
            "without silhouette": confidence(found, silhouette=0),
            "without protrusion": confidence(found, protrusion=0),
            "2D score alone": found.score,
        }
        for arm, score in scores.items():
            folder = workspace.out / name / "corpora" / f"{arm}-{seed}"
            for key, value in average_precision(found, score, folder).items():
                figures.setdefault(arm, {}).setdefault(key, []).append(value)
    return figures


CROP = 64
"""Pixels of the crops of the paper preset: the paper gives no size."""


def published() -> MonoDRConfig:
    """The paper's constants."""
    return paper(crop=CROP)


def both_presets() -> list[tuple[str, MonoDRConfig]]:
    return [("paper", published()), ("default", MonoDRConfig())]


def share_of_the_rotations(seed: int) -> float:
    """Share of the processor time of a fit that goes into trying other rotations."""
    cars = known_cars(16, seed=seed).observations
    config = replace(published(), iterations=20)
    MonoDR(replace(config, iterations=2)).fit(cars)  # what is compiled or read once
    spent = []
    for until in (20, 0):
        began = time.process_time()
        MonoDR(replace(config, escape_until=until)).fit(cars)
        spent.append(time.process_time() - began)
    return 1 - spent[1] / spent[0]
