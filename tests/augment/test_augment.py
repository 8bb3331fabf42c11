"""Augmentation keeps image, camera and labels together: what is drawn at an object is found where its label says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monolift.augment.augment import NO_COLOUR, Augmenter, mirror, random_colour, random_view, recolored
from monolift.augment.augmentation import Augmentation
from monolift.augment.degrade import degraded
from monolift.augment.view import View, letterbox, width_crop
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera, iou_2d_paired, wrap

CAMERA = Camera(721.5377, 721.5377, 609.5593, 172.854, 0.0598, -0.0004, 0.0027, width=1242, height=375)


def blob(width: int, height: int, spots: torch.Tensor, sigma: float = 6.0) -> torch.Tensor:
    """A grey image with a bright spot in another channel at each of up to three places."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.zeros(3, height, width)
    for channel, (u, v) in enumerate(spots.tolist()):
        image[channel] += 255 * torch.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return image.round().to(torch.uint8)


def middle_of_spot(channel: torch.Tensor) -> torch.Tensor:
    """Centre of mass, pixels."""
    weight = channel.double()
    rows, columns = torch.arange(channel.shape[0]).double(), torch.arange(channel.shape[1]).double()
    return torch.stack([(weight.sum(0) * columns).sum(), (weight.sum(1) * rows).sum()]) / weight.sum()


def scene() -> Sample:
    """Three objects, each with a bright spot of its own colour painted at the projection of its centre."""
    rows = torch.tensor(
        [
            [-5.0, 1.0, 16.0, 3.9, 1.5, 1.6, 0.3],
            [0.3, 0.9, 12.0, 4.2, 1.6, 1.7, -1.6],
            [6.0, 1.1, 19.0, 3.5, 1.4, 1.5, 3.0],
        ]
    )
    boxes = Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6])
    return Sample(
        name="000007",
        image=blob(1242, 375, CAMERA.px_from_cam(boxes.center)),
        camera=CAMERA,
        boxes=boxes,
        classes=("Car", "Van", "Cyclist"),
        boxes2d=boxes.projected(CAMERA),
        truncation=torch.tensor([0.0, 0.2, 0.0]),
        occlusion=torch.tensor([0, 1, 2]),
        ignore=torch.tensor([[100.0, 50, 200, 90]]),
    )


views = st.builds(
    View,
    st.floats(0.4, 1.6),
    st.integers(-200, 500),
    st.integers(-100, 200),
    st.sampled_from([640, 832]),
    st.just(256),
)


