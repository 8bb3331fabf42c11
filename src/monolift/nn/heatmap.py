"""Heatmaps of keypoints: draw Gaussians, find peaks, gather values. Cells are (column, row), all indices are integers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from monolift.typing import Float, Int, Tensor


def radius_corrected(width: float, height: float, overlap: float = 0.7) -> float:
    """Largest shift of a box corner, cells, that keeps the IoU with the box above ``overlap`` (CornerNet, roots right).

    Three cases: the shifted box lies inside, outside, or across the box; the smallest of the three radii holds for all.
    """
    area, half = width * height, width + height
    across = (half - math.sqrt(max(half**2 - 4 * area * (1 - overlap) / (1 + overlap), 0))) / 2
    inside = (half - math.sqrt(max(half**2 - 4 * area * (1 - overlap), 0))) / 4
    outside = (-half + math.sqrt(half**2 + 4 * area * (1 - overlap) / overlap)) / 4
    return min(across, inside, outside)


def radius_centernet(width: float, height: float, overlap: float = 0.7) -> float:
    """The same rule with the roots as CornerNet's and CenterNet's code has them: (-b + sqrt(b^2 - 4ac)) / 2 whatever a is.

    Wrong as algebra and about five times larger on KITTI, which makes for softer targets; most relatives use it.
    """
    area, half = width * height, width + height
    across = (half + math.sqrt(max(half**2 - 4 * area * (1 - overlap) / (1 + overlap), 0))) / 2
    inside = (2 * half + math.sqrt(max(4 * half**2 - 16 * area * (1 - overlap), 0))) / 2
    b = -2 * overlap * half
    outside = (b + math.sqrt(max(b**2 + 16 * overlap * (1 - overlap) * area, 0))) / 2
    return min(across, inside, outside)


def draw_gaussian(heat: Float[Tensor, "h w"], column: int, row: int, radius: int) -> None:
    """Raises ``heat`` in place to a Gaussian of peak 1 and sigma (2 r + 1) / 6 round a cell; overlaps keep the maximum."""
    h, w = heat.shape
    sigma = (2 * radius + 1) / 6
    left, right = min(column, radius), min(w - 1 - column, radius)
    top, bottom = min(row, radius), min(h - 1 - row, radius)
    x = torch.arange(-left, right + 1, dtype=heat.dtype)
    y = torch.arange(-top, bottom + 1, dtype=heat.dtype)[:, None]
    bump = torch.exp(-(x * x + y * y) / (2 * sigma * sigma))
    window = heat[row - top : row + bottom + 1, column - left : column + right + 1]
    torch.maximum(window, bump, out=window)


def find_peaks(
    heat: Float[Tensor, "b k h w"], top_k: int
) -> tuple[Float[Tensor, "b t"], Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """The ``top_k`` local maxima (of 3x3 cells, equality) of all classes: scores, labels, flat cells (row * w + column)."""
    b, k, h, w = heat.shape
    peaks = torch.where(_highest_around(heat) == heat, heat, torch.zeros_like(heat))
    scores, flat = peaks.flatten(1).topk(min(top_k, k * h * w))
    # integer division on purpose: true division moves the row by column / w of a cell, silently
    return scores, torch.div(flat, h * w, rounding_mode="floor"), flat % (h * w)


def _highest_around(heat: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """3x3 max pool, stride 1. One axis after the other: ``max_pool2d`` takes fifteen times as long on a CPU."""
    padded = F.pad(heat, (1, 1, 1, 1), value=-torch.inf)
    rows = torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 1:-1, :]), padded[..., 2:, :])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def gather(
    maps: Float[Tensor, "b c h w"], image: Int[Tensor, " n"], cell: Int[Tensor, " n"]
) -> Float[Tensor, "n c"]:
    """Channels of N cells, each given by its image's index in the batch and its flat cell."""
    b, c, h, w = maps.shape
    row = torch.div(cell, w, rounding_mode="floor")
    return maps[image, :, row, cell % w]
