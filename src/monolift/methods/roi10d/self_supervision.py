"""What trains the depth stream without any depth: a stereo pair, or the frames before and after in a video.

The image is rebuilt from another view of the same scene by way of the predicted depth, and compared with itself. Of a stereo
pair the way between the cameras is known, so depth comes in metres. Of a video a small network estimates it beside, and depth
comes in a unit of its own (`align_scale` finds the factor where some depths are known).

Weights as in packnet-sfm, the published code of SuperDepth's authors: 0.85 SSIM and 0.15 L1, smoothness 0.001, several scales,
each compared at full size. The lowest error over the views, so that what one of them hides does not count, and for video the
mask of pixels that a standing camera would explain better, are those of Godard et al., "Digging into self-supervised monocular
depth prediction", ICCV 2019. SuperDepth's full text was not at hand: scales, side heads and the pose network's widths are ours,
and its occlusion regulariser is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from monolift.methods.roi10d.depth import SuperDepth, inverse_of, start_at
from monolift.nn.blocks import conv_norm_relu, init_convolutions
from monolift.typing import Bool, Float, Tensor

SSIM_SHARE, C1, C2 = 0.85, 1e-4, 9e-4
SMOOTHNESS = 1e-3
NEAREST = 1e-3  # metres in front of the other camera that still have a pixel
MOTION_UNIT = 0.01  # of the pose network's numbers: a still camera at first


@dataclass(frozen=True)
class Views:
    """A batch of B network images with N other views of each scene.

    Attributes:
        target: (B, 3, H, W) colours in [0, 1]
        others: N of (B, 3, H, W)
        intrinsics: (B, 4) fx, fy, cx, cy, pixels of these images, the same for all views of a scene
        translation: (B, N, 3) metres from the target's camera frame to the other's, known of stereo pairs; None: to be
            estimated
    """

    target: Float[Tensor, "b 3 H W"]
    others: tuple[Tensor, ...]
    intrinsics: Float[Tensor, "b 4"]
    translation: Float[Tensor, "b n 3"] | None


class SideHeads(nn.Module):
    """Inverse depth from the decoder's coarser maps too: finest first. They train the decoder and are thrown away."""

    def __init__(self, stream: SuperDepth, scales: int) -> None:
        super().__init__()
        coarser = list(reversed(stream.widths[:-1]))[: scales - 1]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in coarser)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            nn.init.normal_(head.weight, std=0.01)
            start_at(head)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: of `SuperDepth.maps`, coarsest first."""
        coarser = list(reversed(maps[:-1]))
        return [inverse_of(head(x)) for head, x in zip(self.heads, coarser, strict=False)]


class PoseNetwork(nn.Module):
    """Two colour images, stacked (B, 6, H, W) -> how the camera moved between them: (B, 6) axis times angle, translation."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 96, 128, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers.append(conv_norm_relu(before, after, 3, "group", stride=2))
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(widths[-1], 6, 1)
        init_convolutions(self)
        nn.init.normal_(self.last.weight, std=0.01)

    def forward(self, pair: Float[Tensor, "b 6 H W"]) -> Float[Tensor, "b 6"]:
        return MOTION_UNIT * self.last(self.layers(pair - 0.5)).mean((2, 3))


def self_supervised_loss(
    stream: SuperDepth,
    heads: SideHeads,
    pose: PoseNetwork | None,
    views: Views,
    images: Float[Tensor, "b 3 H W"],
    unit: Float[Tensor, " b"],
) -> Float[Tensor, ""]:
    """Photometric error and smoothness, mean over the scales.

    Args:
        stream: predicts depth; with its flip-augmentation layer, at the finest scale only.
        heads: its coarser scales.
        pose: estimates the way to views whose ``translation`` is not known.
        views: colours in [0, 1] and cameras.
        images: the targets, normalised for the network.
        unit: (B,) metres per metre of the stream: f / f_ref, see `monolift.methods.base.focal_ratio`.
    """
    maps = stream.maps(images)
    finest = stream.inverse_depth(images) if stream.flip else stream.finest(maps[-1])
    rotations, translations = _ways(pose, views)
    total = finest.new_zeros(())
    inverses = [finest, *heads(maps)]
    still = None if views.translation is not None else _error_of_standing_still(views)
    for k, inverse in enumerate(inverses):
        whole = F.interpolate(inverse, images.shape[-2:], mode="bilinear", align_corners=False)
        depth = unit[:, None, None] / whole[:, 0]
        error, seen = lowest_error(views, depth, rotations, translations)
        if still is not None:  # what a standing camera explains better moves along, or is far away and plain
            seen = seen & (error < still)
        relative = inverse / inverse.mean((2, 3), keepdim=True).clamp_min(1e-6)
        smoothness = SMOOTHNESS / 2**k * roughness(relative, _resized(views.target, inverse))
        total = total + torch.where(seen, error, 0.0).sum() / seen.sum().clamp_min(1) + smoothness
    return total / len(inverses)


