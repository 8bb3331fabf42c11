"""SS3D's targets cell by cell, and decode(encode(labels)) == labels."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import pytest
import torch

from ideal_maps import ideal_maps
from monolift.augment.augment import mirror
from monolift.augment.view import View, letterbox
from monolift.data.sample import Detections, Objects, Sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera, wrap
from monolift.inference.results import Results3D
from monolift.methods.ss3d.assign import BACKGROUND, IGNORE, Targets, assign_targets
from monolift.methods.ss3d.codec import MOST_SIGMA, SS3DCodec, cell_pixels
from monolift.methods.ss3d.config import PRESETS, SS3DConfig, with_statistics
from monolift.methods.ss3d.decode import decode_maps
from monolift.methods.ss3d.parameters import PARAMETER_NAMES, parameters_of_boxes
from monolift.render.draw.birds_eye import _spreads, birds_eye
from noisy_cars import KITTI

CARS = (
    # x, y (centre), z, length, height, width, yaw
    (-6.0, 1.0, 18.0, 3.9, 1.5, 1.6, 0.3),
    (2.0, 0.9, 12.0, 4.2, 1.6, 1.7, -1.5),
    (7.0, 1.1, 30.0, 3.6, 1.4, 1.6, 2.8),
)


def sample_of(
    rows: tuple[tuple[float, ...], ...] = CARS,
    camera: Camera = KITTI,
    classes: tuple[str, ...] = (),
    **changes: object,
) -> Sample:
    table = torch.tensor(rows).reshape(-1, 7)
    boxes = Boxes3D(table[:, :3], table[:, 3:6], table[:, 6])
    n = len(boxes)
    sample = Sample(
        name="000001",
        image=torch.zeros(3, camera.height, camera.width, dtype=torch.uint8),
        camera=camera,
        boxes=boxes,
        classes=classes or ("Car",) * n,
        boxes2d=boxes.projected(camera).reshape(n, 4),
        truncation=torch.zeros(n),
        occlusion=torch.zeros(n, dtype=torch.long),
    )
    return dataclasses.replace(sample, **changes)


def as_network(sample: Sample, width: int = 1248, height: int = 384) -> Sample:
    return letterbox(*sample.size, width, height).sample(sample)


def by_position(boxes: Boxes3D) -> Boxes3D:
    return boxes[boxes.center[:, 0].argsort()]


def assert_same(found: Detections, sample: Sample, atol: float = 2e-3) -> None:
    assert len(found) == len(sample)
    a, b = by_position(found.boxes), by_position(sample.boxes)
    torch.testing.assert_close(a.center, b.center, rtol=0, atol=atol)
    torch.testing.assert_close(a.size, b.size, rtol=0, atol=atol)
    torch.testing.assert_close(wrap(a.yaw - b.yaw), torch.zeros(len(b)), rtol=0, atol=atol)


# -- round trips --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_decode_inverts_encode(preset: str) -> None:
    """Two cameras in one batch, one image mirrored, one resized, one empty."""
    codec = SS3DCodec(PRESETS[preset]())
    other = Camera(520.0, 515.0, 640.0, 180.0, tx=-0.5, tz=0.01, width=1242, height=375)
    samples = [
        as_network(sample_of()),
        as_network(mirror(sample_of())),
        as_network(sample_of(camera=other)),
        View(0.8, -20, 10, 1248, 384).sample(sample_of()),
        as_network(sample_of(())),
    ]
    targets = assign_targets(codec, samples)
    found = decode_maps(codec, ideal_maps(codec, targets), targets.cameras)
    assert len(found) == 5
    for detections, sample in zip(found, samples, strict=True):
        assert_same(detections, sample)
        assert (detections.scores > (0.99 if codec.config.ranking == "class" else 0.5)).all()
        assert (detections.labels == 0).all()
        torch.testing.assert_close(
            detections.boxes2d[detections.boxes2d[:, 0].argsort()],
            sample.boxes2d[sample.boxes2d[:, 0].argsort()],
            rtol=0,
            atol=0.01,
        )


def test_truncated_object() -> None:
    """Its 2D box is cut by the image's border: the parameter is cut too, and so is the fit's forward model."""
    camera = KITTI.after_crop(0, 0, 1240, 372)
    sample = sample_of(((-5.2, 1.0, 6.0, 3.9, 1.5, 1.6, 0.3), (3.0, 1.0, 4.5, 3.9, 1.5, 1.6, 1.2)), camera)
    assert sample.boxes2d[0, 0] == 0
    codec = SS3DCodec(SS3DConfig())
    targets = assign_targets(codec, [sample])
    assert_same(decode_maps(codec, ideal_maps(codec, targets), targets.cameras)[0], sample)


def test_numbers_and_parameters_are_inverse_and_follow_the_lens() -> None:
    codec = SS3DCodec(SS3DConfig(corner_order="object"))
    parameters = torch.randn(7, 26).double()
    cell = torch.arange(7) * 31
    for camera in (KITTI, Camera.stack([KITTI] * 7)):
        numbers = codec.channels(parameters, cell, camera, 40)
        torch.testing.assert_close(codec.parameters(numbers, cell, camera, 40), parameters)
    # the same channels seen through a lens twice as long mean twice the distance, and twice its sigma
    longer = dataclasses.replace(KITTI, fx=2 * KITTI.fx)
    ratio = codec.parameters(parameters, cell, longer, 40) / codec.parameters(parameters, cell, KITTI, 40)
    assert ratio[:, 4].tolist() == pytest.approx([2.0] * 7)
    ratio[:, 4] = 1
    assert (ratio == 1).all()
    assert float((codec.sigma(parameters, longer) / codec.sigma(parameters, KITTI))[0, 4]) == pytest.approx(2)


def test_corners_seen_from_the_far_end_do_not_depend_on_the_heading() -> None:
    """In all headings: what the corner channels show is the same for a car and for it turned half round, the parameters
    come back, and a network that confuses front and rear still has corners and direction agree: the car is turned, not torn."""
    codec = SS3DCodec(SS3DConfig())
    yaw = torch.arange(72, dtype=torch.float64) * math.tau / 72 + 0.01
    n = len(yaw)
    center = torch.tensor([[-4.0, 1.0, 14.0]], dtype=torch.float64).expand(n, 3)
    size = torch.tensor([[3.9, 1.5, 1.6]], dtype=torch.float64).expand(n, 3)
    cell = torch.full((n,), 500)
    camera = dataclasses.replace(KITTI, width=0, height=0)
    both = [parameters_of_boxes(Boxes3D(center, size, turn), camera) for turn in (yaw, yaw + math.pi)]
    ahead, back = (codec.channels(parameters, cell, camera, 40) for parameters in both)
    torch.testing.assert_close(ahead[:, 10:], back[:, 10:])
    for parameters, numbers in zip(both, (ahead, back), strict=True):
        torch.testing.assert_close(codec.parameters(numbers, cell, camera, 40), parameters)
    wrong = ahead.clone()
    wrong[:, 5:7] *= -1
    torch.testing.assert_close(codec.parameters(wrong, cell, camera, 40), both[1])
    # sigmas go with their corners
    log_sigma = torch.arange(26.0).double().expand(n, 26) / 10
    parameters, sigma = codec.measured(ahead, log_sigma, cell, camera, 40)
    turned = both[0][:, 5] > 0
    torch.testing.assert_close(sigma[~turned], codec.sigma(log_sigma, camera)[~turned])
    assert (sigma[turned, 10:] != codec.sigma(log_sigma, camera)[turned, 10:]).all()


def test_across_the_view_the_cosine_decides() -> None:
    """Sines of both signs near zero: the corners' order follows from where front and rear lie in the image."""
    codec = SS3DCodec(SS3DConfig())
    box = Boxes3D(torch.tensor([[0.0, 1.0, 15.0]]), torch.tensor([[3.9, 1.5, 1.6]]), torch.tensor([0.02]))
    camera = dataclasses.replace(KITTI, width=0, height=0)
    parameters = parameters_of_boxes(box, camera)
    cell = torch.tensor([500])
    numbers = codec.channels(parameters, cell, camera, 40)
    numbers[:, 5] *= -1
    torch.testing.assert_close(codec.parameters(numbers, cell, camera, 40)[:, 10:], parameters[:, 10:])


