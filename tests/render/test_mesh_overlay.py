"""Meshes laid over their image."""

from __future__ import annotations

import torch

from monolift.geometry import Boxes3D
from monolift.render.box_mesh import box_meshes
from monolift.render.draw.canvas import class_color
from monolift.render.draw.mesh_overlay import DARKEST, OPACITY, overlay_meshes
from toy_kitti import toy_camera

CAMERA = toy_camera(200, 80)


def boxes() -> Boxes3D:
    """A near one in front of a far one, and one behind the camera."""
    center = torch.tensor([[0.0, 0.5, 10.0], [0.5, 0.5, 20.0], [0.0, 0.5, -9.0]])
    return Boxes3D(center, torch.tensor([[4.0, 1.6, 1.7]]).expand(3, 3), torch.tensor([0.3, 0.3, 0.0]))


def test_only_what_a_mesh_covers_changes_and_the_nearest_is_on_top() -> None:
    image = torch.full((3, 80, 200), 120, dtype=torch.uint8)
    near, far, behind = box_meshes(boxes())
    both = overlay_meshes(image, CAMERA, [near, far, behind], ["Car", "Pedestrian", "Car"])
    alone = overlay_meshes(image, CAMERA, [near], ["Car"])
    x1, y1, x2, y2 = (round(v) for v in boxes().projected(CAMERA)[0].tolist())
    outside = torch.ones(80, 200, dtype=torch.bool)
    outside[y1 - 1 : y2 + 2, x1 - 1 : x2 + 2] = False
    assert bool((alone[:, outside] == 120).all())
    middle = (slice(None), (y1 + y2) // 2, (x1 + x2) // 2)
    blue = torch.tensor(class_color("Car")).float()
    light = (alone[middle].float() - 120 * (1 - OPACITY)) / OPACITY / blue
    assert float(light.max() - light.min()) < 0.02  # one brightness on the class's colour
    assert DARKEST - 0.02 < float(light.mean()) < 1
    hidden = (both[middle].float() - alone[middle].float()).abs().max()
    assert float(hidden) < 255 * (1 - OPACITY)  # the far one shines through, no more
    assert not torch.equal(both, alone)


def test_nothing_to_lay_over_is_the_photograph() -> None:
    image = torch.randint(0, 255, (3, 80, 200), dtype=torch.uint8)
    behind = box_meshes(boxes())[2]
    assert torch.equal(overlay_meshes(image, CAMERA, [], []), image)
    assert torch.equal(overlay_meshes(image, CAMERA, [behind], ["Car"]), image)
