"""SMOKE's decoding: peaks, ranking, 2D boxes."""

from __future__ import annotations

import math

import pytest
import torch

from monolift.geometry import Camera
from monolift.methods.smoke import SmokeConfig
from monolift.methods.smoke.assign import assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.decode import decode_maps
from monolift.nn.heatmap import find_peaks, gather
from smoke_scenes import (
    CARS,
    KITTI,
    make_sample,
    network_samples,
    perfect_raw,
)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_final_2d_box_lies_between_the_predicted_and_the_projected_one(share: float) -> None:
    config = SmokeConfig(boxes2d_fusion=share)
    codec = SmokeCodec(config)
    samples = network_samples(config, [make_sample(KITTI, CARS)])
    targets = assign_targets(codec, samples)
    raw = perfect_raw(codec, targets)
    raw["regression"][:, codec.box2d_at] += (
        2.0  # every predicted 2D box lies two cells, 8 pixels, too far right
    )
    found = decode_maps(codec, raw, targets.cameras)[0]
    sure = found[found.scores > 0.9]
    nearest = torch.cdist(sure.boxes.center, samples[0].boxes.center).argmin(0)
    moved = sure.boxes2d[nearest] - samples[0].boxes2d
    expected = 8 * (1 - share) * torch.tensor([1.0, 0, 1, 0])
    assert torch.allclose(moved, expected.expand_as(moved), atol=0.05)


def test_every_column_decodes_to_its_row() -> None:
    """True division of a flat index would move an object at the right border down by almost a cell."""
    heat = torch.full((1, 2, 6, 10), -9.0)
    places = [(0, 1, 9), (1, 4, 9), (0, 5, 0), (1, 0, 4)]  # class, row, column
    for n, (k, row, column) in enumerate(places):
        heat[0, k, row, column] = 3.0 - n / 10
    scores, labels, cells = find_peaks(torch.sigmoid(heat), 4)
    assert [(int(k), int(c) // 10, int(c) % 10) for k, c in zip(labels[0], cells[0], strict=True)] == places
    assert scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-3 + n / 10)) for n in range(4)])
    maps = torch.arange(2 * 3 * 6 * 10).view(2, 3, 6, 10).float()
    picked = gather(maps, torch.tensor([1, 0]), torch.tensor([59, 19]))
    assert torch.equal(picked, torch.stack([maps[1, :, 5, 9], maps[0, :, 1, 9]]))


def test_a_peak_needs_to_be_the_highest_of_its_neighbours_and_may_be_at_the_border() -> None:
    heat = torch.zeros(1, 1, 5, 5)
    heat[0, 0, 0, 0], heat[0, 0, 0, 1], heat[0, 0, 4, 4] = 0.9, 0.8, 0.3
    scores, _, cells = find_peaks(heat, 3)
    assert scores[0, :2].tolist() == pytest.approx([0.9, 0.3])
    assert cells[0, :2].tolist() == [0, 24]
    assert scores[0, 2] == 0


def test_peaks_are_those_of_a_max_pool() -> None:
    """Also along the borders, at ties, and for one row or column."""
    torch.manual_seed(3)
    for shape in ((2, 3, 9, 14), (1, 1, 1, 6), (1, 2, 5, 1)):
        heat = torch.randint(0, 5, shape).float() / 4  # many ties
        pooled = torch.nn.functional.max_pool2d(heat, 3, 1, 1)
        expected = torch.where(pooled == heat, heat, 0.0).flatten(1)
        scores, labels, cells = find_peaks(heat, expected.shape[1])
        found = torch.zeros_like(expected).scatter(1, labels * shape[2] * shape[3] + cells, scores)
        assert torch.equal(found, expected)


def test_detections_come_best_first_and_no_more_than_top_k() -> None:
    config = SmokeConfig(top_k=3)
    codec = SmokeCodec(config)
    raw = {"heatmap": torch.randn(2, 3, 16, 24), "regression": torch.zeros(2, codec.channels, 16, 24)}
    found = decode_maps(codec, raw, Camera.stack([KITTI, KITTI]))
    for detections in found:
        assert 0 < len(detections) <= 3
        assert detections.scores.tolist() == sorted(detections.scores.tolist(), reverse=True)


def test_boxes_that_come_out_behind_the_camera_are_dropped() -> None:
    codec = SmokeCodec(SmokeConfig())
    raw = {"heatmap": torch.full((1, 3, 8, 8), -9.0), "regression": torch.zeros(1, codec.channels, 8, 8)}
    raw["heatmap"][0, 0, 2, 2] = raw["heatmap"][0, 0, 6, 6] = 4.0
    raw["regression"][0, 0, 2, 2] = -5.0  # 28 - 5 * 16 metres
    (found,) = decode_maps(codec, raw, Camera.stack([KITTI]))
    assert len(found[found.scores > 0.3]) == 1
    assert (found.boxes.center[:, 2] > 0).all()