def test_cell_pixels_are_the_middles() -> None:
    assert cell_pixels(torch.tensor([0, 1, 40, 82]), 40).tolist() == [
        [1.5, 1.5],
        [5.5, 1.5],
        [1.5, 5.5],
        [9.5, 9.5],
    ]


# -- the class map ------------------------------------------------------------------------------------------------------


def painted(
    boxes2d: list[list[float]], depth: list[float], classes: tuple[str, ...], **changes: object
) -> Targets:
    """Targets of a 160 x 96 image with labelled 2D boxes set by hand; depths decide who is in front."""
    rows = tuple((0.0, 0.0, z, 4.0, 1.5, 1.7, 0.5) for z in depth)
    sample = sample_of(rows, Camera(100.0, 100.0, 80.0, 48.0, width=160, height=96), classes)
    sample = dataclasses.replace(sample, boxes2d=torch.tensor(boxes2d), **changes)
    return assign_targets(SS3DCodec(SS3DConfig()), [sample])


def test_support_is_a_fifth_of_the_area_round_the_middle() -> None:
    # 80 x 40 pixels: the support's half sides are 40 and 20 times sqrt(0.2), 17.9 and 8.9 pixels round (80, 50)
    targets = painted([[40.0, 30.0, 120.0, 70.0]], [20.0], ("Car",))
    classes = targets.classes[0]
    expected = torch.full((24, 40), BACKGROUND)
    for row in range(24):
        for column in range(40):
            u, v = 4 * column + 1.5, 4 * row + 1.5
            if 40 <= u <= 120 and 30 <= v <= 70:
                expected[row, column] = IGNORE
            if abs(u - 80) <= 40 * 0.2**0.5 and abs(v - 50) <= 20 * 0.2**0.5:
                expected[row, column] = 1
    assert torch.equal(classes, expected)
    cells = (classes.flatten() == 1).nonzero()[:, 0]
    assert torch.equal(targets.cell, cells) and (targets.object == 0).all()
    inside = (classes == 1).sum() / ((classes == 1) | (classes == IGNORE)).sum()
    assert 0.15 < inside < 0.25


