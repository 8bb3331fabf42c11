"""Cameras in JSON and YAML: the keys of ROS, OpenCV, RealSense, Kalibr, Omni3D and monolift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monolift.data.camera_check import CameraNumbers
from monolift.data.formats.distortion import bending_warning, model_of
from monolift.errors import InputError
from monolift.files.json_text import number_of, show_value

RESULTS = "monolift.inference.results/"
MATRIX = (
    "camera_matrix",
    "k",
    "m1",
    "k1_matrix",
    "cameramatrix",
    "camera_intrinsic",
    "cam_k",
    "intrinsic",
    "mtx",
)
COLUMN_MAJOR = ("intrinsic_matrix",)  # Open3D's
PROJECTION = ("p2", "projection", "projection_matrix")
COEFFICIENTS = (
    "distortion_coefficients", "d", "coeffs", "dist_coeffs", "distcoeffs", "distortion_coeffs", "d1", "dist", "distortion",
)  # fmt: skip
WIDTH, HEIGHT = ("image_width", "width", "w"), ("image_height", "height", "h")
SIZE = ("resolution", "image_size", "img_size")  # [width, height]
FOCAL = (("fx", "fl_x"), ("fy", "fl_y"), ("cx", "ppx"), ("cy", "ppy"))
NESTED = ("color", "rgb", "camera", "intrinsics", "cam0", "left", "color_intrinsics", "calib", "calibration")
DEEPEST = 3


@dataclass(frozen=True)
class CameraFile:
    """The content of a camera file.

    Attributes:
        kind: the sort of file, for the result's ``camera_origin``
        size: (width, height) of the images it was made for, if it says.
    """

    kind: str
    numbers: CameraNumbers
    size: tuple[int, int] | None = None
    warnings: tuple[str, ...] = ()


def of_table(content: Any, where: str, size: tuple[int, int], name: str = "") -> CameraFile:
    """The camera in the content of a JSON or YAML file.

    size, name: of the image, which choose among several cameras. Raises InputError where there is none.
    """
    if isinstance(content, list):
        content = _row_of(content, where, name)
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected an object with fields, got {type(content).__name__}")
    if isinstance(content.get("images"), list):
        content = _row_of(content["images"], where, name)
    if str(content.get("schema", "")).startswith(RESULTS):
        image = content.get("image")
        return of_table({**_mapping(image, where), **_mapping(content.get("camera"), where)}, where, size)
    return _found(content, where, size)


def _found(content: Mapping[Any, Any], where: str, size: tuple[int, int]) -> CameraFile:
    """The camera among the fields themselves or in the one inner object that has one."""
    table: Mapping[Any, Any] = content
    for _ in range(DEEPEST):
        fields = CameraFields(table, where)
        if fields.any_of("distortion_model") is not None and fields.has_matrix:
            return fields.camera("camera_info", size, sized=True)
        if fields.has_matrix or fields.has_numbers:
            return fields.camera(
                "RealSense intrinsics" if fields.any_of("ppx") is not None else "calib", size
            )
        inner = {str(k).lower(): v for k, v in table.items() if isinstance(v, Mapping)}
        named = [k for k in NESTED if k in inner] or list(inner)
        if not named or (len(named) > 1 and named[0] not in NESTED):
            break
        outer = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
        table = {**outer, **inner[named[0]]}
    got = ", ".join(map(str, list(content)[:12])) or "no fields"
    if CameraFields(content, where).any_of("distortion_model") is not None:
        raise InputError(f"{where}: expected the field camera_matrix or K or k, got {got}")
    raise InputError(f"{where}: expected fx, fy, cx, cy or a matrix K, got {got}")


def _row_of(rows: list[Any], where: str, name: str) -> Mapping[Any, Any]:
    """The row of the image ``name`` among those of a file of several images."""
    tables = [row for row in rows if isinstance(row, Mapping)]
    if len(tables) == 1:
        return tables[0]
    keys = ("name", "file_path", "file_name", "source")
    for row in tables:
        if any(isinstance(row.get(key), str) and Path(row[key]).stem == name for key in keys):
            return row
    raise InputError(f"{where}: expected the camera of image {name!r} among {len(rows)} rows, found none")


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected the objects image and camera of a result, got {str(value)[:40]}")
    return value


class CameraFields:
    """Fields of one camera, found under any of their names, upper or lower case; ``Camera.fx`` is fx."""

    def __init__(self, content: Mapping[Any, Any], where: str) -> None:
        self.where, self.shown = where, ", ".join(map(str, list(content)[:12]))
        self.fields: dict[str, Any] = {}
        for key, value in content.items():
            short = str(key).lower()
            for prefix in ("camera.", "camera1."):  # of ORB-SLAM's settings
                short = short.removeprefix(prefix)
            self.fields.setdefault(short, value)

    def any_of(self, *names: str) -> Any:
        """The first of the fields that is there and not null."""
        return next((self.fields[n] for n in names if self.fields.get(n) is not None), None)

    @property
    def has_matrix(self) -> bool:
        return any(self.any_of(n) is not None for n in (*MATRIX, *COLUMN_MAJOR, *PROJECTION))

    @property
    def has_numbers(self) -> bool:
        kalibr = isinstance(self.fields.get("intrinsics"), list)
        return kalibr or all(any(n in self.fields for n in names) for names in FOCAL)

    def camera(self, kind: str, image: tuple[int, int], sized: bool = False) -> CameraFile:
        """The camera, checked; ``sized``: its size has to be stated. Raises InputError naming the field."""
        model = model_of(self.any_of("distortion_model", "model"), self.where)
        if str(self.any_of("camera_model") or "").lower() not in ("", "pinhole"):
            model_of(self.any_of("camera_model"), self.where)
        size = self.size(sized)
        numbers = self.numbers()
        if not (numbers.fx > 0 and numbers.fy > 0):
            raise InputError(
                f"{self.where}: expected positive focal lengths in pixels, got fx = {numbers.fx:g} and fy = {numbers.fy:g}"
            )
        self._refuse_cropped(size)
        coefficients = self.coefficients(required=kind == "camera_info")
        warnings = bending_warning(numbers, size or image, model, coefficients, self.where)
        return CameraFile(kind, numbers, size, warnings)

    def numbers(self) -> CameraNumbers:
        """Focal lengths, principal point and translation. Raises InputError naming the field."""
        for names, columns in ((MATRIX, 3), (COLUMN_MAJOR, 3), (PROJECTION, 4)):
            name = next((n for n in names if self.any_of(n) is not None), None)
            if name is None:
                continue
            values = self._listed(name, (3 * columns,))
            rows = [values[k : k + columns] for k in range(0, len(values), columns)]
            if names is COLUMN_MAJOR:
                rows = [list(row) for row in zip(*rows, strict=True)]
            if rows[0][0] == 0:
                raise InputError(f"{self.where}: not calibrated: K is zero")
            if any((rows[0][1], rows[1][0], rows[2][0], rows[2][1])) or rows[2][2] != 1:
                shown = " ".join(f"{v:g}" for row in rows for v in row[:3])
                raise InputError(f"{self.where}: {name}: expected fx 0 cx 0 fy cy 0 0 1, got {shown}")
            return CameraNumbers.of_projection(rows, f"{self.where}: {name}")
        if isinstance(self.fields.get("intrinsics"), list):  # Kalibr: of a pinhole camera
            fx, fy, cx, cy = self._listed("intrinsics", (4,))
        else:
            fx, fy, cx, cy = (self._number(*names) for names in FOCAL)
        t = (
            self._listed("translation", (3,))
            if isinstance(self.fields.get("translation"), list)
            else [0.0] * 3
        )
        return CameraNumbers(fx, fy, cx, cy, (t[0], t[1], t[2]))

    def size(self, required: bool) -> tuple[int, int] | None:
        """Width and height, None where they are not stated. Raises InputError for ones that are required or odd."""
        stated = next((n for n in SIZE if isinstance(self.fields.get(n), list)), None)
        if stated is not None:
            given = self._listed(stated, (2,))
            return self._whole(given[0], stated), self._whole(given[1], stated)
        found = [self.any_of(*names) for names in (WIDTH, HEIGHT)]
        if found == [None, None] and not required:
            return None
        for names, value in zip((WIDTH, HEIGHT), found, strict=True):
            if value is None:
                raise InputError(
                    f"{self.where}: expected the field {names[0]} or {names[1]}, got {self.shown}"
                )
        return self._whole(found[0], WIDTH[0]), self._whole(found[1], HEIGHT[0])

    def _whole(self, value: Any, name: str) -> int:
        sound = isinstance(value, int | float) and not isinstance(value, bool)
        if not sound or not 1 <= value <= 1_000_000 or value != int(value):
            raise InputError(f"{self.where}: {name}: expected whole pixels, got {show_value(value)}")
        return int(value)

    def _number(self, *names: str) -> float:
        value = self.any_of(*names)
        if not _finite(value):
            raise InputError(f"{self.where}: {names[0]}: expected a finite number, got {show_value(value)}")
        return float(value)

    def _listed(self, name: str, counts: tuple[int, ...]) -> list[float]:
        """The numbers of a matrix or list, whether {rows, cols, data}, nested lists or flat; any number of them for ()."""
        value = self.fields.get(name)
        data = value.get("data") if isinstance(value, Mapping) else value
        if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
            data = [v for row in data for v in row]
        expected = " or ".join(map(str, counts)) or "a list of"
        if not isinstance(data, list) or not all(map(_finite, data)) or (counts and len(data) not in counts):
            shown = f"{len(data)}: {show_value(data)}" if isinstance(data, list) else show_value(data)
            raise InputError(f"{self.where}: {name}: expected {expected} finite numbers, got {shown}")
        return [float(v) for v in data]

    def coefficients(self, required: bool) -> list[float]:
        """The distortion's, zeros where none are stated. Raises InputError where they are required."""
        name = next((n for n in COEFFICIENTS if self.any_of(n) is not None), None)
        if name is not None:
            return self._listed(name, ())
        if required:
            raise InputError(
                f"{self.where}: expected the field distortion_coefficients or D or d, got {self.shown}"
            )
        keys = ("k1", "k2", "p1", "p2", "k3")
        return [self._number(k) if self.any_of(k) is not None else 0.0 for k in keys]

    def _refuse_cropped(self, size: tuple[int, int] | None) -> None:
        roi = self.any_of("roi")
        if roi is None:
            roi = {}
        if not isinstance(roi, Mapping):
            raise InputError(
                f"{self.where}: roi: expected x_offset, y_offset, width and height, got {show_value(roi)}"
            )
        inner = CameraFields(roi, f"{self.where}: roi")
        values = {
            key: inner._number(key) if key in inner.fields else 0
            for key in ("width", "height", "x_offset", "y_offset")
        }
        values |= {
            key: self._number(key) for key in ("binning_x", "binning_y") if self.any_of(key) is not None
        }
        whole = size is None or (values["width"] or size[0], values["height"] or size[1]) == size
        binned = any(values.get(key, 1) not in (0, 1) for key in ("binning_x", "binning_y"))
        if binned or not whole or values["x_offset"] or values["y_offset"]:
            raise InputError(
                f"{self.where}: binning or a region of interest is set: K is that of the full sensor; give the image's own "
                "camera as fx,fy,cx,cy"
            )


def _finite(value: Any) -> bool:
    try:
        number_of(value, "")
    except InputError:
        return False
    return True
