"""What detection gives back: boxes in metres with the picture and the camera they belong to."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monolift.data.evidence import Evidence
from monolift.data.formats.kitti_format import (
    KittiLabels,
    format_labels,
    from_numbers,
    to_numbers,
    write_atomically,
)
from monolift.data.kitti import labels_from_detections
from monolift.data.sample import Detections
from monolift.errors import InputError
from monolift.files.json_text import format_json
from monolift.geometry import Boxes3D, Camera
from monolift.render.mesh import Mesh
from monolift.typing import Float, Tensor, UInt8

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from monolift.render.draw.objects import Objects

SCHEMA = "monolift.inference.results/1"


@dataclass(frozen=True)
class Results3D:
    """The objects of one picture, best first.

    boxes: N 3D boxes, camera frame; scores: (N,) 0 to 1; classes: N names; boxes2d: (N, 4) pixels of ``image``.
    camera: of this picture, and ``camera_origin`` where it came from; image: (3, H, W) uint8 RGB, upright.
    timings: seconds by stage; warnings: what makes the result doubtful, for example a guessed camera.
    covariance: (N, 7, 7) of x, y, z, log length, log height, log width, yaw, from methods that know it.
    meshes: N meshes, metres, camera frame, from methods that give shapes.
    evidence: the named measurements behind each box, from methods that fit boxes through such (SS3D's 26 hints).
    """

    name: str
    boxes: Boxes3D
    scores: Float[Tensor, " n"]
    classes: tuple[str, ...]
    boxes2d: Float[Tensor, "n 4"]
    camera: Camera
    image: UInt8[Tensor, "3 H W"]
    camera_origin: str = "given"
    path: Path | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    covariance: Float[Tensor, "n 7 7"] | None = None
    meshes: tuple[Mesh, ...] | None = None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        counts = {k: len(getattr(self, k)) for k in ("scores", "classes", "boxes2d")}
        if any(count != n for count in counts.values()):
            raise ValueError(f"Results3D {self.name}: {n} boxes, but {counts}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        counts = {name: self.classes.count(name) for name in dict.fromkeys(self.classes)}
        return f"{self.name}: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing found")

    def __repr__(self) -> str:
        return f"<Results3D {self}>"

    @property
    def distance(self) -> Float[Tensor, " n"]:
        """Metres along the ground from the camera to each box's centre."""
        return torch.linalg.vector_norm(self.boxes.center[:, [0, 2]], dim=1)

    def filter(self, score: float = 0.0, classes: Collection[str] | None = None) -> Results3D:
        """Only objects of at least this score and, if given, of these classes."""
        keep = self.scores >= score
        if classes is not None:
            keep &= torch.tensor([name in classes for name in self.classes], dtype=torch.bool)
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            classes=tuple(name for name, kept in zip(self.classes, keep.tolist(), strict=True) if kept),
            boxes2d=self.boxes2d[keep],
            covariance=None if self.covariance is None else self.covariance[keep],
            meshes=None
            if self.meshes is None
            else tuple(mesh for mesh, kept in zip(self.meshes, keep.tolist(), strict=True) if kept),
            evidence=None if self.evidence is None else self.evidence[keep],
        )

    # -- as text ------------------------------------------------------------------------------------------------------

    def to_kitti(self) -> str:
        """The rows of a KITTI result file: 16 fields with four decimals; an empty string for no objects."""
        rows = self._kitti_rows()
        return format_labels(from_numbers(rows.names, np.round(to_numbers(rows), 4)))

    def _kitti_rows(self) -> KittiLabels:
        names = sorted(set(self.classes))
        labels = torch.tensor([names.index(name) for name in self.classes], dtype=torch.long)
        return labels_from_detections(Detections(self.boxes, self.scores, labels, self.boxes2d), names)

    def to_dict(self, hints: bool = False) -> dict[str, Any]:
        """The content of :meth:`to_json`. hints: each object also with its evidence, where the method has such."""
        camera = {name: float(getattr(self.camera, name)) for name in ("fx", "fy", "cx", "cy")}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "source": str(self.path) if self.path else None,
            "image": {"width": self.image.shape[2], "height": self.image.shape[1]},
            "camera": {
                **camera,
                "translation": [float(v) for v in self.camera.translation],
                "origin": self.camera_origin,
            },
            "objects": [self._object(i, hints) for i in range(len(self))],
            "seconds": {k: round(v, 4) for k, v in self.timings.items()},
            "warnings": list(self.warnings),
        }

    def _object(self, i: int, hints: bool) -> dict[str, Any]:
        length, height, width = _rounded(self.boxes.size[i])
        row = {
            "class": self.classes[i],
            "score": round(float(self.scores[i]), 4),
            "center": _rounded(self.boxes.center[i]),
            "size": {"length": length, "height": height, "width": width},
            "yaw": round(float(self.boxes.yaw[i]), 4),
            "alpha": round(float(self.boxes.alpha[i]), 4),
            "distance": round(float(self.distance[i]), 4),
            "box2d": _rounded(self.boxes2d[i]),
        }
        if self.covariance is not None:
            row["standard_deviation"] = _standard_deviation(self.covariance[i], self.boxes.size[i])
        if hints and self.evidence is not None:
            row["hints"] = self.evidence.rows(i)
        return row

    def to_json(self) -> str:
        """One JSON object; fields are added in later versions, never renamed.

        schema; name; source; image {width, height}; camera {fx, fy, cx, cy in pixels, translation in metres: pixels are
        K (X + translation), origin: where it came from}; objects, best first: class, score, center [x right, y down, z
        forward] of the box's middle and size {length, height, width} in metres, yaw and alpha in radians (KITTI's
        rotation_y and alpha), distance along the ground in metres, box2d [x1, y1, x2, y2] in pixels, and where the method
        knows them the standard_deviation of center, size and yaw; seconds by stage; warnings.
        """
        return format_json(self.to_dict())

    def table(self) -> Table:
        """For a terminal: ``rich.print(result.table())``."""
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD,
            title=str(self),
            title_justify="left",
            caption=f"camera: {self.camera_origin}",
            caption_justify="left",
        )
        for heading in (
            "class",
            "score",
            "distance m",
            "x right",
            "y down",
            "z ahead",
            "l x h x w m",
            "yaw deg",
        ):
            table.add_column(heading, justify="left" if heading == "class" else "right", no_wrap=True)
        for i in range(len(self)):
            x, y, z = (f"{v:.2f}" for v in self.boxes.center[i].tolist())
            size = " x ".join(f"{v:.2f}" for v in self.boxes.size[i].tolist())
            yaw = f"{math.degrees(float(self.boxes.yaw[i])):.0f}"
            table.add_row(
                self.classes[i], f"{self.scores[i]:.2f}", f"{self.distance[i]:.1f}", x, y, z, size, yaw
            )
        return table

    def to_omni3d(self) -> str:
        """An Omni3D file of this one picture, objects with "score": the conventions stand in ``data.omni3d``."""
        from monolift.data.formats.frames import Frame
        from monolift.data.formats.omni3d import omni3d_tables

        height, width = self.image.shape[1:]
        image = self.path or Path(f"{self.name}.png")
        frame = Frame(self.name, image, width, height, self.camera.matrix.numpy(), self._kitti_rows())
        return format_json(omni3d_tables([frame]))

    # -- as pictures and files ----------------------------------------------------------------------------------------

    def plot(self) -> Image.Image:
        """The photograph with its boxes, and meshes where the method gives shapes, and the scene from above."""
        from monolift.render.draw.overlay import picture

        image = self.image
        if self.meshes:
            from monolift.render.draw.mesh_overlay import overlay_meshes

            image = overlay_meshes(image, self.camera, self.meshes, self.classes)
        return picture(image, self.camera, self._drawn())

    def plot_bev(self) -> Image.Image:
        """The scene from above alone, forward is up."""
        from monolift.render.draw.birds_eye import birds_eye

        return birds_eye(self.camera, self._drawn())

    def _drawn(self) -> Objects:
        from monolift.render.draw.objects import Objects

        return Objects(self.boxes, self.classes, self.scores, self.covariance)

    def save_image(self, path: str | Path) -> None:
        """Writes :meth:`plot`, in the format of the suffix (.png, .jpg, ...)."""
        save_picture(self.plot(), path)

    def to_html(self) -> str:
        """One self-contained page: the photograph, a 3D scene and the numbers, linked; it opens from disk, offline."""
        from monolift.viewer import Scene, scene_html

        return scene_html([Scene.of_result(self)], self.name)

    def save_html(self, path: str | Path) -> None:
        """Writes :meth:`to_html`."""
        _save(path, self.to_html().encode())

    def save_kitti(self, path: str | Path) -> None:
        """Writes :meth:`to_kitti`; no objects give an empty file, as the official evaluation expects."""
        _save(path, self.to_kitti().encode())

    def save_json(self, path: str | Path) -> None:
        _save(path, (self.to_json() + "\n").encode())

    def save_omni3d(self, path: str | Path) -> None:
        _save(path, (self.to_omni3d() + "\n").encode())

    def save_glb(self, path: str | Path) -> None:
        """Writes the objects as binary glTF, one node each: their meshes, or boxes where the method gives no shapes."""
        from monolift.render.box_mesh import box_meshes
        from monolift.render.glb import glb_bytes

        meshes = box_meshes(self.boxes) if self.meshes is None else self.meshes
        names = [
            f"{i} {name} {score:.2f}"
            for i, (name, score) in enumerate(zip(self.classes, self.scores, strict=True))
        ]
        _save(path, glb_bytes(meshes, names))


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Writes a picture, complete or not at all. Raises InputError for a suffix that no format has."""
    from PIL import Image

    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise InputError(
            f"{path}: cannot write this picture format: expected a name that ends in .png or .jpg"
        )
    data = io.BytesIO()
    picture.save(data, kind, **({"quality": 92} if kind == "JPEG" else {}))
    _save(path, data.getvalue())


def _save(path: str | Path, data: bytes) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make its folder: {error.strerror or error}") from None
    write_atomically(path, data)


def _standard_deviation(
    covariance: Float[Tensor, "7 7"], size: Float[Tensor, " 3"]
) -> dict[str, float | None]:
    """Of one box: x, y, z, length, height, width in metres, yaw in radians; None where the method does not know."""
    names = ("x", "y", "z", "length", "height", "width", "yaw")
    spread = covariance.diagonal().clamp_min(0).sqrt()
    spread = torch.cat([spread[:3], spread[3:6] * size, spread[6:]])  # of the logarithm, to first order
    return {k: round(v, 4) if math.isfinite(v) else None for k, v in zip(names, spread.tolist(), strict=True)}


def _rounded(values: Tensor) -> list[float]:
    """Tenths of a millimetre, or of a pixel."""
    return [round(v, 4) for v in values.tolist()]
