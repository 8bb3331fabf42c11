"""Boxes as meshes, for programs that know only triangles."""

from __future__ import annotations

import torch

from monolift.geometry import Boxes3D
from monolift.render.mesh import Mesh

# Corners go round the bottom (0 to 3) and round the top (4 to 7, each above its corner): two triangles per side, seen from
# outside counterclockwise, as Mesh wants them.
SIDES = [(0, 1, 2), (0, 2, 3), (4, 6, 5), (4, 7, 6)] + [
    triangle for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)) for triangle in ((i, j + 4, j), (i, i + 4, j + 4))
]


def box_meshes(boxes: Boxes3D) -> tuple[Mesh, ...]:
    """One closed mesh of 8 vertices and 12 faces per box; metres, camera frame."""
    return tuple(Mesh(corners, torch.tensor(SIDES)) for corners in boxes.corners())
