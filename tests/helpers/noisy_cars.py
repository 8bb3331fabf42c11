"""Cars and noisy parameters of them, as SS3D's network might see them: for the tests and the benchmark of the fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from monolift.geometry import Boxes3D, Camera
from monolift.methods.ss3d.parameters import Pinhole, parameters_of_boxes, start_from_parameters
from monolift.typing import Tensor

KITTI = Camera(721.5377, 721.5377, 609.5593, 172.854, tx=0.06, ty=-0.0003, tz=0.003, width=1242, height=375)


@dataclass(frozen=True)
class NoisyCars:
    """boxes: the ground truth; parameters, sigma: (N, 26) observed with errors of that standard deviation; float64."""

    boxes: Boxes3D
    parameters: Tensor
    sigma: Tensor
    camera: Camera


def parameter_noise(exact: Tensor) -> Tensor:
    """(N, 26) standard deviations: distance 5 %, 2D box 4 % and corners 6 % of the box's height in pixels (10 at least), sine
    and cosine 0.1, log sizes 0.06. exact: (N, 26) parameters, float64."""
    height = (exact[:, 3] - exact[:, 1]).clamp_min(10)[:, None]
    return torch.cat(
        [
            0.04 * height.expand(-1, 4),
            0.05 * exact[:, 4:5],
            torch.tensor([0.1, 0.1, 0.06, 0.06, 0.06], dtype=torch.float64).expand(len(exact), -1),
            0.06 * height.expand(-1, 16),
        ],
        1,
    )


def noisy_cars(count: int, noise: float = 1.0, seed: int = 0, camera: Camera | None = None) -> NoisyCars:
    """6 to 51 m away, any heading, with ``noise`` times :func:`parameter_noise`; independent errors, which those of a network
    are not."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    if camera is None:  # of no known size: no box is cut by the image's border
        camera = Camera(KITTI.fx, KITTI.fy, KITTI.cx, KITTI.cy, KITTI.tx, KITTI.ty, KITTI.tz)
    z = 6 + 45 * uniform(count)
    center = torch.stack([1.2 * z * (uniform(count) - 0.5), 1 + 0.15 * normal(count), z], 1)
    size = torch.tensor([3.88, 1.53, 1.63], dtype=torch.float64) * (1 + 0.08 * normal(count, 3))
    boxes = Boxes3D(center, size, math.pi * (2 * uniform(count) - 1))
    exact = parameters_of_boxes(boxes, camera)
    sigma = noise * parameter_noise(exact)
    return NoisyCars(boxes, exact + sigma * normal(count, 26), sigma, camera)


def parameters_by_hand(b: np.ndarray, projection: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The 26 parameters of one box once more, written out. projection: P2 (3, 4); shift: (3,) metres."""
    x, y, z, yaw = b[0], b[1], b[2], b[6]
    length, height, width = np.exp(b[3:6])
    cos, sin = np.cos(yaw), np.sin(yaw)
    along = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * (length / 2)
    down = np.array([1, 1, 1, 1, -1, -1, -1, -1]) * (height / 2)
    aside = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * (width / 2)
    corners = np.stack([x + cos * along + sin * aside, y + down, z - sin * along + cos * aside, np.ones(8)])
    seen = projection @ corners
    u, v = seen[:2] / seen[2]
    alpha = yaw - np.arctan2(x, z)
    rest = [u.min(), v.min(), u.max(), v.max(), math.dist(b[:3], -shift), np.sin(alpha), np.cos(alpha)]
    return np.concatenate([rest, b[3:6], np.stack([u, v], 1).ravel()])


def scipy_costs(cars: NoisyCars) -> Tensor:
    """(N,) E in the minimum that MINPACK finds from the fit's own start, with slopes by differences."""
    from scipy.optimize import least_squares

    projection, shift = cars.camera.matrix.numpy(), cars.camera.translation.numpy()
    starts = start_from_parameters(cars.parameters, Pinhole.of(cars.camera, cars.parameters)).numpy()
    costs = []
    for y, sigma, start in zip(cars.parameters.numpy(), cars.sigma.numpy(), starts, strict=True):

        def residual(b: np.ndarray, y: np.ndarray = y, sigma: np.ndarray = sigma) -> np.ndarray:
            return (parameters_by_hand(b, projection, shift) - y) / sigma

        costs.append(2 * least_squares(residual, start, method="lm", xtol=1e-7, ftol=1e-7).cost)
    return torch.tensor(costs, dtype=torch.float64)
