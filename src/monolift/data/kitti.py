"""KITTI's object data set as samples, and detections as KITTI's rows: the only place that converts its box layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monolift.data.camera_check import CameraNumbers, check_numbers
from monolift.data.formats.depth_maps import read_depth, read_numbers
from monolift.data.formats.kitti_format import KittiLabels, read_calib, read_labels, read_split
from monolift.data.formats.rotation_files import FOLDER as ROTATIONS
from monolift.data.formats.rotation_files import read_rotations
from monolift.data.sample import Detections, Sample
from monolift.errors import InputError
from monolift.files.folders import dataset_root, find_file, listed, text_file
from monolift.files.images import IMAGE_SUFFIXES, image_size, planes, read_rgb
from monolift.files.text import short_name
from monolift.geometry import Boxes3D, Camera
from monolift.typing import Tensor, UInt8

if TYPE_CHECKING:
    Samples = Sequence[Sample]
else:
    Samples = Sequence  # a run-time check of the items' type would read an image


class KittiDataset(Samples):
    """The samples of ``root`` (or ``root/training``): image_2, label_2, calib, and rotation_2 where it is there; read from disk
    at each access.

    Depth and instances are 16-bit images as ``monolift synth`` writes them, depth as KITTI does: metres times 256. An image
    without such a file has None there. Raises InputError where folders or files are missing or malformed.

    Args:
        split: a file of ids or the ids themselves; all labelled images without it
        depth: also ``Sample.depth`` from depth_2/ID.png, or from another folder of such files
        instances: also ``Sample.instances`` from instance_2/ID.png, or from another folder of such files; the numbers are
            those of the label file's rows, counted from 1
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Path | Sequence[str] | None = None,
        depth: bool | str | Path = False,
        instances: bool | str | Path = False,
    ) -> None:
        self.root = training_folder(root)
        self.depth = _map_folder(self.root / "depth_2", depth)
        self.instances = _map_folder(self.root / "instance_2", instances)
        if split is None:
            self.ids = labelled_ids(self.root)
        elif isinstance(split, str | Path):
            self.ids = tuple(read_split(split))
        else:
            self.ids = tuple(split)
        if not self.ids:
            raise InputError(f"{self.root / 'label_2'}: no label files: nothing to read")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        return read_sample(self.root, self.ids[index], depth=self.depth, instances=self.instances)

    @property
    def has_depth(self) -> bool:
        """Whether one of its images has a depth map."""
        return self.depth is not None and any(find_file(self.depth, name, (".png",)) for name in self.ids)

    def labels(self, index: int) -> Sample:
        """As ``self[index]`` without decoding the image: its header gives the size, its pixels are one black row."""
        return read_sample(self.root, self.ids[index], pixels=False)


def _map_folder(standard: Path, wanted: bool | str | Path) -> Path | None:
    """The folder of maps that was asked for: the standard one for True."""
    if wanted is False:
        return None
    folder = standard if wanted is True else Path(wanted)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of 16-bit PNG maps (monolift synth --depth --masks writes them)"
        )
    return folder


def training_folder(root: str | Path) -> Path:
    """``root`` or ``root/training``, whichever holds label_2, image_2 and calib."""
    return dataset_root(root)


def labelled_ids(root: str | Path) -> tuple[str, ...]:
    """The ids of the label files below ``root``, in order; hidden files and other strays are none."""
    return tuple(sorted(listed(Path(root) / "label_2", (".txt",)).by_stem()))


def find_image(root: str | Path, name: str) -> Path:
    """The image of an id, its suffix in any case. Raises InputError where there is none."""
    path = find_file(Path(root) / "image_2", name, IMAGE_SUFFIXES)
    if path is None:
        raise InputError(f"{Path(root) / 'image_2' / name}: no image ({', '.join(IMAGE_SUFFIXES)})")
    return path


def read_image(path: str | Path) -> UInt8[Tensor, "3 H W"]:
    """RGB, uint8, upright. Raises InputError as `monolift.files.images.read_rgb`."""
    return torch.from_numpy(planes(read_rgb(path).pixels))


def read_camera(path: str | Path, width: int, height: int) -> Camera:
    """The image's camera from a calib file: the whole of P2. Raises InputError where it does not fit an image of this size."""
    return checked_camera(read_camera_numbers(path), (width, height), short_name(path))


def checked_camera(numbers: CameraNumbers, size: tuple[int, int], where: str) -> Camera:
    """The camera of an image of ``size`` (width, height).

    Raises:
        InputError: beginning with ``where``, for a camera that does not fit the image.
    """
    check_numbers(numbers, *size, where)
    return Camera(numbers.fx, numbers.fy, numbers.cx, numbers.cy, *numbers.translation, *size)


