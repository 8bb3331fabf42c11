"""ROI-10D's two stages at detection: regions by NMS on the anchors' boxes, then the branches' numbers to 3D detections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from monolift.data.sample import Detections
from monolift.geometry import Boxes3D, Camera, iou_bev
from monolift.methods.roi10d.assign import NEAREST, network_anchors
from monolift.methods.roi10d.codec import ROI10DCodec
from monolift.methods.roi10d.config import ROI10DConfig
from monolift.nn.retina import boxes_from_deltas
from monolift.nn.roi import batched_nms, greedy
from monolift.typing import Float, Int, Tensor

CONFIDENCE_METRES = 4.0  # expected corner error that divides a score by e


@dataclass(frozen=True, kw_only=True)
class LiftedDetections(Detections):
    """Detections with all of a region's ten numbers and more.

    Attributes:
        rotation: (N, 3, 3) cam_from_object, of which ``boxes.yaw`` keeps the heading
        shape: (N, C) unit codes of the shape space
        score2d: (N,) RetinaNet's probability, where ``scores`` also hold the expected corner error
    """

    rotation: Float[Tensor, "n 3 3"]
    shape: Float[Tensor, "n c"]
    score2d: Float[Tensor, " n"]


@dataclass(frozen=True)
class Regions:
    """N 2D detections of a batch after NMS.

    Attributes:
        boxes: (N, 4) pixels, clipped to the image; image, label: (N,) index in the batch and class
        score: (N,) probability
    """

    boxes: Float[Tensor, "n 4"]
    image: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    score: Float[Tensor, " n"]


@torch.no_grad()
def propose(config: ROI10DConfig, raw: dict[str, Tensor], cameras: Camera) -> Regions:
    """The first stage: 2D detections of a batch after NMS. cameras: of the network images."""
    anchors = network_anchors(config, cameras.width, cameras.height, raw["deltas"])
    found = []
    for b in range(len(raw["scores"])):
        p = torch.sigmoid(raw["scores"][b]).flatten()
        value, index = p.topk(min(config.candidates, len(p)))
        index = index[value > config.score]
        anchor = torch.div(index, len(config.classes), rounding_mode="floor")
        label = index % len(config.classes)
        boxes = cameras.clip(boxes_from_deltas(raw["deltas"][b, anchor], anchors[anchor]))
        kept = batched_nms(boxes, p[index], label, config.nms)[: config.top_k]
        found.append((boxes[kept], torch.full_like(kept, b), label[kept], p[index][kept]))
    return Regions(*(torch.cat(part) for part in zip(*found, strict=True)))


@torch.no_grad()
def decode_regions(
    codec: ROI10DCodec, numbers: dict[str, Tensor], regions: Regions, cameras: Camera, nms: bool = True
) -> list[LiftedDetections]:
    """The second stage: the branches' numbers for the regions to detections, per image of a batch, best first.

    nms: of boxes that overlap from above one is kept; not where each region is known to be an object.
    """
    lifted = codec.decode(numbers, regions.boxes, regions.label, cameras[regions.image])
    score = regions.score
    if "error" in numbers:  # a sure 2D box at an unsure place is a poor 3D box
        score = score * torch.exp(-expected_error(numbers["error"]) / CONFIDENCE_METRES)
    everything = LiftedDetections(
        boxes=lifted.boxes(),
        scores=score,
        labels=regions.label,
        boxes2d=regions.boxes,
        names=tuple(codec.config.classes),
        rotation=lifted.rotation,
        shape=unit_codes(numbers["shape"]),
        score2d=regions.score,
    )
    ahead = everything.boxes.center[:, 2] > NEAREST
    found = []
    for b in range(cameras.fx.shape[0]):
        mine = (regions.image == b) & ahead
        threshold = codec.config.nms_bev if nms else math.inf
        kept = nms_bev(everything.boxes[mine], score[mine], regions.label[mine], threshold)
        found.append(everything[mine][kept])
    return found


def expected_error(number: Float[Tensor, "n 1"]) -> Float[Tensor, " n"]:
    """Mean corner distance, metres, that the confidence branch expects; its number is the logarithm."""
    return torch.exp(number[:, 0].clamp(-3, 4))


def unit_codes(codes: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Codes of length 1; a zero code, which has no direction, becomes the first axis."""
    length = codes.norm(dim=1, keepdim=True)
    first = torch.nn.functional.one_hot(torch.zeros_like(codes[:, 0], dtype=torch.long), codes.shape[1]).to(
        codes
    )
    return torch.where(length > 1e-6, codes / length.clamp_min(1e-6), first)


def nms_bev(
    boxes: Boxes3D, scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], threshold: float
) -> Int[Tensor, " kept"]:
    """NMS by bird's-eye IoU within each class: indices kept, best first."""
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order]
    overlapping = iou_bev(ranked, ranked) > threshold
    return order[greedy(overlapping & (labels[order][:, None] == labels[order]))]
