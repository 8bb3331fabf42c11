"""A 3D box fitted through SS3D's 26 parameters: ``monolift.methods.ss3d.fit`` and ``parameters`` in numpy, values only.

State: x, y, z, log length, log height, log width, yaw. Parameters: 2D box, distance, sine and cosine of the observation
angle, log sizes, u, v of the eight corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .lens import CORNER_SIGNS, NEAR_PLANE, Lens

BOX, DISTANCE, SIZE, CORNERS = slice(0, 4), 4, slice(7, 10), slice(10, 26)
STATE = 7
TINY = 1e-12  # metres
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8  # shares of the diagonal
TRUSTED_DAMPING = 1e-2
ROUNDING = 1e-26
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pinhole:
    """focal, middle: (2,) pixels; shift: (3,) metres; low, high: (2,) the image's limits, pixels."""

    focal: Array
    middle: Array
    shift: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, lens: Lens) -> Pinhole:
        known = bool(lens.width and lens.height)
        high = np.array([lens.width - 1.0, lens.height - 1.0]) if known else np.full(2, np.inf)
        low = np.zeros(2) if known else -high
        return cls(
            np.array([lens.fx, lens.fy]), np.array([lens.cx, lens.cy]), np.array(lens.translation), low, high
        )


def fit(parameters: Array, weights: Array, pinhole: Pinhole, iterations: int, tolerance: float) -> Array:
    """(N, 7) states that agree best with (N, 26) parameters, by Levenberg-Marquardt; boxes that are done leave the batch."""
    with np.errstate(all="ignore"):
        sound = np.isfinite(parameters * weights * parameters * weights).all(1)
        y, w = (np.where(sound[:, None], v, 0.0) for v in (parameters, weights))
        state = _start(y, pinhole)
        cost, matrix, slope = _normal(state, y, w, pinhole)
        damping = np.full(len(state), DAMPING)
        zero_cost = ROUNDING * ((w * y) ** 2).sum(1)
        working = np.isfinite(cost) & sound
        for _ in range(iterations):
            rows = np.flatnonzero(working)
            if not len(rows):
                break
            step = _damped_step(matrix[rows], slope[rows], damping[rows])
            promised = (step * slope[rows]).sum(1)
            near = (promised <= tolerance * cost[rows] + zero_cost[rows]) & (damping[rows] <= TRUSTED_DAMPING)
            trial = state[rows] + step
            new_cost, new_matrix, new_slope = _normal(trial, y[rows], w[rows], pinhole)
            better = new_cost < cost[rows]
            won = rows[better]
            state[won], cost[won] = trial[better], new_cost[better]
            matrix[won], slope[won] = new_matrix[better], new_slope[better]
            damping[rows] = np.maximum(damping[rows] * np.where(better, 0.1, 10.0), LEAST_DAMPING)
            working[rows] = ~near & (damping[rows] < MOST_DAMPING)
    return state


def parameters_of(state: Array, pinhole: Pinhole) -> Array:
    """(N, 26) that the boxes themselves would give."""
    return _seen(state, pinhole)[0]


