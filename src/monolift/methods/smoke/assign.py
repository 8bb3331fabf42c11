"""Target assignment of SMOKE: heatmap, ignored regions, positive cells of the regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F

from monolift.data.kitti_facts import NEIGHBOURS
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera
from monolift.methods.base import focal_ratio
from monolift.methods.smoke.cells import STRIDE, columns_rows
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import SmokeConfig
from monolift.nn.heatmap import draw_gaussian, radius_centernet, radius_corrected
from monolift.typing import Float, Int, Tensor

MAX_REACH = 5  # cells, of the neighbourhood in which the regression is trained


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B images with N objects in all; there is no cap on N.

    heatmap, weight: (B, K, h, w), weight 0 where nothing is known
    image, cell, label: (N,) image's index in the batch, flat cell (row * w + column), class
    boxes: N boxes; boxes2d: (N, 4) network pixels; cameras: (B,)
    near_object, near_cell, near_weight: (M,) the cells that train the regression: index of the object, flat cell, and a weight;
    the weights of an object sum to 1 (as published, M = N and each object has its keypoint's cell only)
    names: for messages
    depth: (B, h, w) metres at the reference focal length of the nearest thing in a cell, 0 where unknown; None where no depth
    map is trained
    """

    heatmap: Float[Tensor, "b k h w"]
    weight: Float[Tensor, "b k h w"]
    image: Int[Tensor, " n"]
    cell: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    boxes: Boxes3D
    boxes2d: Float[Tensor, "n 4"]
    near_object: Int[Tensor, " m"]
    near_cell: Int[Tensor, " m"]
    near_weight: Float[Tensor, " m"]
    cameras: Camera
    names: tuple[str, ...]
    depth: Float[Tensor, "b h w"] | None = None

    def to(self, device: torch.device | str) -> Targets:
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        moved = {k: v.to(device, non_blocking=True) for k, v in parts.items() if v is not None}
        return replace(self, **moved)