def read_camera_numbers(path: str | Path) -> CameraNumbers:
    """P2 of a calib file as plain numbers. Raises InputError naming the file."""
    return CameraNumbers.of_projection(read_calib(path).p2.tolist(), f"{short_name(path)}: P2")


def read_sample(
    root: str | Path,
    name: str,
    pixels: bool = True,
    depth: str | Path | None = None,
    instances: str | Path | None = None,
) -> Sample:
    """Image, camera and labels of one id. Without ``pixels`` only the image's size is read.

    depth, instances: folders with a 16-bit map ID.png of the image's size, see `KittiDataset`.
    """
    root = Path(root)
    path = find_image(root, name)
    if pixels:
        image = read_image(path)
    else:
        width, height = image_size(path)
        image = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, height, width)
    camera = read_camera(text_file(root / "calib", name), image.shape[2], image.shape[1])
    labels = read_labels(text_file(root / "label_2", name))
    leaning = root / ROTATIONS / f"{name}.txt"
    rotation = read_rotations(leaning, len(labels)) if leaning.is_file() else None
    sample = sample_from_labels(name, image, camera, labels, rotation)
    if depth is not None and (file := find_file(depth, name, (".png",))):
        sample = replace(sample, depth=_fitting(file, read_depth(file), sample))
    if instances is not None and (file := find_file(instances, name, (".png",))):
        rows = _fitting(file, read_numbers(file), sample)
        sample = replace(sample, instances=_objects_of_rows(file, rows, labels))
    return sample


def _fitting(path: Path, values: Tensor, sample: Sample) -> Tensor:
    width, height = sample.size
    if values.shape != (height, width):
        found = f"{values.shape[1]} x {values.shape[0]}"
        raise InputError(f"{path}: is {found}, but its image is {width} x {height}")
    return values


def _objects_of_rows(path: Path, rows: Tensor, labels: KittiLabels) -> Tensor:
    """Numbers of label rows, 1 for the first, as numbers of objects: DontCare rows are none."""
    if len(labels) < int(rows.max()):
        raise InputError(
            f"{path}: has object {int(rows.max())}, but the label file only {len(labels)} rows: "
            "expected the number of the object's row, counted from 1"
        )
    known = torch.tensor([0] + [n.lower() != "dontcare" for n in labels.names])
    return (known.cumsum(0) * known)[rows]


def sample_from_labels(
    name: str,
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    labels: KittiLabels,
    rotation: np.ndarray | None = None,
) -> Sample:
    """KITTI's rows (bottom centre; h, w, l) to a sample (geometric centre; l, h, w).

    DontCare rows become regions, and so do objects without a 3D box (sizes of -1), which converted data sets have.
    rotation: (rows, 3, 3) cam_from_object, of boxes that lean.
    """
    known = labels.boxed
    h, w, length = labels.size_hwl[known].T
    center = labels.bottom[known].copy()
    center[:, 1] -= h / 2
    size = np.stack([length, h, w], 1)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).float()

    return Sample(
        name=name,
        image=image,
        camera=camera,
        boxes=Boxes3D(tensor(center), tensor(size), tensor(labels.rotation_y[known])),
        classes=tuple(n for n, k in zip(labels.names, known, strict=True) if k),
        boxes2d=tensor(labels.boxes2d[known]),
        truncation=tensor(labels.truncation[known]),
        occlusion=torch.from_numpy(labels.occlusion[known]).long(),
        ignore=tensor(labels.boxes2d[~known]),
        rotation=None if rotation is None else tensor(rotation[known]),
    )


def labels_from_detections(detections: Detections, classes: Sequence[str]) -> KittiLabels:
    """Result rows of one image, ready for ``kitti_format.write_labels``; truncation and occlusion are -1, unknown."""
    found = replace(detections, boxes=detections.boxes.to("cpu", torch.float64)).to("cpu")
    length, h, w = found.boxes.size.numpy().T
    n = len(found)
    return KittiLabels(
        names=() if found.labels is None else tuple(classes[k] for k in found.labels.tolist()),
        truncation=np.full(n, -1.0),
        occlusion=np.full(n, -1),
        alpha=found.boxes.alpha.numpy(),
        boxes2d=np.zeros((n, 4)) if found.boxes2d is None else found.boxes2d.double().numpy(),
        size_hwl=np.stack([h, w, length], 1),
        bottom=found.boxes.bottom.numpy(),
        rotation_y=found.boxes.yaw.numpy(),
        score=None if found.scores is None else found.scores.double().numpy(),
    )
