"""A download of KITTI against the published counts: what is missing is said in one line each."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from monolift.cli import main
from monolift.inspection import kitti_download
from monolift.inspection.kitti_download import check_kitti

ROW = "{} 0 0 0 10 10 40 40 1.5 1.6 3.9 0 1.5 20 0\n"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of three and two images, and counts that it meets."""
    from PIL import Image

    monkeypatch.setattr(kitti_download, "COUNTS", {"training": 3, "testing": 2})
    monkeypatch.setattr(kitti_download, "LABELS", {"Car": 3, "DontCare": 3})
    monkeypatch.setattr(kitti_download, "RIGS", {700.0: (3, (64, 32))})
    monkeypatch.setattr(kitti_download, "SPLITS", {"train": 2, "val": 1, "trainval": 3})
    for part, count in (("training", 3), ("testing", 2)):
        for name in kitti_download.FOLDERS[part]:
            (tmp_path / part / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (64, 32)).save(tmp_path / part / f"image_2/{k:06d}.png")
            (tmp_path / part / f"calib/{k:06d}.txt").write_text("P2: 700 0 32 0 0 700 16 0 0 0 1 0\n")
            if part == "training":
                rows = ROW.format("Car") + ROW.format("DontCare")
                (tmp_path / f"training/label_2/{k:06d}.txt").write_text(rows)
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/train.txt").write_text("000000\n000001\n")
    (tmp_path / "ImageSets/val.txt").write_text("000002\n")
    return tmp_path


def test_a_whole_download_is_complete(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["inspect", str(small), "--kitti"]) == 0
    said = capsys.readouterr().out
    assert "Complete." in said and "3 image sizes checked" in said
    assert check_kitti(small / "training") == check_kitti(small)
    monkeypatch.chdir(small / "training")
    assert check_kitti(".") == check_kitti(small)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (
            lambda d: (d / "training/image_2/000001.png").unlink(),
            "training/image_2: 2 of 3 files, first missing 000001",
        ),
        (lambda d: (d / "testing/calib/000000.txt").unlink(), "testing/calib: 1 of 2 files"),
        (
            lambda d: (d / "training/label_2/000002.txt").write_text(ROW.format("Car")),
            "2 rows of DontCare, expected 3",
        ),
        (lambda d: (d / "training/label_2/000003.txt").write_text(""), "1 files that KITTI does not have"),
        (
            lambda d: (d / "training/label_2/000000.txt").write_text(ROW.format("car")),
            "classes that KITTI does not have",
        ),
        (lambda d: (d / "ImageSets/val.txt").write_text("000001\n"), "1 ids are in train.txt and val.txt"),
        (lambda d: (d / "ImageSets/train.txt").unlink(), "ImageSets/train.txt: missing"),
        (
            lambda d: (d / "training/calib/000000.txt").write_text("P2: 710 0 32 0 0 710 16 0 0 0 1 0\n"),
            "focal length 710",
        ),
        (lambda d: (d / "training/calib/000000.txt").write_text("P2: 1\n"), "calib/000000.txt"),
        (lambda d: (d / "training/image_2/000000.png").write_bytes(b"no image"), "000000.png"),
    ],
)
def test_what_is_missing_is_said_in_one_line(small: Path, harm, said: str) -> None:  # type: ignore[no-untyped-def]
    harm(small)
    found = check_kitti(small)
    assert any(said in line for line in found.missing), found
    assert not any("\n" in line for line in found.missing)


def test_options_that_have_no_meaning_are_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(small), "--kitti", "--json", "-"]) == 2
    assert "--json" in capsys.readouterr().err
    assert main(["inspect", str(small), "--kitti", "--decode"]) == 2
    assert "--decode" in capsys.readouterr().err


@pytest.mark.slow
def test_the_published_labels_and_cameras_have_the_counts(shared: Path, tmp_path: Path) -> None:
    archive = shared / "kitti/all_labels_calib.zip"
    if not archive.is_file():
        pytest.skip("no archive of all labels")
    with zipfile.ZipFile(archive) as labels:
        labels.extractall(tmp_path)
    found = check_kitti(tmp_path)
    wanted = (
        "training/label_2: 7,481 files",
        "training/calib: 7,481 files",
        "labels: 28,742 Car",
        "cameras: four",
    )
    assert all(any(line.startswith(start) for line in found.present) for start in wanted)
    assert all("image_2" in line or "testing" in line or "ImageSets" in line for line in found.missing)
