"""How a shape space is learnt: from the procedural cars, or from any watertight meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from monolift.shapes.autoencoder import ALL, CLASSES, ShapeConfig, ShapeSpace, median
from monolift.shapes.procedural import CarShape, Grid, sample_shape, tsdf
from monolift.typing import Float, Tensor

KIND_OF_CLASS = {"Small Car": "small", "Car": "car", "Large Car": "large", "SUV": "suv"}


@dataclass(frozen=True)
class ShapeTraining:
    """Optimisation of a shape space."""

    cars: int = 50
    """Procedural cars to learn from, as many as the paper had CAD models."""
    steps: int = 1000
    """Adam steps."""
    batch: int = 8
    """Cars per step."""
    lr: float = 2e-3
    """Learning rate; falls to a hundredth along a cosine."""
    seed: int = 0
    """Of cars, weights and order."""


def procedural_cars(count: int, seed: int) -> list[tuple[str, CarShape]]:
    """Cars of the four classes in turn, with the class of each."""
    rng = np.random.default_rng(seed)
    names = [CLASSES[k % len(CLASSES)] for k in range(count)]
    return [(name, sample_shape(rng, KIND_OF_CLASS[name])) for name in names]


def grid_of(shape: CarShape, config: ShapeConfig) -> Float[Tensor, "X Y Z"]:
    """The TSDF of a procedural car, scaled to its box."""
    sides = tuple(config.margin * s for s in (shape.length, shape.height, shape.width))
    return torch.from_numpy(tsdf(shape, Grid(config.grid, (sides[0], sides[1], sides[2]), config.truncation)))


def learn(
    grids: Float[Tensor, "n X Y Z"],
    classes: Sequence[str],
    config: ShapeConfig,
    training: ShapeTraining,
    on_step: Callable[[int, float], None] | None = None,
) -> ShapeSpace:
    """A space trained on grids of one class each (names that become the keys of the medians); equal seeds, equal spaces.

    Args:
        on_step: called with the number of steps done and the loss.
    """
    torch.manual_seed(training.seed)
    space = ShapeSpace(config)
    optimizer = torch.optim.Adam(space.parameters(), training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps, training.lr / 100)
    data = grids[:, None]
    order = torch.randperm(len(data))
    for step in range(training.steps):
        if len(order) < training.batch:
            order = torch.cat([order, torch.randperm(len(data))])
        chosen, order = data[order[: training.batch]], order[training.batch :]
        loss = autoencoder_loss(space, chosen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(space.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step + 1, float(loss.detach()))
    space.eval().requires_grad_(False)
    codes = torch.cat([space.encode(part) for part in data.split(8)])
    space.medians = {ALL: median(codes)}
    for name in dict.fromkeys(classes):
        space.medians[name] = median(codes[[k for k, c in enumerate(classes) if c == name]])
    return space


def autoencoder_loss(space: ShapeSpace, tsdf: Float[Tensor, "n 1 X Y Z"]) -> Float[Tensor, ""]:
    """Eq. 4: reconstruction, codes near the sphere, total variation of what is decoded; means over voxels and cars."""
    raw = space.encode_raw(tsdf)
    decoded = space.decode(raw)
    variation = torch.stack([decoded.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).sum()
    distance = (raw.norm(dim=1) - 1).abs().mean()
    return F.l1_loss(decoded, tsdf) + distance + space.config.smoothness * variation


def reconstruction_iou(space: ShapeSpace, grids: Float[Tensor, "n X Y Z"]) -> Float[Tensor, " n"]:
    """Intersection over union of the voxels inside before and after encoding and decoding."""
    rebuilt = torch.cat([space.decode(space.encode(part[:, None]))[:, 0] for part in grids.split(8)])
    before, after = grids < 0, rebuilt < 0
    return (before & after).sum((1, 2, 3)) / (before | after).sum((1, 2, 3)).clamp_min(1)
