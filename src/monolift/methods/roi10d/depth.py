"""SuperDepth, the depth stream (Pillai, Ambrus, Gaidon, ICRA 2019): a map of depth from one image.

Encoder and decoder; resolution is won back by sub-pixel convolutions, which compute all the pixels of a cell as channels
instead of spreading one value over them; a flip-augmentation layer joins the prediction for the image with that for its
mirror image, whose occlusion shadows lie on the other side. Trained by LiDAR or rendered depth beside the images
(`depth_loss`), or before the detector by stereo pairs or video alone (`self_supervision`). From the paper's abstract and a
sister project's published losses; its full text and its code were not at hand: widths are ours.

Depth is metres at the detector's reference focal length (see ``ROI10DConfig.focal``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from monolift.errors import InputError
from monolift.files.folders import partial_file
from monolift.files.settings import NOT_NEGATIVE, SIDE, check_fields
from monolift.nn.blocks import init_convolutions, make_norm
from monolift.nn.resnet import ResNet
from monolift.typing import Bool, Float, Tensor

NEAREST, FARTHEST = 1.5, 150.0  # metres the stream can say
START = 25.0  # metres an untrained stream says
ENCODERS = ("small", "resnet18")


@dataclass(frozen=True)
class StreamConfig:
    """What a file of a depth stream says of itself.

    encoder, flip: see `SuperDepth`
    focal: reference focal length, network pixels, at which its metres count; 0: not scaled
    width, height: of the network image it was trained on, pixels
    metric: whether its unit is the metre; not of a stream that learnt from video alone
    """

    encoder: str = "small"
    flip: bool = False
    focal: float = 0.0
    width: int = 640
    height: int = 192
    metric: bool = True

    def __post_init__(self) -> None:
        limits = {"focal": NOT_NEGATIVE, "width": SIDE, "height": SIDE}
        check_fields("depth stream", self, {"encoder": ENCODERS}, limits)


class SuperDepth(nn.Module):
    """(B, 3, H, W), sides multiples of 32 -> depth (B, 1, H, W), metres.

    encoder: "small" (0.1 M parameters, reads 4 x 4 pixels at once) or "resnet18". flip: with the flip-augmentation layer,
    at twice the cost.
    widths: channels of the decoder's maps, strides 16, 8 and 4
    """

    widths: tuple[int, ...]

    def __init__(self, encoder: str, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        if encoder == "resnet18":
            self.base: nn.Module = ResNet(18, "group")
            widths: tuple[int, ...] = ResNet.channels
            self.widths = (256, 128, 64)
        else:
            widths, self.widths = (32, 32, 64, 96), (64, 32, 32)
            self.base = SmallEncoder(widths)
        separable = encoder != "resnet18"
        inputs = widths[-1]
        self.up = nn.ModuleList()
        for skip, width in zip(reversed(widths[:-1]), self.widths, strict=True):
            self.up.append(SubPixelUp(inputs, skip, width, separable))
            inputs = width
        self.last = nn.Conv2d(inputs, 16, 3, padding=1)  # the sixteen pixels of a stride-4 cell
        nn.init.normal_(self.last.weight, std=0.01)
        start_at(self.last)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
        return 1 / self.inverse_depth(images)

    def inverse_depth(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
        """1 / metres, between 1 / FARTHEST and 1 / NEAREST."""
        return flip_fused(self._once, images) if self.flip else self._once(images)

    def maps(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """The decoder's maps of strides 16, 8 and 4, with ``widths`` channels."""
        *skips, x = self.base(images)
        maps = []
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
            maps.append(x)
        return maps

    def finest(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 H W"]:
        """Inverse depth at full size of the decoder's map of stride 4."""
        return inverse_of(F.pixel_shuffle(self.last(x), 4))

    def _once(self, images: Tensor) -> Tensor:
        return self.finest(self.maps(images)[-1])


def start_at(last: nn.Conv2d, metres: float = START) -> None:
    """Make the layer before `inverse_of` say this depth everywhere, as long as its weights are small."""
    far, near = 1 / FARTHEST, 1 / NEAREST
    share = (1 / metres - far) / (near - far)
    assert last.bias is not None
    nn.init.constant_(last.bias, torch.logit(torch.tensor(share)).item())


def inverse_of(number: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """1 / metres, between 1 / FARTHEST and 1 / NEAREST, of what a network says, any number."""
    return 1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * torch.sigmoid(number.float())


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
    """Mean |log depth - log ground truth| over pixels with ground truth (> 0) and at most ``most`` metres; 0 without any."""
    known: Bool[Tensor, "b H W"] = torch.isfinite(truth) & (truth > 0) & (truth <= most)
    error = (torch.log(depth[:, 0]) - torch.log(torch.where(known, truth, 1.0))).abs()
    return torch.where(known, error, 0.0).sum() / known.sum().clamp_min(1)


# -- files ----------------------------------------------------------------------------------------------------------------


def save_stream(path: str | Path, stream: SuperDepth, config: StreamConfig) -> None:
    """One safetensors file: the weights, and the configuration as its metadata."""
    state = {name: value.detach().cpu().contiguous() for name, value in stream.state_dict().items()}
    with partial_file(path, parents=True) as partial:
        save_file(state, str(partial), metadata={"depth_stream": json.dumps(asdict(config))})
        partial.chmod(0o644)  # safetensors makes it unreadable for others


def load_stream(path: str | Path) -> tuple[SuperDepth, StreamConfig]:
    """A stream that `save_stream` wrote. Raises InputError for a file that is none."""
    try:
        with safe_open(str(path), "pt") as opened:
            config = StreamConfig(**json.loads((opened.metadata() or {})["depth_stream"]))
        stream = SuperDepth(config.encoder, config.flip)
        stream.load_state_dict(load_file(str(path)))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error) if isinstance(error, InputError) else type(error).__name__
        raise InputError(f"{path}: not a depth stream (monolift depth train writes one): {reason}") from None
    return stream.eval(), config
