"""Diagnostics on detections whose faults are known because they were put in."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evaluate_corpora import label, write
from monolift.data.formats.kitti_format import parse_labels
from monolift.evaluation import diagnostics as diag
from monolift.evaluation.report import render, write_report
from monolift.evaluation.svg import Chart, ticks
from monolift.evaluation.table import Evaluation, evaluate


def changed(row: str, **fields: float) -> str:
    """A row with some of its last eight numbers replaced: h w l x y z yaw."""
    words = row.split()
    for name, value in fields.items():
        words[8 + ["h", "w", "l", "x", "y", "z", "yaw"].index(name)] = f"{value:.6f}"
    return " ".join(words)


def one_fault_each(tmp_path: Path) -> Evaluation:
    """At 20 m: right, depth off, size off, yaw off, place off, all off, other class, unseen."""
    truth = label(yaw=0.0)
    nearer = changed(truth, z=18.0, y=1.65 * 0.9)  # slid along its ray to nine tenths of the distance
    faults = {
        "found": truth,
        "depth": nearer,
        "size": changed(truth, l=6.0),
        "yaw": changed(truth, yaw=math.pi / 2),
        "place": changed(truth, x=2.0),
        "several": changed(truth, x=2.0, l=7.0, yaw=1.2),
        "confused": truth.replace("Car", "Pedestrian"),
    }
    labels = write(tmp_path / "label_2", [[truth]] * 8)
    rows = [[f"{row} 0.{9 - i}"] for i, row in enumerate(faults.values())] + [[]]
    return evaluate(labels, write(tmp_path / "pred", rows))


def test_each_fault_has_its_cause(tmp_path: Path) -> None:
    table = one_fault_each(tmp_path)
    car = diag.diagnose(table.corpus, list(table.matched.values()))["Car"]
    assert car.objects == 8 and car.matched_2d == 6
    strict = {cause: sum(counts) for cause, counts in car.failures["strict"].items()}
    assert strict == {"found": 1, "depth": 1, "size": 1, "yaw": 1, "place": 1, "several": 1,
                      "confused": 1, "unseen": 1, "taken": 0}  # fmt: skip
    assert car.failures["strict"]["found"][2] == 1  # 20 to 30 m
    for causes in car.failures.values():
        assert sum(map(sum, causes.values())) == car.objects


def test_errors_by_hand(tmp_path: Path) -> None:
    table = one_fault_each(tmp_path)
    car = diag.diagnose(table.corpus, list(table.matched.values()))["Car"]
    assert car.depth_error["count"] == [0, 0, 6, 0, 0, 0, 0, 0]
    assert car.depth_error["mean_abs"][2] == pytest.approx(2 / 6)
    assert car.depth_error["bias"][2] == pytest.approx(-2 / 6)
    assert car.depth_error["mean_relative"][2] == pytest.approx(0.1 / 6)
    assert car.depth_error["median_abs"][2] == 0
    assert car.depth_error["mean_abs"][0] is None
    assert car.size_error["length"]["mean_abs"] == pytest.approx((2 + 3) / 6)
    assert car.size_error["height"] == {"mean_abs": 0, "bias": 0, "mean_relative": 0}
    assert car.yaw_error["mean"] == pytest.approx((90 + math.degrees(1.2)) / 6, rel=1e-6)
    assert car.yaw_error["flipped"] == 0
    assert sum(car.yaw_error["counts"]) == 6


def test_recall_by_depth_and_rotation_with_the_training_histogram(tmp_path: Path) -> None:
    rows = [[label(z=15, yaw=0.1)], [label(z=15, yaw=-1.5)], [label(z=55, yaw=-1.5)], [label(z=95, yaw=3.1)]]
    found = [[rows[0][0] + " 0.9"], [], [rows[2][0] + " 0.8"], []]
    table = evaluate(write(tmp_path / "label_2", rows), write(tmp_path / "pred", found))
    training = parse_labels("\n".join([label(z=5)] * 3 + [label(z=12, occluded=3), label("Van")]))
    car = diag.diagnose(table.corpus, list(table.matched.values()), training)["Car"]
    assert car.recall_by_depth.objects == [0, 2, 0, 0, 0, 1, 0, 1]
    assert car.recall_by_depth.found["3D, strict (> 0.7)"] == [0, 1, 0, 0, 0, 1, 0, 0]
    assert car.recall_by_depth.training == [3, 0, 0, 0, 0, 0, 0, 0]  # the occluded one is beyond hard
    assert car.recall_by_rotation.objects == [0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 1]
    assert car.recall_by_rotation.found["2D (> 0.7)"] == [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]


def test_assignment_is_one_to_one_by_score(tmp_path: Path) -> None:
    """Two detections on one object, one object on two: the surer one chooses first."""
    labels = write(tmp_path / "label_2", [[label(x=0.0), label(x=0.4)]])
    rows = [label(x=0.4) + " 0.9", label(x=0.38) + " 0.8", label(x=0.41) + " 0.7"]
    corpus = evaluate(labels, write(tmp_path / "pred", [rows])).corpus
    assert diag.assign(corpus, 0, "bbox", 0.5).tolist() == [1, 0]


def test_precision_recall_curves_end_at_the_counts(tmp_path: Path) -> None:
    table = one_fault_each(tmp_path)
    car = diag.diagnose(table.corpus, list(table.matched.values()))["Car"]
    curve = next(
        c for c in car.curves if (c["metric"], c["min_overlap"], c["difficulty"]) == ("3d", 0.7, "hard")
    )
    assert curve["recall"][-1] == pytest.approx(1 / 8)
    assert curve["precision"][0] == 1 and curve["precision"][-1] == pytest.approx(1 / 6, abs=1e-5)


class Balanced(HTMLParser):
    """Counts tags that are not closed in order."""

    VOID = ("meta", "br", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_the_report_is_one_sound_page_that_loads_nothing(tmp_path: Path) -> None:
    table = one_fault_each(tmp_path)
    path = write_report(tmp_path / "report", [table])
    page = path.read_text()
    reader = Balanced()
    reader.feed(page)
    assert not reader.open
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)|url\(|@import|<script", page)
    assert "nan" not in "".join(re.findall(r'(?:points|x|y|cx|cy|height|width)="[^"]*"', page))
    for figure in ("Recall by distance", "Recall by rotation", "Depth error by distance", "Relative depth error",
                   "Size error", "Yaw error", "Why objects are missed in 3D, strict", "3D box, overlap &gt; 0.7"):  # fmt: skip
        assert figure in page
    for note in table.notes:
        assert note.replace("'", "&#x27;").replace("<", "&lt;")[:40] in page
    content = json.loads((tmp_path / "report" / "diagnostics.json").read_text())
    assert content[table.name]["classes"]["Car"]["objects"] == 8


def test_names_are_escaped_in_the_report(tmp_path: Path) -> None:
    labels = write(tmp_path / "label_2", [[label()]])
    table = evaluate(labels, write(tmp_path / "pred", [[label() + " 0.5"]]), name='<b>"x"</b>')
    page = render([table], [diag.diagnose(table.corpus, list(table.matched.values()))])
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert '<b>\\"x' in (write_report(tmp_path, [table]).parent / "diagnostics.json").read_text()


def test_an_evaluation_of_nothing_has_a_report(tmp_path: Path) -> None:
    table = evaluate(write(tmp_path / "label_2", [[], []]), write(tmp_path / "pred", [[], []]))
    assert table.rows == () and "Nothing to evaluate" in str(table)
    assert "Nothing to evaluate" in write_report(tmp_path / "report", [table]).read_text()


def test_charts_place_values_where_the_axes_say() -> None:
    chart = Chart("t", "x", "y", (0, 10), (0, 2))
    chart.line([0, 10], [0, 2], "red")
    points = re.findall(r'points="([^"]*)"', chart.figure())[0].split()
    assert points == [f"{chart.px(0):.1f},{chart.py(0):.1f}", f"{chart.px(10):.1f},{chart.py(2):.1f}"]
    tops = chart.bars([0, 5, 10], [0.5, 1.0], "blue")
    assert chart.bars([0, 5, 10], [0.5, 0.5], "blue", base=tops) == [1.0, 1.5]
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 3) == [3]
    steps = np.diff(ticks(-0.013, 0.4))
    assert np.allclose(steps, steps[0])
