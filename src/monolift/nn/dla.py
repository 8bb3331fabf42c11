"""DLA-34 and the up-path that SMOKE and CenterNet read it with.

Yu, Wang, Shelhamer, Darrell, "Deep Layer Aggregation", CVPR 2018; the deformable up-path is that of Zhou,
Wang, Kraehenbuehl, "Objects as Points", 2019. GroupNorm in place of BatchNorm is SMOKE's.

    image -> DLA34 -> maps at strides 4, 8, 16, 32 -> DLAUp -> maps at 4, 8, 16 -> IDAUp -> one map at stride
    4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from monolift.nn.backbones import EncoderBackbone
from monolift.nn.blocks import BasicBlock, Norm, conv_norm_relu, init_convolutions, make_norm
from monolift.nn.deform import DeformConv2d
from monolift.nn.pretrained import Published, ReleasedNames
from monolift.typing import Float, Tensor


class DLA34(Published):
    """The 34-layer base network: image (B, 3, H, W), H and W multiples of 32 -> four maps.

    ``channels`` and ``strides`` describe the maps. 15.23 M parameters: the 15.27 M of other counts include
    two projections that the published code builds and never uses (see ``Tree``).
    """

    channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    strides: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)
    released_names = ReleasedNames(
        like="timm's dla34.in1k or the original dla34-ba72cf86.pth",
        renames=(
            (r"^base_layer\.", "stem."),
            (r"\.bn([12])\.", r".norm\1."),
            (r"\.root\.bn\.", ".root.norm."),
        ),
        unused=(r"fc\.", r"level[34]\.project\."),
    )

    def __init__(self, norm: Norm = "group") -> None:
        super().__init__()
        self.stem = conv_norm_relu(3, 16, 7, norm)
        self.level0 = conv_norm_relu(16, 16, 3, norm)
        self.level1 = conv_norm_relu(16, 32, 3, norm, stride=2)
        self.level2 = Tree(1, 32, 64, norm, stride=2)
        self.level3 = Tree(2, 64, 128, norm, stride=2, root_sees_input=True)
        self.level4 = Tree(2, 128, 256, norm, stride=2, root_sees_input=True)
        self.level5 = Tree(1, 256, 512, norm, stride=2, root_sees_input=True)
        init_convolutions(self)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        height, width = image.shape[-2:]
        if not torch.compiler.is_compiling() and (height % 32 or width % 32):
            raise ValueError(f"DLA34 needs image sides that are multiples of 32, got {height} x {width}")
        x = self.level1(self.level0(self.stem(image)))
        maps = []
        for level in (self.level2, self.level3, self.level4, self.level5):
            x = level(x)
            maps.append(x)
        return maps


class Tree(nn.Module):
    """Hierarchical aggregation: two subtrees in a row and, at the end, a root that sees what every subtree gave.

    The published code also gives every deeper tree a 1 x 1 projection of its input whose output nothing reads
    (41,728 parameters in DLA-34). It is left out here and its entries are skipped on loading, since
    parameters without gradient break DistributedDataParallel.

    Args:
        depth: 1, the subtrees are residual blocks; 2, they are trees, and the last one's root serves for both.
        root_sees_input: the root also takes the (pooled) input of the whole tree.
        extra_channels: channels of the maps that the caller hands to the root.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        *,
        stride: int = 1,
        root_sees_input: bool = False,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.root_sees_input = root_sees_input
        self.pool = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        extra_channels += in_channels if root_sees_input else 0
        self.tree1: nn.Module
        self.tree2: nn.Module
        if depth > 1:
            self.tree1 = Tree(depth - 1, in_channels, out_channels, norm, stride=stride)
            self.tree2 = Tree(
                depth - 1, out_channels, out_channels, norm, extra_channels=extra_channels + out_channels
            )
            return
        self.tree1 = BasicBlock(in_channels, out_channels, norm, stride=stride)
        self.tree2 = BasicBlock(out_channels, out_channels, norm)
        self.root = Root(2 * out_channels + extra_channels, out_channels, norm)
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), make_norm(norm, out_channels)
            )

    def forward(
        self, x: Float[Tensor, "b c h w"], extra: Sequence[Tensor] = ()
    ) -> Float[Tensor, "b o oh ow"]:
        """``extra``: maps of the output's size for the root, in the order in which they arose."""
        pooled = self.pool(x)
        if self.root_sees_input:
            extra = (*extra, pooled)
        if self.depth > 1:
            first = self.tree1(x)
            return self.tree2(first, (*extra, first))
        first = self.tree1(x, self.project(pooled))
        second = self.tree2(first, first)
        return self.root((second, first, *extra))


