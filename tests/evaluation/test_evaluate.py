"""`monolift.evaluate` and `monolift evaluate` on small corpora made here: protocol by hand, files, remarks, JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate_corpora import label, write
from monolift.cli import main
from monolift.errors import InputError
from monolift.evaluation import evaluate
from monolift.evaluation.ap import Row
from monolift.evaluation.protocol import ap_caps
from monolift.evaluation.table import Evaluation


def perfect(tmp_path: Path, n: int, per_image: int = 5) -> Evaluation:
    rows = [label(x=8.0 * (i % per_image) - 16, yaw=0.1 * i) for i in range(n)]
    images = [rows[i : i + per_image] for i in range(0, n, per_image)]
    labels = write(tmp_path / "label_2", images)
    scored = (
        [f"{row} {1 / (1 + 10 * k + i):.9f}" for i, row in enumerate(rows)] for k, rows in enumerate(images)
    )
    return evaluate(labels, write(tmp_path / "pred", scored))


def ap(
    table: Evaluation, metric: str, difficulty: str = "easy", mode: str = "strict", name: str = "Car"
) -> Row:
    row = table.row(metric, name, difficulty, mode)
    assert row is not None
    return row


@pytest.mark.parametrize("n", [1, 2, 10, 39, 40, 41, 42, 100])
def test_labels_given_back_score_100_from_41_objects_on(tmp_path: Path, n: int) -> None:
    table = perfect(tmp_path, n)
    r11, r40 = ap_caps(n)
    assert (r11, r40) == (100, 100) or n < 41
    for row in table.rows:
        assert row.ap_r40 == pytest.approx(r40, abs=1e-9), row.key
        assert row.ap_r11 == pytest.approx(r11, abs=1e-9), row.key
    assert any("fewer than 41" in note for note in table.notes) == (n < 41)


def test_caps_by_hand() -> None:
    assert ap_caps(1) == (pytest.approx(100 / 11), 0)
    assert ap_caps(10) == (pytest.approx(300 / 11), 22.5)
    assert ap_caps(40) == (pytest.approx(1000 / 11), 97.5)
    assert ap_caps(0) == (0, 0)


def test_one_false_positive_by_hand(tmp_path: Path) -> None:
    """41 objects found, one false positive between the 20th and the 21st by score: precision 1 until there, then k/(k+1)."""
    rows = [label(x=0.0, yaw=0.1 * i) for i in range(41)]
    labels = write(tmp_path / "label_2", ([row] for row in rows))
    predictions = [[f"{row} {1 - 0.01 * i:.3f}"] for i, row in enumerate(rows)]
    predictions[0].append(label(x=16.0, z=40) + " 0.805")
    table = evaluate(labels, write(tmp_path / "pred", predictions))
    curve = [1.0] * 20 + [41 / 42] * 21  # to the right k / (k + 1) grows: the largest is the last
    assert ap(table, "3d").precision == pytest.approx(curve)
    assert ap(table, "3d").ap_r40 == pytest.approx((19 + 21 * 41 / 42) / 40 * 100)
    assert ap(table, "3d").fp.tolist() == [0] * 20 + [1] * 21


def test_orientation_similarity_by_hand(tmp_path: Path) -> None:
    """All 50 boxes right, all angles off by 90 degrees: AOS is half of AP."""
    rows = [label(yaw=0.1 * i) for i in range(50)]
    turned = []
    for i, row in enumerate(rows):
        words = row.split()
        words[3] = f"{float(words[3]) + math.pi / 2:.12f}"
        turned.append([" ".join(words) + f" {1 - 0.01 * i:.2f}"])
    table = evaluate(write(tmp_path / "label_2", ([r] for r in rows)), write(tmp_path / "pred", turned))
    assert ap(table, "bbox").ap_r40 == pytest.approx(100)
    assert ap(table, "aos").ap_r40 == pytest.approx(50, abs=1e-9)


def test_ap_in_percent_of_the_2d_ap_that_bounds_it(tmp_path: Path) -> None:
    """Half of the cars are found, all of these in their places: a poor AP, but nothing is lost after 2D."""
    labels = write(tmp_path / "label_2", [[label()]] * 80)
    table = evaluate(labels, write(tmp_path / "pred", [[label() + " 0.9"]] * 40 + [[]] * 40))
    for metric in ("bev", "3d"):
        row = table.row(metric, "Car", "easy")
        assert row is not None and 0 < row.ap_r40 < 60
        assert table.share_of_2d(metric, "Car", "easy") == 100
    assert table.share_of_2d("3d", "Pedestrian", "easy") is None


def test_dontcare_forgives_in_2d_only(tmp_path: Path) -> None:
    region = "DontCare -1 -1 -10 700.00 100.00 900.00 200.00 -1 -1 -1 -1000 -1000 -1000 -10"
    rows = [[label(yaw=0.1 * i), region] for i in range(41)]
    predictions = [
        [f"{row[0]} 0.5", label(x=12.0) + " 0.9"] for row in rows
    ]  # the second lies inside the region
    table = evaluate(write(tmp_path / "label_2", rows), write(tmp_path / "pred", predictions))
    assert ap(table, "bbox").fp.tolist() == [0] * 41  # all of one score: 41 equal thresholds
    assert ap(table, "3d").fp.tolist() == [41] * 41


def test_a_small_detection_of_another_class_swallows_a_label(tmp_path: Path) -> None:
    labels = write(tmp_path / "label_2", [[label(height=41), label(x=10)]])
    small = label("Pedestrian", height=39, top=101).replace(" 1.60 4.00 ", " 1.60 3.80 ") + " 0.9"
    table = evaluate(labels, write(tmp_path / "pred", [[small, label(x=10) + " 0.8"]]))
    row = ap(table, "bbox", "easy")
    assert (row.n_gt, row.tp.tolist(), row.fn.tolist()) == (2, [1], [0])  # neither found nor missed
    assert ap(table, "bbox", "moderate").fn.tolist() == [1]  # 39 px are enough there: no longer ignored


def test_missing_files_are_an_error_or_empty(tmp_path: Path) -> None:
    rows = [[label()], [label()], [label()]]
    labels, predictions = write(tmp_path / "label_2", rows), write(tmp_path / "pred", [[label() + " 0.5"]])
    with pytest.raises(
        InputError, match=r"2 of 3 images have no prediction file \(first: 000001.txt\).*--missing empty"
    ):
        evaluate(labels, predictions)
    table = evaluate(labels, predictions, missing="empty")
    assert ap(table, "3d").n_gt == 3
    assert any("2 of 3 images have no prediction file" in note for note in table.notes)
    (tmp_path / "one.txt").write_text("000000\n")
    assert ap(evaluate(labels, predictions, tmp_path / "one.txt"), "3d").n_gt == 1
    with pytest.raises(InputError, match="expected 'error' or 'empty'"):
        evaluate(labels, predictions, missing="skip")


def test_stray_and_misnamed_files_are_said(tmp_path: Path) -> None:
    labels = write(tmp_path / "label_2", [[label()]])
    predictions = write(tmp_path / "pred", [[label() + " 0.5"], [label() + " 0.9"]])
    (predictions / "summary.json").write_text("{}")
    notes = "\n".join(evaluate(labels, predictions).notes)
    assert "1 file in pred ignored: not among the images evaluated (first: 000001.txt)" in notes
    assert "1 entry in pred ignored: no .txt file (first: summary.json)" in notes
    (predictions / "000000.txt").rename(predictions / "0.txt")
    with pytest.raises(
        InputError, match=r"none of its 2 files is named after an image.*000000.txt, got 0.txt"
    ):
        evaluate(labels, predictions)


@pytest.mark.parametrize(
    ("which", "row", "message"),
    [
        ("pred", label() + " nan", "pred/000000.txt:2: score: expected a finite number, got 'nan'"),
        ("pred", label().replace(" 4.00 ", " inf ") + " 0.5", "pred/000000.txt:2: length: expected a finite number"),
        ("pred", label().replace(" 4.00 ", " -4 ") + " 0.5", "pred/000000.txt:2: length: expected a size in metres"),
        ("pred", " ".join(label().split()[:14]), "pred/000000.txt:2: expected 15 fields (or 16 with a score), got 14"),
        ("pred", label() + " 0.5 Car 0", "pred/000000.txt:2: expected 16 fields, got 18, and 'Car' among the surplus"),
        ("label_2", label().replace(" 0 ", " 0.00 ", 1), "label_2/000000.txt:2: occluded: expected an integer"),
        ("label_2", label().replace(" 1.60 ", " -1.6 "), "label_2/000000.txt:2: width: expected a size in metres"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, which: str, row: str, message: str) -> None:
    write(tmp_path / "label_2", [[label()]])
    write(tmp_path / "pred", [[label() + " 0.5"]])
    with (tmp_path / which / "000000.txt").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError) as caught:
        evaluate(tmp_path / "label_2", tmp_path / "pred")
    assert str(caught.value).startswith(message)


def test_labels_given_as_predictions_are_recognised(tmp_path: Path) -> None:
    labels = write(tmp_path / "label_2", [[label()]])
    with pytest.raises(InputError, match="no row of label_2 has a score: these look like labels"):
        evaluate(labels, labels)


def test_two_empty_boxes_in_one_image_are_an_error_where_they_meet(tmp_path: Path) -> None:
    """The official program dies on them; one empty box alone it takes, and so do we, saying so."""
    flat = label().replace(" 1.60 ", " 0.00 ")
    good = label(x=5)
    labels = write(tmp_path / "label_2", [[flat, good], [good]])
    apart = write(tmp_path / "apart", [[good + " 0.5"], [flat + " 0.5"]])
    assert any("with a size of 0" in note for note in evaluate(labels, apart).notes)
    met = write(tmp_path / "met", [[good + " 0.5", flat + " 0.5"], []])
    with pytest.raises(
        InputError,
        match=r"met/000000.txt:2: width: expected a size above 0, got 0, as at label_2/000000.txt:1",
    ):
        evaluate(labels, met)


def test_all_predictions_below_the_height_limit_are_said(tmp_path: Path) -> None:
    labels = write(tmp_path / "label_2", [[label()]])
    table = evaluate(labels, write(tmp_path / "pred", [[label(height=30) + " 0.5"]]))
    assert any("all 1 predictions are lower than the limit of easy (40 px)" in note for note in table.notes)


def test_folders_are_found_one_level_down(tmp_path: Path) -> None:
    write(tmp_path / "training" / "label_2", [[label()]])
    write(tmp_path / "results" / "data", [[label() + " 0.5"]])
    assert evaluate(tmp_path / "training", tmp_path / "results").images == 1
    for labels, predictions in (("nowhere", "results"), ("training", "nowhere")):
        with pytest.raises(InputError, match="nowhere: expected the folder of"):
            evaluate(tmp_path / labels, tmp_path / predictions)


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    table = perfect(tmp_path, 10)
    content = json.loads(table.to_json())
    assert content == table.to_dict()
    assert (content["split"], content["images"]) == (None, 2)
    assert set(content["rows"][0]) == {
        "metric", "class", "difficulty", "mode", "min_overlap", "n_gt", "ap_r11", "ap_r40",
    }  # fmt: skip
    # 4 metrics x 3 levels x 2 modes of the one class that has predictions
    assert len(content["rows"]) == 24
    assert {row["metric"] for row in content["rows"]} == {"bbox", "aos", "bev", "3d"}
    loose = next(
        r for r in content["rows"] if (r["metric"], r["mode"], r["difficulty"]) == ("3d", "loose", "easy")
    )
    assert (loose["min_overlap"], loose["n_gt"], loose["ap_r40"]) == (0.5, 10, 22.5)
    text = str(table)
    assert "R40" in text and "R11" in text and "27.27" in text and "22.50" in text
    assert all(note in " ".join(text.split()) for note in content["notes"])
    assert max(len(line) for line in text.splitlines()[1:]) <= 80  # the first names a folder


def test_nan_is_null_in_json(tmp_path: Path) -> None:
    """A Van takes the only visible detection, so at Easy nothing counts at that threshold."""
    rows = [
        "Van 0.00 0 0.00 100.00 100.00 200.00 159.50 1.50 1.60 4.00 0.00 1.65 20.00 0.00",
        "Car 0.00 0 0.00 100.00 100.00 200.00 150.00 1.50 1.60 4.00 0.00 1.65 20.00 0.00",
    ]
    detected = [
        "Car -1 -1 0.00 100.00 105.00 200.00 144.90 1.50 1.60 4.00 0.00 1.65 20.00 0.00 0.9",
        "Car -1 -1 0.00 100.00 100.00 200.00 158.00 1.50 1.60 4.00 0.00 1.65 20.00 0.00 0.8",
    ]
    table = evaluate(write(tmp_path / "label_2", [rows]), write(tmp_path / "pred", [detected]))
    values = {(r["metric"], r["difficulty"]): r["ap_r11"] for r in table.to_dict()["rows"]}
    assert values["3d", "easy"] is None
    assert values["3d", "moderate"] is not None
    assert "NaN" not in table.to_json()


def test_the_command_writes_json_table_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write(tmp_path / "label_2", [[label(), label("Cyclist", x=6)]] * 3)
    predictions = write(tmp_path / "pred", [[label() + " 0.5", label("Cyclist", x=6, z=22) + " 0.4"]] * 3)
    base = ["evaluate", "--labels", str(labels), "--predictions", str(predictions)]
    assert main([*base, "--json", "-"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["images"] == 3
    assert "Car, strict" in out.err
    assert (
        main([*base, "--quiet", "--json", str(tmp_path / "ap.json"), "--plots", str(tmp_path / "report")])
        == 0
    )
    assert capsys.readouterr() == ("", "")
    assert json.loads((tmp_path / "ap.json").read_text()) == json.loads(out.out)
    assert (tmp_path / "report" / "report.html").read_text().startswith("<!doctype html>")
    assert main([*base, "--split", str(tmp_path / "none.txt")]) == 2
    assert "none.txt: cannot read" in capsys.readouterr().err


def test_the_function_and_the_package_have_one_name_in_a_fresh_interpreter(tmp_path: Path) -> None:
    """`monolift.evaluate(...)` works before and after its submodules are imported, and torch stays out."""
    labels = write(tmp_path / "label_2", [[label()]])
    predictions = write(tmp_path / "pred", [[label() + " 0.5"]])
    code = f"""
import sys, monolift
first = monolift.evaluate(labels={str(labels)!r}, predictions={str(predictions)!r})
import monolift.evaluation.ap
again = monolift.evaluate(labels={str(labels)!r}, predictions={str(predictions)!r})
assert first.to_json() == again.to_json()
from monolift.evaluation import evaluate
assert evaluate({str(labels)!r}, {str(predictions)!r}).to_json() == first.to_json()
assert "torch" not in sys.modules, "the evaluator must not import torch"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_subcommand_runs_without_torch(tmp_path: Path) -> None:
    """Only the import graph shows it: whatever evaluate reads and prints, torch is never imported."""
    row = "Car 0 0 0 100.00 100.00 200.00 180.00 1.5 1.6 3.9 1.0 1.7 20.0 0.1"
    for folder, text in (("labels", row), ("found", f"{row} 0.9")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000000.txt").write_text(text + "\n")
    arguments = ["evaluate", "--labels", str(tmp_path / "labels"), "--predictions", str(tmp_path / "found")]
    script = (
        "import sys\nfrom monolift.cli import main\n"
        f"code = main({arguments!r})\nassert 'torch' not in sys.modules\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
