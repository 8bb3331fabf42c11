"""A small backbone for CPUs: the CSP network and its two-way pyramid of YOLOX-nano, ending in one stride-4 map.

Shape and names follow Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (arXiv 2107.08430), depthwise variant of width 0.25,
so that its published COCO weights (Apache-2.0) can start a training: with a few hundred images the start decides. The last
step, from strides 8 to 32 up to stride 4, is ours; it reads the towers of the detection head, which already know boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from monolift.nn.backbones import Backbone
from monolift.nn.pretrained import LoadReport, Published, ReleasedNames, WeightFile, load_pretrained
from monolift.nn.yolox import load_yolox
from monolift.typing import Float, Tensor


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Separable(nn.Sequential):
    """Depthwise 3x3, then 1x1, each with norm and activation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(ConvNorm(inputs, inputs, 3, stride, groups=inputs), ConvNorm(inputs, outputs))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, channels)
        self.conv = Separable(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.reduce(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Half of the channels pass the bottlenecks, the other half passes by."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.main = ConvNorm(inputs, half)
        self.bypass = ConvNorm(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))
        self.merge = ConvNorm(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([self.blocks(self.main(x)), self.bypass(x)], 1))


class SpatialPyramid(nn.Module):
    """Max pools of 5, 9 and 13 cells beside the map itself. The larger ones are repeated 5-cell pools, which is the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, channels // 2)
        self.merge = ConvNorm(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        pools = [self.reduce(x)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        return self.merge(torch.cat(pools, 1))


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Towers(nn.Module):
    """YOLOX's decoupled head on one pyramid level, without its last layer: what is there, and how large it is."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.entry = ConvNorm(inputs, channels)
        self.what = nn.Sequential(Separable(channels, channels), Separable(channels, channels))
        self.where = nn.Sequential(Separable(channels, channels), Separable(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        return torch.cat([self.what(x), self.where(x)], 1)


class CSPNano(Backbone, Published):
    """CSP backbone + pyramid + head towers + stride-4 map of ``out_channels``.

    Modules are declared in the order in which they run: `monolift.nn.yolox.load_yolox` relies on it.
    """

    strides = (4, 8, 16, 32)
    released_names = ReleasedNames("YOLOX-nano as yolox_nano.onnx", (), ())

    def __init__(self, width: int = 16, out_channels: int = 64) -> None:
        super().__init__()
        c = width
        self.out_channels = out_channels
        # YOLOX gathers 2x2 pixels into channels and convolves 3x3; a 6x6 convolution of stride 2 is the same sum
        self.stem = nn.Sequential(
            nn.Conv2d(3, c, 6, 2, 2, bias=False),
            nn.BatchNorm2d(c, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )
        self.dark2 = nn.Sequential(Separable(c, 2 * c, 2), CSPLayer(2 * c, 2 * c, 1))
        self.dark3 = nn.Sequential(Separable(2 * c, 4 * c, 2), CSPLayer(4 * c, 4 * c, 3))
        self.dark4 = nn.Sequential(Separable(4 * c, 8 * c, 2), CSPLayer(8 * c, 8 * c, 3))
        self.dark5 = nn.Sequential(
            Separable(8 * c, 16 * c, 2), SpatialPyramid(16 * c), CSPLayer(16 * c, 16 * c, 1, shortcut=False)
        )
        self.lateral5 = ConvNorm(16 * c, 8 * c)
        self.top4 = CSPLayer(16 * c, 8 * c, 1, shortcut=False)
        self.lateral4 = ConvNorm(8 * c, 4 * c)
        self.top3 = CSPLayer(8 * c, 4 * c, 1, shortcut=False)
        self.down4 = Separable(4 * c, 4 * c, 2)
        self.bottom4 = CSPLayer(8 * c, 8 * c, 1, shortcut=False)
        self.down5 = Separable(8 * c, 8 * c, 2)
        self.bottom5 = CSPLayer(16 * c, 16 * c, 1, shortcut=False)
        self.towers = nn.ModuleList(Towers(k * c, 4 * c) for k in (4, 8, 16))
        # ours: every level is projected, brought to stride 8, summed, brought to stride 4 and joined with dark2's detail
        self.project = nn.ModuleList(ConvNorm(8 * c, out_channels) for _ in self.towers)
        self.mix8 = Separable(out_channels, out_channels)
        self.detail = ConvNorm(2 * c, out_channels)
        self.mix4 = Separable(out_channels, out_channels)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.pyramid(image)[0]

    def load_pretrained(
        self, file: str | Path | WeightFile, images: Callable[[], Float[Tensor, "b 3 H W"]]
    ) -> LoadReport:
        if not isinstance(file, WeightFile) and Path(file).suffix == ".onnx":
            return load_yolox(self, file, images)
        return load_pretrained(self, file)

    def pyramid(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Maps of strides 4, 8, 16 and 32, ``out_channels`` each; every one but the last holds the coarser ones too."""
        c2 = self.dark2(self.stem(image))
        c3 = self.dark3(c2)
        c4 = self.dark4(c3)
        l5 = self.lateral5(self.dark5(c4))
        l4 = self.lateral4(self.top4(torch.cat([_up(l5), c4], 1)))
        p3 = self.top3(torch.cat([_up(l4), c3], 1))
        n4 = self.bottom4(torch.cat([self.down4(p3), l4], 1))
        n5 = self.bottom5(torch.cat([self.down5(n4), l5], 1))
        levels = [tower(x) for tower, x in zip(self.towers, (p3, n4, n5), strict=True)]
        m3, m4, m5 = (project(x) for project, x in zip(self.project, levels, strict=True))
        m4 = m4 + _up(m5)
        m3 = m3 + _up(m4)
        return [self.mix4(self.detail(c2) + _up(self.mix8(m3))), m3, m4, m5]
