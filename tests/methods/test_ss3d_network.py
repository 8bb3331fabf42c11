"""SS3D's network: which output cell sees which pixels, what an untrained one says, and a training of both stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monolift.data.kitti import KittiDataset
from monolift.files.settings import differences
from monolift.inference import checkpoint
from monolift.methods.ss3d import PRESETS, RECIPES, SS3D, paper
from monolift.methods.ss3d.codec import cell_pixels
from monolift.methods.ss3d.network import BACKGROUND_BIAS, LOG_SIGMA_BIAS, TASKS, SS3DNetwork
from monolift.methods.ss3d.parameters import (
    BOX,
    CORNERS,
    DIRECTION,
    DISTANCE,
    PARAMETER_NAMES,
    PARAMETERS,
    SIZE,
)
from monolift.training.validate import detect_sample
from toy_kitti import write_toy
from trained import train_with


def network(backbone: str = "resnet18", per_cell_sigma: bool = True) -> SS3DNetwork:
    return SS3DNetwork(backbone, 3, "group", 0, per_cell_sigma).eval()


def test_tasks_stand_in_the_order_of_the_parameters() -> None:
    first = dict(zip(TASKS, torch.tensor([0, *TASKS.values()]).cumsum(0).tolist(), strict=False))
    spans = {name: slice(first[name], first[name] + n) for name, n in TASKS.items()}
    assert spans == {
        "box2d": BOX,
        "distance": slice(DISTANCE, DISTANCE + 1),
        "direction": DIRECTION,
        "size": SIZE,
        "corners": CORNERS,
    }
    assert sum(TASKS.values()) == PARAMETERS


def test_untrained_network_sees_background_and_knows_that_it_knows_little() -> None:
    """Also at stride 8, where the bias of one output is that of four channels before the shuffle."""
    for backbone in ("resnet18", "nano"):
        raw = network(backbone)(torch.zeros(2, 3, 32, 64))
        assert {name: tuple(v.shape[1:]) for name, v in raw.items()} == {
            "classes": (4, 8, 16),
            "parameters": (26, 8, 16),
            "log_sigma": (26, 8, 16),
        }
        torch.testing.assert_close(
            raw["classes"][:, 0], torch.full((2, 8, 16), BACKGROUND_BIAS), atol=1.0, rtol=0
        )
        assert raw["classes"][:, 1:].abs().max() < 1
        torch.testing.assert_close(
            raw["log_sigma"], torch.full_like(raw["parameters"], LOG_SIGMA_BIAS), atol=1.0, rtol=0
        )


def test_shuffle_spreads_a_feature_over_its_own_four_cells() -> None:
    """The last layer says four numbers for each output of a stride-8 cell: upper left, upper right, lower left, lower right."""
    net = network()
    head = net.hints["box2d"]
    last = head[3]  # type: ignore[index]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.arange(16.0))
    maps = net(torch.zeros(1, 3, 32, 64))["parameters"][0, :4]
    for channel in range(4):
        for row in range(8):
            for column in range(16):
                assert maps[channel, row, column] == 4 * channel + 2 * (row % 2) + column % 2


@pytest.mark.parametrize("backbone", ["resnet18", "nano"])
def test_a_cell_sees_its_own_pixel(backbone: str) -> None:
    """The slope of an output in the image is centred on the cell's pixel, to a cell of the features: convolutions of stride
    2 look at the first of their two pixels, and a shuffled cell has three neighbours with the same view."""
    net = network(backbone)
    images = torch.randn(1, 3, 128, 256, requires_grad=True)
    maps = net(images)["parameters"][0].square().sum(0)
    rows, columns = torch.arange(128.0), torch.arange(256.0)
    for row, column in ((12, 20), (13, 40), (18, 41)):
        (slope,) = torch.autograd.grad(maps[row, column], images, retain_graph=True)
        mass = slope[0].square().sum(0)
        near = mass / mass.sum()
        pixel = cell_pixels(torch.tensor([row * 64 + column]), 64)[0].tolist()
        assert float((near.sum(0) * columns).sum()) == pytest.approx(pixel[0], abs=8)
        assert float((near.sum(1) * rows).sum()) == pytest.approx(pixel[1], abs=8)


def test_sigmas_per_cell_or_per_hint() -> None:
    images = torch.randn(1, 3, 32, 64)
    assert network()(images)["log_sigma"].std((0, 2, 3)).min() > 0
    plain = network(per_cell_sigma=False)
    with torch.no_grad():
        plain.log_sigma.copy_(torch.arange(26.0))
    log_sigma = plain(images)["log_sigma"]
    assert (log_sigma == torch.arange(26.0)[None, :, None, None]).all()
    log_sigma[:, 3].sum().backward()
    assert plain.log_sigma.grad is not None and plain.log_sigma.grad.nonzero().tolist() == [[3]]


def test_published_widths() -> None:
    """DRN-C-26: 512 channels at stride 8, heads of twice as many, four outputs to a cell."""
    config = paper()
    with torch.device("meta"):
        net = SS3DNetwork(config.backbone, 3, "batch", config.head_channels, True)
    assert config.backbone == "drn_c_26"
    head = net.sigmas["corners"]
    assert [tuple(layer.weight.shape) for layer in (head[0], head[3])] == [  # type: ignore[index]
        (1024, 512, 1, 1),
        (64, 1024, 1, 1),
    ]


@pytest.mark.parametrize(("per_cell", "scale"), [(True, 0.1), (False, 40.0)])
def test_scaled_sigmas_start_at_one_unit_and_learn_at_the_scales_pace(per_cell: bool, scale: float) -> None:
    net = SS3DNetwork("nano", 3, "batch", 8, per_cell, scale).eval()
    log_sigma = net(torch.zeros(1, 3, 32, 64))["log_sigma"]
    torch.testing.assert_close(log_sigma, torch.zeros_like(log_sigma), atol=0.1, rtol=0)
    weight = net.sigmas["distance"][3].bias if per_cell else net.log_sigma  # type: ignore[index, union-attr]
    log_sigma[:, 4].mean().backward()
    assert float(weight.grad.sum()) == pytest.approx(scale, rel=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize(("first", "second"), [("default", "iou"), ("paper", "paper_iou")])
def test_a_second_stage_fits_the_checkpoint_of_its_first(first: str, second: str) -> None:
    """Weight by weight, so that ``--init`` takes all of it; and it is the first with an overlap loss."""
    shapes = []
    for name in (first, second):
        with torch.device("meta"):
            shapes.append({k: v.shape for k, v in SS3D(PRESETS[name]()).state_dict().items()})
    assert shapes[0] == shapes[1]
    different = differences(PRESETS[first](), PRESETS[second]())
    assert set(different) == {"iou_weight", "likelihood_weight"}
    assert RECIPES[second].lr == pytest.approx(RECIPES[first].lr / 10)


def test_two_stages_of_training_and_detection(tmp_path: Path) -> None:
    """Files, the first stage, the second through the fit from its checkpoint, and boxes with a covariance and evidence."""
    root = write_toy(tmp_path, [f"{k:06d}" for k in range(2)], cars=3)
    small = (
        "classes=Car",
        "input_width=192",
        "input_height=64",
        "head_channels=8",
        "epochs=1",
        "batch_size=2",
    )
    first = train_with("ss3d", root, root / "first", small)
    model = checkpoint.load(train_with("ss3d", root, root / "second", small, preset="iou", init=first))
    assert "iou" in json.loads((root / "second" / "metrics.jsonl").read_text())
    assert model.config.iou_weight == 1.0
    scene = KittiDataset(root)[0]
    found = detect_sample(model, scene)
    assert found.covariance is not None and found.evidence is not None
    assert found.covariance.shape == (len(found), 7, 7) and found.evidence.names == PARAMETER_NAMES
