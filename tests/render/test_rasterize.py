"""Rasterising, against a loop over all pixels and faces and against hand-worked cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.render import rasterize as module
from monolift.render.crops import crop_cameras
from monolift.render.mesh import icosphere
from monolift.render.rasterize import project, rasterize
from monolift.typing import Tensor
from render_scene import car_scene

TRIANGLE = torch.tensor([[[2.0, 1.0, 4.0], [3.0, 9.0, 6.0], [11.0, 2.0, 5.0]]])
ONE_FACE = torch.tensor([[0, 1, 2]])


def slow_rasterize(screen: Tensor, faces: Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Face and depth of each pixel: every face is asked about every pixel centre, in float64."""
    face_map = np.full((len(screen), height, width), -1)
    depth = np.zeros((len(screen), height, width))
    for b, corners in enumerate(screen.double().numpy()[:, faces.numpy()]):
        for row, column, f in itertools.product(range(height), range(width), range(len(faces))):
            (x, y, z) = corners[f].T
            weights = np.linalg.solve(np.stack([x, y, np.ones(3)]), np.array([column, row, 1.0]))
            wound = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
            if wound > 0 or weights.min() < 0:
                continue
            here = 1 / (weights @ (1 / z))
            if face_map[b, row, column] < 0 or here < depth[b, row, column]:
                face_map[b, row, column], depth[b, row, column] = f, here
    return face_map, depth


def two_spheres() -> tuple[Tensor, Tensor]:
    """Screen vertices (2, V, 3) of two spheres, the second partly outside a 20 x 14 image, and their faces."""
    vertices, faces = icosphere(0)
    camera = Camera.stack([Camera(60.0, 50.0, 9.3, 6.8), Camera(60.0, 50.0, 3.1, 12.4)])
    return project((vertices + torch.tensor([0.1, 0.0, 9.0])).expand(2, -1, -1), camera), faces


def test_nearest_faces_and_depth_equal_those_of_the_loop() -> None:
    screen, faces = two_spheres()
    fragments = rasterize(screen, faces, 14, 20)
    face_map, depth = slow_rasterize(screen, faces, 14, 20)
    assert (face_map >= 0).sum() > 100
    np.testing.assert_array_equal(fragments.face_map().numpy(), face_map)
    np.testing.assert_allclose(fragments.image(fragments.depth).numpy(), depth, rtol=1e-5)
    assert fragments.owner.tolist() == sorted(fragments.owner.tolist())
    assert fragments.owner.bincount().tolist() == (face_map >= 0).sum((1, 2)).tolist()


def test_of_two_objects_the_nearer_is_seen() -> None:
    vertices, faces = icosphere(1)
    both = torch.cat([vertices + torch.tensor([0, 0, 9.0]), 0.5 * vertices + torch.tensor([0, 0, 6.0])])
    screen = project(both[None], Camera.stack([Camera(60.0, 60.0, 10.0, 10.0)]))
    for order in (1, -1):  # whichever is drawn last
        seen = rasterize(screen, torch.cat([faces, faces + len(vertices)][::order]), 21, 21).face_map()[
            0, 10, 10
        ]
        assert (int(seen) >= len(faces)) == (order == 1)


