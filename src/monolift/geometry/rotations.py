"""Angles and rotations of the camera frame (x right, y down, z forward).

Yaw turns about +y: the heading of yaw 0 is +x, that of yaw -pi/2 is +z (away from the camera). Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import math

import torch

from monolift.typing import Float, Tensor


def wrap(angle: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Radians to [-pi, pi). Differentiable with slope 1; exact where the angle is already inside."""
    turns = torch.floor((angle + math.pi) / (2 * math.pi))
    return angle - 2 * math.pi * turns


def ray_angle(x: Float[Tensor, "..."], z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Angle of the viewing ray against the optical axis, positive to the right: atan2(x, z)."""
    return torch.atan2(x, z)


def alpha_from_yaw(yaw: Float[Tensor, "..."], center: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """KITTI's observation angle: alpha = yaw - atan2(x, z), wrapped. It is what the appearance of an object depends on."""
    return wrap(yaw - ray_angle(center[..., 0], center[..., 2]))


def yaw_from_alpha(alpha: Float[Tensor, "..."], center: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """Inverse of `alpha_from_yaw`."""
    return wrap(alpha + ray_angle(center[..., 0], center[..., 2]))


def matrix_from_yaw(yaw: Float[Tensor, "..."]) -> Float[Tensor, "... 3 3"]:
    """cam_from_object rotation R_y(yaw) = [[c, 0, s], [0, 1, 0], [-s, 0, c]]."""
    c, s = torch.cos(yaw), torch.sin(yaw)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).unflatten(-1, (3, 3))


def yaw_from_matrix(rotation: Float[Tensor, "... 3 3"]) -> Float[Tensor, "..."]:
    """Heading of the object's x axis in the ground plane; for a pure yaw rotation the inverse of `matrix_from_yaw`."""
    return torch.atan2(-rotation[..., 2, 0], rotation[..., 0, 0])


def mirrored_rotation(rotation: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """cam_from_object in the world mirrored in x, of the object mirrored in its own z: right stays its right. Twice is the
    identity; of a yaw it is that of pi - yaw."""
    in_world, in_object = (rotation.new_tensor(signs) for signs in ([[-1.0], [1.0], [1.0]], [1.0, 1.0, -1.0]))
    return in_world * rotation * in_object


def matrix_from_quaternion(quaternion: Float[Tensor, "... 4"]) -> Float[Tensor, "... 3 3"]:
    """Rotation of a (w, x, y, z) quaternion of any non-zero length.

    It is normalised here. A zero quaternion has no rotation: it gives the identity with gradient zero, not NaN.
    """
    norm2 = (quaternion * quaternion).sum(-1, keepdim=True)
    usable = norm2 > torch.finfo(quaternion.dtype).tiny
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=quaternion.dtype, device=quaternion.device)
    q = torch.where(
        usable, quaternion, identity
    )  # before the square root, so that no NaN reaches the gradient
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion_from_matrix(rotation: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 4"]:
    """Unit quaternion (w >= 0) of a rotation matrix.

    Of the four textbook formulas the one with the largest pivot is taken per element, so none is near a division by zero.
    """
    m = rotation
    diagonal = torch.stack([m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], -1)
    trace = diagonal.sum(-1, keepdim=True)
    # four times the squares of w, x, y, z
    squares = torch.cat([1 + trace, 1 - trace + 2 * diagonal], -1)
    # row k is the quaternion scaled by 4 * its k-th component
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    wx, wy, wz = (m[..., i, j] - m[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    sw, sx, sy, sz = squares.unbind(-1)
    table = torch.stack(
        [sw, wx, wy, wz, wx, sx, xy, xz, wy, xy, sy, yz, wz, xz, yz, sz], -1
    ).unflatten(-1, (4, 4))  # fmt: skip
    pivot = squares.argmax(-1, keepdim=True)
    row = torch.gather(table, -2, pivot[..., None].expand(*pivot.shape, 4)).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_from_yaw(yaw: Float[Tensor, "..."]) -> Float[Tensor, "... 4"]:
    """(cos(yaw/2), 0, sin(yaw/2), 0)."""
    zero = torch.zeros_like(yaw)
    return torch.stack([torch.cos(yaw / 2), zero, torch.sin(yaw / 2), zero], -1)


def ray_rotation(ray: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Shortest rotation that turns the optical axis (0, 0, 1) onto ``ray`` (any length, z > 0 for a visible object).

    ROI-10D section 3.2: an object seen along another ray looks as if it were rotated by this. Rodrigues' formula with the
    axis z x ray; the ray straight backwards has no shortest rotation and raises no error, its result is undefined.
    """
    d = ray / ray.norm(dim=-1, keepdim=True)
    x, y, c = d.unbind(-1)
    k = 1 / (1 + c)
    rows = [1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, c]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def egocentric_from_allocentric(
    allocentric: Float[Tensor, "... 3 3"], ray: Float[Tensor, "... 3"]
) -> Float[Tensor, "... 3 3"]:
    """Rotation in the camera frame of an object that looks like ``allocentric`` when seen along ``ray``."""
    return ray_rotation(ray) @ allocentric


def allocentric_from_egocentric(
    egocentric: Float[Tensor, "... 3 3"], ray: Float[Tensor, "... 3"]
) -> Float[Tensor, "... 3 3"]:
    """Inverse of `egocentric_from_allocentric`."""
    return ray_rotation(ray).transpose(-1, -2) @ egocentric
