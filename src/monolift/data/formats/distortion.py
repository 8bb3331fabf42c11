"""Lens distortion in camera files: which models a pinhole camera may have, and by how much its coefficients bend an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monolift.data.camera_check import CameraNumbers
from monolift.errors import InputError

FISHEYE = (
    "equidistant", "equi", "fisheye", "kannala_brandt", "kannala_brandt4", "omni", "omnidir", "double_sphere", "ds", "eucm",
    "scaramuzza", "mei", "ftheta", "f_theta", "ocam",
)  # fmt: skip
_PLUMB, _ANY = (0, 4, 5), (0, 4, 5, 8, 12, 14)
PINHOLE = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "": _ANY,
    "none": _ANY,
    "pinhole": _ANY,
    "radtan": _PLUMB,
    "radial_tangential": _PLUMB,
    "brown_conrady": _PLUMB,
    "modified_brown_conrady": _PLUMB,
    "inverse_brown_conrady": _PLUMB,
}
"""Models of a pinhole camera with a bent image, and how many coefficients they may have."""
_REALSENSE = (
    "none",
    "modified_brown_conrady",
    "inverse_brown_conrady",
    "ftheta",
    "brown_conrady",
    "kannala_brandt4",
)
"""By the number of librealsense's enumeration rs2_distortion."""


def model_of(value: Any, where: str) -> str:
    """The name of a distortion model, in lower case with underscores; "" for none stated.

    Raises:
        InputError: for fisheye models, which no pinhole camera describes, and for unknown ones.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_REALSENSE):
        value = _REALSENSE[value]
    if value is not None and not isinstance(value, str):
        raise InputError(
            f"{where}: distortion_model: expected a name such as plumb_bob, got {str(value)[:40]}"
        )
    model = "_".join((value or "").strip().lower().removeprefix("distortion.").replace("-", " ").split())
    if model in FISHEYE:
        raise InputError(
            f"{where}: a fisheye camera ({model}): it bends straight lines, so what looks like a box is none; "
            "rectify the images to a pinhole camera first (monolift rectify) and give that camera"
        )
    if model not in PINHOLE:
        raise InputError(
            f"{where}: distortion_model: expected plumb_bob or rational_polynomial, got {model[:40]!r}"
        )
    return model


def bending_warning(
    camera: CameraNumbers, size: tuple[int, int], model: str, coefficients: Sequence[float], where: str
) -> tuple[str, ...]:
    """The warning about lens distortion, none for coefficients of zero.

    Raises:
        InputError: for a number of coefficients that the model does not have, and for impossible ones.
    """
    if len(coefficients) not in PINHOLE[model] and any(coefficients):
        raise InputError(
            f"{where}: {model or 'no model'}: expected {PINHOLE[model]} coefficients, got {len(coefficients)}"
        )
    pixels = bending(camera, size, coefficients)
    if not pixels < 10 * max(size):
        raise InputError(
            f"{where}: expected distortion coefficients of a camera, got {list(coefficients)[:8]}"
        )
    if not pixels:
        return ()
    return (
        f"{where}: the lens bends the image, by up to {pixels:.0f} pixels: rectify the images first (image_rect, with the "
        "four numbers of P), or boxes near the border are displaced",
    )


def bending(camera: CameraNumbers, size: tuple[int, int], coefficients: Sequence[float]) -> float:
    """The greatest displacement along the image's border, pixels, by Brown's model as OpenCV and ROS order it:
    k1, k2, p1, p2, k3, k4, k5, k6 (further ones, of thin prisms, count for little and are left out)."""
    if not any(coefficients):
        return 0.0
    k1, k2, p1, p2, k3, k4, k5, k6 = (list(coefficients) + [0.0] * 8)[:8]
    width, height = size
    greatest = 0.0
    for u in (0.0, (width - 1) / 2, width - 1.0):
        for v in (0.0, (height - 1) / 2, height - 1.0):
            x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
            r2 = x * x + y * y
            below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
            radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / below if below else math.inf
            dx = x * (radial - 1) + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
            dy = y * (radial - 1) + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
            moved = math.hypot(camera.fx * dx, camera.fy * dy)
            greatest = max(greatest, math.inf if math.isnan(moved) else moved)
    return greatest
