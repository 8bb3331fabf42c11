"""SMOKE's losses: disentangled corners against a loop, gradients, batches without objects."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from monolift.geometry import Camera
from monolift.methods.smoke import SmokeConfig, official, paper
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import Quirks
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.smoke.loss import corner_losses, smoke_loss
from smoke_scenes import (
    CARS,
    KITTI,
    OTHER,
    PRESETS,
    make_sample,
    network_samples,
    perfect_raw,
    random_raw,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_perfect_prediction_has_no_corner_loss(preset: str) -> None:
    config = PRESETS[preset]()
    codec = SmokeCodec(config)
    targets = assign_targets(
        codec, network_samples(config, [make_sample(KITTI, CARS), make_sample(OTHER, CARS)])
    )
    losses = smoke_loss(codec, perfect_raw(codec, targets), targets)
    for name in ("orientation", "size", "location"):
        # the likelihood of an error of 0 under the smallest scale, exp(-3)
        expected = -3 if name == "location" and config.location_scale else 0
        assert losses[name].item() == pytest.approx(expected, abs=5e-3)
    if config.direction_weight:
        assert losses["direction"].item() == pytest.approx(0, abs=1e-5)
    if config.boxes2d:
        assert losses["box2d"].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_group_trains_its_own_numbers_only(preset: str) -> None:
    config = PRESETS[preset]()
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS)]))
    location = {0, 1, 2}
    if config.quirks.height_leak:
        location.add(4)
    if config.location_scale:
        location.add(codec.location_scale_at)
    owns = {"orientation": {6, 7}, "size": {3, 4, 5}, "location": location}
    for name, channels in owns.items():
        raw = random_raw(codec, targets)
        smoke_loss(codec, raw, targets)[name].backward()
        touched = {c for c in range(codec.channels) if raw["regression"].grad[:, c].abs().sum() > 0}
        assert touched == channels
        assert raw["heatmap"].grad is None
        cells = (raw["regression"].grad.abs().sum(1) > 0).sum()
        assert cells == len(targets.near_cell)  # and at its own cells only


def test_the_corner_loss_against_a_loop() -> None:
    """The released code's sum over 24 coordinates of three boxes, divided by 300, written out with its own formulas."""
    config = official()
    codec = SmokeCodec(config)
    (sample,) = network_samples(config, [make_sample(KITTI, CARS)])
    targets = assign_targets(codec, [sample])
    raw = random_raw(codec, targets)
    losses = smoke_loss(codec, raw, targets)

    def corners(l: float, h: float, w: float, bottom: list[float], yaw: float) -> list[float]:
        """Object frame with y = 0 at the bottom, then turned and moved to the bottom centre."""
        out = []
        for a in (-0.5, 0.5):
            for b in (-1, 0):
                for c in (-0.5, 0.5):
                    x, y, z = a * l, b * h, c * w
                    out += [
                        math.cos(yaw) * x + math.sin(yaw) * z + bottom[0], y + bottom[1],
                        -math.sin(yaw) * x + math.cos(yaw) * z + bottom[2],
                    ]  # fmt: skip
        return out

    sums = {"orientation": 0.0, "size": 0.0, "location": 0.0}
    f, cx, cy = (float(v) for v in (sample.camera.fx, sample.camera.cx, sample.camera.cy))
    for n in range(len(targets.boxes)):
        cell = int(targets.cell[n])
        column, row = cell % 320, cell // 320
        d = raw["regression"][0, :, row, column].tolist()
        l, h, w = targets.boxes.size[n].tolist()
        x, y, z = targets.boxes.center[n].tolist()
        yaw = float(targets.boxes.yaw[n])
        truth = corners(l, h, w, [x, y + h / 2, z], yaw)
        size = [
            r * math.exp(1 / (1 + math.exp(-v)) - 0.5) for r, v in zip(config.sizes[0], d[3:6], strict=True)
        ]
        alpha = math.atan2(d[6], d[7]) - math.pi / 2
        pz = 28.01 + 16.32 * d[0]
        px, py = ((column + d[1]) * 4 - cx) * pz / f, ((row + d[2]) * 4 - cy) * pz / f
        predicted = {
            "orientation": corners(l, h, w, [x, y + h / 2, z], alpha + math.atan(x / z)),
            "size": corners(size[0], size[1], size[2], [x, y + size[1] / 2, z], yaw),
            "location": corners(
                l, h, w, [px, py + size[1] / 2, pz], yaw
            ),  # the bottom by the predicted height: the leak
        }
        for name, values in predicted.items():
            sums[name] += sum(abs(p - q) for p, q in zip(values, truth, strict=True))
    # The released code lets the size grow upwards from the bottom, here it grows both ways from the middle: four corners
    # off by dh or eight off by dh / 2 are the same sum.
    for name, total in sums.items():
        assert losses[name].item() == pytest.approx(total / 300, rel=1e-4)


