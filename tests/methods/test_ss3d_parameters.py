"""The 26 parameters against the geometry package and arithmetic by hand; their Jacobian against automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch

from monolift.geometry import Boxes3D, Camera
from monolift.methods.ss3d.parameters import (
    BOX,
    CORNERS,
    DISTANCE,
    PARAMETER_NAMES,
    SIZE,
    Pinhole,
    boxes_from_state,
    parameters_and_jacobian,
    parameters_of_boxes,
    parameters_of_state,
    start_from_parameters,
    state_from_boxes,
)
from noisy_cars import KITTI, noisy_cars


def box(x: float, y: float, z: float, yaw: float = 0.0) -> Boxes3D:
    return Boxes3D(
        torch.tensor([[x, y, z]]).double(),
        torch.tensor([[4.0, 1.5, 2.0]]).double(),
        torch.tensor([yaw]).double(),
    )


def test_hand_worked_box() -> None:
    # a camera of f = 100 at the origin, a 4 x 1.5 x 2 m box heading right, 10 m ahead: near face 9 m, far face 11 m away
    seen = parameters_of_boxes(box(0, 0, 10), Camera(100.0, 100.0, 50.0, 40.0))[0]
    named = dict(zip(PARAMETER_NAMES, seen.tolist(), strict=True))
    assert len(named) == 26
    expected = {
        "left": 50 - 200 / 9, "right": 50 + 200 / 9, "top": 40 - 75 / 9, "bottom": 40 + 75 / 9, "distance": 10.0,
        "sin alpha": 0.0, "cos alpha": 1.0,
        "log length": math.log(4), "log height": math.log(1.5), "log width": math.log(2),
        "corner 0 u": 50 + 200 / 11, "corner 0 v": 40 + 75 / 11,  # front (right), far (+z), bottom
        "corner 5 u": 50 + 200 / 9, "corner 5 v": 40 - 75 / 9,  # front, near, top
    }  # fmt: skip
    for name, value in expected.items():
        assert named[name] == pytest.approx(value, abs=1e-9), name


def test_agrees_with_the_geometry_package() -> None:
    """Whole P2, a camera per box, sides cut by the image: as Boxes3D and Camera say."""
    camera = KITTI.after_crop(80, 0, 1000, 375)
    cars = noisy_cars(200, seed=1, camera=camera)
    seen = parameters_of_boxes(cars.boxes, camera)
    torch.testing.assert_close(
        seen[:, CORNERS].unflatten(1, (8, 2)), camera.px_from_cam(cars.boxes.corners())
    )
    rectangles = cars.boxes.projected(camera)
    torch.testing.assert_close(seen[:, BOX], rectangles)
    cut = (rectangles[:, 0] == 0) | (rectangles[:, 2] == camera.width - 1)
    assert cut.any() and not cut.all()
    torch.testing.assert_close(torch.atan2(seen[:, 5], seen[:, 6]), cars.boxes.alpha)
    torch.testing.assert_close(seen[:, SIZE], cars.boxes.size.log())
    other = Camera(500.0, 520.0, 300.0, 200.0, tx=-0.5, width=1000, height=375)
    pair = Boxes3D.cat([cars.boxes[0], cars.boxes[0]])
    both = parameters_of_boxes(pair, Camera.stack([camera, other]))
    torch.testing.assert_close(both[0], seen[0])
    torch.testing.assert_close(both[1:], parameters_of_boxes(cars.boxes[0], other))


def automatic_jacobian(state: torch.Tensor, camera: Camera) -> torch.Tensor:
    rows = [
        torch.autograd.functional.jacobian(
            lambda s: parameters_of_state(s, Pinhole.of(camera, s)), row[None]
        )[0, :, 0]
        for row in state
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("camera", [KITTI, Camera(721.5, 718.0, 609.6, 172.9)], ids=["cut", "unlimited"])
def test_jacobian_is_the_derivative(camera: Camera) -> None:
    boxes = noisy_cars(30, seed=2).boxes
    # beside and around the camera too: corners behind it, sides held at the image's border
    near = Boxes3D.cat(
        [box(1.5, 1.0, 2.0, 0.4), box(-2.0, 1.2, 0.5, 1.5), box(0.3, 1.0, 1.2, -0.7), box(4.0, 1, -3.0)]
    )
    state = state_from_boxes(Boxes3D.cat([boxes, near]))
    seen, jacobian = parameters_and_jacobian(state, Pinhole.of(camera, state))
    torch.testing.assert_close(seen, parameters_of_state(state, Pinhole.of(camera, state)))
    torch.testing.assert_close(jacobian, automatic_jacobian(state, camera), rtol=1e-10, atol=1e-10)


def test_truncated_side_does_not_move() -> None:
    # half of it left of the image: the side stays at 0 when the box moves left, and the corners go on
    boxes = box(-5.2, 1.0, 6.0, 0.3)
    state = state_from_boxes(boxes)
    seen, jacobian = parameters_and_jacobian(state, Pinhole.of(KITTI, state))
    assert seen[0, 0] == 0 and (jacobian[0, 0] == 0).all()
    assert (jacobian[0, 2, :1] > 0).all()
    assert (seen[0, CORNERS][::2].amin() < -100) and (jacobian[0, CORNERS][::2, 0] > 0).all()


def test_box_around_the_camera_is_finite() -> None:
    state = state_from_boxes(Boxes3D.cat([box(0, 0, 0), box(0, 0, -50.0), box(0, 0, 0.05, 0.7)]))
    seen, jacobian = parameters_and_jacobian(state, Pinhole.of(KITTI, state))
    assert torch.isfinite(seen).all() and torch.isfinite(jacobian).all()


def test_state_round_trip() -> None:
    boxes = noisy_cars(50, seed=3).boxes
    again = boxes_from_state(state_from_boxes(boxes))
    for name in ("center", "size", "yaw"):
        torch.testing.assert_close(getattr(again, name), getattr(boxes, name))


def test_start_from_exact_parameters_is_near() -> None:
    """The middle of the 2D box is not quite the projected centre; everything else of the start is exact."""
    cars = noisy_cars(300, seed=4)
    start = start_from_parameters(
        parameters_of_boxes(cars.boxes, cars.camera), Pinhole.of(cars.camera, cars.parameters)
    )
    truth = state_from_boxes(cars.boxes)
    torch.testing.assert_close(start[:, 3:6], truth[:, 3:6])
    shift = start.new_tensor([0.06, -0.0003, 0.003])
    torch.testing.assert_close((start[:, :3] + shift).norm(dim=1), (truth[:, :3] + shift).norm(dim=1))
    away = (start - truth)[:, :3].norm(dim=1)
    assert away.max() < 1.0 and away.median() < 0.15


def test_start_is_usable_whatever_the_parameters() -> None:
    wild = (
        torch.randn(1000, 26, dtype=torch.float64) * torch.logspace(0, 6, 1000, dtype=torch.float64)[:, None]
    )
    start = start_from_parameters(wild, Pinhole.of(KITTI, wild))
    assert torch.isfinite(start).all()
    distance = (start[:, :3] + start.new_tensor([0.06, -0.0003, 0.003])).norm(dim=1)
    assert distance.min() >= 0.5 - 1e-9 and distance.max() <= 500 + 1e-6
    assert wild[:, DISTANCE].min() < 0
