"""Backbones by name, behind one interface: `Backbone` and its one factory, `build_backbone`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import nn

from monolift.errors import InputError
from monolift.nn.blocks import Norm
from monolift.nn.pretrained import LoadReport, Published, WeightFile, load_pretrained
from monolift.typing import Float, Tensor

NAMES = {
    "map": ("nano", "efficientnet-lite2", "dla34", "resnet18", "resnet34"),
    "dilated": ("nano", "efficientnet-lite2", "dla34", "resnet18", "resnet34", "drn_c_26"),
    "pyramid": ("nano", "efficientnet-lite2", "resnet18", "resnet34"),
}
"""Names by kind, see `build_backbone`; beside "pyramid", timm:NAME too."""


class Backbone(nn.Module, ABC):
    """(B, 3, H, W) images -> feature maps; RGB normalised by the ImageNet statistics, H and W multiples of 32.

    Attributes:
        out_channels: channels of each map
        strides: strides of the maps, finest first
    """

    out_channels: int
    strides: tuple[int, ...] = (4,)

    @property
    def stride(self) -> int:
        """Of the finest map, which `forward` gives."""
        return self.strides[0]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Its parts by name: ``Recipe.freeze`` takes these, and parts of them, as in base.stages.0."""
        return dict(self.named_children())

    @abstractmethod
    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """The finest map."""

    def pyramid(self, image: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """The maps of all ``strides``, finest first."""
        return [self(image)]

    @abstractmethod
    def load_pretrained(
        self, file: str | Path | WeightFile, images: Callable[[], Float[Tensor, "b 3 H W"]]
    ) -> LoadReport:
        """Fill the backbone, or its ``base``, from a file of published weights or of ours, completely; what was taken.

        Args:
            file: a path, or what `monolift.nn.pretrained.read_weights` gave.
            images: gives a few normalised training images, for files without norms.

        Raises:
            InputError: naming the files that fit.
        """


class EncoderBackbone(Backbone):
    """A backbone whose ``base`` is a published network; the rest starts at random."""

    base: Published

    def load_pretrained(
        self, file: str | Path | WeightFile, images: Callable[[], Float[Tensor, "b 3 H W"]]
    ) -> LoadReport:
        return load_pretrained(self.base, file)


def build_backbone(
    name: str, norm: str = "group", deformable: bool = True, *, kind: str = "map", out_channels: int = 64
) -> Backbone:
    """``nano`` (0.9 M parameters, the CPU default), ``efficientnet-lite2`` (4.4 M, ImageNet weights, for CPUs too), ``dla34``
    (19 M, as published), ``resnet18``, ``resnet34``, ``drn_c_26`` (20.6 M, as published; kind "dilated"), or ``timm:NAME`` for
    any feature extractor of timm (extra ``monolift[timm]``).

    norm: "group" or "batch", for the networks that come in both. deformable: DLA-34's up-path.
    kind: what is read: "map", one map of stride 4; "dilated", the same, but of stride 8 from ResNets that keep it by dilation;
    "pyramid", every level, ``out_channels`` each: strides 4 to 32, or 8 to 128 as in RetinaNet.
    """
    if norm not in ("group", "batch"):
        raise InputError(f"norm must be group or batch, got {norm!r}")
    layer = cast(Norm, norm)
    timm = kind != "pyramid"
    if timm and name.startswith("timm:"):
        from monolift.nn.timm_backbone import TimmFPN

        return TimmFPN(name[5:], out_channels)
    if name not in NAMES[kind]:
        raise InputError(
            f"backbone must be one of {', '.join(NAMES[kind])}{' or timm:NAME' * timm}, got {name!r}"
        )
    if name == "nano":
        from monolift.nn.csp import CSPNano

        return CSPNano(out_channels=out_channels)
    if name == "efficientnet-lite2":
        from monolift.nn.efficientnet import LiteFPN, LitePyramid

        return LitePyramid(out_channels) if kind == "pyramid" else LiteFPN(out_channels)
    if name == "dla34":
        from monolift.nn.dla import DLA34Up

        return DLA34Up(norm=layer, deformable=deformable)
    if name == "drn_c_26":
        from monolift.nn.drn import DRNC26Map

        return DRNC26Map(layer)
    depth = int(name.removeprefix("resnet"))
    if kind == "pyramid":
        from monolift.nn.fpn import ResNetPyramid

        return ResNetPyramid(depth, layer, out_channels)
    from monolift.nn.resnet import DilatedResNet, ResNetFPN

    return (
        DilatedResNet(depth, layer)
        if kind == "dilated"
        else ResNetFPN(depth, layer, out_channels=out_channels)
    )
