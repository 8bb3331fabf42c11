"""Angles and rotations against independent formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monolift.geometry import alpha_from_yaw, wrap, yaw_from_alpha
from monolift.geometry.rotations import (
    allocentric_from_egocentric,
    egocentric_from_allocentric,
    matrix_from_quaternion,
    matrix_from_yaw,
    quaternion_from_matrix,
    quaternion_from_yaw,
    ray_rotation,
    yaw_from_matrix,
)

PI = math.pi
angles = st.floats(-50, 50)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_rotations(n: int) -> torch.Tensor:
    """Proper rotations from QR, without any formula of ours."""
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None]
    return q * torch.linalg.det(q)[:, None, None]


# -- wrap -------------------------------------------------------------------------------------------------------------


@given(angles, st.sampled_from([torch.float32, torch.float64]))
def test_wrap_is_the_same_direction_inside_the_range(angle: float, dtype: torch.dtype) -> None:
    x = torch.tensor(angle, dtype=dtype)
    y = wrap(x)
    limit = torch.tensor(PI, dtype=dtype)
    assert -limit <= y <= limit
    tolerance = 64 * torch.finfo(dtype).eps
    assert float(torch.cos(y.double() - x.double())) == pytest.approx(1, abs=tolerance)
    assert float(torch.sin(y.double() - x.double())) == pytest.approx(0, abs=tolerance)


@given(st.floats(-3.1415, 3.1415))
def test_wrap_leaves_what_is_inside_bit_for_bit(angle: float) -> None:
    assert wrap(tensor(angle)).item() == angle


def test_wrap_at_its_ends_and_its_slope() -> None:
    assert wrap(tensor([-PI, PI, 3 * PI])).tolist() == [-PI, -PI, -PI]
    x = tensor([-9.0, 0.5, 4.0, 7.0]).requires_grad_()
    wrap(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1]


# -- yaw and alpha ----------------------------------------------------------------------------------------------------


def test_alpha_of_objects_seen_alike() -> None:
    """A car that drives along its viewing ray shows its back wherever it is: alpha = -pi/2 for all three."""
    center = tensor([[0, 1, 10], [10, 1, 10], [-10, 1, 10]])
    yaw = tensor([-PI / 2, -PI / 4, -3 * PI / 4])
    assert torch.allclose(alpha_from_yaw(yaw, center), tensor([-PI / 2] * 3))


@given(angles, st.floats(-40, 40), st.floats(0.1, 80))
def test_yaw_from_alpha_inverts(yaw: float, x: float, z: float) -> None:
    center = tensor([x, 1.0, z])
    back = yaw_from_alpha(alpha_from_yaw(tensor(yaw), center), center)
    assert torch.allclose(wrap(back - yaw), tensor(0.0), atol=1e-12)


# -- yaw and matrices -------------------------------------------------------------------------------------------------


def test_headings_of_the_convention() -> None:
    x_axis = matrix_from_yaw(tensor([0, -PI / 2, PI / 2, PI]))[..., :, 0]
    expected = tensor([[1, 0, 0], [0, 0, 1], [0, 0, -1], [-1, 0, 0]])
    assert torch.allclose(x_axis, expected, atol=1e-15)


@given(angles)
def test_yaw_from_matrix_inverts(yaw: float) -> None:
    back = yaw_from_matrix(matrix_from_yaw(tensor(yaw)))
    assert wrap(back - yaw).item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(
        matrix_from_quaternion(quaternion_from_yaw(tensor(yaw))), matrix_from_yaw(tensor(yaw))
    )


# -- quaternions ------------------------------------------------------------------------------------------------------


def hamilton(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    a, b, c, d = p.unbind(-1)
    e, f, g, h = q.unbind(-1)
    return torch.stack(
        [a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
         a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e], -1
    )  # fmt: skip


def test_matrix_from_quaternion_is_the_sandwich_product() -> None:
    q = torch.randn(200, 4, dtype=torch.float64) * 10 ** torch.empty(200, 1, dtype=torch.float64).uniform_(
        -6, 6
    )
    v = torch.randn(200, 3, dtype=torch.float64)
    unit = q / q.norm(dim=1, keepdim=True)
    conjugate = unit * tensor([1, -1, -1, -1])
    rotated = hamilton(hamilton(unit, torch.cat([torch.zeros(200, 1), v], 1).double()), conjugate)[:, 1:]
    assert torch.allclose(torch.einsum("nij,nj->ni", matrix_from_quaternion(q), v), rotated, atol=1e-12)


def test_quaternion_from_matrix_inverts_everywhere() -> None:
    turns = torch.eye(3, dtype=torch.float64)[None].repeat(4, 1, 1)
    turns[1:] = -turns[1:] + 2 * torch.diag_embed(
        torch.eye(3, dtype=torch.float64)
    )  # half turns about x, y, z
    nearly = torch.matrix_exp(
        torch.tensor([[0, -1, 0.2], [1, 0, 0], [-0.2, 0, 0]], dtype=torch.float64) * tensor(3.1)
    )
    rotations = torch.cat([turns, nearly[None], random_rotations(500)])
    q = quaternion_from_matrix(rotations)
    assert torch.allclose(q.norm(dim=1), torch.ones(len(q), dtype=torch.float64))
    assert (q[:, 0] >= 0).all()
    assert torch.allclose(matrix_from_quaternion(q), rotations, atol=1e-12)


def test_a_zero_quaternion_is_the_identity_without_gradient() -> None:
    q = torch.zeros(2, 4, requires_grad=True)
    matrix = matrix_from_quaternion(q)
    assert torch.equal(matrix, torch.eye(3).expand(2, 3, 3))
    (matrix * torch.randn(2, 3, 3)).sum().backward()
    assert torch.equal(q.grad, torch.zeros(2, 4))


@pytest.mark.parametrize("size", [1e-15, 1e-6, 1e15])
def test_quaternions_of_extreme_length_have_finite_gradients(size: float) -> None:
    q = (torch.randn(50, 4) * size).requires_grad_()
    matrix = matrix_from_quaternion(q)
    matrix.sum().backward()
    assert torch.isfinite(q.grad).all()
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)


def test_gradients_of_the_conversions() -> None:
    q = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix_from_quaternion, (q,))
    r = random_rotations(5).requires_grad_()
    assert torch.autograd.gradcheck(quaternion_from_matrix, (r,))
    ray = (torch.rand(4, 3, dtype=torch.float64) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(ray_rotation, (ray,))
    yaw = tensor([-3.0, 0.2, 1.7]).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: yaw_from_matrix(matrix_from_yaw(y)), (yaw,))


# -- viewing rays -----------------------------------------------------------------------------------------------------


def test_ray_rotation_is_the_shortest_one() -> None:
    ray = torch.randn(300, 3, dtype=torch.float64)
    ray[:, 2] = ray[:, 2].abs() + 0.05
    rotation = ray_rotation(ray)
    unit = ray / ray.norm(dim=1, keepdim=True)
    assert torch.allclose(rotation[:, :, 2], unit)  # the optical axis goes onto the ray
    assert torch.allclose(
        rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(300, 3, 3), atol=1e-12
    )
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(300, dtype=torch.float64))
    # shortest: the angle of the rotation is that between axis and ray, trace = 1 + 2 cos
    trace = torch.diagonal(rotation, dim1=-2, dim2=-1).sum(-1)
    assert torch.allclose(trace, 1 + 2 * unit[:, 2])


def test_allocentric_and_egocentric_are_inverse() -> None:
    ray = torch.randn(50, 3, dtype=torch.float64)
    ray[:, 2] = ray[:, 2].abs() + 0.1
    rotation = random_rotations(50)
    there = egocentric_from_allocentric(rotation, ray)
    assert torch.allclose(allocentric_from_egocentric(there, ray), rotation)


@given(angles, st.floats(-40, 40), st.floats(1, 60))
def test_for_objects_on_the_horizon_the_allocentric_yaw_is_alpha(yaw: float, x: float, z: float) -> None:
    center = tensor([x, 0.0, z])
    allocentric = allocentric_from_egocentric(matrix_from_yaw(tensor(yaw)), center)
    difference = yaw_from_matrix(allocentric) - alpha_from_yaw(tensor(yaw), center)
    assert wrap(difference).item() == pytest.approx(0, abs=1e-9)
