"""A 3D box fitted through its 26 parameters: batched Levenberg-Marquardt, differentiable in the parameters and weights.

E(b) = sum_k (w_k (y_k - f_k(b)))^2 is minimised over the seven numbers of a box. With w_k = 1 / sigma_k, E is chi-square
distributed with 26 - 7 = 19 degrees of freedom where the sigmas are right, and (J^T W^2 J)^-1 is the covariance of the box.

The gradient is that of the minimum itself (implicit function theorem), not of the iterations. At the minimum b* one more step
delta = H^-1 J^T W^2 (y - f(b*)) is zero, but its slopes in y and w are those of the minimum: so delta is attached with value
zero. Two deviations from the paper's form, - pinv(W J) d(w r):

- that form gives half of the gradient of the weights, for the term it drops, r d2r/db dw, is as large as the one it keeps;
- H is the Hessian of E / 2 with the second derivatives of f, where the pseudo-inverse stands for J^T W^2 J alone: on cars
  with realistic noise that alone is 2 % off (median; 5 % for one in twenty), and here it is exact.

Two ways to one minimum, equal to rounding: tensor operations on any device, and on the CPU one kernel (``fit_kernels``) where
numba is installed (``pip install "monolift[fast]"``). The first boxes of a process never take it: loading numba takes longer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch

from monolift.errors import MissingExtraError
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.boxes import NEAR_PLANE
from monolift.methods.ss3d.parameters import (
    STATE,
    Pinhole,
    boxes_from_state,
    parameters_and_jacobian,
    start_from_parameters,
)
from monolift.typing import Bool, Float, Int, Tensor

DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8  # shares of the diagonal
TRUSTED_DAMPING = 1e-2  # above it a short step says nothing about how near the minimum is
NUDGE = 1e-6  # metres, log metres, radians, of the difference quotient of the Jacobian
ROUNDING = 1e-26  # of the sum of squares of the weighted parameters: E below is zero
WORST_CONDITION = 1e8  # of the normal matrix with unit diagonal; a well seen car has about 1e3
WORTH_LOADING = (
    1000  # boxes fitted by tensor operations before numba is loaded: that takes as long as about as many fits
)
Engine = Literal["auto", "torch", "numba"]


@dataclass(frozen=True)
class Fit:
    """N fitted boxes, float64. Nothing in it is ever NaN.

    Attributes:
        state: (N, 7) as in `monolift.methods.ss3d.parameters`, attached to parameters and weights; the gradient is
            zero where not ``ok``
        covariance: (N, 7, 7) of the state if the weights were 1 / sigma; infinite on the diagonal, else 0, where the
            parameters do not determine the box
        cost: (N,) E at the minimum; infinite where the parameters were not finite numbers
        iterations: (N,) evaluations after the first
        ok: (N,) settled in a smooth minimum that the parameters determine, in front of the camera. Of noisy cars 0.7 % end
            in a fold, where two corners tie for a side of the 2D box: a fair box, but without a gradient
    """

    state: Float[Tensor, "n 7"]
    covariance: Float[Tensor, "n 7 7"]
    cost: Float[Tensor, " n"]
    iterations: Int[Tensor, " n"]
    ok: Bool[Tensor, " n"]

    @property
    def boxes(self) -> Boxes3D:
        return boxes_from_state(self.state)


def fit_boxes(
    parameters: Float[Tensor, "n 26"],
    weights: Float[Tensor, "n 26"],
    camera: Camera,
    iterations: int = 20,
    tolerance: float = 1e-6,
    start: Float[Tensor, "n 7"] | None = None,
    engine: Engine = "auto",
) -> Fit:
    """Fits N boxes.

    parameters: pixels, metres, log metres (see `PARAMETER_NAMES`). weights: 1 / sigma in the same units; 0 leaves a
    parameter out.
    camera: one for all, or one per box. iterations: at most so many evaluations. tolerance: a box is done after a step that
    promised to lower E by less than this share of it. start: states to begin at; by default `start_from_parameters`.
    engine: "auto" takes the kernel where it can, from the `WORTH_LOADING`-th box of the process on.
    """
    with torch.no_grad():
        problem = _Problem.of(parameters, weights, camera)
        begin = start_from_parameters(problem.parameters, problem.pinhole) if start is None else _held(start)
        kernels = _kernels_for(engine, begin)
        if kernels is None:
            solution = _minimise(problem, begin, iterations, tolerance)
            inverse, determined = _inverse(solution.matrix)
        else:
            solution = _minimise_by_kernel(kernels, problem, begin, iterations, tolerance)
            found = kernels.inverses(solution.matrix.numpy(), WORST_CONDITION)
            inverse, determined = (torch.from_numpy(array) for array in found)
        ahead = solution.state[:, 2] + problem.pinhole.shift[:, 2] > NEAR_PLANE
        known = problem.sound & determined & ahead
        ok = known & solution.settled
    state = solution.state
    if torch.is_grad_enabled() and (parameters.requires_grad or weights.requires_grad):
        state = state + _zero_step(problem, state, ok, parameters, weights)
    unknown = torch.diag(inverse.new_full((STATE,), torch.inf)).nan_to_num(0.0, torch.inf)
    return Fit(
        state=state,
        covariance=torch.where(known[:, None, None], inverse, unknown),
        cost=torch.where(problem.sound, solution.cost, torch.inf),
        iterations=solution.iterations,
        ok=ok,
    )


@dataclass(frozen=True)
class _Problem:
    """Parameters and weights of N boxes in float64; a row with a number that is not finite has weight 0, not ``sound``."""

    parameters: Tensor
    weights: Tensor
    pinhole: Pinhole
    sound: Tensor

    @classmethod
    def of(cls, parameters: Tensor, weights: Tensor, camera: Camera) -> _Problem:
        y, w = parameters.detach().double(), weights.detach().double()
        sound = (torch.isfinite(y) & torch.isfinite(w) & torch.isfinite(w * y * w * y)).all(1)
        y, w = (torch.where(sound[:, None], v, 0.0) for v in (y, w))
        return cls(y, w, Pinhole.of(camera, y), sound)

    def normal(self, state: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E, J^T W^2 J and J^T W^2 r of the boxes ``rows`` at ``state``."""
        seen, jacobian = parameters_and_jacobian(state, self.pinhole[rows])
        w = self.weights[rows]
        residual = w * (self.parameters[rows] - seen)
        jacobian = w[..., None] * jacobian
        down = jacobian.transpose(1, 2)
        return (residual * residual).sum(1), down @ jacobian, (down @ residual[..., None])[..., 0]


