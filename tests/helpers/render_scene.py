"""Cars in KITTI-like poses with a crop each, and slow oracles of what a renderer should give for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from monolift.geometry import Camera
from monolift.geometry.rotations import matrix_from_yaw
from monolift.render.crops import crop_cameras
from monolift.render.mesh import Mesh, icosphere
from monolift.render.rasterize import project
from monolift.render.renderer import render_screen
from monolift.typing import Float, Tensor

KITTI = Camera(721.5, 721.5, 609.6, 172.9)
FREEDOMS = ("x", "y", "z", "yaw", "length", "height", "width")


@dataclass(frozen=True)
class CarScene:
    """B cars: mesh in boxes of unit size, the pose and size (B, 7) in the order of FREEDOMS, crop cameras (B,)."""

    mesh: Mesh
    pose: Float[Tensor, "b 7"]
    cameras: Camera

    def screen(self, pose: Float[Tensor, "b 7"]) -> Float[Tensor, "b v 3"]:
        """Projected vertices of the cars in other poses, seen by the same crops."""
        return project(place(self.mesh.vertices.to(pose.dtype), pose), self.cameras)


def place(vertices: Tensor, pose: Tensor) -> Tensor:
    """Vertices of unit boxes (B, V, 3) in the camera frame."""
    turned = (vertices * pose[:, None, 4:]) @ matrix_from_yaw(pose[:, 3]).transpose(1, 2)
    return turned + pose[:, None, :3]


def car_scene(cars: int, size: int, *, seed: int = 0, subdivisions: int = 3) -> CarScene:
    """Icospheres pushed into the shape of a car with a cabin (642 vertices, 1,280 faces at 3 subdivisions), each a little
    different, 8 to 40 m away, with random textures; crops of ``size`` pixels."""
    rng = np.random.default_rng(seed)
    directions, faces = icosphere(subdivisions)
    cube = directions.double().sign() * directions.double().abs() ** 0.45
    x, y, z = (cube / cube.abs().amax(0) / 2).unbind(1)
    cabin = (x > -0.38) & (x < 0.16)
    y = torch.where(y < 0, y * torch.where(cabin, 1.0, 0.55), y)  # y is down: what is above is negative
    z = torch.where(y < -0.1, 0.85 * z, z)
    shape = torch.stack([x, y, z], 1)
    vertices = shape + torch.from_numpy(0.005 * rng.standard_normal((cars, *shape.shape)))

    around = torch.atan2(directions[:, 2], directions[:, 0]) / (2 * math.pi) + 0.5
    down = directions[:, 1].clamp(-1, 1).acos() / math.pi
    uvs = torch.stack([around, down], 1)[faces]
    torn = uvs[..., 0].amax(1) - uvs[..., 0].amin(1) > 0.5  # faces across the seam
    uvs[..., 0] += (torn[:, None] & (uvs[..., 0] < 0.5)).float()
    uvs[..., 0] /= 1.2
    texture = torch.from_numpy(rng.random((cars, 3, 64, 128))).float()

    depth = rng.uniform(8, 40, cars)
    place_x = rng.uniform(-0.4, 0.4, cars) * depth
    height = 1.0 + 0.1 * rng.standard_normal(cars)
    yaw = rng.uniform(-math.pi, math.pi, cars)
    size_m = np.array([3.88, 1.53, 1.63]) * (1 + 0.07 * rng.standard_normal((cars, 3)))
    pose = torch.from_numpy(np.column_stack([place_x, height, depth, yaw, size_m])).float()
    return scene_of(Mesh(vertices.float(), faces, uvs, texture), pose, size)


def scene_of(mesh: Mesh, pose: Tensor, size: int) -> CarScene:
    """The scene with the crops that a detector's boxes round the cars would give."""
    screen = project(place(mesh.vertices, pose), Camera.stack([KITTI] * len(pose)))
    boxes = torch.cat([screen[..., :2].amin(1), screen[..., :2].amax(1)], 1)
    return CarScene(mesh, pose, crop_cameras(KITTI, boxes, size, margin=0.075))


