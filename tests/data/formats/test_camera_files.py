"""Camera files as people have them: one camera, written in the ways of KITTI, ROS, OpenCV, RealSense and others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monolift.data.cameras import CalibText, CameraChoice, KnownCamera
from monolift.errors import InputError, MissingExtraError

P2 = "P2: 7.215e+02 0 6.095e+02 0 0 7.215e+02 1.728e+02 0 0 0 1 0\n"
ZEROS = " ".join("0" * 12)
NUMBERS = {"fx": 721.5, "fy": 721.5, "cx": 609.5, "cy": 172.8}
K = [[721.5, 0, 609.5], [0, 721.5, 172.8], [0, 0, 1]]
RESULT = {
    "schema": "monolift.inference.results/1",
    "name": "a",
    "image": {"width": 1242, "height": 375},
    "camera": {**NUMBERS, "translation": [0, 0, 0], "origin": "given"},
    "objects": [],
}
STREAM = """
 Intrinsic of "{name}" / {width}x{height} / {{YUYV/RGB8}}
  Width:        {width}
  Height:       {height}
  PPX:          {ppx}
  PPY:          172.8
  Fx:           721.5
  Fy:           721.5
  Distortion:   Inverse Brown Conrady
  Coeffs:       0       0       0       0       0
  FOV (deg):    69.78 x 42.85
"""

JSON = {
    "plain": NUMBERS,
    "sized": {**NUMBERS, "width": 1242, "height": 375},
    "realsense": {
        "width": 1242, "height": 375, "ppx": 609.5, "ppy": 172.8, "fx": 721.5, "fy": 721.5,
        "model": "distortion.inverse_brown_conrady", "coeffs": [0, 0, 0, 0, 0],
    },
    "realsense by number": {
        "width": 1242, "height": 375, "ppx": 609.5, "ppy": 172.8, "fx": 721.5, "fy": 721.5, "model": 4, "coeffs": [0] * 5,
    },
    "streams": {"color": {**NUMBERS, "width": 1242, "height": 375}, "depth": {"fx": 1, "fy": 1, "cx": 1, "cy": 1}},
    "nested K": {"K": K},
    "flat K": {"K": [v for row in K for v in row], "width": 1242, "height": 375},
    "Open3D": {"width": 1242, "height": 375, "intrinsic_matrix": [721.5, 0, 0, 0, 721.5, 0, 609.5, 172.8, 1]},
    "Omni3D": {
        "images": [
            {"id": 1, "file_path": "x/a.jpg", "width": 1242, "height": 375, "K": K},
            {"id": 2, "file_path": "x/b.jpg", "width": 1242, "height": 375, "K": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
        ]
    },
    "result": RESULT,
    "results": [{**RESULT, "name": "b", "camera": {}}, RESULT],
    "OpenCV": {
        "image_width": 1242, "image_height": 375,
        "camera_matrix": {"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d", "data": [v for row in K for v in row]},
    },
}  # fmt: skip

TEXT = {
    "KITTI object": f"P0: {ZEROS}\n{P2}P3: {ZEROS}\nR0_rect: 1 0 0 0 1 0 0 0 1\n",
    "byte order mark, CRLF": "\ufeff" + P2.replace("\n", "\r\n"),
    "KITTI tracking": f"{P2}R_rect 1 0 0 0 1 0 0 0 1\nTr_velo_cam {ZEROS}\nTr_imu_velo {ZEROS}\n",
    "KITTI odometry": f"{P2}Tr: {ZEROS}\n",
    "KITTI raw": "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.95e-02\nS_02: 1.392e+03 5.12e+02\n"
    f"P_rect_00: {ZEROS}\nS_rect_02: 1.242e+03 3.75e+02\nP_rect_02: {P2[4:]}",
    "RealSense, printed": "[ 1242x375  p[609.5 172.8]  f[721.5 721.5]  Inverse Brown Conrady [0 0 0 0 0] ]",
    "RealSense, enumerated": "Intrinsic Parameters:\n"
    + STREAM.format(name="Depth", width=1242, height=375, ppx=1)
    + STREAM.format(name="Color", width=640, height=480, ppx=2)
    + STREAM.format(name="Color", width=1242, height=375, ppx=609.5),
    "matrix": "721.5 0 609.5\n0 721.5 172.8\n0 0 1\n",
    "4 x 4": "721.5 0 609.5 0\n0 721.5 172.8 0\n0 0 1 0\n0 0 0 1\n",
    "four numbers": "# fx fy cx cy\n721.5, 721.5, 609.5, 172.8\n",
}

YAML = {
    "OpenCV": """%YAML:1.0
---
calibration_time: "Sat 01 Jan 2022"
image_width: 1242
image_height: 375
flags: 0
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 7.2150000000000000e+02, 0., 609.5, 0., 7.215e+02,
       172.8, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ 0., 0., 0., 0., 0. ]