@dataclass
class _Solution:
    state: Tensor
    cost: Tensor
    matrix: Tensor
    iterations: Tensor
    settled: Tensor


def _minimise(problem: _Problem, state: Tensor, iterations: int, tolerance: float) -> _Solution:
    """Levenberg-Marquardt with Marquardt's scaling; boxes that are done leave the batch."""
    every = torch.arange(len(state), device=state.device)
    cost, matrix, slope = problem.normal(state, every)
    state, settled = state.clone(), torch.zeros_like(problem.sound)
    damping, count = torch.full_like(cost, DAMPING), torch.zeros_like(every)
    zero_cost = ROUNDING * (problem.weights * problem.parameters).square().sum(1)
    open_ = torch.isfinite(cost) & problem.sound
    for _ in range(iterations):
        rows = open_.nonzero()[:, 0]
        if not len(rows):
            break
        step = _damped_step(matrix[rows], slope[rows], damping[rows])
        promised = (step * slope[rows]).sum(1)
        near = (promised <= tolerance * cost[rows] + zero_cost[rows]) & (damping[rows] <= TRUSTED_DAMPING)
        trial = state[rows] + step
        new_cost, new_matrix, new_slope = problem.normal(trial, rows)
        better = new_cost < cost[rows]  # false for a cost that is not a number
        won = rows[better]
        state[won], cost[won] = trial[better], new_cost[better]
        matrix[won], slope[won] = new_matrix[better], new_slope[better]
        damping[rows] = (damping[rows] * torch.where(better, 0.1, 10.0)).clamp_min(LEAST_DAMPING)
        count[rows] += 1
        settled[rows] = near
        open_[rows] = ~near & (damping[rows] < MOST_DAMPING)
    return _Solution(state, cost, matrix, count, settled)


_fitted = [0]  # boxes of this process


def _kernels_for(engine: Engine, state: Tensor) -> ModuleType | None:
    """The kernels, or None where tensor operations are to fit these boxes."""
    if engine == "torch" or state.device.type != "cpu":
        return None
    _fitted[0] += len(state)
    if engine == "auto" and _fitted[0] < WORTH_LOADING:
        return None
    kernels = _kernels()
    if kernels is None and engine == "numba":
        raise MissingExtraError("the numba engine", "fast")
    return kernels


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        from monolift.methods.ss3d import fit_kernels
    except ImportError:  # the extra "fast"
        return None
    return fit_kernels


