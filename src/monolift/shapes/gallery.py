"""Images of shapes: rows of meshes, each seen from the front left and a little from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from monolift.geometry import Camera
from monolift.geometry.rotations import matrix_from_yaw
from monolift.render.draw.canvas import font
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.typing import Float, Tensor

TILE = (300, 190)
"""Width and height of one shape's image, pixels."""
_OVERSAMPLING = 2
_DISTANCE, _SPAN = 14.0, 5.2  # metres: of the camera; that fill a tile's width
_YAW, _PITCH = math.radians(142), math.radians(14)
_LIGHT = (-0.35, -0.85, -0.4)  # towards it, camera frame
_PAINT = (0.42, 0.56, 0.72)


def gallery(rows: Sequence[tuple[str, Sequence[Mesh]]]) -> Image.Image:
    """One row of images per (caption, meshes); meshes in their box's own frame, metres, with or without texture."""
    columns = max(len(meshes) for _, meshes in rows)
    caption = 26
    sheet = Image.new("RGB", (columns * TILE[0], len(rows) * (TILE[1] + caption)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (text, meshes) in enumerate(rows):
        top = row * (TILE[1] + caption)
        draw.text((10, top + 6), text, fill=(40, 40, 40), font=font(15))
        for column, mesh in enumerate(meshes):
            sheet.paste(portrait(mesh), (column * TILE[0], top + caption))
    return sheet


def portrait(mesh: Mesh) -> Image.Image:
    """One mesh in an image of ``TILE`` pixels: its texture, or grey-blue paint in daylight."""
    width, height = (n * _OVERSAMPLING for n in TILE)
    focal = width * _DISTANCE / _SPAN
    camera = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width=width, height=height)
    vertices = mesh.vertices @ matrix_from_yaw(torch.tensor(_YAW)).T
    y, z = vertices[:, 1], vertices[:, 2]
    tilted = [
        vertices[:, 0],
        math.cos(_PITCH) * y - math.sin(_PITCH) * z,
        math.sin(_PITCH) * y + math.cos(_PITCH) * z,
    ]
    vertices = torch.stack(tilted, 1) + torch.tensor([0.0, 0.0, _DISTANCE])
    placed = mesh.with_vertices(vertices)
    if mesh.texture is None:
        placed = _painted(placed)
    seen = render(placed, Camera.stack([camera]))
    image = seen.colour[0] + (1 - seen.silhouette[0])
    image = F.avg_pool2d(image[None], _OVERSAMPLING)[0].clamp(0, 1)
    return Image.fromarray((255 * image).byte().permute(1, 2, 0).contiguous().numpy())


def _painted(mesh: Mesh) -> Mesh:
    """The mesh with a texture of shades, read by how much each corner faces the light."""
    normals = vertex_normals(mesh)
    light = F.normalize(torch.tensor(_LIGHT), dim=0)
    shade = (0.5 + 0.5 * (normals @ light)).clamp(0, 1)
    uvs = torch.stack([shade, torch.full_like(shade, 0.5)], 1)[mesh.faces]
    ramp = torch.linspace(0.12, 1.15, 256)
    texture = (torch.tensor(_PAINT)[:, None] * ramp).clamp(0, 1)[:, None]
    return Mesh(mesh.vertices, mesh.faces, uvs, texture)


def vertex_normals(mesh: Mesh) -> Float[Tensor, "v 3"]:
    """Unit normals, the faces round a vertex weighted by area."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(mesh.vertices).index_add(0, mesh.faces.flatten(), area.repeat_interleave(3, 0))
    return F.normalize(total, dim=1)
