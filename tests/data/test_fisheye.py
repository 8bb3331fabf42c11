"""Fisheye cameras: the models' own formulas, rectified images, files, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.cli import main
from monolift.data.camera_check import CameraNumbers
from monolift.data.fisheye import Fisheye, read_fisheye
from monolift.errors import InputError

NUMBERS = CameraNumbers(120.0, 121.0, 159.5, 119.5)
KB = Fisheye(NUMBERS, 320, 240, "kannala_brandt", (-0.02, 0.01, -0.003, 0.0005))
FOV = Fisheye(NUMBERS, 320, 240, "fov", (0.9,))
KALIBR = """cam0:
  camera_model: pinhole
  distortion_model: equidistant
  distortion_coeffs: [-0.02, 0.01, -0.003, 0.0005]
  intrinsics: [120.0, 121.0, 159.5, 119.5]
  resolution: [320, 240]
"""
OPENCV = {
    "distortion_model": "fisheye", "K": [[120, 0, 159.5], [0, 121, 119.5], [0, 0, 1]], "D": list(KB.coefficients),
    "width": 320, "height": 240,
}  # fmt: skip


def test_kannala_brandt_by_hand() -> None:
    """OpenCV's documentation of its fisheye module, written out for one point."""
    x, y, z = 0.8, -0.3, 1.1
    a, b = x / z, y / z
    r = math.hypot(a, b)
    theta = math.atan(r)
    k1, k2, k3, k4 = KB.coefficients
    bent = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
    expected = [120 * bent / r * a + 159.5, 121 * bent / r * b + 119.5]
    assert KB.px_from_cam(torch.tensor([x, y, z])).tolist() == pytest.approx(expected, abs=1e-4)


def test_fov_by_hand() -> None:
    r_u = math.hypot(0.5, 0.2)
    r_d = math.atan(2 * r_u * math.tan(0.45)) / 0.9
    expected = [120 * 0.5 * r_d / r_u + 159.5, 121 * 0.2 * r_d / r_u + 119.5]
    assert FOV.px_from_cam(torch.tensor([0.5, 0.2, 1.0])).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fisheye", [KB, FOV])
def test_a_grid_is_flat_after_rectification(fisheye: Fisheye) -> None:
    """A fisheye image of colours that are linear in x / z: rectified, they are linear in u."""
    camera = fisheye.pinhole(80)
    far = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    columns = fisheye.px_from_cam(torch.stack([far, torch.zeros_like(far), torch.ones_like(far)], 1))[:, 0]
    u = torch.arange(320, dtype=torch.float64)
    tangent = torch.from_numpy(
        np.interp(u.numpy(), columns.numpy(), far.numpy())
    )  # on the row of the principal point
    image = (127 + 100 * tangent).round().to(torch.uint8).expand(3, 240, 320)
    row = fisheye.rectified(image, camera)[
        0, 119
    ].double()  # the principal point's row in both images, but for half a pixel
    expected = 127 + 100 * (u - camera.cx) / camera.fx
    assert float((row - expected).abs().max()) < 2


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(OPENCV))
    assert read_fisheye(tmp_path / "a.json") == KB
    pytest.importorskip("yaml")
    (tmp_path / "a.yaml").write_text(KALIBR)
    assert read_fisheye(tmp_path / "a.yaml") == KB


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distortion_model": "plumb_bob"}, "expected a fisheye's"),
        ({"D": [0.1, 0.2]}, "expected 4 coefficients, got 2"),
        ({"D": [-3, 0, 0, 0]}, "fold the image"),
        ({"width": None}, "width"),
        ({"K": None}, "expected the intrinsics"),
        ({"distortion_model": "fov", "D": [4]}, "expected an angle"),
    ],
)
def test_wrong_files_are_one_line(change: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**OPENCV, **change}))
    with pytest.raises(InputError, match=said) as caught:
        read_fisheye(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text(json.dumps(OPENCV))
    Path("in").mkdir()
    Image.new("RGB", (320, 240), (200, 10, 10)).save("in/x.png")
    assert main(["rectify", "in", "--calib", "a.json", "--fov", "80", "--out", "flat", "--quiet"]) == 0
    camera = json.loads(Path("flat/camera.json").read_text())
    assert camera["fx"] == pytest.approx(160 / math.tan(math.radians(40)), abs=1e-3) and camera["cx"] == 159.5
    with Image.open("flat/x.png") as image:
        assert image.size == (320, 240) and image.getpixel((160, 120)) == (200, 10, 10)
    assert main(["rectify", "in", "--calib", "a.json", "--fov", "170", "--out", "flat"]) == 2
    assert "expected 20 to 119 degrees" in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save("in/y.png")
    assert main(["rectify", "in", "--calib", "a.json", "--out", "new"]) == 2
    assert (
        "in/y.png: expected an image of 320 x 240" in capsys.readouterr().err and Path("new/x.png").is_file()
    )
    assert main(["rectify", "in", "--calib", "a.json", "--out", "in"]) == 2
    assert main(["rectify", "in"]) == 2
