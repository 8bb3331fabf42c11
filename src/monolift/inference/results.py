"""Detection results: boxes in metres with their image and camera, and their output formats."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monolift.data.evidence import Evidence
from monolift.data.formats.kitti_format import KittiLabels, format_labels, from_numbers, to_numbers
from monolift.data.kitti import labels_from_detections
from monolift.data.sample import Objects
from monolift.files.folders import write_atomically
from monolift.files.images import write_image
from monolift.files.json_text import format_json
from monolift.geometry import Boxes3D, Camera
from monolift.render.mesh import Mesh
from monolift.typing import Float, Tensor, UInt8

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

SCHEMA = "monolift.result/1"
"""Of the JSON; the number grows when a field is renamed, so that readers can tell."""


@dataclass(frozen=True)
class Results3D:
    """The objects of one image, best first, with the image and the camera they belong to.

    Indexing by an integer, a slice, a mask or indices gives the result with those objects only; iteration gives results of
    one object each. Raises ValueError for objects without scores or 2D boxes.

    Attributes:
        objects: N detections, see `Objects`; their columns are properties of the result, too.
        camera: of this image, and ``camera_origin`` where it came from
        image: (3, H, W) uint8 RGB, upright.
        timings: seconds by stage
        warnings: what makes the result doubtful, for example a guessed camera
        time: seconds since the beginning, of a video's frame, and its number ``frame`` from 0.
        camera_speed: m/s ahead, where it was given: tracked objects' velocities are then over ground.
    """

    name: str
    objects: Objects
    camera: Camera
    image: UInt8[Tensor, "3 H W"]
    camera_origin: str = "given"
    path: Path | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    time: float | None = None
    frame: int | None = None
    camera_speed: float | None = None

    def __post_init__(self) -> None:
        columns = ("scores", "labels", "boxes2d")
        missing = [name for name in columns if getattr(self.objects, name) is None]
        if missing:
            raise ValueError(f"Results3D {self.name}: expected objects with {', '.join(missing)}, got none")

    def __len__(self) -> int:
        return len(self.objects)

    def __iter__(self) -> Iterator[Results3D]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: Any) -> Results3D:
        return replace(self, objects=self.objects[index])

    def __str__(self) -> str:
        counts = {name: self.classes.count(name) for name in dict.fromkeys(self.classes)}
        return f"{self.name}: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing found")

    def __repr__(self) -> str:
        return f"<Results3D {self}>"

    # -- the objects' columns ----------------------------------------------------------------------------------------------

    @property
    def boxes(self) -> Boxes3D:
        """N 3D boxes, metres, camera frame."""
        return self.objects.boxes

    @property
    def scores(self) -> Float[Tensor, " n"]:
        """Between 0 and 1."""
        assert self.objects.scores is not None
        return self.objects.scores

    @property
    def classes(self) -> tuple[str, ...]:
        """Each object's class name."""
        return self.objects.classes

    @property
    def boxes2d(self) -> Float[Tensor, "n 4"]:
        """x1, y1, x2, y2, pixels of ``image``."""
        assert self.objects.boxes2d is not None
        return self.objects.boxes2d

    @property
    def covariance(self) -> Float[Tensor, "n 7 7"] | None:
        """Of x, y, z, log length, log height, log width, yaw, from methods that know it."""
        return self.objects.covariance

    @property
    def meshes(self) -> tuple[Mesh | None, ...] | None:
        """N meshes, metres, camera frame, from methods that give shapes; None for an object without one."""
        return self.objects.meshes

    @property
    def evidence(self) -> Evidence | None:
        """The predicted parameters behind each box with their residuals, from methods that fit boxes (SS3D's 26)."""
        return self.objects.evidence

    @property
    def distance(self) -> Float[Tensor, " n"]:
        """Metres along the ground from the camera to each box's centre."""
        return torch.linalg.vector_norm(self.boxes.center[:, [0, 2]], dim=1)

    def filter(self, score: float = 0.0, classes: Collection[str] | None = None) -> Results3D:
        """Objects above a score threshold and, if given, of some classes."""
        return replace(self, objects=self.objects.filter(score, classes))

    # -- as text ------------------------------------------------------------------------------------------------------

    def to_kitti(self) -> str:
        """The rows of a KITTI result file: 16 fields with four decimals; an empty string for no objects."""
        rows = self._kitti_rows()
        return format_labels(from_numbers(rows.names, np.round(to_numbers(rows), 4)))

    def _kitti_rows(self) -> KittiLabels:
        return labels_from_detections(self.objects, self.objects.names)

    def to_kitti_tracking(self, frame: int | None = None) -> str:
        """The rows of KITTI's tracking benchmark: frame and track id, then the 15 fields of a label, then the score.

        Args:
            frame: by default the result's own.

        Raises:
            ValueError: for a result that was not tracked.
        """
        if self.objects.tracks is None:
            raise ValueError(
                f"Results3D {self.name}: expected tracked objects, see monolift.inference.tracking"
            )
        frame = (self.frame or 0) if frame is None else frame
        rows = self.to_kitti().splitlines()
        ids = self.objects.tracks.tolist()
        return "".join(f"{frame} {k} {row}\n" for k, row in zip(ids, rows, strict=True))

    def to_dict(self, hints: bool = False) -> dict[str, Any]:
        """The content of `to_json`. With ``hints`` each object has its evidence, if the method gives any."""
        camera = {name: float(getattr(self.camera, name)) for name in ("fx", "fy", "cx", "cy")}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "source": str(self.path) if self.path else None,
            **({} if self.frame is None else {"frame": self.frame}),
            **({} if self.time is None else {"time": round(self.time, 4)}),
            **({} if self.camera_speed is None else {"camera_speed": round(self.camera_speed, 4)}),
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
        if self.objects.tracks is not None:
            row["track"] = int(self.objects.tracks[i])
        if self.objects.velocity is not None:
            row["velocity"] = _rounded(self.objects.velocity[i])
            row["speed"] = round(float(self.objects.velocity[i].norm()), 4)
        if hints and self.evidence is not None:
            row["hints"] = self.evidence.rows(i)
        return row

    def to_json(self) -> str:
        """One JSON object; fields are added in later versions, never renamed.

        schema; name; source; frame from 0 and time in seconds, of a video's frame; image {width, height}; camera {fx,
        fy, cx, cy in pixels, translation in metres: pixels are K (X + translation), origin: where it came from};
        objects, best first: class, score, center [x right, y down, z forward] of the box's middle and size {length,
        height, width} in metres, yaw and alpha in radians (KITTI's rotation_y and alpha), distance along the ground
        in metres, box2d [x1, y1, x2, y2] in pixels, and where the method knows them the standard_deviation of center,
        size and yaw; of tracked objects track (an id from 1), velocity in m/s in the camera frame as seen from the
        camera (over ground where the result states the camera_speed), and speed, its length; seconds by stage;
        warnings.
        """
        return format_json(self.to_dict())

    def table(self) -> Table:
        """A table of the objects, within 80 columns: ``rich.print(result.table())``."""
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD,
            title=str(self),
            title_justify="left",
            caption=f"camera: {self.camera_origin}",
            caption_justify="left",
            collapse_padding=True,
            pad_edge=False,
        )
        for heading in ("class", "score", "dist m", "x right", "y down", "z ahead", "l, h, w m", "yaw deg"):
            table.add_column(
                heading,
                justify="left" if heading == "class" else "right",
                no_wrap=heading != "class",
                overflow="fold",  # a long name takes two lines; nothing is cut
            )
        for i in range(len(self)):
            x, y, z = (f"{v:.2f}" for v in self.boxes.center[i].tolist())
            size = " ".join(f"{v:.2f}" for v in self.boxes.size[i].tolist())
            yaw = f"{math.degrees(float(self.boxes.yaw[i])):.0f}"
            table.add_row(
                self.classes[i], f"{self.scores[i]:.2f}", f"{self.distance[i]:.1f}", x, y, z, size, yaw
            )
        return table

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with one row per object; of several results: ``conversions.to_pandas(results)``."""
        from monolift.inference.conversions import to_pandas

        return to_pandas(self)

    def to_supervision(self) -> Any:
        """supervision.Detections of the 2D boxes, with centres, sizes and yaw in its ``data``."""
        from monolift.inference.conversions import to_supervision

        return to_supervision(self)

    def _repr_png_(self) -> bytes:
        """What a notebook shows for a result."""
        from monolift.inference.conversions import png

        return png(self)

    def _repr_html_(self) -> str:
        """What a notebook shows for a result: the drawn image and a table."""
        from monolift.inference.conversions import html_text

        return html_text(self)

    def show(self) -> None:
        """Open `plot` in the system's image viewer."""
        self.plot().show(title=self.name)

    def to_omni3d(self) -> str:
        """An Omni3D file of this one image, objects with "score": the conventions stand in ``data.omni3d``."""
        from monolift.data.formats.frames import Frame
        from monolift.data.formats.omni3d import omni3d_tables

        height, width = self.image.shape[1:]
        image = self.path or Path(f"{self.name}.png")
        frame = Frame(self.name, image, width, height, self.camera.matrix.numpy(), self._kitti_rows())
        return format_json(omni3d_tables([frame]))

    # -- as images and files ----------------------------------------------------------------------------------------

    def plot(self, steady: bool = False) -> Image.Image:
        """The image with its boxes, and meshes where the method gives shapes, and the scene from above.

        Args:
            steady: the scene from above has the same range for all images, as a video needs.
        """
        from monolift.render.draw.overlay import draw_result

        image = self.image
        if self.meshes:
            from monolift.render.draw.mesh_overlay import overlay_meshes

            named = [(m, name) for m, name in zip(self.meshes, self.classes, strict=True) if m is not None]
            meshes, names = [m for m, _ in named], [name for _, name in named]
            image = overlay_meshes(image, self.camera, meshes, names)
        relative = self.camera_speed is None
        return draw_result(image, self.camera, self.objects, relative=relative, steady=steady)

    def plot_bev(self) -> Image.Image:
        """The scene from above alone, forward is up."""
        from monolift.render.draw.birds_eye import birds_eye

        return birds_eye(self.camera, self.objects)

    def save_image(self, path: str | Path) -> None:
        """Writes `plot`, in the format of the suffix (.png, .jpg, ...)."""
        write_image(path, self.plot(), parents=True)

    def save_kitti(self, path: str | Path) -> None:
        """Writes `to_kitti`; no objects give an empty file, as the official evaluation expects."""
        write_atomically(path, self.to_kitti(), parents=True)

    def save_json(self, path: str | Path) -> None:
        write_atomically(path, self.to_json() + "\n", parents=True)

    def save_omni3d(self, path: str | Path) -> None:
        write_atomically(path, self.to_omni3d() + "\n", parents=True)

    def save_glb(self, path: str | Path) -> None:
        """Writes the objects as binary glTF, one node each: its mesh, or its box where the method gives no shape."""
        from monolift.render.box_mesh import box_meshes
        from monolift.render.glb import glb_bytes

        meshes = box_meshes(self.boxes)
        if self.meshes is not None:
            pairs = zip(self.meshes, meshes, strict=True)
            meshes = tuple(box if mesh is None else mesh for mesh, box in pairs)
        names = [
            f"{i} {name} {score:.2f}"
            for i, (name, score) in enumerate(zip(self.classes, self.scores, strict=True))
        ]
        write_atomically(path, glb_bytes(meshes, names), parents=True)


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
