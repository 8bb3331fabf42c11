from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from monodr_cars import KITTI, KnownCars, known_cars
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera, iou_bev_paired, wrap
from monolift.methods.monodr import FittedObjects, MonoDR, MonoDRConfig, Observation, paper
from monolift.methods.monodr.crops import crop
from monolift.methods.monodr.fit import align, screen_boxes
from monolift.methods.monodr.loss import depth_loss
from monolift.typing import Tensor

QUICK = MonoDRConfig(iterations=40, escape_until=25)


@pytest.fixture(scope="module")
def cars() -> KnownCars:
    return known_cars(5, seed=3)


@pytest.fixture(scope="module")
def fitted(cars: KnownCars) -> FittedObjects:
    return MonoDR(QUICK).fit(cars.observations, history=True)


def degrees_off(boxes: Boxes3D, truth: Boxes3D) -> Tensor:
    return wrap(boxes.yaw - truth.yaw).abs().rad2deg()


def test_the_truth_is_recovered(cars: KnownCars, fitted: FittedObjects) -> None:
    assert (degrees_off(fitted.start, cars.boxes) > 15).sum() >= 3  # there was something to find
    assert degrees_off(fitted.boxes, cars.boxes).max() < 10
    off = (fitted.boxes.center[:, 2] - cars.boxes.center[:, 2]).abs() / cars.boxes.center[:, 2]
    assert off.max() < 0.05  # 1 % scale noise, 3 % per pixel
    assert (
        iou_bev_paired(fitted.boxes, cars.boxes).mean()
        > 0.65
        > iou_bev_paired(fitted.start, cars.boxes).mean()
    )


def test_what_is_found_hangs_together(cars: KnownCars, fitted: FittedObjects) -> None:
    assert fitted.history is not None and len(fitted.history) == QUICK.iterations + 1
    torch.testing.assert_close(fitted.history[0].center, fitted.start.center)
    torch.testing.assert_close(fitted.history[-1].center, fitted.boxes.center)
    for mesh, earlier, k in zip(fitted.meshes, fitted.mesh_at(QUICK.iterations), range(5), strict=True):
        torch.testing.assert_close(mesh.vertices, earlier.vertices)
        # the box is the mesh's extent: turned back, the mesh fills it
        box, c, s = fitted.boxes[k], fitted.boxes.yaw[k].cos(), fitted.boxes.yaw[k].sin()
        local = (mesh.vertices - box.center) @ torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        torch.testing.assert_close(local.amax(0) - local.amin(0), box.size[0], rtol=1e-4, atol=1e-4)
    assert set(fitted.residuals) == {"pixel", "box", "silhouette", "depth", "size", "protrusion"}
    torch.testing.assert_close(fitted.shape.norm(dim=1), torch.ones(5))
    factor = torch.exp(-0.1 * fitted.residuals["silhouette"] - 0.03 * fitted.residuals["protrusion"])
    torch.testing.assert_close(fitted.confidence, fitted.score2d * factor)
    assert fitted.residuals["silhouette"].max() < 0.25


def test_equal_seeds_equal_results(cars: KnownCars) -> None:
    short = replace(QUICK, iterations=4)
    first, again, other = (MonoDR(short).fit(cars.observations[:2], seed=s) for s in (1, 1, 2))
    assert torch.equal(first.boxes.center, again.boxes.center) and torch.equal(
        first.boxes.yaw, again.boxes.yaw
    )
    assert not torch.equal(first.boxes.yaw, other.boxes.yaw)


def test_a_hidden_part_is_no_reason_to_turn() -> None:
    """35 % of each car is behind something: the default knows that it does not know, the paper's losses do not."""
    hidden = known_cars(5, seed=4, hidden=0.35)
    config = replace(QUICK, escape_until=30)
    ours = iou_bev_paired(MonoDR(config).fit(hidden.observations).boxes, hidden.boxes).mean()
    blind = replace(config, others="foreground", box_sides="all")
    theirs = iou_bev_paired(MonoDR(blind).fit(hidden.observations).boxes, hidden.boxes).mean()
    assert ours > 0.6 > theirs


def test_progress_counts_all_batches(cars: KnownCars) -> None:
    steps: list[tuple[int, int]] = []
    config = MonoDRConfig(iterations=2, escape_until=1, batch=2)
    fitted = MonoDR(config).fit(cars.observations[:3], on_step=lambda *s: steps.append(s))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)] and len(fitted) == 3
    with pytest.raises(InputError, match="history=True"):
        fitted.mesh_at(0)


