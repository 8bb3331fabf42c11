"""SMOKE's raw maps to boxes: ``monolift.methods.smoke.codec`` in numpy, decoding only. What a channel means stands there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .found import Objects
from .lens import Lens, beaten_by_rival, best_of_rivals, rectangles, wrap

STRIDE = 4
SCORE_FLOOR = 0.01
RIVAL_IOU = 0.6
NEAREST = 0.5  # metres: a centre nearer than this is no object
Array = npt.NDArray[Any]


def decode(raw: dict[str, Array], lens: Lens, config: dict[str, Any]) -> Objects:
    """Objects of one image, best first.

    Args:
        raw: heatmap (K, h, w) logits and regression (C, h, w)
        lens: of the network image
        config: as in the checkpoint.
    """
    heat, maps = raw["heatmap"], raw["regression"]
    width = heat.shape[2]
    score, label, cell = _peaks(_sigmoid(heat), int(config["top_k"]))
    numbers = maps.reshape(len(maps), -1)[:, cell].T.astype(np.float64)
    nms, quirks = settings(config)
    more = extensions(config)
    if quirks["intrinsics_only"]:
        lens = Lens(lens.fx, lens.fy, lens.cx, lens.cy, width=lens.width, height=lens.height)
    grid = np.stack([cell % width, cell // width], 1)
    heading, scale_at, rays_at, height_at = _channels(config, quirks["quaternion"], more)
    if more["ray_terms"]:
        terms = numbers[:, rays_at:height_at].reshape(len(cell), -1, 2)
        ray = lens.points(grid * STRIDE, np.ones(len(cell)))[:, None, :2]
        numbers[:, [0, *range(6, 6 + heading)]] += (terms * ray).sum(2)
    reference = np.array(config["sizes"], np.float64)[label]
    size = reference * np.exp(config["size_limit"] * (2 * _sigmoid(numbers[:, 3:6]) - 1))
    z = _depth(numbers[:, 0], lens.fx / config["focal"] if config["focal"] else 1.0, config, more)
    log_scale = np.clip(numbers[:, scale_at], -3, 4) if config["location_scale"] else None
    if more["height_depth"]:
        z = _with_height(z, log_scale, size[:, 1], numbers[:, height_at : height_at + 2], lens)
    center = lens.points((grid + numbers[:, 1:3]) * STRIDE, z)
    alpha = _alpha(numbers[:, 6 : 6 + heading], quirks["quaternion"], more["binned_heading"])
    yaw = wrap(alpha + np.arctan2(center[:, 0], center[:, 2]))
    boxes2d = rectangles(center, size, yaw, lens, clip=bool(config["boxes2d"]))
    if config["boxes2d"]:
        at = 6 + heading
        middle, half = grid + numbers[:, at : at + 2], np.exp(np.clip(numbers[:, at + 2 : at + 4], -4, 6)) / 2
        predicted = lens.inside(np.concatenate([middle - half, middle + half], 1) * STRIDE)
        boxes2d = predicted + config["boxes2d_fusion"] * (boxes2d - predicted)
    if log_scale is not None:
        score = score * np.exp(-np.exp(log_scale))
    ahead = np.flatnonzero(center[:, 2] > NEAREST)
    found = Objects(center, size, yaw, score, label, boxes2d)[ahead]
    if more["rival_score"] < 1:
        beaten = beaten_by_rival(found.boxes2d, found.scores, found.labels, RIVAL_IOU)
        found.scores[beaten] *= more["rival_score"]
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


def extensions(config: dict[str, Any]) -> dict[str, Any]:
    """The options beyond the paper that decoding knows; exports of earlier versions have none."""
    known = {
        "log_depth": False,
        "height_depth": False,
        "ray_terms": False,
        "binned_heading": False,
        "heading_bins": 0,
        "depth_calibration": (0.0, 0.0, 0.0),
        "rival_score": 1.0,
    }
    return {**known, **config.get("extensions", {})}


def _channels(config: dict[str, Any], quaternion: bool, more: dict[str, Any]) -> tuple[int, int, int, int]:
    """Channels of the heading, and the first of the location's scale, of the ray terms and of the apparent height."""
    heading = 2 * more["heading_bins"] if more["binned_heading"] else 4 if quaternion else 2
    scale_at = 6 + heading + 4 * bool(config["boxes2d"])
    rays_at = scale_at + bool(config["location_scale"])
    return heading, scale_at, rays_at, rays_at + 2 * (1 + heading) * bool(more["ray_terms"])


def _depth(number: Array, ratio: float, config: dict[str, Any], more: dict[str, Any]) -> Array:
    """Metres from d_z; ratio: focal length over the reference."""
    mean, std = config["depth_mean"], config["depth_std"]
    depth = mean + std * number
    if more["log_depth"]:
        depth = mean * np.exp(np.clip(std / mean * number, -4, 4))
    constant, per_depth, per_focal = more["depth_calibration"]
    if constant or per_depth or per_focal:
        change = constant + per_depth * np.log(np.maximum(depth, 1.0) / mean) + per_focal * np.log(ratio)
        depth = depth * np.exp(change)
    return np.asarray(depth * ratio)


def _with_height(depth: Array, log_scale: Array | None, height: Array, predicted: Array, lens: Lens) -> Array:
    """Mean of the regressed depth and that of the apparent height, by their uncertainties."""
    assert log_scale is not None
    nearest = np.maximum(depth, 0.1)
    own = (2.5 * np.exp(log_scale) / nearest) ** 2
    other = np.exp(2 * np.clip(predicted[:, 1], -5, 2))
    change = (np.log(lens.fy * height / (STRIDE * nearest)) - predicted[:, 0]) * own / (own + other)
    return np.asarray(depth * np.exp(np.clip(change, -0.5, 0.5)))


def _peaks(heat: Array, top_k: int) -> tuple[Array, Array, Array]:
    """The ``top_k`` local maxima of 3x3 cells above the floor: scores, labels, flat cells."""
    k, h, w = heat.shape
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((3, 4))
    peaks = np.where((around == heat) & (heat > SCORE_FLOOR), heat, 0.0).reshape(-1)
    best = np.argsort(-peaks, kind="stable")[:top_k]
    best = best[peaks[best] > 0]
    return peaks[best].astype(np.float64), best // (h * w), best % (h * w)


def _alpha(numbers: Array, quaternion: bool, bins: bool) -> Array:
    """Observation angle of the heading's channels."""
    if quaternion:
        w, x, y, z = numbers.T
        # heading of the turned x axis: minus element (2, 0) and element (0, 0) of the matrix, times the squared length
        return np.asarray(np.arctan2(2 * (w * y - x * z), w * w + x * x - y * y - z * z))
    if bins:
        count = numbers.shape[1] // 2
        index = numbers[:, :count].argmax(1)
        residual = numbers[np.arange(len(numbers)), count + index]
        return wrap((index + residual / 2) * (2 * np.pi / count))
    return np.asarray(np.arctan2(-numbers[:, 1], numbers[:, 0] + 1e-9))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # no overflow at either end