class Root(nn.Module):
    """Aggregation node: concatenation, 1 x 1 convolution, norm, ReLU; no residual sum in DLA-34."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.relu(self.norm(self.conv(torch.cat(list(maps), dim=1))))


class Node(nn.Module):
    """3 x 3 convolution, deformable or plain, then norm and ReLU: SMOKE's projections and aggregation nodes."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, deformable: bool) -> None:
        super().__init__()
        self.conv = (DeformConv2d if deformable else _plain_conv)(in_channels, out_channels)
        self.norm = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        return self.relu(self.norm(self.conv(x)))


def _plain_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)  # PyTorch's default start equals DeformConv2d's
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Upsample(nn.ConvTranspose2d):
    """Learned enlargement by ``factor``, channel by channel, that starts as bilinear interpolation."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(
            channels, channels, 2 * factor, factor, padding=factor // 2, groups=channels, bias=False
        )
        if factor % 2:
            raise ValueError(f"factor should be even, got {factor}")
        tent = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()
        with torch.no_grad():
            self.weight.copy_(tent[:, None] * tent)


class IDAUp(nn.Module):
    """Iterative aggregation: each coarser map is projected, enlarged, added to the last result; then a node.

    channels, factors: of the maps, finest first; ``factors[i]`` is map i's stride over the finest map's.
    """

    def __init__(
        self, out_channels: int, channels: Sequence[int], factors: Sequence[int], norm: Norm, deformable: bool
    ) -> None:
        super().__init__()
        coarser = list(zip(channels, factors, strict=True))[1:]
        self.project = nn.ModuleList(Node(count, out_channels, norm, deformable) for count, _ in coarser)
        self.upsample = nn.ModuleList(Upsample(out_channels, factor) for _, factor in coarser)
        self.node = nn.ModuleList(Node(out_channels, out_channels, norm, deformable) for _ in coarser)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, finest first -> as many at the finest one's stride; the i-th aggregates the maps 0 to i."""
        merged = [maps[0]]
        for x, project, upsample, node in zip(maps[1:], self.project, self.upsample, self.node, strict=True):
            merged.append(node(upsample(project(x)) + merged[-1]))
        return merged


class DLAUp(nn.Module):
    """Maps at strides s, 2s, 4s, ..., finest first -> aggregated maps of the same strides and channels.

    Starting from the two coarsest, each step takes one finer map in and aggregates all the maps below it once
    more. The coarsest map passes through.
    """

    def __init__(self, channels: Sequence[int], norm: Norm, deformable: bool) -> None:
        super().__init__()
        self.step = nn.ModuleList()
        for finest in reversed(range(len(channels) - 1)):
            coarser = len(channels) - 1 - finest
            # After the first step every coarser map has the channels and the stride of the step before.
            below = [channels[finest + 1]] * coarser
            self.step.append(
                IDAUp(channels[finest], [channels[finest], *below], [1] + [2] * coarser, norm, deformable)
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        current = list(maps)
        outputs = [current[-1]]
        for finest, step in zip(reversed(range(len(maps) - 1)), self.step, strict=True):
            current[finest:] = step(current[finest:])
            outputs.insert(0, current[-1])
        return outputs


class DLA34Up(EncoderBackbone):
    """DLA-34 with its up-path: image (B, 3, H, W), sides multiples of 32 -> one map (B, 64, H / 4, W / 4).

    Args:
        deformable: SMOKE's deformable convolutions in the up-path's 16 nodes (3.94 M parameters, about twice the time of
            plain ones on a CPU); False puts plain 3 x 3 convolutions there, for runtimes without DeformConv.
    """

    out_channels = 64

    def __init__(self, norm: Norm = "group", *, deformable: bool = True) -> None:
        super().__init__()
        self.base = DLA34(norm)
        self.up = DLAUp(self.base.channels, norm, deformable)
        self.merge = IDAUp(self.out_channels, self.base.channels[:3], (1, 2, 4), norm, deformable)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 64 oh ow"]:
        return self.merge(self.up(self.base(image))[:3])[-1]
