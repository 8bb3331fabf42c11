"""ROI-10D's lifting: eq. 1, eq. 2, and what both do to the ten numbers of a region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lifting_experiment import CONFIG, DEVIATIONS, KITTI, PARTS, descend, random_numbers
from monolift.geometry import CORNER_SIGNS, Boxes3D, Camera
from monolift.geometry.rotations import (
    allocentric_from_egocentric,
    egocentric_from_allocentric,
    matrix_from_yaw,
)
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.roi10d.loss import corner_distance

COUNT = 12


def regions(count: int = COUNT) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Random numbers, their regions and labels."""
    generator = torch.Generator().manual_seed(4)
    numbers = random_numbers(count, generator)
    numbers["depth"].clamp_(min=-1.4)
    left = 1000 * torch.rand(count, generator=generator).double()
    roi = torch.stack([left, 150 + 0 * left, left + 90, 210 + 0 * left], 1)
    return numbers, roi, torch.zeros(count, dtype=torch.long)


def test_corners_are_those_of_eq_1_written_out_with_scipy() -> None:
    numbers, roi, label = regions()
    lifted = ROI10DCodec(CONFIG).decode(numbers, roi, label, KITTI)
    corners = lifted.corners().numpy()
    shift = KITTI.translation.numpy()
    k = np.array([[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])
    for n in range(COUNT):
        x1, y1, x2, y2 = roi[n].numpy()
        x, y = numbers["centroid"][n].numpy()
        pixel = np.array([(x1 + x2) / 2 + x * (x2 - x1), (y1 + y2) / 2 + y * (y2 - y1), 1.0])
        z = CONFIG.depth_mean + float(numbers["depth"][n]) + shift[2]
        seen_at = np.linalg.inv(k) @ pixel * z
        w, *xyz = numbers["rotation"][n].numpy()
        allocentric = Rotation.from_quat([*xyz, w])
        axis = np.cross([0, 0, 1], seen_at)
        angle = math.acos(seen_at[2] / np.linalg.norm(seen_at))
        turned = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle) * allocentric
        size = np.array(CONFIG.sizes[0]) + np.array(CONFIG.size_deviations[0]) * numbers["extents"][n].numpy()
        for c, signs in enumerate(CORNER_SIGNS):
            expected = turned.apply(np.array(signs) * size / 2) + seen_at - shift
            np.testing.assert_allclose(corners[n, c], expected, atol=1e-6)


def test_yaw_boxes_and_lifted_boxes_agree_where_there_is_only_a_yaw() -> None:
    yaw = torch.linspace(-3, 3, 7).double()
    center = torch.tensor([[2.0, 1.0, 20.0]]).double().repeat(7, 1)
    size = torch.tensor([[4.0, 1.5, 1.6]]).double().repeat(7, 1)
    lifted = Lifted(center, size, matrix_from_yaw(yaw))
    boxes = Boxes3D(center, size, yaw)
    torch.testing.assert_close(lifted.corners(), boxes.corners())
    torch.testing.assert_close(lifted.boxes().yaw, yaw)


def test_numbers_invert_lift_for_any_rotation_camera_and_start() -> None:
    metric, roi, label = regions()
    cameras = Camera.stack([KITTI, KITTI.after_scale(0.41), KITTI.after_mirror()])
    each = cameras[torch.arange(COUNT) % 3]
    unit = {**metric, "depth": metric["depth"] / CONFIG.depth_std}
    for depth_start, numbers in (("roi", unit), ("mean", unit), ("metric", metric)):
        codec = ROI10DCodec(type(CONFIG)(depth_start=depth_start, focal=370.0))
        lifted = codec.decode(numbers, roi, label, each)
        back = codec.encode(lifted, roi, label, each)
        quaternion = torch.nn.functional.normalize(numbers["rotation"], dim=1)
        quaternion *= torch.where(quaternion[:, :1] < 0, -1, 1)
        torch.testing.assert_close(back["rotation"], quaternion)
        for name in ("centroid", "depth", "extents"):
            torch.testing.assert_close(back[name], numbers[name], atol=1e-6, rtol=1e-6)