def test_the_papers_preset_runs(cars: KnownCars) -> None:
    """Its own loss goes down; what its figures are is the benchmark's to say."""
    config = paper(iterations=3, escape_until=3, crop=64)
    fitted = MonoDR(config).fit(cars.observations[:2], history=True)
    assert fitted.history is not None and not torch.equal(fitted.boxes.center, fitted.start.center)
    assert fitted.depth_scale.tolist() == [1, 1]


# --- inputs at the edge of sense


def blank(**changes: object) -> Observation:
    usual = {
        "image": torch.full((3, 375, 1242), 90, dtype=torch.uint8),
        "camera": KITTI,
        "mask": torch.zeros(375, 1242, dtype=torch.int8),
        "depth": torch.zeros(375, 1242),
        "box2d": torch.tensor([600.0, 170, 660, 210]),
    }
    return Observation(**{**usual, **changes})  # type: ignore[arg-type]


def test_a_mask_without_pixels_stays_where_it_starts() -> None:
    fitted = MonoDR(replace(QUICK, iterations=3)).fit([blank()])
    assert fitted.confidence.tolist() == [0]
    torch.testing.assert_close(fitted.boxes.center, fitted.start.center)
    # without depth, a car of mean height that fills the box's height stands this far away
    assert fitted.boxes.center[0, 2].item() == pytest.approx(721.5 * 1.53 / 40, rel=1e-5)


def test_without_depth_the_size_decides(cars: KnownCars) -> None:
    """All depth unknown: finite, and as far away as the 2D box says."""
    unknown = [replace(o, depth=torch.zeros_like(o.depth)) for o in cars.observations]
    fitted = MonoDR(QUICK).fit(unknown)
    assert bool(torch.isfinite(fitted.boxes.center).all()) and fitted.residuals["depth"].tolist() == [0] * 5
    off = (fitted.boxes.center[:, 2] / cars.boxes.center[:, 2]).log().abs()
    assert off.median() < 0.15


def test_a_box_outside_the_image() -> None:
    fitted = MonoDR(replace(QUICK, iterations=2)).fit([blank(box2d=torch.tensor([-300.0, 10, -200, 60]))])
    assert fitted.confidence.tolist() == [0] and bool(torch.isfinite(fitted.boxes.center).all())


def test_no_objects() -> None:
    fitted = MonoDR(QUICK).fit([], history=True)
    assert len(fitted) == 0 and fitted.meshes == () and len(fitted.history or []) == QUICK.iterations + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"box2d": torch.tensor([10.0, 10, 10, 20])}, "x1 < x2"),
        ({"box2d": torch.tensor([10.0, 10, float("nan"), 20])}, "x1 < x2"),
        ({"mask": torch.zeros(10, 10, dtype=torch.int8)}, "mask"),
        ({"depth": torch.zeros(370, 1242)}, "depth"),
        ({"camera": Camera.stack([KITTI, KITTI])}, "one image"),
    ],
)
def test_bad_observations_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(
        (InputError, TypeError), match=said
    ):  # TypeError: the tests' checker of shapes was first
        blank(**changes)


@pytest.mark.parametrize(
    "changes", [{"others": "mine"}, {"crop": 4}, {"lr": 0.0}, {"metric": "ssim"}, {"size_mean": (1.0, 2.0)}]
)
def test_bad_choices_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        MonoDRConfig(**changes)  # type: ignore[arg-type]


# --- crops


