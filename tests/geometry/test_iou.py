"""Overlaps against exact polygon clipping in rational numbers, sampling, hand-worked cases and finite differences."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from monolift.geometry import (
    Boxes3D,
    bev_intersection,
    iou_2d,
    iou_2d_paired,
    iou_3d,
    iou_3d_paired,
    iou_bev,
    iou_bev_paired,
    wrap,
)

DTYPES = [torch.float32, torch.float64]
Row = tuple[float, ...]  # x y z  l h w  yaw


def boxes(rows: list[Row] | Row, dtype: torch.dtype = torch.float64) -> Boxes3D:
    t = torch.tensor(rows, dtype=dtype).reshape(-1, 7)
    return Boxes3D(t[:, :3], t[:, 3:6], t[:, 6])


def random_boxes(n: int, dtype: torch.dtype = torch.float64, spread: float = 2.0) -> Boxes3D:
    size = torch.rand(n, 3, dtype=dtype) * 4 + 0.2
    return Boxes3D(torch.randn(n, 3, dtype=dtype) * spread, size, torch.rand(n, dtype=dtype) * 20 - 10)


# -- the slow oracle: Sutherland-Hodgman in exact rational numbers ----------------------------------------------------

Point = tuple[Fraction, Fraction]


def polygon(row: Row) -> list[Point]:
    """Ground rectangle, counter-clockwise in (x, z). Only cos and sin are rounded, once, to double precision."""
    x, _, z, l, _, w, yaw = (Fraction(v) for v in row)
    c, s = Fraction(math.cos(yaw)), Fraction(math.sin(yaw))
    signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return [(x + (c * a * l + s * b * w) / 2, z + (-s * a * l + c * b * w) / 2) for a, b in signs]


def area(points: list[Point]) -> Fraction:
    following = points[1:] + points[:1]
    return sum((p[0] * q[1] - q[0] * p[1] for p, q in zip(points, following, strict=True)), Fraction(0)) / 2


def clip(points: list[Point], a: Point, b: Point) -> list[Point]:
    """The part of a polygon to the left of the line a -> b."""

    def side(p: Point) -> Fraction:
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    kept: list[Point] = []
    for p, q in zip(points, points[1:] + points[:1], strict=True):
        sp, sq = side(p), side(q)
        if sp >= 0:
            kept.append(p)
        if (sp > 0 > sq) or (sp < 0 < sq):
            t = sp / (sp - sq)
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return kept


def shared_area(a: Row, b: Row) -> Fraction:
    points, frame = polygon(a), polygon(b)
    for p, q in zip(frame, frame[1:] + frame[:1], strict=True):
        points = clip(points, p, q)
        if not points:
            return Fraction(0)
    return area(points)


def exact_ious(a: Row, b: Row) -> tuple[float, float, float]:
    """(area, IoU from above, IoU in space)."""
    common = shared_area(a, b)
    area_a, area_b = area(polygon(a)), area(polygon(b))
    (ya, ha), (yb, hb) = ((Fraction(r[1]), Fraction(r[4])) for r in (a, b))
    height = max(Fraction(0), min(ya + ha / 2, yb + hb / 2) - max(ya - ha / 2, yb - hb / 2))
    volume = common * height
    return (
        float(common),
        float(common / (area_a + area_b - common)),
        float(volume / (area_a * ha + area_b * hb - volume)),
    )


# Generic numbers mixed with those that make sides parallel, coincident or touching.
lengths = st.one_of(st.floats(0.1, 8), st.sampled_from([1.0, 2.0, 4.0]))
places = st.one_of(st.floats(-4, 4), st.sampled_from([0.0, 1.0, 2.0, -2.0, 3.0, 1e-6]))
yaws = st.one_of(st.floats(-7, 7), st.integers(-8, 8).map(lambda k: k * math.pi / 4), st.floats(-1e-5, 1e-5))
rows = st.tuples(places, places, places, lengths, lengths, lengths, yaws)


@given(rows, rows)
@example((0, 0, 0, 4, 1, 2, 0.0), (0, 0, 0, 2, 1, 4, math.pi / 2))  # the same rectangle, sides exchanged
@example((0, 0, 0, 4, 1, 2, 0.3), (0, 0, 0, 1, 1, 1, -2.0))  # one inside the other
@example((0, 0, 0, 4, 1, 4, 0.0), (0, 0, 0, 4, 1, 4, math.pi / 4))  # a regular octagon
@example((0, 0, 0, 4, 1, 2, 0.0), (1, 0, 0.5, 4, 1, 2, 1e-9))  # all but parallel
def test_against_exact_clipping(a: Row, b: Row) -> None:
    expected = exact_ious(a, b)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        p, q = boxes(a, dtype), boxes(b, dtype)
        if dtype == torch.float32:  # the oracle must see the rounded numbers
            expected = exact_ious(
                *(tuple(torch.cat([r.center, r.size, r.yaw[:, None]], 1)[0].tolist()) for r in (p, q))
            )
        found = [f(p, q).item() for f in (bev_intersection, iou_bev_paired, iou_3d_paired)]
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_a_regular_octagon_by_hand() -> None:
    """A square of side 2 and the same turned by 45 degrees share a regular octagon of inradius 1: area 8 (sqrt 2 - 1)."""
    square, turned = boxes((0, 0, 0, 2, 1, 2, 0.0)), boxes((0, 0, 0, 2, 1, 2, math.pi / 4))
    assert bev_intersection(square, turned).item() == pytest.approx(8 * (math.sqrt(2) - 1), abs=1e-14)


def test_boxes_by_hand() -> None:
    a = boxes((0, 0, 0, 4, 2, 2, 0.0))
    # half a length aside: 2 x 2 of 8 + 8 - 4; from above 1/3; half a height lower as well: 4 of 16 + 16 - 4 = 1/7
    b = boxes((2, 1, 0, 4, 2, 2, 0.0))
    assert iou_bev(a, b).item() == pytest.approx(1 / 3, abs=1e-15)
    assert iou_3d(a, b).item() == pytest.approx(1 / 7, abs=1e-15)
    # across each other: 2 x 2 of 8 + 8 - 4
    assert iou_bev(a, boxes((0, 0, 0, 4, 2, 2, math.pi / 2))).item() == pytest.approx(1 / 3, abs=1e-15)


def test_volumes_against_sampling() -> None:
    """Points thrown into space: a check that shares no idea with the code, good to three standard errors."""
    a, b = random_boxes(12, spread=0.6), random_boxes(12, spread=0.6)
    points = (torch.rand(400_000, 3, dtype=torch.float64) - 0.5) * 12
    side, count = 12.0, len(points)

    def inside(box: Boxes3D, k: int) -> torch.Tensor:
        d = points + a.center[k] - box.center[k]  # points are thrown round the first box
        c, s = torch.cos(box.yaw[k]), torch.sin(box.yaw[k])
        along, across = c * d[:, 0] - s * d[:, 2], s * d[:, 0] + c * d[:, 2]
        return (torch.stack([along, d[:, 1], across], 1).abs() < box.size[k] / 2).all(1)

    found = iou_3d_paired(a, b)
    for k in range(12):
        both = (inside(a, k) & inside(b, k)).double().mean().item()
        volume, error = both * side**3, 3 * math.sqrt(both / count) * side**3
        total = float(a.size[k].prod() + b.size[k].prod())
        mine = float(found[k]) * total / (1 + float(found[k]))
        assert abs(mine - volume) <= error + 1e-3


# -- exact promises ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1000.0, -7e5])
@pytest.mark.parametrize("turn", [0.0, math.pi, -math.pi, 2 * math.pi])
def test_identical_boxes_have_exactly_one(dtype: torch.dtype, offset: float, turn: float) -> None:
    a = random_boxes(2000, dtype)
    a = Boxes3D(a.center + offset, a.size, a.yaw)
    for yaw in (a.yaw + turn, wrap(a.yaw + turn)):
        b = Boxes3D(a.center, a.size, yaw)
        assert (iou_bev_paired(a, b) == 1).all()
        assert (iou_3d_paired(a, b) == 1).all()
        assert (iou_3d_paired(b, a) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_square_boxes_turned_by_a_quarter_have_exactly_one(dtype: torch.dtype) -> None:
    a = random_boxes(2000, dtype)
    square = a.size[:, [0, 1, 0]]
    for quarters in (1, -1, 3, 5):
        turned = Boxes3D(a.center, square, a.yaw + quarters * math.pi / 2)
        assert (iou_3d_paired(Boxes3D(a.center, square, a.yaw), turned) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_touching_boxes_have_exactly_zero(dtype: torch.dtype, quarters: int) -> None:
    """Sides, edges and corners that touch, for sizes and places that the number format holds exactly."""
    l, h, w = 4.0, 1.5, 2.0
    dx, dz = (l, w) if quarters % 2 == 0 else ((l + w) / 2, (l + w) / 2)
    steps = [s for s in product((-1, 0, 1), repeat=3) if s != (0, 0, 0)]
    for sx, sy, sz in steps:
        a = boxes((3, -1, 20, l, h, w, 0.0), dtype)
        b = boxes((3 + sx * dx, -1 + sy * h, 20 + sz * dz, l, h, w, quarters * math.pi / 2), dtype)
        assert iou_3d_paired(a, b).item() == 0
        assert iou_3d_paired(b, a).item() == 0
        if (sx, sz) != (0, 0):
            assert iou_bev_paired(a, b).item() == 0
    # a corner that touches a side: the diagonal of a square of side 2 is 2 sqrt 2
    reach = 1 + math.sqrt(2)
    assert (
        iou_bev_paired(
            boxes((0, 0, 0, 2, 1, 2, 0.0), dtype), boxes((reach + 1e-6, 0, 0, 2, 1, 2, math.pi / 4), dtype)
        )
        == 0
    )


@given(rows, rows, st.floats(0, 2 * math.pi))
def test_separate_boxes_have_exactly_zero(a: Row, b: Row, direction: float) -> None:
    distance = (math.hypot(a[3], a[5]) + math.hypot(b[3], b[5])) / 2 * 1.001
    b = (a[0] + distance * math.cos(direction), a[1], a[2] + distance * math.sin(direction), *b[3:])
    for dtype in DTYPES:
        assert iou_bev(boxes(a, dtype), boxes(b, dtype)).item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_boxes_without_extent_have_zero_with_everything(dtype: torch.dtype) -> None:
    flat: list[Row] = [
        (0, 0, 0, 0, 0, 0, 0.3), (0, 0, 0, 4, 1.5, 0, 0.3), (0, 0, 0, 0, 1.5, 2, 0.3), (0, 0, 0, -4, 1.5, 2, 0.3),
        (0, 0, 0, 1e-13, 1.0, 1e-13, 0.3),
    ]  # fmt: skip
    a = boxes(flat, dtype)
    solid = boxes((0, 0, 0, 4, 1.5, 2, 0.3), dtype)
    assert (iou_bev(a, a) == 0).all()
    assert (iou_3d(a, a) == 0).all()
    assert (iou_3d(boxes((0, 0, 0, 4, 0, 2, 0.3), dtype), solid) == 0).all()
    assert (iou_bev(a[:4], solid) == 0).all()
    assert iou_bev(a, solid).max() < 1e-20


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_boxes_keep_their_iou(dtype: torch.dtype) -> None:
    a, b = random_boxes(500, dtype), random_boxes(500, dtype)
    expected = iou_3d_paired(a, b)
    for scale in (1e-3, 1e-6, 1e4):
        small = [Boxes3D(r.center * scale, r.size * scale, r.yaw) for r in (a, b)]
        assert torch.allclose(iou_3d_paired(*small), expected, atol=500 * torch.finfo(dtype).eps)


# -- invariances ------------------------------------------------------------------------------------------------------


def test_far_from_the_origin_nothing_is_lost() -> None:
    """Boxes 10 km away in float32 (where numbers are 1 mm apart), against float64 of the very same numbers."""
    a, b = random_boxes(1000, torch.float32, 1.0), random_boxes(1000, torch.float32, 1.0)
    a, b = (Boxes3D(r.center + torch.tensor([1e4, 0, -1e4]), r.size, r.yaw) for r in (a, b))
    exact = iou_3d_paired(a.to(torch.float64), b.to(torch.float64))
    assert torch.allclose(iou_3d_paired(a, b).double(), exact, atol=2e-6)


def test_rigid_motion_and_exchange_change_nothing() -> None:
    a, b = random_boxes(1000), random_boxes(1000)
    expected = iou_3d_paired(a, b)
    assert torch.allclose(iou_3d_paired(b, a), expected, atol=1e-13)
    assert torch.allclose(iou_3d_paired(a.mirrored(), b.mirrored()), expected, atol=1e-13)
    turn = torch.tensor(0.7, dtype=torch.float64)
    c, s = torch.cos(turn), torch.sin(turn)
    rotation = torch.stack([c, c * 0, s, c * 0, c * 0 + 1, c * 0, -s, c * 0, c]).view(3, 3)
    moved = [
        Boxes3D(r.center @ rotation.T + torch.tensor([5.0, -2.0, 30.0]), r.size, r.yaw + turn) for r in (a, b)
    ]
    assert torch.allclose(iou_3d_paired(*moved), expected, atol=1e-12)


def test_pairwise_is_paired_for_every_pair() -> None:
    a, b = random_boxes(7), random_boxes(4)
    for pairwise, paired in ((iou_bev, iou_bev_paired), (iou_3d, iou_3d_paired)):
        table = pairwise(a, b)
        assert table.shape == (7, 4)
        for j in range(4):
            assert torch.equal(table[:, j], paired(a, b[[j] * 7]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_boxes(dtype: torch.dtype) -> None:
    none, some = Boxes3D.empty(dtype), random_boxes(3, dtype)
    for f in (iou_bev, iou_3d):
        assert f(none, some).shape == (0, 3)
        assert f(some, none).shape == (3, 0)
        assert f(none, none).shape == (0, 0)
        assert f(none, some).dtype == dtype
    for g in (iou_bev_paired, iou_3d_paired, bev_intersection):
        assert g(none, none).shape == (0,)
    rectangles = torch.zeros(0, 4, dtype=dtype)
    assert iou_2d(rectangles, torch.rand(2, 4, dtype=dtype)).shape == (0, 2)
    assert iou_2d_paired(rectangles, rectangles).shape == (0,)


# -- gradients --------------------------------------------------------------------------------------------------------


def gradcheck(function, a: Boxes3D, b: Boxes3D) -> bool:  # type: ignore[no-untyped-def]
    inputs = tuple(t.clone().requires_grad_() for r in (a, b) for t in (r.center, r.size, r.yaw))
    return torch.autograd.gradcheck(
        lambda *t: function(Boxes3D(*t[:3]), Boxes3D(*t[3:])), inputs, eps=1e-7, atol=1e-5
    )


def test_gradients_of_boxes_in_general_position() -> None:
    a, b = random_boxes(10, spread=0.6), random_boxes(10, spread=0.6)
    assert (iou_3d_paired(a, b) > 0).sum() >= 6
    for f in (bev_intersection, iou_bev_paired, iou_3d_paired):
        assert gradcheck(f, a, b)


def test_gradients_of_parallel_boxes() -> None:
    """Exactly parallel, no side coincident: smooth there, in yaw too; the rounding guard must not hide it."""
    a = boxes([(0, 0, 0, 4, 1.5, 2, 0.3), (0, 0, 0, 4, 1.5, 2, 0.3), (0, 0, 0, 4, 1.5, 2, 0.0)])
    b = boxes(
        [
            (1, 0.2, 0.4, 4, 1.6, 2.1, 0.3),
            (1, 0.2, 0.4, 4.2, 1.6, 2, 0.3 + math.pi),
            (1.3, 0.3, 0.6, 4, 1.4, 2, math.pi / 2),
        ]
    )
    assert gradcheck(iou_3d_paired, a, b)
    yaw = b.yaw.clone().requires_grad_()
    bev_intersection(a, Boxes3D(b.center, b.size, yaw)).sum().backward()
    assert (yaw.grad.abs() > 0.1).all()


def test_descending_one_minus_iou_brings_a_box_home() -> None:
    truth = boxes((2, 1, 15, 4, 1.5, 1.7, 0.4))
    start = boxes((2.4, 1.2, 15.6, 3.5, 1.3, 1.9, 0.7))
    parameters = [t.clone().requires_grad_() for t in (start.center, start.size, start.yaw)]
    optimizer = torch.optim.Adam(parameters, 0.05)
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 150)
        optimizer.zero_grad()
        loss = 1 - iou_3d_paired(Boxes3D(*parameters), truth).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("yaw", [0.0, 1e-30, 3e-7, math.pi / 4, math.pi / 2, math.pi / 2 + 1e-6, math.pi])
def test_no_nan_in_any_result_or_gradient(dtype: torch.dtype, yaw: float) -> None:
    """Sizes from nothing to a thousand kilometres in every combination, at offsets that coincide, touch and miss."""
    table = list(
        product(
            (0.0, 1e-45, 1e-30, 1e-12, 1e-7, 1.0, 4.0, 1e6, -1.0), (0.0, 1e-30, 1.0, 4.0), (0.0, 1e-20, 1.0)
        )
    )
    size = torch.tensor(table, dtype=dtype)
    zeros = torch.zeros(len(table), dtype=dtype)
    for offset in (
        (0, 0, 0),
        (1e-7, 0, 0),
        (1, 0, 1),
        (2, 0, 2),
        (0, 1, 0),
        (1e-40, 0, 1e-40),
        (4, 0, 0),
        (100, 1.5, -3),
    ):
        leaves = [
            t.clone().requires_grad_()
            for t in (zeros[:, None].expand(-1, 3), size, zeros,
                      torch.tensor(offset, dtype=dtype).expand(len(table), 3), size.flip(0), zeros + yaw)
        ]  # fmt: skip
        a, b = Boxes3D(*leaves[:3]), Boxes3D(*leaves[3:])
        for f in (iou_bev, iou_3d):
            found = f(a, b)
            assert ((found >= 0) & (found <= 1)).all()  # NaN would fail
            for gradient in torch.autograd.grad(found.sum(), leaves, allow_unused=True):
                assert gradient is None or not gradient.isnan().any()


# -- rectangles in the image ----------------------------------------------------------------------------------------

coordinate = st.one_of(st.floats(-100, 1300, width=32), st.integers(0, 4).map(lambda k: 100.0 * k))


@given(st.lists(coordinate, min_size=8, max_size=8))
def test_rectangles_against_exact_arithmetic(numbers: list[float]) -> None:
    def ordered(v: list[float]) -> list[float]:
        return [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])]

    a, b = ordered(numbers[:4]), ordered(numbers[4:])
    w = max(Fraction(0), min(Fraction(a[2]), Fraction(b[2])) - max(Fraction(a[0]), Fraction(b[0])))
    h = max(Fraction(0), min(Fraction(a[3]), Fraction(b[3])) - max(Fraction(a[1]), Fraction(b[1])))
    areas = [(Fraction(r[2]) - Fraction(r[0])) * (Fraction(r[3]) - Fraction(r[1])) for r in (a, b)]
    union = sum(areas) - w * h
    expected = float(w * h / union) if union > Fraction(1, 10**24) else 0.0
    found = iou_2d_paired(
        torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    ).item()
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rectangles_identical_touching_empty_and_inverted(dtype: torch.dtype) -> None:
    corner = torch.rand(500, 2, dtype=dtype) * 1000
    a = torch.cat([corner, corner + torch.rand(500, 2, dtype=dtype) * 200 + 0.01], 1)
    assert (iou_2d_paired(a, a) == 1).all()
    wide = torch.cat([a[:, 2:3], a[:, 1:2], a[:, 2:3] + 50, a[:, 3:]], 1)  # begins where a ends
    assert (iou_2d_paired(a, wide) == 0).all()
    odd = torch.tensor([[5, 5, 5, 9], [5, 5, 5, 5], [9, 9, 5, 5]], dtype=dtype)  # a line, a point, inside out
    assert (iou_2d(odd, odd) == 0).all()
    assert (iou_2d(odd, torch.tensor([[0, 0, 20, 20]], dtype=dtype)) == 0).all()


def test_rectangles_have_gradients() -> None:
    a = torch.tensor([[0, 0, 4, 4], [1, 1, 2, 3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor(
        [[1.5, 1.2, 5, 6], [-1, -1, 9, 9], [7, 7, 8, 8]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(iou_2d, (a, b))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu() -> None:
    a, b = random_boxes(300), random_boxes(200)
    found = iou_3d(a.to("cuda"), b.to("cuda"))
    assert found.is_cuda
    assert torch.allclose(found.cpu(), iou_3d(a, b), atol=1e-12)
    assert (iou_3d_paired(a.to("cuda", torch.float32), a.to("cuda", torch.float32)) == 1).all()
