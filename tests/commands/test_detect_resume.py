"""Long jobs of detect: what is done is noted as it goes, an interrupted job continues, nothing of it stays in memory."""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fake_detector import FakeDetector
from monolift.cli import main
from monolift.files.output_folder import locked
from monolift.inference import zoo
from monolift.inference.backends import exported_file
from monolift.inference.model import Model
from monolift.inference.results import Results3D
from street import street

FOUR = "--camera=175,175,155,46.5"
JOB = ("detect", "in", FOUR, "--save", "kitti", "--json", "all.json", "--quiet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = Model(FakeDetector().eval(), "fake")
    monkeypatch.setattr(sys.modules["monolift.inference.model"], "load", lambda *_: model)
    (tmp_path / "in").mkdir()
    street().resize((311, 94)).save(tmp_path / "in" / "a.png")
    for name in "bcd":
        os.link(tmp_path / "in" / "a.png", tmp_path / "in" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """While it holds an exception, writing c's labels raises it."""
    raised: list[BaseException] = []
    save = Results3D.save_kitti

    def stopping(result: Results3D, path: Path) -> None:
        if result.name == "c" and raised:
            raise raised[0]
        save(result, path)

    monkeypatch.setattr(Results3D, "save_kitti", stopping)
    return raised


def rows() -> list[dict[str, Any]]:
    found = json.loads(Path("all.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def noted() -> dict[str, str]:
    lines = map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())
    return {line["source"]: line["status"] for line in lines if "source" in line}


def test_an_interrupted_job_continues_to_the_same_end(
    stops: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*JOB, "--out", "whole"]) == 0
    whole = rows()
    stops.append(KeyboardInterrupt())
    assert main(JOB) == 130
    assert noted() == {"in/a.png": "done", "in/b.png": "done"}
    assert [row["name"] for row in rows()] == ["a", "b"]
    stops.clear()
    written = Path("out/a.txt").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*(word for word in JOB if word != "--quiet"), "--resume"]) == 0
    assert "4 objects in 2 images; 2 files done before; 2 files in out; " in capsys.readouterr().out
    assert Path("out/a.txt").stat().st_mtime_ns == written
    assert rows() == whole
    assert set(noted().values()) == {"done"} and len(noted()) == 4
    log = Path("out/detect.log").read_text()
    assert "stopped: 4 objects in 2 images" in log and "d: 1 Car" in log
    assert main([*JOB, "--resume"]) == 0  # all done
    assert rows() == whole
    Path("out/b.txt").unlink()
    assert main([*JOB, "--resume"]) == 0
    assert Path("out/b.txt").is_file() and rows() == whole


def test_failures_are_noted_with_their_reason_and_tried_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "in" / "c.png").unlink()
    (folder / "in" / "c.png").write_bytes(b"")
    assert main(JOB) == 2
    assert noted()["in/c.png"] == "failed"
    assert "c.png: not a readable image: empty file" in Path("out/manifest.jsonl").read_text()
    assert (
        "1 of 4 files failed (1 x not a readable image: empty file (0 bytes)"
        in Path("out/detect.log").read_text()
    )
    capsys.readouterr()
    assert main([*JOB, "--resume"]) == 2
    (folder / "in" / "c.png").unlink()
    os.link(folder / "in" / "a.png", folder / "in" / "c.png")
    assert main([*JOB, "--resume"]) == 0
    assert [row["name"] for row in rows()] == ["a", "b", "c", "d"]


def test_other_options_are_refused_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(JOB) == 0
    before = Path("out/manifest.jsonl").read_bytes()
    capsys.readouterr()
    assert main([*JOB, "--resume", "--score", "0.5"]) == 2
    said = capsys.readouterr().err
    assert (
        "other options (score None there, 0.5 given): resume with those, or begin anew without --resume"
        in said
    )
    assert Path("out/manifest.jsonl").read_bytes() == before


def test_another_backend_is_refused_and_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(JOB) == 0
    other = Model(FakeDetector().eval(), "fake", backend="onnx")
    monkeypatch.setattr(sys.modules["monolift.inference.model"], "load", lambda *_: other)
    capsys.readouterr()
    assert main([*JOB, "--resume"]) == 2
    assert "backend 'torch' there, 'onnx' given" in capsys.readouterr().err


