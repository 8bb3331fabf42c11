"""The 26 parameters of a 3D box in a camera, and how they change with the box.

A box is seven numbers, its *state*: x, y, z (centre, metres), log length, log height, log width, yaw. In the logarithm every
state is a box, so the fit needs no bounds.

parameters    meaning                                             unit
0-3      2D box x1, y1, x2, y2                               pixels, cut to the image where its size is known
4        distance from the image's camera to the centre    metres
5, 6     sine and cosine of the observation angle            -
7-9      log length, log height, log width                   log metres
10-25    u, v of the eight corners (``CORNER_SIGNS``)        pixels

A corner in or behind the image plane has no pixel: its depth is held at ``NEAR_PLANE``, which sends it far out on its own side,
and the side of the 2D box that follows it ends at the image's border, as it does in the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monolift.geometry import CORNER_SIGNS, Boxes3D, Camera, wrap
from monolift.geometry.boxes import NEAR_PLANE
from monolift.typing import Bool, Float, Int, Tensor

PARAMETER_NAMES = (
    "left", "top", "right", "bottom",
    "distance",
    "sin alpha", "cos alpha",
    "log length", "log height", "log width",
    *(f"corner {k} {axis}" for k in range(8) for axis in "uv"),
)  # fmt: skip
BOX, DISTANCE, DIRECTION, SIZE, CORNERS = slice(0, 4), 4, slice(5, 7), slice(7, 10), slice(10, 26)
SINE, COSINE = DIRECTION.start, DIRECTION.start + 1
PARAMETERS, STATE = len(PARAMETER_NAMES), 7
HALF_TURN = tuple(CORNER_SIGNS.index((-x, y, -z)) for x, y, z in CORNER_SIGNS)
"""Where each corner is once the box has turned half round."""
TINY = 1e-12  # metres; keeps the slopes of a box at the camera's very centre finite


@dataclass(frozen=True)
class Pinhole:
    """One camera per box as plain tensors, in the dtype and on the device of the boxes.

    focal, middle: (N, 2) pixels; shift: (N, 3) metres, the fourth column of P2; low, high: (2,) image's limits, pixels.
    """

    focal: Float[Tensor, "n 2"]
    middle: Float[Tensor, "n 2"]
    shift: Float[Tensor, "n 3"]
    low: Float[Tensor, "2"]
    high: Float[Tensor, "2"]

    @classmethod
    def of(cls, camera: Camera, like: Float[Tensor, "n c"]) -> Pinhole:
        """``camera``: one for all, or a batch with one per row of ``like``."""
        n = len(like)

        def columns(*names: str) -> Tensor:
            stacked = torch.stack([getattr(camera, name) for name in names], -1).to(like)
            return stacked.expand(n, -1)

        infinite = like.new_full((2,), torch.inf)
        known = bool(camera.width and camera.height)
        high = like.new_tensor([camera.width - 1, camera.height - 1]) if known else infinite
        low = torch.zeros_like(high) if known else -infinite
        return cls(columns("fx", "fy"), columns("cx", "cy"), columns("tx", "ty", "tz"), low, high)

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Pinhole:
        return Pinhole(self.focal[rows], self.middle[rows], self.shift[rows], self.low, self.high)


def state_from_boxes(boxes: Boxes3D) -> Float[Tensor, "n 7"]:
    """Sizes are held above 1 mm: a box without extent has no logarithm."""
    return torch.cat([boxes.center, boxes.size.clamp_min(1e-3).log(), boxes.yaw[:, None]], 1)


def boxes_from_state(state: Float[Tensor, "n 7"]) -> Boxes3D:
    """Inverse of `state_from_boxes`; the yaw is wrapped."""
    return Boxes3D(state[:, :3], state[:, 3:6].exp(), wrap(state[:, 6]))


def parameters_of_boxes(boxes: Boxes3D, camera: Camera) -> Float[Tensor, "n 26"]:
    """The parameters that the box itself would give. ``camera``: one, or one per box."""
    state = state_from_boxes(boxes)
    return parameters_of_state(state, Pinhole.of(camera, state))


def parameters_of_state(state: Float[Tensor, "n 7"], pinhole: Pinhole) -> Float[Tensor, "n 26"]:
    """The forward model f(b) of the fit (Jörgensen et al., "Monocular 3D object detection and box fitting ...", 2019)."""
    return torch.cat(_Seen(state, pinhole).parameters(), 1)


def parameters_and_jacobian(
    state: Float[Tensor, "n 7"], pinhole: Pinhole
) -> tuple[Float[Tensor, "n 26"], Float[Tensor, "n 26 7"]]:
    """f(b) and df/db in closed form: some thirty tensor operations whatever N is, where automatic differentiation takes
    seven passes. At the ties of the 2D box's minimum and maximum, and where a side or depth is held, one side's slope."""
    seen = _Seen(state, pinhole)
    return torch.cat(seen.parameters(), 1), seen.jacobian()


def start_from_parameters(parameters: Float[Tensor, "n 26"], pinhole: Pinhole) -> Float[Tensor, "n 7"]:
    """Initial state of the fit: the centre on the ray through the middle of the 2D box, at the predicted distance.

    Held to what can be an object, so that any finite parameters give a usable start: 0.5 to 500 m away, 5 cm to 50 m long.
    """
    px = (parameters[:, 0:2] + parameters[:, 2:4]) / 2
    slope = (px - pinhole.middle) / pinhole.focal
    ray = torch.cat([slope, torch.ones_like(slope[:, :1])], 1)
    ray = ray / ray.norm(dim=1, keepdim=True)
    center = ray * parameters[:, DISTANCE : DISTANCE + 1].clamp(0.5, 500.0) - pinhole.shift
    alpha = torch.atan2(parameters[:, 5], parameters[:, 6])
    yaw = alpha + torch.atan2(center[:, 0], center[:, 2])
    return torch.cat([center, parameters[:, SIZE].clamp(-3.0, 4.0), yaw[:, None]], 1)


def with_corners_turned(values: Tensor, turned: Bool[Tensor, " n"]) -> Tensor:
    """Parameters, or values (N, 26) that go with them, the corners of some rows in the order of the box turned half round."""
    corners = values[:, CORNERS].unflatten(1, (8, 2))
    corners = torch.where(turned[:, None, None], corners[:, list(HALF_TURN)], corners)
    return torch.cat([values[:, : CORNERS.start], corners.flatten(1)], 1)


class _Seen:
    """Quantities of N boxes seen by their cameras that the parameters and their slopes have in common."""

    def __init__(self, state: Tensor, pinhole: Pinhole) -> None:
        self.state, self.pinhole = state, pinhole
        center, self.log_size, yaw = state[:, :3], state[:, 3:6], state[:, 6]
        self.cos, self.sin = torch.cos(yaw)[:, None], torch.sin(yaw)[:, None]
        in_object = state.new_tensor(CORNER_SIGNS) * (self.log_size.exp() / 2)[:, None]
        self.X, self.Y, self.Z = in_object.unbind(2)  # (N, 8), from the centre along length, height, width
        self.side = self.cos * self.X + self.sin * self.Z  # from the centre to the right
        self.ahead = self.cos * self.Z - self.sin * self.X  # ... and forwards
        self.shifted = center + pinhole.shift  # the centre, seen from the image's own camera
        points = torch.stack([self.side, self.Y], 2) + self.shifted[:, None, :2]
        depth = self.ahead + self.shifted[:, 2:]
        self.in_front = depth > NEAR_PLANE
        self.inverse = 1 / depth.clamp_min(NEAR_PLANE)
        self.slope = points * self.inverse[..., None]  # (N, 8, 2) tangents of the viewing angles
        self.pixels = self.slope * pinhole.focal[:, None] + pinhole.middle[:, None]
        self.first, self.first_at = self.pixels.min(1)  # (N, 2)
        self.last, self.last_at = self.pixels.max(1)
        self.distance = self.shifted.norm(dim=1, keepdim=True).clamp_min(TINY)
        self.alpha = (yaw - torch.atan2(state[:, 0], state[:, 2]))[:, None]

    def parameters(self) -> list[Tensor]:
        low, high = self.pinhole.low, self.pinhole.high
        sides = (self.first.clamp(low, high), self.last.clamp(low, high))
        direction = (torch.sin(self.alpha), torch.cos(self.alpha))
        return [*sides, self.distance, *direction, self.log_size, self.pixels.flatten(1)]

    def jacobian(self) -> Tensor:
        corners = self._corner_slopes()
        n, low, high = len(self.state), self.pinhole.low, self.pinhole.high

        def of_corner(which: Tensor, value: Tensor) -> Tensor:
            free = (value > low) & (value < high)  # a side cut by the image's border does not move
            rows = corners.gather(1, which[:, None, :, None].expand(n, 1, 2, STATE))[:, 0]
            return rows * free[..., None]

        away = torch.cat([self.shifted / self.distance, corners.new_zeros(n, 4)], 1)
        x, z = self.state[:, 0:1], self.state[:, 2:3]
        ground = (x * x + z * z).clamp_min(TINY)
        zero = torch.zeros_like(x)
        turn = torch.cat([-z / ground, zero, x / ground, zero, zero, zero, torch.ones_like(x)], 1)
        direction = torch.stack([torch.cos(self.alpha) * turn, -torch.sin(self.alpha) * turn], 1)
        size = torch.eye(STATE, dtype=corners.dtype, device=corners.device)[3:6].expand(n, 3, STATE)
        sides = (of_corner(self.first_at, self.first), of_corner(self.last_at, self.last))
        return torch.cat([*sides, away[:, None], direction, size, corners.flatten(1, 2)], 1)

    def _corner_slopes(self) -> Tensor:
        """(N, 8, 2, 7): u = f X / Z + c, so du = f / Z (dX - (X / Z) dZ); dZ is 0 where the depth is held."""
        scale = (self.pinhole.focal[:, None] * self.inverse[..., None]).unbind(2)
        pull = (self.slope * self.in_front[..., None]).unbind(2)
        zero = torch.zeros_like(self.X)
        sin_x, cos_z = self.sin * self.X, self.cos * self.Z
        rows = []
        for axis in (0, 1):
            k, p = scale[axis], pull[axis]
            if axis == 0:
                columns = [k, zero, -k * p, k * (self.cos * self.X + p * sin_x), zero]
                columns += [k * (self.sin * self.Z - p * cos_z), k * (self.ahead + p * self.side)]
            else:
                columns = [zero, k, -k * p, k * p * sin_x, k * self.Y, -k * p * cos_z, k * p * self.side]
            rows.append(torch.stack(columns, 2))
        return torch.stack(rows, 2)
