"""Where the camera comes from, and what is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from camera_files import SAVED
from monolift.data.cameras import CameraChoice, camera_from_film, check_camera, check_dataset, parse_camera
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Camera
from toy_kitti import write_toy

KITTI = (721.5377, 721.5377, 609.5593, 172.854)
P2 = "P2: 721.5377 0.0 609.5593 44.85728 0.0 721.5377 172.854 0.2163791 0.0 0.0 1.0 0.002745884\n"


def numbers(camera: Camera) -> tuple[float, ...]:
    return tuple(float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy"))


def test_four_numbers_get_the_size_of_the_image() -> None:
    known = CameraChoice.of("721.5377,721.5377,609.5593,172.854").for_image("a", 1242, 375)
    assert numbers(known.camera) == KITTI
    assert (known.camera.width, known.camera.height) == (1242, 375)
    assert known.origin.startswith("given") and not known.warnings


def test_a_camera_of_another_size_follows_the_resize() -> None:
    known = CameraChoice.of("1000,1000,959.5,539.5,1920,1080").for_image("a", 960, 540)
    # u -> (u + 0.5) / 2 - 0.5
    assert numbers(known.camera) == pytest.approx((500, 500, 479.5, 269.5))
    assert "scaled" in known.origin


def test_a_camera_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="1920 x 1080, this one has 1242 x 375"):
        CameraChoice.of("1000,1000,959.5,539.5,1920,1080").for_image("a", 1242, 375)


def test_the_whole_p2_is_used(tmp_path: Path) -> None:
    (tmp_path / "000001.txt").write_text(P2)
    for calib in (tmp_path, tmp_path / "000001.txt"):
        camera = CameraChoice.of(calib=calib).for_image("000001", 1242, 375).camera
        # t from K t = p: (44.857 - 609.559 * 0.002746) / 721.538
        assert float(camera.tx) == pytest.approx((44.85728 - 609.5593 * 0.002745884) / 721.5377)
        assert float(camera.tz) == pytest.approx(0.002745884)


def test_a_folder_of_calibrations_is_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "000001.txt").write_text(P2)
    with pytest.raises(InputError, match=r"000002\.txt: no calibration for image 000002"):
        CameraChoice.of(calib=tmp_path).for_image("000002", 1242, 375)


def test_a_calibration_is_found_whatever_the_case_of_its_suffix(tmp_path: Path) -> None:
    root = write_toy(tmp_path, ["000001"], cars=1, size=(414, 125)) / "training"
    (root / "calib" / "000001.txt").rename(root / "calib" / "000001.TXT")
    check_dataset(KittiDataset(root))
    known = CameraChoice.of(calib=root / "calib").for_image("000001", 414, 125)
    assert known.origin.endswith("000001.TXT")


def test_nan_in_a_calibration_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "000001.txt").write_text("P0: " + "1 " * 12 + "\n" + P2.replace("609.5593", "nan"))
    with pytest.raises(InputError, match=r"000001\.txt:2: P2, number 3: expected a finite number, got 'nan'"):
        CameraChoice.of(calib=tmp_path).for_image("000001", 1242, 375)


def test_field_of_view_fills_the_width() -> None:
    camera = CameraChoice.of(fov=90).for_image("a", 1000, 500).camera
    assert float(camera.fx) == pytest.approx(500)  # tan 45 degrees = 1
    assert camera.fov_deg == pytest.approx(90)


def test_film_focal_length_scales_with_the_diagonal() -> None:
    # a 36 x 24 mm sensor of 3600 x 2400 pixels has 100 pixels per millimetre
    camera = camera_from_film(50, 3600, 2400)
    assert float(camera.fx) == pytest.approx(5000, rel=1e-3)
    assert float(camera_from_film(50, 2400, 3600).fx) == float(
        camera.fx
    )  # turned sideways it is the same lens


def test_without_any_camera_exif_decides_and_else_a_guess_that_says_so() -> None:
    exif = CameraChoice.of().for_image("a", 4000, 3000, film_mm=28)
    assert "EXIF" in exif.origin and not exif.warnings
    guess = CameraChoice.of().for_image("a", 4000, 3000)
    assert "guess" in guess.origin
    assert f"fx = fy = {float(guess.camera.fx):.0f} pixels" in guess.warnings[0]
    assert "distances scale" in guess.warnings[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"camera": "700,700,600"}, "expected fx,fy,cx,cy"),
        ({"camera": "700,700,x,170"}, "expected numbers"),
        ({"camera": "700,-700,600,170"}, "must be positive"),
        ({"camera": "700,nan,600,170"}, "must be finite"),
        ({"camera": "700,700,600,170,1242,0"}, "whole pixels"),
        ({"fov": 0.0}, "expected 1 to 120 degrees"),
        ({"fov": math.nan}, "expected 1 to 120 degrees"),
        ({"calib": "no/such/calib.txt"}, "no such calibration"),
        ({"camera": "700,700,600,170", "fov": 60.0}, "expected one of camera, calib and fov"),
    ],
)
def test_what_cannot_be_a_camera_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CameraChoice.of(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("camera", "size", "message"),
    [
        ((26.0, 26.0, 620.0, 187.0), (1242, 375), "field of view of 175 degrees.*not in millimetres"),
        ((0.58, 1.92, 620.0, 187.0), (1242, 375), "not in millimetres or shares"),
        (KITTI, (640, 192), r"does not fit an image of 640 x 192 \(it would suit one of about 1220 x 347\)"),
        (KITTI, (2484, 750), "does not fit an image of 2484 x 750"),
        (KITTI, (1242, 100), "does not fit an image of 1242 x 100"),
    ],
)
def test_a_camera_that_cannot_belong_to_the_image_is_refused_with_its_numbers(
    camera: tuple[float, ...], size: tuple[int, int], message: str
) -> None:
    text = ",".join(map(str, camera))
    with pytest.raises(InputError, match=message):
        CameraChoice.of(text).for_image("a", *size)


def test_odd_cameras_are_warned_about() -> None:
    def warnings(*fields: float) -> str:
        return " ".join(check_camera(Camera(*fields, width=1242, height=375), "calib"))

    assert "far from the middle" in warnings(721, 721, 850, 173)
    assert "differ much" in warnings(721, 400, 610, 173)
    assert "unusual" in warnings(400, 400, 610, 173)
    assert warnings(*KITTI) == ""


def test_every_kitti_calibration_is_check_camera(shared: Path) -> None:
    """None of 1,184 real images is refused or warned about."""
    from PIL import Image

    from monolift.data.kitti import find_image, read_camera

    root = shared / "kitti" / "training"
    for path in sorted((root / "calib").glob("*.txt"))[::20]:
        with Image.open(find_image(root, path.stem)) as image:
            assert check_camera(read_camera(path, *image.size), path.name) == ()


def test_parse_accepts_numbers_as_well_as_text() -> None:
    assert numbers(parse_camera([700, 700, 600, 170])) == numbers(parse_camera("700, 700, 600, 170"))


# -- fisheyes ---------------------------------------------------------------------------------------------------------


def test_fisheyes_are_refused_with_the_reason() -> None:
    for arguments in ({"fov": 120.0}, {"fov": 190.0}):
        with pytest.raises(InputError, match="are a fisheye's, which bends straight lines"):
            CameraChoice.of(**arguments)  # type: ignore[arg-type]
    # 1242 pixels of 119 and 121 degrees: f = 621 / tan(fov / 2) = 366 and 351
    assert CameraChoice.of("366,366,620,187").for_image("a", 1242, 375).warnings
    for camera in ("351,351,620,187", "351,351,620,187,1242,375"):
        with pytest.raises(InputError, match="121 degrees are a fisheye's"):
            CameraChoice.of(camera).for_image("a", 1242, 375)


# -- ROS camera_info --------------------------------------------------------------------------------------------------

ECHOED = """\
header:
  seq: 1
  frame_id: "camera"
