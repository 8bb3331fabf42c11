"""SMOKE's options beyond the paper: each decodes what it encodes, trains, and leaves the rest as it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from monolift.augment.augment import mirror
from monolift.augment.view import training_view
from monolift.errors import InputError
from monolift.geometry import Camera, wrap
from monolift.methods.smoke import METHOD, Smoke, SmokeConfig, official, paper
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.cells import STRIDE
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import Extensions, Quirks
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.smoke.depth import depth_with_height, log_apparent_height
from monolift.methods.smoke.heading import nearest_bin
from monolift.methods.smoke.loss import corner_losses, smoke_loss
from monolift.training.optimizer import freeze
from smoke_scenes import CARS, KITTI, OTHER, assert_same_boxes, make_sample, network_samples, perfect_raw

ALL = Extensions(log_depth=True, height_depth=True, ray_terms=True, binned_heading=True, heading_bins=8)
OPTIONS = {
    "log depth": Extensions(log_depth=True),
    "height depth": Extensions(height_depth=True),
    "ray terms": Extensions(ray_terms=True),
    "binned heading": Extensions(binned_heading=True),
    "all": ALL,
}
WIDTH = 208  # columns of the default's map
SMALL = {"input_width": 128, "input_height": 64, "head_channels": 16}


def config_of(extensions: Extensions) -> SmokeConfig:
    return SmokeConfig(extensions=extensions)


def test_no_preset_uses_any() -> None:
    assert {c.extensions for c in (SmokeConfig(), paper(), official())} == {Extensions()}
    assert SmokeCodec(SmokeConfig()).channels == 13


@pytest.mark.parametrize("name", OPTIONS)
def test_perfect_maps_decode_to_the_labels(name: str) -> None:
    config = config_of(OPTIONS[name])
    codec = SmokeCodec(config)
    kitti, other = (
        make_sample(KITTI, CARS),
        make_sample(OTHER, [(x, y, z + 4, *rest) for x, y, z, *rest in CARS]),
    )
    sources = [kitti, other, mirror(kitti), make_sample(KITTI, [])]
    targets = assign_targets(codec, network_samples(config, sources))
    raw = perfect_raw(codec, targets)
    found = decode_maps(codec, raw, targets.cameras)
    for detections, source in zip(found, sources, strict=True):
        sure = detections[detections.scores > 0.9]
        assert len(sure) == len(source)
        if len(source):
            assert_same_boxes(sure.boxes, source.boxes, 5e-3)
    losses = smoke_loss(codec, raw, targets)
    assert float(losses["size"]) < 5e-3 and float(losses["orientation"]) < 5e-3
    assert float(losses["location"]) == pytest.approx(-3, abs=5e-3)  # no error under the smallest scale


@pytest.mark.parametrize("extensions", [Extensions(log_depth=True), replace(ALL, heading_bins=3)])
def test_gradients_are_those_of_finite_differences(extensions: Extensions) -> None:
    config = config_of(extensions)
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS[:2])]))
    few = slice(0, 1)
    targets = replace(
        targets,
        boxes=targets.boxes.to(torch.float64),
        near_object=targets.near_object[few],
        near_cell=targets.near_cell[few],
        near_weight=targets.near_weight[few],
    )
    camera = targets.cameras[targets.image[targets.near_object]]

    def values(numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen = codec.with_rays(numbers, targets.near_cell, camera, WIDTH)
        depth = codec.final_depth(codec.parts(seen, targets.near_object * 0, camera), seen, camera)
        return *corner_losses(codec, seen, targets, WIDTH).values(), depth

    numbers = torch.randn(1, codec.channels, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(values, (numbers,), atol=1e-4)


def test_a_number_of_log_depth_is_a_share_of_any_distance() -> None:
    config = config_of(Extensions(log_depth=True))
    codec, label = SmokeCodec(config), torch.zeros(5, dtype=torch.long)
    numbers = torch.zeros(5, codec.channels)
    numbers[:, 0] = torch.linspace(-2, 2, 5)
    step = torch.zeros_like(numbers)
    step[:, 0] = 0.5
    near, far = (codec.parts(n, label, KITTI).depth for n in (numbers, numbers + step))
    share = config.depth_std / config.depth_mean
    torch.testing.assert_close(far / near, torch.full((5,), math.exp(share / 2)))
    # value and slope at 0 are those of equation 1
    plain = SmokeCodec(SmokeConfig())
    zero, little = torch.zeros(1, 13), torch.full((1, 13), 1e-3)
    for one in (zero, little):
        torch.testing.assert_close(
            codec.parts(one, label[:1], KITTI).depth,
            plain.parts(one, label[:1], KITTI).depth,
            rtol=1e-5,
            atol=0,
        )


def test_ray_terms_change_depth_and_heading_by_the_direction_of_the_ray() -> None:
    config = config_of(Extensions(ray_terms=True))
    codec = SmokeCodec(config)
    assert codec.channels == 13 + 6 == sum(codec.heads)
    camera = Camera.stack([training_view(config, 1242, 375).camera(KITTI)] * 2)
    numbers = torch.zeros(2, codec.channels)
    numbers[:, 7] = 1.0  # seen from behind
    numbers[:, codec.rays_at + 2] = 1.0  # of the cosine, to the right
    numbers[:, codec.rays_at + 1] = 2.0  # of depth, down
    cell = torch.tensor([30 * WIDTH + 10, 50 * WIDTH + 190])
    px = torch.stack([cell % WIDTH, cell // WIDTH], 1) * 4.0
    ray = camera.cam_from_px(px, torch.ones(2))[:, :2]
    changed = codec.with_rays(numbers, cell, camera, WIDTH)
    torch.testing.assert_close(changed[:, 6], ray[:, 0])
    torch.testing.assert_close(changed[:, 0], 2 * ray[:, 1])
    assert torch.equal(changed[:, [1, 2, 3, 4, 5, 7]], numbers[:, [1, 2, 3, 4, 5, 7]])
    assert SmokeCodec(SmokeConfig()).with_rays(numbers, cell, camera, WIDTH) is numbers


@pytest.mark.parametrize("bins", [2, 7, 12])
def test_every_angle_has_one_bin_and_a_place_in_it(bins: int) -> None:
    codec = SmokeCodec(config_of(Extensions(binned_heading=True, heading_bins=bins)))
    alpha = torch.linspace(-math.pi, math.pi, 200)
    index, residual = nearest_bin(alpha, bins)
    assert set(index.tolist()) == set(range(bins)) and float(residual.abs().max()) <= 1 + 1e-5
    middle = index * 2 * math.pi / bins
    assert float(wrap(alpha - middle).abs().max()) <= math.pi / bins + 1e-5
    boxes = make_sample(KITTI, [CARS[0]] * 200).boxes
    boxes = replace(boxes, yaw=alpha)
    zero = torch.zeros(200, dtype=torch.long)
    numbers = codec.encode(boxes, zero, zero, KITTI, WIDTH)
    assert numbers.shape == (200, 6 + 2 * bins)
    assert float(wrap(codec.parts(numbers, zero, KITTI).alpha - boxes.alpha).abs().max()) < 1e-4


def test_a_wrong_bin_is_the_classifiers_loss_and_a_right_one_costs_nothing() -> None:
    config = config_of(Extensions(binned_heading=True))
    codec = SmokeCodec(config)
    targets = assign_targets(codec, network_samples(config, [make_sample(KITTI, CARS)]))
    raw = perfect_raw(codec, targets)
    right = smoke_loss(codec, raw, targets)
    wrong = {**raw, "regression": raw["regression"].clone()}
    wrong["regression"][:, 6:18] = raw["regression"][:, 6:18].roll(6, 1)  # the opposite bins
    lost = smoke_loss(codec, wrong, targets)
    assert float(right["direction"]) == pytest.approx(math.log(1 + 11 * math.exp(-10)), abs=1e-4)
    assert float(lost["direction"]) == pytest.approx(10, abs=0.01)
    assert float(lost["orientation"]) == pytest.approx(float(right["orientation"]), abs=1e-6)


@pytest.mark.parametrize("log_scale, own, factor", [(4.0, -5.0, 1.0), (-3.0, 2.0, 1.1)])
def test_the_more_certain_of_two_depths_wins(log_scale: float, own: float, factor: float) -> None:
    """The apparent height is right, the regressed depth 10 % too large."""
    boxes = make_sample(KITTI, CARS).boxes
    z, height, n = boxes.center[:, 2], boxes.size[:, 1], len(boxes)
    fy = torch.full((n,), float(KITTI.fy))
    apparent = log_apparent_height(height, z, fy, STRIDE)
    tops, bottoms = (boxes.center + torch.tensor([0.0, s, 0.0]) * height[:, None] / 2 for s in (-1, 1))
    seen = (KITTI.px_from_cam(bottoms) - KITTI.px_from_cam(tops))[:, 1] / STRIDE
    torch.testing.assert_close(apparent.exp(), seen, rtol=2e-3, atol=1e-3)
    predicted = torch.stack([apparent, torch.full((n,), own)], 1)
    from_box = log_apparent_height(height, 1.1 * z, fy, STRIDE)
    depth = depth_with_height(1.1 * z, torch.full((n,), log_scale), from_box, predicted)
    torch.testing.assert_close(depth / z, torch.full((n,), factor), rtol=3e-3, atol=0)


def test_calibration_is_linear_in_the_logarithms_of_depth_and_focal_length() -> None:
    a, b, c = 0.01, 0.02, -0.1
    config = config_of(Extensions(depth_calibration=(a, b, c)))
    codec, plain = SmokeCodec(config), SmokeCodec(SmokeConfig())
    cameras = Camera.stack([replace(KITTI, fx=480.0), replace(KITTI, fx=600.0)])
    label = torch.zeros(2, dtype=torch.long)
    for number in (0.0, 1.0):
        numbers = torch.full((2, codec.channels), number)
        ratio = codec.parts(numbers, label, cameras).depth / plain.parts(numbers, label, cameras).depth
        log_depth = math.log((config.depth_mean + config.depth_std * number) / config.depth_mean)
        expected = [a + b * log_depth + c * math.log(fx / 480) for fx in (480.0, 600.0)]
        torch.testing.assert_close(ratio.log(), torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_a_second_class_on_an_object_counts_less() -> None:
    config = SmokeConfig(**SMALL)
    codec = SmokeCodec(config)
    raw = {"heatmap": torch.full((1, 3, 16, 32), -9.0), "regression": torch.zeros(1, codec.channels, 16, 32)}
    raw["heatmap"][0, :2, 8, 10] = torch.tensor([1.0, 2.0])  # one object, two classes; boxes of one size
    raw["heatmap"][0, 0, 8, 25] = 0.5  # and one elsewhere
    raw["regression"][:, codec.box2d_at : codec.box2d_at + 4] = torch.tensor([0.0, 0.0, 2.0, 2.0]).view(
        1, 4, 1, 1
    )
    fused = replace(config, boxes2d_fusion=0.0)
    camera = network_samples(config, [make_sample(KITTI, CARS[:1])])[0].camera
    plain = decode_maps(SmokeCodec(fused), raw, Camera.stack([camera]))[0]
    fair = replace(fused, extensions=Extensions(rival_score=0.5))
    found = decode_maps(SmokeCodec(fair), raw, Camera.stack([camera]))[0]
    assert plain.labels.tolist() == [1, 0, 0] and found.labels.tolist() == [1, 0, 0]
    first, same, other = plain.scores.tolist()
    assert sorted(found.scores.tolist(), reverse=True) == pytest.approx(
        sorted([first, same / 2, other], reverse=True)
    )


def test_dense_depth_trains_where_depth_is_known_and_detects_nothing() -> None:
    config = SmokeConfig(**SMALL, extensions=Extensions(dense_depth=0.5))
    detector = Smoke(config)
    sample = make_sample(KITTI, CARS)
    view = training_view(config, *sample.size)
    depth = torch.zeros(375, 1242)
    depth[100:300, 300:900] = 30.0
    depth[200:204, 600:604] = 20.0  # about half a pixel of the network's image: the nearest of a cell counts
    [seen] = network_samples(config, [replace(sample, depth=depth)])
    targets = detector.encode([seen])
    assert targets.depth is not None and targets.depth.shape == (1, 16, 32)
    ratio = float(view.camera(KITTI).fx) / config.focal
    row, column = (int(v) // 4 for v in view.px_from_source(torch.tensor([601.5, 201.5])).flip(0))
    assert float(targets.depth[0, row, column]) * ratio in (pytest.approx(20), pytest.approx(30))
    assert float(targets.depth.max()) * ratio == pytest.approx(30)
    image = torch.randn(1, 3, 64, 128)
    raw = detector(image)
    known = targets.depth > 0
    expected = (
        (raw["depth"][:, 0] - (targets.depth.clamp_min(1) / config.depth_mean).log()).abs()[known].mean()
    )
    losses = detector.loss(raw, targets)
    assert losses["dense_depth"].item() == pytest.approx(0.5 * expected.item(), rel=1e-5)
    losses["total"].backward()
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []
    assert set(detector.eval()(image)) == {"heatmap", "regression"}
    without = detector.encode(network_samples(config, [sample]))
    assert without.depth is not None and not without.depth.any()
    assert detector.loss(detector.train()(image), without)["dense_depth"].item() == 0
    assert METHOD.learns_depth(config) and not METHOD.learns_depth(SmokeConfig())
    assert (
        without.to("cpu").depth is not None
        and assign_targets(SmokeCodec(SmokeConfig()), [seen]).depth is None
    )


def test_every_weight_is_trained_with_everything_at_once() -> None:
    config = SmokeConfig(**SMALL, extensions=replace(ALL, head_norm="batch"))
    model = Smoke(config)
    assert isinstance(model.network.heatmap[1], torch.nn.BatchNorm2d)  # type: ignore[index]
    losses = model.loss(
        model(torch.randn(1, 3, 64, 128)), model.encode(network_samples(config, [make_sample(KITTI, CARS)]))
    )
    losses["total"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert {"height", "direction"} <= set(losses)


def test_options_that_cannot_be_combined_are_named() -> None:
    with pytest.raises(InputError, match="height_depth needs location_scale"):
        SmokeConfig(location_scale=False, extensions=Extensions(height_depth=True))
    with pytest.raises(InputError, match=r"binned_heading and quirks\.quaternion"):
        SmokeConfig(quirks=Quirks(quaternion=True), extensions=Extensions(binned_heading=True))
    with pytest.raises(InputError, match="heading_bins must be at least 2"):
        Extensions(heading_bins=1)


def test_the_experimental_preset_freezes_parts_that_its_backbone_has() -> None:
    config, recipe = METHOD.presets["efficientnet"](), METHOD.recipes["efficientnet"]
    assert METHOD.learns_depth(config)
    detector = Smoke(replace(config, head_channels=8))
    frozen = freeze(detector, recipe)
    assert len(frozen) == 4 and any(p.requires_grad for p in detector.backbone.parameters())
