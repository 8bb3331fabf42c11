"""Escaping rotation local minima: MonoDR section 3.2.

Gradients lead to the nearest rotation that explains the silhouette. So others are rendered too, and the best one is taken, as
judged by a metric of appearance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from monolift.methods.monodr.config import MonoDRConfig
from monolift.methods.monodr.crops import Crops
from monolift.methods.monodr.loss import box_loss
from monolift.methods.monodr.perceptual import Metric
from monolift.render.renderer import Rendering
from monolift.typing import Float, Tensor

STEP = math.radians(15)
FORM_CUT = 1.0  # metres

Render = Callable[[Float[Tensor, " n"], bool], tuple[Rendering, Float[Tensor, "n 4"]]]
"""The objects as they would look at other angles, and their vertices' boxes in the crops' pixels; with True, brought to the
place and area of their observed 2D boxes."""


def trials(
    alpha: Float[Tensor, " n"], random: Float[Tensor, " n"], config: MonoDRConfig, sweep: bool = False
) -> list[Float[Tensor, " n"]]:
    """The angles to compare, the present one first. random: (N,) angles drawn from the whole circle; sweep: the whole circle
    in steps of 30 degrees as well (ours)."""
    angles = [alpha, alpha + STEP, alpha - STEP, -alpha, random]
    if config.escape_turned:
        angles.append(alpha + math.pi)
    if sweep:
        angles += [alpha + k * math.pi / 6 for k in range(1, 12)]
    return angles


@torch.no_grad()
def better_rotation(
    alpha: Float[Tensor, " n"],
    random: Float[Tensor, " n"],
    render: Render,
    metric: Metric,
    crops: Crops,
    depth_scale: Float[Tensor, " n"],
    config: MonoDRConfig,
    sweep: bool = False,
) -> Float[Tensor, " n"]:
    """The best of the trial angles for each object."""
    angles = trials(alpha, random, config, sweep)
    scores = []
    for angle in angles:
        image, box = render(angle, config.escape_aligned)
        score = metric(image.colour, image.silhouette)
        if config.escape_box:
            score = score + config.escape_box * box_loss(box, crops.boxes, 0.0, crops.open_sides)
        if config.escape_depth:
            score = score + config.escape_depth * depth_form(image, crops, depth_scale)
        scores.append(score)
    best = torch.stack(scores).argmin(0)
    return torch.stack(angles).gather(0, best[None])[0]


def depth_form(image: Rendering, crops: Crops, depth_scale: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How badly the form of the depth fits, metres: mean distance once the median difference is taken off, so that where the
    object stands does not count, only which end is nearer (ours). No pixel counts for more than FORM_CUT: masks hold pieces of
    what is behind. 0 where no depth is known."""
    where = crops.depth_share * image.silhouette * (image.face >= 0)
    off = image.depth - crops.depth * depth_scale[:, None, None]
    middle = torch.where(where > 0, off, torch.nan).flatten(1).nanmedian(1).values.nan_to_num()
    distance = (off - middle[:, None, None]).abs().clamp_max(FORM_CUT)
    return (distance * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1e-6)