def _ways(pose: PoseNetwork | None, views: Views) -> tuple[list[Tensor], list[Tensor]]:
    """Rotation (B, 3, 3) and translation (B, 3) from the target's camera frame to that of each other view."""
    rotations, translations = [], []
    for n, other in enumerate(views.others):
        if views.translation is not None:
            rotations.append(torch.eye(3).to(other).expand(len(other), 3, 3))
            translations.append(views.translation[:, n])
            continue
        if pose is None:
            raise ValueError("views without a known translation need a pose network")
        motion = pose(torch.cat([views.target, other], 1))
        rotations.append(rotation_from_vector(motion[:, :3]))
        translations.append(motion[:, 3:])
    return rotations, translations


def rotation_from_vector(vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of axis times angle, radians, by the matrix exponential."""
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    return torch.linalg.matrix_exp(skew)


def lowest_error(
    views: Views, depth: Tensor, rotations: Sequence[Tensor], translations: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """(B, H, W) the lowest photometric error over the views that show a pixel, and whether one does."""
    errors, visible = [], []
    for other, rotation, translation in zip(views.others, rotations, translations, strict=True):
        rebuilt, seen = warped(other, depth, views.intrinsics, rotation, translation)
        errors.append(photometric_error(rebuilt, views.target))
        visible.append(seen)
    error, seen = torch.stack(errors), torch.stack(visible)
    return torch.where(seen, error, torch.inf).amin(0).nan_to_num(posinf=0.0), seen.any(0)


def _error_of_standing_still(views: Views) -> Tensor:
    return torch.stack([photometric_error(other, views.target) for other in views.others]).amin(0)


def warped(
    other: Float[Tensor, "b 3 H W"],
    depth: Float[Tensor, "b H W"],
    intrinsics: Float[Tensor, "b 4"],
    rotation: Float[Tensor, "b 3 3"],
    translation: Float[Tensor, "b 3"],
) -> tuple[Float[Tensor, "b 3 H W"], Bool[Tensor, "b H W"]]:
    """The target as rebuilt from another view, and where that view shows it.

    Args:
        other: the other view's colours.
        depth: z of each pixel of the target, metres.
        intrinsics: fx, fy, cx, cy of both, pixels; pixel centres are at integers.
        rotation, translation: from the target's camera frame to the other's, metres.
    """
    b, h, w = depth.shape
    fx, fy, cx, cy = (value[:, None, None] for value in intrinsics.unbind(1))
    u = torch.arange(w, device=depth.device, dtype=depth.dtype).expand(b, h, w)
    v = torch.arange(h, device=depth.device, dtype=depth.dtype)[:, None].expand(b, h, w)
    points = torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], -1)
    x, y, z = (points @ rotation.transpose(1, 2)[:, None] + translation[:, None, None]).unbind(-1)
    ahead = z > NEAREST
    z = torch.where(ahead, z, 1.0)
    column, row = fx * x / z + cx, fy * y / z + cy
    grid = torch.stack([2 * column / max(w - 1, 1) - 1, 2 * row / max(h - 1, 1) - 1], -1)
    rebuilt = F.grid_sample(other, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return rebuilt, ahead & (column >= 0) & (column <= w - 1) & (row >= 0) & (row <= h - 1)


def photometric_error(a: Float[Tensor, "b 3 H W"], b: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b H W"]:
    """0.85 (1 - SSIM) / 2 and 0.15 times the absolute difference, mean over the colours."""
    return (SSIM_SHARE * ssim_distance(a, b) + (1 - SSIM_SHARE) * (a - b).abs()).mean(1)


def ssim_distance(a: Float[Tensor, "b c H W"], b: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """(1 - SSIM) / 2 per pixel, 3 x 3 windows."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return ((1 - top / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))) / 2).clamp(0, 1)


def roughness(values: Float[Tensor, "b 1 h w"], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Mean gradient of a map, less where the image has an edge."""
    total = values.new_zeros(())
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (values.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return total


def _resized(image: Tensor, like: Tensor) -> Tensor:
    if image.shape[-2:] == like.shape[-2:]:
        return image
    return F.interpolate(image, like.shape[-2:], mode="area")


def align_scale(depth: Float[Tensor, "*b"], known: Float[Tensor, "*b"]) -> float:
    """The factor that brings a depth of no unit to metres: the median ratio where the depth is known (> 0); 1 without any."""
    here = torch.isfinite(known) & (known > 0)
    return float((known[here] / depth[here]).median()) if bool(here.any()) else 1.0