def test_the_same_numbers_in_a_resized_image_are_the_same_box() -> None:
    """Region and camera follow the resize; metres stay. With a reference focal length depth belongs to the image's size."""
    numbers, roi, label = regions()
    codec = ROI10DCodec(CONFIG)
    small = KITTI.after_scale(0.5)
    there = codec.decode(numbers, 0.5 * (roi + 0.5) - 0.5, label, small)
    here = codec.decode(numbers, roi, label, KITTI)
    torch.testing.assert_close(there.corners(), here.corners())


def test_both_signs_of_a_quaternion_and_any_length_are_one_box() -> None:
    numbers, roi, label = regions()
    codec = ROI10DCodec(CONFIG)
    here = codec.decode(numbers, roi, label, KITTI)
    there = codec.decode({**numbers, "rotation": -3.0 * numbers["rotation"]}, roi, label, KITTI)
    torch.testing.assert_close(there.corners(), here.corners())


def test_a_quaternion_of_norm_zero_faces_along_the_ray_and_gives_no_gradient() -> None:
    numbers, roi, label = regions(1)
    zero = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    codec = ROI10DCodec(CONFIG)
    lifted = codec.decode({**numbers, "rotation": zero}, roi, label, KITTI)
    one = codec.decode({**numbers, "rotation": torch.tensor([[1.0, 0, 0, 0]]).double()}, roi, label, KITTI)
    torch.testing.assert_close(lifted.corners(), one.corners())
    lifted.corners().sum().backward()
    assert zero.grad is not None
    assert torch.equal(zero.grad, torch.zeros(1, 4, dtype=torch.float64))


def test_allocentric_and_egocentric_differ_by_the_ray() -> None:
    yaw = torch.tensor([0.3, -2.0]).double()
    rotation = matrix_from_yaw(yaw)
    ahead = torch.tensor([[0.0, 0.0, 9.0]] * 2).double()
    torch.testing.assert_close(allocentric_from_egocentric(rotation, ahead), rotation)
    level = torch.tensor([[5.0, 0.0, 9.0]] * 2).double()
    turned = Lifted(level, level, allocentric_from_egocentric(rotation, level)).boxes().yaw
    torch.testing.assert_close(yaw - turned, torch.full((2,), math.atan2(5, 9)).double())  # KITTI's alpha
    below = torch.tensor([[5.0, 1.5, 9.0]] * 2).double()
    tilted = allocentric_from_egocentric(rotation, below)
    assert float((tilted[:, 1, 1] - 1).abs().min()) > 1e-3  # the ray looks down, and the car looks tilted
    torch.testing.assert_close(egocentric_from_allocentric(tilted, below), rotation)


def test_eq_2_is_the_mean_corner_distance_and_zero_only_for_equal_boxes() -> None:
    numbers, roi, label = regions()
    lifted = ROI10DCodec(CONFIG).decode(numbers, roi, label, KITTI)
    assert torch.equal(corner_distance(lifted, lifted), torch.zeros(COUNT).double())
    moved = Lifted(lifted.center + torch.tensor([3.0, 0, 4.0]), lifted.size, lifted.rotation)
    torch.testing.assert_close(corner_distance(moved, lifted), torch.full((COUNT,), 5.0).double())
    for field in ("size", "rotation"):
        other = {"center": lifted.center, "size": lifted.size, "rotation": lifted.rotation}
        other[field] = other[field].roll(1, 0)
        assert float(corner_distance(Lifted(**other), lifted).min()) > 1e-3


def test_turning_a_box_by_pi_is_not_free() -> None:
    """Corners are ordered: front and rear are told apart."""
    lifted = Lifted(torch.zeros(1, 3), torch.tensor([[4.0, 1.5, 1.6]]), torch.eye(3)[None])
    turned = Lifted(lifted.center, lifted.size, matrix_from_yaw(torch.tensor([math.pi])))
    assert float(corner_distance(turned, lifted)) == pytest.approx(math.hypot(4.0, 1.6), abs=1e-5)


