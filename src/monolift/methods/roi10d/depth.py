"""SuperDepth, the depth stream (Pillai, Ambrus, Gaidon, ICRA 2019): a map of depth from one image.

Encoder and decoder; resolution is won back by sub-pixel convolutions, which compute all the pixels of a cell as channels
instead of spreading one value over them; a flip-augmentation layer joins the prediction for the image with that for its
mirror image, whose occlusion shadows lie on the other side. Trained by LiDAR or rendered depth, or by the right image of a
stereo pair alone. From the paper's abstract and a sister project's published losses; its full text and its code were not at
hand: widths are ours.

Depth is metres at the detector's reference focal length (see ``ROI10DConfig.focal``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from monolift.nn.blocks import init_convolutions, make_norm
from monolift.nn.resnet import ResNet
from monolift.typing import Bool, Float, Tensor

NEAREST, FARTHEST = 1.5, 150.0  # metres the stream can say
START = 25.0  # metres an untrained stream says
SSIM_SHARE, C1, C2 = 0.85, 1e-4, 9e-4
SMOOTHNESS = 1e-3


class SuperDepth(nn.Module):
    """(B, 3, H, W), sides multiples of 32 -> depth (B, 1, H, W), metres.

    encoder: "small" (0.1 M parameters, reads 4 x 4 pixels at once) or "resnet18". flip: with the flip-augmentation layer,
    at twice the cost.
    """

    def __init__(self, encoder: str, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        widths: tuple[int, ...]
        if encoder == "resnet18":
            self.base: nn.Module = ResNet(18, "group")
            widths, outputs = ResNet.channels, (256, 128, 64)
        else:
            widths, outputs = (32, 32, 64, 96), (64, 32, 32)
            self.base = SmallEncoder(widths)
        separable = encoder != "resnet18"
        inputs = widths[-1]
        self.up = nn.ModuleList()
        for skip, width in zip(reversed(widths[:-1]), outputs, strict=True):
            self.up.append(SubPixelUp(inputs, skip, width, separable))
            inputs = width
        self.last = nn.Conv2d(inputs, 16, 3, padding=1)  # the sixteen pixels of a stride-4 cell
        nn.init.normal_(self.last.weight, std=0.01)
        far, near = 1 / FARTHEST, 1 / NEAREST
        start = (1 / START - far) / (near - far)
        nn.init.constant_(self.last.bias, torch.logit(torch.tensor(start)).item())  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
        return 1 / self.inverse_depth(images)

    def inverse_depth(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
        """1 / metres, between 1 / FARTHEST and 1 / NEAREST."""
        return flip_fused(self._once, images) if self.flip else self._once(images)

    def _once(self, images: Tensor) -> Tensor:
        *skips, x = self.base(images)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        share = torch.sigmoid(F.pixel_shuffle(self.last(x), 4).float())
        return 1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * share


class SmallEncoder(nn.Module):
    """Maps of strides 4, 8, 16 and 32. The first step gathers 4 x 4 pixels into 48 channels: no arithmetic at full size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.PixelUnshuffle(4), *_separable(48, widths[0], 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*_separable(before, after, 2), *_separable(after, after, 1))
            for before, after in pairwise(widths)
        )
        init_convolutions(self)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        maps = [self.entry(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class SubPixelUp(nn.Module):
    """Twice the size by a sub-pixel convolution (Shi et al., CVPR 2016), joined with the encoder's map of that size."""

    def __init__(self, inputs: int, skip: int, outputs: int, separable: bool) -> None:
        super().__init__()
        make = _separable if separable else _plain
        self.grow = nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2))
        self.mix = nn.Sequential(*make(outputs + skip, outputs, 1))
        init_convolutions(self)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s H W"]
    ) -> Float[Tensor, "b o H W"]:
        return self.mix(torch.cat([self.grow(x), skip], 1))


