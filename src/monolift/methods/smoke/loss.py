"""SMOKE's losses: penalty-reduced focal on the heatmap, L1 on the eight corners, disentangled (section 4.3).

The box is built three times, each time with one group of predictions and the labels of the others, and compared corner by
corner: every group is trained by what it alone does to the box, in metres, and no weights between groups are needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monolift.geometry import Boxes3D, yaw_from_alpha
from monolift.methods.smoke.assign import Targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.nn.heatmap import gather
from monolift.nn.losses import generalized_iou_loss, heatmap_focal, laplace_nll
from monolift.typing import Tensor

BOX2D_WEIGHT = 1.0


def smoke_loss(codec: SmokeCodec, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Named scalars; "total" is minimised. A batch without objects has regression losses of zero, with a gradient."""
    config = codec.config
    losses = {"heatmap": heatmap_focal(raw["heatmap"], targets.heatmap, targets.weight)}
    width = raw["heatmap"].shape[3]
    near, weight = targets.near_object, targets.near_weight
    numbers = gather(raw["regression"], targets.image[near], targets.near_cell)
    objects = max(len(targets.boxes), 1)
    share = 1.0 if config.quirks.summed_regression else 1 / objects
    for name, error in corner_losses(codec, numbers, targets, width).items():
        if name == "location" and config.location_scale:
            losses[name] = share * (weight * laplace_nll(error, codec.log_scale(numbers))).sum()
        else:
            losses[name] = config.regression_weight * share * (weight * error).sum()
    if config.direction_weight and not config.quirks.quaternion:
        alpha = targets.boxes.alpha[near]
        error = (numbers[:, 6:8] - torch.stack([torch.cos(alpha), -torch.sin(alpha)], 1)).abs().sum(1)
        losses["direction"] = config.direction_weight * (weight * error).sum() / objects
    if config.boxes2d:
        predicted = codec.boxes2d(numbers, targets.near_cell, width)
        error = generalized_iou_loss(predicted, targets.boxes2d[near])
        losses["box2d"] = BOX2D_WEIGHT * (weight * error).sum() / objects
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses


def corner_losses(codec: SmokeCodec, numbers: Tensor, targets: Targets, width: int) -> dict[str, Tensor]:
    """Mean corner error, (M,) metres, of each group, or of the whole box in the ablations.

    numbers: (M, C) channels at ``targets.near_cell``.
    """
    config, near = codec.config, targets.near_object
    truth = targets.boxes[near]
    camera = targets.cameras[targets.image[near]]
    parts = codec.parts(numbers, targets.label[near], camera)
    center = codec.center(parts.offset, parts.depth, targets.near_cell, camera, width)
    if config.quirks.regression != "disentangled":
        whole = Boxes3D(center, parts.size, yaw_from_alpha(parts.alpha, center))
        return {"corners": _corner_error(whole, truth, smooth=config.quirks.regression == "smooth_l1")}
    location = center
    if config.quirks.height_leak:
        # the released code puts the bottom half a *predicted* height below the centre, then builds the labelled box on it
        down = torch.zeros_like(center)
        down[:, 1] = (parts.size[:, 1] - truth.size[:, 1]) / 2
        location = center + down
    groups = {
        "orientation": Boxes3D(truth.center, truth.size, yaw_from_alpha(parts.alpha, truth.center)),
        "size": Boxes3D(truth.center, parts.size, truth.yaw),
        "location": Boxes3D(location, truth.size, truth.yaw),
    }
    return {name: _corner_error(boxes, truth) for name, boxes in groups.items()}


def _corner_error(boxes: Boxes3D, truth: Boxes3D, smooth: bool = False) -> Tensor:
    """(N,) mean over 8 corners x 3 coordinates. Corners live in metres: none has to be in front of the camera."""
    compare = F.smooth_l1_loss if smooth else F.l1_loss
    return compare(boxes.corners(), truth.corners(), reduction="none").mean((1, 2))
