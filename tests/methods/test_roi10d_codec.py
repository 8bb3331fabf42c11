"""ROI-10D's codec: samples to targets, ideal answers to the labelled boxes, suppression, statistics, schedule."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from monolift.augment.augment import mirror
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera, iou_3d_paired, iou_bev
from monolift.geometry.rotations import matrix_from_quaternion, matrix_from_yaw
from monolift.methods.roi10d import METHOD, ROI10DConfig, paper
from monolift.methods.roi10d.assign import (
    BACKGROUND,
    IGNORE,
    Targets,
    assign_targets,
    network_anchors,
    with_detected_regions,
)
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.roi10d.decode import decode_regions, nms_bev, propose, unit_codes
from monolift.methods.roi10d.loss import roi10d_loss
from monolift.methods.roi10d.shape_labels import ShapeLabels
from monolift.nn.retina import deltas_from_boxes
from monolift.training.optimizer import make_optimizer
from monolift.training.options import choose
from toy_kitti import toy_camera

WIDTH, HEIGHT = 416, 128
CENTERS = ((-6.0, 0.9, 14.0), (0.5, 0.8, 22.0), (7.0, 1.0, 18.0))


def sample(name: str = "toy", classes: tuple[str, ...] = ("Car",) * 3, **changes: object) -> Sample:
    camera = toy_camera(WIDTH, HEIGHT)
    boxes = Boxes3D(
        torch.tensor(CENTERS),
        torch.tensor([[4.1, 1.5, 1.7], [3.6, 1.4, 1.6], [4.4, 1.7, 1.8]]),
        torch.tensor([0.4, -1.6, 2.9]),
    )
    values: dict[str, object] = {
        "name": name,
        "image": torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8),
        "camera": camera,
        "boxes": boxes,
        "classes": classes,
        "boxes2d": boxes.projected(camera),
        "truncation": torch.zeros(3),
        "occlusion": torch.zeros(3, dtype=torch.long),
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def nothing() -> Sample:
    return sample("nothing").keep(torch.zeros(3, dtype=torch.bool))


def targets_of(codec: ROI10DCodec, samples: list[Sample]) -> Targets:
    return assign_targets(codec.config, ShapeLabels(codec.config.shape_labels), samples)


def ideal(codec: ROI10DCodec, targets: Targets) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Raw maps of a network that has learnt the targets by heart, and its branches' numbers at the labelled boxes."""
    b, a = targets.owner.shape
    anchors = network_anchors(codec.config, WIDTH, HEIGHT, torch.zeros(()))
    scores = torch.full((b, a, len(codec.config.classes)), -9.0)
    deltas = torch.zeros(b, a, 4)
    image, anchor = torch.nonzero(targets.owner >= 0, as_tuple=True)
    mine = targets.owner[image, anchor]
    scores[image, anchor, targets.label[mine]] = 4.0
    deltas[image, anchor] = deltas_from_boxes(targets.boxes2d[mine], anchors[anchor])
    return {"scores": scores, "deltas": deltas}, {}


@pytest.mark.parametrize("start", ["roi", "mean", "metric"])
def test_what_is_encoded_is_decoded(start: str) -> None:
    """Two cameras, mirrored, resized, and an image without objects, in one batch."""
    small = dataclasses.replace(
        sample("small"), camera=toy_camera(WIDTH, HEIGHT).after_scale(0.8).after_crop(0, 0, WIDTH, HEIGHT)
    )
    small = dataclasses.replace(small, boxes2d=small.boxes.projected(small.camera))
    samples = [sample(), mirror(sample("mirrored")), nothing(), small]
    codec = ROI10DCodec(
        ROI10DConfig(input_width=WIDTH, input_height=HEIGHT, depth_start=start, confidence=False)
    )
    targets = targets_of(codec, samples)
    raw, _ = ideal(codec, targets)
    regions = propose(codec.config, raw, targets.cameras)
    roi, image, label = regions.boxes, regions.image, regions.label
    assert len(roi) == 9  # suppression leaves one of each object's anchors
    nearest = (roi[:, None] - targets.boxes2d).abs().amax(2) + 1e6 * (image[:, None] != targets.image)
    whose = nearest.argmin(1)
    truth = targets.boxes[whose]
    aim = Lifted(truth.center, truth.size, matrix_from_yaw(truth.yaw))
    numbers = codec.encode(aim, roi, label, targets.cameras[image])
    numbers["shape"] = torch.ones(len(roi), 6)
    found = decode_regions(codec, numbers, regions, targets.cameras)
    assert [len(one) for one in found] == [3, 3, 0, 3]
    for one, wanted in zip(found, samples, strict=True):
        if len(one):
            order = torch.cdist(wanted.boxes.center, one.boxes.center).argmin(1)
            assert float(iou_3d_paired(one.boxes[order], wanted.boxes).min()) > 0.999
            torch.testing.assert_close(one.boxes2d[order], wanted.boxes2d, atol=1e-2, rtol=0)
            assert torch.equal(one.scores, one.score2d)
            torch.testing.assert_close(one.rotation, matrix_from_yaw(one.boxes.yaw), atol=1e-4, rtol=0)


