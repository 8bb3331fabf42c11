"""ROI-10D's controlled experiment (fig. 7): the ten numbers of one region, from a random start, driven by eq. 2 alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from monolift.geometry import Camera
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.roi10d.config import ROI10DConfig
from monolift.methods.roi10d.loss import corner_distance

KITTI = Camera(721.5377, 721.5377, 609.5593, 172.854, 0.0598, -0.0003, 0.0027, 1242, 375)
# depth 28 +- 16 m, extents in standard deviations of KITTI's cars. "metric": the paper's unit of z; "mean": the data's
# standard deviation, in which a step of the optimiser moves a box sixteen times as far
METRIC, DEVIATIONS = "metric", "mean"
CONFIG = ROI10DConfig(
    depth_start=METRIC,
    focal=0.0,
    depth_mean=28.01,
    depth_std=16.32,
    sizes=((3.88, 1.53, 1.63),),
    size_deviations=((0.43, 0.14, 0.10),),
)
PARTS = ("rotation", "centroid", "depth", "extents")
NEAREST = 3.0  # metres, of a target


@dataclass(frozen=True)
class Descent:
    """N regions on their way. errors: (steps + 1, N) mean corner distance, metres; shares: (steps, 4) of the gradient's
    absolute values, summed over the regions, by ``PARTS``; way: the numbers of the first region at each step; target."""

    errors: torch.Tensor
    shares: torch.Tensor
    way: list[Lifted]
    target: Lifted
    roi: torch.Tensor


def random_numbers(
    count: int, generator: torch.Generator, config: ROI10DConfig = CONFIG
) -> dict[str, torch.Tensor]:
    """What branches might say: unit normal, the centroid by half a region, metric depth by the data's standard deviation."""
    widths = {"rotation": 4, "centroid": 2, "depth": 1, "extents": 3}
    numbers = {k: torch.randn(count, n, generator=generator).double() for k, n in widths.items()}
    numbers["centroid"] /= 2
    if config.depth_start == METRIC:
        numbers["depth"] *= config.depth_std
    return numbers


def descend(
    count: int, steps: int, lr: float = 0.02, seed: int = 0, optimizer: str = "adam", unit: str = METRIC
) -> Descent:
    """Adam (or SGD with momentum) with a cosine to zero: the un-squared distance has slope one up to the goal, so a constant
    rate would hover round it."""
    generator = torch.Generator().manual_seed(seed)
    config = replace(CONFIG, depth_start=unit)
    codec = ROI10DCodec(config)
    wide = 60 + 60 * torch.rand(count, generator=generator).double()
    left = 100 + 900 * torch.rand(count, generator=generator).double()
    roi = torch.stack([left, torch.full_like(left, 160.0), left + wide, 160 + 0.5 * wide], 1)
    label = torch.zeros(count, dtype=torch.long)
    wanted = random_numbers(count, generator, config)
    metres = config.depth_std if unit == DEVIATIONS else 1.0
    wanted["depth"].clamp_(min=(NEAREST - config.depth_mean) / metres)
    target = codec.decode(wanted, roi, label, KITTI)
    numbers = {k: v.requires_grad_() for k, v in random_numbers(count, generator, config).items()}
    make = {"adam": torch.optim.Adam, "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)}[optimizer]
    adam = make(numbers.values(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    errors, shares, way = [], [], []
    for _ in range(steps):
        adam.zero_grad()
        lifted = codec.decode(numbers, roi, label, KITTI)
        error = corner_distance(lifted, target)
        error.sum().backward()
        size = torch.stack([numbers[name].grad.abs().sum() for name in PARTS])
        shares.append(size / size.sum())
        errors.append(error.detach())
        way.append(Lifted(*(v[:1].detach() for v in (lifted.center, lifted.size, lifted.rotation))))
        adam.step()
        schedule.step()
    with torch.no_grad():
        errors.append(corner_distance(codec.decode(numbers, roi, label, KITTI), target))
    return Descent(torch.stack(errors), torch.stack(shares), way, target, roi)