@pytest.mark.parametrize("extent", [30.0, 300.0])  # finer and coarser than the image
def test_crops_are_where_their_cameras_say(extent: float) -> None:
    """An image whose colour is its own column and row: each crop pixel shows where it looks."""
    column = torch.arange(1242).expand(375, -1)
    row = torch.arange(375)[:, None].expand(-1, 1242)
    image = torch.stack([column // 8, row // 2, row * 0]).to(torch.uint8)
    box = torch.tensor([500.3, 20.6, 500.3 + extent, 40.0 + 0.6 * extent])
    mask = torch.ones(375, 1242, dtype=torch.int8)
    depth = 1.0 + column.float()
    crops = crop([blank(image=image, mask=mask, depth=depth, box2d=box)], MonoDRConfig())
    # The same direction in both cameras.
    there = crops.cameras[0]
    pixel = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"), -1).double()
    expected = KITTI.px_from_cam(there.cam_from_px(pixel, torch.full((64, 64), 10.0).double()))
    inside = crops.valid[0] > 0.999
    assert inside.float().mean() > 0.5
    assert (crops.depth[0] - 1 - expected[..., 0])[inside].abs().max() < 0.03  # pixels
    shown = crops.colour[0, 1] * 255 * 2 + 0.5
    assert (shown - expected[..., 1])[inside].abs().max() < 1.5 + 0.01  # rounding down to even rows


def test_crops_keep_areas() -> None:
    mask = torch.zeros(375, 1242, dtype=torch.int8)
    mask[180:200, 610:650] = 1
    mask[180:200, 650:700] = -1
    box = torch.tensor([610.0, 180, 650, 200])
    crops = crop([blank(mask=mask, box2d=box)], MonoDRConfig())
    pixel_area = float(crops.cameras.fx[0] / KITTI.fx) ** 2
    assert crops.foreground.sum().item() == pytest.approx(800 * pixel_area, rel=1e-3)
    union = crop([blank(mask=mask, box2d=box)], paper(crop=64))
    assert (
        union.foreground.sum() > 1.05 * crops.foreground.sum()
    )  # the paper: someone else's pixels are foreground
    assert bool((union.valid == 1).all()) and bool((crops.valid < 0.01).any())


def test_the_paper_compares_depths_over_the_union_of_the_masks() -> None:
    """Eq. 7: where something 4 m in front hides a part of the object, the published loss is 4 m, and ours nothing."""
    mask = torch.zeros(375, 1242, dtype=torch.int8)
    mask[180:200, 610:650] = 1
    mask[180:200, 626:650] = -1  # 60 % hidden
    depth = torch.where(mask == -1, 16.0, 20.0)
    one = [blank(mask=mask, depth=depth, box2d=torch.tensor([609.5, 179.5, 649.5, 199.5]))]
    whole = (mask != 0).float().sum() / (mask == 1).float().sum()

    def loss(config: MonoDRConfig) -> tuple[Tensor, float]:
        crops = crop(one, config)
        rendered = torch.where(crops.compared_share > 0.01, 20.0, 0.0)  # the object at its depth, whole
        return crops.compared_share.sum(), depth_loss(
            rendered, crops.compared_depth, crops.compared_share
        ).item()

    (own, ours), (union, papers) = loss(MonoDRConfig()), loss(paper(crop=64))
    assert ours == pytest.approx(0, abs=1e-5)
    assert union / own == pytest.approx(float(whole), rel=0.02)
    assert papers == pytest.approx(4 * 0.6 * float(union) / 64**2, rel=0.02)
    # the fit still begins at the object's own mean depth
    assert crop(one, paper(crop=64)).depth.max() == pytest.approx(20)


def test_sparse_depth_weighs_what_it_is_in_the_paper() -> None:
    mask = torch.zeros(375, 1242, dtype=torch.int8)
    mask[180:200, 610:650] = 1
    points = torch.zeros(375, 1242)
    points[180:200:4, 610:650:4] = 20.0
    one = [blank(mask=mask, depth=points, box2d=torch.tensor([609.5, 179.5, 649.5, 199.5]))]
    ours, papers = crop(one, MonoDRConfig()), crop(one, paper(crop=64))
    assert ours.compared_share.sum() == pytest.approx(float(ours.foreground.sum()), rel=1e-3)
    assert papers.compared_share.sum() == pytest.approx(float(papers.foreground.sum()) / 16, rel=0.02)


def test_open_sides() -> None:
    mask = torch.zeros(375, 1242, dtype=torch.int8)
    mask[170:210, 600:660] = 1
    box = torch.tensor([600.0, 170, 659, 209])

    def sides(**changes: object) -> list[bool]:
        return crop([blank(**{"mask": mask, "box2d": box, **changes})], MonoDRConfig()).open_sides[0].tolist()

    assert sides() == [False] * 4
    for k, where in enumerate(((slice(None), slice(0, 600)), (slice(0, 170), slice(None)),
                               (slice(None), slice(660, 1242)), (slice(210, 375), slice(None)))):  # fmt: skip
        hidden = mask.clone()
        hidden[where] = -1
        assert sides(mask=hidden) == [k == j for j in range(4)]
    cut = torch.zeros_like(mask)
    cut[170:210, 1200:] = 1
    assert sides(mask=cut, box2d=torch.tensor([1200.0, 170, 1241, 209])) == [False, False, True, False]


def test_aligned_boxes_agree_in_middle_and_area() -> None:
    screen = torch.rand(2, 50, 3) * torch.tensor([30.0, 20.0, 5.0]) + 3
    boxes = torch.tensor([[5.0, 5, 60, 50], [20, 30, 30, 33]])
    aligned = screen_boxes(align(screen, boxes))
    for b in (0, 1):
        x1, y1, x2, y2 = aligned[b].tolist()
        u1, v1, u2, v2 = boxes[b].tolist()
        assert (x1 + x2, y1 + y2) == pytest.approx((u1 + u2, v1 + v2), rel=1e-4)
        assert (x2 - x1) * (y2 - y1) == pytest.approx((u2 - u1) * (v2 - v1), rel=1e-4)
