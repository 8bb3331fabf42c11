"""Where a photograph's camera comes from: four numbers, a calibration file, a field of view, the picture's EXIF, or a guess.

A wrong camera gives wrong metres without any other sign, so whatever does not fit the picture is refused with its numbers,
whatever looks odd is warned about, and every result says where its camera came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monolift.data.formats import camera_info
from monolift.data.kitti import read_camera
from monolift.errors import InputError
from monolift.geometry import Camera

GUESSED_MM = 26.0  # a phone's main camera; for KITTI's panoramas it is 8 % too long
FILM_DIAGONAL_MM = 43.27  # of 36 x 24 mm film, by which CIPA DCG-001 defines the equivalent focal length
FOV_LIMITS_DEG = (1.0, 165.0)  # outside it is no photograph but a mistake of units
FISHEYE_DEG = (
    120.0  # a flat picture of this width has its border stretched fourfold: such lenses are fisheyes
)
FOV_USUAL_DEG = (15.0, 110.0)


@dataclass(frozen=True)
class KnownCamera:
    """A camera of one picture, its size filled in, with where it came from and what is odd about it."""

    camera: Camera
    origin: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CameraChoice:
    """What the user said about the camera: at most one of the three. With none, EXIF decides, else a guess.

    camera: for pictures as they are seen (after EXIF's rotation). One with a size is scaled to pictures of the same shape.
    calib: a KITTI calibration file, whose whole P2 is used, or a ROS camera_info file (.yaml), or a folder of either, named
        like the pictures.
    fov: horizontal field of view, degrees.
    """

    camera: Camera | None = None
    calib: Path | None = None
    fov: float | None = None

    @staticmethod
    def of(
        camera: Camera | str | Sequence[float] | None = None,
        calib: str | Path | None = None,
        fov: float | None = None,
    ) -> CameraChoice:
        """Checks what was given. ``camera`` may be "fx,fy,cx,cy" or "fx,fy,cx,cy,width,height", or the numbers.

        Raises InputError for more than one of the three, malformed numbers, and a calib path that does not exist.
        """
        given = [n for n, v in (("camera", camera), ("calib", calib), ("fov", fov)) if v is not None]
        if len(given) > 1:
            raise InputError(f"expected one of camera, calib and fov, got {' and '.join(given)}")
        if camera is not None and not isinstance(camera, Camera):
            camera = parse_camera(camera)
        path = None if calib is None else Path(calib)
        if path is not None and not path.exists():
            raise InputError(
                f"{path}: no such calibration: expected a KITTI calib file, a ROS camera_info .yaml, or a folder of them"
            )
        if fov is not None and FISHEYE_DEG <= fov < 360:
            raise InputError(f"field of view: {_fisheye(fov)}")
        if fov is not None and not FOV_LIMITS_DEG[0] <= fov < FISHEYE_DEG:
            raise InputError(
                f"field of view: expected {FOV_LIMITS_DEG[0]:g} to {FISHEYE_DEG:g} degrees (horizontal), got {fov:g}"
            )
        return CameraChoice(camera, path, fov)

    def for_picture(self, name: str, width: int, height: int, film_mm: float | None = None) -> KnownCamera:
        """The camera of the picture ``name`` of this size.

        film_mm: EXIF's 35 mm-equivalent focal length, where there is one.
        Raises InputError where the calibration is missing, malformed or cannot belong to a picture of this size.
        """
        if self.camera is not None:
            return _given(self.camera, width, height)
        if self.calib is not None:
            path = _calib_file(self.calib, name)
            if path.suffix.lower() in camera_info.SUFFIXES:
                camera, warnings = camera_info.read_camera_info(path)
                known = _given(camera, width, height)
                odd = plausible(known.camera, str(path)) + warnings
                return KnownCamera(known.camera, f"camera_info {path}", odd)
            camera = read_camera(path, width, height)
            return KnownCamera(camera, f"calib {path}", plausible(camera, str(path)))
        if self.fov is not None:
            return KnownCamera(
                Camera.from_fov(self.fov, width, height), f"field of view {self.fov:g} degrees"
            )
        if film_mm is not None:
            camera = camera_from_film(film_mm, width, height)
            return KnownCamera(camera, f"EXIF, {film_mm:g} mm on 35 mm film", plausible(camera, "EXIF"))
        camera = camera_from_film(GUESSED_MM, width, height)
        warning = (
            f"no camera given: assumed fx = fy = {float(camera.fx):.0f} pixels ({GUESSED_MM:g} mm on 35 mm film, a phone's "
            "main camera); all distances scale with it. Give four intrinsics, a KITTI calib or a field of view"
        )
        return KnownCamera(camera, f"guess, {GUESSED_MM:g} mm on 35 mm film", (warning,))


def parse_camera(text: str | Sequence[float]) -> Camera:
    """Camera from "fx,fy,cx,cy" in pixels, optionally with ",width,height" of the pictures it was calibrated on."""
    words = text.split(",") if isinstance(text, str) else list(text)
    shown = text if isinstance(text, str) else ",".join(str(w) for w in words)
    if len(words) not in (4, 6):
        raise InputError(f"camera: expected fx,fy,cx,cy or fx,fy,cx,cy,width,height in pixels, got {shown!r}")
    try:
        numbers = [float(w) for w in words]
    except (TypeError, ValueError):
        raise InputError(f"camera: expected numbers fx,fy,cx,cy, got {shown!r}") from None
    width, height = (numbers[4], numbers[5]) if len(numbers) == 6 else (0.0, 0.0)
    if not (width == int(width) >= 0 and height == int(height) >= 0 and (width > 0) == (height > 0)):
        raise InputError(f"camera: expected a size of whole pixels, got {width:g} x {height:g}")
    fx, fy, cx, cy = numbers[:4]
    return Camera(fx, fy, cx, cy, width=int(width), height=int(height))


def camera_from_film(film_mm: float, width: int, height: int) -> Camera:
    """From a 35 mm-equivalent focal length: the picture's diagonal stands for the film's. Square pixels, centred."""
    focal = film_mm * math.hypot(width, height) / FILM_DIAGONAL_MM
    return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width=width, height=height)


def _calib_file(calib: Path, name: str) -> Path:
    """The calibration of a picture: the file itself, or the one in a folder that has the picture's name."""
    if not calib.is_dir():
        return calib
    paths = [calib / f"{name}{suffix}" for suffix in (".txt", *camera_info.SUFFIXES)]
    for path in paths:
        if path.exists():
            return path
    raise InputError(
        f"{paths[0]}: no calibration for picture {name}: expected one file per picture in {calib}"
    )


def _fisheye(fov: float) -> str:
    return (
        f"{fov:.3g} degrees are a fisheye's, which bends straight lines: a flat picture of {FISHEYE_DEG:g} degrees would "
        "be stretched fourfold at its border; rectify the pictures to a pinhole camera of less and give that camera"
    )


def _given(camera: Camera, width: int, height: int) -> KnownCamera:
    if camera.fx.ndim:
        raise InputError(
            f"camera: expected one camera, got a batch of {camera.fx.numel()}: detect one picture at a time"
        )
    numbers = ", ".join(f"{name} {float(getattr(camera, name)):g}" for name in ("fx", "fy", "cx", "cy"))
    if not (camera.width and camera.height):
        sized = camera.after_crop(0, 0, width, height)  # nothing is cut: this gives it the picture's size
        return KnownCamera(sized, f"given: {numbers}", plausible(sized, "the camera given"))
    if camera.fov_deg >= FISHEYE_DEG:
        raise InputError(f"the camera given: {_fisheye(camera.fov_deg)}")
    if (camera.width, camera.height) == (width, height):
        return KnownCamera(camera, f"given: {numbers}")  # whoever states the size may have cropped anywhere
    if abs(camera.width * height - camera.height * width) > max(camera.width, camera.height) + max(
        width, height
    ):
        raise InputError(
            f"the camera is for pictures of {camera.width} x {camera.height}, this one has {width} x {height}: another shape, "
            "so it was cropped; give the cropped picture's camera (Camera.after_crop)"
        )
    scaled = camera.after_resize(width, height)
    return KnownCamera(
        scaled, f"given for {camera.width} x {camera.height}: {numbers}; scaled to this picture"
    )


def plausible(camera: Camera, where: str) -> tuple[str, ...]:
    """Warnings about a camera whose numbers are unusual for its picture.

    Raises InputError where they cannot belong together: principal point outside the picture, or displaced as in a picture
    of another size, or a focal length of another unit.
    """
    width, height = camera.width, camera.height
    fx, fy, cx, cy = (float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy"))
    fov = camera.fov_deg
    if not FOV_LIMITS_DEG[0] <= fov <= FOV_LIMITS_DEG[1]:
        raise InputError(
            f"{where}: fx = {fx:g} on a picture {width} pixels wide is a field of view of {fov:.3g} degrees: focal lengths are "
            "expected in pixels, not in millimetres or shares of the width"
        )
    if fov >= FISHEYE_DEG:
        raise InputError(f"{where}: fx = {fx:g} on a picture {width} pixels wide: {_fisheye(fov)}")
    right, down = (
        (cx + 0.5) / (width / 2),
        (cy + 0.5) / (height / 2),
    )  # 1 is the middle, 0 and 2 are the borders
    alike = abs(right - down) < 0.12 * max(right, down)
    if not (0 <= right <= 2 and 0 <= down <= 2) or (alike and abs(right - 1) > 0.15 and abs(down - 1) > 0.15):
        hint = (
            f" (it would suit one of about {right * width:.0f} x {down * height:.0f})"
            if right > 0 and down > 0
            else ""
        )
        raise InputError(
            f"{where}: principal point ({cx:g}, {cy:g}) does not fit a picture of {width} x {height}{hint}: give the camera of "
            "this very picture, or fx,fy,cx,cy,width,height of the original size"
        )
    warnings = []
    if abs(right - 1) > 0.2 or abs(down - 1) > 0.35:
        warnings.append(
            f"{where}: principal point ({cx:g}, {cy:g}) is far from the middle of a picture of {width} x {height}; "
            "is this its calibration?"
        )
    if not FOV_USUAL_DEG[0] <= fov <= FOV_USUAL_DEG[1]:
        warnings.append(
            f"{where}: a field of view of {fov:.0f} degrees is unusual; distances scale with fx = {fx:g}"
        )
    if not 0.8 < fx / fy < 1.25:
        warnings.append(f"{where}: fx = {fx:g} and fy = {fy:g} differ much: pixels are rarely that oblong")
    return tuple(warnings)
