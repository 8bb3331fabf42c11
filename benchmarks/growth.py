"""How cost grows: CPU time against image size, objects, images and faces, with fitted exponents.

    python benchmarks/growth.py [--repeats 3] [--image docs/images/growth.png] [--json FILE]

An exponent is the slope of a line through log cost over log size, least squares: 1 is proportional. Cost is CPU time of this
process, median of the rounds; the sizes of one curve take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monolift.data.sample import Objects
from monolift.evaluation import evaluate
from monolift.files.images import write_image
from monolift.geometry import Boxes3D, Camera
from monolift.inference.model import load
from monolift.render.draw.canvas import Canvas, class_color
from monolift.render.draw.overlay import draw_result
from monolift.render.mesh import Mesh, icosphere
from monolift.render.renderer import render

Curve = dict[int, Callable[[], Any]]


def network_pixels() -> Curve:
    """The bundled SMOKE network on images of growing width, height a third of it."""
    detector = load("smoke", "cpu").detector
    curve: Curve = {}
    for width in (384, 576, 864, 1248):
        images = torch.zeros(1, 3, width // 3 // 32 * 32, width)

        def work(images: torch.Tensor = images) -> None:
            with torch.inference_mode():
                detector(images)

        curve[images.shape[2] * images.shape[3]] = work
    return curve


def drawn_objects() -> Curve:
    """Drawing a result of N boxes on a 1242 x 375 image."""
    image, camera = torch.zeros(3, 375, 1242, dtype=torch.uint8), Camera.from_fov(80, 1242, 375)
    generator = torch.Generator().manual_seed(0)
    curve: Curve = {}
    for count in (5, 15, 45, 135):
        center = torch.rand(count, 3, generator=generator) * torch.tensor([30.0, 0.5, 50.0])
        center = center + torch.tensor([-15.0, 1.0, 5.0])
        boxes = Boxes3D(center, torch.tensor([3.9, 1.5, 1.6]).expand(count, 3), torch.zeros(count))
        found = Objects(
            boxes, torch.ones(count), torch.zeros(count, dtype=torch.long), torch.zeros(count, 4), ("Car",)
        )
        curve[count] = lambda found=found: draw_result(image, camera, found)  # type: ignore[misc]
    return curve


def evaluated_images() -> Curve:
    """KITTI AP of N images of four cars each, one detection per label."""
    folder = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    curve: Curve = {}
    for count in (50, 150, 450, 1350):
        for kind in ("label", "found"):
            (folder / f"{kind}{count}").mkdir()
        for k in range(count):
            rows = []
            for _ in range(4):
                x1, y1, z = rng.uniform(0, 1000), rng.uniform(100, 200), rng.uniform(8, 40)
                box = f"{x1:.2f} {y1:.2f} {x1 + 80:.2f} {y1 + 60:.2f}"
                rows.append(f"Car 0 0 0 {box} 1.5 1.6 3.9 {x1 / 50 - 10:.2f} 1.7 {z:.2f} 0.1")
            (folder / f"label{count}" / f"{k:06d}.txt").write_text("".join(f"{row}\n" for row in rows))
            scored = "".join(f"{row} {rng.random():.3f}\n" for row in rows)
            (folder / f"found{count}" / f"{k:06d}.txt").write_text(scored)
        curve[count] = lambda count=count: evaluate(  # type: ignore[misc]
            labels=folder / f"label{count}", predictions=folder / f"found{count}"
        )
    return curve


def rendered_faces() -> Curve:
    """A sphere of F faces rendered at 128 x 128 pixels, forward and backward."""
    camera = Camera.stack([Camera(120, 120, 63.5, 63.5, width=128, height=128)])
    curve: Curve = {}
    for subdivisions in (2, 3, 4, 5):
        vertices, faces = icosphere(subdivisions)
        mesh = Mesh(vertices + torch.tensor([0.0, 0.0, 4.0]), faces)
        _ = mesh.edges

        def work(mesh: Mesh = mesh) -> None:
            moved = mesh.vertices.clone().requires_grad_()
            render(mesh.with_vertices(moved), camera).silhouette.sum().backward()

        curve[len(faces)] = work
    return curve


CURVES = {
    "network over pixels": network_pixels,
    "drawing over objects": drawn_objects,
    "evaluation over images": evaluated_images,
    "renderer over faces": rendered_faces,
}


def measure(curve: Curve, repeats: int) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {size: [] for size in curve}
    for round_ in range(repeats + 1):
        for size, work in curve.items():
            start = time.process_time()
            work()
            if round_:  # the first warms up
                seconds[size].append(time.process_time() - start)
    cost = {size: statistics.median(values) for size, values in seconds.items()}
    exponent = float(np.polyfit(np.log(list(cost)), np.log(list(cost.values())), 1)[0])
    return {
        "exponent": round(exponent, 2),
        "ms": {size: round(1e3 * value, 2) for size, value in cost.items()},
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """One panel per curve, both axes logarithmic, the fitted line through the points."""
    from PIL import Image

    wide, high, margin = 420, 300, 50
    canvas = Canvas(Image.new("RGB", (2 * wide, 2 * high), (22, 27, 34)))
    for k, (name, one) in enumerate(found.items()):
        left, top = (k % 2) * wide, (k // 2) * high
        size, cost = np.log10(list(map(float, one["ms"]))), np.log10(list(one["ms"].values()))
        slope, offset = np.polyfit(size, cost, 1)
        middle, span = (cost.max() + cost.min()) / 2, max(np.ptp(cost), np.ptp(slope * size), 0.5)

        def at(x: Any, y: Any, left: int = left, top: int = top, size: Any = size, middle: float = middle,
               span: float = span) -> Any:  # fmt: skip
            u = left + margin + (x - size[0]) / (size[-1] - size[0]) * (wide - 2 * margin)
            v = top + high / 2 - (y - middle) / span * (high - 130)
            return np.stack(np.broadcast_arrays(u, v), -1).astype(float)

        canvas.line(at(size[[0, -1]], slope * size[[0, -1]] + offset), class_color("Car"), 2.0, 0.7)
        for (x, y), (count, ms) in zip(at(size, cost), one["ms"].items(), strict=True):
            canvas.arc(np.array([x, y]), 3.0, (255, 255, 255), 2.0)
            canvas.text(
                (x, y - 10), f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms", 12, (230, 234, 240), "md"
            )
            canvas.text((x, top + high - 26), f"{int(count):,}", 11, (160, 168, 178), "mm")
        canvas.text(
            (left + margin, top + 18), f"{name}: exponent {one['exponent']}", 14, (255, 255, 255), "lm"
        )
    write_image(path, canvas.finish(), parents=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {}
    for name, make in CURVES.items():
        found[name] = measure(make(), options.repeats)
        print(name, json.dumps(found[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.image:
        plot(found, options.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
