"""EfficientNet-Lite2 as a backbone: a network with ImageNet weights that is fast on a CPU.

Tan and Le, "EfficientNet" (arXiv 1905.11946), width 1.1 and depth 1.2, in the Lite variant that Google published for phones:
no squeeze-and-excitation, ReLU6 in place of swish, and a stem and a first stage that the factors do not scale.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import nn

from monolift.nn.backbones import EncoderBackbone
from monolift.nn.pretrained import Published, ReleasedNames
from monolift.typing import Float, Tensor


class Stage(NamedTuple):
    """A row of the paper's table 1. stride: of the first block; expansion: of the channels inside a block."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)
LAST_OF_STRIDE = (1, 2, 4, 6)  # stages that end strides 4, 8, 16 and 32
STRIDES = (4, 8, 16, 32)


def _conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, where ``act``, ReLU6.

    A strided convolution pads as TensorFlow's SAME does on even sides: ``kernel - stride`` in all, the smaller half before.
    """
    layers: list[nn.Module] = []
    padding = (kernel - 1) // 2
    if stride > 1:
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        layers.append(nn.ZeroPad2d((before, after, before, after)))
        padding = 0
    layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
    if act:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedBottleneck(nn.Module):
    """1x1 to ``expansion`` times the channels, depthwise, 1x1 without activation; a residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        parts = [_conv_norm(inputs, wide)] if expansion > 1 else []
        parts.append(_conv_norm(wide, wide, kernel, stride, groups=wide))
        parts.append(_conv_norm(wide, outputs, act=False))
        self.body = nn.Sequential(*parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o oh ow"]:
        y = self.body(x)
        return x + y if self.residual else y


class EfficientNetLite2(Published):
    """(B, 3, H, W), sides multiples of 32 -> four maps of ``channels`` at strides 4, 8, 16 and 32; 4.4 M parameters.

    The ImageNet weights are Google's (Apache-2.0). Their images are (pixel - 127) / 128; a file that fits has that folded into
    its first convolution and norm, so that it takes images normalised by the ImageNet statistics as every backbone here does.
    """

    channels: ClassVar[tuple[int, ...]] = tuple(STAGES[k].channels for k in LAST_OF_STRIDE)
    released_names = ReleasedNames(
        "EfficientNet-Lite2 as efficientnet_lite2_imagenet.safetensors", renames=(), unused=()
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        inputs = 32
        for blocks, kernel, stride, expansion, outputs in STAGES:
            first = InvertedBottleneck(inputs, outputs, kernel, stride, expansion)
            others = [InvertedBottleneck(outputs, outputs, kernel, 1, expansion) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *others))
            inputs = outputs

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        x, maps = self.stem(image), []
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in LAST_OF_STRIDE:
                maps.append(x)
        return maps


class SeparableConv(nn.Sequential):
    """Depthwise convolution, then 1x1, each with batch norm and SiLU."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.SiLU(inplace=True),
        )


class LiteFPN(EncoderBackbone):
    """`EfficientNetLite2` with a light top-down pyramid: (B, 3, H, W) -> (B, out_channels, H / 4, W / 4).

    Each level is projected, added to the enlarged coarser one and smoothed by a separable convolution: 5 x 5, but for the
    finest level, which has three quarters of all cells, 3 x 3. width: channels of the coarser levels.
    """

    def __init__(self, out_channels: int = 64, width: int = 96) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.base = EfficientNetLite2()
        widths = (out_channels, width, width, width)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 1, bias=False), nn.BatchNorm2d(w))
            for c, w in zip(EfficientNetLite2.channels, widths, strict=True)
        )
        self.mix = nn.ModuleList(
            SeparableConv(w, kernel) for w, kernel in zip(widths, (3, 5, 5, 5), strict=True)
        )
        self.narrow = nn.Conv2d(width, out_channels, 1)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self._levels(image)[0]

    def _levels(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Maps of strides 4, 8, 16, 32."""
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.base(image), strict=True)]
        levels = [self.mix[3](maps[3])]
        for k in (2, 1, 0):
            coarser = levels[0] if k else self.narrow(levels[0])
            levels.insert(0, self.mix[k](maps[k] + F.interpolate(coarser, scale_factor=2.0, mode="nearest")))
        return levels


class LitePyramid(LiteFPN):
    """As `LiteFPN`, with every level to read: ``out_channels`` each."""

    strides = STRIDES

    def __init__(self, out_channels: int = 64) -> None:
        super().__init__(out_channels, out_channels)

    def pyramid(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        return self._levels(image)
