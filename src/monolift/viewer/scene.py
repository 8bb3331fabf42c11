"""What the viewer shows of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from monolift.data.formats.kitti_format import KittiLabels
from monolift.data.sample import Objects, Sample
from monolift.files.renamed import renamed
from monolift.geometry import Camera
from monolift.inference.results import Results3D
from monolift.typing import Float, Tensor, UInt8


@dataclass(frozen=True)
class VideoFrame:
    """The frame of a video at a time in seconds."""

    path: Path
    time: float


ImageSource = Path | VideoFrame | bytes | UInt8[Tensor, "3 H W"] | None  # a file, its bytes, or RGB pixels


@dataclass(frozen=True)
class Scene:
    """One image with what is in it; every part but the name may be missing.

    image: an upright image; camera: of that image at its full size; objects: found or to be reviewed; labels: ground
    truth, drawn beside them; points: (M, 3) of a LiDAR or a depth map, metres, camera frame; rows: the KITTI rows that
    ``objects`` were read from, whose untouched columns a review keeps; warnings: shown above the image; over_ground:
    velocities are not as seen from the camera. 2D boxes are projected from the 3D boxes where they are missing.
    """

    name: str
    image: ImageSource = None
    camera: Camera | None = None
    objects: Objects = field(default_factory=Objects)
    labels: Objects = field(default_factory=Objects)
    points: Float[Tensor, "m 3"] | None = None
    rows: KittiLabels | None = None
    warnings: tuple[str, ...] = ()
    over_ground: bool = False


def scene_of(result: Results3D, labels: Sample | None = None) -> Scene:
    """The scene of a detection, with the labels of the same image where they are known."""
    return Scene(
        name=result.name,
        image=result.image,
        camera=result.camera,
        objects=result.objects,
        labels=Objects() if labels is None else labels.objects,
        warnings=tuple(result.warnings),
        over_ground=result.camera_speed is not None,
    )


__getattr__ = renamed(__name__, Picture="ImageSource")