def _minimise_by_kernel(
    kernels: ModuleType, problem: _Problem, state: Tensor, iterations: int, tolerance: float
) -> _Solution:
    """As `_minimise`, box by box."""
    pinhole, state = problem.pinhole, state.clone().contiguous()
    lens = torch.cat([pinhole.focal, pinhole.middle, pinhole.shift], 1)
    numbers = (problem.parameters, problem.weights, lens, pinhole.low, pinhole.high, problem.sound)
    rules = (DAMPING, LEAST_DAMPING, MOST_DAMPING, TRUSTED_DAMPING, ROUNDING)
    arrays = (tensor.contiguous().numpy() for tensor in numbers)
    found = kernels.minimise(*arrays, state.numpy(), rules, iterations, tolerance)
    cost, matrix, count, settled = (torch.from_numpy(array) for array in found)
    return _Solution(state, cost, matrix, count, settled)


def _damped_step(matrix: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    """(H + damping diag H)^-1 g, solved with unit diagonal: metres, logarithms and radians weigh alike; 0 where singular."""
    scaled, scale = _unit_diagonal(matrix)
    scaled.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    factor, failed = torch.linalg.cholesky_ex(scaled)
    step = torch.cholesky_solve((slope * scale)[..., None], factor)[..., 0] * scale
    return torch.where((failed == 0)[:, None], step, 0.0)


def _unit_diagonal(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """S = D H D with D = diag(H)^-1/2, and D; a parameter on which no parameter depends keeps a zero row."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    return matrix * scale[:, :, None] * scale[:, None, :], scale


def _inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of the normal matrices, and whether each has one (condition, 1-norm, at most ``WORST_CONDITION``)."""
    scaled, scale = _unit_diagonal(torch.where(torch.isfinite(matrix), matrix, 0.0))
    factor, failed = torch.linalg.cholesky_ex(scaled)
    identity = torch.eye(STATE, dtype=matrix.dtype, device=matrix.device)
    inverse = torch.cholesky_inverse(torch.where((failed == 0)[:, None, None], factor, identity))
    condition = scaled.abs().sum(1).amax(1) * inverse.abs().sum(1).amax(1)
    good = (failed == 0) & (condition < WORST_CONDITION)
    inverse = torch.where(good[:, None, None], inverse, 0.0)
    return inverse * scale[:, :, None] * scale[:, None, :], good


def _zero_step(problem: _Problem, state: Tensor, ok: Tensor, parameters: Tensor, weights: Tensor) -> Tensor:
    """delta - stopgrad(delta): value zero, slopes of the minimum in parameters and weights, zero where not ``ok``."""
    with torch.no_grad():
        seen, jacobian = parameters_and_jacobian(state, problem.pinhole)
        matrix = _hessian(problem, state, seen, jacobian)
        inverse, determined = _inverse(matrix)
        used = (ok & determined)[:, None]
        towards = torch.where(used[..., None], inverse @ jacobian.transpose(1, 2), 0.0)
    # a row that is left out must not multiply its NaN by zero
    residual = torch.where(used, parameters.double() - seen, 0.0)
    square = torch.where(used, weights.double(), 0.0).square()
    delta = (towards @ (square * residual)[..., None])[..., 0]
    return delta - delta.detach()


def _hessian(problem: _Problem, state: Tensor, seen: Tensor, jacobian: Tensor) -> Tensor:
    """(N, 7, 7) of E / 2: J^T W^2 J - sum_k v_k d2f_k with v = W^2 r; the sum is the slope of J(b)^T v, by differences."""
    square = problem.weights.square()
    pull = (square * (problem.parameters - seen))[..., None]
    n = len(state)
    moved = (state[:, None] + NUDGE * torch.eye(STATE, dtype=state.dtype, device=state.device)).flatten(0, 1)
    pinhole = problem.pinhole[torch.arange(n, device=state.device).repeat_interleave(STATE)]
    moved_jacobian = parameters_and_jacobian(moved, pinhole)[1].unflatten(0, (n, STATE))
    change = (moved_jacobian - jacobian[:, None]).transpose(2, 3) @ pull[:, None]
    curvature = change[..., 0] / NUDGE
    curvature = (curvature + curvature.transpose(1, 2)) / 2
    return jacobian.transpose(1, 2) @ (square[..., None] * jacobian) - curvature


def _held(start: Tensor) -> Tensor:
    """A start in numbers with which the parameters do not overflow: within 10 km, sizes between 50 um and 20 km."""
    start = start.detach().double().nan_to_num(0.0, 1e4, -1e4)
    return torch.cat([start[:, :3].clamp(-1e4, 1e4), start[:, 3:6].clamp(-10.0, 10.0), start[:, 6:]], 1)
