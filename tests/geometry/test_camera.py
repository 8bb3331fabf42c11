"""The camera: projection, and following the image through resizing, cropping and mirroring."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monolift.errors import InputError
from monolift.geometry import Camera

# P2 of KITTI training image 000001
KITTI_P2 = [
    [721.5377, 0.0, 609.5593, 44.85728],
    [0.0, 721.5377, 172.854, 0.2163791],
    [0.0, 0.0, 1.0, 0.002745884],
]


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    number = lambda low, high: draw(st.floats(low, high))  # noqa: E731
    width, height = draw(st.integers(100, 2000)), draw(st.integers(100, 2000))
    return Camera(
        number(200, 3000), number(200, 3000), number(0, width), number(0, height),
        number(-0.5, 0.5), number(-0.5, 0.5), number(-0.5, 0.5), width, height,
    )  # fmt: skip


def points(n: int = 20) -> torch.Tensor:
    return torch.randn(n, 3, dtype=torch.float64) * torch.tensor([5.0, 2.0, 0.0]) + torch.rand(n, 1) * torch.tensor(
        [0, 0, 60.0]
    ) + torch.tensor([0, 0, 1.5])  # fmt: skip


def same_pixels(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=1e-7)


# -- projection -------------------------------------------------------------------------------------------------------


@given(cameras())
def test_the_projection_is_that_of_the_matrix(camera: Camera) -> None:
    x = points()
    homogeneous = torch.cat([x, torch.ones(len(x), 1)], 1) @ camera.matrix.mT
    assert same_pixels(camera.px_from_cam(x), homogeneous[:, :2] / homogeneous[:, 2:])
    assert torch.allclose(camera.depth(x), homogeneous[:, 2])


@given(cameras())
def test_cam_from_px_inverts(camera: Camera) -> None:
    x = points()
    assert torch.allclose(camera.cam_from_px(camera.px_from_cam(x), x[:, 2]), x, atol=1e-9)


@given(cameras())
def test_from_matrix_inverts_matrix(camera: Camera) -> None:
    again = Camera.from_matrix(camera.matrix, camera.width, camera.height)
    for name in ("fx", "fy", "cx", "cy", "tx", "ty", "tz"):
        assert getattr(again, name).item() == pytest.approx(getattr(camera, name).item(), abs=1e-9)


def test_the_whole_of_p2_is_used() -> None:
    """Derived by hand: t = ((44.85728 - 609.5593 * 0.002745884) / 721.5377, (0.2163791 - 172.854 * 0.002745884) / 721.5377)."""
    camera = Camera.from_matrix(KITTI_P2, 1242, 375)
    expected = [0.0598493, -0.00035793, 0.002745884]
    assert camera.translation.tolist() == pytest.approx(expected, abs=1e-6)
    # The point straight ahead at 10 m: u = (721.5377 * 0 + 609.5593 * 10 + 44.85728) / 10.002745884 = 613.8764
    px = camera.px_from_cam(torch.tensor([[0.0, 0.0, 10.0]], dtype=torch.float64))
    assert px[0].tolist() == pytest.approx([613.8764, 172.8282], abs=1e-3)
    assert torch.allclose(camera.matrix, torch.tensor(KITTI_P2, dtype=torch.float64), atol=1e-12)


def test_a_batch_of_cameras_is_each_camera() -> None:
    one = Camera.from_matrix(KITTI_P2, 1242, 375)
    batch = Camera.stack([one, one.after_resize(800, 300), one.after_mirror()])
    assert (batch.width, batch.height) == (0, 0)  # the sizes differ, so the batch has none
    x = points(7)
    together = batch[:, None].px_from_cam(x[None])
    for k in range(3):
        assert torch.equal(together[k], batch[k].px_from_cam(x))
    per_object = batch[torch.tensor([2, 0, 2, 1, 0, 0, 1])]
    assert torch.equal(per_object.px_from_cam(x)[3], batch[1].px_from_cam(x[3]))
    assert torch.allclose(per_object.cam_from_px(per_object.px_from_cam(x), x[:, 2]), x)
    assert batch.matrix.shape == (3, 3, 4)
    assert torch.equal(batch.matrix[1], batch[1].matrix)


def test_float32_points_give_float32_pixels_within_a_thousandth() -> None:
    camera, x = Camera.from_matrix(KITTI_P2), points(200)
    px = camera.px_from_cam(x.float())
    assert px.dtype == torch.float32
    assert torch.allclose(px.double(), camera.px_from_cam(x), rtol=1e-5, atol=1e-3)


def test_points_behind_the_camera_are_finite_with_finite_gradients() -> None:
    x = torch.tensor([[1.0, 1, 0], [1, 1, -5], [0, 0, -0.002745884]], requires_grad=True)
    px = Camera.from_matrix(KITTI_P2).px_from_cam(x)
    px.sum().backward()
    assert torch.isfinite(px).all()
    assert torch.isfinite(x.grad).all()


def test_gradients_of_the_projection() -> None:
    camera = Camera.from_matrix(KITTI_P2)
    assert torch.autograd.gradcheck(camera.px_from_cam, (points(4).requires_grad_(),), atol=1e-4)


def test_from_fov_reaches_the_edges_of_the_image() -> None:
    camera = Camera.from_fov(90, 640, 480)
    left, right = camera.cam_from_px(torch.tensor([[-0.5, 240.0], [639.5, 240.0]]), torch.ones(2))
    assert math.degrees(math.atan2(right[0], right[2])) == pytest.approx(45, abs=1e-4)
    assert math.degrees(math.atan2(left[0], left[2])) == pytest.approx(-45, abs=1e-4)
    assert camera.fov_deg == pytest.approx(90)


# -- following the image --------------------------------------------------------------------------------------------


@given(cameras(), st.integers(50, 2500), st.integers(50, 2500))
def test_project_then_resize_is_resize_then_project(camera: Camera, width: int, height: int) -> None:
    x = points()
    scale = torch.tensor([width / camera.width, height / camera.height], dtype=torch.float64)
    moved = scale * (camera.px_from_cam(x) + 0.5) - 0.5
    after = camera.after_resize(width, height)
    assert (after.width, after.height) == (width, height)
    assert same_pixels(after.px_from_cam(x), moved)


@given(cameras(), st.floats(0.2, 3))
def test_project_then_scale_is_scale_then_project(camera: Camera, scale: float) -> None:
    x = points()
    assert same_pixels(camera.after_scale(scale).px_from_cam(x), scale * (camera.px_from_cam(x) + 0.5) - 0.5)


@given(cameras(), st.integers(-300, 300), st.integers(-300, 300))
def test_project_then_crop_is_crop_then_project(camera: Camera, left: int, top: int) -> None:
    x = points()
    after = camera.after_crop(left, top, 64, 32)
    assert same_pixels(after.px_from_cam(x), camera.px_from_cam(x) - torch.tensor([left, top]))
    assert (after.width, after.height) == (64, 32)


@given(cameras())
def test_project_then_mirror_is_mirror_then_project(camera: Camera) -> None:
    x = points()
    mirrored = camera.px_from_cam(x) * torch.tensor([-1, 1]) + torch.tensor([camera.width - 1, 0])
    assert same_pixels(camera.after_mirror().px_from_cam(x * torch.tensor([-1, 1, 1])), mirrored)


@given(cameras())
def test_mirroring_twice_gives_the_camera_back(camera: Camera) -> None:
    again = camera.after_mirror().after_mirror()
    assert torch.allclose(again.matrix, camera.matrix, rtol=1e-12, atol=1e-9)


def test_a_resize_and_its_opposite_cancel() -> None:
    camera = Camera.from_matrix(KITTI_P2, 1242, 375)
    again = (
        camera.after_resize(1280, 384)
        .after_crop(3, -7, 1280, 400)
        .after_crop(-3, 7, 1280, 384)
        .after_resize(1242, 375)
    )
    assert torch.allclose(again.matrix, camera.matrix)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix, words", [
    (torch.eye(4), "3x3 or 3x4, got (4, 4)"),
    ([[700, 1, 600], [0, 700, 180], [0, 0, 1]], "no skew"),
    ([[700, 0, 600], [0, 700, 180], [0, 0, 2]], "no skew"),
    ([[-700, 0, 600], [0, 700, 180], [0, 0, 1]], "focal lengths must be positive"),
    ([[700, 0, float("nan")], [0, 700, 180], [0, 0, 1]], "cx must be finite"),
])  # fmt: skip
def test_matrices_that_are_no_camera_are_refused(matrix: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Camera.from_matrix(matrix)
    assert words in str(caught.value)


def test_other_bad_cameras_are_refused() -> None:
    for arguments in ((0, 700, 600, 180), (700, -1, 600, 180), (float("inf"), 700, 600, 180)):
        with pytest.raises(InputError, match="camera"):
            Camera(*arguments)
    for fov in (0, 180, -20, float("nan")):
        with pytest.raises(InputError, match="field of view"):
            Camera.from_fov(fov, 640, 480)
    for follow in (lambda c: c.after_mirror(), lambda c: c.after_resize(10, 10)):
        with pytest.raises(InputError, match="without an image size"):
            follow(Camera(700, 700, 600, 180))


# -- real data --------------------------------------------------------------------------------------------------------


def test_kitti_boxes_project_onto_their_labels_only_with_the_whole_p2(shared) -> None:  # type: ignore[no-untyped-def]
    """Fully visible, untruncated cars of the val ids: mean IoU of projected to labelled 2D box, whole P2 against K alone."""
    from monolift.data.kitti import KittiDataset
    from monolift.geometry import iou_2d_paired

    data = KittiDataset(shared / "kitti", shared / "kitti" / "ImageSets" / "val.txt")
    whole, k_only = [], []
    for index in range(len(data)):
        sample = data.labels(index)
        clear = (
            (sample.occlusion == 0)
            & (sample.truncation == 0)
            & torch.tensor([c == "Car" for c in sample.classes])
        )
        if not clear.any():
            continue
        boxes, labelled, camera = sample.boxes[clear], sample.boxes2d[clear], sample.camera
        bare = Camera(camera.fx, camera.fy, camera.cx, camera.cy, width=camera.width, height=camera.height)
        whole.append(iou_2d_paired(boxes.projected(camera), labelled))
        k_only.append(iou_2d_paired(boxes.projected(bare), labelled))
    assert len(torch.cat(whole)) > 300
    assert torch.cat(whole).mean() >= 0.97
    assert 0.92 <= torch.cat(k_only).mean() <= 0.955


def test_boxes_are_clipped_to_the_image_and_left_alone_without_its_size() -> None:
    boxes = torch.tensor([[-5.0, -3.0, 20.0, 9.0], [90.0, 40.0, 120.0, 60.0], [1.0, 2.0, 3.0, 4.0]])
    camera = Camera(100, 100, 50, 25, width=101, height=51)
    expected = torch.tensor([[0.0, 0.0, 20.0, 9.0], [90.0, 40.0, 100.0, 50.0], [1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(camera.clip(boxes), expected)
    assert torch.equal(Camera(100, 100, 50, 25).clip(boxes), boxes)
