"""Feature pyramids for detectors that read every level (Lin et al., "Feature Pyramid Networks", CVPR 2017).

A pyramid has ``strides``, finest first, ``out_channels``, the same at each level, and ``pyramid(images)``, which gives the
maps. Published backbone weights go into ``base`` where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import nn

from monolift.errors import InputError
from monolift.nn.blocks import Norm, init_convolutions
from monolift.nn.csp import CSPNano
from monolift.nn.resnet import ResNet
from monolift.typing import Float, Tensor

NAMES = ("nano", "resnet18", "resnet34")


class NanoPyramid(CSPNano):
    """:class:`CSPNano` with all four of its levels: strides 4 to 32. Same weights, same names."""

    strides = (4, 8, 16, 32)


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


class ResNetPyramid(nn.Module):
    """RetinaNet's backbone: ResNet, FPN on strides 8 to 32, and two coarser levels, 64 and 128."""

    strides = (8, 16, 32, 64, 128)

    def __init__(self, depth: int, norm: Norm, out_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.base = ResNet(depth, norm)
        self.fpn = FPN(self.base.channels[1:], out_channels, extra=2)

    def pyramid(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        return self.fpn(self.base(image)[1:])


def pyramid_strides(name: str) -> tuple[int, ...]:
    """Of :func:`build_pyramid`'s maps, without building it."""
    return NanoPyramid.strides if name == "nano" else ResNetPyramid.strides


def build_pyramid(name: str, norm: str = "group", out_channels: int = 64) -> NanoPyramid | ResNetPyramid:
    """``nano`` (small, for CPUs), ``resnet18`` or ``resnet34``; norm: "group" or "batch", for the ResNets."""
    if name == "nano":
        return NanoPyramid(out_channels=out_channels)
    if name in NAMES:
        return ResNetPyramid(int(name[6:]), cast(Norm, norm), out_channels)
    raise InputError(f"backbone must be one of {', '.join(NAMES)}, got {name!r}")
