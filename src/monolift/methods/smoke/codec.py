"""SMOKE's parameterisation of a 3D box, both ways: one key point and eight numbers per object.

channel   meaning                                             box
0         d_z                                                 z = (mean + std d_z) f / f_ref            eq. 1
1, 2      offset of the projected centre from the cell        x, y through the camera                   eq. 2
3, 4, 5   d_l, d_h, d_w                                       size = reference exp(limit (2 sigmoid(d) - 1))  eq. 3
6, 7      cos alpha, -sin alpha (a vector of any length)      yaw = alpha + atan2(x, z)                 eq. 4
[8, 9]    (orientation="quaternion": 6 to 9 are w, x, y, z of the allocentric rotation)
then, not in the paper: 4 of the 2D box (centre offset and log size, cells), 1 log scale of the location's error

The sigmoid of eq. 3 is the released code's, exp(sigmoid(d) - 0.5), for limit 0.5. f / f_ref is ours: the same object seen
through a lens twice as long looks half as far, so the network can only ever tell z f_ref / f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from monolift.data.sample import Detections, Sample
from monolift.geometry import Boxes3D, Camera, yaw_from_alpha
from monolift.geometry.rotations import (
    matrix_from_quaternion,
    matrix_from_yaw,
    quaternion_from_matrix,
    yaw_from_matrix,
)
from monolift.methods.smoke.config import SmokeConfig
from monolift.nn.heatmap import draw_gaussian, find_peaks, gather, radius_centernet, radius_corrected
from monolift.nn.roi import batched_nms
from monolift.typing import Float, Int, Tensor

STRIDE = 4
MAX_REACH = 5  # cells, of the neighbourhood in which the regression is trained
SCORE_FLOOR = 0.01  # nothing below is worth lifting
# a labelled neighbour class looks like the class, but is not it and not background either (as in KITTI's evaluation)
NEIGHBOURS = {"Car": ("Van",), "Pedestrian": ("Person_sitting",)}


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B pictures with N objects in all; there is no cap on N.

    heatmap, weight: (B, K, h, w), weight 0 where nothing is known
    image, cell, label: (N,) picture's index in the batch, flat cell (row * w + column), class
    boxes: N boxes; boxes2d: (N, 4) network pixels; cameras: (B,)
    near_object, near_cell, near_weight: (M,) the cells that train the regression: index of the object, flat cell, and a weight;
    the weights of an object sum to 1 (as published, M = N and each object has its key cell only)
    names: for messages
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

    def to(self, device: torch.device | str) -> Targets:
        fixed = ("cameras", "names")
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in fixed}
        return replace(self, **moved)


@dataclass(frozen=True)
class Parts:
    """The eight numbers in words. offset: (N, 2) cells; depth: (N,) metres; size: (N, 3) metres; alpha: (N,) radians."""

    depth: Float[Tensor, " n"]
    offset: Float[Tensor, "n 2"]
    size: Float[Tensor, "n 3"]
    alpha: Float[Tensor, " n"]


class SmokeCodec:
    """encode: samples -> targets; decode: raw maps -> detections; ``numbers`` inverts ``parts``."""

    def __init__(self, config: SmokeConfig) -> None:
        self.config = config
        self.turn = 2 if config.orientation == "vector" else 4
        self.box2d_at = 6 + self.turn
        self.location_scale_at = self.box2d_at + 4 * config.boxes2d
        self.channels = self.location_scale_at + config.location_scale
        extra = self.channels - self.box2d_at
        self.heads = (self.box2d_at, extra) if extra else (self.box2d_at,)

    # -- the eight numbers ------------------------------------------------------------------------------------------

    def parts(self, numbers: Float[Tensor, "n c"], label: Int[Tensor, " n"], camera: Camera) -> Parts:
        """Channels of N cells to depth, offset, size and observation angle. ``camera``: one per object."""
        config = self.config
        depth = (config.depth_mean + config.depth_std * numbers[:, 0]) * self._lens(camera, numbers)
        reference = numbers.new_tensor(config.sizes)[label]
        size = reference * torch.exp(config.size_limit * (2 * torch.sigmoid(numbers[:, 3:6]) - 1))
        turn = numbers[:, 6 : 6 + self.turn]
        if config.orientation == "vector":
            alpha = torch.atan2(-turn[:, 1], turn[:, 0] + 1e-9)
        else:
            alpha = yaw_from_matrix(matrix_from_quaternion(turn))
        return Parts(depth, numbers[:, 1:3], size, alpha)

    def numbers(
        self, boxes: Boxes3D, cell: Int[Tensor, " n"], label: Int[Tensor, " n"], camera: Camera, width: int
    ) -> Float[Tensor, "n c"]:
        """The channels that stand for ``boxes`` when found at ``cell`` of a map of ``width`` columns: the inverse of lifting.

        A size beyond the limit of eq. 3 is held just inside it: the published limit loses 15 % of KITTI's pedestrians.
        """
        config = self.config
        camera = self._camera(camera)
        d_z = (boxes.center[:, 2] / self._lens(camera, boxes.center) - config.depth_mean) / config.depth_std
        offset = self._cells(camera.px_from_cam(boxes.center)) - _columns_rows(cell, width)
        reference = boxes.size.new_tensor(config.sizes)[label]
        share = torch.log(boxes.size / reference) / config.size_limit
        d_size = 2 * torch.atanh(share.clamp(-1 + 1e-6, 1 - 1e-6))  # 2 sigmoid(d) - 1 = tanh(d / 2)
        alpha = boxes.alpha
        if config.orientation == "vector":
            turn = torch.stack([torch.cos(alpha), -torch.sin(alpha)], 1)
        else:
            turn = quaternion_from_matrix(matrix_from_yaw(alpha))
        return torch.cat([d_z[:, None], offset, d_size, turn], 1)

    def center(
        self,
        offset: Float[Tensor, "n 2"],
        depth: Float[Tensor, " n"],
        cell: Int[Tensor, " n"],
        camera: Camera,
        width: int,
    ) -> Float[Tensor, "n 3"]:
        """Box centre in metres from its projection, cells, and its depth (eq. 2)."""
        px = (_columns_rows(cell, width).to(offset.dtype) + offset) * STRIDE
        return self._camera(camera).cam_from_px(px, depth)

    def lift(
        self,
        numbers: Float[Tensor, "n c"],
        cell: Int[Tensor, " n"],
        label: Int[Tensor, " n"],
        camera: Camera,
        width: int,
    ) -> Boxes3D:
        """N boxes from the channels at their cells."""
        parts = self.parts(numbers, label, camera)
        center = self.center(parts.offset, parts.depth, cell, camera, width)
        return Boxes3D(center, parts.size, yaw_from_alpha(parts.alpha, center))

    def boxes2d(
        self, numbers: Float[Tensor, "n c"], cell: Int[Tensor, " n"], width: int
    ) -> Float[Tensor, "n 4"]:
        """2D boxes, network pixels, of the four channels beyond the paper."""
        k = self.box2d_at
        middle = _columns_rows(cell, width).to(numbers.dtype) + numbers[:, k : k + 2]
        half = torch.exp(numbers[:, k + 2 : k + 4].clamp(-4, 6)) / 2
        return torch.cat([middle - half, middle + half], 1) * STRIDE

    def _cells(self, px: Tensor) -> Tensor:
        """Network pixels to cells. As in the released code, cell c is centred on pixel 4 c, not on 4 c + 1.5."""
        return px / STRIDE

    def _lens(self, camera: Camera, like: Tensor) -> Tensor | float:
        if not self.config.focal:
            return 1.0
        return (camera.fx / self.config.focal).to(device=like.device, dtype=like.dtype)

    def _camera(self, camera: Camera) -> Camera:
        """The released code knows K only."""
        return camera if self.config.full_camera else replace(camera, tx=0.0, ty=0.0, tz=0.0)

    # -- targets ----------------------------------------------------------------------------------------------------

    def encode(self, samples: Sequence[Sample]) -> Targets:
        """Targets of samples that are network pictures of one size, sides multiples of 4."""
        w, h = (side // STRIDE for side in samples[0].size)
        heat = torch.zeros(len(samples), len(self.config.classes), h, w)
        weight = torch.ones_like(heat)
        image, cell, label, rows, boxes2d = [], [], [], [], []
        for b, sample in enumerate(samples):
            kept = self._draw(sample, heat[b], weight[b])
            for index, column, row, k in kept:
                image.append(b)
                cell.append(row * w + column)
                label.append(k)
                rows.append(sample.boxes[index])
                boxes2d.append(sample.boxes2d[index])
        weight[heat == 1] = 1.0  # a labelled key point counts, whatever region it lies in
        objects = {
            "image": torch.tensor(image, dtype=torch.long),
            "cell": torch.tensor(cell, dtype=torch.long),
            "boxes2d": torch.stack(boxes2d) if boxes2d else torch.zeros(0, 4),
        }
        near_object, near_cell, near_weight = self._neighbours(**objects, width=w, height=h)
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
        )

    def _neighbours(
        self, image: Tensor, cell: Tensor, boxes2d: Tensor, width: int, height: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Object, cell and weight of every cell that trains the regression. A cell near two objects goes to the closer key."""
        if not self.config.neighbourhood or not len(cell):
            return torch.arange(len(cell)), cell, torch.ones(len(cell))
        key = _columns_rows(cell, width)
        reach = (self.config.neighbourhood * (boxes2d[:, 2:] - boxes2d[:, :2]) / STRIDE / 2).clamp(
            1, MAX_REACH
        )
        side = torch.arange(-MAX_REACH, MAX_REACH + 1)
        steps = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).view(-1, 2)  # (S, 2) column, row
        place = key[:, None] + steps  # (N, S, 2)
        inside = (steps.abs() <= reach[:, None]).all(-1)
        inside &= ((place >= 0) & (place < torch.tensor([width, height]))).all(-1)
        far = ((steps / reach[:, None]) ** 2).sum(-1)  # 0 at the key cell, 1 at the window's edge
        owner, step = torch.nonzero(inside, as_tuple=True)
        flat = place[owner, step, 1] * width + place[owner, step, 0]
        where = image[owner] * width * height + flat
        # smallest distance wins a cell; the key cell has distance 0 and always stays
        order = torch.argsort(far[owner, step], stable=True)
        _, first = np.unique(where[order].numpy(), return_index=True)
        chosen = order[torch.from_numpy(first)]
        owner, flat = owner[chosen], flat[chosen]
        weight = torch.exp(-2 * far[owner, step[chosen]])
        return owner, flat, weight / torch.zeros(len(cell)).index_add_(0, owner, weight)[owner]

    def _draw(self, sample: Sample, heat: Tensor, weight: Tensor) -> list[tuple[int, int, int, int]]:
        """Draws one sample's heatmap; returns (object, column, row, label) of the objects that train the regression."""
        config = self.config
        camera = self._camera(sample.camera)
        h, w = heat.shape[1:]
        if config.ignore_unlabelled:
            for region in sample.ignore:
                _blank(weight, region)
        if not len(sample):
            return []
        points = self._cells(camera.px_from_cam(sample.boxes.center))
        frames = (sample.boxes.projected(camera) / STRIDE).tolist()
        in_front = (camera.depth(sample.boxes.center) > 0.1).tolist()
        kept = []
        for i, name in enumerate(sample.classes):
            if name not in config.classes:
                if config.ignore_unlabelled:
                    for k, own in enumerate(config.classes):
                        if name in NEIGHBOURS.get(own, ()):
                            _blank(weight[k : k + 1], sample.boxes2d[i])
                continue
            k = config.classes.index(name)
            box = sample.boxes2d[i]
            if float(box[3] - box[1]) < config.min_height:
                _blank(weight[k : k + 1], box)
                continue
            u, v = points[i].tolist()
            if not (0 <= u < w and 0 <= v < h) or not in_front[i]:
                if not config.keep_outside or not in_front[i]:
                    continue
                u, v = (float(c) / STRIDE for c in (box[:2] + box[2:]) / 2)
            column, row = min(max(int(u), 0), w - 1), min(max(int(v), 0), h - 1)
            x1, y1, x2, y2 = frames[i]
            rule = radius_corrected if config.radius == "corrected" else radius_centernet
            radius = max(0, int(rule(max(x2 - x1, 0.0), max(y2 - y1, 0.0))))
            draw_gaussian(heat[k], column, row, radius)
            kept.append((i, column, row, k))
        return kept

    # -- detections -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        """Peaks of the heatmap, lifted. Any batch size, a camera each; ``cameras`` are those of the network pictures.

        Detections whose box comes out at or behind the camera are dropped: eq. 1 can give any number.
        """
        config = self.config
        w = raw["heatmap"].shape[3]
        scores, labels, cells = find_peaks(torch.sigmoid(raw["heatmap"]), config.top_k)
        found = []
        for b in range(len(scores)):
            keep = scores[b] > SCORE_FLOOR
            score, label, cell = scores[b][keep], labels[b][keep], cells[b][keep]
            numbers = gather(raw["regression"], torch.full_like(cell, b), cell)
            camera = cameras[b]
            boxes = self.lift(numbers, cell, label, camera, w)
            boxes2d = self._final_boxes2d(numbers, boxes, cell, w, camera)
            if config.location_scale:
                # a sure key point at an unsure place is a poor 3D box: the expected error lowers the rank
                score = score * torch.exp(-torch.exp(self.log_scale(numbers)))
            ahead = torch.nonzero(boxes.center[:, 2] > 0.5).flatten()
            one = Detections(boxes, score, label, boxes2d, tuple(config.classes))[ahead]
            if config.suppress:
                order = batched_nms(one.boxes2d, one.scores, one.labels, config.suppress)
            else:
                order = torch.argsort(one.scores, descending=True, stable=True)
            found.append(one[order])
        return found

    def log_scale(self, numbers: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Logarithm of the expected error of the location, metres: mean over the corners' coordinates."""
        return numbers[:, self.location_scale_at].clamp(-3, 4)

    def _final_boxes2d(
        self, numbers: Tensor, boxes: Boxes3D, cell: Tensor, width: int, camera: Camera
    ) -> Tensor:
        """The mean of the predicted 2D box and the rectangle of the projected corners, cut to the picture; a network without
        ``boxes2d`` has the second only."""
        camera = self._camera(camera)
        projected = boxes.projected(camera)
        if not self.config.boxes2d:
            return projected
        predicted = self.boxes2d(numbers, cell, width)
        if camera.width and camera.height:
            limit = predicted.new_tensor([camera.width - 1, camera.height - 1] * 2)
            predicted = torch.minimum(predicted.clamp_min(0), limit)
        return torch.lerp(predicted, projected, self.config.boxes2d_fusion)


def _columns_rows(cell: Tensor, width: int) -> Tensor:
    """(N, 2) integer column and row of flat cells. Integer division: true division would add column / width to the row."""
    return torch.stack([cell % width, torch.div(cell, width, rounding_mode="floor")], 1)


def _blank(weight: Tensor, box: Tensor) -> None:
    """Sets the weight to 0, in place, inside a box in network pixels."""
    x1, y1, x2, y2 = (box / STRIDE).tolist()
    weight[:, math.floor(y1) : math.ceil(y2) + 1, math.floor(x1) : math.ceil(x2) + 1] = 0