def test_near_supports_cover_far_ones_and_surroundings_cover_none() -> None:
    near, far = [40.0, 20.0, 120.0, 80.0], [60.0, 40.0, 100.0, 60.0]
    for order in ((0, 1), (1, 0)):
        boxes = [[near, far][i] for i in order]
        targets = painted(
            boxes, [[10.0, 30.0][i] for i in order], tuple(("Car", "Cyclist")[i] for i in order)
        )
        assert set(targets.classes.unique().tolist()) == {IGNORE, BACKGROUND, 1}  # the far cyclist is covered
        # the far one in front: its support stays, in the middle of the other's
        targets = painted(
            boxes, [[30.0, 10.0][i] for i in order], tuple(("Car", "Cyclist")[i] for i in order)
        )
        assert int(targets.classes[0, 12, 20]) == 3 and int(targets.classes[0, 12, 16]) == 1
        assert targets.boxes.center[targets.object[targets.cell == 12 * 40 + 20], 2].tolist() == [10.0]
    # side by side: the right one's surroundings reach over the left one's support, which stays
    targets = painted([[20.0, 20.0, 60.0, 60.0], [32.0, 20.0, 140.0, 60.0]], [30.0, 10.0], ("Car", "Car"))
    assert int(targets.classes[0, 9, 9]) == 1


