"""Scans to depth maps and masks to maps of label rows, as `monolift convert` makes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.cli import main
from monolift.data.formats.depth_maps import read_depth
from monolift.data.formats.kitti_format import read_labels
from monolift.data.formats.velodyne import depth_of_points
from monolift.data.kitti import KittiDataset
from monolift.errors import DiskError
from monolift.files.json_text import read_json
from monolift.geometry import Camera
from toy_kitti import write_toy

# scanner: x forward, y left, z up, 0.27 m behind and 0.08 m above the camera
SCANNER = "0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    training = write_toy(tmp_path, ["000000", "000001"], cars=2, size=(414, 125)) / "training"
    (training / "velodyne").mkdir()
    rng = np.random.default_rng(0)
    for name in ("000000", "000001"):
        calib = training / "calib" / f"{name}.txt"
        calib.write_text(calib.read_text() + f"R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: {SCANNER}\n")
        points = np.column_stack(
            [rng.uniform(-5, 40, 400), rng.uniform(-15, 15, 400), rng.uniform(-2, 1, 400), np.ones(400)]
        )
        points.astype("<f4").tofile(training / "velodyne" / f"{name}.bin")
    return training


def test_a_scan_becomes_the_depths_of_the_pixels_it_falls_on(root: Path, tmp_path: Path) -> None:
    out = root / "depth_2"
    assert main(["convert", str(root), "--to", "depth", "--out", str(out), "--quiet"]) == 0
    sample = KittiDataset(root, depth=True)[1]
    assert sample.depth is not None
    points = np.fromfile(root / "velodyne" / "000001.bin", "<f4").reshape(-1, 4)[:, :3]
    expected = torch.zeros(125, 414)
    for x, y, z in points.tolist():  # one after the other; KITTI's axes by hand
        point = torch.tensor([-y, -z - 0.08, x - 0.27])
        if float(sample.camera.depth(point)) <= 0.5:
            continue
        u, v = sample.camera.px_from_cam(point).round().long().tolist()
        if 0 <= u < 414 and 0 <= v < 125 and (expected[v, u] == 0 or point[2] < expected[v, u]):
            expected[v, u] = point[2]
    assert int((expected > 0).sum()) > 50
    torch.testing.assert_close(sample.depth, expected, atol=1 / 256, rtol=0)


def test_the_nearest_point_of_a_pixel_wins_and_odd_points_count_nothing() -> None:
    camera = Camera(100.0, 100.0, 10.0, 5.0, width=20, height=10)
    nan = float("nan")
    points = torch.tensor([[0.0, 0, 30], [0, 0, 10], [0, 0, 20], [0, 0, -5], [nan, 0, 5], [50, 0, 1]])
    depth = depth_of_points(points, camera)
    assert depth[5, 10] == 10 and int((depth > 0).sum()) == 1
    assert not depth_of_points(points[:0], camera).any()


def write_masks(root: Path, folder: Path, name: str) -> None:
    """A detector's masks: the labelled 2D boxes in reverse order, two pixels smaller, and one of something unlabelled."""
    folder.mkdir(exist_ok=True)
    boxes = read_labels(root / "label_2" / f"{name}.txt").boxes2d
    numbers = np.zeros((125, 414), np.uint16)
    numbers[2:12, 2:30] = 9
    for number, (x1, y1, x2, y2) in enumerate(boxes[::-1].round().astype(int), 1):
        numbers[y1 + 1 : y2, x1 + 1 : x2] = number
    Image.fromarray(numbers).save(folder / f"{name}.png")


def test_masks_become_the_rows_of_the_labels_they_belong_to(root: Path, tmp_path: Path) -> None:
    write_masks(root, tmp_path / "masks", "000000")
    words = ["--masks", str(tmp_path / "masks"), "--out", str(root / "instance_2"), "--quiet"]
    report = tmp_path / "r.json"
    assert main(["convert", str(root), "--to", "instances", *words, "--json", str(report)]) == 0
    assert json.loads(report.read_text()) == {
        "out": str(root / "instance_2"), "images": 1, "objects": 2,
    }  # fmt: skip
    sample = KittiDataset(root, ["000000"], instances=True)[0]
    assert sample.instances is not None and not sample.instances[2:12, 2:30].any()
    for k, box in enumerate(sample.boxes2d):
        v, u = torch.nonzero(sample.instances == k + 1, as_tuple=True)
        found = torch.stack([u.min(), v.min(), u.max(), v.max()]).float()
        torch.testing.assert_close(found, box, atol=25, rtol=0)  # a nearer car may cover a side
        assert len(u) > 20


def test_the_table_of_the_masks_is_read_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masks(root, tmp_path / "masks", "000000")
    rows = [{"id": k, "box": [0, 0, 9, 9], "score": 1, "class": "Car"} for k in (1, 2, 9)]
    (tmp_path / "masks" / "all.json").write_text(json.dumps({"000000": rows}))
    read = []

    def counted(path: Path) -> object:
        read.append(Path(path).name)
        return read_json(path)

    monkeypatch.setattr("monolift.data.formats.masks.read_json", counted)
    words = ["--masks", str(tmp_path / "masks"), "--out", str(root / "instance_2"), "--quiet"]
    assert main(["convert", str(root), "--to", "instances", *words]) == 0
    assert read == ["all.json"]


def test_what_cannot_be_converted_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    depth = ["convert", str(root), "--to", "depth", "--quiet", "--out"]
    (root / "velodyne" / "000000.bin").write_bytes(b"12345")
    assert main([*depth, str(tmp_path / "maps")]) == 2  # one of two fails, the other is written
    assert "000000.bin: expected 16 bytes for each point" in capsys.readouterr().err
    assert [p.name for p in sorted((tmp_path / "maps").iterdir())] == ["000001.png"]
    assert float(read_depth(tmp_path / "maps" / "000001.png").max()) > 1
    assert main([*depth, str(tmp_path / "maps")]) == 2
    assert "already exists" in capsys.readouterr().err
    (root / "velodyne" / "000001.bin").write_bytes(b"1")
    assert main([*depth, str(tmp_path / "none")]) == 2
    assert "no image can be converted" in capsys.readouterr().err and not (tmp_path / "none").exists()
    for extra in (
        ["--to", "instances"],
        ["--to", "depth", "--masks", str(root)],
        ["--to", "coco", "--masks", str(root)],
    ):
        assert main(["convert", str(root), *extra, "--out", str(tmp_path / "x")]) == 2
        assert "--masks" in capsys.readouterr().err
    write_masks(root, tmp_path / "others", "000000")
    (tmp_path / "others" / "000000.png").rename(tmp_path / "others" / "7.png")
    words = ["--to", "instances", "--masks", str(tmp_path / "others"), "--out", str(tmp_path / "x")]
    assert main(["convert", str(root), *words]) == 2
    assert "speak of none of its images" in capsys.readouterr().err


def test_a_full_disk_ends_the_job_and_a_scan_may_be_spelled_in_capitals(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "velodyne" / "000001.bin").rename(root / "velodyne" / "000001.BIN")
    words = ["convert", str(root), "--to", "depth", "--out", str(root / "depth_2"), "--quiet"]
    written = []

    def fills_up(path: Path, *_: object, **__: object) -> None:
        written.append(path)
        raise DiskError(f"{path.name}: cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("monolift.data.formats.maps.write_image", fills_up)
        assert main(words) == 1
    assert len(written) == 1 and not (root / "depth_2").exists()
    shutil.rmtree(root / "label_2")  # as in KITTI's testing/
    assert "No space left on device" in capsys.readouterr().err
    assert main(words) == 0
