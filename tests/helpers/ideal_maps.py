"""The maps of a network that has learnt its targets by heart."""

from __future__ import annotations

import torch
from torch import Tensor

from monolift.methods.ss3d.assign import Targets
from monolift.methods.ss3d.codec import MOST_SIGMA, SS3DCodec
from monolift.methods.ss3d.parameters import PARAMETERS


def ideal_maps(codec: SS3DCodec, targets: Targets) -> dict[str, Tensor]:
    """SS3D's raw maps that decode to the labels of ``targets``."""
    b, h, w = targets.classes.shape
    inside = targets.classes.clamp_min(0)
    logits = 20.0 * torch.nn.functional.one_hot(inside, len(codec.config.classes) + 1).permute(0, 3, 1, 2)

    def filled(values: Tensor) -> Tensor:
        maps = values.new_zeros(b, h, w, PARAMETERS)
        maps.view(b, h * w, PARAMETERS)[targets.image, targets.cell] = values
        return maps.permute(0, 3, 1, 2)

    unknown = torch.where(targets.known, 0.0, MOST_SIGMA).to(targets.numbers)
    return {
        "classes": logits.to(targets.numbers),
        "parameters": filled(targets.numbers),
        "log_sigma": filled(unknown),
    }