def test_who_is_sought_who_is_ignored_and_who_is_background() -> None:
    box = [[40.0, 30.0, 120.0, 70.0]]

    def middle(*classes: str, **changes: object) -> int:
        return int(painted(box, [20.0], classes, **changes).classes[0, 12, 20])

    assert [middle(c) for c in ("Car", "Van", "Pedestrian", "Cyclist")] == [1, 1, 2, 3]
    assert [middle(c) for c in ("Tram", "Misc", "Truck", "Person_sitting")] == [IGNORE] * 4
    assert middle("Signpost") == BACKGROUND
    assert middle("Car", truncation=torch.tensor([0.95])) == IGNORE
    assert middle("Car", truncation=torch.tensor([0.85])) == 1
    assert middle("Car", occlusion=torch.tensor([3])) == 1
    # an object without a 3D label comes from the reader as a region to ignore
    ignored = painted(box, [20.0], ("Signpost",), ignore=torch.tensor(box))
    assert int(ignored.classes[0, 12, 20]) == IGNORE and len(ignored.cell) == 0
    region = painted(box, [20.0], ("Car",), ignore=torch.tensor([[0.0, 0.0, 159.0, 20.0]]))
    assert (region.classes[0, :5] == IGNORE).all() and int(region.classes[0, 6, 0]) == BACKGROUND
    # a region without labels does not erase a labelled object
    over = painted(box, [20.0], ("Car",), ignore=torch.tensor([[0.0, 0.0, 159.0, 95.0]]))
    assert int(over.classes[0, 12, 20]) == 1


def test_a_tiny_object_has_a_cell() -> None:
    targets = painted([[81.0, 49.0, 83.0, 52.0]], [50.0], ("Pedestrian",))
    assert len(targets.cell) == 1
    assert targets.cell.item() == 12 * 40 + 20  # pixel (81.5, 49.5), the nearest to (82, 50.5)
    corner = painted([[157.0, 93.0, 159.0, 95.0]], [50.0], ("Pedestrian",))
    assert corner.cell.item() == 23 * 40 + 39


def test_corners_without_a_pixel_are_not_trained() -> None:
    sample = sample_of(((1.5, 1.0, 1.6, 4.0, 1.5, 1.7, 1.5),), KITTI.after_crop(0, 0, 1240, 372))
    targets = assign_targets(SS3DCodec(SS3DConfig(corner_order="object")), [sample])
    behind = sample.boxes.corners()[0, :, 2] < 0.1
    assert behind.any() and not behind.all()
    known = targets.known[0, 10:].reshape(8, 2)
    assert not known[behind].any() and targets.known[0, :10].all() and torch.isfinite(targets.numbers).all()


# -- decoding -------------------------------------------------------------------------------------------------------------


def test_result_names_the_parameter_that_disagrees() -> None:
    codec = SS3DCodec(SS3DConfig(corner_order="object"))
    targets = assign_targets(codec, [as_network(sample_of(CARS[:1]))])
    raw = ideal_maps(codec, targets)
    wrong = PARAMETER_NAMES.index("corner 6 v")
    raw["parameters"][:, wrong] += 12.0  # units, of sigma 1
    (found,) = decode_maps(codec, raw, targets.cameras)
    assert found.evidence is not None and found.covariance is not None
    names = found.evidence.outliers(0)
    assert next(iter(names)) == "corner 6 v" and names["corner 6 v"] > 6
    assert torch.linalg.eigvalsh(found.covariance[0].double()).min() > 0
    for same in (found[[0]], found.to("cpu")):
        assert same.evidence is not None and same.evidence.outliers(0) == names
    worst = max(found.evidence.rows(0), key=lambda row: abs(row["disagreement"]))
    assert worst["name"] == "corner 6 v" and worst["disagreement"] == names["corner 6 v"]
    assert worst["sigma"] == pytest.approx(codec.config.units[4])


