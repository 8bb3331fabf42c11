"""KITTI's text files: byte for byte both ways, every fault named, nothing but InputError on arbitrary bytes."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monolift.data.formats import kitti_format as fmt
from monolift.data.formats.frames import kitti_name
from monolift.data.formats.kitti_table import read_table
from monolift.errors import InputError

LABELS = (
    "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
    "Person_sitting 0.10 2 0.20 100.00 150.00 130.00 200.00 1.20 0.60 0.80 -5.00 1.60 20.00 -0.00\n"
    "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10\n"
)
RESULT = "Car -1 -1 -10 10.00 20.00 110.00 90.00 1.50 1.60 4.00 -2.70 1.65 10.00 0.12 0.987654321\n"
CALIB = (
    "P0: " + " ".join(f"{v:.12e}" for v in range(1, 13)) + "\n"
    "P2: " + " ".join(f"{v:.12e}" for v in (721.5, 0, 609.6, 44.9, 0, 721.5, 172.9, 0.2, 0, 0, 1, 0.003)) + "\n"
    "R0_rect: " + " ".join(f"{v:.12e}" for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)) + "\n"
    "Tr_velo_to_cam: " + " ".join(f"{v:.12e}" for v in range(12)) + "\n\n"
)  # fmt: skip


def row(**changes: str) -> str:
    """A valid label row with some fields replaced, by the names of fmt.FIELDS."""
    fields = dict(zip(fmt.FIELDS, LABELS.split("\n")[0].split(), strict=False))
    return " ".join((fields | changes).values())


@pytest.mark.parametrize("text", [LABELS, RESULT, ""])
def test_what_kitti_writes_comes_out_byte_for_byte(text: str) -> None:
    assert fmt.format_labels(fmt.parse_labels(text)) == text


def test_other_spellings_are_kept_until_a_value_changes() -> None:
    text = "Car 0.0 0 1e-2 10.000000 20 110.5 90.25 1.5 1.60 4 0.1234567 1.65 +10 -0.0 0.50\n"
    labels = fmt.parse_labels(text + RESULT)
    assert fmt.format_labels(labels) == text + RESULT
    moved = dataclasses.replace(labels, bottom=np.add(labels.bottom, [0, 0, 1]))
    expected = text.replace("+10", "11.00") + RESULT.replace(" 10.00 0.12 ", " 11.00 0.12 ")
    assert fmt.format_labels(moved) == expected
    assert fmt.format_labels(labels.select([1, 0])) == RESULT + text
    without_memory = fmt.from_numbers(labels.names, fmt.to_numbers(labels))
    np.testing.assert_array_equal(
        fmt.to_numbers(fmt.parse_labels(fmt.format_labels(without_memory))), fmt.to_numbers(labels)
    )
    assert fmt.format_labels(fmt.parse_labels(RESULT.replace("-1 -1 -10", "-1 0.00 -10"))).startswith(
        "Car -1 0.00 -10"
    )


def test_columns_hold_what_the_row_says() -> None:
    labels = fmt.parse_labels(LABELS)
    assert labels.names == ("Car", "Person_sitting", "DontCare")
    assert labels.score is None
    np.testing.assert_array_equal(labels.boxes2d[0], [587.01, 173.33, 614.12, 200.12])
    np.testing.assert_array_equal(labels.size_hwl[0], [1.65, 1.67, 3.64])
    np.testing.assert_array_equal(labels.bottom[0], [-0.65, 1.71, 46.70])
    assert (labels.alpha[0], labels.rotation_y[0]) == (-1.58, -1.59)
    np.testing.assert_array_equal(labels.occlusion, [0, 2, -1])
    np.testing.assert_array_equal(labels.truncation, [0, 0.1, -1])
    assert fmt.parse_labels(RESULT).score == pytest.approx([0.987654321], abs=0)


def test_all_labels_and_calibrations_of_kitti_are_reproduced(shared: Path) -> None:
    archive = shared / "kitti" / "all_labels_calib.zip"
    if not archive.is_file():
        pytest.skip("no archive of KITTI's labels in the folder of real data")
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.endswith(".txt")]
        labels = [files.read(name) for name in names if "label_2" in name]
        calibs = {
            files.read(name) for name in names if "calib" in name
        }  # they repeat: each different text once
    assert len(labels) == 7481 and all(text.endswith(b"\n") for text in labels)
    joined = b"".join(labels)
    parsed = fmt.parse_labels(joined)
    assert fmt.format_labels(parsed).encode() == joined
    part = parsed.select(slice(0, None, 10))
    from_values = fmt.format_labels(dataclasses.replace(part, spelling=())).encode()
    assert from_values.splitlines() == joined.splitlines()[::10]
    assert calibs
    for text in calibs:
        assert fmt.format_calib(fmt.parse_calib(text)).encode() == text


finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="ascii", exclude_categories=("Z", "C")), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(words, st.lists(finite, min_size=15, max_size=15), st.integers(-1, 3)), max_size=4),
    st.booleans(),
)
def test_any_values_survive_a_round_trip(rows: list[tuple[str, list[float], int]], scored: bool) -> None:
    numbers = np.array([values for _, values, _ in rows]).reshape(len(rows), 15)[:, : 15 if scored else 14]
    if len(rows):
        numbers[:, 1] = [occlusion for _, _, occlusion in rows]
    labels = fmt.from_numbers([name for name, _, _ in rows], numbers)
    again = fmt.parse_labels(fmt.format_labels(labels), scored=scored)
    assert again.names == labels.names
    np.testing.assert_array_equal(fmt.to_numbers(again), fmt.to_numbers(labels))
    assert (again.score is None) == (not scored)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=120)))
@example("Car " + "1 " * 13 + "1_0")
@example("Car 0 0 " + "1" * 400 + " " + "1 " * 11)
@example(b"\x00 " * 15)
@example("Car 0 " + "9" * 30 + " 0" * 12)
@example("\ud800")
def test_the_parsers_raise_nothing_but_input_errors(text: str | bytes) -> None:
    for parse in (fmt.parse_labels, fmt.parse_calib):
        try:
            parse(text, "folder/file.txt")
        except InputError as error:
            assert str(error).startswith("folder/file.txt")


@given(
    st.lists(
        st.sampled_from(
            [b"Car", b"0", b"1.5", b"-1", b"nan", b"1_0", b"\xff", b"1e3", b"\n", b"\r\n", b"\t", b""]
        )
    ),
    st.booleans(),
)
def test_reading_in_bulk_agrees_with_reading_one_by_one(tokens: list[bytes], scored: bool) -> None:
    good = (LABELS.replace("Person", "P") if not scored else RESULT).encode()
    path = Path("label_2/000001.txt")  # never opened: the read is replaced
    text = good + b" ".join(tokens)
    try:
        expected = fmt.parse_labels(text, fmt.short_name(path), scored)
    except InputError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monolift.data.formats.kitti_table._read", lambda _: text)
        try:
            got = read_table([path], scored)
        except InputError:
            assert expected is None
            return
    if expected is not None:
        np.testing.assert_array_equal(fmt.to_numbers(got.labels), fmt.to_numbers(expected))
        assert got.labels.names == expected.names
    else:  # tolerated, but said
        assert got.unscored or got.surplus


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (" ".join(row().split()[:14]), "expected 15 fields (or 16 with a score), got 14"),
        (row() + " 0.5 0.5", "expected 15 fields (or 16 with a score), got 17"),
        (row(alpha="nan"), "alpha: expected a finite number, got 'nan'"),
        (row(x="-inf"), "x: expected a finite number, got '-inf'"),
        (row(z="1e999"), "z: expected a finite number, got '1e999'"),
        (row(length="four"), "length: expected a finite number, got 'four'"),
        (row(height="1_0"), "height: expected a finite number, got '1_0'"),
        (row(occluded="0.00"), "occluded: expected an integer from -1 to 3, got '0.00'"),
        (row() + " 0.9", "expected 15 fields without a score, got 16"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "label_2" / "000123.txt"
    file.parent.mkdir()
    file.write_text(LABELS.splitlines()[0] + "\n\n" + row() + "\n" + line + "\n")
    with pytest.raises(InputError) as caught:
        fmt.read_labels(file, scored=False)
    assert str(caught.value) == f"label_2/000123.txt:4: {message}"
    if (
        len(line.split()) <= fmt.N_LABEL
    ):  # surplus fields are skipped where a whole folder is read, as officially
        with pytest.raises(InputError) as caught:
            read_table([file], scored=False)
        assert str(caught.value) == f"label_2/000123.txt:4: {message}"


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "000001.txt"
    file.write_bytes(LABELS.encode() + b"C\xe4r" + b" 0" * 14)
    for read in (fmt.read_labels, lambda path: read_table([path], scored=False)):
        with pytest.raises(
            InputError, match=r"000001.txt:4: type: expected UTF-8 text, got bytes b'C\\xe4r'"
        ):
            read(file)
    with pytest.raises(InputError, match=r"missing.txt: cannot read: No such file"):
        fmt.read_labels(tmp_path / "missing.txt")


def test_blank_lines_tabs_and_line_ends_are_accepted() -> None:
    loose = LABELS.replace("\n", "\r\n\r\n").replace(" ", "\t ").rstrip()
    np.testing.assert_array_equal(
        fmt.to_numbers(fmt.parse_labels(loose)), fmt.to_numbers(fmt.parse_labels(LABELS))
    )


def test_values_that_cannot_be_written_are_refused() -> None:
    labels = fmt.parse_labels(LABELS)
    values = fmt.to_numbers(labels)
    values[1, 3] = np.nan
    with pytest.raises(InputError, match="row 2: bbox left: expected a finite number"):
        fmt.format_labels(fmt.from_numbers(labels.names, values))
    with pytest.raises(InputError, match="row 1: type"):
        fmt.format_labels(fmt.from_numbers(["two words"], values[:1]))
    with pytest.raises(InputError, match=r"KittiLabels.boxes2d: expected shape \(3, 4\)"):
        fmt.KittiLabels(labels.names, labels.truncation, labels.occlusion, labels.alpha, labels.boxes2d[:2],
                        labels.size_hwl, labels.bottom, labels.rotation_y)  # fmt: skip


def test_calibrations_keep_every_matrix_and_byte(tmp_path: Path) -> None:
    calib = fmt.parse_calib(CALIB)
    assert list(calib.matrices) == ["P0", "P2", "R0_rect", "Tr_velo_to_cam"]
    assert calib.p2.shape == (3, 4) and calib["R0_rect"].shape == (3, 3)
    assert calib.p2[0, 3] == 44.9
    fmt.write_calib(tmp_path / "000001.txt", calib)
    assert (tmp_path / "000001.txt").read_text() == CALIB
    exact = fmt.KittiCalib({"P2": calib.p2 / 3})
    np.testing.assert_array_equal(fmt.parse_calib(fmt.format_calib(exact)).p2, calib.p2 / 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CALIB.replace("P2", "P1"), "calib/000001.txt: no P2: expected the projection"),
        (CALIB.replace("7.215000000000e+02", "nan", 1), "calib/000001.txt:2: P2, number 1: expected a finite"),
        (CALIB.replace("7.215000000000e+02", "", 1), "calib/000001.txt:2: P2: expected 12 numbers, got 11"),
        (CALIB.replace("7.215000000000e+02", "-7", 1), "calib/000001.txt:2: P2: expected positive focal lengths, got -7"),
        (CALIB + CALIB, "calib/000001.txt:6: P0 comes a second time"),
        ("calib_time 09-Jan-2012", "calib/000001.txt:1: expected a line such as 'P2: '"),
        ("", "calib/000001.txt: no P2"),
    ],
)  # fmt: skip
def test_a_bad_calibration_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        fmt.parse_calib(text, "calib/000001.txt")
    assert str(caught.value).startswith(message)


def test_splits_keep_ids_as_text(tmp_path: Path) -> None:
    file = tmp_path / "val.txt"
    fmt.write_split(file, ["000001", "900002"])
    assert file.read_bytes() == b"000001\n900002\n"
    assert fmt.read_split(file) == ("000001", "900002")
    for text, message in [
        ("000001\n\n000001\n", "val.txt:3: 000001 comes a second time, first in line 1"),
        ("000001 000002\n", "val.txt:1: expected one image id such as 000123, got '000001 000002'"),
        ("../secret\n", "val.txt:1: expected one image id"),
        ("\n", "val.txt: expected one image id per line, got an empty file"),
    ]:
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            fmt.read_split(file)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "000001.txt"
    fmt.write_labels(file, fmt.parse_labels(LABELS))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(InputError, match="cannot write: No space left on device"):
        fmt.write_labels(file, fmt.KittiLabels.empty())
    assert file.read_text() == LABELS
    assert list(tmp_path.iterdir()) == [file]


def test_a_class_name_that_is_no_text_is_named_and_a_foreign_one_is_replaced() -> None:
    labels = dataclasses.replace(fmt.parse_labels(RESULT), names=("\ud800",))
    with pytest.raises(InputError, match="type: expected a class name"):
        fmt.format_labels(labels)
    assert kitti_name("\ud800 car") == "?_car"
