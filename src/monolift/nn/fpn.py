"""Feature pyramids for detectors that read every level (Lin et al., "Feature Pyramid Networks", CVPR 2017).
They read all maps of a `monolift.nn.backbones.Backbone`, of kind "pyramid".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from monolift.nn.backbones import EncoderBackbone
from monolift.nn.blocks import Norm, init_convolutions
from monolift.nn.csp import CSPNano
from monolift.nn.efficientnet import LitePyramid
from monolift.nn.resnet import ResNet
from monolift.typing import Float, Tensor


class FPN(nn.Module):
    """Maps (B, C, h, w) of falling size, finest first -> as many of ``out_channels`` each, and ``extra`` coarser ones.

    Lateral 1 x 1 convolutions, nearest enlargement, 3 x 3 smoothing. The extra levels are strided 3 x 3 convolutions of the
    coarsest output, as in RetinaNet's P6 and P7 (which take C5 there; later code found no difference).
    """

    def __init__(self, channels: Sequence[int], out_channels: int, extra: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in channels)
        self.extra = nn.ModuleList(
            nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) for _ in range(extra)
        )
        init_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for k in reversed(range(len(merged) - 1)):
            merged[k] = merged[k] + F.interpolate(merged[k + 1], size=merged[k].shape[-2:], mode="nearest")
        levels = [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]
        for conv in self.extra:
            levels.append(conv(F.relu(levels[-1])))
        return levels


class ResNetPyramid(EncoderBackbone):
    """RetinaNet's backbone: ResNet, FPN on strides 8 to 32, and two coarser levels, 64 and 128."""

    strides = (8, 16, 32, 64, 128)

    def __init__(self, depth: int, norm: Norm, out_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.base = ResNet(depth, norm)
        self.fpn = FPN(self.base.channels[1:], out_channels, extra=2)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.pyramid(image)[0]

    def pyramid(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        return self.fpn(self.base(image)[1:])


def pyramid_strides(name: str) -> tuple[int, ...]:
    """Strides of the maps of the backbone ``name`` of kind "pyramid", without building it."""
    if name == "efficientnet-lite2":
        return LitePyramid.strides
    return CSPNano.strides if name == "nano" else ResNetPyramid.strides