def _plain(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [conv, make_norm("group", outputs), nn.ReLU(inplace=True)]


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return [
        depthwise,
        nn.Conv2d(inputs, outputs, 1, bias=False),
        make_norm("group", outputs),
        nn.ReLU(inplace=True),
    ]


def flip_fused(
    predict: Callable[[Tensor], Tensor], images: Float[Tensor, "b 3 H W"]
) -> Float[Tensor, "b 1 H W"]:
    """The flip-augmentation layer: the prediction and the mirrored one of the mirror image, joined; differentiable.

    Elsewhere their mean; on the outer 5 % of the width at the left only the mirrored one and at the right only the plain one,
    with a ramp to 10 %: a stereo-trained stream is wrong where the left edge of things, and of the image, hides the scene.
    Mirroring the image mirrors the result.
    """
    plain, mirrored = predict(images), predict(images.flip(-1)).flip(-1)
    place = torch.linspace(0, 1, plain.shape[-1], device=plain.device, dtype=plain.dtype)
    left = (1 - (place - 0.05) / 0.05).clamp(0, 1)
    right = left.flip(0)
    return left * mirrored + right * plain + (1 - left - right) * (plain + mirrored) / 2


# -- from a map to the fused features -------------------------------------------------------------------------------------


def pooled_log_depth(depth: Float[Tensor, "b 1 H W"], stride: int) -> Float[Tensor, "b 1 h w"]:
    """log(depth / START) averaged over cells of ``stride`` pixels; holes (0, negative, NaN, infinite) count nothing.

    A cell that is all hole says 0, the least surprising depth. Sides that are no multiple of the stride are padded with holes.
    """
    known = torch.isfinite(depth) & (depth > 0)
    value = torch.where(known, torch.log(torch.where(known, depth, START) / START), 0.0)
    down, right = (-side % stride for side in depth.shape[-2:])
    weight = F.avg_pool2d(F.pad(known.to(depth.dtype), (0, right, 0, down)), stride)
    return F.avg_pool2d(F.pad(value, (0, right, 0, down)), stride) / weight.clamp_min(1e-6)


# -- what trains it -------------------------------------------------------------------------------------------------------


def depth_loss(
    depth: Float[Tensor, "b 1 H W"], truth: Float[Tensor, "b H W"], most: float = 80.0
) -> Float[Tensor, ""]:
    """Mean |log depth - log truth| over pixels whose truth is known (> 0) and at most ``most`` metres; 0 without any."""
    known: Bool[Tensor, "b H W"] = torch.isfinite(truth) & (truth > 0) & (truth <= most)
    error = (torch.log(depth[:, 0]) - torch.log(torch.where(known, truth, 1.0))).abs()
    return torch.where(known, error, 0.0).sum() / known.sum().clamp_min(1)


def stereo_loss(
    inverse_depth: Float[Tensor, "b 1 H W"],
    left: Float[Tensor, "b 3 H W"],
    right: Float[Tensor, "b 3 H W"],
    pixels_per_inverse_metre: Float[Tensor, " b"],
) -> Float[Tensor, ""]:
    """Self-supervision from a rectified pair: the left image as rebuilt from the right one, compared with itself.

    inverse_depth: of the left image, 1 / m; left, right: colours in [0, 1]; pixels_per_inverse_metre: baseline times focal
    length (the reference one, if depth counts at it): a point at inverse depth d is seen that many pixels times d further left
    in the right image. Pixels rebuilt from beyond the image's edge do not count. Weights as in packnet-sfm.
    """
    disparity = inverse_depth[:, 0] * pixels_per_inverse_metre[:, None, None]
    rebuilt, inside = _shifted(right, disparity)
    error = SSIM_SHARE * _ssim_distance(rebuilt, left) + (1 - SSIM_SHARE) * (rebuilt - left).abs()
    error = torch.where(inside[:, None], error.mean(1, keepdim=True), 0.0)
    relative = inverse_depth / inverse_depth.mean((2, 3), keepdim=True).clamp_min(1e-6)
    return error.sum() / inside.sum().clamp_min(1) + SMOOTHNESS * _roughness(relative, left)


def _shifted(right: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
    """The right image read ``disparity`` (B, H, W) pixels further left at each place; and where that is inside."""
    b, h, w = disparity.shape
    u = torch.arange(w, device=right.device, dtype=right.dtype) - disparity
    v = torch.arange(h, device=right.device, dtype=right.dtype)[None, :, None].expand(b, h, w)
    grid = torch.stack([2 * u / max(w - 1, 1) - 1, 2 * v / max(h - 1, 1) - 1], -1)
    rebuilt = F.grid_sample(right, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return rebuilt, (u >= 0) & (u <= w - 1)


def _ssim_distance(a: Tensor, b: Tensor) -> Tensor:
    """(1 - SSIM) / 2 per pixel, 3 x 3 windows."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return ((1 - top / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))) / 2).clamp(0, 1)


def _roughness(map_: Tensor, image: Tensor) -> Tensor:
    """Mean gradient of a map, less where the image has an edge."""
    total = map_.new_zeros(())
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (map_.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return total


def train_stereo(
    stream: SuperDepth,
    pairs: Sequence[tuple[Tensor, Tensor, float]],
    steps: int,
    lr: float = 2e-4,
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    std: tuple[float, float, float] = (0.229, 0.224, 0.225),
) -> list[float]:
    """Trains a stream on (left, right, baseline times focal length) triples alone, one per step in turn; the losses.

    left, right: (3, H, W) colours in [0, 1], rectified, sides multiples of 32; focal length in their pixels, or the
    reference one of the detector the stream is for. Adam, as in packnet-sfm.
    """
    optimizer = torch.optim.Adam(stream.parameters(), lr)
    losses = []
    for step in range(steps):
        left, right, gauge = pairs[step % len(pairs)]
        shape = (1, 3, 1, 1)
        images = (left[None] - left.new_tensor(mean).view(shape)) / left.new_tensor(std).view(shape)
        loss = stereo_loss(stream.inverse_depth(images), left[None], right[None], left.new_tensor([gauge]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
