"""The image that ships with the package: a street composed by hand, so that there is something to see in it.

    python -m monolift.world.example FOLDER

writes example.jpg, calib.txt and label.txt; the bundled ones come from here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from monolift.data.formats.kitti_format import write_calib, write_labels
from monolift.shapes.car_texture import sample_style
from monolift.shapes.procedural import sample_shape
from monolift.world.ground import Ground
from monolift.world.layout import Scene, add_person, add_vehicle, car_of
from monolift.world.render import Light
from monolift.world.sensor import Sensor
from monolift.world.surroundings import build_surroundings
from monolift.world.synthetic import KITTI_SIZE, Frame, render_scene, sample_calib

SEED = 15

# kind, linear paint, s, t, turn: along the road, across it, against it
_CARS = (
    ("large", (0.025, 0.05, 0.16), 13.5, 1.6, 0.01),
    ("car", (0.42, 0.43, 0.44), 24.0, -1.75, np.pi - 0.02),
    ("small", (0.38, 0.02, 0.018), 8.6, 4.55, -0.03),
    ("suv", (0.012, 0.012, 0.014), 11.5, -4.5, 0.02),
    ("car", (0.70, 0.70, 0.68), 30.0, -7.6, np.pi / 2 + 0.06),
    ("van", (0.70, 0.70, 0.68), 19.0, 4.7, 0.0),
    ("car", (0.06, 0.16, 0.34), 40.0, -1.6, np.pi),
)


def example_frame(supersample: int = 3) -> Frame:
    """The example as it is rendered today; always the same. A smaller `supersample` draws it faster and less smoothly."""
    rng = np.random.default_rng(SEED)
    ground = Ground(
        height=1.65, slope_x=0.004, slope_z=0.003, offset=-1.5, heading=0.015, bend=0.0, road=3.4, parking=2.2,
        pavement=2.6, crossing_at=30.5, crossing=3.6, dash=3.0, wear=0.5,
        albedo=np.array([
            [0.105, 0.105, 0.11], [0.62, 0.62, 0.60], [0.30, 0.29, 0.27],
            [0.24, 0.23, 0.215], [0.075, 0.115, 0.035], [0.17, 0.155, 0.14],
        ]),
    )  # fmt: skip
    sun = np.array([-0.55, -0.62, -0.56])
    light = Light(
        sun=sun / np.linalg.norm(sun), direct=np.array([1.55, 1.42, 1.2]), diffuse=np.array([0.27, 0.31, 0.37]),
        zenith=np.array([0.17, 0.34, 0.70]), horizon=np.array([0.80, 0.88, 0.97]), cloud=0.5, haze=1500.0,
    )  # fmt: skip
    sensor = Sensor(exposure=1.0, contrast=1.3, warmth=0.0, blur=0.4, noise=0.7)
    scene = Scene("residential", ground, light, sensor)
    for kind, paint, s, t, turn in _CARS:
        shape = sample_shape(rng, kind)
        style = replace(sample_style(rng, kind), paint=paint, trim=False)
        add_vehicle(scene, rng, s, t, turn, car_of(shape, rng, style))
    add_person(scene, rng, "Cyclist", 16.0, -2.6, np.pi, (1.76, 1.74, 0.6))
    add_person(scene, rng, "Pedestrian", 9.5, -6.6, 0.1, (0.8, 1.76, 0.64))
    build_surroundings(scene, rng)
    width, height = KITTI_SIZE
    return render_scene(scene, sample_calib(rng, width, height), width, height, rng, supersample)


def write_example(folder: Path) -> None:
    """example.jpg, calib.txt and label.txt in a folder."""
    from PIL import Image

    frame = example_frame()
    Image.fromarray(frame.image).save(folder / "example.jpg", quality=88)
    write_calib(folder / "calib.txt", frame.calib)
    write_labels(folder / "label.txt", frame.labels)


if __name__ == "__main__":
    write_example(Path(sys.argv[1]))
