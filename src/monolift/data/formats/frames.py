"""Labelled images of any data set in one form, from which every other form is written.

A frame is an image's file, its projection and its objects as KITTI's columns. These can say that something is unknown, which
a sample cannot: COCO knows no cameras and no 3D boxes, Omni3D has objects without a reliable one.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monolift.data.camera_check import CameraNumbers, check_numbers
from monolift.data.formats.kitti_format import (
    KittiCalib,
    KittiLabels,
    format_calib,
    format_labels,
    read_calib,
    read_labels,
    read_split,
    write_split,
)
from monolift.data.formats.rotation_files import FOLDER as ROTATIONS
from monolift.data.formats.rotation_files import format_rotations, read_rotations
from monolift.data.kitti import find_image, labelled_ids, read_image, sample_from_labels, training_folder
from monolift.errors import InputError
from monolift.files.folders import check_new, partial_folder, text_file
from monolift.files.images import image_size
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.rotations import wrap

FloatArray = npt.NDArray[np.float64]

KITTI_CLASSES = (
    "Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare",
)  # fmt: skip
KITTI_SUFFIXES = (".png", ".jpg", ".jpeg")  # of images that readers of KITTI's folders look for
DECIMALS = 6  # micrometres: no digits in label files that only the arithmetic put there


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and what is labelled in it.

    Attributes:
        name: id in KITTI's folders
        image: the image's file; width, height: pixels.
        projection: (3, 4) K [I | t], pixels of points in metres, as KITTI's P2; None where the data set knows no camera.
        labels: KITTI's columns in the camera frame of ``projection``; -1, -1000 and -10 where there is no 3D box.
        group: what must not be torn apart when splitting, the drive or scene; "" where there is none.
        rotation: (N, 3, 3) cam_from_object by row of the labels, which keep a yaw alone; None where all boxes stand upright.
    """

    name: str
    image: Path
    width: int
    height: int
    projection: FloatArray | None
    labels: KittiLabels
    group: str = ""
    rotation: FloatArray | None = None


class FrameDataset(ABC):
    """A data set read frame by frame; indexing gives samples, image included.

    As a sample has no place for an object without a 3D box, such objects become regions to ignore.
    Subclasses set ``ids`` (names in order) and ``warnings`` (what the reader should know), and define `frame`.
    """

    ids: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """Frame ``index``, its image not yet read."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        frame = self.frame(range(len(self))[index])
        image = read_image(frame.image)
        check_size(frame, (image.shape[2], image.shape[1]))
        if frame.projection is None:
            raise InputError(
                f"{frame.name}: this data set knows no cameras: convert it with one to KITTI's format"
            )
        numbers = CameraNumbers.of_projection(frame.projection.tolist(), f"{frame.name}: camera")
        check_numbers(numbers, frame.width, frame.height, f"{frame.name}: camera")
        camera = Camera.from_matrix(frame.projection, frame.width, frame.height)
        return sample_from_labels(frame.name, image, camera, without_3d_ignored(frame.labels), frame.rotation)


class KittiFrames(FrameDataset):
    """The frames of a KITTI folder; arguments and errors as ``data.kitti.KittiDataset``."""

    def __init__(self, root: str | Path, split: str | Path | None = None) -> None:
        self.root = training_folder(root)
        self.ids = labelled_ids(self.root) if split is None else read_split(split)
        if not self.ids:
            raise InputError(f"{self.root / 'label_2'}: no label files: nothing to read")

    def frame(self, index: int) -> Frame:
        name = self.ids[index]
        image = find_image(self.root, name)
        width, height = image_size(image)
        projection = read_calib(text_file(self.root / "calib", name)).p2
        labels = read_labels(text_file(self.root / "label_2", name))
        leaning = self.root / ROTATIONS / f"{name}.txt"
        rotation = read_rotations(leaning, len(labels)) if leaning.is_file() else None
        return Frame(name, image, width, height, projection, labels, rotation=rotation)


def check_size(frame: Frame, size: tuple[int, int] | None = None) -> None:
    """Raises InputError where the image's file has another size than its annotations say, or cannot be read.

    Args:
        size: (width, height) of the upright image; from the file's header without it.
    """
    width, height = image_size(frame.image) if size is None else size
    if (width, height) != (frame.width, frame.height):
        raise InputError(
            f"{frame.image}: expected {frame.width} x {frame.height} pixels as its annotations say, "
            f"got {width} x {height}"
        )


def kitti_name(text: str) -> str:
    """A class name as KITTI's files can hold it: its own spelling where it is one of its classes, no white space."""
    name = "_".join(text.encode("utf-8", "replace").decode().split())  # JSON can hold halves of characters
    return next((known for known in KITTI_CLASSES if known.lower() == name.lower()), name)


