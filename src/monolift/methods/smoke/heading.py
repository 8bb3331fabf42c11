"""SMOKE's heading, both ways: the observation angle alpha as a vector, a quaternion, or a bin and a residual.

vector      2 channels   cos alpha, -sin alpha, of any length                              paper, eq. 4
quaternion  4 channels   w, x, y, z of the allocentric rotation                            ablation
bins        2 n channels n logits, then n residuals: -1 to 1 from edge to edge of a bin    not in the paper

Bins are those of Mousavian et al., "3D Bounding Box Estimation Using Deep Learning and Geometry" (CVPR 2017), without overlap
and with a linear residual. Front and rear look alike; a vector between two opposite answers is wrong, a bin is one of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from monolift.geometry.rotations import (
    matrix_from_quaternion,
    matrix_from_yaw,
    quaternion_from_matrix,
    wrap,
    yaw_from_matrix,
)
from monolift.methods.smoke.config import SmokeConfig
from monolift.typing import Float, Int, Tensor

CERTAIN = 10.0  # logit of an encoded angle's bin


def heading_channels(config: SmokeConfig) -> int:
    """How many channels hold the heading."""
    if config.extensions.binned_heading:
        return 2 * config.extensions.heading_bins
    return 4 if config.quirks.quaternion else 2


def encode_heading(config: SmokeConfig, alpha: Float[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """The channels of observation angles, radians: the inverse of `decode_heading`."""
    if config.quirks.quaternion:
        return quaternion_from_matrix(matrix_from_yaw(alpha))
    if config.extensions.binned_heading:
        bins = config.extensions.heading_bins
        index, residual = nearest_bin(alpha, bins)
        chosen = F.one_hot(index, bins).to(alpha.dtype)
        return torch.cat([CERTAIN * chosen, chosen * residual[:, None]], 1)
    return torch.stack([torch.cos(alpha), -torch.sin(alpha)], 1)


def decode_heading(config: SmokeConfig, numbers: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Observation angles of the heading's channels."""
    if config.quirks.quaternion:
        return yaw_from_matrix(matrix_from_quaternion(numbers))
    if config.extensions.binned_heading:
        return angle_in_bin(numbers[:, : config.extensions.heading_bins].argmax(1), numbers)
    return torch.atan2(-numbers[:, 1], numbers[:, 0] + 1e-9)


def nearest_bin(alpha: Float[Tensor, " n"], bins: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The bin of each angle, the first being centred on 0, and its place there: -1 to 1 from edge to edge."""
    steps = alpha * bins / (2 * math.pi)
    nearest = torch.round(steps)
    return nearest.long() % bins, 2 * (steps - nearest)


def angle_in_bin(index: Int[Tensor, " n"], numbers: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """The angles that binned channels give for these bins."""
    bins = numbers.shape[1] // 2
    residual = numbers[:, bins:].gather(1, index[:, None])[:, 0]
    return wrap((index + residual / 2) * (2 * math.pi / bins))
