"""Trains ROI-10D's shape branch alone, on the features of a trained detector, and compares it with the median car.

    monolift synth --out world --images 400 --seed 31 --width 512 --height 160 --shapes
    monolift shapes label --data world --exact --out exact.json
    python benchmarks/roi10d_shape_head.py world --labels exact.json --model roi10d --train 300 --seeds 0 1 --out runs/shape

Everything but the branch stays as it is, so the features of each car are computed once: of the first ``--train`` images with
recoloured and shifted regions, every second one mirrored; of the others as they are. ``--out`` gets a checkpoint per seed: all
detections of the model, with other shapes. Cars below 8 network pixels or largely occluded are left out.

``--lidar KITTI`` adds the labelled cars of KITTI/ImageSets/val.txt with 30 points or more of KITTI/lidar_depth in their box:
the mean distance of these points from the surface of the branch's car and of the median car, in truncations of the field.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from monolift.augment.augment import mirror, random_colour, recolored
from monolift.data.formats.kitti_format import read_split
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.inference import checkpoint, zoo
from monolift.methods.roi10d import ROI10D
from monolift.methods.roi10d.decode import unit_codes
from monolift.methods.roi10d.meshes import space_of
from monolift.methods.roi10d.shape_labels import Evidence, ShapeLabels, cost, gather_evidence
from monolift.shapes.autoencoder import ALL, ShapeSpace, shape_loss
from monolift.shapes.measure import inside_iou
from monolift.typing import Float, Tensor

COPIES, JITTER = 6, 0.12
POINTS = 30
RIDGE = 3e4
LEAST_HEIGHT, LARGELY = 8, 2
BATCH, RATE, DECAY, DROPOUT = 128, 1e-3, 1e-2, 0.3
HEIGHTS = (8, 16, 28, 500)


@dataclass(frozen=True)
class Cars:
    """Features (N, F) of the regions of N cars, their true codes (N, C), and heights of their 2D boxes (N,), pixels."""

    features: Tensor
    codes: Tensor
    height: Tensor


def features_of(
    detector: ROI10D, seen: Sample, keep: Tensor, copies: int, draw: torch.Generator
) -> Float[Tensor, "n f"]:
    """What the branches read of the objects ``keep`` of a network image: the labelled 2D boxes and, with ``copies``, shifted
    ones after each."""
    boxes = seen.boxes2d[keep].repeat_interleave(copies, 0)
    side = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1).repeat(1, 2)
    shift = JITTER * (2 * torch.rand(boxes.shape, generator=draw) - 1)
    shift[::copies] = 0
    read: list[Tensor] = []
    branch = detector.network.branches["shape"]
    hook = branch.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    raw = detector(detector.normalise(seen.image)[None])
    detector.network.regions(raw, boxes + shift * side, torch.zeros(len(boxes), dtype=torch.long))
    hook.remove()
    return read[0]


def height_of(sample: Sample) -> Float[Tensor, " n"]:
    return sample.boxes2d[:, 3] - sample.boxes2d[:, 1]


@torch.no_grad()
def gathered(detector: ROI10D, data: KittiDataset, labels: ShapeLabels, train: int) -> tuple[Cars, Cars]:
    """Cars of the first ``train`` images, augmented, and of the others."""
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    parts: tuple[list[Cars], list[Cars]] = [], []
    for k in range(len(data)):
        sample = data[k]
        if k < train:
            sample = mirror(sample) if k % 2 else sample
            coloured = recolored(sample.image[None], random_colour(rng)[None])[0]
            sample = replace(sample, image=coloured)
        seen, copies = detector.view(*sample.size).sample(sample), COPIES if k < train else 1
        codes, height = labels.codes(seen), height_of(seen)
        keep = (codes.norm(dim=1) > 0) & (height >= LEAST_HEIGHT) & (seen.occlusion < LARGELY)
        if keep.any():
            features = features_of(detector, seen, keep, copies, draw)
            known = (one[keep].repeat_interleave(copies, 0) for one in (codes, height))
            parts[k >= train].append(Cars(features, *known))
    own, held = (
        Cars(*(torch.cat([getattr(c, name) for c in part]) for name in ("features", "codes", "height")))
        for part in parts
    )
    return own, held


def trained(cars: Cars, start: Tensor, seed: int, steps: int, loss: str) -> nn.Sequential:
    """The branch, trained on the features' deviations from their mean; these are folded into its first layer.

    Args:
        start: (C,) the code that it begins with, the median car's.
        loss: geodesic, paper, or chord (squared distance of the codes).
    """
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    mean, spread = cars.features.mean(0), cars.features.std(0) + 1e-3
    width = 96
    branch = nn.Sequential(
        nn.Linear(len(mean), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, len(start)),
    )
    first, last = branch[0], branch[4]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.01)
    last.bias.data = start.clone()
    optimizer = torch.optim.AdamW(branch.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(steps):
        rows = torch.randint(len(cars.codes), (BATCH,), generator=draw)
        codes = unit_codes(branch(F.dropout((cars.features[rows] - mean) / spread, DROPOUT)))
        wanted = cars.codes[rows]
        off = (codes - wanted).square().sum(1) if loss == "chord" else shape_loss(codes, wanted, loss)
        optimizer.zero_grad()
        off.mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        first.weight /= spread
        first.bias -= first.weight @ mean
    return branch.eval()


@torch.no_grad()
def ridge(cars: Cars, strength: float = RIDGE) -> nn.Linear:
    """The linear map from the features of the unshifted regions to their codes, by ridge regression."""
    features, codes = cars.features[::COPIES].float(), cars.codes[::COPIES]
    mean, spread = cars.features.float().mean(0), cars.features.float().std(0) + 1e-3
    middle = cars.codes.mean(0)
    left, size, right = torch.linalg.svd((features - mean) / spread, full_matrices=False)
    weight = right.T @ ((size / (size**2 + strength))[:, None] * (left.T @ (codes - middle)))
    linear = nn.Linear(len(mean), len(middle))
    linear.weight.copy_((weight / spread[:, None]).T)
    linear.bias.copy_(middle - linear.weight @ mean)
    return linear


@torch.no_grad()
def compared(space: ShapeSpace, codes: Tensor, cars: Cars) -> dict[str, object]:
    """Mean overlap with the true shapes and angle to the true codes, beside those of the median car; and by 2D height."""
    grids, wanted = (
        torch.cat([space.decode(part)[:, 0] for part in c.split(32)]) for c in (codes, cars.codes)
    )
    median = space.medians[ALL].expand_as(codes)
    own, plain = (
        inside_iou(grids, wanted),
        inside_iou(space.decode(median[:1])[:, 0].expand_as(wanted), wanted),
    )
    report: dict[str, object] = {"cars": len(codes)}
    for name, iou, of in (("branch", own, codes), ("median", plain, median)):
        angle = torch.arccos((of * cars.codes).sum(1).clamp(-1, 1))
        report[name] = {"iou": round(float(iou.mean()), 4), "angle": round(float(angle.mean()), 3)}
    report["better than the median"] = round(float((own > plain).double().mean()), 3)
    for low, high in pairwise(HEIGHTS):
        rows = (cars.height >= low) & (cars.height < high)
        if rows.any():
            values = [round(float(iou[rows].mean()), 4) for iou in (own, plain)]
            report[f"{low} to {high} pixels: cars, branch, median"] = [int(rows.sum()), *values]
    return report


@torch.no_grad()
def with_points(detector: ROI10D, root: Path) -> tuple[Float[Tensor, "n f"], list[Evidence]]:
    """Features and LiDAR points of the labelled cars of the validation images that have both."""
    held = set(read_split(root / "ImageSets" / "val.txt"))
    names = sorted(p.stem for p in (root / "lidar_depth").glob("*.png") if p.stem in held)
    data = KittiDataset(root, names, depth=root / "lidar_depth")
    features, points = [], []
    for k in range(len(data)):
        sample = data[k]
        seen = detector.view(*sample.size).sample(replace(sample, depth=None))
        rows = torch.cdist(seen.boxes.center, sample.boxes.center).argmin(1) if len(seen) else []
        found = [gather_evidence(sample, int(i)) for i in rows]
        enough = [n == "Car" and len(e.points) >= POINTS for n, e in zip(seen.classes, found, strict=True)]
        keep = torch.tensor(enough, dtype=torch.bool) & (height_of(seen) >= LEAST_HEIGHT)
        if keep.any():
            features.append(features_of(detector, seen, keep, 1, torch.Generator()))
            points += [e for e, kept in zip(found, keep.tolist(), strict=True) if kept]
    return torch.cat(features), points


def on_points(space: ShapeSpace, codes: Tensor, points: list[Evidence]) -> dict[str, object]:
    """Mean distance of LiDAR points from the surfaces of codes and of the median car, in truncations."""
    median = space.medians[ALL]
    both = torch.stack(
        [cost(space, torch.stack([code, median]), e) for code, e in zip(codes, points, strict=True)]
    )
    own, plain = both.mean(0).tolist()
    better = float((both[:, 0] < both[:, 1]).double().mean())
    return {
        "cars": len(points),
        "branch": round(own, 4),
        "median": round(plain, 4),
        "better": round(better, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--model", default="roi10d")
    parser.add_argument("--train", type=int, default=300, help="images to learn from, the first ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--loss", nargs="+", choices=("geodesic", "paper", "chord", "ridge"), default=["geodesic"]
    )
    parser.add_argument("--lidar", type=Path, metavar="KITTI")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    detector = checkpoint.load(zoo.resolve(options.model)).eval()
    assert isinstance(detector, ROI10D)
    space = space_of(detector.config.shape_space)
    labels = ShapeLabels(str(options.labels), detector.config.shape_code)
    cars, held = gathered(detector, KittiDataset(options.data), labels, options.train)
    real = None if options.lidar is None else with_points(detector, options.lidar)
    for loss, seed in product(options.loss, options.seeds):
        branch: nn.Module = (
            ridge(cars) if loss == "ridge" else trained(cars, space.medians[ALL], seed, options.steps, loss)
        )
        with torch.no_grad():
            report = compared(space, unit_codes(branch(held.features)), held)
            if real is not None:
                report["LiDAR"] = on_points(space, unit_codes(branch(real[0])), real[1])
        print(json.dumps({"seed": seed, "loss": loss, "regions": len(cars.codes), **report}), flush=True)
        if options.out is not None and loss != "ridge":  # whose layers are not the branch's
            detector.network.branches["shape"].load_state_dict(branch.state_dict())
            detector.config = replace(detector.config, shape_labels=options.labels.name)
            checkpoint.save(options.out / f"{loss}-{seed}", detector, half=True)


if __name__ == "__main__":
    main()