def test_zooms_that_are_written_otherwise_are_the_same(folder: Path) -> None:
    assert main([*JOB, "--zooms", "1,0.8"]) == 0
    assert main([*JOB, "--zooms", "1.0, 0.80", "--resume"]) == 0


def test_auto_falls_back_to_torch_where_the_exported_file_is_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("MONOLIFT_CACHE", str(folder / "cache"))
    file = exported_file(zoo.resolve("smoke"))
    file.parent.mkdir()
    file.write_bytes(b"\x08\x07broken")
    assert main(JOB) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{file}: not a model" in said and "; torch computes instead" in said
    assert main([*JOB, "--backend", "onnx"]) == 2


@pytest.mark.parametrize("code", [28, 5])
def test_a_full_disk_ends_the_job_and_says_what_is_done(
    stops: list[BaseException], capsys: pytest.CaptureFixture[str], code: int
) -> None:
    from monolift.errors import DiskError

    stops.append(DiskError(f"out/c.txt: cannot write: {os.strerror(code)}"))
    assert main(JOB) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"monolift: out/c.txt: cannot write: {os.strerror(code)}; 2 of 4 images are complete: the same command with "
        "--resume continues"
    ]
    stops.clear()
    assert main([*JOB, "--resume"]) == 0 and len(rows()) == 4


def test_a_second_job_in_the_folder_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fcntl")
    with locked("out", "detect"):
        before = sorted(folder.rglob("*"))
        assert main(JOB) == 2
        assert capsys.readouterr().err == (
            "monolift: out: another detect is writing there: wait for it, or choose another output folder\n"
        )
        assert main(["detect", "in/a.png", FOUR]) == 2
        assert sorted(folder.rglob("*")) == before
    with locked("out", "detect", shared=True):  # several of some named images each, as xargs starts them
        assert main(["detect", "in/a.png", FOUR, "--quiet"]) == 0


def test_names_of_an_earlier_run_stay_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more").mkdir()
    os.link(folder / "in" / "a.png", folder / "more" / "a.png")
    job = ("detect", "in", "more", *JOB[2:])
    for more in ((), ("--resume",)):
        assert main([*job, *more]) == 2
        assert "in/a.png has the same name" in capsys.readouterr().err
        assert len(rows()) == 5


def test_some_named_images_leave_no_manifest() -> None:
    assert main(["detect", "in/a.png", "in/b.png", *JOB[2:]]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.txt", "b.txt"]
    assert main(["detect", "in/a.png", *JOB[2:], "--log", "a.log", "--save", "none"]) == 0
    assert "2 objects in 1 image" in Path("a.log").read_text()


@pytest.mark.parametrize(
    "place", ["--json=in", "--json=in/a.png/x.json", "--out=in/a.png", "--log=in/a.png/x.log"]
)
def test_a_place_that_cannot_be_written_is_found_before_the_first_image(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Model, files: list[Path], *__: object, **___: object) -> None:
        assert not files, "an image was read"  # without files the options are checked

    monkeypatch.setattr(Model, "stream", never)
    assert main([*JOB, place]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["--fov=300", "--zooms=9", "--batch=0", "--classes=Tree", "--backend=x"])
def test_a_wrong_option_leaves_nothing(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("detect", "in", *(() if "fov" in wrong else (FOUR,)), wrong, "--resume")
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not Path("out").exists()


@pytest.mark.slow
def test_results_do_not_stay_in_memory(folder: Path) -> None:
    """A row of --json takes 5 kB of memory; what grows is the list of files and names.

    Other threads read and write meanwhile, so the least of ten images counts.
    """
    for k in range(50):
        os.link(folder / "in" / "a.png", folder / "in" / f"x{k:03d}.png")
    sizes: dict[str, int] = {}
    watched = {f"x{k:03d}" for k in (*range(10, 20), *range(40, 50))}
    save = Results3D.save_kitti

    def measured(result: Results3D, path: Path) -> None:
        save(result, path)
        if result.name in watched:
            gc.collect()
            sizes[result.name] = tracemalloc.get_traced_memory()[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results3D, "save_kitti", measured)
        tracemalloc.start()
        try:
            assert main(JOB) == 0
        finally:
            tracemalloc.stop()
    assert len(rows()) == 54
    early, late = (min(size for name, size in sizes.items() if name[:3] == k) for k in ("x01", "x04"))
    assert late - early < 30 * 2000
