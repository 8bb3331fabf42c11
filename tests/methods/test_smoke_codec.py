"""SMOKE's codec: boxes to numbers and back, against the published formulas written out anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from monolift.augment.augment import mirror
from monolift.geometry import Boxes3D, Camera
from monolift.methods.smoke import SmokeConfig, official
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.decode import decode_maps
from smoke_scenes import (
    CARS,
    KITTI,
    OTHER,
    PRESETS,
    assert_same_boxes,
    make_sample,
    network_samples,
    perfect_raw,
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("orientation", ["vector", "quaternion"])
def test_decode_inverts_encode_for_a_mixed_batch(preset: str, orientation: str) -> None:
    """Two cameras, a mirrored and a resized image and an empty one in the same batch."""
    config = PRESETS[preset]()
    quirks = replace(config.quirks, quaternion=orientation == "quaternion")
    config = replace(config, quirks=quirks)
    codec = SmokeCodec(config)
    kitti = make_sample(KITTI, CARS)
    other = make_sample(OTHER, [(x, y, z + 4, *rest) for x, y, z, *rest in CARS])
    small = make_sample(KITTI.after_resize(994, 300), CARS[:2])
    sources = [kitti, other, mirror(kitti), small, make_sample(KITTI, [])]
    samples = network_samples(config, sources)
    targets = assign_targets(codec, samples)
    found = decode_maps(codec, perfect_raw(codec, targets), targets.cameras)
    assert len(found) == 5
    for detections, source in zip(found, sources, strict=True):
        sure = detections[detections.scores > 0.9]
        if len(source):
            assert_same_boxes(sure.boxes, source.boxes)
        else:
            assert len(sure) == 0
    # and the 2D boxes come out in network pixels
    first = found[0][found[0].scores > 0.9]
    nearest = torch.cdist(first.boxes.center, kitti.boxes.center).argmin(0)
    if config.quirks.intrinsics_only:
        return  # with K alone they are not where the label is: that is the quirk
    assert torch.allclose(first.boxes2d[nearest], samples[0].boxes2d, atol=0.05)


def test_the_eight_numbers_against_the_published_formulas() -> None:
    """Equations 1 to 4 with the released code's constants, for one car at cell (100, 40) of the 320 x 96 map."""
    codec = SmokeCodec(official())
    raw = [0.5, 0.25, -0.75, 0.3, -0.8, 1.2, 0.6, -0.8]
    camera = Camera(744.0, 744.0, 628.0, 178.0, width=1280, height=384)
    numbers, cell, label = torch.tensor([raw]), torch.tensor([40 * 320 + 100]), torch.tensor([0])
    box = codec.decode(numbers, cell, label, camera, 320)
    z = 28.01 + 16.32 * 0.5
    u, v = (100 + 0.25) * 4, (40 - 0.75) * 4
    x, y = (u - 628) * z / 744, (v - 178) * z / 744
    assert box.center[0].tolist() == pytest.approx([x, y, z], rel=1e-5)
    sigmoid = [1 / (1 + math.exp(-d)) for d in raw[3:6]]
    reference = (3.88, 1.63, 1.53)  # l, h, w with the released code's exchange of the car's height and width
    assert box.size[0].tolist() == pytest.approx(
        [r * math.exp(s - 0.5) for r, s in zip(reference, sigmoid, strict=True)]
    )
    # the released code's two-branch arctan
    alpha = math.atan(0.6 / (-0.8 + 1e-7)) + math.pi / 2
    assert box.alpha.item() == pytest.approx(alpha, abs=1e-5)
    assert box.yaw.item() == pytest.approx(alpha + math.atan(x / z), abs=1e-5)


