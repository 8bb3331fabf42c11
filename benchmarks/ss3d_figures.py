"""What the fit does, drawn: noisy parameters of the cars of a rendered scene, start and end of the fit, from above too.

    monolift synth --out WORLD --images 20
    python benchmarks/ss3d_images.py WORLD/training 000003 --out docs/images/ss3d_fit.jpg

Above: every parameter of each car, with noise of the kind of ``tests/helpers/noisy_cars.py``: the 2D box, the eight corners
each with a circle of one sigma, and in blue the box at which the fit starts. Middle: the fitted boxes, with the labels dashed.
Below from above: the fitted boxes with the ellipses of their centres, and the labels.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from monolift.data.kitti import KittiDataset
from monolift.data.sample import Objects, Sample
from monolift.geometry import iou_3d_paired
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.parameters import (
    BOX,
    CORNERS,
    Pinhole,
    boxes_from_state,
    parameters_of_boxes,
    start_from_parameters,
)
from monolift.render.draw.birds_eye import birds_eye
from monolift.render.draw.canvas import Canvas
from monolift.render.draw.overlay import overlay
from monolift.typing import Tensor
from noisy_cars import parameter_noise

WHITE = (255, 255, 255)


def noisy_parameters(sample: Sample, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 26) parameters of the labelled boxes with errors, and the errors' standard deviations."""
    exact = parameters_of_boxes(sample.boxes.to(torch.float64), sample.camera)
    sigma = noise * parameter_noise(exact)
    draw = torch.Generator().manual_seed(seed)
    return exact + sigma * torch.randn(exact.shape, generator=draw, dtype=torch.float64), sigma


def draw_parameters(
    photograph: Image.Image, parameters: Tensor, sigma: Tensor, color: tuple[int, int, int]
) -> Image.Image:
    canvas = Canvas(photograph)
    for y, s in zip(parameters.numpy(), sigma.numpy(), strict=True):
        x1, y1, x2, y2 = y[BOX]
        canvas.line(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]), color, 1.2, dash=5.0)
        for pixel, spread in zip(y[CORNERS].reshape(8, 2), s[CORNERS].reshape(8, 2), strict=True):
            canvas.arc(pixel, float(spread.mean()), color, 1.0)
            for axis in (np.array([3.0, 0.0]), np.array([0.0, 3.0])):
                canvas.line(np.stack([pixel - axis, pixel + axis]), color, 1.6)
    return canvas.finish()


def whole_cars(sample: Sample) -> Sample:
    """Only the cars and vans of a scene that are in the image and mostly visible."""
    states = zip(sample.classes, sample.truncation.tolist(), sample.occlusion.tolist(), strict=True)
    rows = [
        i
        for i, (name, cut, hidden) in enumerate(states)
        if name in ("Car", "Van") and cut < 0.05 and hidden < 2
    ]
    return replace(
        sample, boxes=sample.boxes[rows], classes=tuple(sample.classes[i] for i in rows), boxes2d=sample.boxes2d[rows],
        truncation=sample.truncation[rows], occlusion=sample.occlusion[rows],
    )  # fmt: skip


def images(sample: Sample, noise: float, seed: int) -> Image.Image:
    parameters, sigma = noisy_parameters(sample, noise, seed)
    fit = fit_boxes(parameters, 1 / sigma, sample.camera)
    start = boxes_from_state(start_from_parameters(parameters, Pinhole.of(sample.camera, parameters)))
    names = sample.classes
    begun = overlay(sample.image, sample.camera, None, Objects.named(start, names))
    begun = draw_parameters(begun, parameters, sigma, (255, 214, 64))
    fitted = Objects.named(fit.boxes, names, covariance=fit.covariance)
    labels = Objects.named(sample.boxes, names)
    panels = [
        begun,
        overlay(sample.image, sample.camera, fitted, labels),
        birds_eye(sample.camera, fitted, labels, along=sample.size[0], forward="right"),
    ]
    whole = Image.new("RGB", (panels[0].width, sum(p.height + 6 for p in panels) - 6), WHITE)
    top = 0
    for panel in panels:
        whole.paste(panel, (0, top))
        top += panel.height + 6
    truth = sample.boxes.to(torch.float64)
    for name, boxes in (("start", start), ("fitted", fit.boxes)):
        away = (boxes.center - truth.center).norm(dim=1)
        print(f"{name}: mean IoU3D {iou_3d_paired(boxes, truth).mean():.3f}, centres {away.mean():.2f} m off")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("name")
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("ss3d_fit.jpg"))
    options = parser.parse_args()
    sample = KittiDataset(options.data, [options.name])[0]
    image = images(whole_cars(sample), options.noise, options.seed)
    image.save(options.out, quality=85)


if __name__ == "__main__":
    main()
