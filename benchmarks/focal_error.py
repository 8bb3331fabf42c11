"""How the boxes of a model go wrong with the focal length it is told, measured where the ground truth is known.

python benchmarks/focal_error.py ROOT [--split FILE] [--model smoke] [--images 160] [--figure focal_error.png]

ROOT: a KITTI folder with exact labels, for example of monolift synth. The images stay as they are; the camera's fx and fy are
multiplied by a factor, as by whoever guesses them. Compared are moderate objects (KITTI's level) that a detection meets with a
2D overlap of one half. The table's rows: factor; objects found; found distance over true distance, median; its error, sideways
error, heading error, medians of absolute values; share of the found boxes that overlap the true one by half in 3D.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import Any

import torch

import monolift
from monolift.data.kitti import KittiDataset
from monolift.data.sample import MODERATE, Detections, Sample
from monolift.files.progress import Progress
from monolift.geometry import Camera
from monolift.geometry.iou import iou_2d, iou_3d
from monolift.geometry.rotations import wrap
from monolift.methods.base import in_source

FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 1.75, 2.0)
COLUMNS = ("focal x", "found", "z ratio", "z error", "x error m", "heading deg", "3D IoU .5")


def told(camera: Camera, factor: float) -> Camera:
    return dataclasses.replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)


@torch.no_grad()
def detections(model: monolift.Model, sample: Sample) -> list[Detections]:
    """What is found with each factor. The image goes through the network once: it never sees the camera."""
    width, height = sample.size
    prepared = [model.detector.prepare(sample.image, told(sample.camera, factor)) for factor in FACTORS]
    raw = model.detector(prepared[0].image[None])
    found = []
    for one in prepared:
        kept = in_source(model.detector.decode(raw, Camera.stack([one.camera]))[0], one.view, width, height)
        found.append(kept[kept.scores >= model.score])
    return found


def compare(found: Detections, truth: Sample, classes: tuple[str, ...]) -> list[tuple[float, ...]]:
    """(z ratio, z error, x error, heading error, 3D overlap) of each true object that was found."""
    rows: list[tuple[float, ...]] = []
    names = [classes[k] for k in found.labels.tolist()]
    for k in range(len(truth)):
        of_class = [i for i, name in enumerate(names) if name == truth.classes[k]]
        if truth.difficulty[k] > MODERATE or not of_class:
            continue
        overlap = iou_2d(found.boxes2d[of_class], truth.boxes2d[k : k + 1])[:, 0]
        if float(overlap.max()) < 0.5:
            continue
        box, true = found.boxes[of_class[int(overlap.argmax())]], truth.boxes[k]
        x, z = (float(box.center[0, axis]) for axis in (0, 2))
        true_x, true_z = (float(true.center[0, axis]) for axis in (0, 2))
        heading = abs(float(wrap(box.yaw - true.yaw)[0]))
        rows.append(
            (
                z / true_z,
                abs(z / true_z - 1),
                abs(x - true_x),
                math.degrees(heading),
                float(iou_3d(box, true)[0, 0]),
            )
        )
    return rows


def summary(factor: float, rows: list[tuple[float, ...]]) -> dict[str, float]:
    ratio, z_error, x_error, heading, overlap = torch.tensor(rows).T
    return dict(
        zip(
            COLUMNS,
            (
                factor,
                len(rows),
                float(ratio.median()),
                float(z_error.median()),
                float(x_error.median()),
                float(heading.median()),
                float((overlap >= 0.5).float().mean()),
            ),
            strict=True,
        )
    )


def draw(table: list[dict[str, float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    factors = [row["focal x"] for row in table]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(
        factors, [100 * row["z error"] for row in table], "o-", color="#d1495b", label="distance error, %"
    )
    left.plot(
        factors, [100 * abs(f - 1) for f in factors], ":", color="0.5", label="error of the focal length, %"
    )
    left.plot(
        factors, [row["heading deg"] for row in table], "s-", color="#30638e", label="heading error, degrees"
    )
    left.set_ylabel("median, % or degrees")
    left.set_ylim(0)
    left.legend(frameon=False)
    right.plot(factors, [100 * row["3D IoU .5"] for row in table], "o-", color="#00798c")
    right.set_ylabel("found boxes with 3D IoU of 0.5, %")
    right.set_ylim(0)
    for axes in (left, right):
        axes.axvline(1, color="0.8", zorder=0)
        axes.set_xlabel("focal length told / true")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("--split")
    parser.add_argument("--model", default="smoke")
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--figure")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = monolift.load(options.model, "cpu")
    dataset = KittiDataset(options.root, options.split)
    count = min(options.images, len(dataset))
    rows: list[list[Any]] = [[] for _ in FACTORS]
    with Progress(count, "images") as progress:
        for k in range(count):
            sample = dataset[k * len(dataset) // count]
            for collected, found in zip(rows, detections(model, sample), strict=True):
                collected += compare(found, sample, model.classes)
            progress.advance(1, f"{len(rows[0])} objects")
    table = [summary(factor, collected) for factor, collected in zip(FACTORS, rows, strict=True)]
    print("  ".join(f"{name:>11}" for name in COLUMNS))
    for row in table:
        print("  ".join(f"{v:11.0f}" if name == "found" else f"{v:11.3f}" for name, v in row.items()))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(table, file)
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