@pytest.mark.parametrize("candidates", [0, 1, 500])
def test_any_number_of_candidates(candidates: int) -> None:
    """Untrained parameters at 0, 1 or 500 cells: finite boxes, at most top_k, none covering another."""
    config = SS3DConfig(candidates=500)
    codec = SS3DCodec(config)
    logits = torch.zeros(1, 4, 96, 320)
    logits[:, 0] = 20
    cells = torch.randperm(96 * 320)[:candidates]
    logits.view(1, 4, -1)[0, 1, cells] = 25 + torch.rand(candidates)
    raw = {
        "classes": logits,
        "parameters": torch.randn(1, 26, 96, 320),
        "log_sigma": torch.randn(1, 26, 96, 320),
    }
    camera = Camera.stack([dataclasses.replace(KITTI, width=1280, height=384)])
    (found,) = decode_maps(codec, raw, camera)
    assert len(found) <= min(candidates, config.top_k) and (len(found) > 0 or candidates < 500)
    for value in (found.boxes.center, found.boxes.size, found.boxes.yaw, found.scores, found.boxes2d):
        assert torch.isfinite(value).all()
    assert not found.covariance.isnan().any()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_suppression_keeps_the_best_of_each_class_and_image() -> None:
    codec = SS3DCodec(SS3DConfig())
    targets = assign_targets(codec, [as_network(sample_of(CARS[:1])), as_network(sample_of(CARS[:1]))])
    raw = ideal_maps(codec, targets)
    best = targets.cell[targets.image == 0][3]
    raw["classes"] = raw["classes"] / 4  # 20 against 0 is 1 in float32, and equals have no best
    raw["classes"].view(2, 4, -1)[0, 1, best] += 5
    raw["classes"].view(2, 4, -1)[0, 2, targets.cell[0]] = 6  # the same box as a pedestrian
    raw["parameters"].view(2, 26, -1)[0, 4, best] += 1.0  # the best cell's distance decides
    first, second = decode_maps(codec, raw, targets.cameras)
    assert sorted(first.labels.tolist()) == [0, 1] and second.labels.tolist() == [0]
    assert first.boxes.center[first.labels == 0, 2] > second.boxes.center[0, 2]


def test_a_box_that_is_sure_of_itself_ranks_higher() -> None:
    """Of two cars that are as surely cars, unless ranking says "class"."""
    sample = as_network(sample_of(CARS[:2]))
    by_sigma, by_class = (SS3DCodec(SS3DConfig(ranking=ranking)) for ranking in ("sigma", "class"))
    targets = assign_targets(by_sigma, [sample])
    raw = ideal_maps(by_sigma, targets)
    log_sigma = raw["log_sigma"].view(26, -1)
    of_second = targets.cell[targets.object == 1]
    log_sigma[:, of_second] = 3.0
    (sure,), (plain,) = (
        decode_maps(by_sigma, raw, targets.cameras),
        decode_maps(by_class, raw, targets.cameras),
    )
    torch.testing.assert_close(plain.scores, torch.ones(2))
    (found,) = (int(i) for i in (sure.boxes.center - sample.boxes.center[1]).norm(dim=1).argsort()[:1])
    height = float(sample.boxes2d[1, 3] - sample.boxes2d[1, 1])
    assert float(sure.scores[found]) == pytest.approx(math.exp(-2 * 4 * math.exp(3.0) / height), rel=1e-4)
    assert float(sure.scores[1 - found]) > 2 * float(sure.scores[found])
    assert sure.scores.tolist() == sorted(sure.scores.tolist(), reverse=True)


