"""KITTI's facts stand once, and importing them takes no torch."""

from __future__ import annotations

import subprocess
import sys

import torch

from monolift.data.kitti_facts import CAR_SIZE, LEVELS, NEIGHBOURS, SIZES, looks_like
from monolift.data.sample import EASY, HARD, MODERATE, OUTSIDE, Sample
from monolift.evaluation import protocol
from monolift.geometry import Boxes3D, Camera
from monolift.methods.monodr import MonoDRConfig
from monolift.methods.roi10d import ROI10DConfig
from monolift.methods.smoke import SmokeConfig


def test_the_methods_and_the_evaluation_share_them() -> None:
    assert SmokeConfig().sizes == tuple(SIZES[name] for name in SmokeConfig().classes)
    assert ROI10DConfig(classes=("Car",)).sizes == (CAR_SIZE,) == (MonoDRConfig().size_mean,)
    assert protocol.LEVELS is LEVELS
    assert {k.lower(): v[0].lower() for k, v in NEIGHBOURS.items()} == protocol.NEIGHBOURS


def test_neighbours() -> None:
    assert looks_like("Van", ("Pedestrian", "Car"))
    assert not looks_like("Van", ("Pedestrian", "Cyclist"))
    assert not looks_like("Misc", ("Car",))


def test_the_level_of_a_sample_is_that_of_its_limits() -> None:
    heights = torch.tensor([40.5, 40.0, 25.5, 25.0])
    sample = Sample(
        name="0",
        image=torch.zeros(3, 1, 1, dtype=torch.uint8),
        camera=Camera(700, 700, 600, 180),
        boxes=Boxes3D(torch.ones(4, 3), torch.ones(4, 3), torch.zeros(4)),
        classes=("Car",) * 4,
        boxes2d=torch.stack([torch.zeros(4), torch.zeros(4), heights, heights], 1),
        truncation=torch.tensor([0.15, 0.0, 0.5, 0.0]),
        occlusion=torch.tensor([0, 1, 2, 0]),
    )
    assert sample.difficulty.tolist() == [EASY, MODERATE, HARD, OUTSIDE]


def test_no_torch_is_imported() -> None:
    code = "import sys, monolift.data.kitti_facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
