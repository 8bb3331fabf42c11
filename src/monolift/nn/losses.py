"""Losses on plain tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monolift.typing import Float, Tensor


def heatmap_focal(
    logits: Float[Tensor, "b k h w"],
    target: Float[Tensor, "b k h w"],
    weight: Float[Tensor, "b k h w"],
    alpha: float = 2.0,
    beta: float = 4.0,
) -> Float[Tensor, ""]:
    """Penalty-reduced focal loss (SMOKE eq. 7, from CornerNet), summed and divided by the number of positives, at least 1.

    ``target`` is 1 at the keypoints and a Gaussian round them; ``weight`` is 0 where nothing is known. Computed from logits,
    so that no clamp of the sigmoid is needed: the published code clamps to [1e-4, 1 - 1e-4] and has no gradient beyond.
    """
    p = torch.sigmoid(logits)
    positive = (target == 1).to(logits.dtype)
    hit = (1 - p).pow(alpha) * F.logsigmoid(logits) * positive
    miss = (1 - target).pow(beta) * p.pow(alpha) * F.logsigmoid(-logits) * (1 - positive)
    return -((hit + miss) * weight).sum() / (positive * weight).sum().clamp_min(1)


def generalized_iou_loss(boxes: Float[Tensor, "n 4"], target: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """1 - generalised IoU (Rezatofighi et al. 2019) of matched 2D boxes: has a gradient also where they are apart."""
    area = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
    target_area = (target[:, 2:] - target[:, :2]).prod(1)
    overlap = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])
    intersection = overlap.clamp_min(0).prod(1)
    union = (area + target_area - intersection).clamp_min(1e-6)
    hull = (torch.maximum(boxes[:, 2:], target[:, 2:]) - torch.minimum(boxes[:, :2], target[:, :2])).prod(1)
    return 1 - intersection / union + (hull - union) / hull.clamp_min(1e-6)


def laplace_nll(error: Float[Tensor, "..."], log_scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Negative log likelihood of an error under a Laplace distribution of scale exp(log_scale), up to a constant."""
    return error.abs() * torch.exp(-log_scale) + log_scale
