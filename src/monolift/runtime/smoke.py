"""SMOKE's raw maps to boxes: ``monolift.methods.smoke.codec`` in numpy, decoding only. What a channel means stands there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .found import Objects
from .lens import Lens, best_of_rivals, rectangles, wrap

STRIDE = 4
SCORE_FLOOR = 0.01
NEAREST = 0.5  # metres: a centre nearer than this is no object
Array = npt.NDArray[Any]


def decode(raw: dict[str, Array], lens: Lens, config: dict[str, Any]) -> Objects:
    """Objects of one image, best first.

    raw: heatmap (K, h, w) logits and regression (C, h, w); lens: of the network image; config: as in the checkpoint.
    """
    heat, maps = raw["heatmap"], raw["regression"]
    width = heat.shape[2]
    score, label, cell = _peaks(_sigmoid(heat), int(config["top_k"]))
    numbers = maps.reshape(len(maps), -1)[:, cell].T.astype(np.float64)
    nms, quirks = settings(config)
    if quirks["intrinsics_only"]:
        lens = Lens(lens.fx, lens.fy, lens.cx, lens.cy, width=lens.width, height=lens.height)
    ratio = lens.fx / config["focal"] if config["focal"] else 1.0
    z = (config["depth_mean"] + config["depth_std"] * numbers[:, 0]) * ratio
    grid = np.stack([cell % width, cell // width], 1)
    center = lens.points((grid + numbers[:, 1:3]) * STRIDE, z)
    reference = np.array(config["sizes"], np.float64)[label]
    size = reference * np.exp(config["size_limit"] * (2 * _sigmoid(numbers[:, 3:6]) - 1))
    alpha, at = _alpha(numbers, quirks["quaternion"])
    yaw = wrap(alpha + np.arctan2(center[:, 0], center[:, 2]))
    boxes2d = rectangles(center, size, yaw, lens)
    if config["boxes2d"]:
        middle, half = grid + numbers[:, at : at + 2], np.exp(np.clip(numbers[:, at + 2 : at + 4], -4, 6)) / 2
        predicted = lens.inside(np.concatenate([middle - half, middle + half], 1) * STRIDE)
        boxes2d = predicted + config["boxes2d_fusion"] * (boxes2d - predicted)
        at += 4
    if config["location_scale"]:
        score = score * np.exp(-np.exp(np.clip(numbers[:, at], -3, 4)))
    ahead = np.flatnonzero(center[:, 2] > NEAREST)
    found = Objects(center, size, yaw, score, label, boxes2d)[ahead]
    if nms:
        return found[best_of_rivals(found.boxes2d, found.scores, found.labels, nms)]
    return found[np.argsort(-found.scores, kind="stable")]


def settings(config: dict[str, Any]) -> tuple[float, dict[str, bool]]:
    """NMS's IoU threshold and the quirks that decoding knows; exports of earlier versions name them otherwise."""
    if "quirks" in config:
        return config["nms"], config["quirks"]
    quirks = {
        "intrinsics_only": not config["full_camera"],
        "quaternion": config["orientation"] == "quaternion",
    }
    return config["suppress"], quirks


def _peaks(heat: Array, top_k: int) -> tuple[Array, Array, Array]:
    """The ``top_k`` local maxima of 3x3 cells above the floor: scores, labels, flat cells."""
    k, h, w = heat.shape
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((3, 4))
    peaks = np.where((around == heat) & (heat > SCORE_FLOOR), heat, 0.0).reshape(-1)
    best = np.argsort(-peaks, kind="stable")[:top_k]
    best = best[peaks[best] > 0]
    return peaks[best].astype(np.float64), best // (h * w), best % (h * w)


def _alpha(numbers: Array, quaternion: bool) -> tuple[Array, int]:
    """Observation angle, and the first channel behind it."""
    if not quaternion:
        return np.arctan2(-numbers[:, 7], numbers[:, 6] + 1e-9), 8
    w, x, y, z = (numbers[:, i] for i in range(6, 10))
    # heading of the turned x axis: minus element (2, 0) and element (0, 0) of the matrix, times the squared length
    return np.arctan2(2 * (w * y - x * z), w * w + x * x - y * y - z * z), 10


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # no overflow at either end