def augment(sample: Sample, view: View, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Augmented and recoloured, as a batch of one is before it is normalised."""
    seen, colour = Augmenter(augmentation)(sample, view, rng)
    return replace(seen, image=recolored(seen.image[None], colour[None])[0])


# -- the window -------------------------------------------------------------------------------------------------------


@given(views)
def test_pixels_go_to_the_view_and_back_and_the_camera_agrees(view: View) -> None:
    px = torch.rand(10, 2, dtype=torch.float64) * 1000
    assert torch.allclose(view.px_source_from_view(view.px_from_source(px)), px)
    points = torch.rand(10, 3, dtype=torch.float64) * 10 + 3
    seen = view.px_from_source(CAMERA.px_from_cam(points))
    assert torch.allclose(view.camera(CAMERA).px_from_cam(points), seen, atol=1e-6)


@settings(max_examples=20)
@given(st.floats(0.45, 1.5), st.integers(-60, 60), st.integers(-40, 40))
def test_what_was_at_a_pixel_is_found_where_the_view_says(scale: float, left: int, top: int) -> None:
    """To a tenth of a pixel, so that half-pixel slips show."""
    spots = torch.tensor([[150.3, 90.0], [210.0, 120.6], [280.5, 150.2]])
    view = View(scale, left, top, 640, 320)
    seen = view.image(blob(420, 240, spots))
    assert seen.shape == (3, 320, 640)
    for channel, place in zip(seen, view.px_from_source(spots), strict=True):
        if 30 < place[0] < 610 and 30 < place[1] < 290:
            assert torch.allclose(middle_of_spot(channel).float(), place, atol=0.1)


def test_a_view_without_scaling_copies_pixels_and_fills_with_black() -> None:
    image = torch.randint(1, 256, (3, 50, 80), dtype=torch.uint8)
    assert torch.equal(View(1.0, 0, 0, 80, 50).image(image), image)
    shifted = View(1.0, -5, 10, 64, 64).image(image)
    assert torch.equal(shifted[:, :40, 5:], image[:, 10:, :59])
    assert shifted[:, 40:].max() == 0
    assert shifted[:, :, :5].max() == 0
    assert View(1.0, 500, 0, 64, 64).image(image).max() == 0  # nothing of the image in the window


def test_letterbox_keeps_everything_in_the_middle() -> None:
    for size in ((1242, 375), (900, 1600), (640, 640)):
        view = letterbox(*size, 832, 256)
        corners = view.px_from_source(torch.tensor([[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]]))
        margin = torch.stack([corners[0] + 0.5, torch.tensor([831.5, 255.5]) - corners[1]])
        assert margin.min() > -0.51
        assert (
            margin[0] - margin[1]
        ).abs().max() <= 1.51  # whole pixels, and the last cut one may be left out
        assert min(margin.sum(0)) < 1


def test_width_crop_loses_rows_above_and_below() -> None:
    view = width_crop(1600, 900, 1280, 384)
    top = view.px_source_from_view(torch.tensor([0.0, -0.5]))[1]
    bottom = view.px_source_from_view(torch.tensor([0.0, 383.5]))[1]
    assert (bottom - top).item() == pytest.approx(480)  # of 900 rows
    assert (top + bottom).item() / 2 == pytest.approx(449.5, abs=0.7)


@settings(max_examples=20)
@given(st.floats(0.45, 1.5), st.integers(-60, 60), st.integers(-40, 40))
def test_a_map_holds_at_each_pixel_what_the_source_has_where_the_view_says(
    scale: float, left: int, top: int
) -> None:
    """Every source pixel has a number of its own; a slow loop over the window finds each."""
    source = torch.arange(1, 61 * 40 + 1).view(40, 61)
    view = View(scale, left, top, 32, 24)
    seen = view.nearest(source)
    black = view.image(torch.full((3, 40, 61), 255, dtype=torch.uint8))[0] == 0
    for v in range(24):
        for u in range(32):
            x, y = view.px_source_from_view(torch.tensor([u, v], dtype=torch.float64)).tolist()
            if black[v, u]:
                assert seen[v, u] == 0
            elif (
                abs((x % 1) - 0.5) > 1e-6 and abs((y % 1) - 0.5) > 1e-6
            ):  # not on the line between two pixels
                assert seen[v, u] == source[round(y), round(x)]


# -- samples ----------------------------------------------------------------------------------------------------------


def assert_consistent(sample: Sample) -> None:
    """Labels against boxes and camera, and the painted spots against the projected centres."""
    projected = sample.boxes.projected(sample.camera)
    assert torch.allclose(
        sample.boxes2d, projected, atol=1.1
    )  # a cut at W - 1 before or after scaling: up to a pixel
    width, height = sample.size
    assert (sample.camera.width, sample.camera.height) == (width, height)
    for px, name in zip(sample.camera.px_from_cam(sample.boxes.center), sample.classes, strict=True):
        channel = ("Car", "Van", "Cyclist").index(name)
        if 25 < px[0] < width - 26 and 25 < px[1] < height - 26:
            assert torch.allclose(middle_of_spot(sample.image[channel]).float(), px, atol=0.15)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_augmented_labels_stay_on_their_objects(seed: int) -> None:
    augmentation = Augmentation(mirror=0.5, recolor=0.0, scale=(0.6, 1.5), shift=0.25)
    source = scene()
    assert_consistent(source)
    out = augment(source, letterbox(1242, 375, 832, 256), augmentation, np.random.default_rng(seed))
    assert out.size == (832, 256)
    assert_consistent(out)
    for k, name in enumerate(out.classes):  # fields go with their objects
        before = source.classes.index(name)
        assert out.occlusion[k] == source.occlusion[before]
        assert out.truncation[k] >= source.truncation[before] - 1e-6
        assert torch.equal(out.boxes.size[k], source.boxes.size[before])
        assert torch.allclose(out.boxes.center[k, 1:], source.boxes.center[before, 1:])


def test_a_box_cut_in_half_is_half_truncated_and_one_nearly_gone_is_dropped() -> None:
    source = replace(
        scene(), boxes2d=torch.tensor([[100.0, 100, 200, 200], [140, 100, 160, 200], [59, 100, 155, 200]])
    )
    view = View(1.0, 150, 0, 800, 375)
    seen = view.sample(source)
    assert seen.classes == ("Car", "Van")  # of the third 5 of 96 columns are left
    assert seen.boxes2d.tolist() == [[0, 100, 50, 200], [0, 100, 10, 200]]
    assert seen.truncation.tolist() == pytest.approx([0.5, 1 - 0.8 * 0.5])
    assert seen.ignore.tolist() == [[0, 50, 50, 90]]
    assert View(1.0, 300, 0, 800, 375).sample(source).ignore.shape == (0, 4)


def with_maps(sample: Sample) -> Sample:
    """Discs of one depth and number at each object's centre, before ground of another depth."""
    width, height = sample.size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    depth, instances = 40 + 0.01 * x, torch.zeros(height, width, dtype=torch.long)
    for k, (u, v) in enumerate(sample.camera.px_from_cam(sample.boxes.center).tolist()):
        disc = (x - u) ** 2 + (y - v) ** 2 < 15**2
        depth[disc] = sample.boxes.center[k, 2]
        instances[disc] = k + 1
    return replace(sample, depth=depth, instances=instances)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_depth_and_instances_follow_their_objects(seed: int) -> None:
    augmentation = Augmentation(mirror=0.5, recolor=0.0, scale=(0.6, 1.5), shift=0.25)
    out = augment(
        with_maps(scene()), letterbox(1242, 375, 832, 256), augmentation, np.random.default_rng(seed)
    )
    assert out.depth is not None
    assert out.instances is not None
    assert out.depth.shape == out.instances.shape == (256, 832)
    assert set(out.instances.unique().tolist()) <= set(
        range(len(out) + 1)
    )  # those of dropped objects are gone
    for k, (u, v) in enumerate(out.camera.px_from_cam(out.boxes.center)):
        rows, columns = (out.instances == k + 1).nonzero().double().unbind(1)
        if 25 < u < 806 and 25 < v < 230:
            assert abs(columns.mean() - u) < 0.3
            assert abs(rows.mean() - v) < 0.3
            assert out.depth[round(v.item()), round(u.item())] == out.boxes.center[k, 2]


def test_instances_of_kept_objects_are_numbered_anew() -> None:
    sample = with_maps(scene())
    rest = sample.keep(torch.tensor([True, False, True]))
    assert rest.instances is not None
    assert sample.instances is not None
    assert torch.equal(rest.instances == 2, sample.instances == 3)
    assert torch.equal(rest.instances == 0, (sample.instances == 0) | (sample.instances == 2))


def test_mirroring_twice_gives_the_sample_back() -> None:
    source = scene()
    once, again = mirror(source), mirror(mirror(source))
    assert torch.equal(once.image, source.image.flip(-1))
    assert torch.equal(again.image, source.image)
    assert torch.allclose(again.boxes2d, source.boxes2d)
    assert torch.allclose(again.boxes.center, source.boxes.center)
    assert wrap(again.boxes.yaw - source.boxes.yaw).abs().max() < 1e-6
    assert torch.allclose(again.camera.matrix, source.camera.matrix)
    assert torch.allclose(again.ignore, source.ignore)
    assert once.ignore.tolist() == [[1041, 50, 1141, 90]]
    assert_consistent(once)
    assert torch.allclose(once.boxes.alpha, wrap(math.pi - source.boxes.alpha))


def test_an_empty_sample_goes_through() -> None:
    empty = scene().keep(torch.zeros(3, dtype=torch.bool))
    out = augment(empty, letterbox(1242, 375, 832, 256), Augmentation(), np.random.default_rng(0))
    assert len(out) == 0
    assert out.boxes2d.shape == (0, 4)


# -- chance -----------------------------------------------------------------------------------------------------------


def test_the_same_generator_gives_the_same_sample() -> None:
    view = letterbox(1242, 375, 832, 256)
    a, b, c = (augment(scene(), view, Augmentation(), np.random.default_rng(s)) for s in (5, 5, 6))
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.boxes2d, b.boxes2d)
    assert not torch.equal(a.image, c.image)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    view = letterbox(1242, 375, 832, 256)
    off = Augmentation(mirror=0.0, recolor=0.0, scale=(1.0, 1.0), shift=0.0)
    plain, out = view.sample(scene()), augment(scene(), view, off, np.random.default_rng(0))
    assert torch.equal(plain.image, out.image)
    assert torch.equal(plain.boxes2d, out.boxes2d)