def labels_from_columns(
    names: Sequence[str],
    boxes2d: Any,
    center: Any,
    size: Any,
    yaw: Any,
    truncation: Any,
    occlusion: Any,
    score: Any = None,
) -> KittiLabels:
    """KITTI's columns of N objects in this project's terms.

    Args:
        boxes2d: (N, 4) pixels
        center: (N, 3) geometric centre, NaN where there is no 3D box
        size: (N, 3) length, height, width
        yaw: (N,)
        truncation: (N,) 0 to 1 or -1
        occlusion: (N,) 0 to 3 or -1
        score: (N,) or None.
    """
    n = len(names)
    center, size = (np.asarray(v, np.float64).reshape(n, 3) for v in (center, size))
    yaw = np.asarray(yaw, np.float64).reshape(n)
    known = np.isfinite(center).all(1) & (size > 0).all(1)
    bottom = center + np.stack([np.zeros(n), size[:, 1] / 2, np.zeros(n)], 1)
    alpha = wrap(torch.from_numpy(yaw - np.arctan2(center[:, 0], center[:, 2]))).numpy()

    def column(values: Any, unknown: float) -> FloatArray:
        values = np.asarray(values, np.float64)
        chosen = np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, unknown)
        return np.asarray(np.round(chosen, DECIMALS))

    return KittiLabels(
        names=tuple(names),
        truncation=np.round(np.asarray(truncation, np.float64).reshape(n), DECIMALS),
        occlusion=np.asarray(occlusion, np.int64).reshape(n),
        alpha=column(alpha, -10),
        boxes2d=np.round(np.asarray(boxes2d, np.float64).reshape(n, 4), DECIMALS),
        size_hwl=column(size[:, [1, 2, 0]], -1),
        bottom=column(bottom, -1000),
        rotation_y=column(wrap(torch.from_numpy(yaw)).numpy(), -10),
        score=None if score is None else np.asarray(score, np.float64).reshape(n),
    )


def has_box3d(labels: KittiLabels) -> npt.NDArray[np.bool_]:
    """(N,) which rows have a 3D box; DontCare rows never do."""
    named = np.array([name.lower() != "dontcare" for name in labels.names], bool)
    return np.asarray(named & (labels.size_hwl > 0).all(1))


def geometry_of(labels: KittiLabels) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(N, 3) geometric centres, (N, 3) length, height, width, and (N,) yaws; NaN centres where there is no 3D box."""
    size = labels.size_hwl[:, [2, 0, 1]]
    center = labels.bottom - np.stack([np.zeros(len(size)), size[:, 1] / 2, np.zeros(len(size))], 1)
    return np.where(has_box3d(labels)[:, None], center, np.nan), size, labels.rotation_y


def boxes_of(labels: KittiLabels) -> Boxes3D:
    """The 3D boxes of the rows that have one, float64."""
    keep = has_box3d(labels)
    center, size, yaw = (torch.from_numpy(np.ascontiguousarray(v[keep])) for v in geometry_of(labels))
    return Boxes3D(center, size, yaw)


def without_3d_ignored(labels: KittiLabels) -> KittiLabels:
    """The same rows with objects that lack a 3D box as DontCare regions."""
    names = zip(labels.names, has_box3d(labels), strict=True)
    return replace(labels, names=tuple(name if known else "DontCare" for name, known in names))


def write_kitti(
    root: Path, frames: Iterable[Frame], advance: Callable[[Frame], None] = lambda _: None
) -> int:
    """Writes a KITTI folder: root/training/{image_2,label_2,calib}, root/ImageSets. Returns the number of frames.

    Of images with boxes that lean also root/training/rotation_2, see `data.formats.rotation_files`.

    Images are copied as they are. ImageSets/all.txt lists every id, and ImageSets/GROUP.txt those of each group, from
    which splits can be put together that do not tear a drive apart. The folder appears complete or not at all.
    Raises InputError for a folder that exists, a frame without camera, two of one name, and images that KITTI's
    readers do not look for.
    """
    check_new(root)
    groups: dict[str, list[str]] = {"all": []}
    with partial_folder(root) as partial:
        for name in ("image_2", "label_2", "calib"):
            (partial / "training" / name).mkdir(parents=True)
        for frame in frames:
            _write_frame(partial / "training", frame, set(groups["all"]))
            for group in filter(None, ("all", frame.group)):
                groups.setdefault(group, []).append(frame.name)
            advance(frame)
        (partial / "ImageSets").mkdir()
        for group, names in groups.items():
            write_split(partial / "ImageSets" / f"{group}.txt", names)
        if root.exists():
            root.rmdir()
    return len(groups["all"])


def _write_frame(training: Path, frame: Frame, taken: set[str]) -> None:
    if frame.name in taken:
        raise InputError(
            f"{frame.image}: a second image of the name {frame.name}: KITTI's folders need unique names"
        )
    if frame.projection is None:
        raise InputError(
            f"{frame.image}: no camera is known and KITTI's format needs one: give four intrinsics or a field of view"
        )
    suffix = frame.image.suffix.lower()
    if suffix not in KITTI_SUFFIXES:
        raise InputError(f"{frame.image}: expected an image that ends in {', '.join(KITTI_SUFFIXES)}")
    check_size(frame)
    shutil.copyfile(frame.image, training / "image_2" / (frame.name + suffix))
    # plain writes: the folder is brought to the disk as a whole when it is complete
    (training / "label_2" / f"{frame.name}.txt").write_bytes(format_labels(frame.labels).encode())
    if frame.rotation is not None:
        (training / ROTATIONS).mkdir(exist_ok=True)
        (training / ROTATIONS / f"{frame.name}.txt").write_bytes(format_rotations(frame.rotation).encode())
    calib = KittiCalib({"P2": frame.projection})
    (training / "calib" / f"{frame.name}.txt").write_bytes(format_calib(calib).encode())
