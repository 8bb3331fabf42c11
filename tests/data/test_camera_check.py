"""One check holds every camera against its image; the runtime's twin gives the same answers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monolift.data import camera_check
from monolift.data.camera_check import CameraNumbers, check_numbers
from monolift.data.camera_tally import CameraTally
from monolift.data.cameras import CameraChoice, camera_numbers, check_camera, check_dataset
from monolift.data.formats.kitti_format import read_calib
from monolift.data.kitti import KittiDataset, find_image, read_camera
from monolift.errors import InputError
from monolift.files.images import image_size
from monolift.geometry import Camera
from monolift.runtime import camera_check as twin
from toy_kitti import write_toy

KITTI = CameraNumbers(721.5377, 721.5377, 609.5593, 172.854, (0.0598, -0.0004, 0.0027))
SIZE = (1242, 375)


def test_every_kitti_camera_fits_its_image_without_a_word(shared: Path) -> None:
    """Left and right camera, every drive: KITTI's P2 and, in the second folder, P3 with its baseline of half a metre."""
    for root in (shared / "kitti" / "training", shared / "kitti_more" / "training"):
        seen = {}
        for path in sorted((root / "calib").glob("*.txt")):
            seen.setdefault(path.read_bytes(), path)
        assert seen
        for path in seen.values():
            size = image_size(find_image(root, path.stem))
            camera = read_camera(path, *size)
            assert check_camera(camera, path.name) == ()
            assert camera == Camera.from_matrix(read_calib(path).p2, *size) or all(
                float(a) == float(b)
                for a, b in zip(
                    camera.matrix.flatten(),
                    Camera.from_matrix(read_calib(path).p2, *size).matrix.flatten(),
                    strict=True,
                )
            )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((621, 188), "would suit one of about 1220 x 347"),  # half
        ((2484, 750), "does not fit an image of 2484 x 750"),  # doubled
        ((1000, 302), "does not fit"),
        ((375, 1242), r"would suit one of 1242 x 375"),  # turned upright
        ((600, 375), "does not fit"),  # cropped on the right: the principal point is outside
        ((1242, 100), "does not fit"),
    ],
)
def test_an_image_of_another_size_is_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=rf"calib/1\.txt: principal point .*{message}"):
        check_numbers(KITTI, *size, "calib/1.txt")


@pytest.mark.parametrize("size", [(700, 375), (1242, 250), (1080, 326)])
def test_a_crop_and_a_slight_resize_are_warned_about(size: tuple[int, int]) -> None:
    (warning,) = check_numbers(KITTI, *size, "calib")
    assert "far from the middle" in warning


def test_the_calibration_of_another_drive_is_as_good() -> None:
    for size in ((1224, 370), (1238, 374), (1241, 376)):
        assert check_numbers(KITTI, *size, "calib") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": 26.0, "fy": 26.0}, "not in millimetres"),
        ({"fx": 1e38, "fy": 1e38}, "not in millimetres"),
        ({"fx": 0.6, "fy": 1.9}, "not in millimetres"),
        ({"fx": -700.0}, "expected positive focal lengths"),
        ({"fy": 0.0}, "expected positive focal lengths"),
        ({"fy": 1e38}, "cannot be one lens"),
        ({"fx": 172.9, "fy": 721.5}, "fisheye|cannot be one lens"),
        ({"fx": math.inf}, "expected finite"),
        ({"cy": math.nan}, "expected finite"),
        ({"cx": 1e38}, "beyond any image"),
        ({"cx": -5.0}, "does not fit"),
        ({"translation": (59.8, -0.4, 2.7)}, "expected K .I . t. with t in metres"),  # millimetres
        ({"translation": (0.0, 0.0, 1e38)}, "with t in metres"),
        ({"translation": (math.inf, 0.0, 0.0)}, "expected finite"),
    ],
)
def test_numbers_of_no_camera_are_refused(change: dict[str, object], message: str) -> None:
    values = {"fx": 721.5, "fy": 721.5, "cx": 609.6, "cy": 172.9, "translation": (0.06, 0.0, 0.0), **change}
    for stated in (False, True):
        if stated and message == "does not fit":
            continue
        with pytest.raises(InputError, match=message):
            check_numbers(CameraNumbers(**values), *SIZE, "calib", stated)  # type: ignore[arg-type]