def test_gradient_of_the_lifting_loss() -> None:
    numbers, roi, label = regions(3)
    target = ROI10DCodec(CONFIG).decode(
        random_numbers(3, torch.Generator().manual_seed(9)), roi, label, KITTI
    )

    def loss(*values: torch.Tensor) -> torch.Tensor:
        guess = dict(zip(PARTS, values, strict=True))
        return corner_distance(ROI10DCodec(CONFIG).decode(guess, roi, label, KITTI), target)

    assert torch.autograd.gradcheck(loss, [numbers[name].requires_grad_() for name in PARTS])


def test_gradient_at_the_goal_is_zero_not_nan() -> None:
    numbers, roi, label = regions(2)
    codec = ROI10DCodec(CONFIG)
    target = codec.decode(numbers, roi, label, KITTI)
    for value in numbers.values():
        value.requires_grad_()
    corner_distance(codec.decode(numbers, roi, label, KITTI), target).sum().backward()
    for value in numbers.values():
        assert value.grad is not None
        assert torch.equal(value.grad, torch.zeros_like(value))


def test_random_starts_all_converge_and_depth_leads() -> None:
    """Fig. 7 in small: 40 starts; a thousand are in benchmarks/roi10d_lifting.py. Depth in standard deviations."""
    descent = descend(40, 600, lr=0.05, unit=DEVIATIONS)
    assert float(descent.errors[0].mean()) > 10
    assert float(descent.errors[-1].max()) < 1e-4
    start, later = descent.shares[0], descent.shares[60]
    share = dict(zip(PARTS, start.tolist(), strict=True))
    assert share["depth"] > 0.75 > 0.25 > share["centroid"] > share["rotation"] > share["extents"]
    assert later[0] > 2 * start[0]  # rotation comes into its own
    assert later[2] < start[2]
    assert descent.shares[:300, 3].max() < 0.1  # extents hardly matter on the way


def test_in_the_papers_unit_depth_does_not_lead_from_the_start() -> None:
    """With z in metres ("the depth z is metric") the centroid has the largest slope, and extents still hardly matter."""
    descent = descend(40, 400, lr=0.2)  # a thousand steps bring all of them
    assert float(descent.errors[0].mean()) > 10
    assert float((descent.errors[-1] < 1e-3).float().mean()) > 0.8
    share = dict(zip(PARTS, descent.shares[0].tolist(), strict=True))
    assert share["centroid"] > share["depth"] > share["rotation"] > 10 * share["extents"]
    assert descent.shares[:, 3].max() < 0.1


def test_a_box_of_the_smallest_extents_finds_its_way_back() -> None:
    """No size falls below a fifth of the mean, but its number still gets the slope of the size."""
    numbers, roi, label = regions(2)
    numbers = {**numbers, "extents": torch.full((2, 3), -30.0, dtype=torch.float64, requires_grad=True)}
    lifted = ROI10DCodec(CONFIG).decode(numbers, roi, label, KITTI)
    torch.testing.assert_close(lifted.size, 0.2 * torch.tensor(CONFIG.sizes).double().expand(2, 3))
    lifted.size.sum().backward()
    deviations = torch.tensor(CONFIG.size_deviations).double().expand(2, 3)
    torch.testing.assert_close(numbers["extents"].grad, deviations)


def test_one_pixel_wide_regions_lift_to_finite_boxes() -> None:
    numbers, _, label = regions(3)
    roi = torch.tensor([[10.0, 10, 10, 40], [10, 10, 11, 10], [7, 7, 7, 7]]).double()
    for depth_start in ("roi", "mean", "metric"):
        codec = ROI10DCodec(type(CONFIG)(depth_start=depth_start))
        lifted = codec.decode(numbers, roi, label, KITTI)
        assert bool(torch.isfinite(lifted.corners()).all())
        back = codec.encode(lifted, roi, label, KITTI)
        torch.testing.assert_close(back["depth"], numbers["depth"])
