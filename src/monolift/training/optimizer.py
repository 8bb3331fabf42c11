"""What a training starts from: weights, which of them stay, and the optimiser for the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monolift.errors import InputError
from monolift.inference import checkpoint
from monolift.methods.recipe import Recipe
from monolift.typing import Tensor


def origin(options: Any, pictures: int) -> dict[str, Any]:
    """What the checkpoint's card says of its training: names of data sets and splits (no paths), preset, settings, seed."""

    def name(path: str | Path | None) -> str | None:
        return None if path is None else Path(path).name

    return {
        "data": [Path(root).resolve().name for root in options.data],
        "split": name(options.split),
        "val_split": name(options.val_split),
        "pictures": pictures,
        "preset": options.preset,
        "settings": list(options.settings),
        "init": name(options.init),
        "seed": options.seed,
    }


def freeze(detector: Any, recipe: Recipe) -> list[nn.Module]:
    """Stops the training of the parts that the recipe names, and returns them."""
    backbone = detector.network.backbone
    parts = dict(backbone.named_children())
    missing = [name for name in recipe.freeze if name not in parts]
    if missing:
        raise InputError(f"freeze: the backbone has no part {', '.join(missing)}; it has {', '.join(parts)}")
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
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=recipe.lr, momentum=0.9)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(listed)


def initialise(detector: Any, path: str | Path, pictures: Callable[[], Tensor]) -> None:
    """Weights to start from: another checkpoint, of which what fits is taken, or a file for the backbone alone.

    pictures: gives a few normalised training pictures (b, 3, h, w) where a file needs them.
    Raises InputError where nothing fits.
    """
    path = Path(path)
    if path.is_dir():
        other = checkpoint.load(path)
        own = detector.state_dict()
        fitting = {k: v for k, v in other.state_dict().items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise InputError(f"{path}: no weight of this checkpoint fits the network")
        detector.load_state_dict({**own, **fitting})
    elif path.suffix == ".onnx":
        from monolift.nn.yolox import load_yolox

        load_yolox(detector.network.backbone, path, pictures())
    else:
        from monolift.nn.pretrained import load_pretrained

        backbone = detector.network.backbone
        load_pretrained(getattr(backbone, "base", backbone), path)
