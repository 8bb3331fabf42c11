from __future__ import annotations

import math

import torch

from monolift.geometry import Boxes3D, Camera, wrap
from monolift.methods.monodr.codec import MonoDRCodec, place

SIZE_MEAN = torch.tensor([3.88, 1.53, 1.63], dtype=torch.float64)


def some_boxes() -> tuple[Boxes3D, Camera, torch.Tensor]:
    """Four boxes seen by two cameras, one of which stands beside the labels' frame."""
    center = torch.tensor([[-3.0, 0.8, 9], [5, 1.0, 21], [0.2, 0.9, 14], [-9, 1.2, 33]], dtype=torch.float64)
    size = SIZE_MEAN * torch.tensor([[1.0], [0.9], [1.2], [1.05]], dtype=torch.float64)
    boxes = Boxes3D(center, size, torch.tensor([0.3, -2.9, 3.1, -1.5], dtype=torch.float64))
    kitti = Camera(721.5, 721.5, 609.6, 172.9, 0.06, -0.001, 0.003)
    cameras = Camera.stack([kitti, Camera(500.0, 520.0, 320.0, 240.0)] * 2)
    boxes2d = boxes.projected(cameras, clip=False) + torch.tensor(
        [[2.0, -3.0, 5.0, 1.0]], dtype=torch.float64
    )
    return boxes, cameras, boxes2d


def test_boxes_come_back_from_their_variables() -> None:
    boxes, cameras, boxes2d = some_boxes()
    codec = MonoDRCodec(boxes2d, cameras, SIZE_MEAN)
    codes = torch.randn(2, 4, 8, dtype=torch.float64)
    variables = codec.encode(boxes, *codes)
    back = codec.decode(variables)
    torch.testing.assert_close(back.center, boxes.center)
    torch.testing.assert_close(back.size, boxes.size)
    assert wrap(back.yaw - boxes.yaw).abs().max() < 1e-12
    assert torch.equal(variables.shape, codes[0]) and torch.equal(variables.texture, codes[1])


def test_the_variables_mean_what_they_say() -> None:
    boxes, cameras, boxes2d = some_boxes()
    variables = MonoDRCodec(boxes2d, cameras, SIZE_MEAN).encode(boxes, *torch.randn(2, 4, 8))
    k, camera = 1, cameras[1]
    x, y, z = boxes.center[k].tolist()
    u, v = float(camera.fx) * x / z + float(camera.cx), float(camera.fy) * y / z + float(camera.cy)
    x1, y1, x2, y2 = boxes2d[k].tolist()
    expected = [(u - (x1 + x2) / 2) / (x2 - x1), (v - (y1 + y2) / 2) / (y2 - y1)]
    torch.testing.assert_close(variables.offset[k], torch.tensor(expected, dtype=torch.float64))
    assert math.isclose(float(variables.alpha[k]), -2.9 - math.atan2(x, z), abs_tol=1e-12)
    torch.testing.assert_close(variables.size[k], -0.1 * SIZE_MEAN)


def test_the_mirrored_silhouette_is_the_negative_angle() -> None:
    """Why the escape tries -alpha: along the viewing ray, the box at -alpha covers the same directions as the one at alpha."""
    camera = Camera.stack([Camera(700.0, 700.0, 600.0, 180.0)])
    boxes2d = torch.tensor([[800.0, 150, 900, 220]], dtype=torch.float64)
    codec = MonoDRCodec(boxes2d, camera, SIZE_MEAN)
    center = camera.cam_from_px(
        torch.tensor([[850.0, 185]], dtype=torch.float64), torch.tensor([2000.0]).double()
    )

    def directions(alpha: float) -> tuple[float, float]:
        ray = math.atan2(float(center[0, 0]), float(center[0, 2]))
        corners = Boxes3D(center, SIZE_MEAN[None], torch.tensor([alpha + ray]).double()).corners()[0]
        angle = torch.atan2(corners[:, 0], corners[:, 2])
        return float(angle.min()), float(angle.max())

    assert codec.decode(
        codec.encode(Boxes3D(center, SIZE_MEAN[None], torch.zeros(1).double()), *torch.zeros(2, 1, 8))
    )
    seen, mirrored, other = directions(0.6), directions(-0.6), directions(0.9)
    width = seen[1] - seen[0]
    assert abs((mirrored[1] - mirrored[0]) / width - 1) < 1e-3  # far away, where perspective is faint
    assert abs((other[1] - other[0]) / width - 1) > 0.05


def test_vertices_fill_their_boxes() -> None:
    boxes, _, _ = some_boxes()
    signs = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]).double()
    placed = place(signs.expand(len(boxes), -1, -1), boxes)
    # the corners, in whatever order
    distance = torch.cdist(placed, boxes.corners())
    assert distance.amin(2).max() < 1e-9 and distance.amin(1).max() < 1e-9