def test_cells_of_one_object_vote_by_precision() -> None:
    """Two cells of a car say 12 and 13 metres, the second half as surely: 12.2. A cell that says nothing finite, one of another
    class and one of another car have no vote; with ``voting=1`` nobody else has."""
    sample = as_network(sample_of(CARS[:2]))
    codec, alone = SS3DCodec(SS3DConfig()), SS3DCodec(SS3DConfig(voting=1.0))
    targets = assign_targets(codec, [sample])
    raw = ideal_maps(codec, targets)
    cells = targets.cell[targets.object == 1]
    middle = (sample.boxes2d[1, :2] + sample.boxes2d[1, 2:]) / 2
    best = int(cells[(cell_pixels(cells, targets.width) - middle).norm(dim=1).argmin()])
    logits, parameters, log_sigma = (
        raw[k].view(raw[k].shape[1], -1) for k in ("classes", "parameters", "log_sigma")
    )
    logits[1, cells] = -20.0  # all but four of its cells are background
    for step, logit in ((-2, 8.0), (2, 7.0), (4, 7.0), (6, 6.0)):
        logits[1 if step < 6 else 2, best + step] = logit
        logits[0, best + step] = 0.0
    unit = codec.config.units[1] * float(targets.cameras.fx[0]) / codec.config.focal
    parameters[4, best + 2] += 1.0 / unit
    log_sigma[4, best + 2] = math.log(2.0)
    parameters[12, best + 4] = torch.nan
    parameters[4, best + 6] += 5.0

    def distance(codec: SS3DCodec) -> float:
        (found,) = decode_maps(codec, raw, targets.cameras)
        car = (found.labels == 0) & ((found.boxes.center - sample.boxes.center[1]).norm(dim=1) < 3)
        assert int(car.sum()) == 1 and found.evidence is not None
        return float(found.evidence.values[car.nonzero()[0, 0], 4])

    true = float(distance(alone))
    chances = [math.exp(logit) / (math.exp(logit) + 3.0) for logit in (8.0, 7.0)]
    share = chances[1] / 4 / (chances[0] + chances[1] / 4)
    assert distance(codec) == pytest.approx(true + share, abs=2e-3)


@pytest.mark.parametrize("name", ["parameters", "log_sigma"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_cell_that_says_no_number_is_no_candidate(name: str, value: float) -> None:
    """The other cells of its car, and the other car, are found as if it were not there."""
    sample = as_network(sample_of(CARS[:2]))
    codec = SS3DCodec(SS3DConfig())
    targets = assign_targets(codec, [sample])
    raw = ideal_maps(codec, targets)
    raw["classes"].view(4, -1)[1, targets.cell[targets.object == 1][5]] += 5.0  # the best of its car
    raw[name].view(26, -1)[7, targets.cell[targets.object == 1][5]] = value
    (found,) = decode_maps(codec, raw, targets.cameras)
    assert_same(found, sample)
    assert torch.isfinite(found.scores).all()


def test_a_corner_that_nobody_can_see_leaves_the_others_their_say() -> None:
    sample = as_network(sample_of(CARS[:1]))
    codec = SS3DCodec(SS3DConfig())
    targets = assign_targets(codec, [sample])
    raw = ideal_maps(codec, targets)
    (before,) = decode_maps(codec, raw, targets.cameras)
    raw["log_sigma"][:, 10:12] = MOST_SIGMA
    (after,) = decode_maps(codec, raw, targets.cameras)
    assert float(after.scores[0]) == pytest.approx(0.9 * float(before.scores[0]), rel=1e-3)  # 18 of 20


def test_one_near_car_leaves_room_for_a_far_one() -> None:
    """Its 2,000 sure cells are one candidate."""
    codec = SS3DCodec(SS3DConfig(candidates=5, ranking="class"))
    near, far = (-3.0, 1.0, 6.0, 3.9, 1.5, 1.6, 0.3), (7.0, 1.1, 40.0, 3.6, 1.4, 1.6, 2.8)
    sample = as_network(sample_of((near, far)))
    raw = ideal_maps(codec, assign_targets(codec, [sample]))
    x1, y1, x2, y2 = (sample.boxes2d[0] / 4).round().int().tolist()
    row, column = torch.meshgrid(torch.arange(96.0), torch.arange(312.0), indexing="ij")
    away = ((row - (y1 + y2) / 2).abs() + (column - (x1 + x2) / 2 + 0.3).abs()) / 200
    inside = (row >= y1) & (row <= y2) & (column >= x1) & (column <= x2)
    assert inside.sum() > 500
    car = torch.where(inside, 6 - away, torch.where(raw["classes"][0, 1] > 0, 2.0, 0.0))
    raw["classes"] = torch.stack([torch.full_like(car, 0.5), car, 0 * car - 9, 0 * car - 9])[None]
    (found,) = decode_maps(codec, raw, Camera.stack([sample.camera]))
    assert_same(found[found.scores > 0.7], sample)


# -- configuration --------------------------------------------------------------------------------------------------------


def test_config_survives_json_and_refuses_nonsense() -> None:
    for preset in PRESETS.values():
        config = preset()
        stored = json.loads(json.dumps(dataclasses.asdict(config)))
        assert SS3DConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}) == config
    for wrong in (
        {"likelihood": "cauchy"},
        {"units": (1, 1)},
        {"size_mean": (0, 1, 1)},
        {"support": 0},
        {"input_width": 100},
    ):
        with pytest.raises(InputError, match=next(iter(wrong)).split("_")[0]):
            SS3DConfig(**wrong)


