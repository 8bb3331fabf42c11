"""Any finite numbers in the files: a table or an InputError, never another exception, a warning or a false NaN."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monolift.data.formats.kitti_format import from_numbers
from monolift.data.formats.kitti_table import KittiTable
from monolift.errors import InputError
from monolift.evaluation import diagnostics as diag
from monolift.evaluation.ap import average_precision
from monolift.evaluation.corpus import Corpus
from monolift.evaluation.notes import remarks

NAMES = st.sampled_from(["Car", "car", "Van", "Pedestrian", "DontCare", "Bicycle", "Cyclist"])
SPECIAL = [0.0, -0.0, 1.0, -1.0, 5e-324, -1000.0, -10.0, -1e7, 40.0, 25.0, 1e9, -1e9, 1e-200, 1e-160]
NUMBER = st.one_of(st.sampled_from(SPECIAL), st.floats(-100, 100), st.floats(-1e9, 1e9))
ANY = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def row(draw: st.DrawFn) -> tuple[str, list[float], int]:
    """A row with anything in it; sizes are mostly positive, because negative ones are refused at once."""
    numbers = draw(st.lists(NUMBER, min_size=15, max_size=15))
    if draw(st.integers(0, 9)):
        numbers[7:10] = [abs(v) for v in numbers[7:10]]
    if not draw(st.integers(0, 19)):
        numbers[draw(st.integers(0, 14))] = draw(ANY)
    return draw(NAMES), numbers, draw(st.integers(-1, 3))


ROWS = st.lists(row(), max_size=5)


def table(rows: list[tuple[str, list[float], int]], folder: str, scored: bool) -> KittiTable:
    numbers = np.array([values for _, values, _ in rows]).reshape(len(rows), 15)[:, : 15 if scored else 14]
    if len(rows):
        numbers[:, 1] = [occlusion for *_, occlusion in rows]
    image = np.zeros(len(rows), dtype=np.int64)
    return KittiTable(
        (f"{folder}/000000.txt",),
        from_numbers([n for n, _, _ in rows], numbers),
        image,
        np.arange(len(rows)) + 1,
    )


@given(ROWS, ROWS, st.booleans())
def test_any_finite_numbers_are_evaluated_or_refused(labels: list, predictions: list, same: bool) -> None:
    if same:  # give the boxes a chance to overlap
        predictions = [*predictions, *labels]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            corpus = Corpus(("000000",), table(labels, "label_2", False), table(predictions, "pred", True))
            rows, matched = average_precision(corpus)
        except InputError as error:
            assert str(error).startswith(("label_2/000000.txt:", "pred/000000.txt:"))
            return
        assert all(np.isfinite(v).all() and (v >= 0).all() for v in corpus.pairs.overlap.values())
        for row in rows:
            assert row.n_gt >= 0 and (row.tp >= 0).all() and (row.fp >= 0).all() and (row.fn >= 0).all()
            assert (row.tp + row.fn <= row.n_gt).all()
        remarks(corpus, rows)
        diag.to_json(diag.diagnose(corpus, list(matched.values())))
