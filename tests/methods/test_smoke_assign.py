"""SMOKE's targets: heatmaps, radii, ignored regions, cells that train the regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monolift.augment.view import training_view
from monolift.geometry import Camera
from monolift.methods.smoke import SmokeConfig, official, paper
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import Quirks
from monolift.methods.smoke.decode import decode_maps
from monolift.nn.heatmap import radius_centernet, radius_corrected
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


def test_an_object_whose_center_is_outside_is_kept_with_its_offset() -> None:
    """A car cut by the left border: its 2D box is in the image, the projection of its centre is not."""
    row = (-7.2, 1.0, 8.0, 4.2, 1.5, 1.7, -1.5)
    source = make_sample(KITTI, [row])
    u = float(KITTI.px_from_cam(source.boxes.center)[0, 0])
    assert u < 0 < float(source.boxes2d[0, 2])
    config = SmokeConfig()
    samples = network_samples(config, [source])
    targets = assign_targets(SmokeCodec(config), samples)
    assert len(targets.boxes) == 1
    found = decode_maps(SmokeCodec(config), perfect_raw(SmokeCodec(config), targets), targets.cameras)[0]
    assert_same_boxes(found[found.scores > 0.9].boxes, source.boxes)
    # as published it is dropped altogether
    for preset in (paper, official):
        dropped = assign_targets(SmokeCodec(preset()), network_samples(preset(), [source]))
        assert len(dropped.boxes) == 0
        assert dropped.heatmap.max() == 0


def test_what_lies_behind_the_camera_is_no_target() -> None:
    source = make_sample(KITTI, [(0.5, 1.0, -8.0, 4, 1.5, 1.7, 0.0)])
    source = replace(source, boxes2d=torch.tensor([[500.0, 100, 700, 200]]))  # even if a label claims so
    for preset in PRESETS.values():
        targets = assign_targets(SmokeCodec(preset()), network_samples(preset(), [source]))
        assert len(targets.boxes) == 0


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Root of a falling function."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("width, height", [(1, 1), (3, 2), (10, 4), (25, 25), (80, 30), (4, 60)])
def test_the_corrected_radius_keeps_the_overlap(width: float, height: float) -> None:
    """The three ways to move a corner by r in x and y, each solved for IoU 0.7 by bisection."""
    area = width * height

    def across(r: float) -> float:
        common = (width - r) * (height - r)
        return common / (2 * area - common) - 0.7

    def inside(r: float) -> float:
        return (width - 2 * r) * (height - 2 * r) / area - 0.7

    def outside(r: float) -> float:
        return area / ((width + 2 * r) * (height + 2 * r)) - 0.7

    limit = min(width, height)
    expected = min(bisect(across, 0, limit), bisect(inside, 0, limit / 2), bisect(outside, 0, 10 * limit))
    assert radius_corrected(width, height) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("width, height", [(1, 1), (3, 2), (10, 4), (25, 25), (80, 30), (4, 60)])
def test_the_centernet_radius_is_the_wrong_root(width: float, height: float) -> None:
    """For each quadratic a r^2 + b r + c the relatives take (b + sqrt(b^2 - 4 a c)) / 2, whatever a and the sign of b."""
    half, area = width + height, width * height
    quadratics = [(1, half, area * 0.3 / 1.7), (4, 2 * half, 0.3 * area), (2.8, -1.4 * half, -0.3 * area)]
    expected = min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in quadratics)
    assert radius_centernet(width, height) == pytest.approx(expected, rel=1e-9)


def test_the_heatmap_is_a_gaussian_at_the_projected_center() -> None:
    config = SmokeConfig(quirks=Quirks(unlabelled_background=True))
    codec = SmokeCodec(config)
    (sample,) = network_samples(config, [make_sample(KITTI, CARS[1:2])])
    targets = assign_targets(codec, [sample])
    u, v = (sample.camera.px_from_cam(sample.boxes.center)[0] / 4).tolist()
    column, row = int(u), int(v)
    heat = targets.heatmap[0, 0]
    assert heat[row, column] == 1
    assert targets.cell.tolist() == [row * heat.shape[1] + column]
    x1, y1, x2, y2 = (sample.boxes.projected(sample.camera)[0] / 4).tolist()
    radius = int(radius_centernet(x2 - x1, y2 - y1))
    assert radius >= 3
    sigma = (2 * radius + 1) / 6
    for dr in range(-radius - 1, radius + 2):
        for dc in range(-radius - 1, radius + 2):
            inside = max(abs(dr), abs(dc)) <= radius
            expected = math.exp(-(dr * dr + dc * dc) / (2 * sigma * sigma)) if inside else 0
            assert float(heat[row + dr, column + dc]) == pytest.approx(expected, abs=1e-6)
    assert targets.heatmap[0, 1:].max() == 0  # the other classes


def test_overlapping_gaussians_keep_the_maximum_and_classes_their_own_map() -> None:
    config = SmokeConfig()
    codec = SmokeCodec(config)
    rows = [(0, 1, 15, 4, 1.5, 1.6, 0.0), (0.8, 1, 15, 4, 1.5, 1.6, 0.0), (0.4, 1, 15, 0.8, 1.7, 0.6, 0.0)]
    (sample,) = network_samples(config, [make_sample(KITTI, rows, ("Car", "Car", "Pedestrian"))])
    together = assign_targets(codec, [sample])
    for k, members in ((0, (0, 1)), (1, (2,))):
        apart = [assign_targets(codec, [sample.keep(torch.arange(3) == m)]).heatmap[0, k] for m in members]
        assert torch.equal(together.heatmap[0, k], torch.stack(apart).amax(0))
    assert together.label.tolist() == [0, 0, 1]


def test_what_nobody_labelled_is_neither_sought_nor_background() -> None:
    """DontCare regions for all classes, vans for cars, persons sitting for pedestrians, tiny boxes for their class."""
    config = SmokeConfig(min_height=6.0)
    codec = SmokeCodec(config)
    rows = [(-6, 1, 20, 5, 2, 2, 0.0), (0, 1, 12, 4, 1.5, 1.6, 0.0), (4, 1, 12, 0.8, 1.3, 0.6, 0.0)]
    rows.append((20, 0, 300, 4, 1.5, 1.6, 0.0))
    classes = ("Van", "Car", "Person_sitting", "Car")
    source = make_sample(KITTI, rows, classes)
    source = replace(source, ignore=torch.tensor([[300.0, 20, 340, 60]]))
    (sample,) = network_samples(config, [source])
    targets = assign_targets(codec, [sample])
    assert len(targets.boxes) == 1

    def weights(box: torch.Tensor) -> list[float]:
        u, v = ((box[:2] + box[2:]) / 8).tolist()
        return targets.weight[0, :, int(v), int(u)].tolist()

    assert weights(sample.boxes2d[0]) == [0, 1, 1]
    assert weights(sample.boxes2d[1]) == [1, 1, 1]
    assert weights(sample.boxes2d[2]) == [1, 0, 1]
    assert weights(sample.boxes2d[3]) == [0, 1, 1]
    assert weights(sample.ignore[0]) == [0, 0, 0]
    published = assign_targets(SmokeCodec(paper()), network_samples(paper(), [source]))
    assert (published.weight == 1).all()
    assert len(published.boxes) == 2


def test_a_key_point_inside_an_unlabelled_region_still_counts() -> None:
    config = SmokeConfig()
    source = make_sample(KITTI, CARS[1:2])
    source = replace(source, ignore=torch.tensor([[0.0, 0, 1241, 374]]))
    targets = assign_targets(SmokeCodec(config), network_samples(config, [source]))
    assert targets.weight[targets.heatmap == 1].tolist() == [1]
    assert targets.weight.sum() < 0.2 * targets.weight.numel()


def test_the_cells_that_train_the_regression() -> None:
    """Weights of an object sum to 1, its key cell weighs most, and a cell near two objects belongs to one of them."""
    config = SmokeConfig()
    codec = SmokeCodec(config)
    rows = [*CARS, (3.4, 0.9, 12.0, 4.2, 1.6, 1.7, -1.6)]
    samples = network_samples(config, [make_sample(KITTI, rows), make_sample(OTHER, CARS)])
    targets = assign_targets(codec, samples)
    n = len(targets.boxes)
    total = torch.zeros(n).index_add_(0, targets.near_object, targets.near_weight)
    assert torch.allclose(total, torch.ones(n))
    where = targets.image[targets.near_object] * 10**6 + targets.near_cell
    assert len(where.unique()) == len(where)
    for k in range(n):
        mine = targets.near_object == k
        assert mine.sum() >= 4
        best = targets.near_cell[mine][targets.near_weight[mine].argmax()]
        assert best == targets.cell[k]
    published = assign_targets(SmokeCodec(replace(config, neighbourhood=0.0)), samples)
    assert torch.equal(published.near_cell, published.cell)
    assert torch.equal(published.near_weight, torch.ones(n))


def kitti_rig(focal: float) -> tuple[int, int]:
    """Image size of KITTI's four camera rigs, told apart by focal length."""
    sizes = {721.5377: (1242, 375), 718.856: (1241, 376), 707.0493: (1224, 370), 718.3351: (1238, 374)}
    return sizes[min(sizes, key=lambda f: abs(f - focal))]


