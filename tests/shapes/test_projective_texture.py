"""An image worn as a texture: seen from where it was taken it is the image, from the other side its mirror image."""

from __future__ import annotations

import math

import pytest
import torch

from monolift.geometry import Camera
from monolift.render.mesh import Mesh, icosphere
from monolift.render.renderer import render
from monolift.shapes.projective_texture import continued, placed, project_texture

CAMERA = Camera(700, 700, 160, 90, 0.06, 0.0, 0.003, width=320, height=180)
CENTER, YAW = torch.tensor([0.4, 0.3, 9.0]), torch.tensor(-0.9)


def body() -> Mesh:
    """An egg of a car's size, its top flattened so that front and rear, top and bottom differ."""
    directions, faces = icosphere(4)
    x, y, z = directions.unbind(1)
    return Mesh(torch.stack([2 * x + 0.2 * y, 0.75 * torch.where(y < 0, 0.8 * y, y), 0.8 * z], 1), faces)


def photograph() -> tuple[torch.Tensor, torch.Tensor]:
    """An image of the body in a smooth pattern of colours before bright green, and the body's mask."""
    mesh = body()
    seen = render(placed(mesh, CENTER, YAW), Camera.stack([CAMERA]))
    mask = seen.silhouette[0] > 0.999
    v, u = torch.meshgrid(torch.arange(180.0), torch.arange(320.0), indexing="ij")
    colours = torch.stack([0.5 + 0.4 * (u / 17).sin(), 0.05 * torch.ones_like(u), 0.5 + 0.4 * (v / 11).cos()])
    green = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    return (255 * torch.where(mask, colours, green)).round().byte(), mask


def test_seen_from_where_it_was_taken_it_is_the_photograph() -> None:
    image, mask = photograph()
    mesh = project_texture(body(), CENTER, YAW, image, CAMERA, mask)
    seen = render(placed(mesh, CENTER, YAW), Camera.stack([CAMERA]))
    error = (255 * seen.colour[0] - image).abs().amax(0)[mask]
    assert error.median() < 1.5
    assert error.quantile(0.98) < 12
    # Even where the silhouette mixes with what lies behind, no green of the background has come along.
    assert seen.colour[0, 1].max() < 0.1


def test_the_far_side_is_the_mirror_image_of_the_near_one() -> None:
    image, mask = photograph()
    mesh = project_texture(body(), CENTER, YAW, image, CAMERA, mask)
    side_on = Camera.stack([Camera(700, 700, 160, 90, width=320, height=180)])
    ahead = torch.tensor([0.0, 0.0, 9.0])
    near = render(placed(mesh, ahead, torch.tensor(0.0)), side_on)
    far = render(placed(mesh, ahead, torch.tensor(math.pi)), side_on)
    both = (near.silhouette[0] > 0.999) & (far.silhouette[0].flip(-1) > 0.999)
    difference = (near.colour[0] - far.colour[0].flip(-1)).abs().amax(0)[both[:, :]]
    assert both.sum() > 5000
    assert difference.quantile(0.95) < 0.1


def test_what_neither_side_shows_wears_the_edge_of_what_is_seen() -> None:
    """The end that faces away takes its colours from the rim round it, not from the end that faces the camera."""
    rows = torch.arange(180.0)[:, None].expand(180, 320)
    columns = torch.arange(320.0).expand(180, 320)
    image = torch.stack([columns * 0.8, rows, 0 * rows]).byte()
    along = torch.tensor(-math.pi / 2)  # straight ahead: the rear is seen, the front is not
    center = torch.tensor([0.0, 0.0, 9.0])
    mask = render(placed(body(), center, along), Camera.stack([CAMERA])).silhouette[0] > 0.999
    mesh = project_texture(body(), center, along, image, CAMERA, mask)
    assert mesh.uvs is not None
    middles = mesh.vertices[mesh.faces].mean(1)
    front = middles[:, 0] > 1.7  # of a body that reaches to 2
    rear = middles[:, 0] < -1.7
    u, v = mesh.uvs.mean(1).unbind(1)
    spread = [
        float((u[part] - 0.5).square().add((v[part] - 0.5).square()).sqrt().mean()) for part in (front, rear)
    ]
    assert spread[0] > 1.5 * spread[1]


def test_nothing_to_wear_is_an_error() -> None:
    image, mask = photograph()
    with pytest.raises(ValueError, match="mask without pixels"):
        project_texture(body(), CENTER, YAW, image, CAMERA, torch.zeros_like(mask))


def test_gaps_are_filled_from_what_is_known_and_the_known_stays() -> None:
    image = torch.rand(3, 37, 52)
    known = torch.rand(37, 52) < 0.3
    filled = continued(image, known)
    assert torch.equal(filled[:, known], image[:, known])
    assert filled.min() >= image[:, known].min() - 1e-6
    assert filled.max() <= image[:, known].max() + 1e-6
    one = torch.zeros(9, 9, dtype=torch.bool)
    one[4, 2] = True
    assert torch.allclose(continued(image[:, :9, :9], one), image[:, 4:5, 2:3].expand(3, 9, 9))
    assert torch.equal(continued(image, torch.ones_like(known)), image)
