"""Samples, cameras and raw maps that SMOKE's tests share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from monolift.augment.view import training_view
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera, wrap
from monolift.methods.smoke import SmokeConfig, official, paper
from monolift.methods.smoke.assign import Targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.depth import log_apparent_height

KITTI = Camera(721.5377, 721.5377, 609.5593, 172.854, 0.0598, -0.0004, 0.0027, width=1242, height=375)


OTHER = Camera(1266.4, 1266.4, 816.3, 491.5, width=1600, height=900)


PRESETS: dict[str, Callable[..., SmokeConfig]] = {
    "default": SmokeConfig,
    "paper": paper,
    "official": official,
}


def make_sample(
    camera: Camera, rows: list[tuple[float, ...]], classes: tuple[str, ...] = (), name: str = "0"
) -> Sample:
    """Rows of x y z  l h w  yaw; 2D boxes are the projected rectangles. The image is black and takes no memory."""
    t = torch.tensor(rows).reshape(-1, 7)
    boxes = Boxes3D(t[:, :3], t[:, 3:6], t[:, 6])
    n = len(rows)
    return Sample(
        name=name,
        image=torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, camera.height, camera.width),
        camera=camera,
        boxes=boxes,
        classes=classes or ("Car",) * n,
        boxes2d=boxes.projected(camera),
        truncation=torch.zeros(n),
        occlusion=torch.zeros(n, dtype=torch.long),
    )


CARS = [
    (-6.0, 1.0, 18.0, 3.9, 1.5, 1.6, 0.3),
    (2.0, 0.9, 12.0, 4.2, 1.6, 1.7, -1.6),
    (9.0, 1.1, 30.0, 3.5, 1.4, 1.5, 3.0),
    (0.5, 1.0, 45.0, 4.0, 1.7, 1.8, -2.9),
]


def network_samples(config: SmokeConfig, samples: list[Sample]) -> list[Sample]:
    return [training_view(config, *s.size).sample(s) for s in samples]


def perfect_raw(codec: SmokeCodec, targets: Targets) -> dict[str, torch.Tensor]:
    """The maps of a network that has learnt the targets: peaks where the heatmap is 1, exact numbers in all trained cells."""
    b, _, h, w = targets.heatmap.shape
    maps = torch.zeros(b, codec.channels, h, w)
    near = targets.near_object
    camera = targets.cameras[targets.image[near]]
    numbers = codec.encode(targets.boxes[near], targets.near_cell, targets.label[near], camera, w)
    column_row = torch.stack([targets.near_cell % w, targets.near_cell // w], 1)
    if codec.config.boxes2d:
        cells = targets.boxes2d[near] / 4
        middle, side = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2:] - cells[:, :2]
        numbers = torch.cat([numbers, middle - column_row, side.log()], 1)
    if codec.config.location_scale:
        numbers = torch.cat([numbers, torch.full((len(near), 1), -4.0)], 1)
    if codec.config.extensions.ray_terms:
        numbers = torch.cat([numbers, torch.zeros(len(near), codec.height_at - codec.rays_at)], 1)
    if codec.config.extensions.height_depth:
        boxes = targets.boxes[near]
        height = log_apparent_height(boxes.size[:, 1], boxes.center[:, 2], camera.fy.float(), 4)
        numbers = torch.cat([numbers, torch.stack([height, torch.full_like(height, -5.0)], 1)], 1)
    maps[targets.image[near], :, column_row[:, 1], column_row[:, 0]] = numbers
    logits = torch.logit(targets.heatmap.clamp(1e-4, 0.999))
    return {"heatmap": logits, "regression": maps}


def assert_same_boxes(found: Boxes3D, expected: Boxes3D, atol: float = 2e-3) -> None:
    """The same boxes in any order."""
    assert len(found) == len(expected)
    distance = torch.cdist(found.center, expected.center)
    nearest = distance.argmin(0)
    assert sorted(nearest.tolist()) == list(range(len(found)))
    found = found[nearest]
    assert torch.allclose(found.center, expected.center, atol=atol)
    assert torch.allclose(found.size, expected.size, atol=atol)
    assert wrap(found.yaw - expected.yaw).abs().max() < atol


def random_raw(codec: SmokeCodec, targets: Targets, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    b, k, h, w = targets.heatmap.shape
    heat = torch.randn(b, k, h, w, generator=generator) - 3
    maps = torch.randn(b, codec.channels, h, w, generator=generator) * 0.5
    return {"heatmap": heat.requires_grad_(), "regression": maps.requires_grad_()}
