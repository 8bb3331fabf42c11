"""SMOKE's depth, both ways (eq. 1), and what can be done to it beyond the paper: logarithm, calibration, a second depth.

All depths but those of boxes are at the reference focal length: see `monolift.methods.base.focal_ratio`.
"""

from __future__ import annotations

import torch

from monolift.methods.smoke.config import SmokeConfig
from monolift.typing import Float, Tensor

MAX_LOG = 4.0  # of depth over its mean, and of a network that has learnt nothing yet
MAX_CHANGE = 0.5  # of log depth by the second depth
NEAREST = 0.1  # metres


def depth_from_number(config: SmokeConfig, number: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Metres from d_z: mean + std d_z (eq. 1), or mean exp(std / mean d_z), where a number is a share of any distance.

    The two agree in value and slope at d_z = 0.
    """
    if config.extensions.log_depth:
        share = config.depth_std / config.depth_mean
        return config.depth_mean * torch.exp((share * number).clamp(-MAX_LOG, MAX_LOG))
    return config.depth_mean + config.depth_std * number


def number_from_depth(config: SmokeConfig, depth: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The inverse of `depth_from_number`."""
    if config.extensions.log_depth:
        return torch.log(depth / config.depth_mean) * config.depth_mean / config.depth_std
    return (depth - config.depth_mean) / config.depth_std


def calibrated(
    config: SmokeConfig, depth: Float[Tensor, " n"], ratio: Float[Tensor, "*n"]
) -> Float[Tensor, " n"]:
    """Depth with its systematic error removed: log z += a + b log(z / mean) + c log ratio, of ``depth_calibration``.

    ratio: the camera's focal length over the reference. A network shrinks depths towards the mean of what it was trained on,
    so the error is a smooth function of both; the three numbers are measured on images that it was not trained on.
    """
    constant, per_depth, per_focal = config.extensions.depth_calibration
    if not (constant or per_depth or per_focal):
        return depth
    log_depth = torch.log(depth.clamp_min(1.0) / config.depth_mean)
    return depth * torch.exp(constant + per_depth * log_depth + per_focal * torch.log(ratio))


def log_apparent_height(
    height: Float[Tensor, " n"], depth: Float[Tensor, " n"], fy: Float[Tensor, "*n"], stride: int
) -> Float[Tensor, " n"]:
    """Logarithm of the height in cells of an upright line of ``height`` metres at ``depth`` metres."""
    return torch.log(fy * height / (stride * depth.clamp_min(NEAREST)))


def depth_with_height(
    depth: Float[Tensor, " n"],
    log_scale: Float[Tensor, " n"],
    from_box: Float[Tensor, " n"],
    predicted: Float[Tensor, "n 2"],
) -> Float[Tensor, " n"]:
    """Mean of the regressed depth and of that which the object's height in metres and in the image gives.

    As the soft ensemble of Zhang et al., "Objects are Different" (CVPR 2021, section 3.5), in logarithms: each weighs by its
    inverse variance.

    Args:
        depth: regressed, metres.
        log_scale: logarithm of the location's expected error, metres, a mean over three coordinates. Most of it is depth's,
            of which about 0.4 reach that mean.
        from_box: `log_apparent_height` of the box at ``depth``.
        predicted: the same as the network predicts it, and the logarithm of its expected error.
    """
    own = (2.5 * torch.exp(log_scale) / depth.clamp_min(NEAREST)) ** 2
    other = torch.exp(2 * predicted[:, 1].clamp(-5, 2))
    change = (from_box - predicted[:, 0]) * own / (own + other)
    return depth * torch.exp(change.clamp(-MAX_CHANGE, MAX_CHANGE))