def supersampled_coverage(screen: Tensor, faces: Tensor, size: int, factor: int = 16) -> Tensor:
    """(B, size, size) share of each pixel that the triangles cover, from factor^2 samples: an independent oracle.

    Every triangle opens an interval on the sample rows it meets (+1 at its start, -1 past its end); where the running sum of
    a row is positive, something covers the sample.
    """
    fine = size * factor
    images = []
    for vertices in screen.detach().double().numpy():
        corners = ((vertices[:, :2] + 0.5) * factor - 0.5)[faces.numpy()]
        rows_first = np.ceil(corners[..., 1].min(1)).clip(0).astype(int)
        rows_last = np.floor(corners[..., 1].max(1)).clip(max=fine - 1).astype(int)
        count = (rows_last - rows_first + 1).clip(0)
        triangle = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(triangle)) - np.repeat(count.cumsum() - count, count) + rows_first[triangle]
        start, stop = np.full(len(row), np.inf), np.full(len(row), -np.inf)
        for i, j in ((0, 1), (1, 2), (2, 0)):
            (ax, ay), (bx, by) = corners[triangle, i].T, corners[triangle, j].T
            with np.errstate(divide="ignore", invalid="ignore"):
                share = (row - ay) / (by - ay)
            crossing = np.where((share >= 0) & (share <= 1), ax + share * (bx - ax), np.nan)
            start, stop = np.fmin(start, crossing), np.fmax(stop, crossing)
        start, stop = np.ceil(start).clip(0, fine), np.floor(stop).clip(-1, fine - 1) + 1
        inside = stop > start
        steps = np.zeros((fine, fine + 1), np.int16)
        np.add.at(steps, (row[inside], start[inside].astype(int)), 1)
        np.add.at(steps, (row[inside], stop[inside].astype(int)), -1)
        covered = (steps.cumsum(1, dtype=np.int16)[:, :-1] > 0).view(np.uint8)
        samples = (
            covered.reshape(size, factor, fine).sum(1, dtype=np.int16).reshape(size, size, factor).sum(2)
        )
        images.append(samples / factor**2)
    return torch.from_numpy(np.stack(images))


def soft_iou_loss(silhouette: Tensor, target: Tensor) -> Tensor:
    """1 - soft IoU of each image (B,)."""
    overlap = (silhouette * target).sum((1, 2))
    return 1 - overlap / (silhouette + target - silhouette * target).sum((1, 2))


@dataclass(frozen=True)
class GradientReport:
    """How a gradient (B, 7) compares with finite differences: each freedom scaled to its mean size first."""

    cosine: float
    slope: float
    worst_freedom: tuple[str, float]
    loss_error: float


def perturbed(scene: CarScene, seed: int = 5) -> Tensor:
    """(B, 7) poses near the scene's: what a fit would be looking for."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.standard_normal((len(scene.pose), 7))).float()
    pose = scene.pose.clone()
    pose[:, :3] *= 1 + 0.03 * noise[:, :3]
    pose[:, 3] += 0.15 * noise[:, 3]
    pose[:, 4:] *= 1 + 0.05 * noise[:, 4:]
    return pose


def hard_target(scene: CarScene, size: int) -> Tensor:
    """(B, size, size) masks, 0 or 1, of the cars in the perturbed poses."""
    return supersampled_coverage(scene.screen(perturbed(scene)), scene.mesh.faces, size, factor=1).float()


def silhouette_gradient(scene: CarScene, size: int, target: Tensor, **options: str) -> tuple[Tensor, Tensor]:
    """The loss (B,) and its gradient (B, 7) by the renderer."""
    pose = scene.pose.clone().requires_grad_()
    image = render_screen(scene.mesh, scene.screen(pose), size, size, **options)
    loss = soft_iou_loss(image.silhouette, target.to(image.silhouette))
    (gradient,) = torch.autograd.grad(loss.sum(), pose)
    return loss.detach(), gradient


def finite_differences(
    scene: CarScene, size: int, target: Tensor, *, factor: int = 16, pixels: float = 0.35
) -> tuple[Tensor, Tensor]:
    """The same by central differences of the supersampled silhouette, with steps that move the car's outline by about
    ``pixels``; in float64."""
    pose = scene.pose.double()
    metre = scene.cameras.fx / pose[:, 2]  # pixels per metre

    def loss(at: Tensor) -> Tensor:
        return soft_iou_loss(
            supersampled_coverage(scene.screen(at), scene.mesh.faces, size, factor), target.double()
        )

    gradient = torch.zeros_like(pose)
    for k, name in enumerate(FREEDOMS):
        step = pixels / metre * {"z": pose[:, 2] / 2, "yaw": torch.full_like(metre, 0.5)}.get(name, 1.0)
        ahead, behind = pose.clone(), pose.clone()
        ahead[:, k] += step
        behind[:, k] -= step
        gradient[:, k] = (loss(ahead) - loss(behind)) / (2 * step)
    return loss(pose), gradient


def compare(loss: Tensor, gradient: Tensor, true_loss: Tensor, truth: Tensor) -> GradientReport:
    scale = truth.abs().mean(0)
    a, b = (gradient.double() / scale).flatten(), (truth / scale).flatten()
    error = (gradient.double() - truth).abs() / (truth.abs() + 0.05 * scale)
    worst = error.median(0).values
    k = int(worst.argmax())
    return GradientReport(
        cosine=float(a @ b / (a.norm() * b.norm())),
        slope=float(a @ b / (b @ b)),
        worst_freedom=(FREEDOMS[k], float(worst[k])),
        loss_error=float((loss.double() - true_loss).abs().max()),
    )
