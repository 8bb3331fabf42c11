"""What reaches the loss is counted: nothing is refused, little is warned about, and the reasons are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from monolift.methods import METHODS, get_method
from monolift.methods.base import Detector
from monolift.training.census import NO_BOX2D, NO_BOX3D, OUTSIDE, UNFIT, Census, take_census
from monolift.training.setup import measure_config
from toy_kitti import write_toy

IDS = [f"{k:06d}" for k in range(4)]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path, IDS, cars=3, size=(620, 188)) / "training"


def detector(name: str = "smoke", **changes: object) -> Detector:
    method = get_method(name)
    wide = {"input_width": 320, "input_height": 96}
    return method.detector(method.config(**{"classes": ("Car",), **wide, **changes}))  # type: ignore[no-any-return]


def census(root: Path, made: Detector | None = None) -> Census:
    data = KittiDataset(root)
    return take_census([data], [data.labels(k) for k in range(len(data))], made or detector())


def rewrite(root: Path, change: object, names: list[str] = IDS) -> None:
    """Each row of these label files through ``change``, a function of its fields."""
    for name in names:
        path = root / "label_2" / f"{name}.txt"
        rows = [change(line.split()) for line in path.read_text().splitlines()]  # type: ignore[operator]
        path.write_text("".join(" ".join(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_counts_what_it_learns_from(toy: Path, name: str) -> None:
    found = census(toy, detector(name, **({"min_height": 0.0} if name != "ss3d" else {})))
    assert found.labelled == found.taught == {"Car": 12}
    assert found.warnings() == []
    assert "Car 12 of 12" in str(found)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("box, why", [
    ("0 0 0 0", NO_BOX2D),
    ("-1 -1 -1 -1", NO_BOX2D),
    ("50 50 50 90", NO_BOX2D),
    ("90 90 50 50", NO_BOX2D),
    ("1300 100 1400 200", OUTSIDE),
    ("10 -200 60 -100", OUTSIDE),
    ("100 100 103 101", UNFIT),
])  # fmt: skip
def test_labels_from_which_nothing_is_learnt_are_refused(toy: Path, name: str, box: str, why: str) -> None:
    if (name, why) == ("ss3d", UNFIT):
        pytest.skip("SS3D takes boxes of any height")
    rewrite(toy, lambda row: [*row[:4], *box.split(), *row[8:]])
    with pytest.raises(InputError) as caught:
        census(toy, detector(name)).warnings()
    assert "no labelled object reaches the loss: of 12 of class Car" in str(caught.value)
    assert f"12 {why}" in str(caught.value)


def test_objects_without_a_3d_box_are_counted_as_lost(toy: Path) -> None:
    rewrite(toy, lambda row: [*row[:8], "-1", "-1", "-1", "-1000", "-1000", "-1000", "-10"], IDS[:2])
    found = census(toy)
    assert found.labelled["Car"] == 12
    assert found.lost[NO_BOX3D] == 6
    (warning,) = found.warnings()
    assert warning.startswith("warning: ") and f"6 {NO_BOX3D}" in warning


def test_a_large_share_is_warned_about_and_a_small_one_only_said(toy: Path) -> None:
    def without_box(row: list[str]) -> list[str]:
        return [*row[:4], "0", "0", "0", "0", *row[8:]]

    rewrite(toy, without_box, IDS[:1])
    assert any(f"3 {NO_BOX2D}" in warning for warning in census(toy).warnings())
    again = Census(("Car",), images=1, counted=1)
    again.labelled["Car"], again.taught["Car"], again.lost[OUTSIDE] = 20, 19, 1
    assert again.warnings() == []
    assert f"1 {OUTSIDE}" in str(again)


def test_class_names_that_are_there_are_named(toy: Path) -> None:
    rewrite(toy, lambda row: ["car", *row[1:]])
    with pytest.raises(InputError, match=r"no training object of class Car: the labels hold car \(12\)"):
        census(toy).warnings()
    data = KittiDataset(toy)
    samples = [data.labels(k) for k in range(len(data))]
    method = get_method("smoke")
    with pytest.raises(InputError, match=r"class Car.*the labels hold car \(12\)"):
        measure_config(method, method.config(classes=("Car",)), samples, ())
    rewrite(toy, lambda row: ["Car", *row[1:]], IDS[:2])
    warnings = census(toy, detector(classes=("Car", "Tram"))).warnings()
    assert any("no labelled object of class Tram reaches the loss" in warning for warning in warnings)


def test_empty_label_files_are_no_objects(toy: Path) -> None:
    rewrite(toy, lambda row: ["DontCare", *row[1:]])
    with pytest.raises(InputError, match="the labels hold no object"):
        census(toy).warnings()