def test_a_stated_size_lets_windows_pass_with_a_warning() -> None:
    camera = Camera(721.5, 721.5, 609.6, 172.9, width=1242, height=375)
    assert CameraChoice.of(camera.after_crop(300, 0, 600, 375)).for_image("a", 600, 375).warnings == ()
    corner = CameraChoice.of(camera.after_crop(0, 0, 621, 187)).for_image("a", 621, 187)
    assert "far from the middle" in corner.warnings[0]


@pytest.mark.parametrize(
    "rows",
    [
        [[700, 3, 600], [0, 700, 180], [0, 0, 1]],
        [[700, 0, 600], [0, 700, 180], [0, 0, 2]],
        [[700, 0, math.nan, 0], [0, 700, 180, 0], [0, 0, 1, 0]],
        [[700, 0, 600], [0, 700, 180]],
        [[-700, 0, 600], [0, 700, 180], [0, 0, 1]],
        [[1e308, 0, 1e308, 1e308], [0, 1e-308, 1e308, 1e308], [0, 0, 1, 1e308]],
    ],
)
def test_matrices_of_no_camera_are_refused(rows: list[list[float]]) -> None:
    for module, error in ((camera_check, InputError), (twin, ValueError)):
        with pytest.raises(error, match=r"^calib: "):
            module.check_numbers(module.CameraNumbers.of_projection(rows, "calib"), *SIZE, "calib")


def answer(module: object, values: list[float], size: tuple[int, int], stated: bool) -> object:
    numbers = module.CameraNumbers(*values[:4], tuple(values[4:]))  # type: ignore[attr-defined]
    try:
        return module.check_numbers(numbers, *size, "x", stated)  # type: ignore[attr-defined]
    except ValueError as error:
        return str(error)


focal = st.one_of(st.floats(100, 3000), st.floats(allow_nan=True, allow_infinity=True))
place = st.one_of(st.floats(-100, 2000), st.floats(allow_nan=True, allow_infinity=True))
metres = st.one_of(st.floats(-8, 8), st.just(0.06), st.floats(allow_nan=True, allow_infinity=True))


@given(
    st.tuples(focal, focal, place, place, metres, metres, metres),
    st.tuples(st.integers(32, 4000), st.integers(32, 4000)),
    st.booleans(),
)
def test_the_runtime_s_twin_answers_alike(
    values: tuple[float, ...], size: tuple[int, int], stated: bool
) -> None:
    assert answer(camera_check, list(values), size, stated) == answer(twin, list(values), size, stated)


def test_the_twins_are_one_text() -> None:
    """But for the class of their errors."""
    ours, theirs = (Path(str(module.__file__)).read_text() for module in (camera_check, twin))
    code = ours.split('"""', 2)[2].replace("from monolift.errors import InputError\n", "")
    words = code.replace("InputError", "ValueError").split()
    assert words == theirs.split('"""', 2)[2].split()


def test_oddities_of_many_images_are_said_once() -> None:
    tally = CameraTally()
    odd = [[721.5, 0, 850], [0, 721.5, 173], [0, 0, 1]]
    for k in range(5):
        assert tally.add(f"calib/{k}.txt", odd, *SIZE)
    assert not tally.add("calib/5.txt", odd, 621, 188)
    (warning,) = tally.warnings
    assert warning.startswith("calib/0.txt: principal point") and "and 4 images more" in warning
    assert len(tally.errors) == 1 and tally.errors[0].startswith("calib/5.txt")


def test_one_camera_of_a_data_set_that_does_not_fit_is_named(tmp_path: Path) -> None:
    root = write_toy(tmp_path, ["000001", "000002", "000003"], size=(621, 187))
    assert check_dataset(KittiDataset(root)) == ()
    calib = KittiDataset(root).root / "calib" / "000002.txt"
    p2 = read_calib(calib).p2
    calib.write_text("P2: " + " ".join(str(v) for v in (p2 * [[2], [2], [1]]).ravel()) + "\n")
    with pytest.raises(InputError, match=r"the camera of 1 of 3 images .*calib/000002\.txt: .*would suit"):
        check_dataset(KittiDataset(root))
    with pytest.raises(InputError, match=r"calib/000002\.txt: "):
        KittiDataset(root)[1]
    assert check_dataset(KittiDataset(root, ["000001", "000003"])) == ()


def test_plain_numbers_are_those_of_the_camera() -> None:
    rows = [[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]]
    assert camera_numbers(Camera.from_matrix(rows)) == CameraNumbers.of_projection(rows, "P2")
