"""What a fit sees of an object, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.render.mesh import Mesh
from monolift.typing import Float, Int, Tensor, UInt8

OWN, BACKGROUND, OTHER = 1, 0, -1


@dataclass(frozen=True)
class Observation:
    """One object of one picture, as a 2D detector with masks and a depth network tell of it. Nothing here is a 3D label.

    image:  (3, H, W) uint8, RGB; objects of one picture share the tensor: those that do, share the depth map's scale
    camera: of this very picture
    mask:   (H, W) int8: 1 the object's own pixels, 0 background, -1 someone else's, behind which it may go on
    depth:  (H, W) z in metres of what each pixel shows, 0 where unknown
    box2d:  (4,) x1, y1, x2, y2 in pixels, round the visible part
    score:  the 2D detector's confidence, 0 to 1

    Raises InputError where shapes disagree, or the box is not finite or has no extent.
    """

    image: UInt8[Tensor, "3 H W"]
    camera: Camera
    mask: Int[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    box2d: Float[Tensor, "4"]
    score: float = 1.0
    class_name: str = "Car"

    def __post_init__(self) -> None:
        size = tuple(self.image.shape[1:])
        for name in ("mask", "depth"):
            if tuple(getattr(self, name).shape) != size:
                raise InputError(
                    f"observation: {name} must be of the picture's size {size}, got {tuple(getattr(self, name).shape)}"
                )
        if self.camera.fx.ndim:
            raise InputError("observation: expected the camera of one picture, got a batch")
        extent = self.box2d[2:] - self.box2d[:2]
        if not bool(torch.isfinite(self.box2d).all()) or not bool((extent > 0).all()):
            raise InputError(
                f"observation: box2d must be x1 < x2, y1 < y2 in pixels, got {self.box2d.tolist()}"
            )


@dataclass(frozen=True)
class FittedObjects:
    """What a fit found, object by object in the order of the observations. Boxes and meshes in metres, camera frame.

    boxes:       N boxes
    confidence:  (N,) eq. 8: ``score2d`` lowered by what the silhouette lacks and by how far the object sticks out of its
                 2D box; 0 where no pixel of the mask was seen, and then the box is where the fit would have started
    score2d:     (N,) the 2D detector's
    shape, texture: (N, 8) unit codes of the decoder
    residuals:   name -> (N,): the terms of the loss, unweighted ("pixel", "box", "silhouette", "depth", "size"), and
                 "protrusion"
    meshes:      N textured meshes
    start:       N boxes before the fit
    depth_scale: (N,) what the picture's depth map was multiplied by
    history:     N boxes after each iteration, the start first; None when it was not asked for
    """

    boxes: Boxes3D
    confidence: Float[Tensor, " n"]
    score2d: Float[Tensor, " n"]
    shape: Float[Tensor, "n 8"]
    texture: Float[Tensor, "n 8"]
    residuals: dict[str, Float[Tensor, " n"]]
    meshes: tuple[Mesh, ...]
    start: Boxes3D
    depth_scale: Float[Tensor, " n"]
    history: list[Boxes3D] | None = None
    meshes_at: Callable[[int], tuple[Mesh, ...]] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def mesh_at(self, step: int) -> tuple[Mesh, ...]:
        """N meshes as they were at ``history[step]``. Raises InputError when no history was kept."""
        if self.meshes_at is None:
            raise InputError("this fit kept no history: fit(..., history=True)")
        return self.meshes_at(step)
