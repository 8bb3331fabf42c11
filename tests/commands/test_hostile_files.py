"""Folders with a bad image of each kind, files from Windows and Mac: subcommands finish and name what they leave out."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from monolift.cli import main
from toy_kitti import write_toy

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three sound images and one bad one of each kind, all with labels and calibration."""
    write_toy(tmp_path / "set", [f"{k:06d}" for k in range(3)])
    training = next(p.parent for p in (tmp_path / "set").rglob("label_2"))
    first = sorted((training / "label_2").iterdir())[0].stem
    bad = {
        "bomb.png": header_only_png(30_000, 30_000),
        "tall.png": header_only_png(32, 781_250),
        "loop.jpg": EPS,
        "empty.png": b"",
        "text.JPG": b"no image",
        "heic.jpeg": b"\0\0\0\x18ftypheic" + bytes(40),
    }
    for name, content in bad.items():
        (training / "image_2" / name).write_bytes(content)
        for folder in ("label_2", "calib"):
            shutil.copy(training / folder / f"{first}.txt", training / folder / f"{Path(name).stem}.txt")
    (training / "image_2" / "Thumbs.db").write_bytes(b"x")
    for folder in ("image_2", "label_2", "calib"):
        for file in list((training / folder).iterdir()):
            (training / folder / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07")
    return training.parent if training.name == "training" else training


BAD = ["bomb", "empty", "heic", "loop", "tall", "text"]


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "ROOT", "--to", "coco", "--out", "OUT.json"],
        ["view", "ROOT", "--out", "OUT.html"],
    ],
    ids=lambda command: command[0],
)
def test_folders_are_finished_and_bad_images_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    words = [w.replace("ROOT", str(root)).replace("OUT", str(tmp_path / "out")) for w in command]
    assert main([*words, "--quiet", "--json", str(tmp_path / "said.json")]) == 2
    said = json.loads((tmp_path / "said.json").read_text())
    assert sorted(said["failed"]) == BAD and said["images"] == 3
    error = capsys.readouterr().err
    assert "an EPS or PostScript file" in error and "a HEIC file" in error and "781250" in error
    assert "Traceback" not in error and "._" not in error


def test_augment_leaves_bad_images_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["augment", "--data", str(root), "--out", str(out), "--bank", "2", "--quiet", "--json"]
    assert main([*words, str(tmp_path / "said.json")]) == 2
    said = json.loads((tmp_path / "said.json").read_text())
    assert sorted(said["failed"]) == BAD and said["made"] == 3
    assert "6 images cannot be read" in capsys.readouterr().err
    assert len((out / "ImageSets" / "all.txt").read_text().split()) == 3


def test_inspect_lists_them_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(root), "--decode"]) == 1
    report = capsys.readouterr().out
    assert all(f"image_2/{name}" in report for name in BAD) and "image_2/Thumbs.db" in report


def test_upper_case_suffixes_are_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_toy(tmp_path / "set", [f"{k:06d}" for k in range(2)], size=(414, 125))
    training = next(p.parent for p in (tmp_path / "set").rglob("label_2"))
    for folder in ("image_2", "label_2", "calib"):
        for file in list((training / folder).iterdir()):
            file.rename(file.with_suffix(file.suffix.upper()))
    for command in (
        ["inspect", str(tmp_path / "set")],
        ["convert", str(tmp_path / "set"), "--to", "coco", "--out", str(tmp_path / "c.json")],
        ["view", str(tmp_path / "set"), "--out", str(tmp_path / "v.html")],
    ):
        assert main(command) == 0, capsys.readouterr().err


def test_marks_and_line_ends_of_windows_change_nothing(tmp_path: Path) -> None:
    from monolift.data.formats.kitti_table import read_table
    from monolift.data.kitti import KittiDataset

    write_toy(tmp_path / "set", [f"{k:06d}" for k in range(2)], size=(414, 125))
    training = next(p.parent for p in (tmp_path / "set").rglob("label_2"))
    paths = sorted((training / "label_2").iterdir())
    before = [(s.classes, s.boxes.center) for s in KittiDataset(training)]
    table = read_table(paths, scored=False)
    (training / "split.txt").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(p.stem.encode() for p in paths))
    for file in (*paths, *(training / "calib").iterdir()):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    after = [(s.classes, s.boxes.center) for s in KittiDataset(training, training / "split.txt")]
    assert all(a[0] == b[0] and (a[1] == b[1]).all() for a, b in zip(before, after, strict=True))
    assert read_table(paths, scored=False).labels.names == table.labels.names


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '[{"id": [1]}]', '{"images": [null], "annotations": [], "categories": []}']
)
def test_json_that_is_none_of_ours_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "x.json").write_text(content)
    for command in (
        ["convert", str(tmp_path / "x.json"), "--to", "kitti", "--out", str(tmp_path / "o")],
        ["view", str(tmp_path / "x.json"), "--out", str(tmp_path / "v.html")],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "x.json" in error and error.count("\n") == 1


def test_masks_of_another_size_take_no_memory(tmp_path: Path) -> None:
    from monolift.data.formats.masks import open_masks
    from monolift.errors import InputError

    row = {
        "image_id": 1,
        "category_id": 3,
        "segmentation": {"size": [200_000, 200_000], "counts": [40_000_000_000]},
    }
    (tmp_path / "m.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="size: expected at most"):
        open_masks(tmp_path / "m.json").read("000001", (64, 40))
    row["segmentation"] = {"size": [30, 64], "counts": [30 * 64]}
    (tmp_path / "m.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="the masks are 64 x 30, but the image is 64 x 40"):
        open_masks(tmp_path / "m.json").read("000001", (64, 40))


def test_maps_of_labels_folders_are_upright_too(tmp_path: Path) -> None:
    """An image stored sideways, with labels for the upright one."""
    from monolift.data.kitti import KittiDataset

    write_toy(tmp_path / "set", [f"{k:06d}" for k in range(1)], size=(414, 125))
    training = next(p.parent for p in (tmp_path / "set").rglob("label_2"))
    expected = KittiDataset(training)[0]
    (file,) = (training / "image_2").iterdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(file) as image:
        stored = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    file.unlink()
    stored.save(file.with_suffix(".png"), exif=exif)
    data = KittiDataset(training)
    assert (data[0].image == expected.image).all() and data.labels(0).size == expected.size
