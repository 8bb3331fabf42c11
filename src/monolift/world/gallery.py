"""The documentation's images: the family of cars side by side, and streets of the synthetic world.

    python -m monolift.world.gallery FOLDER

writes cars.jpg (a row per class; from the front, from the rear, and from the side) and world.jpg.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.files.renamed import renamed
from monolift.shapes.car_texture import sample_style
from monolift.shapes.procedural import KINDS, sample_shape
from monolift.world import figures
from monolift.world.ground import Ground
from monolift.world.render import Light, Stage, shoot
from monolift.world.sensor import Sensor, develop
from monolift.world.synthetic import make_frame

Image = npt.NDArray[np.uint8]

_PAINTS = (
    (0.42, 0.02, 0.018), (0.40, 0.41, 0.42), (0.025, 0.06, 0.18), (0.05, 0.09, 0.06), (0.72, 0.72, 0.70), (0.012, 0.012, 0.014),
)  # fmt: skip
_VIEWS = (np.pi / 2 - 0.75, -np.pi / 2 - 0.75, 0.06)  # yaw: towards the eye, away from it, across
TILE = (400, 232)
SHEET, IMAGES = 2027, (900, 272)


def cars(seed: int = 3, supersample: int = 3) -> Image:
    """Two cars of each class, six to a row."""
    rows = []
    for number, kind in enumerate(KINDS):
        tiles = []
        for which in range(2):
            paint = _PAINTS[(number + 3 * which) % len(_PAINTS)]
            tiles += [car_image(kind, seed + 10 * number + which, yaw, paint, supersample) for yaw in _VIEWS]
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows)


def car_image(
    kind: str, seed: int, yaw: float, paint: tuple[float, float, float], supersample: int = 3
) -> Image:
    """One car of the family on grey ground, (232, 400, 3)."""
    rng = np.random.default_rng(seed)
    shape = sample_shape(rng, kind)
    style = replace(sample_style(rng, kind), paint=paint)
    eye, distance = 1.7, 7.4 + 1.2 * max(shape.length - 4.5, 0)
    part = figures.car(shape, style).placed(np.array([0, eye, distance]), yaw)
    ground = Ground(
        height=eye, slope_x=0, slope_z=0, offset=0, heading=0, bend=0, road=50, parking=0, pavement=0,
        crossing_at=None, crossing=0, albedo=np.full((6, 3), 0.30), dash=0, wear=0,
    )  # fmt: skip
    sun = np.array([-0.45, -0.75, -0.5])
    light = Light(
        sun=sun / np.linalg.norm(sun), direct=np.array([1.3, 1.22, 1.1]), diffuse=np.array([0.42, 0.45, 0.5]),
        zenith=np.array([0.55, 0.65, 0.8]), horizon=np.array([0.85, 0.9, 0.96]), cloud=0, haze=5000,
    )  # fmt: skip
    width, height = TILE
    focal = 1.32 * width
    projection = np.array([[focal, 0, width / 2, 0], [0, focal, 0.37 * height, 0], [0, 0, 1, 0]])
    footprint = np.array([[0, distance, shape.length, shape.width, yaw]])
    shot = shoot(Stage([part]), ground, light, footprint, projection, TILE, rng, supersample)
    return develop(shot.image, Sensor(1.0, 1.1, 0.0, 0.25, 0.3), rng)


def streets(seed: int = SHEET, count: int = 8) -> Image:
    """Images of a world, two to a row."""
    images = [make_frame(seed, k, *IMAGES).image for k in range(count)]
    return np.concatenate([np.concatenate(images[k : k + 2], 1) for k in range(0, count, 2)])


def main(folder: Path) -> None:
    from PIL import Image as PilImage

    for name, image, width in (("cars", cars(), 1800), ("world", streets(), 1500)):
        sheet = PilImage.fromarray(image)
        sheet = sheet.resize((width, round(sheet.height * width / sheet.width)), PilImage.Resampling.LANCZOS)
        sheet.save(folder / f"{name}.jpg", quality=82)


if __name__ == "__main__":
    main(Path(sys.argv[1]))


__getattr__ = renamed(__name__, car_picture="car_image")
