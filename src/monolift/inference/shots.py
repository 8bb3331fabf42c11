"""Images with their cameras, read one at a time from files, folders' contents, videos, cameras and arrays."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monolift.data.cameras import CameraChoice, KnownCamera
from monolift.data.formats.boxes2d import Boxes2D, BoxFiles
from monolift.data.live import LiveSource
from monolift.data.sources import InputImage, frames, input_image, is_video, read_input_image
from monolift.errors import InputError
from monolift.inference.pipeline import newest


@dataclass(frozen=True)
class Shot:
    """An image with its camera: all that detection needs. read_seconds: what reading it took. boxes: 2D boxes to lift."""

    photo: InputImage
    camera: KnownCamera
    read_seconds: float = 0.0
    boxes: Boxes2D | None = None


@dataclass(frozen=True)
class Failed:
    """An image that could not be used. source: its file or name."""

    source: str
    error: Exception


def read_shots(
    items: Iterable[Any], choice: CameraChoice, limit: int | None = None
) -> Iterator[Shot | Failed]:
    """The images of files, videos and arrays, each with its camera, read when its turn comes."""
    for item in items:
        try:
            if has_frames(item):
                known = item if isinstance(item, LiveSource) else Path(item)
                one_by_one = newest(frames(item)) if isinstance(item, LiveSource) else frames(item)
                for frame in itertools.islice(one_by_one, limit):
                    yield Shot(frame, _camera(choice, frame, known.stem))  # one calibration for all
            else:
                yield read_shot(item, choice)
        except Exception as error:
            yield Failed(str(item) if is_path(item) or isinstance(item, LiveSource) else "image", error)


def with_boxes(shots: Iterator[Shot | Failed], boxes: BoxFiles | None) -> Iterator[Shot | Failed]:
    """The images with their 2D boxes, where there are such."""
    for shot in shots:
        if boxes is None or isinstance(shot, Failed):
            yield shot
            continue
        try:
            yield replace(shot, boxes=boxes.of(shot.photo.name))
        except InputError as error:
            yield Failed(str(shot.photo.path or shot.photo.name), error)


def has_frames(item: Any) -> bool:
    """Whether an item is a video, a camera or a stream."""
    return isinstance(item, LiveSource) or (is_path(item) and is_video(item))


def read_shot(source: Any, choice: CameraChoice) -> Shot:
    """One image of a file or in memory, with its camera and the seconds that reading it took."""
    start = time.perf_counter()
    photo = read_input_image(source) if is_path(source) else input_image(source)
    seconds = time.perf_counter() - start
    return Shot(photo, _camera(choice, photo, photo.name), seconds)


def _camera(choice: CameraChoice, photo: InputImage, name: str) -> KnownCamera:
    height, width = photo.image.shape[1:]
    return choice.for_image(name, width, height, photo.film_mm)


def is_path(source: Any) -> bool:
    """Whether a source is a path and not an image in memory."""
    return isinstance(source, (str, os.PathLike))


def holds_several(source: Any) -> bool:
    """Whether a path stands for more than one image: a folder, a video, a pattern."""
    if not is_path(source):
        return False
    path = Path(source)
    return path.is_dir() or is_video(path) or (not path.exists() and any(c in str(source) for c in "*?["))