def test_every_object_owns_an_anchor_and_neighbours_are_ignored() -> None:
    codec = ROI10DCodec(ROI10DConfig(input_width=WIDTH, input_height=HEIGHT))
    targets = assign_targets(
        codec.config, ShapeLabels(codec.config.shape_labels), [sample(classes=("Car", "Van", "Pedestrian"))]
    )
    owner = targets.owner[0]
    assert set(owner.tolist()) == {0, BACKGROUND, IGNORE}
    anchors = network_anchors(codec.config, WIDTH, HEIGHT, torch.zeros(()))
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    van = sample().boxes2d[1]
    ignored = middle[owner == IGNORE]
    of_van = (ignored > van[:2]).all(1) & (ignored < van[2:]).all(1)
    assert bool(of_van.any())
    assert len(targets.boxes) == 1  # the pedestrian is background to a detector of cars


def test_no_loss_in_unlabelled_regions_and_on_low_boxes() -> None:
    low = sample()
    low = dataclasses.replace(
        low, boxes2d=torch.cat([low.boxes2d[:1, :3], low.boxes2d[:1, 1:2] + 4.0], 1).repeat(3, 1),
        ignore=torch.tensor([[300.0, 0, 400, 100]]),
    )  # fmt: skip
    codec = ROI10DCodec(ROI10DConfig(input_width=WIDTH, input_height=HEIGHT, min_height=6.0))
    targets = targets_of(codec, [low])
    assert len(targets.boxes) == 0
    assert not bool((targets.owner >= 0).any())
    anchors = network_anchors(codec.config, WIDTH, HEIGHT, torch.zeros(()))
    inside = (anchors[:, :2] > torch.tensor([300.0, 0])).all(1) & (
        anchors[:, 2:] < torch.tensor([400.0, 100])
    ).all(1)
    assert bool((targets.owner[0, inside] == IGNORE).all())


def test_training_regions_are_random_but_the_same_again() -> None:
    codec = ROI10DCodec(ROI10DConfig(input_width=WIDTH, input_height=HEIGHT, roi_copies=5, roi_jitter=0.1))
    first, again = (
        targets_of(codec, [sample()]),
        targets_of(codec, [sample()]),
    )
    assert torch.equal(first.roi, again.roi)
    assert not torch.equal(
        first.roi,
        targets_of(codec, [sample("another")]).roi,
    )
    copies = first.roi.view(3, 5, 4)
    assert torch.equal(copies[:, 0], first.boxes2d)
    side = (first.boxes2d[:, 2:] - first.boxes2d[:, :2]).repeat(1, 2)
    shift = ((copies - first.boxes2d[:, None]) / side[:, None]).abs()
    assert 0.05 < float(shift.max()) <= 0.1 + 1e-5
    assert torch.equal(first.roi_object, torch.arange(3).repeat_interleave(5))


