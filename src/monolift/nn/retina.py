"""RetinaNet's dense head (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017) and its anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from monolift.nn.blocks import init_convolutions, make_norm
from monolift.typing import Float, Tensor

PRIOR = 0.01  # probability of an untrained anchor, so that the many negatives do not swamp the first steps
LIMIT = math.log(1000 / 16)  # of a log size change: a runaway exponential would be an infinite box


class RetinaHead(nn.Module):
    """Two towers shared by all levels: class logits and box deltas of A anchors per cell.

    levels: (B, C, h, w) each -> (B, h w A, K) and (B, h w A, 4), cells in row order, the anchors of a cell together.
    depth: 3 x 3 convolutions of a tower (published: 4). separable: depthwise and 1 x 1 instead, for small networks.
    Group norm in the towers (ours; later RetinaNets have it) because they see few images per step here.
    """

    def __init__(self, channels: int, anchors: int, classes: int, depth: int, separable: bool) -> None:
        super().__init__()
        self.classes = classes
        self.what = _tower(channels, depth, separable)
        self.where = _tower(channels, depth, separable)
        self.score = nn.Conv2d(channels, anchors * classes, 3, padding=1)
        self.delta = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        init_convolutions(self.what)
        init_convolutions(self.where)
        for last in (self.score, self.delta):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.score.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> tuple[Float[Tensor, "b a k"], Float[Tensor, "b a 4"]]:
        scores = [_rows(self.score(self.what(x)), self.classes) for x in levels]
        deltas = [_rows(self.delta(self.where(x)), 4) for x in levels]
        return torch.cat(scores, 1), torch.cat(deltas, 1)


def _tower(channels: int, depth: int, separable: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        if separable:
            layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)]
            layers += [nn.Conv2d(channels, channels, 1, bias=False)]
        else:
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
        layers += [make_norm("group", channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _rows(x: Tensor, width: int) -> Tensor:
    """(B, A * width, h, w) -> (B, h w A, width)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def anchor_boxes(
    width: int,
    height: int,
    strides: Sequence[int],
    size: float,
    scales: Sequence[float],
    ratios: Sequence[float],
) -> Float[Tensor, "a 4"]:
    """All anchors of an image, (x1, y1, x2, y2) pixels with centres at integers, in `RetinaHead`'s order.

    Args:
        size: side of the square anchor of scale 1, in strides of its level (published: 4).
        ratios: height / width.
    """
    found = []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        sides = [
            (size * stride * scale / math.sqrt(ratio), size * stride * scale * math.sqrt(ratio))
            for scale in scales
            for ratio in ratios
        ]
        half = torch.tensor(sides) / 2  # (A, 2) width, height
        x = (torch.arange(columns) + 0.5) * stride - 0.5
        y = (torch.arange(rows) + 0.5) * stride - 0.5
        centers = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 1, 2)
        found.append(torch.cat([centers - half, centers + half], -1).view(-1, 4))
    return torch.cat(found)


def deltas_from_boxes(
    boxes: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]
) -> Float[Tensor, "... 4"]:
    """Centre shift in anchor sizes and log size change: the regression targets of ``boxes``."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    size = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2 / anchor_size
    return torch.cat([shift, torch.log(size / anchor_size)], -1)


def boxes_from_deltas(
    deltas: Float[Tensor, "... 4"], anchors: Float[Tensor, "... 4"]
) -> Float[Tensor, "... 4"]:
    """Inverse of `deltas_from_boxes`; size changes are held below 62-fold."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    center = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * anchor_size
    half = anchor_size * torch.exp(deltas[..., 2:].clamp(max=LIMIT)) / 2
    return torch.cat([center - half, center + half], -1)


def focal_loss(
    logits: Float[Tensor, "n k"],
    target: Float[Tensor, "n k"],
    weight: Float[Tensor, "n k"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sum of alpha (1 - p_t)^gamma times the cross-entropy (RetinaNet eq. 5); ``weight`` 0 where nothing is known."""
    p = torch.sigmoid(logits)
    miss = target * (1 - p) + (1 - target) * p
    balance = target * alpha + (1 - target) * (1 - alpha)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (balance * miss.pow(gamma) * entropy * weight).sum()
