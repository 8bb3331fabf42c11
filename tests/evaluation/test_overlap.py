"""Overlaps against exact rational arithmetic, and the cases in which rounding used to decide."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exact_overlap import Rectangle, area, common_area
from monolift.evaluation import overlap

SQUARE = Rectangle(Fraction(0), Fraction(0), Fraction(2), Fraction(2), Fraction(0))

coordinate = st.fractions(-6, 6, max_denominator=40)
size = st.fractions(Fraction(1, 50), 6, max_denominator=50)
rectangles = st.builds(Rectangle, coordinate, coordinate, size, size, st.fractions(-8, 8, max_denominator=12))


@given(rectangles, rectangles)
@example(SQUARE, SQUARE)
@example(SQUARE, Rectangle(Fraction(0), Fraction(0), Fraction(2), Fraction(2), Fraction(1)))  # a quarter turn
@example(SQUARE, Rectangle(Fraction(2), Fraction(0), Fraction(2), Fraction(2), Fraction(0)))  # a side touches
@example(
    SQUARE, Rectangle(Fraction(2), Fraction(2), Fraction(2), Fraction(2), Fraction(0))
)  # a corner touches
@example(
    SQUARE, Rectangle(Fraction(1, 2), Fraction(0), Fraction(1), Fraction(2), Fraction(0))
)  # sides coincide
@example(
    SQUARE, Rectangle(Fraction(0), Fraction(0), Fraction(1), Fraction(1), Fraction(1, 3))
)  # one inside the other
def test_common_area_is_the_exact_one(a: Rectangle, b: Rectangle) -> None:
    exact = float(common_area(a, b))
    pair = np.array([a.numbers()]), np.array([b.numbers()])
    assert overlap.intersection_bev(*pair)[0] == pytest.approx(exact, abs=2e-14, rel=1e-12)
    assert overlap.intersection_bev(*reversed(pair))[0] == pytest.approx(exact, abs=2e-14, rel=1e-12)


@given(rectangles, st.floats(-100, 100), st.floats(-100, 100))
def test_identical_boxes_overlap_wholly_wherever_they_are(a: Rectangle, x: float, z: float) -> None:
    box = np.array([a.numbers()])
    box[:, :2] = x, z
    assert overlap.intersection_bev(box, box)[0] == pytest.approx(float(area(a.corners())), rel=1e-14)


def test_the_oracle_knows_two_squares() -> None:
    """A square and its quarter-turned twin of the same size share a regular octagon."""
    turned = Rectangle(
        Fraction(0), Fraction(0), Fraction(2), Fraction(2), Fraction(408, 985)
    )  # tan(pi / 8), nearly
    assert float(common_area(SQUARE, turned)) == pytest.approx(8 * (2**0.5 - 1), rel=1e-6)
    assert common_area(SQUARE, SQUARE) == 4


def test_boxes_without_area_overlap_nothing() -> None:
    line = np.array([[0.0, 0, 2, 0, 0.3]])
    square = np.array([SQUARE.numbers()])
    assert overlap.intersection_bev(line, square)[0] == 0
    assert overlap.intersection_bev(square, line)[0] == 0
    assert len(overlap.intersection_bev(np.zeros((0, 5)), np.zeros((0, 5)))) == 0


def test_3d_overlap_by_hand() -> None:
    # 4 m long, 2 wide, 1.5 high; the second shifted by 1 along x, 0.5 up: 3 * 2 * 1 common of 12 each
    a = np.array([[0.0, 1.5, 20, 1.5, 2, 4, 0]])
    b = np.array([[1.0, 1.0, 20, 1.5, 2, 4, 0]])
    assert overlap.iou_3d(a, b)[0] == pytest.approx(6 / 18, rel=1e-14)
    assert overlap.iou_3d(a, a)[0] == pytest.approx(1, rel=1e-14)
    above = np.array([[0.0, 0.0, 20, 1.5, 2, 4, 0]])  # stands on top of a
    assert overlap.iou_3d(a, above)[0] == 0


def test_2d_overlap_has_no_extra_pixel_and_no_inverted_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    assert overlap.intersection_2d(a, np.array([[5.0, 5, 15, 15]]))[0] == 25
    assert overlap.intersection_2d(a, np.array([[10.0, 0, 20, 10]]))[0] == 0
    assert overlap.intersection_2d(a, np.array([[10.0, 10, 0, 0]]))[0] == 0
