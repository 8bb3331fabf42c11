"""Meshes laid over the image they were found in: shaded like clay, so that shape and fit can be judged.

In their own texture they would look like the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from monolift.geometry import Camera
from monolift.render.draw.canvas import class_color
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.typing import Float, Tensor, UInt8

LIGHT = (-0.4, -0.8, -0.45)  # towards the light: above, a little to the left, behind the camera
OPACITY = 0.72
DARKEST = 0.25


def overlay_meshes(
    image: UInt8[Tensor, "3 H W"], camera: Camera, meshes: Sequence[Mesh], classes: Sequence[str]
) -> UInt8[Tensor, "3 H W"]:
    """The image with meshes (camera frame, metres) before it, in the colours of their classes, the nearest on top.

    A mesh that reaches behind the camera is left out.
    """
    canvas = image.float() / 255
    height, width = image.shape[1:]
    for mesh, name in sorted(
        zip(meshes, classes, strict=True), key=lambda pair: -float(pair[0].vertices[:, 2].mean())
    ):
        pixels = camera.px_from_cam(mesh.vertices)
        low, high = pixels.amin(0).floor(), pixels.amax(0).ceil()
        x1, y1 = (max(int(v) - 1, 0) for v in low.tolist())
        x2, y2 = (min(int(v) + 2, side) for v, side in zip(high.tolist(), (width, height), strict=True))
        if float(camera.depth(mesh.vertices).min()) <= 0 or x1 >= x2 or y1 >= y2:
            continue
        seen = render(
            Mesh(mesh.vertices, mesh.faces), Camera.stack([camera.after_crop(x1, y1, x2 - x1, y2 - y1)])
        )
        light = _lit(mesh)[seen.face[0].clamp_min(0)]
        color = torch.tensor(class_color(name)).view(3, 1, 1) / 255 * light
        alpha = OPACITY * seen.silhouette[0]
        place = canvas[:, y1:y2, x1:x2]
        canvas[:, y1:y2, x1:x2] = place * (1 - alpha) + color * alpha
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)


def _lit(mesh: Mesh) -> Float[Tensor, " f"]:
    """Brightness of each face, from the mean of its vertices' normals: marching cubes' slivers alone point anywhere."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.zeros_like(mesh.vertices).index_add(0, mesh.faces.flatten(), area.repeat_interleave(3, 0))
    facing = F.normalize(normal[mesh.faces].sum(1), dim=1) @ F.normalize(corners.new_tensor(LIGHT), dim=0)
    return DARKEST + (1 - DARKEST) * facing.clamp_min(0)
