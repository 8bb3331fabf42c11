"""Every component on the CPU and on a GPU, compared. ``pytest -m cuda`` runs them; without a GPU they are skipped.

MONOLIFT_CUDA_TESTS=cpu rehearses them with the CPU in the GPU's place: what the tests themselves do is checked, no kernel is.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import monolift
from monodr_cars import known_cars
from monolift.augment.cutouts import Cutout
from monolift.augment.paste import PasteOptions, paste
from monolift.data.kitti import KittiDataset
from monolift.geometry import Boxes3D, Camera, iou_bev
from monolift.inference import zoo
from monolift.methods import get_method
from monolift.methods.monodr import MonoDR, MonoDRConfig
from monolift.nn.deform import DeformConv2d
from monolift.nn.roi import nms, roi_align
from monolift.render.mesh import Mesh, icosphere
from monolift.render.renderer import render
from monolift.training.optimizer import Average, make_optimizer
from monolift.training.train import train
from toy_kitti import write_toy

DEVICE = os.environ.get("MONOLIFT_CUDA_TESTS", "cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32, the default of convolutions, would hide what is to be compared."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["smoke", "ss3d", "roi10d"])
def test_a_bundled_model_finds_the_same(name: str) -> None:
    image, calib = zoo.EXAMPLE / "example.jpg", zoo.EXAMPLE / "calib.txt"
    ours, theirs = (
        monolift.load(name, device=device).detect(image, calib=calib) for device in ("cpu", DEVICE)
    )
    assert ours.classes == theirs.classes and len(ours)
    torch.testing.assert_close(theirs.boxes.center, ours.boxes.center, atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["smoke", "ss3d", "roi10d"])
def test_the_networks_agree_in_either_memory_format(name: str) -> None:
    method = get_method(name)
    torch.manual_seed(0)
    detector = method.detector(method.presets["default"]()).eval()
    images = numbers(2, 3, 64, 96)
    with torch.no_grad():
        expected = detector(images)
        there = copy.deepcopy(detector).to(DEVICE).to(memory_format=torch.channels_last)
        got = there(images.to(DEVICE).contiguous(memory_format=torch.channels_last))
    for key, maps in expected.items():
        torch.testing.assert_close(got[key].cpu(), maps, atol=2e-3, rtol=1e-3)


def test_deformable_convolution_and_its_gradients() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(8, 8)
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.1)
    results = []
    for device in ("cpu", DEVICE):
        one = copy.deepcopy(layer).to(device)
        x = numbers(2, 8, 12, 16).to(device).requires_grad_()
        out = one(x)
        out.square().sum().backward()
        assert x.grad is not None
        results.append([out, x.grad, *(p.grad for p in one.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a.cpu(), atol=1e-3, rtol=1e-3)


def test_roi_align_nms_and_overlap() -> None:
    corner = numbers(40, 2, seed=1).abs() * 20
    boxes = torch.cat([corner, corner + 5 + numbers(40, 2, seed=2).abs() * 20], 1)
    features, scores = numbers(1, 4, 32, 32), torch.linspace(0, 1, 40)
    index = torch.zeros(40, dtype=torch.long)
    boxes3d = Boxes3D(numbers(40, 3, seed=3) * 3, numbers(40, 3, seed=4).abs() + 1, numbers(40, seed=5))
    for function, arguments in (
        (lambda f, b, i: roi_align(f, b, i, (5, 5), spatial_scale=0.5), (features, boxes, index)),
        (lambda b, s: nms(b, s, 0.3), (boxes, scores)),
        (lambda c, s, y: iou_bev(Boxes3D(c, s, y), Boxes3D(c, s, y)), (boxes3d.center, boxes3d.size, boxes3d.yaw)),
    ):  # fmt: skip
        expected = function(*arguments)
        got = function(*(a.to(DEVICE) for a in arguments))
        torch.testing.assert_close(got.cpu(), expected, atol=1e-4, rtol=1e-4)


def test_the_renderer_and_its_gradients() -> None:
    vertices, faces = icosphere(2)
    uvs = (vertices[faces][..., :2] + 1) / 2
    results = []
    for device in ("cpu", DEVICE):
        moved = (vertices + torch.tensor([0.1, 0.0, 4.0])).to(device).requires_grad_()
        mesh = Mesh(moved, faces.to(device), uvs.to(device), numbers(3, 8, 8).to(device))
        seen = render(mesh, Camera.stack([Camera(60, 60, 31.5, 23.5, width=64, height=48)]))
        (seen.colour.square().sum() + seen.silhouette.sum()).backward()
        results.append((seen.colour, seen.silhouette, seen.depth, moved.grad))
    for a, b in zip(*results, strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(b.detach().cpu(), a.detach().cpu(), atol=2e-3, rtol=1e-3)


def test_a_fit_of_cars() -> None:
    cars = known_cars(2, seed=3)
    results = []
    for device in ("cpu", DEVICE):
        fitter = MonoDR(MonoDRConfig(iterations=3), device=device)
        results.append(fitter.fit(cars.observations, seed=1, history=True))
    ours, theirs = results
    assert theirs.boxes.center.device.type == "cpu" and theirs.meshes is not None
    torch.testing.assert_close(theirs.boxes.center, ours.boxes.center, atol=2e-2, rtol=1e-3)
    torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-2, rtol=1e-2)
    assert theirs.mesh_at(0)[0].vertices.device.type == "cpu"


def test_pasted_cars(tmp_path: Path) -> None:
    write_toy(tmp_path, ["000000"])
    sample = KittiDataset(tmp_path)[0]
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * torch.tensor([1.9, 0.7, 0.8])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 1, 0], [3, 2, 0]])
    red = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 8, 8)
    mesh = Mesh(corners, faces, torch.full((4, 3, 2), 0.5), red)
    bank = [Cutout(mesh, torch.tensor([3.9, 1.5, 1.6]), 0.1, 1.65, 60.0, 0.4, "Car", "a")]
    made = [
        paste(sample, np.random.default_rng(1), bank, PasteOptions(device=device))
        for device in ("cpu", DEVICE)
    ]
    assert len(made[0]) == len(made[1])
    assert (made[0].image.int() - made[1].image.int()).abs().max() <= 2


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimiser_and_average(kind: str) -> None:
    method = get_method("smoke")
    recipe = method.recipes["default"]
    states = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        detector = method.detector(method.presets["default"]()).to(device)
        average = Average(detector, method, 0.9)
        optimizer = make_optimizer(detector, replace(recipe, optimizer=kind))
        for step in range(2):
            for k, parameter in enumerate(detector.parameters()):
                parameter.grad = numbers(*parameter.shape, seed=k + step).to(device)
            optimizer.step()
            average.update(step)
        states.append(average.detector.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key].cpu(), value, atol=1e-5, rtol=1e-4)


def test_training_runs_in_bfloat16(tmp_path: Path) -> None:
    write_toy(tmp_path / "data", [f"{k:06d}" for k in range(4)], size=(310, 94))
    method = get_method("smoke")
    seen: list[dict[str, float]] = []
    out = train(
        method.config(classes=("Car",), input_width=160, input_height=64),
        replace(method.recipes["default"], epochs=1, batch_size=2, precision="bfloat16"),
        tmp_path / "data",
        tmp_path / "run",
        measure=False,
        device=DEVICE,
        quiet=True,
        on_step=lambda step: seen.append(step.losses),
    )
    told = [value for row in seen for value in row.values()]
    assert len(seen) == 2 and told and all(map(math.isfinite, told))
    assert monolift.load(out, device=DEVICE).device.type == torch.device(DEVICE).type
