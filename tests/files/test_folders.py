"""Which files count, whole files and folders, output folders that belong to a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from monolift.errors import InputError
from monolift.files import folders as door
from monolift.files import output_folder

SUFFIXES = (".png", ".jpg", ".jpeg")


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


# --- which files count


def test_one_rule_for_which_files_count(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c d.JpEg", "._a.jpg", ".DS_Store", "Thumbs.db", "notes.txt", "ü.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "crops").mkdir()
    (tmp_path / "gone.png").symlink_to("nothing")
    (tmp_path / "link.png").symlink_to("a.jpg")
    found = door.listed(tmp_path, SUFFIXES)
    assert [p.name for p in found.files] == ["a.jpg", "b.PNG", "c d.JpEg", "gone.png", "link.png", "ü.png"]
    assert found.strays == ("Thumbs.db", "folder.png", "notes.txt")
    assert found.note() == f"{tmp_path}: 3 other files are skipped (Thumbs.db, folder.png, notes.txt)"
    assert door.listed(tmp_path / "crops", SUFFIXES).note() == ""


def test_of_two_files_of_one_stem_the_first_suffix_counts(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.PNG", "2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    found = door.listed(tmp_path, SUFFIXES).by_stem(SUFFIXES)
    assert {stem: path.name for stem, path in found.items()} == {"1": "1.PNG", "2": "2.jpg"}
    assert door.find_file(tmp_path, "1", SUFFIXES) == found["1"]


@pytest.mark.parametrize("name", ["7.png", "7.PNG", "7.Jpg", "7.JPEG"])
def test_files_are_found_by_stem_whatever_the_case_of_their_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert door.find_file(tmp_path, "7", SUFFIXES) == tmp_path / name
    for stem in ("8", "7\0", "x" * 300, ""):
        assert door.find_file(tmp_path, stem, SUFFIXES) is None


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for name, reason in {"file": "is a file", "none": "no such folder", "a\0b": "cannot read"}.items():
        with pytest.raises(InputError, match=reason):
            door.listed(tmp_path / name, SUFFIXES)


def test_root_or_training(tmp_path: Path) -> None:
    needs = ("image_2", "label_2", "calib")
    with pytest.raises(
        InputError, match="no such folder: expected a KITTI folder with image_2, label_2 and calib"
    ):
        door.dataset_root(tmp_path / "none")
    with pytest.raises(InputError, match=r"expected a KITTI folder .*\(here or in training/\)"):
        door.dataset_root(tmp_path)
    (tmp_path / "training" / "image_2").mkdir(parents=True)
    with pytest.raises(InputError, match=r"training: expected folders .*; label_2, calib missing"):
        door.dataset_root(tmp_path)
    assert door.dataset_root(tmp_path, ("image_2",)) == tmp_path / "training"
    for name in needs:
        (tmp_path / "training" / name).mkdir(exist_ok=True)
    assert door.dataset_root(tmp_path) == door.dataset_root(tmp_path / "training") == tmp_path / "training"
    for name in needs:
        (tmp_path / name).mkdir()
    assert door.dataset_root(tmp_path) == tmp_path


# --- whole files


def test_writes_whole_files(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 250)  # no longer name would fit
    door.write_atomically(file, b"one")
    door.write_atomically(file, "zwölf")
    assert file.read_text("utf-8") == "zwölf"
    door.write_atomically(tmp_path / "new" / "a.txt", b"x", parents=True)
    assert names(tmp_path) == sorted(["new", "new/a.txt", file.name])
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    for name, reason in {
        "folder": "is a folder",
        "no/a": "cannot write",
        "file/a": "cannot write",
        "a\0b": "cannot write",
    }.items():
        with pytest.raises(InputError, match=reason):
            door.write_atomically(tmp_path / name, b"x")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="file: cannot write: No space left on device"):
        door.write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, RuntimeError])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises((error, InputError)), door.partial_file(tmp_path / "a.onnx") as partial:
        assert partial.suffix == ".onnx" and partial.name.startswith(".")
        partial.write_bytes(b"half")
        raise error("stop")
    with pytest.raises((error, InputError)), door.partial_folder(tmp_path / "b") as folder:
        (folder / "half").write_bytes(b"half")
        raise error("stop")
    assert names(tmp_path) == []


def test_links_and_pipes_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    door.write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    door.write_atomically(tmp_path / "pipe", b"text")
    reader.join()
    assert heard == [b"text"] and names(tmp_path) == ["link", "pipe", "real"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom monolift.files.folders import partial_file, partial_folder\n"
        "with partial_file(sys.argv[1] + '/a') as file, partial_folder(sys.argv[1] + '/b') as folder:\n"
        "    file.write_bytes(b'half'); (folder / 'half').write_bytes(b'half'); os._exit(9)\n"
    )
    source = str(Path(door.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env={"PYTHONPATH": source})
    assert len(names(tmp_path)) == 3
    door.write_atomically(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


def test_whole_folders(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        with door.partial_folder(tmp_path / "deep" / "run") as folder:
            (folder / "a").write_bytes(content)
            assert (tmp_path / "deep" / "run").exists() == (content == b"two")
        assert (tmp_path / "deep" / "run" / "a").read_bytes() == content
    assert names(tmp_path) == ["deep", "deep/run", "deep/run/a"]
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot write"), door.partial_folder(tmp_path / "file" / "run"):
        pass


# --- output folders


def claim(root: Path, **wanted: Any) -> None:
    output_folder.claim(root, "note.json", wanted, ["training/image_2", "ImageSets"], "augmented set")


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    claim(tmp_path / "new", seed=1, sizes=(1, 2))
    claim(tmp_path / "new", seed=1, sizes=(1, 2))
    assert names(tmp_path / "new") == ["ImageSets", "note.json", "training", "training/image_2"]
    with pytest.raises(
        InputError, match=r"another augmented set \(seed 1 there, 2 given; sizes|\(seed 1 there, 2 given\)"
    ):
        claim(tmp_path / "new", seed=2, sizes=(1, 2))
    with pytest.raises(InputError, match=r"more True there, None given|another augmented set"):
        claim(tmp_path / "new", seed=1)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_bytes(b"x")
    with pytest.raises(InputError, match="is not empty and not an augmented set"):
        claim(tmp_path, seed=1)
    with pytest.raises(InputError, match=r"is not empty|cannot be written to"):
        claim(tmp_path / "thesis.txt", seed=1)
    for text in ("", "[1]", "{", "\0"):
        (tmp_path / "note.json").write_text(text)
        with pytest.raises(InputError, match=r"note\.json: damaged"):
            claim(tmp_path, seed=1)


def test_a_claim_that_was_cut_short_does_not_lock_the_folder(tmp_path: Path) -> None:
    (tmp_path / "training" / "image_2").mkdir(parents=True)
    (tmp_path / ".deadbeef-1-00000000.part").write_bytes(b"half")
    claim(tmp_path, seed=1)
    with pytest.raises(InputError, match="another"):
        claim(tmp_path, seed=2)


def test_a_full_disk_in_the_first_moment_does_not_lock_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="cannot be written to: No space left"):
            claim(tmp_path / "new", seed=1)
    claim(tmp_path / "new", seed=2)


def test_of_two_claims_at_once_one_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []
    start = threading.Barrier(8)

    def run(seed: int) -> None:
        start.wait()
        try:
            claim(tmp_path / "new", seed=seed)
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7 and all("another augmented set" in line for line in refused)
