"""A job's manifest: what is done is known to the next run, what a kill has cut is not, and other options are refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import DiskError, InputError
from monolift.files.manifest import DONE, FAILED, FRAME, Manifest

OPTIONS = {"model": "smoke", "score": 0.5, "save": ("kitti",)}


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{name}.png" for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return [str(path) for path in paths]


def begun(folder: Path, resume: bool = True, **changes: Any) -> Manifest:
    return Manifest(Manifest.path_in(folder), "detect", {**OPTIONS, **changes}, resume)


def row(name: str) -> dict[str, Any]:
    return {"name": name, "objects": [1.5, "ü"]}


def test_a_resumed_job_knows_what_is_done(tmp_path: Path, images: list[str]) -> None:
    a, b, c = images
    first = begun(tmp_path)
    first.note(a, DONE, images=1, result=row("a"))
    first.note(b, FAILED, error="no image")
    second = begun(tmp_path)
    assert [second.is_done(s) for s in images] == [True, False, False]
    second.note(b, DONE, result=row("b"))
    second.note(c, DONE, result=row("c"))
    assert list(second.rows(images)) == [row("a"), row("b"), row("c")]
    second.close()
    third = begun(tmp_path)
    assert all(map(third.is_done, images))
    assert list(third.rows(images)) == [row("a"), row("b"), row("c")]
    assert list(third.rows([c, a])) == [row("c"), row("a")]
    assert list(begun(tmp_path, resume=False).rows(images)) == []


def test_a_file_that_has_changed_or_gone_is_not_done(tmp_path: Path, images: list[str]) -> None:
    manifest = begun(tmp_path)
    for source in images:
        manifest.note(source, DONE)
    Path(images[0]).write_bytes(b"longer than before")
    os.utime(images[1], ns=(1, 1))
    Path(images[2]).unlink()
    assert not any(map(begun(tmp_path).is_done, images))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_kill_has_cut_is_none(tmp_path: Path, images: list[str], cut: int) -> None:
    a, b, _ = images
    manifest = begun(tmp_path)
    manifest.note(a, DONE, result=row("a"))
    manifest.note(b, DONE, result=row("b"))
    manifest.close()
    path = Manifest.path_in(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    again = begun(tmp_path)
    assert [again.is_done(a), again.is_done(b)] == [True, False]
    again.note(b, DONE, result=row("b"))
    assert list(again.rows(images)) == [row("a"), row("b")]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_damaged_line_costs_its_file_alone(tmp_path: Path, images: list[str]) -> None:
    manifest = begun(tmp_path)
    for source in images:
        manifest.note(source, DONE)
    path = Manifest.path_in(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0" * 40 + b"\n"
    path.write_bytes(b"".join(lines))
    assert [begun(tmp_path).is_done(s) for s in images] == [True, False, True]


def test_other_options_are_refused_with_what_differs(tmp_path: Path) -> None:
    begun(tmp_path).close()
    with pytest.raises(
        InputError, match=r"manifest\.jsonl: was begun with other options \(score 0\.5 there, 0\.4 given\)"
    ):
        begun(tmp_path, score=0.4)
    with pytest.raises(InputError, match="job 'detect' there, 'convert' given"):
        Manifest(Manifest.path_in(tmp_path), "convert", OPTIONS, True)
    begun(tmp_path, resume=False, score=0.4)  # anew


@pytest.mark.parametrize("text", ["x\n", "{}\n", '{"schema": "other/1", "options": {}}\n', "[1]\n", "\0\n"])
def test_a_file_of_something_else_is_neither_read_nor_overwritten(tmp_path: Path, text: str) -> None:
    path = Manifest.path_in(tmp_path)
    path.write_text(text)
    with pytest.raises(InputError, match="damaged: not a manifest"):
        begun(tmp_path)
    with pytest.raises(InputError, match="is not of this program and is not overwritten"):
        begun(tmp_path, resume=False)
    assert path.read_text() == text


def test_a_video_is_done_when_its_last_frame_is(tmp_path: Path, images: list[str]) -> None:
    video = images[0]
    first = begun(tmp_path)
    first.note(video, FRAME, name="a_0", result=row("a_0"))  # killed here
    second = begun(tmp_path)
    assert not second.is_done(video)
    for name in ("a_0", "a_1"):
        second.note(video, FRAME, name=name, result=row(name))
    second.note(video, DONE, images=2)
    assert list(begun(tmp_path).rows([video])) == [row("a_0"), row("a_1")]
    broken = begun(tmp_path)
    broken.note(video, FAILED, error="a bad frame")
    broken.note(video, FRAME, name="a_1", result=row("a_1"))
    assert not begun(tmp_path).is_done(video)


def test_every_share_has_a_manifest_of_its_own(tmp_path: Path) -> None:
    assert Manifest.path_in(tmp_path, "2/8").name == "manifest-2-of-8.jsonl"


def test_without_a_folder_the_notes_go_with_the_process(images: list[str]) -> None:
    manifest = Manifest(None, "detect", OPTIONS)
    manifest.note(images[0], DONE, result=row("a"))
    assert list(manifest.rows(images)) == [row("a")]


def test_a_full_disk_is_named(tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = begun(tmp_path)

    def full(_: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "_write", full)
    with pytest.raises(DiskError, match=r"manifest\.jsonl: cannot write: No space left"):
        manifest.note(images[0], DONE)


def test_a_disk_that_is_full_at_the_end_is_a_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = begun(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"manifest\.jsonl: cannot write: No space left"):
        manifest.close()
    assert manifest._file.closed


def test_a_manifest_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path).close()
    opened: list[Any] = []
    real = Manifest._open

    def remembered(self: Manifest) -> Any:
        opened.append(real(self))
        return opened[-1]

    monkeypatch.setattr(Manifest, "_open", remembered)
    with pytest.raises(InputError, match="other options"):
        begun(tmp_path, score=0.1)
    Manifest.path_in(tmp_path).write_text("notes of mine\n")
    with pytest.raises(InputError, match="is not of this program"):
        begun(tmp_path, resume=False)
    assert len(opened) == 2 and all(file.closed for file in opened)
