"""The data types of training and detection: `Sample` and `Objects`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch

from monolift.data.evidence import Evidence
from monolift.data.kitti_facts import LEVELS
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.rotations import matrix_from_yaw
from monolift.render.mesh import Mesh
from monolift.typing import Float, Int, Tensor, UInt8

EASY, MODERATE, HARD, OUTSIDE = 0, 1, 2, 3  # KITTI's levels; OUTSIDE is harder than hard


@dataclass(frozen=True)
class Sample:
    """One image, its camera and its labelled objects.

    Attributes:
        name: id for messages and result files, "000123"
        image: (3, H, W) uint8, RGB
        camera: of this very image (every transformation updates both)
        boxes: N 3D boxes, camera frame
        classes: N class names as in the file ("Car", "Van", ...), DontCare not among them
        boxes2d: (N, 4) x1, y1, x2, y2 pixels, as labelled: cut to the image
        truncation: (N,) share of the object outside the image, 0 to 1
        occlusion: (N,) 0 visible, 1 partly, 2 largely, 3 unknown
        ignore: (M, 4) regions whose content is not labelled (DontCare)
        depth: (H, W) z in metres of what each pixel shows, 0 where unknown; None where the data set has none
        instances: (H, W) which object each pixel shows: k + 1 for object k, 0 for everything else; None where unknown
        rotation: (N, 3, 3) cam_from_object of each box, of which ``boxes.yaw`` keeps the heading; None where all stand upright
        rescaled: whether augmentation has scaled or shifted it; the camera has followed
    """

    name: str
    image: UInt8[Tensor, "3 H W"]
    camera: Camera
    boxes: Boxes3D = field(default_factory=Boxes3D.empty)
    classes: tuple[str, ...] = ()
    boxes2d: Float[Tensor, "n 4"] = field(default_factory=lambda: torch.zeros(0, 4))
    truncation: Float[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0))
    occlusion: Int[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    ignore: Float[Tensor, "m 4"] = field(default_factory=lambda: torch.zeros(0, 4))
    depth: Float[Tensor, "H W"] | None = None
    instances: Int[Tensor, "H W"] | None = None
    rotation: Float[Tensor, "n 3 3"] | None = None
    rescaled: bool = False

    def __post_init__(self) -> None:
        n = len(self.boxes)
        counts = {k: len(getattr(self, k)) for k in ("classes", "boxes2d", "truncation", "occlusion")}
        if self.rotation is not None:
            counts["rotation"] = len(self.rotation)
        if any(count != n for count in counts.values()):
            raise ValueError(f"Sample {self.name}: {n} boxes, but {counts}")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.image.shape[-1], self.image.shape[-2]

    @property
    def rotations(self) -> Float[Tensor, "n 3 3"]:
        """Of each box, cam_from_object: `rotation`, or the yaw's."""
        return matrix_from_yaw(self.boxes.yaw) if self.rotation is None else self.rotation

    @property
    def objects(self) -> Objects:
        """The labelled objects with their 2D boxes."""
        return Objects.named(self.boxes, self.classes, boxes2d=self.boxes2d)

    @property
    def difficulty(self) -> Int[Tensor, " n"]:
        """KITTI's level of each object: the easiest whose limits on height, occlusion and truncation it meets."""
        height = self.boxes2d[:, 3] - self.boxes2d[:, 1]
        level = torch.full((len(self),), OUTSIDE, dtype=torch.long)
        for k, limits in reversed(list(enumerate(LEVELS))):
            fits = (
                (height > limits.min_height)
                & (self.occlusion <= limits.max_occlusion)
                & (self.truncation <= limits.max_truncation)
            )
            level[fits] = k
        return level

    def keep(self, mask: Tensor) -> Sample:
        """The sample with the objects of a boolean (N,) mask only."""
        instances = self.instances
        if instances is not None:
            number = torch.cat([mask.new_zeros(1), mask]).cumsum(0) * torch.cat([mask.new_zeros(1), mask])
            instances = number.to(instances.dtype)[instances.long()]
        return replace(
            self,
            boxes=self.boxes[mask],
            classes=tuple(c for c, k in zip(self.classes, mask.tolist(), strict=True) if k),
            boxes2d=self.boxes2d[mask],
            truncation=self.truncation[mask],
            occlusion=self.occlusion[mask],
            instances=instances,
            rotation=None if self.rotation is None else self.rotation[mask],
        )


