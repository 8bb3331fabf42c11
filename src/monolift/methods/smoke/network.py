"""SMOKE's network: a stride-4 map and two heads on it. Knows no boxes; only the codec knows what a channel means."""

from __future__ import annotations

import torch
from torch import nn

from monolift.nn.backbones import build_backbone
from monolift.typing import Float, Tensor

HEATMAP_PRIOR = -2.19
"""Logit of 0.10: bias initialisation for a prior of 0.1 (RetinaNet), which keeps the first focal losses small."""


class SmokeNetwork(nn.Module):
    """(B, 3, H, W) -> {"heatmap": (B, K, H/4, W/4) logits, "regression": (B, C, H/4, W/4)}.

    Args:
        regression: channels of each regression head; their maps are joined along C. The paper has one head of 8.
        dense_depth: in training there is also "depth", (B, 1, H/4, W/4), an auxiliary map that only trains the backbone.
        head_norm: "group" or "batch".
    """

    def __init__(
        self,
        backbone: str,
        classes: int,
        regression: tuple[int, ...],
        head_channels: int,
        norm: str,
        deformable: bool,
        dense_depth: bool = False,
        head_norm: str = "group",
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, norm, deformable)
        width = self.backbone.out_channels
        self.heatmap = _head(width, head_channels, classes, head_norm)
        self.regression = nn.ModuleList(
            _head(width, head_channels, outputs, head_norm) for outputs in regression
        )
        self.dense_depth = nn.Conv2d(width, 1, 1) if dense_depth else None
        nn.init.constant_(self.heatmap[-1].bias, HEATMAP_PRIOR)  # type: ignore[arg-type]
        for layer in self.regression.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> dict[str, Tensor]:
        features = self.backbone(images)
        regression = torch.cat([head(features) for head in self.regression], 1)
        # float32 out of any autocast: metres need more than bfloat16's three digits
        maps = {"heatmap": self.heatmap(features).float(), "regression": regression.float()}
        if self.training and self.dense_depth is not None:
            maps["depth"] = self.dense_depth(features).float()
        return maps


def _head(inputs: int, hidden: int, outputs: int, norm: str) -> nn.Sequential:
    """3x3, group norm (or batch norm, not in the paper), ReLU, 1x1 (paper section 3.2).

    The released code's 32 groups of 256 channels are groups of eight; fewer channels keep eight to a group, since groups of
    two would be close to instance norm, which forgets how strong a feature was.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 3, padding=1),
        nn.GroupNorm(max(1, hidden // 8), hidden) if norm == "group" else nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 1),
    )
