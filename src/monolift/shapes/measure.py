"""How near one car's shape is to another's: overlap of the volumes, distance of the surfaces, pieces."""

from __future__ import annotations

import torch

from monolift.render.mesh import Mesh
from monolift.shapes.tsdf import largest_component, surface
from monolift.typing import Float, Tensor

POINTS = 2000


def inside_iou(a: Float[Tensor, "*n X Y Z"], b: Float[Tensor, "*n X Y Z"]) -> Float[Tensor, "*n"]:
    """Intersection over union of the voxels inside two TSDFs; 1 where both are empty."""
    first, second = a < 0, b < 0
    both, either = (first & second).sum((-3, -2, -1)), (first | second).sum((-3, -2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def surface_points(mesh: Mesh, count: int = POINTS, seed: int = 0) -> Float[Tensor, "p 3"]:
    """Points spread evenly over a mesh's faces, by area; equal seeds give equal points."""
    generator = torch.Generator().manual_seed(seed)
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    faces = torch.multinomial(area, count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, 1, generator=generator)
    u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
    a, b, c = corners[faces].unbind(1)
    return a + u * (b - a) + v * (c - a)


def chamfer_distance(a: Float[Tensor, "p 3"], b: Float[Tensor, "q 3"]) -> float:
    """Mean of the two mean distances from the points of one surface to the nearest of the other, in their unit.

    Two samples of one surface have a distance too, about half the spacing of the points: it is the floor of the measure.
    """
    apart = torch.cdist(a, b)
    return float((apart.amin(1).mean() + apart.amin(0).mean()) / 2)


def main_piece(grid: Float[Tensor, "X Y Z"]) -> float:
    """Share of the surface's faces that belong to its largest piece; 0 for a grid without surface. A car has one piece."""
    mesh = surface(grid, torch.ones(3))
    if not len(mesh.faces):
        return 0.0
    return len(largest_component(mesh).faces) / len(mesh.faces)
