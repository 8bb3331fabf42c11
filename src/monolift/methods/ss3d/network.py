"""SS3D's network: a class map, 26 parameters and their log sigmas at stride 4. Knows no boxes; the codec knows the channels."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from monolift.nn.backbones import build_backbone
from monolift.typing import Float, Tensor

STRIDE = 4
TASKS = {
    "box2d": 4,
    "distance": 1,
    "direction": 2,
    "size": 3,
    "corners": 16,
}  # channels, in the order of the parameters
BACKGROUND_BIAS = 6.0  # bias initialisation: most cells are background
LOG_SIGMA_BIAS = 2.0  # initial sigma: 7 units; of scaled heads 1 unit, as in the author's code


class SS3DNetwork(nn.Module):
    """(B, 3, H, W) -> {"classes": (B, K + 1, H/4, W/4) logits, "parameters": (B, 26, ...), "log_sigma": (B, 26, ...)}."""

    def __init__(
        self,
        backbone: str,
        classes: int,
        norm: str,
        head_channels: int,
        per_cell_sigma: bool,
        sigma_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.sigma_scale = sigma_scale
        bias_of_sigma = LOG_SIGMA_BIAS if sigma_scale == 1 else 0.0
        self.backbone = build_backbone(backbone, norm, kind="dilated")
        inputs, factor = self.backbone.out_channels, self.backbone.stride // STRIDE
        hidden = head_channels or 2 * inputs
        self.classes = _head(inputs, hidden, classes + 1, factor)
        # heads of the parameters; the name is that of earlier checkpoints
        self.hints = nn.ModuleDict({task: _head(inputs, hidden, n, factor) for task, n in TASKS.items()})
        if per_cell_sigma:  # "a second identical head per task" (author's code)
            self.sigmas = nn.ModuleDict({task: _head(inputs, hidden, n, factor) for task, n in TASKS.items()})
            for head in self.sigmas.values():
                _set_bias(head, bias_of_sigma)
        else:
            self.log_sigma = nn.Parameter(torch.full((sum(TASKS.values()),), bias_of_sigma))
        self.per_cell_sigma = per_cell_sigma
        bias = _set_bias(self.classes, 0.0)
        nn.init.constant_(bias[: factor * factor], BACKGROUND_BIAS)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> dict[str, Tensor]:
        features = self.backbone(images)
        parameters = torch.cat([head(features) for head in self.hints.values()], 1)
        if self.per_cell_sigma:
            log_sigma = torch.cat([head(features) for head in self.sigmas.values()], 1)
        else:
            log_sigma = self.log_sigma[:, None, None].expand_as(parameters)
        if self.sigma_scale != 1:
            log_sigma = self.sigma_scale * log_sigma
        # float32 out of any autocast: metres need more than bfloat16's three digits
        raw = {"classes": self.classes(features), "parameters": parameters, "log_sigma": log_sigma}
        return {name: value.float() for name, value in raw.items()}


def _head(inputs: int, hidden: int, outputs: int, factor: int) -> nn.Sequential:
    """1x1, norm, ReLU, 1x1 (author's code), and pixel shuffle where the features are coarser than stride 4."""
    last = nn.Conv2d(hidden, outputs * factor * factor, 1)
    nn.init.normal_(last.weight, std=0.01)
    first = nn.Conv2d(inputs, hidden, 1, bias=False)
    layers = [first, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), last]
    return nn.Sequential(*layers, nn.PixelShuffle(factor))


def _set_bias(head: nn.Module, value: float) -> Tensor:
    bias = cast(nn.Conv2d, cast(nn.Sequential, head)[3]).bias
    assert bias is not None
    nn.init.constant_(bias, value)
    return bias
