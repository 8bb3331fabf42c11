"""3D boxes: corners, projection, mirror; a KITTI object worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monolift.geometry import CORNER_SIGNS, EDGES, FRONT, Boxes3D, Camera, iou_2d_paired, wrap
from monolift.geometry.boxes import NEAR_PLANE

CAMERA = Camera(700, 710, 600, 180, 0.06, -0.001, 0.003, width=1242, height=375)


def boxes(rows: list[list[float]]) -> Boxes3D:
    """Rows of x y z  l h w  yaw."""
    t = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    return Boxes3D(t[:, :3], t[:, 3:6], t[:, 6])


def random_boxes(n: int) -> Boxes3D:
    center = torch.rand(n, 3, dtype=torch.float64) * torch.tensor([30, 3, 50]) + torch.tensor([-15, -1, 3])
    return Boxes3D(
        center, torch.rand(n, 3, dtype=torch.float64) * 4 + 0.5, torch.rand(n, dtype=torch.float64) * 8 - 4
    )


# -- a KITTI object by hand -------------------------------------------------------------------------------------------

# Training image 004011, line of a parked car, and P2 of its calibration
LABEL = "Car 0.00 0 -2.25 756.22 184.65 933.27 264.91 1.42 1.58 3.48 4.64 1.67 14.87 -1.96"
P2 = "7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.728540e+02 2.163791e-01 0 0 1 2.745884e-03"


def test_a_kitti_car_by_hand() -> None:
    """Every number below was worked out with a pocket calculator's functions, without this package.

    The label holds h w l = 1.42 1.58 3.48, the centre of the *bottom* (4.64, 1.67, 14.87) and ry = -1.96.
    Geometric centre: y - h / 2 = 1.67 - 0.71 = 0.96.
    cos(-1.96) = -0.379452, sin(-1.96) = -0.925212. A corner (a, b) of the ground rectangle lies at
        x = 4.64 + cos a + sin b        z = 14.87 - sin a + cos b
    so the front (a = 1.74) on the side b = 0.79 is
        x = 4.64 - 0.660246 - 0.730917 = 3.2488    z = 14.87 + 1.609868 - 0.299767 = 16.1801
    and the rear (a = -1.74) with b = 0.79
        x = 4.64 + 0.660246 - 0.730917 = 4.5693    z = 14.87 - 1.609868 - 0.299767 = 12.9604
    and the rear with b = -0.79
        x = 4.64 + 0.660246 + 0.730917 = 6.0312    z = 14.87 - 1.609868 + 0.299767 = 13.5599.
    Leftmost in the image is the first:   u = (721.5377 * 3.2488 + 609.5593 * 16.1801 + 44.85728) / 16.182846 = 757.082
    rightmost the third:                    u = (721.5377 * 6.0312 + 609.5593 * 13.5599 + 44.85728) / 13.562646 = 933.603
    lowest the second, at its bottom:       v = (721.5377 * 1.67 + 172.854 * 12.9604 + 0.21638) / 12.963146 = 265.788
    highest the top (y = 0.25) of the front with b = -0.79, whose z is 14.87 + 1.609868 + 0.299767 = 16.7796:
                                            v = (721.5377 * 0.25 + 172.854 * 16.7796 + 0.21638) / 16.782346 = 183.587
    alpha = -1.96 - atan2(4.64, 14.87) = -1.96 - 0.302464 = -2.2625.
    """
    words = LABEL.split()
    labelled = torch.tensor([float(w) for w in words[4:8]], dtype=torch.float64)
    h, w, l, x, y, z, ry = (float(word) for word in words[8:15])
    box = boxes([[x, y - h / 2, z, l, h, w, ry]])
    camera = Camera.from_matrix(torch.tensor([float(v) for v in P2.split()]).view(3, 4).double(), 1242, 375)

    assert box.bottom[0].tolist() == pytest.approx([4.64, 1.67, 14.87])
    assert box.alpha.item() == pytest.approx(-2.2625, abs=1e-4)
    corners = box.corners()[0]
    assert corners[0].tolist() == pytest.approx([3.2488, 1.67, 16.1801], abs=1e-4)  # bottom front, +z side
    assert corners[2].tolist() == pytest.approx([6.0312, 1.67, 13.5599], abs=1e-4)  # bottom rear, -z side
    assert corners[3].tolist() == pytest.approx([4.5693, 1.67, 12.9604], abs=1e-4)  # bottom rear, +z side
    assert corners[5].tolist() == pytest.approx([4.7107, 0.25, 16.7796], abs=1e-4)  # top front, -z side
    rectangle = box.projected(camera)[0]
    assert rectangle.tolist() == pytest.approx([757.082, 183.587, 933.603, 265.788], abs=2e-3)
    # what a person drew: within 1.1 px on every side, and within 0.02 rad of the labelled alpha
    assert (rectangle - labelled).abs().max() < 1.1
    assert iou_2d_paired(rectangle[None], labelled[None]).item() > 0.965
    assert box.alpha.item() == pytest.approx(float(words[3]), abs=0.02)


# -- corners ----------------------------------------------------------------------------------------------------------


def test_corners_against_a_loop() -> None:
    b = random_boxes(20)
    corners = b.corners()
    for n in range(20):
        c, s = math.cos(b.yaw[n]), math.sin(b.yaw[n])
        for k, signs in enumerate(CORNER_SIGNS):
            a, down, side = (sign * float(extent) / 2 for sign, extent in zip(signs, b.size[n], strict=True))
            expected = [c * a + s * side, down, -s * a + c * side]
            assert (corners[n, k] - b.center[n]).tolist() == pytest.approx(expected, abs=1e-12)


def test_edges_and_front_are_what_they_say() -> None:
    b = random_boxes(5)
    corners = b.corners()
    start, end = ([e[i] for e in EDGES] for i in (0, 1))
    lengths = (corners[:, start] - corners[:, end]).norm(dim=-1)
    for n in range(5):
        l, h, w = b.size[n].tolist()
        assert sorted(lengths[n].tolist()) == pytest.approx(sorted([l, h, w] * 4))
    heading = torch.stack([torch.cos(b.yaw), torch.zeros(5), -torch.sin(b.yaw)], 1)
    front = b.center + heading * b.size[:, :1] / 2
    assert torch.allclose(corners[:, list(FRONT)].mean(1), front)
    # bottom first, corner i + 4 above corner i
    assert torch.allclose(corners[:, :4].mean(1), b.bottom)
    assert torch.allclose(
        corners[:, :4] - corners[:, 4:], b.size[:, None, 1:2] * torch.tensor([0.0, 1.0, 0.0])
    )


def test_gradients_of_corners_and_projection() -> None:
    b = random_boxes(4)
    inputs = tuple(t.clone().requires_grad_() for t in (b.center, b.size, b.yaw))
    assert torch.autograd.gradcheck(lambda *t: Boxes3D(*t).corners(), inputs)
    assert torch.autograd.gradcheck(
        lambda *t: Boxes3D(*t).projected(CAMERA, clip=False), inputs, atol=1e-3, eps=1e-7
    )


# -- projection -------------------------------------------------------------------------------------------------------


def rectangle_by_sampling(box: Boxes3D, camera: Camera, steps: int = 4000) -> list[float]:
    """Slow oracle: the rectangle round many points of the edges that are in front of the near plane."""
    corner = box.corners()[0]
    along = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None]
    points = torch.cat([corner[i] + (corner[j] - corner[i]) * along for i, j in EDGES])
    seen = points[points[:, 2] + camera.tz >= NEAR_PLANE]
    if not len(seen):
        return [0.0] * 4
    x, y, z = (seen + camera.translation).unbind(1)
    us, vs = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    return torch.stack([us.min(), vs.min(), us.max(), vs.max()]).tolist()


def test_boxes_in_front_project_to_the_rectangle_of_their_corners() -> None:
    b = random_boxes(30)
    for n in range(30):
        expected = rectangle_by_sampling(b[n], CAMERA, steps=1)
        assert b[n].projected(CAMERA, clip=False)[0].tolist() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30)
@given(st.floats(-6, 6), st.floats(-0.5, 2), st.floats(-3, 3), st.floats(-4, 4))
def test_boxes_that_cross_the_camera_plane_are_cut_there(x: float, y: float, z: float, yaw: float) -> None:
    b = boxes([[x, y, z, 4.2, 1.5, 1.7, yaw]])
    sampled = torch.tensor(rectangle_by_sampling(b, CAMERA), dtype=torch.float64)
    exact = b.projected(CAMERA, clip=False)[0]
    # sampling stops short of the near plane by up to one step of 4.2 / 4000 m, which there is 1 % of the depth
    slack = 1 + 0.02 * sampled.abs()
    assert (exact[:2] <= sampled[:2] + 1e-6).all()
    assert (exact[2:] >= sampled[2:] - 1e-6).all()
    assert ((exact - sampled).abs() <= slack).all()


def test_a_box_behind_the_camera_has_no_rectangle() -> None:
    assert boxes([[0, 1, -10, 4, 1.5, 1.7, 0.3]]).projected(CAMERA).tolist() == [[0, 0, 0, 0]]


def test_the_car_beside_the_camera_fills_its_side_of_the_image() -> None:
    """A car abreast on the right, half of it behind: seen only at the right edge, never wrapped to the left."""
    left, top, right, bottom = (
        boxes([[3.0, 0.9, 1.0, 4.0, 1.5, 1.8, -math.pi / 2]]).projected(CAMERA)[0].tolist()
    )
    assert left == pytest.approx(
        700 * (2.1 + 0.06) / (3.0 + 0.003) + 600
    )  # nearer side, farthest corner: x 2.1, z 3.0
    assert (right, bottom) == (1241, 374)
    assert 0 <= top < bottom


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_finite_wherever_the_box_is(dtype: torch.dtype) -> None:
    z = torch.linspace(-5, 5, 400, dtype=dtype)
    center = torch.stack([0.3 * z, torch.ones_like(z), z], 1).requires_grad_()
    size = torch.full((400, 3), 2.0, dtype=dtype, requires_grad=True)
    yaw = torch.linspace(-4, 4, 400, dtype=dtype).requires_grad_()
    rectangle = Boxes3D(center, size, yaw).projected(CAMERA)
    assert torch.isfinite(rectangle).all()
    rectangle.sum().backward()
    for t in (center, size, yaw):
        assert torch.isfinite(t.grad).all()


def test_clipping_is_to_the_last_pixel_as_in_kitti_labels() -> None:
    huge = boxes([[0, 0, 3, 40, 40, 1, 0.0]])
    assert huge.projected(CAMERA).tolist() == [[0, 0, 1241, 374]]
    unknown = Camera(700, 710, 600, 180)
    assert (huge.projected(unknown) == huge.projected(unknown, clip=False)).all()
    assert huge.projected(unknown)[0, 2] > 1242


def test_one_camera_per_box() -> None:
    b = random_boxes(6)
    other = CAMERA.after_scale(0.5)
    batch = Camera.stack([CAMERA, other])[torch.tensor([0, 1, 1, 0, 1, 0])]
    together = b.projected(batch, clip=False)
    for n, camera in enumerate([CAMERA, other, other, CAMERA, other, CAMERA]):
        assert torch.allclose(together[n], b[n].projected(camera, clip=False)[0])


# -- following the image --------------------------------------------------------------------------------------------


def test_projected_boxes_follow_resize_crop_and_mirror() -> None:
    b = random_boxes(40)
    rectangle = b.projected(CAMERA, clip=False)

    resized = b.projected(CAMERA.after_resize(800, 200), clip=False)
    scale = torch.tensor([800 / 1242, 200 / 375] * 2, dtype=torch.float64)
    assert torch.allclose(resized, scale * (rectangle + 0.5) - 0.5)

    cropped = b.projected(CAMERA.after_crop(100, 20, 640, 300), clip=False)
    assert torch.allclose(cropped, rectangle - torch.tensor([100, 20, 100, 20]))

    mirrored = b.mirrored().projected(CAMERA.after_mirror(), clip=False)
    u1, v1, u2, v2 = rectangle.unbind(1)
    assert torch.allclose(mirrored, torch.stack([1241 - u2, v1, 1241 - u1, v2], 1))


def test_mirrored_corners_are_the_corners_mirrored() -> None:
    """Also which corner is which: the front stays the front, left and right change places."""
    b = random_boxes(50)
    swap = [CORNER_SIGNS.index((a, down, -side)) for a, down, side in CORNER_SIGNS]
    flipped = b.corners() * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.allclose(b.mirrored().corners()[:, swap], flipped)
    assert torch.allclose(b.mirrored().alpha, wrap(math.pi - b.alpha))


def test_mirroring_twice_is_the_identity() -> None:
    b = random_boxes(50)
    again = b.mirrored().mirrored()
    assert torch.equal(again.center, b.center)
    assert torch.equal(again.size, b.size)
    assert torch.allclose(wrap(again.yaw - b.yaw), torch.zeros(50, dtype=torch.float64), atol=1e-12)


# -- the container ----------------------------------------------------------------------------------------------------


def test_selection_concatenation_and_emptiness() -> None:
    b = random_boxes(5)
    assert len(b[2]) == 1
    assert torch.equal(b[2].center, b.center[2:3])
    assert torch.equal(b[b.center[:, 0] > 0].yaw, b.yaw[b.center[:, 0] > 0])
    joined = Boxes3D.cat([b[:2], Boxes3D.empty(torch.float64), b[2:]])
    assert torch.equal(joined.corners(), b.corners())
    empty = Boxes3D.empty()
    assert empty.corners().shape == (0, 8, 3)
    assert empty.projected(CAMERA).shape == (0, 4)
    assert len(empty.mirrored()) == len(empty[torch.zeros(0, dtype=torch.bool)]) == 0
    assert b.to(torch.float32).center.dtype == torch.float32


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3), (3,)), ((2, 4), (2, 3), (2,)), ((3,), (3,), ()), ((2, 3), (3,), (2,))]
)
def test_tensors_that_do_not_belong_together_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    # ValueError by the class itself; where array shapes are checked the annotation speaks first
    with pytest.raises((ValueError, TypeError), match=r"Boxes3D|size|center|yaw"):
        Boxes3D(*(torch.zeros(shape) for shape in shapes))


# -- real data --------------------------------------------------------------------------------------------------------


def test_labelled_alpha_of_kitti_is_yaw_minus_the_ray(shared) -> None:  # type: ignore[no-untyped-def]
    from monolift.data.formats.kitti_format import read_labels

    difference = []
    for path in sorted((shared / "kitti" / "training" / "label_2").glob("*.txt"))[:300]:
        rows = read_labels(path)
        known = [k for k, name in enumerate(rows.names) if name != "DontCare"]
        center = torch.from_numpy(rows.bottom[known])
        b = Boxes3D(center, torch.ones_like(center), torch.from_numpy(rows.rotation_y[known]))
        difference.append(wrap(b.alpha - torch.from_numpy(rows.alpha[known])))
    difference = torch.cat(difference).abs()
    assert len(difference) > 1000
    assert (
        difference.quantile(0.95) < 0.03
    )  # labels have two decimals, and were not drawn from the very centre
    assert difference.max() < 0.1