@pytest.mark.parametrize("alpha", [-3.1, -2.0, -1.57, -0.4, 0.0, 0.3, 1.5, 1.7, 2.9])
def test_the_vector_is_cos_alpha_and_minus_sin_alpha(alpha: float) -> None:
    """As the released code reads it: atan(c6 / c7), less pi / 2 for c7 >= 0 and plus pi / 2 otherwise."""
    codec = SmokeCodec(SmokeConfig())
    box = Boxes3D(torch.tensor([[0.0, 1.0, 20.0]]), torch.tensor([[4.0, 1.5, 1.6]]), torch.tensor([alpha]))
    one = torch.tensor([0])
    c6, c7 = codec.encode(box, one, one, KITTI, 208)[0, 6:8].tolist()
    assert (c6, c7) == pytest.approx((math.cos(alpha), -math.sin(alpha)), abs=1e-6)
    official_alpha = math.atan(c6 / (c7 + 1e-7)) + (-math.pi / 2 if c7 >= 0 else math.pi / 2)
    assert math.cos(official_alpha - alpha) == pytest.approx(1, abs=1e-5)
    for length in (0.01, 1.0, 30.0):  # the vector may have any length
        numbers = torch.tensor([[0, 0, 0, 0, 0, 0, c6 * length, c7 * length]])
        assert codec.parts(numbers, one, KITTI).alpha.item() == pytest.approx(alpha, abs=1e-5)


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_sizes_beyond_the_limit_are_held_at_it(limit: float) -> None:
    codec = SmokeCodec(SmokeConfig(size_limit=limit))
    l, h, w = codec.config.sizes[1]
    tall = Boxes3D(torch.tensor([[0.0, 1, 20]]), torch.tensor([[5 * l, h, w / 5]]), torch.tensor([0.0]))
    one = torch.tensor([1])
    numbers = codec.encode(tall, one, one, KITTI, 208)
    assert torch.isfinite(numbers).all()
    size = codec.decode(numbers, one, one, KITTI, 208).size[0].tolist()
    assert size == pytest.approx([l * math.exp(limit), h, w * math.exp(-limit)], rel=1e-4)


def test_the_same_maps_seen_through_a_longer_lens_are_farther_away() -> None:
    codec = SmokeCodec(SmokeConfig())
    numbers = torch.randn(6, codec.channels) * 0.3
    cell, label = torch.arange(6) * 531, torch.tensor([0, 1, 2, 0, 1, 2])
    near = codec.decode(numbers, cell, label, Camera(480, 480, 416, 128), 208)
    far = codec.decode(numbers, cell, label, Camera(960, 960, 416, 128), 208)
    assert torch.allclose(far.center[:, 2], 2 * near.center[:, 2])
    assert torch.allclose(far.center[:, :2], near.center[:, :2], atol=1e-4)
    assert torch.equal(far.size, near.size)
    fixed = SmokeCodec(SmokeConfig(focal=0.0))
    a, b = (fixed.decode(numbers, cell, label, Camera(f, f, 416, 128), 208) for f in (480, 960))
    assert torch.allclose(a.center[:, 2], b.center[:, 2])


def test_a_image_resized_with_its_camera_keeps_its_boxes() -> None:
    """At the codec, where nothing scales the image back: both are network images as they are."""
    codec = SmokeCodec(SmokeConfig())
    camera = Camera(700, 700, 640, 190, 0.06, 0, 0.003, width=1280, height=384)
    whole, small = make_sample(camera, CARS), make_sample(camera.after_resize(1024, 307), CARS)
    small = replace(small, camera=small.camera.after_crop(0, 0, 1024, 304))
    found = []
    for sample in (whole, small):
        targets = assign_targets(codec, [sample])
        (detections,) = decode_maps(codec, perfect_raw(codec, targets), targets.cameras)
        found.append(detections[detections.scores > 0.9].boxes)
        assert_same_boxes(found[-1], whole.boxes)
    # what the network has to say differs as it should: the depth by the ratio of the focal lengths
    z = [codec.encode(s.boxes, torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long), s.camera, 320)[:, 0]
         for s in (whole, small)]  # fmt: skip
    apparent = [28.01 + 16.32 * d for d in z]
    assert torch.allclose(apparent[1], apparent[0] / 0.8, rtol=1e-3)
