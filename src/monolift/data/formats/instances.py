"""The masks of one image as one map of object numbers with a row per object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monolift.errors import InputError
from monolift.files.json_text import numbers
from monolift.typing import Float, Int, Tensor

OWN, BACKGROUND, OTHER = 1, 0, -1
HALF_PIXEL = 0.5


@dataclass(frozen=True)
class Instances:
    """The N objects of one image that have a mask.

    Attributes:
        map: (H, W) which object each pixel shows: k + 1 for object k, 0 for none
        boxes2d: (N, 4) x1, y1, x2, y2 in pixels, the detector's; those round the masks where it gives none
        scores: (N,) the detector's, 0 to 1; 1 where it gives none
        classes: N names in KITTI's spelling
        ids: N names of the objects in their file, for messages and results
        dropped: (id, why) of objects in the file that have no pixel
    """

    map: Int[Tensor, "H W"]
    boxes2d: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> Int[Tensor, " n"]:
        """How many pixels each object has."""
        return torch.bincount(self.map.flatten(), minlength=len(self) + 1)[1:]

    def three_states(self, k: int) -> Int[Tensor, "H W"]:
        """int8: 1 where object k is, -1 where another object is (behind which k may go on), 0 for all else."""
        own = self.map == k + 1
        return torch.where(own, OWN, torch.where(self.map > 0, OTHER, BACKGROUND)).to(torch.int8)

    def mask_boxes(self) -> Float[Tensor, "n 4"]:
        """Bounding boxes of the masks' pixels, from edge to edge: half a pixel beyond the outermost centres."""
        boxes = torch.zeros(len(self), 4)
        for k in range(len(self)):
            rows, columns = (self.map == k + 1).nonzero(as_tuple=True)
            low, high = (torch.stack([f(columns), f(rows)]) for f in (torch.min, torch.max))
            boxes[k] = torch.cat([low - HALF_PIXEL, high + HALF_PIXEL])
        return boxes


@dataclass(frozen=True)
class Mask:
    """One object as read: its mask (H, W) and what its file states about it."""

    id: str
    mask: npt.NDArray[np.bool_]
    box: list[float] | None = None
    score: float | None = None
    class_name: str = "Car"


def merge(found: Sequence[Mask], size: tuple[int, int], where: str) -> Instances:
    """Objects painted into one map, the best last; what has no pixel of its own left is dropped."""
    width, height = size
    areas = [int(f.mask.sum()) for f in found]
    for item in found:
        if item.mask.shape != (height, width):
            got = f"{item.mask.shape[1]} x {item.mask.shape[0]}"
            raise InputError(f"{where}: the masks are {got}, but the image is {width} x {height}")
    painted = np.zeros((height, width), np.int64)
    # of equal scores the smaller mask is the one in front more often
    for k in sorted(range(len(found)), key=lambda k: (_score(found[k]), -areas[k])):
        painted[found[k].mask] = k + 1
    left = np.bincount(painted.ravel(), minlength=len(found) + 1)[1:] > 0
    kept = [f for f, seen in zip(found, left, strict=True) if seen]
    dropped = [
        (f.id, "covered by masks of better score" if area else "no mask")
        for f, area, seen in zip(found, areas, left, strict=True)
        if not seen
    ]
    number = np.concatenate([[0], np.cumsum(left) * left])
    instances = Instances(
        map=torch.from_numpy(number[painted]),
        boxes2d=torch.zeros(len(kept), 4),
        scores=torch.tensor([_score(f) for f in kept], dtype=torch.float32),
        classes=tuple(f.class_name for f in kept),
        ids=tuple(f.id for f in kept),
        dropped=tuple(dropped),
    )
    boxes = instances.mask_boxes()
    for k, item in enumerate(kept):
        if item.box is not None:
            boxes[k] = torch.tensor(item.box)
    return replace(instances, boxes2d=boxes)


def instances_of(
    masks: npt.NDArray[np.bool_],
    boxes2d: npt.NDArray[np.floating],
    scores: npt.NDArray[np.floating],
    classes: Sequence[str],
    where: str,
) -> Instances:
    """What a model found in an image: masks (N, H, W), boxes2d (N, 4), scores (N,); `where` begins messages.

    Raises:
        InputError: for scores outside 0 to 1 and for boxes without extent.
    """
    rows = zip(boxes2d.tolist(), scores.tolist(), strict=True)
    checked = [score_and_box({"box": b, "score": s}, f"{where}: object {k}") for k, (b, s) in enumerate(rows)]
    found = [
        Mask(str(k), mask, box, score, name)
        for k, (mask, (score, box), name) in enumerate(zip(masks, checked, classes, strict=True))
    ]
    return merge(found, (masks.shape[2], masks.shape[1]), where)


def _score(found: Mask) -> float:
    return 1.0 if found.score is None else found.score


def score_and_box(row: Mapping[str, Any], where: str) -> tuple[float | None, list[float] | None]:
    """Score and x1, y1, x2, y2 of a row with "score" and "box", either of which may be missing."""
    score = numbers(row["score"], 1, f"{where}: score")[0] if row.get("score") is not None else None
    if score is not None and not 0 <= score <= 1:
        raise InputError(f"{where}: score: expected a number from 0 to 1, got {score:g}")
    box = numbers(row["box"], 4, f"{where}: box") if row.get("box") is not None else None
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"{where}: box: expected x1 < x2 and y1 < y2, got {box}")
    return score, box