def test_interpolated_points_lie_on_the_pixels_rays() -> None:
    """Weights are perspective-correct: interpolated camera coordinates project to the pixel's centre, at its depth."""
    scene = car_scene(1, 24, subdivisions=2)
    screen = scene.screen(scene.pose)
    fragments = rasterize(screen, scene.mesh.faces, 24, 24)
    points = scene.cameras.cam_from_px(screen[0, :, :2], screen[0, :, 2])
    seen = fragments.interpolate(points[scene.mesh.faces])
    pixels = scene.cameras.px_from_cam(seen)
    expected = torch.stack([fragments.pixel % 24, fragments.pixel // 24], 1).float()
    assert len(seen) > 100
    torch.testing.assert_close(pixels, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(seen[:, 2], fragments.depth, rtol=1e-5, atol=0)
    torch.testing.assert_close(fragments.weights.sum(1), torch.ones(len(seen)))


def test_no_pixel_falls_between_triangles() -> None:
    """Triangles round random points, many with corners and edges exactly on pixel centres, tile a square without a hole."""
    generator = torch.Generator().manual_seed(3)
    rim = torch.tensor(
        [[x, y] for x, y in [(0, 0), (0, 7), (0, 15), (9, 15), (15, 15), (15, 4), (15, 0), (6, 0)]]
    )
    for trial in range(40):
        middle = torch.rand(1, 2, generator=generator) * 14 + 0.5
        middle = middle.round() if trial % 2 else middle
        points = torch.cat([rim.float(), middle])
        screen = torch.cat([points, torch.full((9, 1), 5.0)], 1)[None]
        faces = torch.tensor([[k, (k + 1) % 8, 8] for k in range(8)])[torch.randperm(8, generator=generator)]
        assert int((rasterize(screen, faces, 16, 16).face_map() < 0).sum()) == 0


def test_long_lists_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, faces = two_spheres()
    whole = rasterize(screen, faces, 14, 20).face_map()
    monkeypatch.setattr(module, "_CHUNK", 5)
    torch.testing.assert_close(rasterize(screen, faces, 14, 20).face_map(), whole)


def test_depth_and_weights_pass_gradcheck() -> None:
    screen, faces = two_spheres()
    screen = screen.double().requires_grad_()

    def outputs(screen: Tensor) -> tuple[Tensor, Tensor]:
        fragments = rasterize(screen, faces, 14, 20)
        return fragments.depth, fragments.weights

    assert torch.autograd.gradcheck(outputs, (screen,), fast_mode=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda screen: screen[0, 0].fill_(torch.nan),
        lambda screen: screen[0, 0, 0].fill_(torch.inf),
        lambda screen: screen[0, 0, 2].fill_(torch.inf),
        lambda screen: screen[0, 0, 2].fill_(0.05),  # nearer than allowed
        lambda screen: screen[0, 0, 2].fill_(-3.0),  # behind the camera
        lambda screen: screen[0, 0].copy_(screen[0, 1]),  # no area
        lambda screen: screen[0, :, 0].add_(1e9),  # far outside
        lambda screen: screen[0].copy_(screen[0].flip(0)),  # looks away
    ],
)
def test_what_cannot_be_drawn_is_left_out(spoil) -> None:  # type: ignore[no-untyped-def]
    screen = TRIANGLE.repeat(2, 1, 1)
    healthy = rasterize(screen, ONE_FACE, 12, 14).face_map()
    spoil(screen)
    screen.requires_grad_()
    fragments = rasterize(screen, ONE_FACE, 12, 14)
    assert int((fragments.face_map()[0] >= 0).sum()) == 0
    torch.testing.assert_close(fragments.face_map()[1], healthy[1])
    assert int((healthy[1] >= 0).sum()) > 20
    (gradient,) = torch.autograd.grad(fragments.depth.sum() + fragments.weights.square().sum(), screen)
    assert bool(gradient.isfinite().all())
    assert float(gradient[0].abs().sum()) == 0 < float(gradient[1].abs().sum())


def test_a_huge_triangle_fills_the_image() -> None:
    screen = torch.tensor([[[-1e7, -1e7, 5.0], [-1e7, 3e7, 5.0], [3e7, -1e7, 5.0]]])
    assert int((rasterize(screen, ONE_FACE, 9, 11).face_map() == 0).sum()) == 99


@pytest.mark.parametrize(
    ("objects", "faces", "height", "width"), [(0, 1, 4, 5), (2, 0, 4, 5), (2, 1, 0, 5), (2, 1, 4, 0)]
)
def test_nothing_to_draw(objects: int, faces: int, height: int, width: int) -> None:
    fragments = rasterize(TRIANGLE.repeat(objects, 1, 1), ONE_FACE[:faces], height, width)
    if faces and objects:
        assert len(fragments.pixel) == 0
    assert fragments.face_map().shape == (objects, height, width)
    assert int((fragments.face_map() >= 0).sum()) == 0


def test_one_camera_per_object() -> None:
    with pytest.raises(InputError, match="2 cameras, one per object"):
        project(torch.ones(2, 3, 3), Camera.stack([Camera(1.0, 1.0, 0.0, 0.0)]))


def test_crops_hold_their_boxes() -> None:
    camera = Camera(700.0, 710.0, 600.0, 180.0, tx=0.06)
    boxes = torch.tensor([[100.0, 50.0, 180.0, 90.0], [300.0, 100.0, 320.0, 200.0]])
    crops = crop_cameras(camera, boxes, 64, margin=0.25)
    assert (crops.width, crops.height) == (64, 64)
    corner = camera.cam_from_px(boxes[:, :2], torch.tensor([5.0, 8.0]))
    other = camera.cam_from_px(boxes[:, 2:], torch.tensor([9.0, 3.0]))
    low, high = crops.px_from_cam(corner), crops.px_from_cam(other)
    # A box's longer side takes 1 / 1.5 of the crop, in its middle; the crop spans [-0.5, 63.5].
    torch.testing.assert_close((low + high) / 2, torch.full((2, 2), 31.5), atol=1e-3, rtol=0)
    torch.testing.assert_close((high - low).amax(1), torch.full((2,), 64 / 1.5), atol=1e-3, rtol=0)
    with pytest.raises(InputError, match="box 1 has no extent"):
        crop_cameras(camera, torch.tensor([[0.0, 0, 1, 1], [5, 5, 5, 5]]), 64)
