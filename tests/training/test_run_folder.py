"""A run's folder: one training at a time, never over another, and its history survives a cut line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from monolift.errors import InputError
from monolift.files.output_folder import locked
from monolift.training.run_folder import History, claim, clear


def finished(out: Path) -> Path:
    for name in ("last", "best", "images"):
        (out / name).mkdir(parents=True)
        (out / name / "file").write_text("x")
    (out / "last" / "trainer.pt").write_text("x")
    (out / "metrics.jsonl").write_text('{"epoch": 1, "step": 3}\n')
    (out / "mine.txt").write_text("not the training's")
    return out


def test_a_run_is_never_overwritten_unless_asked_for(tmp_path: Path) -> None:
    out = finished(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds a training already .*--resume.*--overwrite"):
        claim(out, resume=False, overwrite=False)
    claim(out, resume=True, overwrite=False)
    claim(out, resume=False, overwrite=True)
    assert (out / "best" / "file").exists()  # nothing goes before the data are checked
    clear(out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    clear(out)
    claim(out, resume=False, overwrite=False)
    assert (out / "mine.txt").exists()
    with pytest.raises(InputError, match="exclude each other"):
        claim(out, resume=True, overwrite=True)


def test_each_part_of_a_run_protects_it(tmp_path: Path) -> None:
    for name in ("last", "last.old", "best", "metrics.jsonl", "results.csv"):
        out = tmp_path / name.replace(".", "_")
        (out / name).mkdir(parents=True)
        with pytest.raises(InputError, match="holds a training already"):
            claim(out, resume=False, overwrite=False)


def test_a_folder_of_another_kind_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_text("x")
    claim(tmp_path, resume=False, overwrite=True)
    clear(tmp_path)
    assert (tmp_path / "images" / "holiday.jpg").exists()


def test_resuming_where_nothing_was_saved_begins(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    with locked(tmp_path, "training"):
        claim(tmp_path, resume=True, overwrite=False)
    (tmp_path / "best").mkdir()
    with pytest.raises(InputError, match="nothing to resume"):
        claim(tmp_path, resume=True, overwrite=False)


def test_a_second_training_is_told_that_the_folder_is_in_use(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with locked(tmp_path / "run", "training"):
        with (
            pytest.raises(InputError, match="another training is writing there"),
            locked(tmp_path / "run", "training"),
        ):
            pass
        with locked(tmp_path / "other", "training"):
            pass
    with locked(tmp_path / "run", "training"):  # free again
        pass


def test_an_output_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="expected a folder"), locked(out, "training"):
            pass
    if os.geteuid():
        (tmp_path / "shut").mkdir(mode=0o500)
        with (
            pytest.raises(InputError, match="cannot be written to"),
            locked(tmp_path / "shut" / "run", "training"),
        ):
            pass


@pytest.mark.parametrize(
    "last", ['{"epoch": 3, "st', "", "\0\0\0", "[1, 2]", '{"step": 3}', '{"epoch": "x"}', "[" * 100_000]
)
def test_a_cut_line_of_the_history_is_left_out_and_said(tmp_path: Path, last: str) -> None:
    good = "".join(json.dumps({"epoch": k, "step": 3 * k, "total": 1.0 / k}) + "\n" for k in (1, 2))
    (tmp_path / "metrics.jsonl").write_text(good + last)
    history = History(tmp_path)
    assert bool(history.warnings()) == bool(last)
    history.add({"epoch": 3, "step": 9, "total": 0.1})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    with (tmp_path / "results.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    history.add({"epoch": 2, "step": 6, "total": 0.2})  # an epoch that is run again
    assert [row["epoch"] for row in History(tmp_path).rows] == [1, 2]