def _start(parameters: Array, pinhole: Pinhole) -> Array:
    """The centre on the ray through the middle of the 2D box, at the predicted distance."""
    pixel = (parameters[:, 0:2] + parameters[:, 2:4]) / 2
    ray = np.concatenate([(pixel - pinhole.middle) / pinhole.focal, np.ones((len(pixel), 1))], 1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    center = ray * np.clip(parameters[:, DISTANCE : DISTANCE + 1], 0.5, 500.0) - pinhole.shift
    yaw = np.arctan2(parameters[:, 5], parameters[:, 6]) + np.arctan2(center[:, 0], center[:, 2])
    return np.concatenate([center, np.clip(parameters[:, SIZE], -3.0, 4.0), yaw[:, None]], 1)


def _normal(state: Array, y: Array, w: Array, pinhole: Pinhole) -> tuple[Array, Array, Array]:
    """Sum of squares E, J^T W^2 J and J^T W^2 r."""
    seen, jacobian = _seen(state, pinhole)
    residual = w * (y - seen)
    jacobian = w[..., None] * jacobian
    down = jacobian.transpose(0, 2, 1)
    return (residual * residual).sum(1), down @ jacobian, (down @ residual[..., None])[..., 0]


def _seen(state: Array, pinhole: Pinhole) -> tuple[Array, Array]:
    """Parameters (N, 26) and their slopes (N, 26, 7)."""
    n = len(state)
    cos, sin = np.cos(state[:, 6])[:, None], np.sin(state[:, 6])[:, None]
    x, y, z = np.moveaxis(
        CORNER_SIGNS * (np.exp(state[:, 3:6]) / 2)[:, None], 2, 0
    )  # (N, 8) along length, height, width
    side, ahead = cos * x + sin * z, cos * z - sin * x
    shifted = state[:, :3] + pinhole.shift
    depth = ahead + shifted[:, 2:]
    inverse = 1 / np.maximum(depth, NEAR_PLANE)
    tangent = (np.stack([side, y], 2) + shifted[:, None, :2]) * inverse[..., None]
    pixels = tangent * pinhole.focal + pinhole.middle
    pull_u, pull_v = np.moveaxis(tangent * (depth > NEAR_PLANE)[..., None], 2, 0)
    slope = np.zeros((n, 8, 2, STATE))
    f = pinhole.focal[0] * inverse
    slope[:, :, 0, 0], slope[:, :, 0, 2], slope[:, :, 0, 3] = f, -f * pull_u, f * (cos * x + pull_u * sin * x)
    slope[:, :, 0, 5], slope[:, :, 0, 6] = f * (sin * z - pull_u * cos * z), f * (ahead + pull_u * side)
    f = pinhole.focal[1] * inverse
    slope[:, :, 1, 1], slope[:, :, 1, 2], slope[:, :, 1, 3] = f, -f * pull_v, f * pull_v * sin * x
    slope[:, :, 1, 4], slope[:, :, 1, 5], slope[:, :, 1, 6] = f * y, -f * pull_v * cos * z, f * pull_v * side
    seen, jacobian = np.empty((n, 26)), np.zeros((n, 26, STATE))
    every, axes = np.arange(n)[:, None], np.arange(2)
    for at, which in ((0, pixels.argmin(1)), (2, pixels.argmax(1))):
        value = pixels[every, which, axes]
        free = (value > pinhole.low) & (value < pinhole.high)
        seen[:, at : at + 2] = np.clip(value, pinhole.low, pinhole.high)
        jacobian[:, at : at + 2] = slope[every, which, axes] * free[..., None]
    seen[:, CORNERS], jacobian[:, CORNERS] = pixels.reshape(n, 16), slope.reshape(n, 16, STATE)
    seen[:, SIZE], jacobian[:, SIZE] = state[:, 3:6], np.eye(STATE)[3:6]
    _of_center(state, shifted, seen, jacobian)
    return seen, jacobian


def _of_center(state: Array, shifted: Array, seen: Array, jacobian: Array) -> None:
    """Distance and observation angle, and their slopes."""
    distance = np.maximum(np.linalg.norm(shifted, axis=1), TINY)
    seen[:, DISTANCE], jacobian[:, DISTANCE, :3] = distance, shifted / distance[:, None]
    x, z = state[:, 0], state[:, 2]
    ground, alpha = np.maximum(x * x + z * z, TINY), state[:, 6] - np.arctan2(x, z)
    seen[:, 5], seen[:, 6] = np.sin(alpha), np.cos(alpha)
    for at, factor in ((5, seen[:, 6]), (6, -seen[:, 5])):
        jacobian[:, at, 0], jacobian[:, at, 2] = factor * -z / ground, factor * x / ground
        jacobian[:, at, 6] = factor


def _damped_step(matrix: Array, slope: Array, damping: Array) -> Array:
    """(H + damping diag H)^-1 g with unit diagonal; 0 where singular. Cholesky, all boxes at once."""
    diagonal = np.diagonal(matrix, axis1=1, axis2=2)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = matrix * scale[:, :, None] * scale[:, None, :]
    scaled[:, range(STATE), range(STATE)] += damping[:, None]
    factor, regular = np.zeros_like(scaled), np.ones(len(scaled), bool)
    for j in range(STATE):
        pivot = scaled[:, j, j] - (factor[:, j, :j] ** 2).sum(1)
        regular &= pivot > 0
        factor[:, j, j] = np.sqrt(np.where(regular, pivot, 1.0))
        below = scaled[:, j + 1 :, j] - (factor[:, j + 1 :, :j] @ factor[:, j, :j, None])[..., 0]
        factor[:, j + 1 :, j] = below / factor[:, j, j, None]
    step = slope * scale
    for i in range(STATE):
        step[:, i] = (step[:, i] - (factor[:, i, :i] * step[:, :i]).sum(1)) / factor[:, i, i]
    for i in reversed(range(STATE)):
        step[:, i] = (step[:, i] - (factor[:, i + 1 :, i] * step[:, i + 1 :]).sum(1)) / factor[:, i, i]
    return np.where(regular[:, None], step * scale, 0.0)