def test_detections_train_the_branches_as_regions_of_the_labels_they_overlap() -> None:
    """At most four per object, of its own image and class, beside the labelled boxes (as published)."""
    config = ROI10DConfig(
        classes=("Car", "Van"), input_width=WIDTH, input_height=HEIGHT, regions="detections"
    )
    samples = [sample(classes=("Car", "Van", "Car")), nothing(), sample()]
    targets = assign_targets(config, ShapeLabels(""), samples)
    assert torch.equal(targets.roi, targets.boxes2d) and targets.roi_object.tolist() == list(range(6))
    box = targets.boxes2d
    moved = [box[0] + 1, box[0] - 1, box[0] + 2, box[0], box[0] + 1.5]  # the fifth of one object is left out
    found = torch.stack([*moved, box[1] + 1, box[1] + 1, box[4], box[5] + 200.0])
    image = torch.tensor([0, 0, 0, 0, 0, 0, 0, 2, 2])
    label = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0])  # a Van's box called Car overlaps no Car
    more = with_detected_regions(targets, found, image, label)
    assert more.roi_object.tolist() == [*range(6), 0, 0, 0, 0, 1, 4]
    torch.testing.assert_close(more.roi[6:], found[[0, 1, 2, 3, 6, 7]])
    assert with_detected_regions(targets, found[:0], image[:0], label[:0]) is targets


@pytest.mark.parametrize(("start", "unit"), [("metric", 1.0), ("mean", 13.0)])
def test_metric_depth_moves_a_box_by_metres(start: str, unit: float) -> None:
    codec = ROI10DCodec(paper(depth_start=start, depth_mean=20.0, depth_std=13.0))
    numbers = {
        "rotation": torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        "centroid": torch.zeros(2, 2),
        "depth": torch.tensor([[0.0], [1.0]]),
        "extents": torch.zeros(2, 3),
    }
    roi = torch.tensor([[100.0, 60, 160, 100]]).repeat(2, 1)
    z = codec.decode(numbers, roi, torch.zeros(2, dtype=torch.long), toy_camera(WIDTH, HEIGHT)).center[:, 2]
    torch.testing.assert_close(z, torch.tensor([20.0, 20.0 + unit]))


@pytest.mark.parametrize("lift", [True, False])
def test_labels_of_boxes_that_lean_train_all_of_the_rotation(lift: bool) -> None:
    """Only the numbers of the labelled rotation have no loss; those of its yaw have, in eq. 2 and in the separate terms."""
    lean = matrix_from_yaw(sample().boxes.yaw) @ matrix_from_quaternion(torch.tensor([0.97, 0.2, 0.0, 0.14]))
    config = ROI10DConfig(
        input_width=WIDTH, input_height=HEIGHT, roi_copies=1, lift_extents=True, depth="none"
    )
    codec = ROI10DCodec(config)
    targets = targets_of(codec, [sample(rotation=lean), sample("upright")])
    torch.testing.assert_close(targets.rotation[:3], lean)
    assert torch.equal(targets.rotation[3:], matrix_from_yaw(sample().boxes.yaw))
    raw, _ = ideal(codec, targets)

    def pose(rotation: torch.Tensor) -> float:
        aim = Lifted(targets.boxes.center, targets.boxes.size, rotation)
        numbers = codec.encode(aim, targets.roi, targets.label, targets.cameras[targets.image])
        numbers["shape"] = torch.ones(6, 6)
        losses = roi10d_loss(codec, raw, numbers, targets, lift, torch.zeros(4))
        return float(losses["pose" if lift else "rotation"])

    assert pose(targets.rotation) == pytest.approx(0, abs=1e-4)
    assert pose(matrix_from_yaw(targets.boxes.yaw)) > 0.05


def test_depth_of_samples_that_have_none_is_unknown() -> None:
    codec = ROI10DCodec(ROI10DConfig(input_width=WIDTH, input_height=HEIGHT))
    assert targets_of(codec, [sample()]).depth is None
    deep = sample(depth=torch.full((HEIGHT, WIDTH), 7.0))
    depth = targets_of(codec, [sample(), deep]).depth
    assert depth is not None
    assert depth.amax((1, 2)).tolist() == [0.0, 7.0]


