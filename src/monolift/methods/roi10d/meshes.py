"""Shape codes to textured meshes where the detections stand (ROI-10D section 3.3)."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.methods.roi10d.decode import LiftedDetections
from monolift.render.mesh import Mesh
from monolift.shapes.autoencoder import ALL, ShapeSpace, load_shape_space
from monolift.shapes.projective_texture import placed, project_texture
from monolift.typing import Bool, Tensor, UInt8


@functools.cache
def space_of(path: str = "") -> ShapeSpace:
    """The shape space of a file, or the one that ships with the package. Raises InputError for a file that is none."""
    return load_shape_space(path or None)


def with_meshes(
    found: LiftedDetections, image: UInt8[Tensor, "3 H W"], camera: Camera, space: ShapeSpace
) -> LiftedDetections:
    """The detections with a mesh each: the code's shape in the box's extents, at the box's place (its yaw; pitch and roll of
    ``rotation`` are left out, as in the box), wearing the image inside its 2D box, mirrored for the side that is not seen.

    found, image, camera: of one image, 2D boxes in its pixels. A mesh that shows the camera no face stays without texture.
    """
    boxes2d = found.boxes2d
    assert boxes2d is not None
    meshes = []
    for k in range(len(found)):
        box = found.boxes[k]
        shape = _mesh(space, found.shape[k], box.size[0])
        place = (box.center[0], box.yaw[0])
        mask = _inside(boxes2d[k], image)
        try:
            shape = project_texture(shape, *place, image, camera, mask)
        except ValueError:  # nothing of it is in the image
            shape = Mesh(shape.vertices, shape.faces)
        meshes.append(placed(shape, *place))
    return replace(found, meshes=tuple(meshes))


def _mesh(space: ShapeSpace, code: Tensor, size: Tensor) -> Mesh:
    """The code's mesh, or the median car's where the code lies so far from all cars that it decodes to nothing."""
    try:
        return space.mesh(code, size)
    except InputError:
        return space.mesh(space.medians[ALL], size)


def median_shapes(found: LiftedDetections, space: ShapeSpace) -> LiftedDetections:
    """The detections as median cars: for a model whose shape branch saw no labels."""
    return replace(found, shape=space.medians[ALL].expand(len(found), -1))


def _inside(box2d: Tensor, image: Tensor) -> Bool[Tensor, "H W"]:
    """The pixels of a 2D box."""
    height, width = image.shape[1:]
    x, y = torch.arange(width), torch.arange(height)[:, None]
    x1, y1, x2, y2 = box2d.tolist()
    return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
