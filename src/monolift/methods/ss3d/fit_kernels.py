"""The fit of `monolift.methods.ss3d.fit` box by box in one numba kernel (extra ``monolift[fast]``).

The arithmetic and the rules (damping, when a box is done, what has no inverse) are those of ``fit._minimise`` and
``fit._inverse`` and are explained there; the forward model and its slopes those of ``parameters._Seen``. A hundred boxes are a
few hundred small tensor operations there, whose dispatch takes most of the time, and a few loops here.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit

from monolift.geometry import CORNER_SIGNS
from monolift.geometry.boxes import NEAR_PLANE
from monolift.methods.ss3d.parameters import PARAMETERS, STATE, TINY

# Division by zero gives inf as in torch. No fast-math: it would assume that NaN does not exist.
# ``no_type_check`` keeps run-time checkers of annotations from wrapping what numba has to read.
_kernel = njit(nogil=True, cache=True, error_model="numpy")
_SIGNS = np.array(CORNER_SIGNS, np.float64)


@_kernel
@no_type_check
def minimise(y, w, lens, low, high, sound, state, rules, iterations, tolerance):
    """Levenberg-Marquardt for each of N boxes.

    Args:
        y, w: (N, 26) parameters and weights, float64
        lens: (N, 7) fx, fy, cx, cy, tx, ty, tz
        low, high: (2,) the image's limits, pixels
        sound: (N,) boxes to fit
        state: (N, 7) start; the minimum afterwards
        rules: DAMPING, LEAST_DAMPING, MOST_DAMPING, TRUSTED_DAMPING, ROUNDING of ``fit``.

    Returns:
        cost (N,), normal matrix (N, 7, 7), iterations (N,), settled (N,).
    """
    start_damping, least, most, trusted, rounding = rules
    n = len(state)
    costs, matrices = np.empty(n), np.empty((n, STATE, STATE))
    counts, settled = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    seen, jacobian = np.empty(PARAMETERS), np.zeros((PARAMETERS, STATE))
    slope, trial_slope, step = np.empty(STATE), np.empty(STATE), np.empty(STATE)
    trial, trial_matrix, factor = np.empty(STATE), np.empty((STATE, STATE)), np.empty((STATE, STATE))
    scale = np.empty(STATE)
    for b in range(n):
        here, matrix, eye = state[b], matrices[b], lens[b]
        cost = _normal(here, y[b], w[b], eye, low, high, seen, jacobian, matrix, slope)
        zero_cost = 0.0
        for k in range(PARAMETERS):
            zero_cost += (w[b, k] * y[b, k]) ** 2
        zero_cost *= rounding
        damping, working = start_damping, math.isfinite(cost) and sound[b]
        for _ in range(iterations):
            if not working:
                break
            _damped_step(matrix, slope, damping, factor, scale, step)
            promised = 0.0
            for i in range(STATE):
                promised += step[i] * slope[i]
                trial[i] = here[i] + step[i]
            near = promised <= tolerance * cost + zero_cost and damping <= trusted
            trial_cost = _normal(trial, y[b], w[b], eye, low, high, seen, jacobian, trial_matrix, trial_slope)
            if trial_cost < cost:  # false for a cost that is not a number
                cost = trial_cost
                for i in range(STATE):
                    here[i], slope[i] = trial[i], trial_slope[i]
                    for j in range(STATE):
                        matrix[i, j] = trial_matrix[i, j]
                damping = max(damping * 0.1, least)
            else:
                damping = max(damping * 10.0, least)
            counts[b] += 1
            settled[b] = near
            working = not near and damping < most
        costs[b] = cost
    return costs, matrices, counts, settled


@_kernel
@no_type_check
def inverses(matrices, worst):
    """(N, 7, 7) inverses, zero where there is none, and (N,) which have one: a condition in the 1-norm below ``worst``."""
    n = len(matrices)
    out, good = np.zeros((n, STATE, STATE)), np.zeros(n, np.bool_)
    scaled, factor = np.empty((STATE, STATE)), np.empty((STATE, STATE))
    inverse, scale, unit = np.empty((STATE, STATE)), np.empty(STATE), np.empty(STATE)
    for b in range(n):
        for i in range(STATE):
            for j in range(STATE):
                value = matrices[b, i, j]
                scaled[i, j] = value if math.isfinite(value) else 0.0
        _unit_diagonal(scaled, scaled, scale)
        if not _cholesky(scaled, factor):
            continue
        for j in range(STATE):
            for i in range(STATE):
                unit[i] = 1.0 if i == j else 0.0
            _solve(factor, unit)
            for i in range(STATE):
                inverse[i, j] = unit[i]
        if not _one_norm(scaled) * _one_norm(inverse) < worst:
            continue
        good[b] = True
        for i in range(STATE):
            for j in range(STATE):
                out[b, i, j] = inverse[i, j] * scale[i] * scale[j]
    return out, good


@_kernel
@no_type_check
def _normal(state, y, w, lens, low, high, seen, jacobian, matrix, slope):
    """E; J^T W^2 J into ``matrix`` and J^T W^2 r into ``slope``."""
    _forward(state, lens, low, high, seen, jacobian)
    cost = 0.0
    for i in range(STATE):
        slope[i] = 0.0
        for j in range(STATE):
            matrix[i, j] = 0.0
    for k in range(PARAMETERS):
        residual = w[k] * (y[k] - seen[k])
        cost += residual * residual
        for i in range(STATE):
            weighted = w[k] * jacobian[k, i]
            slope[i] += weighted * residual
            for j in range(i + 1):
                matrix[i, j] += weighted * w[k] * jacobian[k, j]
    for i in range(STATE):
        for j in range(i):
            matrix[j, i] = matrix[i, j]
    return cost


@_kernel
@no_type_check
def _forward(state, lens, low, high, seen, jacobian):
    """The 26 parameters of a state into ``seen``, their slopes into ``jacobian``, whose zeros stay."""
    fx, fy, cx, cy, tx, ty, tz = lens
    cos, sin = math.cos(state[6]), math.sin(state[6])
    middle_x, middle_y, middle_z = state[0] + tx, state[1] + ty, state[2] + tz
    length, height, width = np.exp(state[3]) / 2, np.exp(state[4]) / 2, np.exp(state[5]) / 2
    first_u = first_v = last_u = last_v = 0
    for k in range(8):
        x, y, z = _SIGNS[k, 0] * length, _SIGNS[k, 1] * height, _SIGNS[k, 2] * width
        side, ahead = cos * x + sin * z, cos * z - sin * x
        depth = ahead + middle_z
        inverse = 1.0 / max(depth, NEAR_PLANE)
        slope_u, slope_v = (side + middle_x) * inverse, (y + middle_y) * inverse
        u, v = 10 + 2 * k, 11 + 2 * k
        seen[u], seen[v] = slope_u * fx + cx, slope_v * fy + cy
        # du = f / Z (dX - (X / Z) dZ); dZ is 0 where the depth is held
        held = 1.0 if depth > NEAR_PLANE else 0.0
        f, p = fx * inverse, slope_u * held
        jacobian[u, 0], jacobian[u, 2], jacobian[u, 3] = f, -f * p, f * (cos * x + p * sin * x)
        jacobian[u, 5], jacobian[u, 6] = f * (sin * z - p * cos * z), f * (ahead + p * side)
        f, p = fy * inverse, slope_v * held
        jacobian[v, 1], jacobian[v, 2], jacobian[v, 3] = f, -f * p, f * p * sin * x
        jacobian[v, 4], jacobian[v, 5], jacobian[v, 6] = f * y, -f * p * cos * z, f * p * side
        if k == 0 or seen[u] < seen[first_u]:
            first_u = u
        if k == 0 or seen[v] < seen[first_v]:
            first_v = v
        if k == 0 or seen[u] > seen[last_u]:
            last_u = u
        if k == 0 or seen[v] > seen[last_v]:
            last_v = v
    for at in range(4):
        axis = at % 2
        corner = (first_u, first_v, last_u, last_v)[at]
        value = seen[corner]
        free = low[axis] < value < high[axis]  # a side cut by the image's border does not move
        seen[at] = min(max(value, low[axis]), high[axis])
        for i in range(STATE):
            jacobian[at, i] = jacobian[corner, i] if free else 0.0
    _of_centre(state, middle_x, middle_y, middle_z, seen, jacobian)


@_kernel
@no_type_check
def _of_centre(state, x, y, z, seen, jacobian):
    """Distance, observation angle and log sizes."""
    distance = max(math.sqrt(x * x + y * y + z * z), TINY)
    alpha = state[6] - math.atan2(state[0], state[2])
    ground = max(state[0] * state[0] + state[2] * state[2], TINY)
    seen[4], seen[5], seen[6] = distance, math.sin(alpha), math.cos(alpha)
    jacobian[4, 0], jacobian[4, 1], jacobian[4, 2] = x / distance, y / distance, z / distance
    for at in range(5, 7):
        factor = seen[6] if at == 5 else -seen[5]
        jacobian[at, 0], jacobian[at, 2] = factor * -state[2] / ground, factor * state[0] / ground
        jacobian[at, 6] = factor
    for i in range(3):
        seen[7 + i] = state[3 + i]
        jacobian[7 + i, 3 + i] = 1.0


@_kernel
@no_type_check
def _damped_step(matrix, slope, damping, factor, scale, step):
    """(H + damping diag H)^-1 g into ``step``; 0 where singular."""
    scaled = np.empty((STATE, STATE))
    _unit_diagonal(matrix, scaled, scale)
    for i in range(STATE):
        scaled[i, i] += damping
    if not _cholesky(scaled, factor):
        for i in range(STATE):
            step[i] = 0.0
        return
    for i in range(STATE):
        step[i] = slope[i] * scale[i]
    _solve(factor, step)
    for i in range(STATE):
        step[i] *= scale[i]


@_kernel
@no_type_check
def _unit_diagonal(matrix, scaled, scale):
    for i in range(STATE):
        diagonal = matrix[i, i]
        scale[i] = 1.0 / math.sqrt(diagonal) if diagonal > 0 else 1.0
    for i in range(STATE):
        for j in range(STATE):
            scaled[i, j] = matrix[i, j] * scale[i] * scale[j]


@_kernel
@no_type_check
def _cholesky(matrix, factor):
    """The lower factor; False where the matrix is not positive definite."""
    for j in range(STATE):
        pivot = matrix[j, j]
        for k in range(j):
            pivot -= factor[j, k] * factor[j, k]
        if not pivot > 0:
            return False
        factor[j, j] = math.sqrt(pivot)
        for i in range(j + 1, STATE):
            value = matrix[i, j]
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            factor[i, j] = value / factor[j, j]
    return True


@_kernel
@no_type_check
def _solve(factor, x):
    """x becomes (L L^T)^-1 x."""
    for i in range(STATE):
        for k in range(i):
            x[i] -= factor[i, k] * x[k]
        x[i] /= factor[i, i]
    for i in range(STATE - 1, -1, -1):
        for k in range(i + 1, STATE):
            x[i] -= factor[k, i] * x[k]
        x[i] /= factor[i, i]


@_kernel
@no_type_check
def _one_norm(matrix):
    largest = 0.0
    for j in range(STATE):
        column = 0.0
        for i in range(STATE):
            column += abs(matrix[i, j])
        largest = max(largest, column)
    return largest