def test_birds_eye_suppression_leaves_no_pair_above_the_limit() -> None:
    generator = torch.Generator().manual_seed(1)
    center = torch.rand(60, 3, generator=generator) * torch.tensor([20.0, 1.0, 25.0])
    boxes = Boxes3D(
        center, torch.tensor([[4.0, 1.5, 1.7]]).repeat(60, 1), 6 * torch.rand(60, generator=generator)
    )
    scores, labels = torch.rand(60, generator=generator), torch.arange(60) % 2
    kept = nms_bev(boxes, scores, labels, 0.05)
    same = labels[kept][:, None] == labels[kept]
    overlap = iou_bev(boxes[kept], boxes[kept]).fill_diagonal_(0) * same
    assert float(overlap.max()) <= 0.05
    assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)
    lost = [k for k in range(60) if k not in kept.tolist()]
    assert lost
    for k in lost:  # each for the sake of a better one
        rivals = iou_bev(boxes[k], boxes[kept])[0] * (labels[kept] == labels[k]) * (scores[kept] >= scores[k])
        assert float(rivals.max()) > 0.05


def test_codes_have_length_one_and_zero_has_a_defined_one() -> None:
    codes = unit_codes(torch.tensor([[0.0, 3, 4, 0, 0, 0], [0.0] * 6]))
    torch.testing.assert_close(codes, torch.tensor([[0.0, 0.6, 0.8, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]]))


def test_statistics_of_a_split() -> None:
    config = METHOD.statistics(ROI10DConfig(input_width=WIDTH, input_height=HEIGHT), [sample(), nothing()])
    sizes = sample().boxes.size
    torch.testing.assert_close(torch.tensor(config.sizes[0]), sizes.mean(0))
    spread = sizes.std(0, correction=0).maximum(
        0.05 * sizes.mean(0)
    )  # three widths are too alike to count in
    torch.testing.assert_close(torch.tensor(config.size_deviations[0]), spread)
    assert config.depth_mean == pytest.approx(18.0)
    assert config.focal == pytest.approx(float(toy_camera(WIDTH, HEIGHT).fx), rel=1e-3)
    with pytest.raises(InputError, match="no training object of class Tram"):
        METHOD.statistics(ROI10DConfig(classes=("Car", "Tram")), [sample()], ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": "lidar"}, "depth must be one of"),
        ({"input_width": 100}, "must be a multiple of 32"),
        ({"sizes": ((1.0, -1.0, 1.0),)}, "sizes"),
        ({"fused": 24}, "fused must be a multiple of 32"),
        ({"roi_size": 0}, "at least 1"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ROI10DConfig(**changes)  # type: ignore[arg-type]


def test_published_schedule() -> None:
    """200,000 steps of 8: a tenth at 120,000 and again at 180,000, after a linear warm-up; SGD with momentum."""
    recipe = METHOD.recipes["paper"]
    for images in (3500, 3712, 7481):
        per_epoch = images // recipe.batch_size
        assert recipe.length(per_epoch) == 200_000
        assert 200_000 <= recipe.epochs_of(per_epoch) * per_epoch < 200_000 + per_epoch
    steps = {119_000: 1.0, 121_000: 0.1, 179_000: 0.1, 181_000: 0.01}
    for step, factor in steps.items():
        assert recipe.rate(step / 200_000) == pytest.approx(factor)
    assert recipe.rate(0.0) == pytest.approx(0.01)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), recipe)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert recipe.lr == 1e-3
    assert choose(METHOD, "paper", settings=["epochs=2"]).recipe.length(10) == 20
    assert paper().backbone == "resnet34"


def test_cameras_need_not_be_stacked_for_one_box() -> None:
    codec = ROI10DCodec(ROI10DConfig())
    one = sample()
    label, roi = torch.zeros(3, dtype=torch.long), one.boxes2d
    aim = Lifted(one.boxes.center, one.boxes.size, matrix_from_yaw(one.boxes.yaw))
    stacked = Camera.stack([one.camera] * 3)
    single, each = (
        codec.decode(codec.encode(aim, roi, label, c), roi, label, c) for c in (one.camera, stacked)
    )
    torch.testing.assert_close(single.center, each.center)
    torch.testing.assert_close(single.center, one.boxes.center)
