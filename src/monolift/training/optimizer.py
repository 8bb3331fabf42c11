"""The optimiser of a recipe, the parts of the backbone that stay as they are, and the averaged weights."""

from __future__ import annotations

import torch
from torch import nn

from monolift.errors import InputError
from monolift.methods.base import Detector, Method
from monolift.methods.recipe import Recipe


def freeze(detector: Detector, recipe: Recipe) -> list[nn.Module]:
    """Stops the training of the parts of the backbone that the recipe names, and returns them.

    A dotted name is a part of a part: "base.stages.0". Raises InputError for a name that the backbone does not have.
    """
    parts = dict(detector.backbone.named_modules())
    missing = [name for name in recipe.freeze if not name or name not in parts]
    if missing:
        known = ", ".join(detector.backbone.parts)
        raise InputError(f"freeze: the backbone has no part {', '.join(missing)}; it has {known}")
    return [parts[name].requires_grad_(False) for name in recipe.freeze]


def make_optimizer(detector: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser with its factors; weight decay on weights of two or more dimensions only.

    Each group keeps its full rate as ``base_lr``; the loop multiplies it by ``recipe.rate``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            lr = recipe.lr * (recipe.backbone_lr_factor if ".backbone." in f".{name}" else 1.0)
            lr *= recipe.bias_lr_factor if name.endswith(".bias") else 1.0
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    listed = [
        {"params": p, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()
    ]
    fused = True if any(p.is_cuda for group in groups.values() for p in group) else None
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=recipe.lr, momentum=0.9, fused=fused)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(listed, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its full rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class Average:
    """The exponential moving average of a detector's weights, which is evaluated; with decay 0 the weights themselves."""

    def __init__(self, detector: Detector, method: Method, decay: float) -> None:
        self.source, self.decay = detector, decay
        self.detector = detector
        if decay:
            self.detector = method.detector(detector.config).to(detector.device)
            self.detector.load_state_dict(detector.state_dict())
            self.detector.eval().requires_grad_(False)

    @torch.no_grad()
    def restart(self) -> None:
        """The average of the present weights alone."""
        if self.decay:
            self.detector.load_state_dict(self.source.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after ``step`` steps in."""
        if not self.decay:
            return
        # EMA warm-up: a small decay at first, so that the average does not keep the untrained weights
        decay = min(self.decay, (1 + step) / (10 + step))
        new, old = self.source.state_dict(), self.detector.state_dict()
        numbers = [name for name, value in old.items() if value.is_floating_point()]
        counts = [name for name in old if name not in set(numbers)]
        # of all weights at once: on a GPU a handful of launches instead of hundreds
        torch._foreach_lerp_([old[name] for name in numbers], [new[name] for name in numbers], 1 - decay)
        if counts:
            torch._foreach_copy_([old[name] for name in counts], [new[name] for name in counts])
