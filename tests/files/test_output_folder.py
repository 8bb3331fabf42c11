"""Output folders: one process at a time, told from what killed ones left; folders are replaced in one step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monolift.errors import DiskError, InputError
from monolift.files import folders
from monolift.files.output_folder import locked, locked_beside

LEFT = ".deadbeef-1-0000abcd.part"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_second_process_is_told_and_touches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    with locked(out, "synth"):
        before = names(tmp_path)
        for options in ({}, {"shared": True}, {"shard": "1/2"}):
            with (
                pytest.raises(
                    InputError, match="out: another synth is writing there: wait for it, or choose another"
                ),
                locked(out, "synth", **options),  # type: ignore[arg-type]
            ):
                pass
        assert names(tmp_path) == before
        (out / "file").write_text("x")
    assert names(tmp_path) == ["out", "out/file"]
    with locked(out, "synth"):
        pass


def test_shares_write_at_the_same_time_but_no_share_twice(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with locked(tmp_path, "autolabel", "1/2"), locked(tmp_path, "autolabel", "2/2"):
        for shard in ("1/2", ""):
            with pytest.raises(InputError, match="another autolabel"), locked(tmp_path, "autolabel", shard):
                pass
    assert names(tmp_path) == []


def test_a_file_that_appears_whole_has_its_lock_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with locked_beside(tmp_path / "new" / "a.onnx", "export"):
        with (
            pytest.raises(InputError, match="another export"),
            locked_beside(tmp_path / "new" / "a.onnx", "export"),
        ):
            pass
        with locked_beside(tmp_path / "new" / "b.onnx", "export"):
            pass
    assert names(tmp_path) == ["new"]


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with pytest.raises(InputError), locked(tmp_path / "new", "synth"):
        raise InputError("of something else")
    assert names(tmp_path) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom monolift.files.output_folder import locked\nfrom pathlib import Path\n"
        "from monolift.files.folders import new_partial\n"
        "with locked(sys.argv[1], 'synth'):\n    new_partial(Path(sys.argv[1])).mkdir(); os.kill(os.getpid(), 9)\n"
    )
    source = str(Path(folders.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env={"PYTHONPATH": source})
    assert len(names(tmp_path)) == 2
    with locked(tmp_path, "synth"):
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


def test_who_writes_alone_removes_what_is_unfinished_and_nothing_else(tmp_path: Path) -> None:
    mine = folders.new_partial(tmp_path)
    (tmp_path / "deep").mkdir()
    for path in (
        tmp_path / LEFT,
        tmp_path / "deep" / f"{LEFT}.onnx",
        mine,
        tmp_path / ".notes.part",
        tmp_path / "a.part",
    ):
        path.write_text("x")
    with locked(tmp_path, "autolabel", "1/2"):
        assert (tmp_path / LEFT).exists()  # of another machine, which may be at work
    with locked(tmp_path, "autolabel"):
        assert names(tmp_path) == sorted([".lock", mine.name, ".notes.part", "a.part", "deep"])


@pytest.mark.parametrize("swaps", [True, False])
def test_there_is_a_whole_folder_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    """Before each rename the old or the new one is there, or, where folders cannot be swapped, comes back by `recover`."""
    if not swaps:
        monkeypatch.setattr(folders, "_swap", lambda *_: False)
    best = tmp_path / "best"

    def fill(content: str, keep: bool) -> None:
        with folders.partial_folder(best, keep) as folder:
            (folder / "a").write_text(content)
            (folder / "b").write_text(content)

    seen: list[bool] = []
    real = os.replace

    def replace(one: Path, other: Path) -> None:
        whole = best if best.exists() else best.with_name("best.old" if keep else ".best.old")
        seen.append(best.exists())
        assert len({(whole / name).read_text() for name in "ab"}) == 1
        real(one, other)

    for keep in (False, True):
        fill("0", keep)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            for k in range(1, 4):
                fill(str(k), keep)
                assert (best / "a").read_text() == str(k)
        assert [p.name for p in sorted(tmp_path.iterdir())] == ["best"] + ["best.old"] * keep
        if keep:
            assert (best.with_name("best.old") / "b").read_text() == "2"
    assert all(seen) or not swaps or sys.platform != "linux"
    best.rename(tmp_path / "gone")
    folders.recover(best)
    assert (best / "a").read_text() == "2"
    best.rename(tmp_path / ".best.old")
    folders.recover(best)
    assert (best / "a").read_text() == "2"


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_the_user_has_put_aside_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, there: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(folders, "_swap", lambda *_: False)
    (tmp_path / "depth_2.old").mkdir()
    (tmp_path / "depth_2.old" / "mine").write_text("x")
    if there:
        (tmp_path / "depth_2").mkdir()
    with folders.partial_folder(tmp_path / "depth_2") as folder:
        (folder / "new").write_text("x")
    assert names(tmp_path) == ["depth_2", "depth_2.old", "depth_2.old/mine", "depth_2/new"]


@pytest.mark.parametrize("code", [28, 5, 122, 27])
def test_a_full_disk_is_of_its_own_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fails(_: Path, *__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails)
        with pytest.raises(DiskError, match=rf"^{tmp_path}/a: cannot write: {os.strerror(code)}$"):
            folders.write_atomically(tmp_path / "a", b"x")
        patch.setattr(os, "replace", fails)
        with pytest.raises(DiskError, match=r"/b: cannot write: "), folders.partial_folder(tmp_path / "b"):
            pass
    assert names(tmp_path) == []
