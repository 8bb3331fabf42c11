"""From the files of one image to the observations of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from monolift.autolabel.job import Selection
from monolift.data.formats.depth_maps import SUFFIXES, checked_depth, find_depth, read_numbers
from monolift.data.formats.instances import BACKGROUND, OTHER, Instances
from monolift.data.formats.masks import MaskSource
from monolift.data.kitti import find_image, read_camera, read_image
from monolift.errors import InputError
from monolift.files.folders import listed, text_file
from monolift.files.renamed import renamed
from monolift.geometry import Camera
from monolift.methods.monodr import Observation
from monolift.typing import Bool, Float, Int, Tensor, UInt8


@dataclass(frozen=True)
class CalibratedImage:
    """An image with its camera, the input of mask and depth models."""

    name: str
    image: UInt8[Tensor, "3 H W"]
    camera: Camera

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return self.image.shape[2], self.image.shape[1]


@runtime_checkable
class Masks(Protocol):
    """Where instance masks come from."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Images that it knows; None: any."""

    def find(self, photo: CalibratedImage) -> Instances:
        """The objects of an image. Raises InputError where they cannot be had."""


@runtime_checkable
class Depth(Protocol):
    """Where depth maps come from."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Images that it knows; None: any."""

    def find(self, photo: CalibratedImage) -> Float[Tensor, "H W"]:
        """z of each pixel, metres, 0 where unknown. Raises InputError where it cannot be had."""


class MaskFiles:
    """Masks from files."""

    def __init__(self, source: MaskSource) -> None:
        self.source = source
        self.names: tuple[str, ...] | None = source.names

    def find(self, photo: CalibratedImage) -> Instances:
        return self.source.read(photo.name, photo.size)


class DepthFiles:
    """Depth maps from a folder of files named like the images."""

    def __init__(self, folder: str | Path, scale: float | None = None) -> None:
        self.folder, self.scale = Path(folder), scale
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder of depth maps")
        self.names: tuple[str, ...] | None = tuple(sorted(listed(self.folder, SUFFIXES).by_stem()))

    def find(self, photo: CalibratedImage) -> Float[Tensor, "H W"]:
        return checked_depth(find_depth(self.folder, photo.name), photo.size, photo.camera, self.scale)


class ForegroundFiles:
    """Semantic segmentations from a folder of NAME.png: not 0 where a pixel shows an object of the classes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder of semantic masks")

    def find(self, photo: CalibratedImage) -> Bool[Tensor, "H W"]:
        """Foreground pixels. Raises InputError for a file that is missing, unreadable or of another size."""
        path = self.folder / f"{photo.name}.png"
        values = read_numbers(path)
        width, height = photo.size
        if tuple(values.shape) != (height, width):
            raise InputError(
                f"{path}: expected {width} x {height} pixels, as the image has, got {values.shape[1]} x {values.shape[0]}"
            )
        return values != 0


@dataclass(frozen=True)
class View:
    """An image and its objects that are fitted.

    Attributes:
        observations: one per object
        ids: their names in the masks' file
        dropped: (id, why) of objects that are not fitted
    """

    photo: CalibratedImage
    observations: tuple[Observation, ...]
    ids: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]


def read_calibrated(root: Path, name: str) -> CalibratedImage:
    """Raises InputError for an image or calibration that is missing or broken."""
    image = read_image(find_image(root, name))
    return CalibratedImage(
        name, image, read_camera(text_file(root / "calib", name), image.shape[2], image.shape[1])
    )


def observe(
    photo: CalibratedImage,
    masks: Masks,
    depth: Depth,
    selection: Selection,
    foreground: ForegroundFiles | None = None,
) -> View:
    """The image's objects, each with its three-state mask. Raises InputError where masks or depth cannot be had.

    foreground: a semantic segmentation that overrules the masks: what it does not hold is background, what it holds beyond the
    masks is another object's.
    """
    instances = masks.find(photo)
    metres = depth.find(photo)
    boxes = instances.boxes2d if selection.box == "file" else instances.mask_boxes()
    pixels = instances.pixels.tolist()
    semantic = None if foreground is None else foreground.find(photo)
    chosen, dropped = [], list(instances.dropped)
    for k, name in enumerate(instances.ids):
        reason = _unfit(instances, k, pixels[k], float(boxes[k, 3] - boxes[k, 1]), selection)
        if reason is None:
            chosen.append(k)
        else:
            dropped.append((name, reason))
    observations = tuple(
        Observation(
            image=photo.image,
            camera=photo.camera,
            mask=_divided(instances.three_states(k), semantic),
            depth=metres,
            box2d=boxes[k],
            score=float(instances.scores[k]),
            class_name=instances.classes[k],
        )
        for k in chosen
    )
    return View(photo, observations, tuple(instances.ids[k] for k in chosen), tuple(dropped))


def _divided(mask: Int[Tensor, "H W"], semantic: Bool[Tensor, "H W"] | None) -> Int[Tensor, "H W"]:
    """A three-state mask with foreground and background as the semantic segmentation has them."""
    if semantic is None:
        return mask
    beyond = torch.where(mask == BACKGROUND, OTHER, mask)
    return torch.where(semantic, beyond, BACKGROUND).to(mask.dtype)


def _unfit(instances: Instances, k: int, pixels: int, height: float, selection: Selection) -> str | None:
    """Why object k is not fitted; None if it is."""
    if instances.classes[k] not in selection.classes:
        return f"class {instances.classes[k]}"
    if float(instances.scores[k]) < selection.score:
        return f"score below {selection.score:g}"
    if height < selection.min_height:
        return f"lower than {selection.min_height:g} pixels"
    return f"fewer than {selection.min_pixels} pixels" if pixels < selection.min_pixels else None


__getattr__ = renamed(__name__, Photo="CalibratedImage", read_photo="read_calibrated")
