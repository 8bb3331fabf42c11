"""ROS camera_info files: sensor_msgs/CameraInfo as YAML, as camera_calibration saves it or ``topic echo`` prints it.

YAML is left to PyYAML (extra monolift[ros]): one matrix has five spellings there (flow, block, several lines, tags of OpenCV,
documents), of which a parser of our own would sooner or later read one wrongly, and who has ROS has PyYAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monolift.errors import InputError, MissingExtraError
from monolift.files.text import read_bytes
from monolift.geometry import Camera

SUFFIXES = (".yaml", ".yml")
FISHEYE = (
    "equidistant",
    "fisheye",
    "kannala_brandt",
    "kannala_brandt4",
    "omni",
    "omnidir",
    "double_sphere",
    "scaramuzza",
    "mei",
)
PINHOLE = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "": (0, 4, 5)}
"""Models of a pinhole camera with a bent image, and how many coefficients they may have."""


def read_camera_info(path: str | Path) -> tuple[Camera, tuple[str, ...]]:
    """The camera of the raw pictures, with its size, and what is doubtful about it.

    K is taken, which describes the pictures as they come from the camera (image_raw); rectified ones (image_rect) have P, to be
    given as four numbers. Coefficients of distortion other than zero are warned about with their greatest effect in pixels.
    Raises InputError for files that are no camera_info, fisheye models, cropped or binned cameras; MissingExtraError without
    PyYAML.
    """
    path = Path(path)
    content = _load(path)
    width, height = (
        _whole(content, path, *names) for names in (("image_width", "width"), ("image_height", "height"))
    )
    model = str(content.get("distortion_model", "")).strip().lower()
    if model in FISHEYE:
        raise InputError(
            f"{path}: a fisheye camera ({model}): it bends straight lines, so what looks like a box is none; "
            "rectify the pictures to a pinhole camera first and give that camera"
        )
    if model not in PINHOLE:
        raise InputError(
            f"{path}: distortion_model: expected {' or '.join(filter(None, PINHOLE))}, got {model!r}"
        )
    k = _matrix(content, path, 9, "camera_matrix", "K", "k")
    if k[0] == 0:
        raise InputError(f"{path}: not calibrated: K is zero")
    if any(k[i] for i in (1, 3, 6, 7)) or k[8] != 1:
        raise InputError(
            f"{path}: camera_matrix: expected fx 0 cx 0 fy cy 0 0 1, got {' '.join(f'{v:g}' for v in k)}"
        )
    _refuse_cropped(content, path, width, height)
    camera = Camera(k[0], k[4], k[2], k[5], width=width, height=height)
    bent = _matrix(content, path, None, "distortion_coefficients", "D", "d")
    if len(bent) not in PINHOLE[model] and any(bent):
        raise InputError(
            f"{path}: {model or 'no model'}: expected {PINHOLE[model]} coefficients, got {len(bent)}"
        )
    pixels = bending(camera, bent)
    if not pixels:
        return camera, ()
    return camera, (
        f"{path}: the lens bends the picture, by up to {pixels:.0f} pixels: rectify the pictures first (image_rect, with the "
        "four numbers of P), or boxes near the border are displaced",
    )


def bending(camera: Camera, coefficients: list[float]) -> float:
    """The greatest displacement along the picture's border, pixels, by Brown's model as OpenCV and ROS order it:
    k1, k2, p1, p2, k3, k4, k5, k6 (further ones, of thin prisms, count for little and are left out)."""
    if not any(coefficients):
        return 0.0
    k1, k2, p1, p2, k3, k4, k5, k6 = (list(coefficients) + [0.0] * 8)[:8]
    fx, fy, cx, cy = (float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy"))
    greatest = 0.0
    for u in (0.0, (camera.width - 1) / 2, camera.width - 1.0):
        for v in (0.0, (camera.height - 1) / 2, camera.height - 1.0):
            x, y = (u - cx) / fx, (v - cy) / fy
            r2 = x * x + y * y
            radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
            dx = x * (radial - 1) + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
            dy = y * (radial - 1) + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
            greatest = max(greatest, math.hypot(fx * dx, fy * dy))
    return greatest


def _load(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(f"{path}: reading a ROS camera_info file", "ros") from None
    text = read_bytes(path).decode("utf-8", "replace")
    try:
        content = next(
            (d for d in yaml.safe_load_all(text) if isinstance(d, dict)), None
        )  # topic echo ends with ---
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if content is None:
        raise InputError(
            f"{path}: expected a ROS camera_info file with image_width, camera_matrix, ..., got no fields"
        )
    return content


def _field(content: Mapping[str, Any], path: Path, *names: str) -> Any:
    for name in names:
        if name in content:
            return content[name]
    raise InputError(f"{path}: expected the field {' or '.join(names)}, got {', '.join(map(str, content))}")


def _whole(content: Mapping[str, Any], path: Path, *names: str) -> int:
    value = _field(content, path, *names)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{path}: {names[0]}: expected whole pixels, got {value!r}")
    return value


def _matrix(content: Mapping[str, Any], path: Path, count: int | None, *names: str) -> list[float]:
    """The numbers of a matrix, whether {rows, cols, data} or a bare list."""
    value = _field(content, path, *names)
    data = value.get("data") if isinstance(value, dict) else value
    listed = data if isinstance(data, list) else []
    sound = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in listed)
    if not isinstance(data, list) or not sound or (count is not None and len(data) != count):
        raise InputError(
            f"{path}: {names[0]}: expected {count or 'a list of'} finite numbers, got {str(data)[:80]}"
        )
    return [float(v) for v in data]


def _refuse_cropped(content: Mapping[str, Any], path: Path, width: int, height: int) -> None:
    binning = {name: content.get(name) or 1 for name in ("binning_x", "binning_y")}
    roi = content.get("roi") or {}
    window = (
        roi.get("width") or width,
        roi.get("height") or height,
        roi.get("x_offset") or 0,
        roi.get("y_offset") or 0,
    )
    if any(v != 1 for v in binning.values()) or window != (width, height, 0, 0):
        raise InputError(
            f"{path}: binning or a region of interest is set: K is that of the full sensor; give the picture's own camera as "
            "fx,fy,cx,cy"
        )
