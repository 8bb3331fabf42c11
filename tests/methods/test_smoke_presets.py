"""SMOKE's presets paper and official are what they are called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.helpers.smoke_golden import golden, raw_maps
from tests.helpers.smoke_scenes import CARS, KITTI, make_sample

from monolift.augment.augment import Augmenter, random_view, resized_view
from monolift.augment.view import padded, width_crop
from monolift.methods.base import in_source
from monolift.methods.smoke import METHOD, RECIPES, official, paper
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.smoke.loss import smoke_loss
from monolift.runtime.window import window_for


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_three_of_ten_samples_are_rescaled_and_train_no_box(preset: str) -> None:
    config = METHOD.presets[preset]()
    augmenter, codec = Augmenter.of(RECIPES[preset].augmentation), SmokeCodec(config)
    view = width_crop(1242, 375, 320, 96)
    rng = np.random.default_rng(0)
    seen = [augmenter(make_sample(KITTI, CARS), view, rng)[0] for _ in range(200)]
    share = np.mean([sample.rescaled for sample in seen])
    assert 0.22 < share < 0.38
    for sample in seen[:30]:
        targets = assign_targets(codec, [sample])
        assert (len(targets.boxes) > 0) != sample.rescaled
        if len(sample):
            assert float(targets.heatmap.max()) == 1


def test_the_default_trains_boxes_of_rescaled_samples() -> None:
    sample = replace(make_sample(KITTI, CARS), rescaled=True)
    default = METHOD.presets["default"]()
    view = width_crop(1242, 375, 832, 256)
    assert len(assign_targets(SmokeCodec(default), [view.sample(sample)]).boxes) == len(CARS)


def test_windows_are_those_of_the_released_code() -> None:
    """Its affine transforms of four scenes, which count pixels half a pixel further."""
    values = golden("targets.npz")
    sizes = {"800001": (1242, 375), "800002": (1224, 370), "800003": (1600, 900), "800004": (640, 480)}
    for frame, (width, height) in sizes.items():
        base = width_crop(width, height, 1280, 384)
        for variant in ("plain", "affine"):
            shift_x, shift_y, size = (0.0, 0.0, 1.0)
            if variant == "affine":
                shift_x, shift_y, size = values[f"affine/{frame}/augmentation"]
            view = resized_view(base, float(size), float(shift_x), float(shift_y))
            t = values[f"{variant}/{frame}/trans_mat"].astype(float)
            middle = np.array([width / 2, height / 2])  # of the image, counted from its border
            theirs = 4 * (t[0, 0] * middle + t[:2, 2])
            ours = view.px_from_source(torch.tensor(middle - 0.5)).numpy() + 0.5
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
            assert view.scale == pytest.approx(4 * t[0, 0], rel=1e-6)


def test_sizes_and_shifts_are_the_nine_and_five_published() -> None:
    """Zoom 1 / size; the shift is one of the window's middle, in shares of the image."""
    base, augmentation = width_crop(1242, 375, 1280, 384), RECIPES["paper"].augmentation
    rng = np.random.default_rng(0)
    views = [random_view(base, augmentation, rng) for _ in range(2000)]
    sizes = {round(base.scale / view.scale, 6) for view in views}
    assert sorted(sizes) == [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4]
    shifts = {round(((v.left + 640) / v.scale - 621) / 1242, 6) + 0.0 for v in views}
    assert sorted(shifts) == [-0.2, -0.1, 0.0, 0.1, 0.2]


def test_a_batch_of_32_weighs_as_four_gpus_of_8() -> None:
    config = official(input_width=64, input_height=32)
    codec, view = SmokeCodec(config), width_crop(1242, 375, 64, 32)
    torch.manual_seed(0)
    samples = [view.sample(make_sample(KITTI, CARS[: 1 + k % 4])) for k in range(32)]
    raw = {"heatmap": torch.randn(32, 3, 8, 16) - 4, "regression": torch.randn(32, 8, 8, 16)}
    whole = smoke_loss(codec, raw, assign_targets(codec, samples))
    parts = [
        smoke_loss(
            codec, {k: v[i : i + 8] for k, v in raw.items()}, assign_targets(codec, samples[i : i + 8])
        )
        for i in range(0, 32, 8)
    ]
    for name in whole:
        assert whole[name].item() == pytest.approx(np.mean([part[name].item() for part in parts]), rel=1e-5)


def test_schedules_are_those_of_paper_and_code() -> None:
    published, code = RECIPES["paper"], RECIPES["official"]
    assert (published.epochs, [round(60 * m) for m in published.milestones]) == (60, [25, 40])
    for images in (3712, 7481):
        per_epoch = images // 32
        assert code.length(per_epoch) == 25_000
        assert 25_000 <= code.epochs_of(per_epoch) * per_epoch < 25_000 + per_epoch
    assert [round(m * 25_000) for m in code.milestones] == [10_000, 18_000]


def test_published_constants_are_never_measured() -> None:
    assert {"paper", "official"} <= METHOD.fixed


def test_two_d_boxes_reach_the_images_last_row() -> None:
    """Rows that the window has lost are no reason to cut a box."""
    config = official()
    view = width_crop(1242, 375, 1280, 384)
    raw = raw_maps(["800001"])
    found = decode_maps(SmokeCodec(config), raw, _stacked(view.camera(KITTI)))[0]
    boxes2d = in_source(found, view, 1242, 375).boxes2d
    assert boxes2d is not None
    assert float(boxes2d[:, 3].max()) == 374 and float(boxes2d[:, 1].min()) == 0


def _stacked(camera):  # type: ignore[no-untyped-def]
    from monolift.geometry import Camera

    return Camera.stack([camera])


@pytest.mark.parametrize("size", [(1242, 375), (1224, 370), (1600, 900), (640, 480)])
@pytest.mark.parametrize("fit", ["pad", "width-crop"])
def test_both_windows_are_the_same(fit: str, size: tuple[int, int]) -> None:
    make = {"pad": padded, "width-crop": width_crop}[fit]
    ours = make(*size, 1280, 384)
    theirs = window_for({"input_width": 1280, "input_height": 384, "fit": fit}, *size)
    assert (ours.scale, ours.left, ours.top) == (theirs.scale, theirs.left, theirs.top)
    image = torch.randint(0, 255, (3, size[1], size[0]), dtype=torch.uint8)
    assert np.array_equal(ours.image(image).numpy(), theirs.image(image.permute(1, 2, 0).numpy()))


def test_the_paper_pads_kittis_images() -> None:
    view = padded(1242, 375, paper().input_width, paper().input_height)
    assert view.scale == 1 and (view.left, view.top) == (-19, -5)


def test_a_keypoint_at_the_2d_centre_still_leads_to_the_3d_centre() -> None:
    config = paper()
    config = replace(config, quirks=replace(config.quirks, center2d=True))
    codec, sample = SmokeCodec(config), make_sample(KITTI, CARS)
    targets = assign_targets(codec, [padded(1242, 375, 1280, 384).sample(sample)])
    numbers = codec.encode(targets.boxes, targets.cell, targets.label, targets.cameras[targets.image], 320)
    back = codec.decode(numbers, targets.cell, targets.label, targets.cameras[targets.image], 320)
    np.testing.assert_allclose(back.center, targets.boxes.center, atol=1e-3)
    middle = (targets.boxes2d[:, :2] + targets.boxes2d[:, 2:]) / 2 / 4
    np.testing.assert_array_equal(targets.cell % 320, middle[:, 0].int())
