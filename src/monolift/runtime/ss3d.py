"""SS3D's raw maps to boxes: ``monolift.methods.ss3d.decode`` in numpy. What a channel means stands in its ``codec``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .found import Objects
from .lens import CORNER_SIGNS, Lens, wrap
from .ss3d_fit import BOX, CORNERS, DISTANCE, SIZE, Pinhole, fit, parameters_of

STRIDE = 4
MOST_SIGMA = 7.0  # of |log sigma|, units
NEAREST = 0.5  # metres: a centre nearer than this is no object
FIT_STEPS, FIT_TOLERANCE = 6, 1e-3
SINE, COSINE = 5, 6
FRONT, REAR = (0, 1, 5, 4), (2, 3, 6, 7)  # corners
HALF_TURN = [CORNER_SIGNS.tolist().index([-x, y, -z]) for x, y, z in CORNER_SIGNS.tolist()]
Array = npt.NDArray[Any]


def decode(raw: dict[str, Array], lens: Lens, config: dict[str, Any]) -> Objects:
    """Objects of one image, best first.

    Args:
        raw: classes (1 + K, h, w) logits, parameters and log_sigma (26, h, w)
        lens: of the network image
        config: as in the checkpoint.
    """
    score, label, cell = _peaks(raw["classes"], config)
    width = raw["classes"].shape[2]
    numbers, log_sigma = (
        raw[n].reshape(26, -1)[:, cell].T.astype(np.float64) for n in ("parameters", "log_sigma")
    )
    parameters, sigma = _measured(numbers, log_sigma, cell, width, lens, config)
    sound = np.isfinite(parameters + sigma).all(1)
    parameters, sigma, score, label = parameters[sound], sigma[sound], score[sound], label[sound]
    chosen = _best(parameters[:, BOX], score, label, config["nms"])[: int(config["top_k"])]
    parameters, sigma = _agreed(parameters, sigma, score, label, chosen, config["voting"])
    if config["corner_order"] == "view":
        turned = _turned(parameters)[:, None]
        parameters, sigma = (np.where(turned, _half_turned(v), v) for v in (parameters, sigma))
    score, label = score[chosen], label[chosen]
    if config["ranking"] == "sigma":
        score = score * _certainty(parameters, sigma)
    pinhole = Pinhole.of(lens)
    state = fit(parameters, 1 / sigma, pinhole, FIT_STEPS, FIT_TOLERANCE)
    share = config["boxes2d_fusion"]
    boxes2d = lens.inside((1 - share) * parameters[:, BOX] + share * parameters_of(state, pinhole)[:, BOX])
    found = Objects(state[:, :3], np.exp(state[:, 3:6]), wrap(state[:, 6]), score, label, boxes2d)
    found = found[state[:, 2] > NEAREST]
    return found[np.argsort(-found.scores, kind="stable")]


def _peaks(logits: Array, config: dict[str, Any]) -> tuple[Array, Array, Array]:
    """The best local maxima of 3x3 cells above the threshold: scores, labels, flat cells. In float32, as they are trained:
    where the network is sure neighbours are equal, and each is a maximum."""
    logits = logits.astype(np.float32)
    shares = np.exp(logits - logits.max(0))
    chances = (shares / shares.sum(0))[1:]
    chances = chances * (chances == chances.max(0))  # a cell is of one class
    k, h, w = chances.shape
    padded = np.pad(chances, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    around = np.maximum(np.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
    heat = np.where(around == chances, chances, 0).reshape(-1)
    likely = np.flatnonzero(heat > config["score"])
    best = likely[np.argsort(-heat[likely], kind="stable")][: int(config["candidates"])]
    return heat[best].astype(np.float64), best // (h * w), best % (h * w)


def _measured(
    numbers: Array, log_sigma: Array, cell: Array, width: int, lens: Lens, config: dict[str, Any]
) -> tuple[Array, Array]:
    """(M, 26) parameters and their sigmas, the corners in the channels' order."""
    units = np.repeat(np.array(config["units"], np.float64), [4, 1, 2, 3, 16])
    mean, magnification = np.zeros(26), np.ones(26)
    mean[DISTANCE], mean[SIZE] = config["distance_mean"], np.log(config["size_mean"])
    magnification[DISTANCE] = lens.fx / config["focal"] if config["focal"] else 1.0
    pixel = np.stack([cell % width, cell // width], 1) * float(STRIDE) + (STRIDE - 1) / 2
    origin = np.zeros_like(numbers)
    origin[:, BOX], origin[:, CORNERS] = np.tile(pixel, 2), np.tile(pixel, 8)
    spread = math.sqrt(2) if config["likelihood"] == "laplace" else 1.0
    sigma = np.exp(np.clip(log_sigma, -MOST_SIGMA, MOST_SIGMA)) * units * magnification * spread
    return (mean + units * numbers) * magnification + origin, sigma


def _best(boxes: Array, score: Array, label: Array, threshold: float) -> Array:
    """Greedy non-maximum suppression within each label: indices, best first."""
    order = np.argsort(-score, kind="stable")
    rivals = (_overlaps(boxes, boxes) > threshold) & (label[:, None] == label)
    rivals, alive = rivals[order][:, order], np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~rivals[i, i + 1 :]
    return order[alive]


def _overlaps(a: Array, b: Array) -> Array:
    """(N, M) intersection over union; 0 of two empty boxes."""
    size = np.maximum(np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]), 0)
    shared = size.prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b))
    union = area_a[:, None] + area_b - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)


def _agreed(
    parameters: Array, sigma: Array, score: Array, label: Array, chosen: Array, voting: float
) -> tuple[Array, Array]:
    """Parameters and sigmas of the ``chosen``, each from all candidates of its kind that see the same object."""
    same = _overlaps(parameters[chosen][:, BOX], parameters[:, BOX]) > voting
    same[np.arange(len(chosen)), chosen] = True
    votes = (same & (label[chosen][:, None] == label)) * score
    precision = sigma**-2
    total = votes @ precision
    return votes @ (precision * parameters) / total, votes @ (1 / sigma) / total


def _turned(parameters: Array) -> Array:
    """Whether the first end of the corners, counted from the far one, is the object's rear."""
    sine, cosine = parameters[:, SINE], parameters[:, COSINE]
    across = parameters[:, CORNERS].reshape(-1, 8, 2)[..., 0]
    sideways = across[:, FRONT].sum(1) - across[:, REAR].sum(1)
    return np.where(np.abs(cosine) > np.abs(sine), cosine * sideways < 0, sine > 0)


def _half_turned(values: Array) -> Array:
    corners = values[:, CORNERS].reshape(-1, 8, 2)[:, HALF_TURN]
    return np.concatenate([values[:, : CORNERS.start], corners.reshape(-1, 16)], 1)


def _certainty(parameters: Array, sigma: Array) -> Array:
    """Between 0 and 1: how small the sigmas in pixels are against the 2D box's height."""
    height = np.maximum(parameters[:, 3] - parameters[:, 1], 1.0)
    pixels = np.concatenate([sigma[:, BOX], sigma[:, CORNERS]], 1)
    return np.asarray(np.exp(-2 * pixels / height[:, None]).mean(1))
