"""The shape space in figures: how well cars that it never saw are rebuilt, what lies between the medians, what it costs.

"specks" is the largest number of surface vertices outside the largest piece; ``ShapeSpace.mesh`` leaves them out. "one, closed"
counts the points on the way whose mesh is then one watertight piece.

python benchmarks/shapes.py [--space FILE] [--cars 24] [--steps 9]
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch

from monolift.shapes.autoencoder import BUNDLED, CLASSES, between, load_shape_space
from monolift.shapes.shape_training import grid_of, procedural_cars, reconstruction_iou
from monolift.shapes.tsdf import components, is_watertight, largest_component, surface, volume


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", type=Path, default=BUNDLED, help="a file of monolift shapes build")
    parser.add_argument("--cars", type=int, default=24, help="held-out cars")
    parser.add_argument("--steps", type=int, default=9, help="points on each way between two medians")
    parser.add_argument("--seed", type=int, default=12345, help="of the held-out cars")
    options = parser.parse_args()
    space = load_shape_space(options.space)

    cars = procedural_cars(options.cars, options.seed)
    grids = torch.stack([grid_of(shape, space.config) for _, shape in cars])
    began = time.process_time()
    iou = reconstruction_iou(space, grids)
    coding = (time.process_time() - began) / len(cars)
    mean_car = space.decode(space.medians["all"][None])[0, 0]
    both = (
        ((grids < 0) & (mean_car < 0)).sum((1, 2, 3)) / ((grids < 0) | (mean_car < 0)).sum((1, 2, 3))
    ).mean()
    print(f"grid {'x'.join(map(str, space.config.grid))}, file {options.space.stat().st_size / 1e6:.2f} MB")
    print(f"{'held-out cars':<28}{'IoU mean':>10}{'worst':>10}{'median car':>12}")
    print(f"{len(cars):<28}{iou.mean():>10.4f}{iou.min():>10.4f}{both:>12.4f}")

    print(
        f"\n{'way between medians':<28}{'angle, deg':>10}{'specks':>10}{'one, closed':>12}{'volume, box=1':>18}"
    )
    decoding = surfacing = 0.0
    count = 0
    for a, b in itertools.combinations(CLASSES, 2):
        codes = between(space.medians[a], space.medians[b], torch.linspace(0, 1, options.steps))
        specks, closed, volumes = 0, 0, []
        for code in codes:
            start = time.process_time()
            grid = space.decode(code[None])[0, 0]
            middle = time.process_time()
            raw = surface(grid, torch.full((3,), space.config.margin))
            decoding, surfacing = decoding + middle - start, surfacing + time.process_time() - middle
            count += 1
            piece = components(raw)
            specks = max(specks, len(piece) - int(piece.bincount().max()))
            mesh = largest_component(raw)
            closed += is_watertight(mesh) and int(components(mesh).max()) == 0
            volumes.append(float(volume(mesh)))
        angle = torch.rad2deg(torch.arccos((space.medians[a] * space.medians[b]).sum()))
        span = f"{min(volumes):.3f} to {max(volumes):.3f}"
        print(f"{a + ' - ' + b:<28}{angle:>10.1f}{specks:>10}{f'{closed}/{len(codes)}':>12}{span:>18}")
    print(f"\nCPU time per car: encode and decode {1000 * coding:.1f} ms, decode {1000 * decoding / count:.1f} ms, "
          f"marching cubes {1000 * surfacing / count:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
