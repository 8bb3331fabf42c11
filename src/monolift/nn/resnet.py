"""ResNet-18 and -34 (He et al., CVPR 2016) as feature pyramids, with a light top-down path to one stride-4 map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from monolift.nn.backbones import EncoderBackbone
from monolift.nn.blocks import BasicBlock, Norm, conv_norm_relu, init_convolutions, make_norm
from monolift.nn.pretrained import Published, ReleasedNames
from monolift.typing import Float, Tensor

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
RELEASED_RENAMES = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
)
"""From the names that released residual networks give their stem and blocks to ours."""


class ResNet(Published):
    """Image (B, 3, H, W) -> four maps; ``channels`` and ``strides`` describe them.

    output_stride: 32 is the plain network. 16 or 8 keep the last one or two stages at that stride and dilate
        their convolutions instead (Yu, Koltun, Funkhouser, "Dilated Residual Networks", CVPR 2017): same
        weights, same view, finer maps.
    """

    channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    released_names = ReleasedNames(
        like="timm's and torchvision's resnet18 and resnet34",
        renames=(
            *RELEASED_RENAMES,
            *((rf"^layer{stage + 1}\.", f"stages.{stage}.") for stage in range(4)),
        ),
        unused=(r"fc\.",),
    )

    def __init__(self, depth: int = 18, norm: Norm = "batch", *, output_stride: int = 32) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"depth should be one of {sorted(_BLOCKS)}, got {depth}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride should be 8, 16 or 32, got {output_stride}")
        self.strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
        self.stem = conv_norm_relu(3, 64, 7, norm, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        in_channels, dilation = 64, 1
        for stage, (blocks, out_channels) in enumerate(zip(_BLOCKS[depth], self.channels, strict=True)):
            stride, before = (2 if stage > 0 else 1), dilation
            if 4 * 2**stage > output_stride:
                stride, dilation = 1, 2 * dilation
            self.stages.append(
                nn.Sequential(
                    ResidualBlock(
                        in_channels, out_channels, norm, stride=stride, dilation=(before, dilation)
                    ),
                    *(
                        ResidualBlock(out_channels, out_channels, norm, dilation=(dilation, dilation))
                        for _ in range(blocks - 1)
                    ),
                )
            )
            in_channels = out_channels
        init_convolutions(self)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x = self.pool(self.stem(image))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ResidualBlock(BasicBlock):
    """A basic block with its own shortcut: the identity, or a strided 1 x 1 convolution where the shape changes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        *,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__(in_channels, out_channels, norm, stride=stride, dilation=dilation)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), make_norm(norm, out_channels)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o oh ow"]:  # type: ignore[override]
        return super().forward(x, self.shortcut(x))


class FPNUp(nn.Module):
    """Top-down pyramid (Lin et al., CVPR 2017) that returns only its finest map, of ``maps[0]``'s size.

    Deviations from the paper: bilinear enlargement instead of nearest, and one 3 x 3 convolution, at the end,
    since only the finest map is read.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels)
        self.smooth = conv_norm_relu(out_channels, out_channels, 3, norm)
        init_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "b o h w"]:
        *finer, top = (lateral(x) for lateral, x in zip(self.lateral, maps, strict=True))
        for x in reversed(finer):
            if top.shape[-2:] != x.shape[-2:]:
                top = F.interpolate(top, size=x.shape[-2:], mode="bilinear", align_corners=False)
            top = x + top
        return self.smooth(top)


class ResNetFPN(EncoderBackbone):
    """ResNet with ``FPNUp``: image (B, 3, H, W) -> one map (B, out_channels, H / 4, W / 4), sizes rounded up.

    The light stand-in for ``DLA34Up``.
    """

    def __init__(
        self,
        depth: int = 18,
        norm: Norm = "batch",
        *,
        out_channels: int = 64,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.base = ResNet(depth, norm, output_stride=output_stride)
        self.up = FPNUp(self.base.channels, out_channels, norm)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b o oh ow"]:
        return self.up(self.base(image))


class DilatedResNet(EncoderBackbone):
    """ResNet kept at stride 8 by dilation: image (B, 3, H, W) -> one map (B, 512, H / 8, W / 8).

    Beside ``drn_c_26`` a network for which every deep-learning library ships weights: it lacks that one's two last levels,
    which smooth the grid that dilation leaves.
    """

    strides, out_channels = (8,), ResNet.channels[-1]

    def __init__(self, depth: int, norm: Norm) -> None:
        super().__init__()
        self.base = ResNet(depth, norm, output_stride=8)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.base(image)[-1]