def test_statistics_of_a_split() -> None:
    config = with_statistics(SS3DConfig(), [sample_of(), sample_of(CARS[:1])])
    focal = float(letterbox(1242, 375, 832, 256).camera(KITTI).fx)
    assert config.focal == pytest.approx(focal)
    lengths = [torch.tensor(c[:3]).norm() for c in (*CARS, CARS[0])]
    assert config.distance_mean == pytest.approx(float(torch.stack(lengths).mean()), rel=1e-6)
    assert config.size_mean[0] == pytest.approx((3.9 * 4.2 * 3.6 * 3.9) ** 0.25, rel=1e-5)
    published = with_statistics(PRESETS["paper"](), [sample_of()])
    assert (published.focal, published.distance_mean, published.size_mean) == (0.0, 0.0, (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="Car"):
        with_statistics(SS3DConfig(), [sample_of(())])


# -- what users see -------------------------------------------------------------------------------------------------------


def test_result_tells_standard_deviations_and_on_request_parameters() -> None:
    codec = SS3DCodec(SS3DConfig())
    sample = as_network(sample_of(CARS[:2]))
    targets = assign_targets(codec, [sample])
    (found,) = decode_maps(codec, ideal_maps(codec, targets), targets.cameras)
    assert found.covariance is not None
    covariance = found.covariance.clone()
    covariance[1, 6, 6] = torch.inf
    result = Results3D("000001", replace(found, covariance=covariance), sample.camera, sample.image)
    first, second = json.loads(result.to_json())["objects"]
    spread = first["standard_deviation"]
    assert list(spread) == ["x", "y", "z", "length", "height", "width", "yaw"]
    assert spread["z"] == pytest.approx(float(covariance[0, 2, 2]) ** 0.5, abs=1e-4)
    length = first["size"]["length"]
    assert spread["length"] == pytest.approx(length * float(covariance[0, 3, 3]) ** 0.5, abs=1e-4)
    assert spread["z"] > 2 * spread["x"]  # along the ray nobody knows much
    assert second["standard_deviation"]["yaw"] is None
    assert "hints" not in first
    parameters = result.filter(0.0).to_dict(hints=True)["objects"][1]["hints"]
    assert [row["name"] for row in parameters] == list(PARAMETER_NAMES)
    assert found.evidence is not None and parameters[4]["value"] == float(found.evidence.values[1, 4])


def test_ellipse_from_above_is_one_sigma_of_the_centre() -> None:
    covariance = torch.zeros(2, 7, 7)
    covariance[0, :3, :3] = torch.tensor([[0.5, 0.0, 1.0], [0.0, 9.0, 0.0], [1.0, 0.0, 4.0]])
    covariance[1] = torch.diag(torch.full((7,), torch.inf))
    boxes = sample_of(CARS[:2]).boxes
    (ellipse,) = _spreads(Objects.named(boxes, ("Car", "Car"), covariance=covariance))
    away = torch.from_numpy(ellipse).float() - boxes.center[0, [0, 2]]
    inverse = torch.linalg.inv(covariance[0][[0, 2]][:, [0, 2]])
    torch.testing.assert_close(((away @ inverse) * away).sum(1), torch.ones(len(away)))
    plain, drawn = (
        birds_eye(KITTI, Objects.named(boxes, ("Car", "Car"), covariance=c)) for c in (None, covariance)
    )
    assert drawn.size == plain.size and drawn.tobytes() != plain.tobytes()
