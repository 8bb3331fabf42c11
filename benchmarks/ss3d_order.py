"""Does SS3D's order hold: sigmas per object better than one for all, and training through the fit better still?

    python benchmarks/ss3d_order.py [--seeds 3] [--out ss3d_order.jsonl]

No images: the network gets two readings of the 26 parameters of a car. Their noise differs from car to car and from one kind
of parameter to another (by up to three times either way), and only the disagreement of the two readings shows it. A small
network turns the readings into parameters and sigmas, and SS3D's own losses and fit make boxes of them. The same
cars, network, steps and rates for all:

    homoscedastic      one sigma per parameter, for all cars
    heteroscedastic    a sigma per parameter and car
    through the fit    heteroscedastic for the first stage, then 1 - IoU3D with a tenth of the likelihood (preset "iou")

Figures are of 4,000 unseen cars. Runs that the file --out holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from monolift.geometry import Boxes3D, Camera, iou_3d_paired
from monolift.methods.ss3d.assign import Targets
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.config import PRESETS, SS3DConfig
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.loss import attenuated, overlap_loss
from monolift.methods.ss3d.parameters import PARAMETERS, parameters_of_boxes
from monolift.typing import Tensor
from noisy_cars import KITTI, noisy_cars

CARS, UNSEEN, BATCH = 8000, 4000, 64
STEPS, MORE_STEPS = 1500, 500  # of the first stage and the second
RATE, SECOND_RATE = 1e-3, 1e-4
KINDS = (4, 1, 2, 3, 16)  # parameters of a kind share their noise
GRID = (311, 94)  # cells of a KITTI image, stride 4
WAYS = ("homoscedastic", "heteroscedastic", "through the fit")


@dataclass(frozen=True)
class Readings:
    """Cars, the cell from which each is seen, and what the network gets: two readings in channels, (N, 2, 26)."""

    boxes: Boxes3D
    cell: Tensor
    truth: Tensor
    seen: Tensor


def readings(count: int, seed: int, codec: SS3DCodec) -> Readings:
    camera = Camera(KITTI.fx, KITTI.fy, KITTI.cx, KITTI.cy, KITTI.tx, KITTI.ty, KITTI.tz)
    cars = noisy_cars(count, seed=seed, camera=camera)
    draw = torch.Generator().manual_seed(seed + 1)
    exact = parameters_of_boxes(cars.boxes, camera)
    share = 0.5 + math.sqrt(codec.config.support) * (torch.rand(count, 2, generator=draw) - 0.5)
    pixel = exact[:, :2] + share * (exact[:, 2:4] - exact[:, :2])
    column, row = ((pixel - 1.5) / 4).round().long().unbind(1)
    cell = row.clamp(0, GRID[1] - 1) * GRID[0] + column.clamp(0, GRID[0] - 1)
    louder = torch.exp(math.log(3) * (2 * torch.rand(count, len(KINDS), generator=draw) - 1))
    spread = cars.sigma * louder.repeat_interleave(torch.tensor(KINDS), 1)
    parameters = exact[:, None] + spread[:, None] * torch.randn(count, 2, PARAMETERS, generator=draw)
    seen = [codec.channels(parameters[:, k], cell, camera, GRID[0]) for k in (0, 1)]
    truth = codec.channels(exact, cell, camera, GRID[0])
    return Readings(cars.boxes.to(torch.float32), cell, truth.float(), torch.stack(seen, 1).float())


class Reader(nn.Module):
    """Two readings to channels and log sigmas: a correction of their mean, and what their difference says."""

    def __init__(self, per_car: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * PARAMETERS, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 2 * PARAMETERS),
        )
        self.log_sigma = None if per_car else nn.Parameter(torch.zeros(PARAMETERS))

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        mean, apart = seen.mean(1), (seen[:, 0] - seen[:, 1]).abs()
        change, log_sigma = self.layers(torch.cat([torch.asinh(mean), torch.log(apart + 0.1)], 1)).chunk(2, 1)
        return mean + change, log_sigma if self.log_sigma is None else self.log_sigma.expand_as(log_sigma)


def run(way: str, seed: int) -> dict[str, float]:
    """Trains one way and measures its boxes on unseen cars."""
    torch.manual_seed(seed)
    config = replace(SS3DConfig(), focal=KITTI.fx.item(), corner_order="object")
    codec = SS3DCodec(config)
    known, unseen = readings(CARS, 1000 + seed, codec), readings(UNSEEN, 5000, codec)
    reader = Reader(per_car=way != "homoscedastic")
    second = PRESETS["iou"]() if way == "through the fit" else config
    optimizer = torch.optim.Adam(reader.parameters(), lr=RATE)
    for step in range(STEPS + MORE_STEPS):
        stage = config if step < STEPS else second
        for group in optimizer.param_groups:
            decayed = SECOND_RATE + (RATE - SECOND_RATE) * (1 + math.cos(math.pi * step / STEPS)) / 2
            group["lr"] = decayed if step < STEPS else SECOND_RATE
        rows = torch.randint(CARS, (BATCH,))
        numbers, log_sigma = reader(known.seen[rows])
        score = attenuated(numbers - known.truth[rows], log_sigma, stage.likelihood, way != "homoscedastic")
        loss = stage.likelihood_weight * score.sum(1).mean()
        if stage.iou_weight:
            loss = loss + stage.iou_weight * overlap_loss(codec, numbers, log_sigma, _targets(known, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        numbers, log_sigma = reader(unseen.seen)
        parameters = codec.parameters(numbers, unseen.cell, KITTI_UNCUT, GRID[0])
        fit = fit_boxes(parameters, 1 / codec.sigma(log_sigma, KITTI_UNCUT), KITTI_UNCUT)
        iou = iou_3d_paired(fit.boxes, unseen.boxes.to(torch.float64))
    return {"mean IoU": iou.mean().item(), "0.5": _share(iou >= 0.5), "0.7": _share(iou >= 0.7),
            "apart": _share(iou == 0)}  # fmt: skip


KITTI_UNCUT = Camera(KITTI.fx, KITTI.fy, KITTI.cx, KITTI.cy, KITTI.tx, KITTI.ty, KITTI.tz)


def _share(which: Tensor) -> float:
    return which.double().mean().item()


def _targets(known: Readings, rows: Tensor) -> Targets:
    """The cars ``rows`` as SS3D's targets: an image each, one cell of support."""
    n = len(rows)
    every = torch.arange(n)
    return Targets(
        classes=torch.zeros(n, 1, 1, dtype=torch.long), image=every, cell=known.cell[rows], object=every,
        numbers=known.truth[rows], known=torch.ones(n, PARAMETERS, dtype=torch.bool), boxes=known.boxes[rows],
        label=torch.zeros(n, dtype=torch.long), cameras=Camera.stack([KITTI_UNCUT] * n), width=GRID[0],
        names=("",) * n,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("ss3d_order.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for seed in range(options.seeds):
        for way in WAYS:
            if not any(row["way"] == way and row["seed"] == seed for row in done):
                done.append({"way": way, "seed": seed, **run(way, seed)})
                with options.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    print(f"{'':16} seed  mean IoU3D   >= 0.5   >= 0.7   apart")
    for way in WAYS:
        for row in (row for row in done if row["way"] == way):
            shares = "  ".join(f"{row[key]:7.1%}" for key in ("0.5", "0.7", "apart"))
            print(f"{way:16} {row['seed']:4}  {row['mean IoU']:10.4f}  {shares}")


if __name__ == "__main__":
    main()
