"""Target assignment of SS3D: class map, support regions, regression targets of each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.boxes import NEAR_PLANE
from monolift.methods.ss3d.codec import STRIDE, SS3DCodec
from monolift.methods.ss3d.config import SS3DConfig
from monolift.methods.ss3d.parameters import BOX, CORNERS, parameters_of_boxes
from monolift.typing import Bool, Float, Int, Tensor

BACKGROUND, IGNORE = 0, -1  # in the class map; class k of the configuration is k + 1
NEVER = ("Tram", "Misc", "Truck", "Person_sitting")  # ignored (author's code)


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B images with N objects that have M support cells in all.

    classes: (B, h, w) BACKGROUND, IGNORE or 1 + label
    image, cell, object: (M,) of each support cell: image in the batch, flat cell (row * w + column), object
    numbers: (M, 26) channels that the cell should show; known: (M, 26) whether it has to
    boxes, label: of the N objects; cameras: (B,); width: columns of the map; names: for messages
    """

    classes: Int[Tensor, "b h w"]
    image: Int[Tensor, " m"]
    cell: Int[Tensor, " m"]
    object: Int[Tensor, " m"]
    numbers: Float[Tensor, "m 26"]
    known: Bool[Tensor, "m 26"]
    boxes: Boxes3D
    label: Int[Tensor, " n"]
    cameras: Camera
    width: int
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Targets:
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("names", "width")}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in parts.items()})


def assign_targets(codec: SS3DCodec, samples: Sequence[Sample]) -> Targets:
    """Targets of samples that are network images of one size, sides multiples of 4."""
    w, h = (side // STRIDE for side in samples[0].size)
    classes = torch.full((len(samples), h, w), BACKGROUND)
    image, cell, owner, label, boxes, parameters, known = [], [], [], [], [], [], []
    count = 0
    for b, sample in enumerate(samples):
        labels = [_label(codec.config, sample, i) for i in range(len(sample))]
        owners = _paint(sample, labels, codec.config.support, classes[b])
        kept = [i for i, k in enumerate(labels) if k is not None and k >= 0]
        row, column = torch.nonzero(owners >= 0, as_tuple=True)
        place = torch.full((len(sample) + 1,), -1)
        place[kept] = torch.arange(count, count + len(kept))
        count += len(kept)
        cell.append(row * w + column)
        image.append(torch.full_like(row, b))
        owner.append(place[owners[row, column]])
        label.append(torch.tensor([labels[i] for i in kept], dtype=torch.long))
        boxes.append(sample.boxes[torch.tensor(kept, dtype=torch.long)])
        wanted, sure = _labelled_parameters(sample, codec.config.corner_reach)
        parameters.append(wanted[kept])
        known.append(sure[kept])
    cameras = Camera.stack([s.camera for s in samples])
    at, where, whose = torch.cat(image), torch.cat(cell), torch.cat(owner)
    wanted, sure = torch.cat(parameters), torch.cat(known)
    sure = codec.order.of_channels(sure, wanted)
    return Targets(
        classes=classes,
        image=at,
        cell=where,
        object=whose,
        numbers=codec.channels(wanted[whose], where, cameras[at], w),
        known=sure[whose],
        boxes=Boxes3D.cat(boxes),
        label=torch.cat(label),
        cameras=cameras,
        width=w,
        names=tuple(s.name for s in samples),
    )


def _label(config: SS3DConfig, sample: Sample, i: int) -> int | None:
    """Class of object i, -1 for one to be ignored, None for background."""
    name, known = sample.classes[i], config.classes
    if name == "Van" and name not in known:
        name = "Car"
    if name in known:
        truncated = float(sample.truncation[i]) > config.max_truncation
        return IGNORE if truncated else known.index(name)
    return IGNORE if name in NEVER else None


def _labelled_parameters(sample: Sample, reach: float) -> tuple[Tensor, Tensor]:
    """(N, 26) parameters of the labels and whether each is known. The 2D box is the labelled one, cut to the image.

    Corners at or behind the camera, or far outside the image, have no pixel worth learning.
    """
    camera, boxes = sample.camera, sample.boxes
    parameters = parameters_of_boxes(boxes, camera).to(boxes.center.dtype)
    parameters[:, BOX] = sample.boxes2d
    corners = parameters[:, CORNERS].unflatten(1, (8, 2))
    limit = corners.new_tensor(sample.size)
    near = (corners > -reach * limit) & (corners < (1 + reach) * limit)
    seen = (camera.depth(boxes.corners()) > NEAR_PLANE) & near.all(2)
    known = torch.ones(parameters.shape, dtype=torch.bool)
    known[:, CORNERS] = seen.repeat_interleave(2, 1)
    return torch.where(known, parameters, 0.0), known


def _paint(sample: Sample, labels: Sequence[int | None], support: float, classes: Tensor) -> Tensor:
    """Paints one image's class map in place; returns the object of each cell, (h, w), -1 for none.

    First every 2D box as "ignore", then the supports, so that no support is lost to a neighbour's surroundings; far objects
    first, so that the nearer one wins where supports overlap. An ignored object's support hides what is behind it.
    """
    owners = torch.full_like(classes, -1)
    for region in sample.ignore:
        classes[_cells(region, classes)] = IGNORE
    order = sample.boxes.center.norm(dim=1).argsort(descending=True, stable=True).tolist()
    order = [i for i in order if labels[i] is not None]
    for i in order:
        classes[_cells(sample.boxes2d[i], classes)] = IGNORE
    for i in order:
        middle = (sample.boxes2d[i, :2] + sample.boxes2d[i, 2:]) / 2
        half = (sample.boxes2d[i, 2:] - sample.boxes2d[i, :2]) / 2 * math.sqrt(support)
        cells = _cells(torch.cat([middle - half, middle + half]), classes)
        label = labels[i]
        if label is None or label == IGNORE:
            classes[cells], owners[cells] = IGNORE, -1
        else:
            classes[cells], owners[cells] = label + 1, i
    return owners


def _cells(box: Tensor, classes: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the cells whose pixel lies in a box; at least the one nearest to its middle (ours)."""
    x1, y1, x2, y2 = ((box - (STRIDE - 1) / 2) / STRIDE).tolist()

    def span(low: float, high: float, count: int) -> slice:
        first, last = math.ceil(low), math.floor(high)
        if first > last:
            first = last = round((low + high) / 2)
        return slice(min(max(first, 0), count - 1), min(max(last, 0), count - 1) + 1)

    return span(y1, y2, classes.shape[0]), span(x1, x2, classes.shape[1])