def test_radius_statistics_of_kitti(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of every twentieth labelled KITTI image against the known statistics of the released code's targets.

    Of the cars 5.5 % are dropped, 41 % get radius 0, 34 % 1, 12 % 2, 13 % more, on average 1.07; by the other rule 4.93.
    """
    import zipfile

    from monolift.data.formats.kitti_format import parse_calib, parse_labels
    from monolift.data.kitti import sample_from_labels

    radii: dict[str, list[int]] = {"corrected": [], "centernet": []}
    config = official()
    codecs = {
        rule: SmokeCodec(replace(config, quirks=replace(config.quirks, corrected_radius=rule == "corrected")))
        for rule in radii
    }
    cars = 0
    with zipfile.ZipFile(shared / "kitti" / "all_labels_calib.zip") as archive:
        for index in range(0, 7481, 20):
            labels = parse_labels(archive.read(f"training/label_2/{index:06d}.txt"))
            p2 = parse_calib(archive.read(f"training/calib/{index:06d}.txt")).p2
            camera = Camera.from_matrix(p2, *kitti_rig(p2[0, 0]))
            view = training_view(config, camera.width, camera.height)
            black = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, view.height, view.width)
            sample = sample_from_labels(f"{index:06d}", black, view.camera(camera), labels)
            sample = sample.keep(torch.tensor([c == "Car" for c in sample.classes], dtype=torch.bool))
            cars += len(sample)
            if not len(sample):
                continue
            for rule, found in radii.items():
                monkeypatch.setattr(
                    "monolift.methods.smoke.assign.draw_gaussian",
                    lambda heat, column, row, r, into=found: into.append(r),
                )
                assign_targets(codecs[rule], [sample])
    r = torch.tensor(radii["corrected"]).float()
    assert cars > 1200
    assert 1 - len(r) / cars == pytest.approx(0.055, abs=0.01)
    shares = [
        (r == 0).float().mean(),
        (r == 1).float().mean(),
        (r == 2).float().mean(),
        (r >= 3).float().mean(),
    ]
    assert torch.stack(shares).tolist() == pytest.approx([0.41, 0.34, 0.12, 0.13], abs=0.03)
    assert r.mean().item() == pytest.approx(1.07, abs=0.15)
    assert torch.tensor(radii["centernet"]).float().mean().item() == pytest.approx(4.93, abs=0.5)
