"""What the viewer shows of one picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from monolift.data.formats.kitti_format import KittiLabels
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera
from monolift.render.mesh import Mesh
from monolift.typing import Float, Tensor, UInt8

if TYPE_CHECKING:
    from monolift.inference.results import Results3D

Picture = Path | bytes | UInt8[Tensor, "3 H W"] | None  # a file, its bytes, or RGB pixels


@dataclass(frozen=True)
class SceneObjects:
    """N objects: found ones (with scores) or labelled ones.

    boxes: N 3D boxes, camera frame; classes: N names; scores: (N,); boxes2d: (N, 4) pixels, projected from the boxes
    where they are missing; covariance: (N, 7, 7) of x, y, z, log length, log height, log width, yaw; meshes: N, metres,
    camera frame, None for an object without one.
    """

    boxes: Boxes3D = field(default_factory=Boxes3D.empty)
    classes: tuple[str, ...] = ()
    scores: Float[Tensor, " n"] | None = None
    boxes2d: Float[Tensor, "n 4"] | None = None
    covariance: Float[Tensor, "n 7 7"] | None = None
    meshes: tuple[Mesh | None, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        columns = ("classes", "scores", "boxes2d", "covariance", "meshes")
        counts = {k: len(getattr(self, k)) for k in columns if getattr(self, k) is not None}
        if any(count != n for count in counts.values()):
            raise ValueError(f"SceneObjects: {n} boxes, but {counts}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of_sample(cls, sample: Sample) -> SceneObjects:
        """A data set's labels."""
        return cls(sample.boxes, sample.classes, boxes2d=sample.boxes2d)

    @classmethod
    def of_result(cls, result: Results3D) -> SceneObjects:
        return cls(
            result.boxes, result.classes, result.scores, result.boxes2d, result.covariance, result.meshes
        )


@dataclass(frozen=True)
class Scene:
    """One picture with what is in it; every part but the name may be missing.

    image: an upright picture; camera: of that picture at its full size; objects: found or to be reviewed; labels: what is
    truly there, drawn beside them; points: (M, 3) of a LiDAR or a depth map, metres, camera frame; rows: the KITTI rows
    that ``objects`` were read from, whose untouched columns a review keeps; warnings: shown above the picture.
    """

    name: str
    image: Picture = None
    camera: Camera | None = None
    objects: SceneObjects = field(default_factory=SceneObjects)
    labels: SceneObjects = field(default_factory=SceneObjects)
    points: Float[Tensor, "m 3"] | None = None
    rows: KittiLabels | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_result(cls, result: Results3D, truth: Sample | None = None) -> Scene:
        """A detection, with the labels of the same picture where they are known."""
        return cls(
            name=result.name,
            image=result.image,
            camera=result.camera,
            objects=SceneObjects.of_result(result),
            labels=SceneObjects() if truth is None else SceneObjects.of_sample(truth),
            warnings=tuple(result.warnings),
        )
