"""The small blocks that both backbones are built of."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from monolift.typing import Float, Tensor

Norm = Literal["group", "batch"]


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """``"group"``: GroupNorm as in SMOKE, 32 groups, or 16 where 32 is no divisor. ``"batch"``: BatchNorm.

    GroupNorm does not depend on the batch: it trains well with two images per device, where batch statistics
    are too noisy.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm != "group":
        raise ValueError(f"norm should be 'group' or 'batch', got {norm!r}")
    groups = 32 if channels % 32 == 0 else 16
    if channels % groups:
        raise ValueError(f"GroupNorm needs a multiple of 16 channels, got {channels}")
    return nn.GroupNorm(groups, channels)


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, norm: Norm, *, stride: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size (before its stride), norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        make_norm(norm, out_channels),
        nn.ReLU(inplace=True),
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a sum (He et al., CVPR 2016).

    The caller brings the shortcut, already in the output's shape. dilation: of the first and the second
    convolution; a stage that dilates instead of striding starts with the rate of the stage before.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        *,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        first, second = dilation
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride, padding=first, dilation=first, bias=False
        )
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=second, dilation=second, bias=False)
        self.norm2 = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(
        self, x: Float[Tensor, "b c h w"], shortcut: Float[Tensor, "b o oh ow"]
    ) -> Float[Tensor, "b o oh ow"]:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu(y + shortcut)


def init_convolutions(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out (He et al., ICCV 2015) in every plain convolution below ``module``."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