@pytest.mark.parametrize("regression", ["l1", "smooth_l1"])
def test_the_ablations_train_all_numbers_at_once(regression: str) -> None:
    config = paper(quirks=Quirks(regression=regression))
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS)]))
    assert smoke_loss(codec, perfect_raw(codec, targets), targets)["corners"].item() == pytest.approx(
        0, abs=1e-2
    )
    # near the ground truth: far from it all corners lie on one side and the gradients of L1 with respect to a size cancel
    maps = perfect_raw(codec, targets)["regression"]
    raw = {
        **random_raw(codec, targets),
        "regression": (maps + 0.01 * torch.randn_like(maps)).requires_grad_(),
    }
    smoke_loss(codec, raw, targets)["corners"].backward()
    assert (raw["regression"].grad.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    "config",
    [
        SmokeConfig(),
        official(),
        SmokeConfig(quirks=Quirks(quaternion=True)),
        paper(quirks=replace(paper().quirks, regression="smooth_l1")),
    ],
)
def test_gradients_of_the_corner_losses(config: SmokeConfig) -> None:
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS[:2])]))
    few = slice(0, 4)
    targets = replace(
        targets,
        boxes=targets.boxes.to(torch.float64),
        near_object=targets.near_object[few],
        near_cell=targets.near_cell[few],
        near_weight=targets.near_weight[few],
    )
    width = targets.heatmap.shape[3]
    numbers = torch.randn(len(targets.near_cell), codec.channels, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: tuple(corner_losses(codec, v, targets, width).values()), (numbers,), atol=1e-4
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_batches_without_objects_train_the_heatmap_and_nothing_breaks(preset: str) -> None:
    config = PRESETS[preset]()
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, []), make_sample(OTHER, [])]))
    raw = random_raw(codec, targets)
    losses = smoke_loss(codec, raw, targets)
    assert all(torch.isfinite(v) for v in losses.values())
    assert losses["heatmap"] > 0
    losses["total"].backward()
    assert torch.isfinite(raw["heatmap"].grad).all()
    # the regression head must take part, or distributed training waits for a gradient that never comes
    assert torch.equal(raw["regression"].grad, torch.zeros_like(raw["regression"]))


def test_a_car_half_behind_the_camera_trains_without_nan() -> None:
    source = make_sample(KITTI, [(1.8, 1.0, 1.2, 4.2, 1.5, 1.7, -1.55), (-2.0, 1.0, 0.5, 4.2, 1.5, 1.7, 1.6)])
    for preset in PRESETS.values():
        codec = SmokeCodec(preset())
        targets = assign_targets(codec, network_samples(preset(), [source]))
        raw = random_raw(codec, targets)
        losses = smoke_loss(codec, raw, targets)
        losses["total"].backward()
        assert torch.isfinite(losses["total"])
        assert torch.isfinite(raw["regression"].grad).all()


def test_vectors_and_quaternions_of_length_zero_have_finite_gradients() -> None:
    for quaternion in (False, True):
        config = SmokeConfig(quirks=Quirks(quaternion=quaternion))
        codec = SmokeCodec(config)
        targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS)]))
        raw = random_raw(codec, targets)
        raw["regression"] = torch.zeros_like(raw["regression"]).requires_grad_()
        smoke_loss(codec, raw, targets)["total"].backward()
        assert torch.isfinite(raw["regression"].grad).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_is_its_images(preset: str) -> None:
    """Targets are concatenated, losses add up as the normalisation says, detections are the same."""
    config = PRESETS[preset]()
    codec = SmokeCodec(config)
    samples = network_samples(config, [make_sample(KITTI, CARS), make_sample(OTHER, CARS[:2])])
    both = assign_targets(codec, samples)
    singles = [assign_targets(codec, [s]) for s in samples]
    assert torch.equal(both.heatmap, torch.cat([s.heatmap for s in singles]))
    assert torch.equal(both.cell, torch.cat([s.cell for s in singles]))
    assert torch.equal(both.near_weight, torch.cat([s.near_weight for s in singles]))
    raw = {k: v.detach() for k, v in random_raw(codec, both).items()}
    parts = [{k: v[b : b + 1] for k, v in raw.items()} for b in range(2)]
    together = smoke_loss(codec, raw, both)
    apart = [smoke_loss(codec, p, t) for p, t in zip(parts, singles, strict=True)]
    counts = [len(t.boxes) for t in singles]
    for name, value in together.items():
        a, b = (losses[name].item() for losses in apart)
        if name in ("orientation", "size", "location") and config.quirks.summed_regression:
            assert value.item() == pytest.approx(a + b, rel=1e-4)
        elif name != "total":
            mean = (a * counts[0] + b * counts[1]) / sum(counts)
            assert value.item() == pytest.approx(mean, rel=1e-4)
    raw = perfect_raw(codec, both)
    together_found = decode_maps(codec, raw, both.cameras)
    for b in range(2):
        (alone,) = decode_maps(
            codec, {k: v[b : b + 1] for k, v in raw.items()}, Camera.stack([samples[b].camera])
        )
        assert torch.equal(alone.boxes.center, together_found[b].boxes.center)
        assert torch.equal(alone.scores, together_found[b].scores)