height: 480
width: 640
distortion_model: "plumb_bob"
d:
- 0.0
- 0.0
- 0.0
- 0.0
- 0.0
k:
- 430.15433
- 0.0
- 306.19152
- 0.0
- 430.60921
- 227.37994
- 0.0
- 0.0
- 1.0
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
"""
ROS = (430.15433, 430.60921, 306.19152, 227.37994)


@pytest.fixture
def info(tmp_path: Path) -> Callable[[str], Path]:
    pytest.importorskip("yaml", reason="PyYAML is the extra [ros]")

    def write(text: str) -> Path:
        (tmp_path / "camera.yaml").write_text(text)
        return tmp_path / "camera.yaml"

    return write


@pytest.mark.parametrize("text", [SAVED, ECHOED])
def test_camera_info_as_saved_and_as_echoed(info: Callable[[str], Path], text: str) -> None:
    path = info(text)
    known = CameraChoice.of(calib=path).for_image("camera", 640, 480)
    assert numbers(known.camera) == ROS and not known.warnings
    assert known.origin == f"camera_info {path}"
    assert numbers(CameraChoice.of(calib=path.parent).for_image("camera", 640, 480).camera) == ROS
    # images of half the size: u -> (u + 0.5) / 2 - 0.5
    half = CameraChoice.of(calib=path).for_image("camera", 320, 240).camera
    assert numbers(half) == pytest.approx((ROS[0] / 2, ROS[1] / 2, 306.69152 / 2 - 0.5, 227.87994 / 2 - 0.5))


def test_a_bending_lens_is_warned_about_in_pixels(info: Callable[[str], Path]) -> None:
    bent = SAVED.replace("data: [0., 0., 0., 0., 0.]", "data: [-0.337, 0.106, 0.001, -0.002, 0.]")
    (warning,) = CameraChoice.of(calib=info(bent)).for_image("camera", 640, 480).warnings
    # the corner (639, 479), worked by hand: x = 0.77370, y = 0.58434, r2 = 0.94006
    x, y = (639 - 306.19152) / 430.15433, (479 - 227.37994) / 430.60921
    r2 = x * x + y * y
    radial = 1 - 0.337 * r2 + 0.106 * r2 * r2
    dx = x * (radial - 1) + 2 * 0.001 * x * y - 0.002 * (r2 + 2 * x * x)
    dy = y * (radial - 1) + 0.001 * (r2 + 2 * y * y) - 2 * 0.002 * x * y
    assert f"by up to {math.hypot(430.15433 * dx, 430.60921 * dy):.0f} pixels" in warning
    assert "rectify" in warning


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plumb_bob", "equidistant", r"a fisheye camera \(equidistant\): it bends straight lines"),
        ("plumb_bob", "magic", "distortion_model: expected plumb_bob or rational_polynomial, got 'magic'"),
        ("image_width: 640", "image_width: wide", "image_width: expected whole pixels, got 'wide'"),
        ("image_width: 640", "breadth: 640", "expected the field image_width or width, got breadth"),
        ("430.15433", "0", "not calibrated: K is zero"),
        ("430.15433, 0.  ", "430.15433, 0.5", "expected fx 0 cx 0 fy cy 0 0 1"),
        ("430.15433", ".nan", "camera_matrix: expected 9 finite numbers"),
        ("camera_matrix:", "camera_matrix: [1, 2, 3]\nold:", "camera_matrix: expected 9 finite numbers"),
        ("data: [0., 0., 0., 0., 0.]", "data: [0.1]", r"plumb_bob: expected \(4, 5\) coefficients, got 1"),
        ("image_width", "binning_x: 2\nimage_width", "binning or a region of interest"),
        ("image_width: 640", "image_width: [", "not YAML"),
    ],
)
def test_camera_info_that_cannot_be_used(
    info: Callable[[str], Path], old: str, new: str, message: str
) -> None:
    path = info(SAVED.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as error:
        CameraChoice.of(calib=path).for_image("camera", 640, 480)
    assert "camera.yaml" in str(error.value) and "\n" not in str(error.value)


def test_camera_info_of_another_image_is_refused(info: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="640 x 480, this one has 1242 x 375"):
        CameraChoice.of(calib=info(SAVED)).for_image("camera", 1242, 375)


def test_without_pyyaml_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "camera.yaml").write_text(SAVED)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r'pip install "monolift\[ros\]"'):
        CameraChoice.of(calib=tmp_path / "camera.yaml").for_image("camera", 640, 480)