def assign_targets(codec: SmokeCodec, samples: Sequence[Sample]) -> Targets:
    """Targets of samples that are network images of one size, sides multiples of 4."""
    w, h = (side // STRIDE for side in samples[0].size)
    heat = torch.zeros(len(samples), len(codec.config.classes), h, w)
    weight = torch.ones_like(heat)
    image, cell, label, rows, boxes2d = [], [], [], [], []
    for b, sample in enumerate(samples):
        drawn = _draw(codec, sample, heat[b], weight[b])
        if sample.rescaled and codec.config.quirks.rescaled_heatmap_only:
            continue
        for index, column, row, k in drawn:
            image.append(b)
            cell.append(row * w + column)
            label.append(k)
            rows.append(sample.boxes[index])
            boxes2d.append(sample.boxes2d[index])
    weight[heat == 1] = 1.0  # a labelled keypoint counts, whatever region it lies in
    objects = {
        "image": torch.tensor(image, dtype=torch.long),
        "cell": torch.tensor(cell, dtype=torch.long),
        "boxes2d": torch.stack(boxes2d) if boxes2d else torch.zeros(0, 4),
    }
    near_object, near_cell, near_weight = _neighbourhood(
        codec.config.neighbourhood, **objects, width=w, height=h
    )
    return Targets(
        heatmap=heat,
        weight=weight,
        **objects,
        label=torch.tensor(label, dtype=torch.long),
        boxes=Boxes3D.cat(rows) if rows else Boxes3D.empty(),
        near_object=near_object,
        near_cell=near_cell,
        near_weight=near_weight,
        cameras=Camera.stack([s.camera for s in samples]),
        names=tuple(s.name for s in samples),
        depth=_cell_depths(codec.config, samples, w, h) if codec.config.extensions.dense_depth else None,
    )


def _cell_depths(
    config: SmokeConfig, samples: Sequence[Sample], width: int, height: int
) -> Float[Tensor, "b h w"]:
    """The nearest known depth in each cell, metres at the reference focal length; 0 where none is known."""
    depths = torch.zeros(len(samples), height, width)
    for b, sample in enumerate(samples):
        if sample.depth is not None:
            inverse = torch.where(sample.depth > 0, 1 / sample.depth.clamp_min(0.1), 0.0)
            nearest = F.max_pool2d(inverse[None, None], STRIDE)[0, 0]
            metres = 1 / nearest.clamp_min(1e-3) / focal_ratio(sample.camera.fx, config.focal).to(nearest)
            depths[b] = torch.where(nearest > 0, metres, 0.0)
    return depths


def _draw(codec: SmokeCodec, sample: Sample, heat: Tensor, weight: Tensor) -> list[tuple[int, int, int, int]]:
    """Draws one sample's heatmap; returns (object, column, row, label) of the objects that it holds.

    Boxes are cut at 0.1 m from the camera before the rectangle of the Gaussian is measured, in every preset; the released code
    projects corners behind the camera to the other side. No labelled object of KITTI with its centre in the image has one.
    """
    config = codec.config
    camera = codec.camera(sample.camera)
    h, w = heat.shape[1:]
    if not config.quirks.unlabelled_background:
        for region in sample.ignore:
            _blank(weight, region)
    if not len(sample):
        return []
    points = codec.cells(sample.boxes, sample.camera)
    projected = (sample.boxes.projected(camera) / STRIDE).tolist()
    in_front = (camera.depth(sample.boxes.center) > 0.1).tolist()
    rule = radius_corrected if config.quirks.corrected_radius else radius_centernet
    kept = []
    for i, name in enumerate(sample.classes):
        if name not in config.classes:
            if not config.quirks.unlabelled_background:
                for k, own in enumerate(config.classes):
                    if name in NEIGHBOURS.get(own, ()):
                        _blank(weight[k : k + 1], sample.boxes2d[i])
            continue
        k = config.classes.index(name)
        box = sample.boxes2d[i]
        if float(box[3] - box[1]) < config.min_height:
            _blank(weight[k : k + 1], box)
            continue
        middle = [float(c) / STRIDE for c in (box[:2] + box[2:]) / 2]
        u, v = middle if config.quirks.center2d else points[i].tolist()
        if not (0 <= u < w and 0 <= v < h) or not in_front[i]:
            if config.quirks.drop_outside or not in_front[i]:
                continue
            u, v = middle
        column, row = min(max(int(u), 0), w - 1), min(max(int(v), 0), h - 1)
        x1, y1, x2, y2 = projected[i]
        if config.quirks.corrected_radius:
            x2, y2 = min(x2, w - 1), min(y2, h - 1)
        radius = max(0, int(rule(max(x2 - x1, 0.0), max(y2 - y1, 0.0))))
        draw_gaussian(heat[k], column, row, radius)
        kept.append((i, column, row, k))
    return kept


def _neighbourhood(
    share: float, image: Tensor, cell: Tensor, boxes2d: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Object, cell and weight of every cell that trains the regression: of those within ``share`` of the 2D box's half sides
    round each keypoint. A cell near two objects goes to the closer keypoint."""
    if not share or not len(cell):
        return torch.arange(len(cell)), cell, torch.ones(len(cell))
    key = columns_rows(cell, width)
    reach = (share * (boxes2d[:, 2:] - boxes2d[:, :2]) / STRIDE / 2).clamp(1, MAX_REACH)
    side = torch.arange(-MAX_REACH, MAX_REACH + 1)
    steps = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).view(-1, 2)  # (S, 2) column, row
    place = key[:, None] + steps  # (N, S, 2)
    inside = (steps.abs() <= reach[:, None]).all(-1)
    inside &= ((place >= 0) & (place < torch.tensor([width, height]))).all(-1)
    far = ((steps / reach[:, None]) ** 2).sum(-1)  # 0 at the keypoint's cell, 1 at the window's edge
    owner, step = torch.nonzero(inside, as_tuple=True)
    flat = place[owner, step, 1] * width + place[owner, step, 0]
    where = image[owner] * width * height + flat
    # smallest distance wins a cell; the keypoint's cell has distance 0 and always stays
    order = torch.argsort(far[owner, step], stable=True)
    _, first = np.unique(where[order].numpy(), return_index=True)
    chosen = order[torch.from_numpy(first)]
    owner, flat = owner[chosen], flat[chosen]
    weight = torch.exp(-2 * far[owner, step[chosen]])
    return owner, flat, weight / torch.zeros(len(cell)).index_add_(0, owner, weight)[owner]


def _blank(weight: Tensor, box: Tensor) -> None:
    """Sets the weight to 0, in place, inside a box in network pixels."""
    x1, y1, x2, y2 = (box / STRIDE).tolist()
    weight[:, math.floor(y1) : math.ceil(y2) + 1, math.floor(x1) : math.ceil(x2) + 1] = 0
