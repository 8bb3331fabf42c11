"""Run-length masks: strings made by hand, pycocotools where it is installed, round trips, and every way to be none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolift.data.formats.rle import counts_to_text, decode_rle, encode_rle, text_to_counts
from monolift.errors import InputError

# Runs and their text, worked out by hand from the format's description: 6 = 00110 -> chr(48 + 6); 40 = 00001 01000, low group
# first with the "more" bit: chr(48 + 32 + 8), chr(48 + 1); from the fourth on differences to two before: 5 - 6 = -1 =
# 11111 -> chr(48 + 31); 16 needs a second group, or its highest bit would be the sign: chr(48 + 32 + 16), chr(48).
BY_HAND = [
    ([6], "6"),
    ([40], "X1"),
    ([0, 6, 2, 5], "062O"),
    ([16], "`0"),
    ([0, 12], "0<"),
]
IMAGE = np.array(
    [
        [0, 0, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 0, 1],
    ],
    bool,
)


@pytest.mark.parametrize(("counts", "text"), BY_HAND)
def test_text_by_hand(counts: list[int], text: str) -> None:
    assert text_to_counts(text) == counts
    assert counts_to_text(counts) == text


def test_columns_come_one_after_the_other() -> None:
    # column 0: 4 zeros; column 1: 0 1 1 0; column 2: all ones; column 3: 1 1 0 0; column 4: 0 0 0 1
    expected = [5, 2, 1, 6, 5, 1]
    assert encode_rle(IMAGE, compressed=False) == {"size": [4, 5], "counts": expected}
    np.testing.assert_array_equal(decode_rle({"size": [4, 5], "counts": expected}), IMAGE)


def test_a_mask_that_begins_with_ones_begins_with_a_run_of_no_zeros() -> None:
    assert encode_rle(np.ones((2, 3), bool), compressed=False)["counts"] == [0, 6]
    assert encode_rle(np.zeros((2, 3), bool), compressed=False)["counts"] == [6]


@given(
    st.integers(1, 40).flatmap(
        lambda h: st.integers(1, 40).flatmap(
            lambda w: st.tuples(st.just((h, w)), st.lists(st.integers(0, h * w), max_size=30))
        )
    ),
    st.booleans(),
)
def test_round_trip(shape_and_cuts: tuple[tuple[int, int], list[int]], compressed: bool) -> None:
    (height, width), cuts = shape_and_cuts
    flips = np.zeros(height * width + 1, int)
    np.add.at(flips, cuts, 1)
    mask = (np.cumsum(flips)[:-1] % 2 == 1).reshape(height, width)
    encoded = encode_rle(mask, compressed)
    assert isinstance(encoded["counts"], str) == compressed
    np.testing.assert_array_equal(decode_rle(encoded), mask)


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_agrees(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:375, :1242]
    mask = (np.hypot(y - 200, (x - 600) / 2) < 60 + 20 * np.sin(x / 15)) & (rng.random((375, 1242)) < 0.999)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask) == {"size": [375, 1242], "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(theirs), mask)


@pytest.mark.parametrize(
    ("rle", "said"),
    [
        ({"counts": [6]}, r"size: expected \[height, width\], got None"),
        ({"size": [2, 0], "counts": []}, "size"),
        ({"size": [2, 3]}, "counts: expected run lengths"),
        ({"size": [2, 3], "counts": [2, -1, 5]}, "counts: expected run lengths"),
        ({"size": [2, 3], "counts": [2, 3]}, "expected runs over 3 x 2 = 6 pixels, got 5"),
        ({"size": [2, 3], "counts": "6 "}, "' ' is no character"),
        ({"size": [2, 3], "counts": "X"}, "cut short"),
        ({"size": [2, 3], "counts": "O"}, "counts: expected run lengths"),  # a first run of -1
    ],
)
def test_refused(rle: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^car 3: .*{said}"):
        decode_rle(rle, "car 3")
