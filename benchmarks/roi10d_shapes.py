"""What ROI-10D's shape branch says of the cars of a synthetic world, beside the median car and the shapes that were rendered.

    monolift synth --out world --images 200 --seed 21 --width 512 --height 160 --masks --depth --shapes
    monolift shapes label --data world --exact --out exact.json
    monolift train roi10d --data world --split train.txt --init smoke --set shape_labels=exact.json --set shape_weight=1 ...
    python benchmarks/roi10d_shapes.py world --model RUN/last --labels exact.json --split val.txt

Detections are matched with the labelled cars within two metres from above, one each. Overlap is that of the voxels inside,
surface distance in a box of 3.9 x 1.55 x 1.65 m, angle that between the codes; "different" is the mean angle between two
predicted codes: 0 where every car gets one shape.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from monolift.data.kitti import KittiDataset
from monolift.inference import checkpoint, zoo
from monolift.methods.roi10d import ROI10D, LiftedDetections
from monolift.methods.roi10d.meshes import space_of
from monolift.methods.roi10d.shape_labels import ShapeLabels
from monolift.shapes.autoencoder import ALL, ShapeSpace, surface_of
from monolift.shapes.measure import chamfer_distance, inside_iou, surface_points
from monolift.training.validate import detect_sample
from monolift.typing import Tensor

NEAR = 2.0  # metres
SIZE = torch.tensor([3.9, 1.55, 1.65])


def matched(detector: ROI10D, data: KittiDataset, labels: ShapeLabels, score: float) -> tuple[Tensor, Tensor]:
    """Codes predicted and true, (N, C) each, of the labelled cars that were found."""
    predicted, true = [], []
    for k in range(len(data)):
        sample = data[k]
        codes = labels.codes(sample)
        found = detect_sample(detector, sample)
        assert isinstance(found, LiftedDetections) and found.scores is not None
        found = found[found.scores >= score]
        taken: set[int] = set()
        for n in range(len(found)):
            gap = (sample.boxes.center[:, [0, 2]] - found.boxes.center[n, [0, 2]]).norm(dim=1)
            gap[[*taken]] = torch.inf
            if len(gap) and float(gap.min()) < NEAR:
                best = int(gap.argmin())
                taken.add(best)
                if float(codes[best].norm()) > 0:
                    predicted.append(found.shape[n])
                    true.append(codes[best])
    return torch.stack(predicted), torch.stack(true)


def compared(space: ShapeSpace, codes: Tensor, true: Tensor) -> dict[str, float]:
    """Mean overlap, surface distance and angle of codes and the true ones."""
    grids, wanted = (torch.cat([space.decode(part)[:, 0] for part in c.split(16)]) for c in (codes, true))
    apart = [
        chamfer_distance(_points(space, a), _points(space, b))
        for a, b in zip(grids[:40], wanted[:40], strict=True)
    ]
    angle = torch.arccos((codes * true).sum(1).clamp(-1, 1))
    return {
        "iou": float(inside_iou(grids, wanted).mean()),
        "surface_mm": 1000 * sum(apart) / len(apart),
        "angle": float(angle.mean()),
    }


def _points(space: ShapeSpace, grid: Tensor) -> Tensor:
    mesh = surface_of(grid, space.config.margin)
    return surface_points(mesh.with_vertices(mesh.vertices * SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--score", type=float, default=0.2)
    options = parser.parse_args()
    detector = checkpoint.load(zoo.resolve(options.model)).eval()
    assert isinstance(detector, ROI10D)
    labels = ShapeLabels(str(options.labels), detector.config.shape_code)
    data = KittiDataset(options.data, options.split)
    predicted, true = matched(detector, data, labels, options.score)
    space = space_of(detector.config.shape_space)
    median = space.medians[ALL].expand_as(true)
    every = torch.arccos((predicted @ predicted.T).clamp(-1, 1))
    report = {
        "cars": len(true),
        "predicted": compared(space, predicted, true),
        "median": compared(space, median, true),
        "different": float(every.sum() / max(len(true) * (len(true) - 1), 1)),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
