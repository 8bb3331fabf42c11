"""DRN-C-26 (Yu, Koltun, Funkhouser, "Dilated Residual Networks", CVPR 2017): the encoder of SS3D's author."""

from __future__ import annotations

from torch import nn

from monolift.nn.backbones import EncoderBackbone
from monolift.nn.blocks import Norm, conv_norm_relu, init_convolutions
from monolift.nn.pretrained import Published, ReleasedNames
from monolift.nn.resnet import RELEASED_RENAMES, ResidualBlock
from monolift.typing import Float, Tensor

# channels, blocks, stride, dilation, residual: levels 1 to 8 of the paper's figure 5 and of the released code
_LEVELS = (
    (16, 1, 1, 1, True),
    (32, 1, 2, 1, True),
    (64, 2, 2, 1, True),
    (128, 2, 2, 1, True),
    (256, 2, 1, 2, True),
    (512, 2, 1, 4, True),
    (512, 1, 1, 2, False),
    (512, 1, 1, 1, False),
)


class DRNC26(Published):
    """Image (B, 3, H, W) -> one map (B, 512, ceil(H / 8), ceil(W / 8)).

    A ResNet-18 without pooling whose last two stages dilate instead of striding, and two levels without shortcuts after it,
    of falling dilation, against the grid of isolated values that dilation leaves (degridding, section 4 of the paper).
    The first block of a dilated level has both its convolutions at the level's dilation, as released.
    """

    channels, stride = 512, 8
    released_names = ReleasedNames(
        like="the released drn_c_26 (github.com/fyu/drn)",
        renames=(
            *RELEASED_RENAMES,
            *((rf"^layer{level + 1}\.", f"levels.{level}.") for level in range(len(_LEVELS))),
        ),
        unused=(r"fc\.",),
    )

    def __init__(self, norm: Norm = "batch") -> None:
        super().__init__()
        before = _LEVELS[0][0]
        self.stem = conv_norm_relu(3, before, 7, norm)
        self.levels = nn.ModuleList()
        for channels, blocks, stride, dilation, residual in _LEVELS:
            block = ResidualBlock if residual else PlainBlock
            rates = (dilation, dilation)
            first = block(before, channels, norm, stride=stride, dilation=rates)
            rest = (block(channels, channels, norm, dilation=rates) for _ in range(blocks - 1))
            self.levels.append(nn.Sequential(first, *rest))
            before = channels
        init_convolutions(self)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        x = self.stem(image)
        for level in self.levels:
            x = level(x)
        return x


class PlainBlock(ResidualBlock):
    """A residual block without its sum."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o oh ow"]:  # type: ignore[override]
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)))


class DRNC26Map(EncoderBackbone):
    """DRN-C-26 as a backbone: image (B, 3, H, W) -> one map (B, 512, H / 8, W / 8); all of it starts from released weights."""

    strides, out_channels = (DRNC26.stride,), DRNC26.channels

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.base = DRNC26(norm)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.base(image)
