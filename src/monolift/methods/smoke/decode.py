"""SMOKE's raw maps to detections: peaks, scores, 2D boxes, ranking."""

from __future__ import annotations

import torch

from monolift.data.sample import Detections
from monolift.geometry import Boxes3D, Camera
from monolift.methods.smoke.codec import SmokeCodec
from monolift.nn.heatmap import find_peaks, gather
from monolift.nn.roi import batched_nms, beaten_by_rival
from monolift.typing import Float, Int, Tensor

SCORE_FLOOR = 0.01  # nothing below is worth decoding; the released code writes what is above 0.25
RIVAL_IOU = 0.6  # two classes whose 2D boxes overlap by more are two names of one object
NEAREST = 0.5  # metres; a box whose centre is nearer is none. The released code keeps them, those behind the camera too


@torch.no_grad()
def decode_maps(codec: SmokeCodec, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
    """Detections of each image, best first. Any batch size; ``cameras`` are those of the network images.

    Detections whose box comes out at or behind the camera are dropped: eq. 1 can give any number.
    """
    config = codec.config
    w = raw["heatmap"].shape[3]
    scores, labels, cells = find_peaks(torch.sigmoid(raw["heatmap"]), config.top_k)
    found = []
    for b in range(len(scores)):
        keep = scores[b] > SCORE_FLOOR
        score, label, cell = scores[b][keep], labels[b][keep], cells[b][keep]
        numbers = gather(raw["regression"], torch.full_like(cell, b), cell)
        camera = cameras[b]
        boxes = codec.decode(numbers, cell, label, camera, w)
        boxes2d = _final_boxes2d(codec, numbers, boxes, cell, w, camera)
        if config.location_scale:
            # down-weight scores by the predicted localisation uncertainty
            score = score * torch.exp(-torch.exp(codec.log_scale(numbers)))
        ahead = torch.nonzero(boxes.center[:, 2] > NEAREST).flatten()
        boxes2d, score, label = boxes2d[ahead], score[ahead], label[ahead]
        if config.extensions.rival_score < 1:
            beaten = beaten_by_rival(boxes2d, score, label, RIVAL_IOU)
            score = torch.where(beaten, config.extensions.rival_score * score, score)
        one = Detections(boxes[ahead], score, label, boxes2d, config.classes)
        if config.nms:
            order = batched_nms(boxes2d, score, label, config.nms)
        else:
            order = torch.argsort(score, descending=True, stable=True)
        found.append(one[order])
    return found


def _final_boxes2d(
    codec: SmokeCodec,
    numbers: Float[Tensor, "n c"],
    boxes: Boxes3D,
    cell: Int[Tensor, " n"],
    width: int,
    camera: Camera,
) -> Float[Tensor, "n 4"]:
    """The mean of the predicted 2D box and the rectangle of the projected corners, cut to the network image; a network without
    ``boxes2d`` has the second only, whole: `in_source` cuts it to the source image, of which rows may be missing here."""
    projected = boxes.projected(codec.camera(camera), clip=codec.config.boxes2d)
    if not codec.config.boxes2d:
        return projected
    predicted = camera.clip(codec.boxes2d(numbers, cell, width))
    return torch.lerp(predicted, projected, codec.config.boxes2d_fusion)
