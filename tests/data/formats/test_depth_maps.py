"""Depth maps: both file kinds against numbers written by hand, and every wrong unit by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.formats.depth_maps import checked_depth, encode_depth, find_depth, read_depth
from monolift.errors import InputError
from monolift.geometry import Camera

CAMERA = Camera(721.5, 721.5, 609.6, 172.9, width=1242, height=375)
SIZE = (1242, 375)


def road(height: float = 1.65) -> np.ndarray:
    """What the camera sees of an empty plane below it, up to 80 m; 0 for the sky."""
    rows = np.arange(375)[:, None] - float(CAMERA.cy)
    z = np.where(rows > 0, float(CAMERA.fy) * height / np.maximum(rows, 1e-9), np.inf)
    return np.broadcast_to(np.where(z < 80, z, 0), SIZE[::-1]).astype(np.float32).copy()


def save_png(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def save_npy(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def test_stored_numbers_become_metres(tmp_path: Path) -> None:
    coded = np.array([[0, 256, 640], [65535, 1, 12800]])
    expected = torch.tensor([[0.0, 1.0, 2.5], [65535 / 256, 1 / 256, 50.0]])
    assert torch.equal(read_depth(save_png(tmp_path / "a.png", coded)), expected)
    metres = np.array([[[0, np.nan, 2.5], [np.inf, 1.0, 50.0]]])  # one channel, as networks leave it
    expected = torch.tensor([[0.0, 0.0, 2.5], [0.0, 1.0, 50.0]])
    assert torch.equal(read_depth(save_npy(tmp_path / "a.npy", metres)), expected)


def test_encoding_is_inverted_by_reading(tmp_path: Path) -> None:
    metres = torch.tensor([[0.0, 7.5, 80.03], [255.99, 256.0, 1000.0]])
    back = read_depth(save_png(tmp_path / "a.png", encode_depth(metres)))
    assert torch.allclose(back[:, :2][metres[:, :2] < 256], metres[:, :2][metres[:, :2] < 256], atol=1 / 512)
    assert back[0, 2] == pytest.approx(80.03, abs=1 / 512)
    assert back[1, 1] == back[1, 2] == 0  # more than 16 bits hold


def test_metres_of_both_kinds_pass(tmp_path: Path) -> None:
    for height in (0.5, 1.65, 3.5):
        depth = road(height)
        plain = checked_depth(save_npy(tmp_path / "a.npy", depth), SIZE, CAMERA)
        coded = checked_depth(save_png(tmp_path / "a.png", depth * 256), SIZE, CAMERA)
        assert torch.equal(plain, torch.from_numpy(depth))
        assert torch.allclose(coded, plain, atol=1 / 256)


@pytest.mark.parametrize(
    ("kind", "factor", "said"),
    [
        ("npy", 1000, "look like millimetres: --depth-scale 0.001"),
        ("npy", 100, "look like centimetres: --depth-scale 0.01"),
        ("npy", 256, r"look like metres \* 256: --depth-scale 0.00390625"),
        ("png", 1000, "look like millimetres: --depth-scale 0.001"),
        ("png", 1, "look like metres: --depth-scale 1 "),
    ],
)
def test_the_road_tells_the_unit(tmp_path: Path, kind: str, factor: float, said: str) -> None:
    path = tmp_path / f"000007.{kind}"
    stored = np.minimum(road() * factor, 65535)
    (save_npy if kind == "npy" else save_png)(path, stored)
    with pytest.raises(InputError, match=f"000007.{kind}: these depths are not metres .*{said}"):
        checked_depth(path, SIZE, CAMERA)
    scale = float(said.split("scale ")[1])
    expected = torch.from_numpy(np.floor(stored) if kind == "png" else stored).float() * scale
    assert torch.allclose(checked_depth(path, SIZE, CAMERA, scale=scale), expected)


def test_millimetres_are_known_without_a_camera(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", road() * 1000)
    with pytest.raises(InputError, match=r"beyond .* m\); they look like millimetres"):
        checked_depth(path, SIZE)


def test_disparity_is_recognised_however_scaled(tmp_path: Path) -> None:
    depth = road()
    disparity = np.where(depth > 0, 721.5 * 0.54 / np.maximum(depth, 1e-9), 0)
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0)
    for path in (
        save_npy(tmp_path / "a.npy", disparity),
        save_npy(tmp_path / "b.npy", inverse),
        save_png(tmp_path / "c.png", disparity * 256),
    ):
        with pytest.raises(InputError, match=f"{path.name}: .*disparity or inverse depth"):
            checked_depth(path, SIZE, CAMERA)


def test_a_few_laser_points_pass_unjudged(tmp_path: Path) -> None:
    depth = np.zeros(SIZE[::-1], np.float32)
    depth[200:204, 600:605] = np.arange(20, 40).reshape(4, 5)
    assert (checked_depth(save_npy(tmp_path / "a.npy", depth), SIZE, CAMERA) > 0).sum() == 20


def test_refused_files(tmp_path: Path) -> None:
    Image.new("L", SIZE, 40).save(tmp_path / "eight.png")
    Image.new("RGB", SIZE, 40).save(tmp_path / "colour.png")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    save_npy(tmp_path / "text.npy", np.full((375, 1242), "a"))
    save_npy(tmp_path / "stack.npy", np.ones((3, 375, 1242)))
    save_npy(tmp_path / "negative.npy", road() - 10)
    save_npy(tmp_path / "empty.npy", road() * np.nan)
    save_npy(tmp_path / "small.npy", road()[:370, :1224])
    (tmp_path / "map.exr").write_bytes(b"")
    for name, said in {
        "eight.png": "mode L",
        "colour.png": "mode RGB",
        "broken.npy": "not a readable .npy",
        "text.npy": "numbers, got <U1",
        "stack.npy": r"\(3, 375, 1242\)",
        "negative.npy": "got -10",
        "empty.npy": "holds no depth",
        "small.npy": "is 1224 x 370, but its image is 1242 x 375",
        "map.exr": "expected a depth map as .npy",
        "gone.npy": "no such file",
        "gone.png": "no such file",
    }.items():
        with pytest.raises(InputError, match=f"{name}: .*{said}"):
            checked_depth(tmp_path / name, SIZE, CAMERA)
    with pytest.raises(InputError, match="depth scale: expected a positive number"):
        checked_depth(save_npy(tmp_path / "a.npy", road()), SIZE, CAMERA, scale=0.0)


def test_files_are_found_by_name(tmp_path: Path) -> None:
    save_png(tmp_path / "000001.png", np.ones((2, 2)))
    save_npy(tmp_path / "000002.npy", np.ones((2, 2)))
    assert find_depth(tmp_path, "000001").suffix == ".png"
    assert find_depth(tmp_path, "000002").suffix == ".npy"
    with pytest.raises(InputError, match="000003: no depth map"):
        find_depth(tmp_path, "000003")


def test_laser_scans_of_kitti_are_read_as_they_are(shared: Path) -> None:
    from monolift.data.kitti import find_image, read_camera

    root = shared / "kitti" / "training"
    for path in sorted((shared / "kitti" / "lidar_depth").glob("*.png"))[::20]:
        with Image.open(find_image(root, path.stem)) as image:
            size = image.size
        depth = checked_depth(path, size, read_camera(root / "calib" / f"{path.stem}.txt", *size))
        known = depth[depth > 0]
        assert 0.02 < (depth > 0).float().mean() < 0.1
        assert 4 < known.min() < known.max() < 90
