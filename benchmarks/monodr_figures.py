"""The images of docs/monodr.md: a synthetic street, its cars fitted from masks and a depth map that is 2 % off.

python benchmarks/monodr_images.py [--seed 1] [--index 113] [--cars 5] [--out docs/images]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from monolift.autolabel.images import painted
from monolift.data.sample import Objects
from monolift.geometry import Boxes3D, Camera, iou_bev_paired, wrap
from monolift.methods.monodr import MonoDR, Observation
from monolift.render.draw.canvas import Canvas
from monolift.render.draw.overlay import draw_result
from monolift.world.synthetic import Frame, make_frame

STEPS = (0, 8, 20, 100)
LEAST = 400  # pixels of a mask
SCALE = 1.02  # of the depth map


def observe(frame: Frame, most: int) -> tuple[list[Observation], Boxes3D]:
    """The frame's cars, largest first, from its exact masks and a depth map off by SCALE and 2 % per pixel."""
    height, width = frame.image.shape[:2]
    instances, depth = frame.truth()
    rng = np.random.default_rng(0)
    seen = np.where(np.isfinite(depth), depth, 0) * SCALE * (1 + 0.02 * rng.standard_normal(depth.shape))
    metres, image = (
        torch.from_numpy(seen).float(),
        torch.from_numpy(frame.image).permute(2, 0, 1).contiguous(),
    )
    camera = Camera.from_matrix(frame.calib.p2, width, height)
    labels = frame.labels
    sizes = [(int((instances == k + 1).sum()), k) for k, name in enumerate(labels.names) if name == "Car"]
    rows = [k for count, k in sorted(sizes, reverse=True)[:most] if count >= LEAST]
    observations = []
    for k in rows:
        own = instances == k + 1
        mask = np.where(own, 1, np.where(instances > 0, -1, 0)).astype(np.int8)
        y, x = np.nonzero(own)
        box = torch.tensor([x.min(), y.min(), x.max(), y.max()]).float()
        observations.append(Observation(image, camera, torch.from_numpy(mask), metres, box))
    tall, wide, long = (torch.from_numpy(labels.size_hwl[rows, c]) for c in range(3))
    center = torch.from_numpy(labels.bottom[rows]) - torch.stack([0 * tall, tall / 2, 0 * tall], 1)
    truth = Boxes3D(center, torch.stack([long, tall, wide], 1), torch.from_numpy(labels.rotation_y[rows])).to(
        torch.float32
    )
    return observations, truth


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", type=int, default=113)
    parser.add_argument("--cars", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    frame = make_frame(options.seed, options.index)
    observations, truth = observe(frame, options.cars)
    fitted = MonoDR().fit(observations, history=True)
    assert fitted.history is not None
    iou = iou_bev_paired(fitted.boxes, truth)
    yaw = wrap(fitted.boxes.yaw - truth.yaw).rad2deg()
    for k in range(len(truth)):
        print(f"car {k}: {float(truth.center[k, 2]):5.1f} m, BEV IoU {iou[k]:.2f}, yaw off by {yaw[k]:6.1f} degrees, "
              f"confidence {fitted.confidence[k]:.3f}, depth scale {fitted.depth_scale[k]:.3f}")  # fmt: skip
    image, camera = observations[0].image, observations[0].camera
    rows = []
    for step in (min(s, len(fitted.history) - 1) for s in STEPS):
        canvas = Canvas(
            Image.fromarray(painted(image, camera, fitted.mesh_at(step)).permute(1, 2, 0).numpy())
        )
        canvas.text((12, 8), f"after {step} iterations" if step else "start", 24, (255, 255, 255))
        rows.append(
            canvas.finish().resize(
                (900, round(900 * image.shape[1] / image.shape[2])), Image.Resampling.LANCZOS
            )
        )
    column = Image.new("RGB", (900, sum(r.height + 4 for r in rows) - 4), (255, 255, 255))
    for k, row in enumerate(rows):
        column.paste(row, (0, k * (row.height + 4)))
    options.out.mkdir(parents=True, exist_ok=True)
    column.save(options.out / "monodr_converging.jpg", quality=85)
    names = ("Car",) * len(truth)
    found = Objects.named(fitted.boxes, names, scores=fitted.confidence)
    draw_result(image, camera, found, Objects.named(truth, names)).save(
        options.out / "monodr_result.jpg", quality=85
    )


if __name__ == "__main__":
    main()
