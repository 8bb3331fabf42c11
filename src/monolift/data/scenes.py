"""Other views of the scene of an image: the right image of a stereo pair, or the frames before and after in a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from monolift.data.camera_check import CameraNumbers
from monolift.data.formats.kitti_format import read_calib, read_split
from monolift.data.kitti import checked_camera, find_image, read_camera, training_folder
from monolift.errors import InputError
from monolift.files.folders import find_file, listed, text_file
from monolift.files.images import IMAGE_SUFFIXES, image_size
from monolift.files.text import read_text, short_name
from monolift.geometry import Camera
from monolift.typing import Float, Tensor

SAME_LENS = 0.01
"""Share by which the intrinsics of two views may differ, at most: they are taken for the same."""


@dataclass(frozen=True)
class Scene:
    """An image and other views of what it shows, all of one size and with the same intrinsics.

    Attributes:
        image: of the target
        others: of the other views
        camera: of the target
        translation: (N, 3) metres from the target's camera frame to each other's; None where it is not known, as of a video
    """

    image: Path
    others: tuple[Path, ...]
    camera: Camera
    translation: Float[Tensor, "n 3"] | None

    @property
    def name(self) -> str:
        return self.image.stem


def stereo_scenes(root: str | Path, split: str | Path | Sequence[str] | None = None) -> list[Scene]:
    """The left images of a KITTI folder that have a right one: image_2 and image_3, P2 and P3 of calib.

    Raises:
        InputError: where there is no right image, or a calibration lacks P3.
    """
    root = training_folder(root)
    right = root / "image_3"
    if not right.is_dir():
        raise InputError(
            f"{right}: no such folder of right images, which KITTI offers beside the left ones: download it, or name pairs "
            "with --pairs"
        )
    names = list(read_split(split)) if isinstance(split, str | Path) else list(split or ())
    names = names or sorted(listed(right, IMAGE_SUFFIXES).by_stem())
    scenes = []
    for name in names:
        other = find_file(right, name, IMAGE_SUFFIXES)
        if other is None:
            continue
        file = text_file(root / "calib", name)
        matrices = read_calib(file).matrices
        if "P3" not in matrices:
            raise InputError(f"{file}: expected P3, the right camera's projection, besides P2, found none")
        image = find_image(root, name)
        cameras = []
        for key, view in (("P2", image), ("P3", other)):
            where = f"{short_name(file)}: {key}"
            numbers = CameraNumbers.of_projection(matrices[key].tolist(), where)
            cameras.append(checked_camera(numbers, image_size(view), where))
        scenes.append(_scene(image, (other,), cameras[0], cameras[1:]))
    if not scenes:
        raise InputError(f"{right}: no right image of the {len(names)} ids asked for")
    return scenes


def paired_scenes(table: str | Path) -> list[Scene]:
    """The pairs that a file names: two image files a line, left and right, counted from the file's folder.

    Each lies in an image folder of a KITTI folder, whose calib/ID.txt holds its camera as P2. Raises InputError for files that
    are not there and cameras that differ by more than their place.
    """
    table = Path(table)
    scenes = []
    for number, line in enumerate(read_text(table).splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2:
            raise InputError(
                f"{table}:{number}: expected two image files, left and right, got {len(words)} words"
            )
        files = [table.parent / word for word in words]
        for file in files:
            if not file.is_file():
                raise InputError(f"{table}:{number}: {file}: no such image")
        cameras = [read_camera(text_file(f.parent.parent / "calib", f.stem), *image_size(f)) for f in files]
        scenes.append(_scene(files[0], (files[1],), cameras[0], cameras[1:]))
    if not scenes:
        raise InputError(f"{table}: no pair of images in the file")
    return scenes


def video_scenes(root: str | Path, table: str | Path) -> list[Scene]:
    """The frames of a KITTI folder whose neighbours in time are there too.

    table: columns ``id sequence frame`` and perhaps others, named in the first line; frames of one sequence whose numbers
    differ by one are neighbours. Raises InputError for a table without these columns or without neighbours.
    """
    root, table = training_folder(root), Path(table)
    lines = [line.split() for line in read_text(table).splitlines() if line.strip()]
    head = lines[0] if lines else []
    columns = []
    for name in ("id", "sequence", "frame"):
        if name not in head:
            raise InputError(
                f"{table}:1: expected the columns id, sequence and frame, got {' '.join(head) or 'none'}"
            )
        columns.append(head.index(name))
    ids: dict[tuple[str, int], str] = {}
    for number, words in enumerate(lines[1:], 2):
        try:
            name, sequence, frame = (words[k] for k in columns)
            ids[sequence, int(frame)] = name
        except (IndexError, ValueError):
            raise InputError(f"{table}:{number}: expected id, sequence and a frame's number") from None
    scenes = []
    for place, name in sorted(ids.items()):
        around = [ids.get((place[0], place[1] + step)) for step in (-1, 1)]
        if None in around:
            continue
        image = find_image(root, name)
        camera = read_camera(text_file(root / "calib", name), *image_size(image))
        scenes.append(Scene(image, tuple(find_image(root, str(other)) for other in around), camera, None))
    if not scenes:
        raise InputError(f"{table}: no frame of {root} has a frame before and one after it")
    return scenes


def _scene(image: Path, others: tuple[Path, ...], camera: Camera, cameras: Sequence[Camera]) -> Scene:
    """Raises InputError where the cameras have other intrinsics or image sizes, or stand in one place."""
    translation = []
    for other, file in zip(cameras, others, strict=True):
        lens = [(float(getattr(camera, k)), float(getattr(other, k))) for k in ("fx", "fy", "cx", "cy")]
        apart = max(abs(a - b) for a, b in lens) / lens[0][0]
        if apart > SAME_LENS or (camera.width, camera.height) != (other.width, other.height):
            raise InputError(
                f"{file}: expected the size and the intrinsics of {image.name}, as of a rectified pair, got others"
            )
        way = other.translation - camera.translation
        if float(way.norm()) < 1e-3:
            raise InputError(f"{file}: its camera stands where that of {image.name} stands: no stereo pair")
        translation.append(way.float())
    return Scene(image, others, camera, torch.stack(translation))
