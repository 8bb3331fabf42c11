"""The fast matching against plain loops, on crowded random scenes where everything competes with everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_protocol as slow
from monolift.data.formats.kitti_format import from_numbers
from monolift.data.formats.kitti_table import KittiTable
from monolift.evaluation import matching
from monolift.evaluation.ap import match, rows_of, threshold_ranks
from monolift.evaluation.corpus import Corpus

LEAST = 0.25
NAMES = ("Car", "Car", "Car", "Van", "Pedestrian", "DontCare")


def crowd(rng: np.random.Generator, images: int) -> Corpus:
    """Boxes of a few sizes on a coarse grid: overlaps, scores and heights tie all the time."""

    def table(scored: bool) -> KittiTable:
        names, numbers, image = [], [], []
        for i in range(images):
            for _ in range(rng.integers(0, 9)):
                names.append(str(rng.choice(NAMES[:5] if scored else NAMES)))
                x, y = rng.integers(0, 4, 2) * 8.0
                height = float(rng.choice([24, 25, 26, 39.9, 40, 41]))
                alpha = float(rng.integers(-3, 4))
                row = [
                    float(rng.choice([0, 0.15, 0.2, 0.6])),
                    int(rng.integers(0, 4)),
                    alpha,
                    x,
                    y,
                    x + 40,
                    y + height,
                ]
                place = [x / 10, 1.5, 20 + y / 10]
                numbers.append(
                    [*row, 1.5, 1.6, 4.0, *place, alpha, float(rng.integers(0, 5)) / 4][
                        : 15 if scored else 14
                    ]
                )
                image.append(i)
        width = 15 if scored else 14
        labels = from_numbers(names, np.array(numbers).reshape(len(names), width))
        index = np.array(image, dtype=np.int64)
        return KittiTable(tuple(f"{i}.txt" for i in range(images)), labels, index, np.arange(len(names)))

    return Corpus(tuple(map(str, range(images))), table(False), table(True))


def scenes_of(corpus: Corpus, metric: str) -> list[slow.Scene]:
    """The same corpus for the slow oracle, with the overlaps that the package computed."""
    overlaps = {(g, d): v for g, d, v in zip(corpus.pairs.gt.tolist(), corpus.pairs.det.tolist(),
                                            corpus.pairs.overlap[metric].tolist(), strict=True)}  # fmt: skip
    g, d = corpus.gt.labels, corpus.det.labels
    assert d.score is not None
    scenes = []
    for i in range(len(corpus.ids)):
        rows, found = np.flatnonzero(corpus.gt.image == i), np.flatnonzero(corpus.det.image == i)
        scenes.append(
            slow.Scene(
                [slow.Box(g.names[r], g.boxes2d[r, 3] - g.boxes2d[r, 1], 0.0, int(g.occlusion[r]), g.truncation[r], g.alpha[r])
                 for r in rows],
                [slow.Box(d.names[r], abs(d.boxes2d[r, 3] - d.boxes2d[r, 1]), d.score[r], alpha=d.alpha[r]) for r in found],
                [[overlaps.get((r, c), 0.0) for c in found] for r in rows],
            )
        )  # fmt: skip
    return scenes


@pytest.mark.parametrize("metric", ["bbox", "bev", "3d"])
@pytest.mark.parametrize("seed", range(8))
def test_counts_and_curves_equal_plain_loops(metric: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr(matching, "_CELLS", 20)  # many small groups instead of one
    corpus = crowd(np.random.default_rng(seed), images=45)
    scenes = scenes_of(corpus, metric)
    compared = 0
    for index, name in enumerate(("Car", "Pedestrian")):
        rows = rows_of(match(corpus, metric, index, LEAST), "strict")
        curves = {(row.metric, row.difficulty): row for row in rows}
        for level in slow.LIMITS:
            want, row = slow.evaluate(scenes, name, level, LEAST), curves[metric, level]
            assert row.n_gt == want["n_gt"]
            assert row.thresholds.tolist() == want["thresholds"]
            assert (row.tp.tolist(), row.fp.tolist(), row.fn.tolist()) == (want["tp"], want["fp"], want["fn"])
            np.testing.assert_allclose(row.precision, want["precision"], rtol=1e-13)
            if metric == "bbox":
                np.testing.assert_allclose(
                    curves["aos", level].precision, want["similarity"], rtol=1e-12, atol=1e-15
                )
            compared += len(row.tp)
    assert compared > 8


@given(st.integers(0, 300), st.integers(1, 300))
def test_thresholds_are_those_of_the_walk(n: int, n_gt: int) -> None:
    n = min(n, n_gt)
    scores = [float(-i) for i in range(n)]
    ranks = threshold_ranks(np.array([n]), np.array([n_gt]))[0]
    assert [scores[r] for r in ranks[ranks >= 0]] == slow.thresholds(scores, n_gt)


def test_thresholds_of_large_sets_are_those_of_the_walk() -> None:
    for n, n_gt in [(14385, 14385), (9000, 14357), (1, 20000), (40, 41), (41, 41), (3999, 4001)]:
        scores = [float(-i) for i in range(n)]
        ranks = threshold_ranks(np.array([n]), np.array([n_gt]))[0]
        assert [scores[r] for r in ranks[ranks >= 0]] == slow.thresholds(scores, n_gt)
