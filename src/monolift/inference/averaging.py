"""Test-time augmentation: one image detected at several zooms, and mirrored, and the detections averaged.

A network's errors differ from one zoom to the next, so their mean is smaller than each; and an object that is too small or too
large at one zoom is not at another. It takes as much more time as the views have more pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from monolift.augment.view import View
from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.methods.base import Detector, Prepared, in_source
from monolift.nn.roi import box_iou
from monolift.typing import Tensor, UInt8

MULTIPLE = 32  # pixels, of a network image's sides: the coarsest stride of every backbone
SMALLEST, LARGEST = 0.25, 4.0  # zoom
SAME = 0.5  # 2D IoU from which detections of two views are one object
NEAREST = 0.1  # metres, of a depth whose logarithm is taken


@dataclass(frozen=True)
class Averaging:
    """Views of one image whose detections are averaged.

    Attributes:
        zooms: sizes of the network image against the plain one
        flip: each view also mirrored.

    Raises:
        InputError: for zooms that cannot be used.
    """

    zooms: tuple[float, ...] = (0.8, 1.0, 1.3)
    flip: bool = False

    def __post_init__(self) -> None:
        fine = [z for z in self.zooms if SMALLEST <= z <= LARGEST]
        if not self.zooms or len(fine) < len(self.zooms):
            raise InputError(
                f"zooms: expected numbers from {SMALLEST:g} to {LARGEST:g}, got {', '.join(map(str, self.zooms)) or 'none'}"
            )

    @classmethod
    def of(cls, zooms: Sequence[float] | None, flip: bool) -> Averaging | None:
        """What a user's options ask for; None for one plain view."""
        if zooms is None:
            return cls((1.0,), flip) if flip else None
        return cls(tuple(float(z) for z in zooms), flip)

    def check(self, detector: Detector) -> None:
        """Raises InputError for a method whose detections cannot be averaged."""
        if not detector.averages:
            raise InputError(
                f"zooms and flip: {detector.method} gives shapes, which belong to one view; its detections are not averaged"
            )

    def looks(self, detector: Detector, image: UInt8[Tensor, "3 H W"], camera: Camera) -> list[Look]:
        """The views of one image. Raises InputError for a method whose detections cannot be averaged."""
        self.check(detector)
        height, width = image.shape[1:]
        plain = detector.view(width, height)
        found = []
        for mirrored in (False, True) if self.flip else (False,):
            pixels, own = (image.flip(-1), camera.after_mirror()) if mirrored else (image, camera)
            for zoom in self.zooms:
                view = zoomed(plain, zoom, width, height)
                prepared = Prepared(detector.normalise(view.image(pixels)), view.camera(own), view)
                found.append(Look(prepared, mirrored))
        return found


@dataclass(frozen=True)
class Look:
    """One view of an image as a network takes it, of the image's mirror image where ``mirrored``."""

    prepared: Prepared
    mirrored: bool = False

    def objects(self, found: Objects, width: int, height: int) -> Objects:
        """Detections of this view as the source image's, of this size: 2D boxes in its pixels, mirrored back."""
        found = in_source(found, self.prepared.view, width, height)
        if not self.mirrored:
            return found
        boxes2d = found.boxes2d
        if boxes2d is not None:
            last = width - 1
            boxes2d = torch.stack(
                [last - boxes2d[:, 2], boxes2d[:, 1], last - boxes2d[:, 0], boxes2d[:, 3]], 1
            )
        return replace(found, boxes=found.boxes.mirrored(), boxes2d=boxes2d)


def zoomed(plain: View, zoom: float, width: int, height: int) -> View:
    """A view of the whole image of this size at ``zoom`` times the scale of the plain one; at zoom 1 the plain one itself."""
    if zoom == 1:
        return plain
    scale = plain.scale * zoom
    sides = [MULTIPLE * max(1, math.ceil(side * scale / MULTIPLE - 0.3)) for side in (width, height)]
    left, top = ((round(side * scale) - out) // 2 for side, out in zip((width, height), sides, strict=True))
    return View(scale, left, top, *sides)


def average(views: Sequence[Objects]) -> Objects:
    """The mean of several views' detections of the same objects, best first; 2D boxes in pixels of one image.

    From the best detection on, each takes from every other view the one of its class that overlaps it most, and by more than
    `SAME`; what else overlaps it that much is dropped. All numbers are weighted by the scores. Depth is averaged in its
    logarithm, the rest of the centre as a ray, and the heading as a vector. The score is the mean over all views: one that
    misses the object counts as 0. Covariances and measurements belong to one view and are left out.
    """
    boxes = Boxes3D.cat([one.boxes for one in views])
    scores, labels, boxes2d = (
        torch.cat([getattr(one, name) for one in views]) for name in ("scores", "labels", "boxes2d")
    )
    view = np.repeat(np.arange(len(views)), [len(one) for one in views])
    group = torch.from_numpy(_groups(scores, labels, boxes2d, view))
    used = torch.nonzero(group >= 0).flatten()
    group, boxes, scores, boxes2d = group[used], boxes[used], scores[used], boxes2d[used]
    count = int(group.max()) + 1 if len(group) else 0

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, group, values)

    share = (scores / total(scores)[group].clamp_min(1e-9))[:, None]
    depth = boxes.center[:, 2:].clamp_min(NEAREST)
    center = total(share * boxes.center / depth) * torch.exp(total(share * depth.log()))
    sine, cosine = (total(share[:, 0] * f(boxes.yaw)) for f in (torch.sin, torch.cos))
    mean = Boxes3D(center, total(share * boxes.size), torch.atan2(sine, cosine))
    label = labels.new_zeros(count).index_copy_(0, group, labels[used])
    fused = Objects(mean, total(scores) / len(views), label, total(share * boxes2d), views[0].names)
    assert fused.scores is not None
    return fused[torch.argsort(fused.scores, descending=True, stable=True)]


def _groups(scores: Tensor, labels: Tensor, boxes2d: Tensor, view: np.ndarray) -> np.ndarray:
    """The object, from 0, that each detection belongs to; -1 for a duplicate. view: (N,) of each detection."""
    overlap = box_iou(boxes2d, boxes2d).numpy()
    same = (overlap > SAME) & (labels[:, None] == labels).numpy()
    group = np.full(len(view), -1)
    free = np.ones(len(view), bool)
    count = 0
    for best in torch.argsort(scores, descending=True, stable=True).tolist():
        if not free[best]:
            continue
        group[best] = count
        rivals = same[best] & free & (view != view[best])
        for other in np.unique(view[rivals]):
            own = np.flatnonzero(rivals & (view == other))
            group[own[overlap[best, own].argmax()]] = count
        free &= ~same[best] & (group < 0)
        count += 1
    return group