def test_mirror_and_zoom_happen_as_often_and_as_far_as_asked() -> None:
    view = letterbox(1242, 375, 832, 256)
    rng = np.random.default_rng(0)
    augmentation = Augmentation(scale=(0.8, 1.25), shift=0.1)
    drawn = [random_view(view, augmentation, rng) for _ in range(2000)]
    zoom = torch.tensor([v.scale / view.scale for v in drawn])
    assert 0.8 <= zoom.min() < 0.81
    assert 1.24 < zoom.max() <= 1.25
    assert zoom.log().mean().abs() < 0.01  # as often nearer as farther
    middle = torch.tensor([[621.0, 187.0]])
    moved = torch.cat([v.px_from_source(middle) - view.px_from_source(middle) for v in drawn])
    assert moved[:, 0].abs().max() <= 0.1 * 832 + 1
    assert moved[:, 1].abs().max() <= 0.1 * 256 + 1
    source = replace(scene(), image=torch.zeros(3, 375, 1242, dtype=torch.uint8))
    flips = [float(augment(source, view, augmentation, rng).camera.tx) < 0 for _ in range(60)]
    assert 15 < sum(flips) < 45


def slowly_recolored(image: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """One image, one step after the other: saturation, brightness and tint, contrast."""
    gain, contrast, saturation = colour[:3].tolist()
    x = image.float()
    grey = x.mean(0, keepdim=True)
    x = (grey + saturation * (x - grey)) * gain * colour[3:].view(3, 1, 1)
    x = x.mean() + contrast * (x - x.mean())
    return x.clamp(0, 255).round().to(torch.uint8)


def test_a_batch_is_recoloured_image_by_image_with_its_own_colours() -> None:
    images = torch.randint(0, 256, (4, 3, 96, 320), dtype=torch.uint8)
    colours = torch.stack(
        [random_colour(np.random.default_rng(k)) for k in range(3)] + [torch.tensor(NO_COLOUR)]
    )
    out = recolored(images, colours)
    assert out.dtype == torch.uint8
    for k in range(3):
        assert torch.equal(out[k], slowly_recolored(images[k], colours[k]))
        assert not torch.equal(out[k], images[k])
    assert torch.equal(out[3], images[3])
    assert recolored(images, torch.tensor([NO_COLOUR] * 4)) is images
    assert random_colour(np.random.default_rng(3), strength=0.0).tolist() == list(NO_COLOUR)


# -- real data --------------------------------------------------------------------------------------------------------


def test_augmented_kitti_boxes_project_onto_their_labels_as_before(shared: Path) -> None:
    """Clear cars of 25 images: the mean IoU of projected to labelled box is that of the images as they were."""
    from monolift.data.kitti import KittiDataset

    data = KittiDataset(shared / "kitti", shared / "kitti" / "ImageSets" / "val.txt")
    rng = np.random.default_rng(0)
    augmentation = Augmentation(mirror=1.0, recolor=0.0, scale=(0.7, 1.4), shift=0.2)
    before, after = [], []
    for index in range(0, len(data), len(data) // 25):
        sample = data.labels(index)
        sample = replace(sample, image=torch.zeros(3, *sample.image.shape[1:], dtype=torch.uint8))
        clear = (sample.occlusion == 0) & (sample.truncation == 0)
        clear &= torch.tensor([c == "Car" for c in sample.classes], dtype=torch.bool)
        sample = sample.keep(clear)
        before.append(iou_2d_paired(sample.boxes.projected(sample.camera), sample.boxes2d))
        out = augment(sample, letterbox(*sample.size, 832, 256), augmentation, rng)
        inside = out.truncation < 0.01
        out = out.keep(inside)
        after.append(iou_2d_paired(out.boxes.projected(out.camera), out.boxes2d))
    before, after = torch.cat(before), torch.cat(after)
    assert len(after) > 15
    assert before.mean() > 0.96
    assert after.mean() > before.mean() - 0.01


def test_a_degraded_image_looks_much_the_same_and_comes_again_with_the_seed() -> None:
    ramp = (torch.arange(60)[None, None] * 4).expand(3, 40, 60).to(torch.uint8)
    changed = 0
    for seed in range(12):
        out, again = (degraded(ramp, np.random.default_rng(seed)) for _ in range(2))
        assert out.shape == ramp.shape and out.dtype == torch.uint8 and torch.equal(out, again)
        changed += not torch.equal(out, ramp)
        columns = out.float().mean((0, 1))  # whatever the tones, brighter stays brighter
        assert float(torch.corrcoef(torch.stack([columns, ramp[0, 0].float()]))[0, 1]) > 0.97
    assert changed >= 6


def test_every_sample_is_degraded_where_asked_and_its_labels_stay() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    sample = Sample("0", image, Camera(100.0, 100.0, 30.0, 20.0, width=60, height=40))
    plain = {"mirror": 0.0, "recolor": 0.0, "scale": (1.0, 1.0), "shift": 0.0}
    view = View(1.0, 0, 0, 60, 40)
    out, _ = Augmenter(Augmentation(**plain, degrade=1.0))(sample, view, np.random.default_rng(1))
    assert not torch.equal(out.image, image) and out.camera == view.camera(sample.camera)
