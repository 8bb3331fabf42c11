"""Bootstrap over images, several runs side by side, seeds of one recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluate_corpora import label, write
from monolift.cli import main
from monolift.errors import InputError
from monolift.evaluation.bootstrap import draw_images, interval, resample
from monolift.evaluation.comparison import CELL, Comparison, _cell, compare, parse_name
from monolift.evaluation.load import Truth
from monolift.evaluation.table import evaluate_against

IMAGES = 40


def detections(rng: np.random.Generator, noise: float, share: float = 0.9) -> list[list[str]]:
    """Three cars an image, displaced in depth, some of them missed, with a false positive here and there."""
    images = []
    for _ in range(IMAGES):
        rows = []
        for x in (-12.0, 0.0, 12.0):
            if rng.random() < share:
                rows.append(label(x=x, z=20 + noise * rng.normal()) + f" {rng.random():.4f}")
        if rng.random() < 0.3:
            rows.append(label(x=24.0, z=50) + f" {rng.random() / 2:.4f}")
        images.append(rows)
    return images


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    write(root / "label_2", [[label(x=x) for x in (-12.0, 0.0, 12.0)] for _ in range(IMAGES)])
    for name, noise in (("bad", 1.0), ("good-seed0", 0.2), ("good-seed1", 0.25)):
        write(root / name, detections(rng, noise))
    return root


@pytest.fixture(scope="module")
def comparison(folders: Path) -> Comparison:
    runs = [folders / "bad", folders / "good-seed0", folders / "good-seed1"]
    return compare(folders / "label_2", runs, draws=60)


def test_a_sample_of_each_image_once_is_the_ap_itself(folders: Path) -> None:
    table = evaluate_against(Truth(folders / "label_2"), folders / "bad")
    samples = resample(table.matched, np.ones((IMAGES, 3)))
    assert len(samples) == 3 * 6  # levels; 2D, AOS, bird's eye and 3D with two overlaps each
    for row in table.rows:
        sample = samples[row.metric, row.class_name, row.difficulty, row.min_overlap]
        np.testing.assert_allclose(sample, row.ap_r40, rtol=1e-12)


def test_runs_that_find_nothing_are_compared(tmp_path: Path) -> None:
    """Every detection is too small to count: AP 0 in every sample, and no interval where nothing is labelled."""
    labels = write(tmp_path / "label_2", [[label()], [label("Pedestrian", height=30)]])
    small = [[label(height=20) + " 0.5"], [label("Pedestrian", height=20) + " 0.5"]]
    write(tmp_path / "a", small)
    found = compare(labels, [tmp_path / "a", f"again={tmp_path / 'a'}"], draws=10)
    car, pedestrian = (found.runs[0].row("3d", name, "easy") for name in ("Car", "Pedestrian"))
    assert car is not None and pedestrian is not None
    assert found.interval(0, car) == (0, 0)
    assert all(np.isnan(found.interval(0, pedestrian)))
    assert json.loads(found.to_json())["runs"][0]["rows"]
    assert "nan" in str(found)


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_sample_is_the_ap_of_copied_images(folders: Path, tmp_path: Path, seed: int) -> None:
    """Evaluate a data set in which image i really occurs weights[i] times."""
    weights = draw_images(IMAGES, 1, seed)
    copies = [i for i in range(IMAGES) for _ in range(int(weights[i, 0]))]
    for name in ("label_2", "bad"):
        texts = [(folders / name / f"{i:06d}.txt").read_text().splitlines() for i in copies]
        write(tmp_path / name, texts)
    expected = evaluate_against(Truth(tmp_path / "label_2"), tmp_path / "bad")
    samples = resample(evaluate_against(Truth(folders / "label_2"), folders / "bad").matched, weights)
    for row in expected.rows:
        sample = samples[row.metric, row.class_name, row.difficulty, row.min_overlap]
        np.testing.assert_allclose(sample, row.ap_r40, rtol=1e-12, err_msg=str(row.key))


def test_images_are_drawn_with_replacement_and_repeatably() -> None:
    weights = draw_images(500, 20, seed=3)
    assert weights.shape == (500, 20) and (weights.sum(axis=0) == 500).all()
    assert 0.6 < (weights > 0).mean() < 0.67  # 1 - 1/e
    np.testing.assert_array_equal(weights, draw_images(500, 20, seed=3))
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert all(np.isnan(interval(np.full(5, np.nan))))


def test_a_real_difference_is_sure_and_none_is_not(comparison: Comparison, folders: Path) -> None:
    row = comparison.runs[1].row("3d", "Car", "moderate")
    assert row is not None
    change = comparison.difference(1, row)
    assert change is not None
    value, low, high = change
    base = comparison.runs[0].row("3d", "Car", "moderate")
    assert base is not None and value == pytest.approx(row.ap_r40 - base.ap_r40)
    assert 0 < low < value < high
    own_low, own_high = comparison.interval(1, row)
    assert own_low < row.ap_r40 < own_high
    twice = compare(folders / "label_2", [f"a={folders / 'bad'}", f"b={folders / 'bad'}"], draws=20)
    same = twice.difference(1, base)
    assert same == (0, 0, 0)


def test_seeds_are_summarised(comparison: Comparison) -> None:
    (recipe, members), *others = comparison.seeds().items()
    assert recipe.endswith("good") and members == [1, 2] and not others
    values = [comparison.runs[i].row("3d", "Car", "easy").ap_r40 for i in members]  # type: ignore[union-attr]
    spread = comparison.spread(members, ("3d", "Car", "easy", "strict"))
    assert spread == {
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
        "min": min(values),
        "max": max(values),
    }
    assert comparison.spread(members, ("3d", "Cyclist", "easy", "strict")) is None


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ((2.34, -0.12, 4.34), "+2.34 [-0.12, +4.34]"),
        ((12.34, 10.12, 14.34), "+12.34 [+10, +14]*"),
        ((-100.0, -100.0, -100.0), "-100.00 [-100, -100]*"),
    ],
)
def test_an_interval_fits_its_column(value: tuple[float, float, float], cell: str) -> None:
    assert _cell(value, sign=True) == cell
    assert len(cell) <= CELL


def test_text_and_json_hold_all_of_it(comparison: Comparison) -> None:
    text, content = str(comparison), json.loads(comparison.to_json())
    row = comparison.runs[1].row("3d", "Car", "hard")
    assert row is not None
    assert f"{row.ap_r40:.2f} [{comparison.interval(1, row)[0]:.2f}" in text
    assert "2 seeds" in text and "+-" in text and "R40" in text and "R11" in text
    paths = {run.name for run in comparison.runs} | set(comparison.seeds())
    lines = [line for line in text.splitlines() if not any(path in line for path in paths)]
    assert max(map(len, lines)) <= 80
    assert [run["images"] for run in content["runs"]] == [IMAGES] * 3
    assert content["draws"] == 60
    listed = next(r for r in content["runs"][1]["rows"] if (r["metric"], r["difficulty"]) == ("3d", "hard"))
    assert listed["ap_r40"] == row.ap_r40
    assert listed["ap_r40_interval"] == list(comparison.interval(1, row))
    assert {d["run"] for d in content["differences"]} == {run.name for run in comparison.runs[1:]}
    assert content["seeds"][0]["runs"] == 2


def test_names_may_be_given(tmp_path: Path) -> None:
    assert parse_name("smoke=runs/3/results") == ("smoke", "runs/3/results")
    assert parse_name("runs/a=b/results") == (None, "runs/a=b/results")
    assert parse_name(tmp_path) == (None, str(tmp_path))
    with pytest.raises(InputError, match="at least two prediction folders"):
        compare(tmp_path, [tmp_path])


def test_the_command_compares_folders_given_once_or_repeatedly(folders: Path, tmp_path: Path) -> None:
    bad, good = f"bad={folders / 'bad'}", f"good={folders / 'good-seed0'}"
    base = ["evaluate", "--labels", str(folders / "label_2"), "--quiet", "--bootstrap", "20"]
    outputs = []
    for given in (["--predictions", bad, good], ["--predictions", bad, "--predictions", good]):
        assert main([*base, *given, "--json", str(tmp_path / "out.json"), "--plots", str(tmp_path)]) == 0
        outputs.append(json.loads((tmp_path / "out.json").read_text()))
    assert outputs[0] == outputs[1]
    assert [run["name"] for run in outputs[0]["runs"]] == ["bad", "good"]
    page = (tmp_path / "report.html").read_text()
    assert "Differences, moderate" in page and 'id="run1"' in page
    assert set(json.loads((tmp_path / "diagnostics.json").read_text())) == {"bad", "good"}
