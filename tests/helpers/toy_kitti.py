"""A KITTI folder of painted boxes: a data set that is made in a second and whose ground truth is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from monolift.data.formats.kitti_format import format_calib, format_labels, from_numbers, parse_calib
from monolift.geometry import Boxes3D, Camera

# P2 of most KITTI images
FOCAL, CX, CY, OFFSET = 721.5377, 609.5593, 172.854, (44.85728, 0.2163791, 0.002745884)
FACES = ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7), (4, 5, 6, 7))


def toy_camera(width: int, height: int) -> Camera:
    """KITTI's camera, resized to another image size."""
    rows = [[FOCAL, 0, CX, OFFSET[0]], [0, FOCAL, CY, OFFSET[1]], [0, 0, 1, OFFSET[2]]]
    return Camera.from_matrix(rows, 1242, 375).after_resize(width, height)


def toy_boxes(count: int, rng: np.random.Generator) -> Boxes3D:
    """Cars on a ground 1.65 m below the camera, side by side, all inside the image; near ones may hide parts of others."""
    z = rng.uniform(9, 24, count)
    x = (np.arange(count) - (count - 1) / 2 + rng.uniform(-0.15, 0.15, count)) / max(count, 1) * 1.3 * z
    size = np.stack(
        [rng.uniform(3.4, 4.4, count), rng.uniform(1.4, 1.7, count), rng.uniform(1.5, 1.8, count)], 1
    )
    yaw = rng.uniform(-3.1, 3.1, count)
    rows = np.column_stack([x, 1.65 - size[:, 1] / 2, z, size, yaw])
    t = torch.from_numpy(np.round(rows, 2)).float()
    return Boxes3D(t[:, :3], t[:, 3:6], t[:, 6])


def paint(boxes: Boxes3D, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Flat-shaded boxes before sky and street, the farthest first; the front is bright, so that the heading shows."""
    image = Image.new("RGB", (camera.width, camera.height), (150, 180, 220))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, float(camera.cy), camera.width, camera.height), fill=(90, 90, 95))
    for n in torch.argsort(boxes.center[:, 2], descending=True).tolist():
        color = rng.integers(60, 200, 3)
        corners = boxes[n].corners()[0]
        px = camera.px_from_cam(corners)
        faces = sorted(range(5), key=lambda f: -float(corners[list(FACES[f])].norm(dim=1).mean()))
        for f in faces:
            shade = (1.3, 0.8, 0.4, 0.8, 1.0)[f]
            fill = tuple(int(min(255, c * shade)) for c in color)
            draw.polygon([tuple(px[k].tolist()) for k in FACES[f]], fill=fill)
    return image


def write_toy(
    root: Path,
    ids: Sequence[str],
    cars: int = 3,
    size: tuple[int, int] = (1242, 375),
    same: bool = False,
    seed: int = 0,
) -> Path:
    """Images, labels and calibrations; with ``same`` one scene under all ids. Returns ``root``."""
    training = root / "training"
    for folder in ("image_2", "label_2", "calib"):
        (training / folder).mkdir(parents=True, exist_ok=True)
    camera = toy_camera(*size)
    p2 = "P2: " + " ".join(repr(v) for v in camera.matrix.flatten().tolist())
    for k, name in enumerate(ids):
        rng = np.random.default_rng((seed, 0 if same else k))
        boxes = toy_boxes(cars, rng)
        paint(boxes, camera, rng).save(training / "image_2" / f"{name}.png", compress_level=1)
        l, h, w = boxes.size.numpy().T
        numbers = np.column_stack(
            [
                np.zeros(cars),
                np.zeros(cars),
                boxes.alpha,
                boxes.projected(camera),
                h,
                w,
                l,
                boxes.bottom,
                boxes.yaw,
            ]
        )
        labels = from_numbers(("Car",) * cars, numbers.astype(float))
        (training / "label_2" / f"{name}.txt").write_text(format_labels(labels))
        (training / "calib" / f"{name}.txt").write_text(format_calib(parse_calib(p2)))
    return root
