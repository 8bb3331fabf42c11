"""Scenes for the viewer's tests: painted boxes whose ground truth is exact."""

from __future__ import annotations

from pathlib import Path

import torch

from monolift.data.kitti import read_sample
from monolift.data.sample import Objects
from monolift.geometry import Boxes3D
from monolift.render.mesh import Mesh, icosphere
from monolift.viewer import Scene
from toy_kitti import write_toy


def toy_world(folder: Path, count: int = 3) -> Path:
    """``folder``/training with ``count`` painted images of three cars each, 000000, 000001, ..."""
    return write_toy(folder, [f"{k:06d}" for k in range(count)], size=(621, 188), seed=3) / "training"


def toy_scene(root: Path, name: str = "000000") -> Scene:
    """Cars found a little beside the labelled ones, with scores 0.9, 0.6, 0.3, covariances, meshes and LiDAR points."""
    sample = read_sample(root, name)
    n = len(sample)
    boxes = Boxes3D(
        sample.boxes.center + torch.tensor([0.2, 0.0, 0.4]), sample.boxes.size * 1.05, sample.boxes.yaw + 0.1
    )
    covariance = torch.diag(torch.tensor([0.1, 0.05, 0.6, 0.1, 0.05, 0.05, 0.2]) ** 2).repeat(n, 1, 1)
    directions, faces = icosphere(1)
    meshes = tuple(Mesh(directions * boxes.size[i].min() / 2 + boxes.center[i], faces) for i in range(n))
    objects = Objects.named(
        boxes, sample.classes, scores=torch.tensor([0.9, 0.6, 0.3])[:n], covariance=covariance, meshes=meshes
    )
    ground = torch.cartesian_prod(torch.linspace(-8, 8, 20), torch.tensor([1.65]), torch.linspace(5, 40, 30))
    image = root / "image_2" / f"{name}.png"
    return Scene(name, image, sample.camera, objects, sample.objects, ground)
