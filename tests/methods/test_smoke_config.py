"""SMOKE's presets, statistics and network images."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from monolift.augment.view import network_view, training_view
from monolift.errors import InputError
from monolift.methods.smoke import Smoke, SmokeConfig, official, paper
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import Quirks, with_statistics
from smoke_scenes import (
    KITTI,
    OTHER,
    make_sample,
)


def test_the_network_sees_the_same_image_at_any_resolution() -> None:
    """Through prepare(): the network image and its camera hardly differ when image and camera shrink together."""
    model = Smoke(SmokeConfig(head_channels=32))
    y, x = torch.meshgrid(torch.arange(375), torch.arange(1242), indexing="ij")
    waves = [128 + 90 * torch.sin(x / a) * torch.cos(y / b) for a, b in ((40, 30), (55, 21), (33, 47))]
    image = torch.stack(waves).to(torch.uint8)
    half = (
        torch.nn.functional.interpolate(image[None].float(), (300, 994), mode="area")[0]
        .round()
        .to(torch.uint8)
    )
    a, b = model.prepare(image, KITTI), model.prepare(half, KITTI.after_resize(994, 300))
    assert a.image.shape == b.image.shape
    assert (a.image - b.image)[:, 4:-4, 4:-4].abs().mean() < 0.02
    assert torch.allclose(a.camera.matrix, b.camera.matrix, rtol=2e-3, atol=0.6)


def test_presets_say_what_the_sources_say() -> None:
    p, o, d = paper(), official(), SmokeConfig()
    assert (p.input_width, p.input_height, p.backbone, p.norm, p.head_channels) == (
        1280,
        384,
        "dla34",
        "group",
        256,
    )
    for config in (p, o):
        assert (config.depth_mean, config.depth_std, config.size_limit) == (28.01, 16.32, 0.5)
        assert config.quirks.regression == "disentangled"
        assert config.quirks.drop_outside
        assert not (config.boxes2d or config.location_scale or config.focal or config.neighbourhood)
        assert SmokeCodec(config).channels == 8
    assert (o.quirks.bgr, o.fit, o.quirks.intrinsics_only, o.top_k) == (True, "width-crop", True, 50)
    assert o.classes == ("Car", "Cyclist", "Pedestrian")
    assert o.sizes[0] == (3.88, 1.63, 1.53)  # height and width exchanged, as released
    assert o.regression_weight == pytest.approx(24 / 300)
    assert (d.quirks, d.fit) == (Quirks(), "area")
    assert not any((Quirks().intrinsics_only, Quirks().drop_outside, Quirks().bgr))
    assert d.focal > 0
    assert d.size_limit > 0.5


@pytest.mark.parametrize("change, words", [
    ({"fit": "big"}, "fit must be one of"),
    ({"norm": "layer"}, "norm must be one of"),
    ({"sizes": ((4.0, 1.5, 1.6),)}, "one .l, h, w. for each"),
    ({"input_width": 810}, "must be a multiple of 32"),
])  # fmt: skip
def test_configurations_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SmokeConfig(**change)  # type: ignore[arg-type]


def test_the_official_image_is_bgr_with_rgb_statistics_and_loses_rows() -> None:
    model = Smoke(official(backbone="nano", head_channels=32))
    red = torch.zeros(3, 4, 4, dtype=torch.uint8)
    red[0] = 255
    out = model.normalise(red)[:, 0, 0].tolist()
    assert out == pytest.approx([(0 - 0.485) / 0.229, (0 - 0.456) / 0.224, (1 - 0.406) / 0.225], abs=1e-5)
    view = network_view(official(), 1242, 375)
    assert (view.width, view.height, view.left) == (1280, 384, 0)
    assert view.scale == pytest.approx(1280 / 1242)
    # middle to middle
    middle = view.px_from_source(torch.tensor([620.5, 187.0]))
    assert middle.tolist() == pytest.approx([639.5, 191.5], abs=0.6)


@pytest.mark.parametrize("size", [(1242, 375), (1600, 900), (1920, 1080), (480, 640), (900, 150)])
def test_by_default_no_row_is_lost_whatever_the_shape(size: tuple[int, int]) -> None:
    for config in (SmokeConfig(), paper()):
        for view in (network_view(config, *size), training_view(config, *size)):
            corners = view.px_from_source(torch.tensor([[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]]))
            assert corners.min() >= -0.5 - 0.51  # half a pixel of rounding
            assert corners[1, 0] <= view.width - 0.5 + 0.51
            assert corners[1, 1] <= view.height - 0.5 + 0.51
            assert view.width % 32 == view.height % 32 == 0
    area = network_view(SmokeConfig(), *size)
    assert area.width * area.height == pytest.approx(832 * 256, rel=0.25)


def test_statistics_come_from_the_training_split() -> None:
    rows = [(0, 1, 10, 4.0, 1.5, 1.6, 0.0), (2, 1, 20, 3.0, 1.7, 1.8, 0.0), (1, 1, 8, 0.8, 1.8, 0.6, 0.0)]
    a = make_sample(KITTI, rows, ("Car", "Car", "Pedestrian"))
    b = make_sample(OTHER, [(0, 1, 30, 5.0, 1.6, 1.7, 0)], ("Car",))
    c = make_sample(OTHER, [(0, 1, 30, 9.0, 3.0, 3.0, 0)], ("Truck",))
    base = SmokeConfig(classes=("Car", "Pedestrian"), sizes=((1, 1, 1), (1, 1, 1)))
    config = with_statistics(base, [a, b, c])
    assert config.sizes[0] == pytest.approx((4.0, 1.6, 1.7))
    assert config.sizes[1] == pytest.approx((0.8, 1.8, 0.6))
    focal = [float(training_view(base, *s.size).camera(s.camera).fx) for s in (a, b, c)]
    assert config.focal == pytest.approx(sorted(focal)[1])
    apparent = [10 * config.focal / focal[0], 20 * config.focal / focal[0], 30 * config.focal / focal[1]]
    mean = sum(apparent) / 3
    assert config.depth_mean == pytest.approx(mean, rel=1e-5)
    assert config.depth_std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in apparent) / 2), rel=1e-4)
    # without a reference focal length depths are as they are
    plain = with_statistics(replace(base, focal=0.0), [a, b, c])
    assert (plain.focal, plain.depth_mean) == (0.0, pytest.approx(20.0))
    with pytest.raises(InputError, match="no training object of class Pedestrian"):
        with_statistics(base, [b])
