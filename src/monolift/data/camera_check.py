"""The one plausibility check of a camera against its image, for every source of intrinsics. No torch.

Nothing in a result betrays a wrong camera, so numbers that cannot belong together are refused, and odd ones are warned about.
``monolift.runtime.camera_check`` is this file's twin for machines without monolift; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monolift.errors import InputError

FOV_LIMITS_DEG = (1.0, 165.0)  # outside it is no image but a mistake of units
FISHEYE_DEG = 120.0  # a flat image of this width has its border stretched fourfold: such lenses are fisheyes
FOV_USUAL_DEG = (15.0, 110.0)
OBLONG_LIMIT = 4.0  # fx / fy and its inverse; anamorphic lenses have up to 2
OBLONG_USUAL = 1.25
OFF_CENTRE = 0.15  # of half the width and height: an image resized by more than this is told from its camera
TRANSLATION_LIMIT_M = (
    5.0  # no rig that projects by K [I | t] is longer, and millimetres are a thousand times more
)
TRANSLATION_USUAL_M = 1.0
FARTHEST = 200.0  # halves of the image that the principal point of a window may lie away


@dataclass(frozen=True)
class CameraNumbers:
    """A pinhole camera K [I | t] as plain numbers: pixels, and metres for the translation."""

    fx: float
    fy: float
    cx: float
    cy: float
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of_projection(cls, rows: Sequence[Sequence[float]], where: str) -> CameraNumbers:
        """From the rows of K (3, 3) or of P = K [I | t] (3, 4), such as KITTI's P2.

        Raises:
            InputError: beginning with ``where``, for numbers that are not finite and for a skewed or unnormalised K.
        """
        k = [[float(v) for v in row] for row in rows]
        if len(k) != 3 or {len(row) for row in k} not in ({3}, {4}):
            raise InputError(f"{where}: expected a camera matrix of 3 x 3 or 3 x 4 numbers")
        if not all(math.isfinite(v) for row in k for v in row):
            raise InputError(f"{where}: expected a camera matrix of finite numbers, got {_shown(k)}")
        if k[0][1] or k[1][0] or k[2][0] or k[2][1] or k[2][2] != 1:
            raise InputError(
                f"{where}: expected a camera matrix [[fx,0,cx],[0,fy,cy],[0,0,1]] (no skew), got {_shown(k)}"
            )
        fx, fy, cx, cy = k[0][0], k[1][1], k[0][2], k[1][2]
        if not (fx > 0 and fy > 0):
            raise InputError(f"{where}: expected positive focal lengths, got fx = {fx:g} and fy = {fy:g}")
        t = (0.0, 0.0, 0.0)
        if len(k[0]) == 4:
            tz = k[2][3]
            t = ((k[0][3] - cx * tz) / fx, (k[1][3] - cy * tz) / fy, tz)
        return cls(fx, fy, cx, cy, t)


def check_numbers(
    camera: CameraNumbers, width: int, height: int, where: str, stated: bool = False
) -> tuple[str, ...]:
    """Warnings about a camera whose numbers are unusual for an image of this size.

    where: the file or option that messages begin with. stated: the size was given with the camera, so that the image may be any
    window of a larger one; its principal point is warned about and not refused.
    Raises InputError where camera and image cannot belong together: numbers that are not finite or impossible, a focal
    length of another unit, a fisheye, a principal point of an image of another size, a translation of another unit.
    """
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.translation)
    if not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{where}: expected finite camera numbers, got {', '.join(f'{v:g}' for v in numbers)}"
        )
    if not (width > 0 and height > 0):
        raise InputError(f"{where}: expected an image of at least one pixel, got {width} x {height}")
    return (
        *_check_focal(camera, width, where),
        *_check_principal_point(camera, width, height, where, stated),
        *_check_translation(camera.translation, where),
    )


def fov_deg(focal: float, side: int) -> float:
    """The field of view across ``side`` pixels, degrees."""
    return math.degrees(2 * math.atan2(side / 2, focal))


def fisheye(fov: float) -> str:
    """Why a field of view is refused, to be put behind what it belongs to."""
    return (
        f"{fov:.3g} degrees are a fisheye's, which bends straight lines: a flat image of {FISHEYE_DEG:g} degrees would "
        "be stretched fourfold at its border; rectify the images to a pinhole camera of less and give that camera"
    )


def _check_focal(camera: CameraNumbers, width: int, where: str) -> list[str]:
    fx, fy = camera.fx, camera.fy
    if not (fx > 0 and fy > 0):
        raise InputError(
            f"{where}: expected positive focal lengths in pixels, got fx = {fx:g} and fy = {fy:g}"
        )
    fov = fov_deg(fx, width)
    if not FOV_LIMITS_DEG[0] <= fov <= FOV_LIMITS_DEG[1]:
        raise InputError(
            f"{where}: fx = {fx:g} on an image {width} pixels wide is a field of view of {fov:.3g} degrees: focal lengths are "
            "expected in pixels, not in millimetres or shares of the width"
        )
    if fov >= FISHEYE_DEG:
        raise InputError(f"{where}: fx = {fx:g} on an image {width} pixels wide: {fisheye(fov)}")
    if not 1 / OBLONG_LIMIT < fx / fy < OBLONG_LIMIT:
        raise InputError(
            f"{where}: fx = {fx:g} and fy = {fy:g} cannot be one lens: expected both in pixels, in the order fx, fy, cx, cy"
        )
    warnings = []
    if not FOV_USUAL_DEG[0] <= fov <= FOV_USUAL_DEG[1]:
        warnings.append(
            f"{where}: a field of view of {fov:.0f} degrees is unusual; distances scale with fx = {fx:g}"
        )
    if not 1 / OBLONG_USUAL < fx / fy < OBLONG_USUAL:
        warnings.append(f"{where}: fx = {fx:g} and fy = {fy:g} differ much: pixels are rarely that oblong")
    return warnings


def _check_principal_point(
    camera: CameraNumbers, width: int, height: int, where: str, stated: bool
) -> list[str]:
    cx, cy = camera.cx, camera.cy
    right, down = (
        (cx + 0.5) / (width / 2),
        (cy + 0.5) / (height / 2),
    )  # 1 is the middle, 0 and 2 are the borders
    if max(abs(right), abs(down)) > FARTHEST:
        raise InputError(
            f"{where}: principal point ({cx:g}, {cy:g}) is beyond any image of {width} x {height} pixels"
        )
    outside = not (0 <= right <= 2 and 0 <= down <= 2)
    alike = abs(right - down) < 0.12 * max(right, down)  # displaced by one factor: an image of another size
    off, least = abs((right + down) / 2 - 1), min(abs(right - 1), abs(down - 1))
    resized = alike and off > OFF_CENTRE and least > 0.1
    turned = _turned(cx, cy, width, height) and least > OFF_CENTRE
    if not stated and (outside or resized or turned):
        suited = f"{height} x {width}" if turned else f"about {right * width:.0f} x {down * height:.0f}"
        hint = f" (it would suit one of {suited})" if right > 0 and down > 0 else ""
        raise InputError(
            f"{where}: principal point ({cx:g}, {cy:g}) does not fit an image of {width} x {height}{hint}: give the camera of "
            "this very image, or fx,fy,cx,cy,width,height of the original size"
        )
    if abs(right - 1) > 0.2 or abs(down - 1) > 0.35 or (alike and off > 0.08 and least > 0.04):
        return [
            f"{where}: principal point ({cx:g}, {cy:g}) is far from the middle of an image of {width} x {height}; "
            "is this its calibration?"
        ]
    return []


def _turned(cx: float, cy: float, width: int, height: int) -> bool:
    """Whether the principal point is in the middle of the image turned by a quarter."""
    return abs((cx + 0.5) / (height / 2) - 1) < 0.12 and abs((cy + 0.5) / (width / 2) - 1) < 0.12


def _check_translation(translation: tuple[float, float, float], where: str) -> list[str]:
    length = math.hypot(*translation)
    shown = ", ".join(f"{v:.4g}" for v in translation)
    if length > TRANSLATION_LIMIT_M:
        raise InputError(
            f"{where}: the projection's fourth column moves the camera by ({shown}) metres: expected K [I | t] with t in "
            "metres, as KITTI's P2; divide a t in millimetres by 1000, and leave the pose of the car out"
        )
    if length > TRANSLATION_USUAL_M:
        return [
            f"{where}: the projection's fourth column moves the camera by ({shown}) metres; is it in metres?"
        ]
    return []


def _shown(rows: Sequence[Sequence[float]]) -> str:
    return "; ".join(" ".join(f"{v:g}" for v in row[:4]) for row in rows)[:160]
