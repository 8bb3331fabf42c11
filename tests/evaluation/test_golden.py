"""Equal to the official program: corpora with its own counts and APs, edge cases, and a published real result set."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import InputError
from monolift.evaluation.load import Truth
from monolift.evaluation.protocol import LOOSE, MODES
from monolift.evaluation.table import Evaluation, evaluate, evaluate_against

ALL_MODES = {**MODES, "lowall": {**LOOSE, "bbox": LOOSE["3d"]}}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    folder = shared / "golden_ap"
    if not folder.is_dir():
        pytest.skip("no golden results of the official program in the folder of real data")
    return folder


@pytest.fixture(scope="module")
def edges(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(golden / "edges.zip", tmp_path_factory.mktemp("edges"))


def unpack(archive: Path, folder: Path, part: str = "") -> Path:
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder, [name for name in files.namelist() if part in name])
    return folder


def read(folder: Path) -> Evaluation:
    return evaluate_against(Truth(folder / "label_2", folder / "list.txt"), folder / "pred", modes=ALL_MODES)


def assert_equal(table: Evaluation, mode: str, golden_rows: list[dict[str, Any]]) -> None:
    """Each count exactly, each AP within 1e-9; no row that the official program does not have."""
    rows = {row.key: row for row in table.rows if row.mode == mode}
    assert {key for key in rows if key[0] != "aos"} == {
        (g["metric"], g["class"], g["difficulty"], mode) for g in golden_rows
    }
    for g in golden_rows:
        row = rows[g["metric"], g["class"], g["difficulty"], mode]
        where = f"{mode} {row.key}"
        assert (row.n_gt, row.min_overlap) == (g["n_gt"], g["min_overlap"]), where
        for name in ("thresholds", "tp", "fp", "fn"):
            assert getattr(row, name).tolist() == g[name], f"{where} {name}"
        pairs = [
            (row.ap_r11, g["ap_r11"]),
            (row.ap_r40, g["ap_r40"]),
            *zip(row.precision, g["precision"], strict=True),
        ]
        aos = rows.get(("aos", *row.key[1:])) if g["metric"] == "bbox" else None
        assert (aos is not None) == ("aos_r40" in g), f"{where} AOS"
        if aos is not None:
            pairs += [(aos.ap_r11, g["aos_r11"]), (aos.ap_r40, g["aos_r40"])]
        for ours, theirs in pairs:
            assert ours != ours if theirs is None else abs(ours - theirs) < 1e-9, where


@pytest.mark.parametrize("corpus", ["n200_s0", "n200_s3_ties", "n3769_s7"])
def test_every_count_and_ap_of_the_corpora(golden: Path, tmp_path: Path, corpus: str) -> None:
    expected = json.loads((golden / f"{corpus}.json").read_text())
    table = read(unpack(golden / f"{corpus}.zip", tmp_path))
    assert table.images == expected["n_images"]
    assert expected["modes"]
    for mode, rows in expected["modes"].items():
        assert_equal(table, mode, rows)


def test_every_edge_case(golden: Path, edges: Path) -> None:
    cases = json.loads((golden / "edges.json").read_text())
    assert len(cases) >= 60
    for name, case in cases.items():
        if "error" in case["strict"]:
            with pytest.raises(
                InputError, match=r"pred/000000.txt:1: (width|height|length): expected a size"
            ):
                read(edges / name)
            continue
        table = read(edges / name)
        for mode in ("strict", "loose"):
            assert_equal(table, mode, case[mode])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("all_pred_empty", ["Car: not evaluated in 2D, bird's eye, 3D: no prediction of this class in any file"]),
        ("gt_class_without_pred", ["Pedestrian: not evaluated in 2D, bird's eye, 3D: no prediction"]),
        ("bbox_x1_negative", ["Car: not evaluated in 2D: all", "left edge below 0"]),
        ("only_2d", ["not evaluated in bird's eye, 3D", "are 2D only", "cannot exceed 7.50 (R40) and 9.09 (R11)"]),
        ("only_bev", ["not evaluated in 3D", "lack a height or y"]),
        ("alpha_minus10", ["AOS is switched off for all classes: 1 of 4 predictions have alpha = -10", "000000.txt:4"]),
        ("missing_score", ["1 prediction without a score left out", "pred/000000.txt:1"]),
        ("extra_columns_pred", ["surplus fields of 1 prediction row not read (first: pred/000000.txt:1)"]),
        ("nan_precision", ["AP is not a number"]),
        ("inverted_2d", ["1 prediction with right < left or bottom < top"]),
        ("zero_dims_det_and_more", ["1 prediction with a size of 0"]),
        ("score_below_minus1e7", ["score of -1e7 or less"]),
        ("identical_scores", ["all predictions have the same score"]),
        ("perfect_0001", ["Car easy, moderate, hard: only 1 ground truth, fewer than 41, so AP cannot exceed 0.00 (R40)"]),
        ("perfect_0040", ["cannot exceed 97.50 (R40) and 90.91 (R11)"]),
    ],
)  # fmt: skip
def test_what_is_silent_officially_is_said(edges: Path, case: str, words: list[str]) -> None:
    notes = "\n".join(read(edges / case).notes)
    for word in words:
        assert word in notes


def test_published_statistics_of_a_real_result_set(golden: Path, shared: Path, tmp_path: Path) -> None:
    """41 printed precisions of three metrics and levels, digit by digit."""
    real, labels = golden / "real_car_val", shared / "kitti" / "all_labels_calib.zip"
    if not (real.is_dir() and labels.is_file()):
        pytest.skip("no real result set in the folder of real data")
    unpack(labels, tmp_path, "label_2")
    predictions = unpack(real / "predictions.zip", tmp_path / "predictions")
    table = evaluate(tmp_path / "training" / "label_2", predictions, real / "val.txt")
    assert any("AOS is switched off" in note for note in table.notes)
    for metric, name in (("bbox", ""), ("bev", "_ground"), ("3d", "_3d")):
        lines = (real / f"stats_car_detection{name}.txt").read_text().split("\n")
        for difficulty, line in zip(("easy", "moderate", "hard"), lines, strict=False):
            row = table.row(metric, "Car", difficulty)
            assert row is not None
            assert [f"{value:f}" for value in row.precision] == line.split()
