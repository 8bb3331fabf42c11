"""Data sets carried from format to format, and used afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monolift.cli import main
from monolift.data.cameras import CameraChoice
from monolift.data.formats.convert import convert, open_dataset
from monolift.data.formats.kitti_format import read_labels, read_split
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from nuscenes_tables import TABLES, write_nuscenes
from toy_kitti import write_toy

COLUMNS = ("truncation", "occlusion", "alpha", "boxes2d", "size_hwl", "bottom", "rotation_y")


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy"), ["000001", "000004"], size=(621, 187))


def test_nuscenes_becomes_a_kitti_folder_that_everything_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_nuscenes(tmp_path / "nuscenes")
    assert main(["convert", "nuscenes", "--to", "kitti", "--out", "ours", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": "ours", "images": 1, "objects": 6, "warnings": []}
    assert read_split("ours/ImageSets/all.txt") == read_split("ours/ImageSets/scene-0001.txt") == ("front",)
    sample = KittiDataset("ours")[0]
    assert sample.size == (1600, 900) and float(sample.camera.fx) == 1000
    assert sample.boxes.center[0].tolist() == pytest.approx([-3, 0.8, 18.5], abs=1e-4)
    assert main(["inspect", "ours", "--quiet"]) == 0
    results = tmp_path / "results"
    results.mkdir()
    truth = (tmp_path / "ours" / "training" / "label_2" / "front.txt").read_text()
    (results / "front.txt").write_text("".join(f"{line} 0.9\n" for line in truth.splitlines()))
    assert (
        main(
            ["evaluate", "--labels", "ours/training/label_2", "--predictions", "results", "--json", "ap.json"]
        )
        == 0
    )
    assert main(["train", "smoke", "--data", "ours", "--out", "run", "--set", "epochs=1", "--set", "batch_size=1",
                 "--set", "input_width=256", "--set", "input_height=128", "--quiet"]) == 0  # fmt: skip
    assert (tmp_path / "run" / "last" / "model.safetensors").exists()


@pytest.mark.parametrize("form", ["omni3d", "coco"])
def test_kitti_there_and_back(kitti: Path, tmp_path: Path, form: str) -> None:
    done = convert(kitti, form, tmp_path / "tables.json")
    assert (done.frames, done.objects, done.warnings) == (2, 6, ())
    convert(tmp_path / "tables.json", "kitti", tmp_path / "again")
    old, new = KittiDataset(kitti), KittiDataset(tmp_path / "again")
    assert new.ids == old.ids
    for k in range(2):
        assert (new[k].image == old[k].image).all()
        # Omni3D's boxes have moved into the camera: what is common to both is where they are seen
        for box in range(3):
            seen = [s.camera.px_from_cam(s.boxes[box].corners()[0]) for s in (old[k], new[k])]
            assert np.allclose(seen[0], seen[1], atol=1e-3)
        assert np.allclose(new[k].boxes.size, old[k].boxes.size, atol=1e-5)
        assert np.allclose(new[k].boxes.yaw, old[k].boxes.yaw, atol=1e-5)
        assert np.allclose(new[k].boxes2d, old[k].boxes2d, atol=1e-3)
    if form == "coco":  # even the label files say the same
        for name in old.ids:
            a, b = (read_labels(root / "label_2" / f"{name}.txt") for root in (old.root, new.root))
            assert all(np.allclose(getattr(a, c), getattr(b, c), atol=1e-5) for c in COLUMNS)


def test_every_format_becomes_every_other(kitti: Path, tmp_path: Path) -> None:
    """Round the corner: KITTI -> Omni3D -> COCO -> Omni3D keeps every number of the first Omni3D file."""
    first, second, third = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    convert(kitti, "omni3d", first)
    convert(first, "coco", second)
    convert(second, "omni3d", third)
    a, c = (json.loads(path.read_text())["annotations"] for path in (first, third))
    for old, new in zip(a, c, strict=True):
        for key in ("center_cam", "dimensions", "R_cam", "bbox2D_tight", "bbox3D_cam", "bbox2D_proj"):
            assert np.allclose(old[key], new[key], atol=1e-4), key
        assert (old["visibility"], old["category_name"]) == (new["visibility"], new["category_name"])


def test_a_split_and_new_names(kitti: Path, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("000004\n")
    dataset = open_dataset(kitti, split=tmp_path / "val.txt")
    convert(dataset, "kitti", tmp_path / "part", rename={"Car": "Van"})
    part = KittiDataset(tmp_path / "part")
    assert part.ids == ("000004",) and part[0].classes == ("Van",) * 3


def test_images_without_cameras_need_one(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")
    tables = {
        "images": [{"id": 1, "width": 640, "height": 480, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 60]}],
    }
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(tables))
    with pytest.raises(InputError, match=r"a\.png: no camera is known and KITTI's format needs one"):
        convert(source, "kitti", tmp_path / "ours")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "instances.json"]  # nothing half-written
    convert(
        source, "kitti", tmp_path / "ours", camera=CameraChoice.of(fov=90), rename={"person": "Pedestrian"}
    )
    (row,) = (tmp_path / "ours" / "training" / "label_2" / "a.txt").read_text().splitlines()
    assert row == "Pedestrian -1 3 -10 9.50 19.50 39.50 79.50 -1 -1 -1 -1000 -1000 -1000 -10"
    sample = KittiDataset(tmp_path / "ours")[0]
    assert float(sample.camera.fx) == pytest.approx(320)
    # nobody can learn a 3D box from this one: a region to ignore
    assert len(sample) == 0 and sample.ignore.tolist() == [[9.5, 19.5, 39.5, 79.5]]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_cannot_be_converted(
    kitti: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("precious")
    write_nuscenes(
        tmp_path / "nu", sample_data=[{**row, "filename": "gone.jpg"} for row in TABLES["sample_data"]]
    )

    def said(source: object, to: str, out: str = "new", *more: str) -> str:
        return complaint(capsys, str(source), "--to", to, "--out", out, "--quiet", *more)

    assert "nowhere: no such file or folder" in said("nowhere", "coco")
    assert "x.json: expected an Omni3D or COCO file" in said("x.json", "kitti")
    assert "there: already exists and is not overwritten" in said(kitti, "kitti", "there")
    assert "expected a KITTI folder" in said("there", "coco")
    assert "gone.jpg: no such image" in said("nu", "kitti")
    assert "a split belongs to a KITTI folder" in said("nu", "kitti", "new", "--split", "x.json")
    assert "expected OLD=NEW, got 'person'" in said(kitti, "coco", "new.json", "--rename", "person")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*.part*"))
    assert (tmp_path / "there" / "mine.txt").read_text() == "precious"


def three_images(folder: Path) -> Path:
    """A COCO file of three images of 640 x 480 with one object each."""
    for name in "abc":
        Image.new("RGB", (640, 480)).save(folder / f"{name}.png")
    tables = {
        "images": [
            {"id": k, "width": 640, "height": 480, "file_name": f"{n}.png"} for k, n in enumerate("abc")
        ],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": [10, 20, 30, 60]} for k in range(3)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(tables))
    return folder / "instances.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "b.png"),
        (b"no image", "b.png"),
        (None, "b.png: no such image"),
        ((320, 240), "expected 640 x 480 pixels as its annotations say, got 320 x 240"),
        ((480, 640), "got 480 x 640"),
    ],
)
@pytest.mark.parametrize("to", ["kitti", "coco"])
def test_a_folder_is_finished_although_one_image_is_bad(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
    content: bytes | tuple[int, int] | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    three_images(tmp_path)
    bad = tmp_path / "b.png"
    bad.unlink()
    if isinstance(content, bytes):
        bad.write_bytes(content)
    elif content is not None:
        Image.new("RGB", content).save(bad)
    arguments = [
        "convert",
        "instances.json",
        "--to",
        to,
        "--out",
        "out",
        "--fov",
        "60",
        "--quiet",
        "--json",
        "j.json",
    ]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-2] and "1 images cannot be used and are left out" in lines[-1]
    report = json.loads((tmp_path / "j.json").read_text())
    assert report["images"] == 2 and list(report["failed"]) == ["b"]
    if to == "kitti":
        assert read_split("out/ImageSets/all.txt") == ("a", "c")
    else:
        assert len(json.loads((tmp_path / "out").read_text())["images"]) == 2


def test_images_that_are_missing_can_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    three_images(tmp_path)
    (tmp_path / "b.png").unlink()
    arguments = ["convert", "instances.json", "--to", "kitti", "--fov", "60", "--quiet", "--skip-missing"]
    assert main([*arguments, "--out", "out", "--json", "j.json"]) == 0
    assert "1 images are not there and left out, first b.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "j.json").read_text())["missing"] == ["b.png"]
    for name in "ac":
        (tmp_path / f"{name}.png").unlink()
    assert main([*arguments, "--out", "none"]) == 2
    assert "no such image (and 2 more: no image can be converted)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_camera_of_another_size_is_one_bad_image(kitti: Path, tmp_path: Path) -> None:
    convert(kitti, "omni3d", tmp_path / "tables.json")
    tables = json.loads((tmp_path / "tables.json").read_text())
    tables["images"][1]["K"] = [[2 * v for v in row] for row in tables["images"][1]["K"][:2]] + [[0, 0, 1]]
    (tmp_path / "tables.json").write_text(json.dumps(tables))
    done = convert(tmp_path / "tables.json", "kitti", tmp_path / "out")
    ((name, why),) = done.failed
    assert name == "000004" and "does not fit an image of 621 x 187" in why and done.frames == 1


def test_a_key_frame_that_is_missing_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    front = TABLES["sample_data"][0]
    more = {**front, "token": "d-2", "filename": "samples/CAM_FRONT/two.jpg"}
    write_nuscenes(tmp_path / "nu", sample_data=[*TABLES["sample_data"], more])
    arguments = ["convert", "nu", "--to", "kitti", "--quiet"]
    assert main([*arguments, "--out", "all"]) == 0
    assert "1 of 2 key frames" in capsys.readouterr().err
    assert main([*arguments, "--out", "one", "--scenes", "scene-0001"]) == 0
    assert main([*arguments, "--out", "no", "--scenes", "scene-9999"]) == 2
    assert "no scene 'scene-9999'" in capsys.readouterr().err
