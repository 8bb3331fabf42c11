"""Cars of the procedural family with known ground truth, and what a 2D detector and a depth network would say of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from monolift.geometry import Boxes3D, Camera, iou_bev
from monolift.methods.monodr import Observation
from monolift.methods.monodr.codec import place
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project
from monolift.render.renderer import render
from monolift.shapes.car_mesh import topology
from monolift.shapes.textured_training import Family

WIDTH, HEIGHT = 1242, 375
KITTI = Camera(721.5, 721.5, 609.6, 172.9, width=WIDTH, height=HEIGHT)
CAMERA_HEIGHT = 1.65
SIZE_MEAN, SIZE_SPREAD = np.array([3.88, 1.53, 1.63]), np.array([0.09, 0.07, 0.05])


@dataclass(frozen=True)
class Noise:
    """What the detector and the depth network get wrong.

    scale: standard deviation of the log of each depth map's scale; pixel: of each pixel's depth, as a share of it; box: pixels.
    """

    scale: float = 0.01
    pixel: float = 0.03
    box: float = 1.0


@dataclass(frozen=True)
class KnownCars:
    """N objects of some images, and what is true of them.

    image: for each object the number of its image; visible: (N,) share of it that is not hidden.
    """

    observations: list[Observation]
    boxes: Boxes3D
    image: list[int]
    visible: list[float]


@dataclass
class _Canvas:
    """An image in the making: colours over a coarse random pattern, depth (inf where there is nothing), owner (0: nobody)."""

    colour: np.ndarray
    depth: np.ndarray = field(default_factory=lambda: np.full((HEIGHT, WIDTH), np.inf, np.float32))
    owner: np.ndarray = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), int))


def known_cars(
    images: int, *, per_image: int = 1, seed: int = 0, noise: Noise | None = None, hidden: float = 0.0, near: float = 8.0,
    far: float = 35.0,
) -> KnownCars:  # fmt: skip
    """Cars on a plane, of KITTI's sizes, in all headings, that do not stand in each other.

    hidden: share of the object's extent across the image, on a random side, that something in front hides (one car per
    image). Objects of which less than 100 pixels or 15 % are seen are no detections, and left out.
    """
    noise = noise or Noise()
    found: list[tuple[Observation, Boxes3D, int, float]] = []
    for k in range(images):
        rng = np.random.default_rng([seed, k])
        found += [(o, b, k, v) for o, b, v in _image(rng, per_image, noise, hidden, near, far)]
    observations, boxes, image, visible = (list(v) for v in zip(*found, strict=True))
    return KnownCars(observations, Boxes3D.cat(boxes), image, visible)


def _image(
    rng: np.random.Generator, cars: int, noise: Noise, hidden: float, near: float, far: float
) -> list[tuple[Observation, Boxes3D, float]]:
    family = Family.sample(cars, int(rng.integers(1 << 30)))
    boxes = _standing_apart(rng, cars, near, far)
    faces, uv = topology()
    faces = torch.from_numpy(np.ascontiguousarray(faces)).long()
    uvs = torch.from_numpy(uv).float()[faces]
    vertices = place(family.vertices, boxes)
    canvas = _Canvas(np.kron(rng.uniform(0.2, 0.8, (3, 24, 78)), np.ones((16, 16)))[:, :HEIGHT, :WIDTH])
    areas = [_draw(canvas, Mesh(vertices[k], faces, uvs, family.textures[k]), k + 1) for k in range(cars)]
    if hidden:
        _hide(canvas, hidden, rng)
    scale = float(np.exp(noise.scale * rng.standard_normal()))
    seen = np.where(canvas.owner > 0, canvas.depth, 0) * scale
    depth = torch.from_numpy((seen * (1 + noise.pixel * rng.standard_normal(seen.shape))).astype(np.float32))
    grain = 0.02 * rng.standard_normal(canvas.colour.shape)
    image = torch.from_numpy((np.clip(canvas.colour + grain, 0, 1) * 255).astype(np.uint8))
    found = []
    for k in range(cars):
        mask = np.where(canvas.owner == k + 1, 1, np.where(canvas.owner > 0, -1, 0)).astype(np.int8)
        count = int((mask == 1).sum())
        if count < 100 or count < 0.15 * areas[k]:
            continue
        rows, columns = np.nonzero(mask == 1)
        box = np.array(
            [columns.min(), rows.min(), columns.max(), rows.max()]
        ) + noise.box * rng.standard_normal(4)
        box2d = torch.from_numpy(np.clip(box, 0, [WIDTH - 1, HEIGHT - 1] * 2)).float()
        visible = min(count / areas[k], 1.0)
        # As detectors do: nearly sure of all that is large and whole.
        score = np.clip(
            0.55 + 0.25 * visible + 0.25 * min(box[3] - box[1], 60) / 60 + 0.05 * rng.standard_normal(),
            0.1,
            0.99,
        )
        found.append(
            (Observation(image, KITTI, torch.from_numpy(mask), depth, box2d, float(score)), boxes[k], visible)
        )
    return found


def _standing_apart(rng: np.random.Generator, cars: int, near: float, far: float) -> Boxes3D:
    boxes = Boxes3D.empty()
    while len(boxes) < cars:
        z = rng.uniform(near, far)
        size = SIZE_MEAN * (1 + SIZE_SPREAD * rng.standard_normal(3))
        center = [rng.uniform(-0.4, 0.4) * z, CAMERA_HEIGHT - size[1] / 2, z]
        yaw = rng.uniform(-np.pi, np.pi)
        one = Boxes3D(*(torch.tensor(np.array(v)[None]).float() for v in (center, size, yaw)))
        if not len(boxes) or float(iou_bev(one, boxes).max()) == 0:
            boxes = Boxes3D.cat([boxes, one])
    return boxes


def _draw(canvas: _Canvas, mesh: Mesh, number: int) -> float:
    """Put a car among the others; returns its area in pixels, hidden parts and what lies outside the image included."""
    pixels = project(mesh.vertices[None], Camera.stack([KITTI]))[0, :, :2]
    left, top = (int(v) - 4 for v in pixels.amin(0))
    width, height = (int(v) + 9 for v in pixels.amax(0) - pixels.amin(0))
    image = render(mesh, Camera.stack([KITTI.after_crop(left, top, width, height)]))
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, WIDTH), min(top + height, HEIGHT)
    here = (slice(y1, y2), slice(x1, x2))
    there = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    colour, share, depth = (
        v[0].numpy()[(..., *there)] for v in (image.colour, image.silhouette, image.depth)
    )
    nearer = np.where(depth > 0, depth, 1e-6) <= canvas.depth[here]
    share = share * nearer
    canvas.colour[(slice(None), *here)] = colour * nearer + (1 - share) * canvas.colour[(slice(None), *here)]
    inside = (share > 0.5) & (depth > 0)
    canvas.depth[here] = np.where(inside, depth, canvas.depth[here])
    canvas.owner[here] = np.where(inside, number, canvas.owner[here])
    return float(image.silhouette.sum())


def _hide(canvas: _Canvas, share: float, rng: np.random.Generator) -> None:
    """Something 5 m away stands before a strip at a side of the only car, and beyond."""
    columns = np.nonzero((canvas.owner == 1).any(0))[0]
    if not len(columns):
        return
    strip = round(share * len(columns))
    left = rng.random() < 0.5
    behind = slice(0, columns[0] + strip) if left else slice(columns[-1] - strip + 1, WIDTH)
    canvas.owner[:, behind], canvas.depth[:, behind] = 2, 5.0
    canvas.colour[:, :, behind] = rng.uniform(0.2, 0.8, (3, 1, 1))
