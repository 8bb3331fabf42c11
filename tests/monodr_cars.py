"""Cars of the procedural family with known truth, and what a 2D detector and a depth network would say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from monolift.geometry import Boxes3D, Camera
from monolift.methods.monodr import Observation
from monolift.methods.monodr.codec import place
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project
from monolift.render.renderer import render
from monolift.shapes.car_mesh import topology
from monolift.shapes.textured_training import Family

KITTI = Camera(721.5, 721.5, 609.6, 172.9, width=1242, height=375)
CAMERA_HEIGHT = 1.65


@dataclass(frozen=True)
class KnownCars:
    """One car per picture, and what is true of it."""

    observations: list[Observation]
    boxes: Boxes3D


def known_cars(
    count: int,
    *,
    seed: int = 0,
    scale_noise: float = 0.01,
    pixel_noise: float = 0.03,
    hidden: float = 0.0,
    box_noise: float = 1.0,
    near: float = 8.0,
    far: float = 35.0,
) -> KnownCars:
    """Cars on a plane, of KITTI's sizes, in all headings.

    scale_noise: standard deviation of the log of each depth map's scale; pixel_noise: of each pixel's depth, as a share of it.
    hidden: share of the car's width in the picture, on a random side, that something in front hides. box_noise: pixels.
    """
    rng = np.random.default_rng(seed)
    family = Family.sample(count, seed + 1000)
    faces, uv = topology()
    faces = torch.from_numpy(np.ascontiguousarray(faces)).long()
    depth = rng.uniform(near, far, count)
    size = np.array([3.88, 1.53, 1.63]) * (1 + np.array([0.09, 0.07, 0.05]) * rng.standard_normal((count, 3)))
    center = np.column_stack([rng.uniform(-0.4, 0.4, count) * depth, CAMERA_HEIGHT - size[:, 1] / 2, depth])
    yaw = rng.uniform(-np.pi, np.pi, count)
    boxes = Boxes3D(*(torch.from_numpy(v).float() for v in (center, size, yaw)))
    vertices = place(family.vertices, boxes)
    mesh = Mesh(vertices, faces, torch.from_numpy(uv).float()[faces], family.textures)
    observations = []
    for k in range(count):
        scale = float(np.exp(scale_noise * rng.standard_normal()))
        one = Mesh(mesh.vertices[k], faces, mesh.uvs, family.textures[k])
        observations.append(_observe(one, rng, scale, pixel_noise, hidden, box_noise))
    return KnownCars(observations, boxes)


def _observe(
    mesh: Mesh, rng: np.random.Generator, scale: float, pixel_noise: float, hidden: float, box_noise: float
) -> Observation:
    cameras = Camera.stack([KITTI])
    pixels = project(mesh.vertices[None], cameras)[0, :, :2]
    low, high = pixels.amin(0), pixels.amax(0)
    left, top = (int(v) - 4 for v in low)
    window = KITTI.after_crop(left, top, int(high[0] - low[0]) + 9, int(high[1] - low[1]) + 9)
    picture = render(mesh, Camera.stack([window]))
    # Into the whole picture, what of the window lies in it.
    rows, columns = np.arange(window.height) + top, np.arange(window.width) + left
    inside_r, inside_c = (rows >= 0) & (rows < 375), (columns >= 0) & (columns < 1242)
    target = np.ix_(rows[inside_r], columns[inside_c])

    def framed(values: torch.Tensor) -> np.ndarray:
        whole = np.zeros((375, 1242), np.float32)
        whole[target] = values.numpy()[np.ix_(inside_r, inside_c)]
        return whole

    silhouette = framed(picture.silhouette[0])
    shade = np.kron(rng.uniform(0.2, 0.8, (3, 24, 78)), np.ones((16, 16)))[:, :375, :1242]
    image = np.stack([framed(c) for c in picture.colour[0]]) + (1 - silhouette) * shade
    depth = framed(picture.depth[0])
    mask = np.where((silhouette > 0.5) & (depth > 0), 1, 0).astype(np.int8)
    box = np.array([*low.tolist(), *high.tolist()])
    if hidden:
        strip = hidden * (box[2] - box[0])
        column = np.arange(1242)
        if rng.random() < 0.5:
            box[0] += strip
            behind = column < box[0]
        else:
            box[2] -= strip
            behind = column > box[2]
        mask[:, behind] = -1
        image[:, :, behind] = shade[:, :, behind]
        depth[:, behind] = 5.0
    noisy = depth * scale * (1 + pixel_noise * rng.standard_normal(depth.shape))
    coloured = (np.clip(image + 0.02 * rng.standard_normal(image.shape), 0, 1) * 255).astype(np.uint8)
    box = np.clip(box + box_noise * rng.standard_normal(4), 0, [1241, 374, 1241, 374])
    return Observation(
        image=torch.from_numpy(coloured),
        camera=KITTI,
        mask=torch.from_numpy(mask),
        depth=torch.from_numpy(noisy.astype(np.float32)),
        box2d=torch.from_numpy(box).float(),
    )
