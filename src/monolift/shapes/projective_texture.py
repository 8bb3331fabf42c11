"""An image as the texture of the car it shows: projected, and mirrored for the side that is not seen (ROI-10D, 3.3).

The paper colours vertices. Here faces get texture coordinates in the image itself, so that a texel is a pixel: at 6 cm
between vertices, a car at 10 m would keep a quarter of its pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monolift.geometry import Camera
from monolift.geometry.rotations import matrix_from_yaw
from monolift.render.mesh import Mesh
from monolift.typing import Bool, Float, Int, Tensor, UInt8

SEEN = 0.1
"""Cosine between a face's normal and the way to the camera above which the face counts as seen."""
SMOOTHING = 12
"""Rounds of averaging the normals that decide it, each as far as one face."""
MIRROR = (1.0, 1.0, -1.0)
"""A car's plane of symmetry is that of its length and height."""


def placed(mesh: Mesh, center: Float[Tensor, " 3"], yaw: Float[Tensor, ""]) -> Mesh:
    """A mesh of the box's own frame in the camera frame."""
    return mesh.with_vertices(mesh.vertices @ matrix_from_yaw(yaw).T + center)


def project_texture(
    mesh: Mesh,
    center: Float[Tensor, " 3"],
    yaw: Float[Tensor, ""],
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    mask: Bool[Tensor, "H W"],
) -> Mesh:
    """The mesh, in its box's own frame, wearing the part of the image that shows it.

    mesh: box frame, without texture; center, yaw: where it stands in the image (metres, camera frame; radians).
    mask: the object's pixels. The rest of the texture continues their colours outward, so that a mesh that sticks out of the
    mask wears no background.

    Of a face and its mirror image the one that is seen lends its pixels; faces of which neither is (the far end, the floor)
    take those of the nearest face at the edge of what is seen. Faces hidden by others of the same car are not sorted out: a
    car is nearly convex. Raises ValueError for a mask without pixels, or when no face looks at the camera.
    """
    rows, columns = (mask.any(axis).nonzero().squeeze(1) for axis in (1, 0))
    if not len(rows):
        raise ValueError("a mask without pixels has no texture")
    top, left = max(int(rows[0]) - 2, 0), max(int(columns[0]) - 2, 0)
    window = (slice(top, int(rows[-1]) + 3), slice(left, int(columns[-1]) + 3))
    texture = continued(image[:, window[0], window[1]].float() / 255, mask[window])

    normals = _smooth_normals(mesh.vertices, mesh.faces)[mesh.faces].sum(1)
    flip = mesh.vertices.new_tensor(MIRROR)
    pixels, facing = zip(
        *(
            _seen(mesh.vertices * turn, normals * turn, mesh.faces, center, yaw, camera)
            for turn in (torch.ones(3), flip)
        ),
        strict=True,
    )
    own = (facing[0] > SEEN) | (facing[0] >= facing[1])
    px = torch.where(own[:, None, None], pixels[0], pixels[1])
    px = px[_lender(mesh, torch.maximum(*facing) > SEEN)]
    extent = px.new_tensor([texture.shape[2], texture.shape[1]])
    uvs = ((px - px.new_tensor([left, top]) + 0.5) / extent).clamp(0, 1)
    return Mesh(mesh.vertices, mesh.faces, uvs, texture)


def _seen(
    vertices: Float[Tensor, "v 3"],
    normals: Float[Tensor, "f 3"],
    faces: Int[Tensor, "f 3"],
    center: Float[Tensor, " 3"],
    yaw: Float[Tensor, ""],
    camera: Camera,
) -> tuple[Float[Tensor, "f 3 2"], Float[Tensor, " f"]]:
    """Pixels of the faces' corners, and how squarely each face looks at the camera (cosine). normals: of any length."""
    turn = matrix_from_yaw(yaw).T
    inside = vertices @ turn + center
    to_camera = F.normalize(-(inside[faces].mean(1) + camera.translation.to(inside)), dim=1)
    return camera.px_from_cam(inside)[faces], (F.normalize(normals @ turn, dim=1) * to_camera).sum(1)


def _smooth_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Normals of vertices, averaged over the neighbourhood: a flank seen at a glancing angle is then seen or not as a whole,
    where the ripples of marching cubes would speckle it."""
    a, b, c = vertices[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a)  # weighted by area: slivers alone point anywhere
    normals = torch.zeros_like(vertices).index_add(0, faces.flatten(), area.repeat_interleave(3, 0))
    for _ in range(SMOOTHING):
        normals = F.normalize(normals, dim=1)
        mean = normals[faces].sum(1)
        normals = torch.zeros_like(vertices).index_add(0, faces.flatten(), mean.repeat_interleave(3, 0))
    return F.normalize(normals, dim=1)


def _lender(mesh: Mesh, seen: Bool[Tensor, " f"]) -> Int[Tensor, " f"]:
    """For each face the one whose pixels it takes: itself where it is seen, else the nearest at the edge of what is seen."""
    if not bool(seen.any()):
        raise ValueError("no face of the mesh looks at the camera")
    beside = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    beside[mesh.faces[~seen]] = True
    edge = seen & beside[mesh.faces].any(1)
    lenders = (edge if bool(edge.any()) else seen).nonzero().squeeze(1)
    blind = (~seen).nonzero().squeeze(1)
    middle = mesh.vertices[mesh.faces].mean(1)
    lender = torch.arange(len(mesh.faces))
    for part in blind.split(1024):
        lender[part] = lenders[torch.cdist(middle[part], middle[lenders]).argmin(1)]
    return lender


def continued(image: Float[Tensor, "c h w"], known: Bool[Tensor, "h w"]) -> Float[Tensor, "c h w"]:
    """The image with the pixels that are not known filled smoothly from those that are.

    Means over 2 x 2 pixels, of known ones only, again and again; then each gap takes the value of the coarser level.
    """
    weight = known.to(image.dtype)[None]
    levels = [(image * weight, weight)]
    while max(levels[-1][0].shape[1:]) > 1:
        values, weight = levels[-1]
        padding = (0, values.shape[2] % 2, 0, values.shape[1] % 2)
        levels.append((F.avg_pool2d(F.pad(values, padding), 2), F.avg_pool2d(F.pad(weight, padding), 2)))
    values, weight = levels[-1]
    filled = values / weight.clamp_min(1e-12)
    for values, weight in reversed(levels[:-1]):
        size = values.shape[1:]
        coarse = F.interpolate(filled[None], scale_factor=2, mode="bilinear")[0][:, : size[0], : size[1]]
        filled = torch.where(weight > 0, values / weight.clamp_min(1e-12), coarse)
    return filled
