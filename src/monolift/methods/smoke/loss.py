"""SMOKE's losses: penalty-reduced focal on the heatmap, L1 on the eight corners, disentangled (section 4.3).

The box is built three times, each time with one group of predictions and the labels of the others, and compared corner by
corner: every group is trained by what it alone does to the box, in metres, and no weights between groups are needed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from monolift.geometry import Boxes3D, yaw_from_alpha
from monolift.methods.smoke.assign import Targets
from monolift.methods.smoke.cells import STRIDE
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import SmokeConfig
from monolift.methods.smoke.depth import log_apparent_height
from monolift.methods.smoke.heading import angle_in_bin, encode_heading, nearest_bin
from monolift.nn.heatmap import gather
from monolift.nn.losses import generalized_iou_loss, heatmap_focal, laplace_nll
from monolift.typing import Float, Tensor

BOX2D_WEIGHT = 1.0
GPU_IMAGES = 8  # of the released code's batch of 32 on four GPUs, whose losses are averaged


def smoke_loss(codec: SmokeCodec, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Named scalars; "total" is minimised. A batch without objects has regression losses of zero, with a gradient."""
    config = codec.config
    groups = 1
    if config.quirks.summed_regression:
        groups = math.ceil(len(raw["heatmap"]) / GPU_IMAGES)
    losses = {"heatmap": _heatmap_loss(raw["heatmap"], targets, groups)}
    width = raw["heatmap"].shape[3]
    near, weight = targets.near_object, targets.near_weight
    cameras = targets.cameras[targets.image[near]]
    numbers = gather(raw["regression"], targets.image[near], targets.near_cell)
    numbers = codec.with_rays(numbers, targets.near_cell, cameras, width)
    objects = max(len(targets.boxes), 1)
    share = 1 / groups if config.quirks.summed_regression else 1 / objects
    for name, error in corner_losses(codec, numbers, targets, width).items():
        if name == "location" and config.location_scale:
            losses[name] = share * (weight * laplace_nll(error, codec.log_scale(numbers))).sum()
        else:
            losses[name] = config.regression_weight * share * (weight * error).sum()
    if config.direction_weight and not config.quirks.quaternion:
        error = heading_error(config, numbers[:, 6 : codec.box2d_at], targets.boxes.alpha[near])
        losses["direction"] = config.direction_weight * (weight * error).sum() / objects
    if config.boxes2d:
        predicted = codec.boxes2d(numbers, targets.near_cell, width)
        error = generalized_iou_loss(predicted, targets.boxes2d[near])
        losses["box2d"] = BOX2D_WEIGHT * (weight * error).sum() / objects
    if config.extensions.height_depth:
        boxes, k = targets.boxes[near], codec.height_at
        true = log_apparent_height(boxes.size[:, 1], boxes.center[:, 2], cameras.fy.to(numbers), STRIDE)
        likelihood = laplace_nll((numbers[:, k] - true).abs(), numbers[:, k + 1].clamp(-5, 2))
        losses["height"] = share * (weight * likelihood).sum()
    if targets.depth is not None:
        error = dense_depth_error(raw["depth"], targets.depth, config.depth_mean)
        losses["dense_depth"] = config.extensions.dense_depth * error
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses


def heading_error(
    config: SmokeConfig, numbers: Float[Tensor, "m c"], alpha: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """L1 distance of the vector from the unit vector; with bins the cross entropy and the L1 error in the true bin."""
    if config.extensions.binned_heading:
        bins = config.extensions.heading_bins
        index, residual = nearest_bin(alpha, bins)
        predicted = numbers[:, bins:].gather(1, index[:, None])[:, 0]
        entropy = F.cross_entropy(numbers[:, :bins], index, reduction="none")
        return entropy + (predicted - residual).abs()
    return (numbers - encode_heading(config, alpha)).abs().sum(1)


def dense_depth_error(
    predicted: Float[Tensor, "b 1 h w"], depth: Float[Tensor, "b h w"], mean: float
) -> Float[Tensor, ""]:
    """Mean absolute error of log(depth / mean) over the cells whose ``depth`` is known (not 0); 0 where none is."""
    known = depth > 0
    error = (predicted[:, 0] - torch.log(depth.clamp_min(0.1) / mean)).abs()
    return (error * known).sum() / known.sum().clamp_min(1)


def _heatmap_loss(logits: Tensor, targets: Targets, groups: int) -> Tensor:
    """The focal loss; of several groups of `GPU_IMAGES` images the mean, each divided by its own number of keypoints."""
    if groups == 1:
        return heatmap_focal(logits, targets.heatmap, targets.weight)
    parts = zip(*(t.split(GPU_IMAGES) for t in (logits, targets.heatmap, targets.weight)), strict=True)
    return torch.stack([heatmap_focal(*part) for part in parts]).mean()


def corner_losses(codec: SmokeCodec, numbers: Tensor, targets: Targets, width: int) -> dict[str, Tensor]:
    """Mean corner error, (M,) metres, of each group, or of the whole box in the ablations.

    Args:
        numbers: (M, C) channels at ``targets.near_cell``, their ray terms added.
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
    alpha = parts.alpha
    if config.extensions.binned_heading:  # choosing the bin is the classifier's task
        bin_of_label, _ = nearest_bin(truth.alpha, config.extensions.heading_bins)
        alpha = angle_in_bin(bin_of_label, numbers[:, 6 : codec.box2d_at])
    groups = {
        "orientation": Boxes3D(truth.center, truth.size, yaw_from_alpha(alpha, truth.center)),
        "size": Boxes3D(truth.center, parts.size, truth.yaw),
        "location": Boxes3D(location, truth.size, truth.yaw),
    }
    return {name: _corner_error(boxes, truth) for name, boxes in groups.items()}


def _corner_error(boxes: Boxes3D, truth: Boxes3D, smooth: bool = False) -> Tensor:
    """(N,) mean over 8 corners x 3 coordinates. Corners live in metres: none has to be in front of the camera."""
    compare = F.smooth_l1_loss if smooth else F.l1_loss
    return compare(boxes.corners(), truth.corners(), reduction="none").mean((1, 2))