Self = TypeVar("Self", bound="Objects")


@dataclass(frozen=True)
class Objects:
    """N objects of one camera frame: detections (with scores, best first) or labels. The one type for both, everywhere.

    Indexing by an integer, a slice, a mask or indices gives the objects chosen, as Objects; so does iteration, one at a
    time. Raises ValueError where the counts differ.

    Attributes:
        boxes: N 3D boxes, metres, camera frame
        scores: (N,) 0 to 1, of detections
        labels: (N,) index into ``names``
        boxes2d: (N, 4) x1, y1, x2, y2 pixels
        names: class names by label
        covariance: (N, 7, 7) of x, y, z, log length, log height, log width, yaw, where the method knows it
        meshes: N meshes, metres, camera frame, None for an object without one
        evidence: the predicted parameters of each box with uncertainties and residuals, where the method fits boxes
        tracks: (N,) ids from 1 that an object keeps through a video, where it was tracked
        velocity: (N, 3) m/s, camera frame, as seen from the camera, where it was tracked
    """

    boxes: Boxes3D = field(default_factory=Boxes3D.empty)
    scores: Float[Tensor, " n"] | None = None
    labels: Int[Tensor, " n"] | None = None
    boxes2d: Float[Tensor, "n 4"] | None = None
    names: tuple[str, ...] = ()
    covariance: Float[Tensor, "n 7 7"] | None = None
    meshes: tuple[Mesh | None, ...] | None = None
    evidence: Evidence | None = None
    tracks: Int[Tensor, " n"] | None = None
    velocity: Float[Tensor, "n 3"] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        counts = {name: len(value) for name, value in self._columns().items()}
        if any(count != n for count in counts.values()):
            raise ValueError(f"{type(self).__name__}: {n} boxes, but {counts}")

    @classmethod
    def named(cls: type[Self], boxes: Boxes3D, classes: Sequence[str], **columns: Any) -> Self:
        """Objects given each one's class name rather than labels."""
        names = tuple(dict.fromkeys(classes))
        labels = torch.tensor([names.index(name) for name in classes], dtype=torch.long)
        return cls(boxes=boxes, labels=labels, names=names, **columns)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Each object's class name."""
        return () if self.labels is None else tuple(self.names[k] for k in self.labels.tolist())

    def __iter__(self: Self) -> Iterator[Self]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self: Self, index: Any) -> Self:
        if isinstance(index, int):  # one object is N = 1, as everywhere
            index = [range(len(self))[index]]
        return replace(self, **self._chosen(index))

    def _chosen(self, index: Any) -> dict[str, Any]:
        """The fields of the objects chosen that differ from these."""
        chosen = {k: v[index] for k, v in self._columns().items() if k != "meshes"}
        if self.meshes is not None:
            order = torch.arange(len(self), device=self.boxes.center.device)[index].tolist()
            chosen["meshes"] = tuple(self.meshes[k] for k in order)
        return chosen

    def filter(self: Self, score: float | None = None, classes: Collection[str] | None = None) -> Self:
        """The objects of at least this score and of these classes, where either is given."""
        if score is not None:
            if self.scores is None:
                raise ValueError(
                    f"{type(self).__name__}: expected scores to compare with {score:g}, got none"
                )
            return self[self.scores >= score].filter(classes=classes)
        if classes is not None:
            wanted = [name in classes for name in self.classes]
            return self[torch.tensor(wanted, dtype=torch.bool, device=self.boxes.center.device)]
        return self

    def to(self: Self, *args: Any) -> Self:
        """Another device."""
        moved = {k: v.to(*args) for k, v in self._columns().items() if k != "meshes"}
        if self.meshes is not None:
            moved["meshes"] = tuple(None if mesh is None else mesh.to(*args) for mesh in self.meshes)
        return replace(self, **moved)

    def _columns(self) -> dict[str, Any]:
        """Every field that counts along N and is there; those of subclasses too."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        return {k: v for k, v in values.items() if v is not None}


Detections = Objects  # what a detector returns