""",
    "OpenCV stereo": """%YAML:1.0
M1: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 721.5, 0., 609.5, 0., 721.5, 172.8, 0., 0., 1. ]
D1: !!opencv-matrix
   rows: 1
   cols: 4
   dt: d
   data: [ 0., 0., 0., 0. ]
M2: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 1., 0., 1., 0., 1., 1., 0., 0., 1. ]
""",
    "Kalibr": """cam0:
  camera_model: pinhole
  intrinsics: [721.5, 721.5, 609.5, 172.8]
  distortion_model: radtan
  distortion_coeffs: [0.0, 0.0, 0.0, 0.0]
  resolution: [1242, 375]
""",
    "ORB-SLAM": "%YAML:1.0\n# mine\nCamera.fx: 721.5\nCamera.fy: 721.5\nCamera.cx: 609.5\nCamera.cy: 172.8\nCamera.k1: 0.0\n",
    "numbers of YAML 1.2": "\ufeff# mine\nfx: 7.215e2\nfy: 721.5 # same\ncx: +609.5\ncy: .1728e3\nwidth: 0x4da\nheight: 0o567",
    "tabs": "camera:\n\tfx: 721.5\n\tfy: 721.5\n\tcx: 609.5\n\tcy: 172.8\n",
    "RealSense, older": "width: 1242, height: 375, ppx: 609.5, ppy: 172.8, fx: 721.5, fy: 721.5, model: Brown Conrady, "
    "coeffs: [0, 0, 0, 0, 0]",
    "RealSense": "width: 1242\nheight: 375\nfx: 721.5\nfy: 721.5\nppx: 609.5\nppy: 172.8\nmodel: None\ncoeffs: [0, 0, 0, 0, 0]",
}


def camera_in(content: str | bytes, size: tuple[int, int] = (1242, 375)) -> KnownCamera:
    return CameraChoice.of(calib=CalibText(content, "file")).for_image("a", *size)


def check(known: KnownCamera) -> None:
    camera = known.camera
    numbers = [float(getattr(camera, k)) for k in ("fx", "fy", "cx", "cy", "tx", "ty", "tz")]
    assert numbers == [721.5, 721.5, 609.5, 172.8, 0, 0, 0] and (camera.width, camera.height) == (1242, 375)
    assert known.warnings == ()


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize("suffix", [".json", ".txt"])
def test_json(kind: str, suffix: str, tmp_path: Path) -> None:
    """What a file holds decides, not its suffix."""
    (tmp_path / f"a{suffix}").write_text(json.dumps(JSON[kind]))
    check(CameraChoice.of(calib=tmp_path).for_image("a", 1242, 375))
    check(camera_in(json.dumps(JSON[kind], indent="\t").encode("utf-8-sig")))


@pytest.mark.parametrize("kind", TEXT)
def test_text(kind: str) -> None:
    check(camera_in(TEXT[kind]))
    check(camera_in(TEXT[kind].encode()))


@pytest.mark.parametrize("kind", YAML)
def test_yaml(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="PyYAML is the extra [ros]")
    (tmp_path / "a.yml").write_text(YAML[kind], encoding="utf-8")
    check(CameraChoice.of(calib=tmp_path).for_image("a", 1242, 375))


def test_a_drive_s_one_file_serves_all_its_images(tmp_path: Path) -> None:
    (tmp_path / "calib_cam_to_cam.txt").write_text(TEXT["KITTI raw"])
    check(CameraChoice.of(calib=tmp_path).for_image("0000000005", 1242, 375))


def test_a_stated_size_follows_a_resize_and_another_shape_is_refused() -> None:
    half = camera_in(json.dumps(JSON["sized"]), (621, 187)).camera
    assert float(half.fx) == pytest.approx(721.5 / 2)
    with pytest.raises(InputError, match="file: it is for images of 1242 x 375, this one has 640 x 480"):
        camera_in(json.dumps(JSON["sized"]), (640, 480))
    with pytest.raises(InputError, match="no stream of the shape of 800 x 800: found 640 x 480, 1242 x 375"):
        camera_in(TEXT["RealSense, enumerated"], (800, 800))


def test_distortion_is_warned_about_in_pixels() -> None:
    content = {**JSON["realsense"], "coeffs": [-0.3, 0.1, 0, 0, 0]}
    (warning,) = camera_in(json.dumps(content)).warnings
    assert "the lens bends the image, by up to 121 pixels" in warning


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got an empty file"),
        ("<html></html>", "expected a KITTI calib, a ROS camera_info"),
        ("1 2 3", "got 3 numbers"),
        ("1 2 3 nan", "number 4: expected a finite number"),
        ("[]", "expected the camera of image 'a' among 0 rows"),
        ("[1, 2]", "among 2 rows"),
        ("{}", "expected fx, fy, cx, cy or a matrix K, got no fields"),
        ("{", "not JSON"),
        ("[" * 100_000, "deep"),
        ('{"fx": NaN, "fy": 1, "cx": 1, "cy": 1}', "fx: expected a finite number, got nan"),
        ('{"fx": 1e999, "fy": 1, "cx": 1, "cy": 1}', "fx: expected a finite number, got inf"),
        ('{"fx": ' + "9" * 400 + ', "fy": 1, "cx": 1, "cy": 1}', "digits"),
        ('{"fx": null, "fy": 1, "cx": 1, "cy": 1}', "fx: expected a finite number, got None"),
        ('{"fx": "721", "fy": 1, "cx": 1, "cy": 1}', "fx: expected a finite number, got '721'"),
        ('{"fx": true, "fy": 1, "cx": 1, "cy": 1}', "fx: expected a finite number, got True"),
        (json.dumps({**NUMBERS, "width": "x", "height": 3}), "image_width: expected whole pixels"),
        (json.dumps({**NUMBERS, "width": 1242}), "expected the field image_height or height"),
        (json.dumps({**NUMBERS, "width": 1242, "height": 10**200}), "image_height: expected whole pixels"),
        (json.dumps({**NUMBERS, "model": "Kannala Brandt4"}), "a fisheye camera"),
        (json.dumps({**NUMBERS, "model": 3}), "a fisheye camera"),
        (json.dumps({**NUMBERS, "model": [1]}), "distortion_model: expected a name"),
        (json.dumps({**NUMBERS, "D": "x"}), "d: expected a list of finite numbers"),
        (json.dumps({**NUMBERS, "D": [1e300, 1e300, 0, 0]}), "expected distortion coefficients of a camera"),
        (json.dumps({**NUMBERS, "fx": -721}), "positive"),
        (
            json.dumps({**NUMBERS, "fx": 0, "D": [0.1, 0, 0, 0]}),
            "positive focal lengths in pixels, got fx = 0",
        ),
        (json.dumps({**NUMBERS, "fy": -1e-320, "D": [0.1, 0, 0, 0]}), "positive focal lengths in pixels"),
        (json.dumps({**NUMBERS, "fx": 1e38, "fy": 1e38}), "not in millimetres"),
        (json.dumps({"K": [[721, 2, 609], [0, 721, 172], [0, 0, 1]]}), "expected fx 0 cx 0 fy cy 0 0 1"),
        (json.dumps({"K": [[721, 2], [0, 721]]}), "k: expected 9 finite numbers, got 4"),
        (json.dumps({"a": {"b": 1}, "c": {"d": 1}}), "expected fx, fy, cx, cy or a matrix K, got a, c"),
        (P2.replace("7.215e+02 0 6.095e+02 0 ", "7.215e+02 0 6.095e+02 4.4e+04 "), "t in metres"),
        ("P2: 1 2\n", "P2: expected 12 numbers, got 2"),
        ("P_rect_02: 1 2\n", "file:1: P_rect_02: expected 12 numbers, got 2"),
        (P2.encode("utf-16"), "UTF-16"),
        (b"\xff\xfe\x00\x01\x02", "file"),
    ],
)
def test_what_is_no_camera_is_one_named_error(content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        camera_in(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_width: 1\nimage_height: 1\nroi: whole\nK: [1,0,0,0,1,0,0,0,1]\n", "roi: expected x_offset"),
        ("a: &a [1]\nb: *a\n", "alias"),
        ("fx: !!python/object:os.system x\n", "tag"),
        ("fx: 721.5\nfy: 721.5\ncx: 2001-13-13\ncy: 1\n", "cx: expected a finite number"),
        ("fx: 721.5\nfy: yes\ncx: 1\ncy: 1\n", "fy: expected a finite number, got 'yes'"),
        ("fx: [\n", "not YAML"),
    ],
)
def test_yaml_that_is_no_camera(content: str, message: str) -> None:
    pytest.importorskip("yaml", reason="PyYAML is the extra [ros]")
    with pytest.raises(InputError, match=message):
        camera_in(content)


@pytest.mark.parametrize(
    "content",
    [
        "\n" * 900_000,
        "x" + "\n" * 900_000,
        "a" + " " * 900_000,
        "a" * 900_000,
        "1x1 p[1 1] f[1 1] " + " " * 900_000,
        'Intrinsic of "Color"\nCoeffs: ' + " 1" * 400_000 + "\nx:" + " " * 400_000 + "x",
        "x " * 2_000_000,
        " " * 900_000 + "P2",
        "- " * 450_000,
    ],
)
def test_long_files_of_nothing_are_refused(content: str) -> None:
    """Within moments: a pattern that is searched again from each blank would take hours."""
    with pytest.raises((InputError, MissingExtraError)):
        camera_in(content)
