"""Backbones by name, behind one interface.

A backbone is a module with ``out_channels`` and ``stride`` = 4 that maps (B, 3, H, W), RGB normalised by the ImageNet
statistics, H and W multiples of 32, to (B, out_channels, H / 4, W / 4).
"""

from __future__ import annotations

from typing import cast

from torch import nn

from monolift.errors import InputError
from monolift.nn.blocks import Norm

NAMES = ("nano", "dla34", "resnet18", "resnet34")


def build_backbone(name: str, norm: str = "group", deformable: bool = True) -> nn.Module:
    """``nano`` (0.9 M parameters, the CPU default), ``dla34`` (19 M, as published), ``resnet18``, ``resnet34``, or
    ``timm:NAME`` for any feature extractor of timm (extra ``monolift[timm]``).

    norm: "group" or "batch", for the networks that come in both. deformable: DLA-34's up-path.
    """
    if norm not in ("group", "batch"):
        raise InputError(f"norm must be group or batch, got {norm!r}")
    kind = cast(Norm, norm)
    if name == "nano":
        from monolift.nn.csp import CSPNano

        return CSPNano()
    if name == "dla34":
        from monolift.nn.dla import DLA34Up

        return DLA34Up(norm=kind, deformable=deformable)
    if name in ("resnet18", "resnet34"):
        from monolift.nn.resnet import ResNetFPN

        return ResNetFPN(int(name[6:]), norm=kind)
    if name.startswith("timm:"):
        from monolift.nn.timm_backbone import TimmFPN

        return TimmFPN(name[5:])
    raise InputError(f"backbone must be one of {', '.join(NAMES)} or timm:NAME, got {name!r}")
