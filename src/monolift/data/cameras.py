"""Resolving camera intrinsics: four numbers, a camera file, a field of view, EXIF, or an assumed phone camera.

A wrong camera gives wrong metres without any other sign, so every camera is held against its image by `check_camera`:
whatever does not fit is refused with its numbers, whatever looks odd is warned about, and every result says where its camera
came from.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monolift.data.camera_check import (
    FISHEYE_DEG,
    FOV_LIMITS_DEG,
    CameraNumbers,
    check_numbers,
    fisheye,
)
from monolift.data.camera_tally import CameraTally
from monolift.data.formats.camera_files import SUFFIXES, parse_camera_file, read_camera_file
from monolift.data.formats.camera_tables import CameraFile
from monolift.data.formats.kitti_format import read_calib
from monolift.data.kitti import KittiDataset, find_image
from monolift.errors import InputError
from monolift.files.folders import find_file, text_file
from monolift.files.images import image_size
from monolift.files.text import short_name
from monolift.geometry import Camera

GUESSED_MM = 26.0  # a phone's main camera; for KITTI's panoramas it is 8 % too long
FILM_DIAGONAL_MM = 43.27  # of 36 x 24 mm film, by which CIPA DCG-001 defines the equivalent focal length
LARGEST_SIDE = 1_000_000  # pixels of a stated image size


@dataclass(frozen=True)
class KnownCamera:
    """A camera of one image, its size filled in, with where it came from and what is odd about it."""

    camera: Camera
    origin: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibText:
    """The content of a camera file that is on no disk here; ``name``: what messages call it."""

    content: str | bytes
    name: str = "calib"


@dataclass(frozen=True)
class CameraChoice:
    """The camera options of a call, at most one of three. With none: EXIF, else an assumed phone camera.

    Attributes:
        camera: for images as they are seen (after EXIF's rotation). One with a size is scaled to images of the same shape.
        calib: a camera file of any kind that ``data.formats.camera_files`` reads, such as a KITTI calibration, whose whole
            P2 is used, or a ROS camera_info; or a folder of them, named like the images; or, from a client, a file's
            content.
        fov: horizontal field of view, degrees.
    """

    camera: Camera | None = None
    calib: Path | CalibText | None = None
    fov: float | None = None

    @staticmethod
    def of(
        camera: Camera | str | Sequence[float] | None = None,
        calib: str | Path | CalibText | None = None,
        fov: float | None = None,
    ) -> CameraChoice:
        """Checks what was given. ``camera`` may be "fx,fy,cx,cy" or "fx,fy,cx,cy,width,height", or the numbers.

        Raises:
            InputError: for more than one of the three, malformed numbers, and a calib path that does not exist.
        """
        given = [n for n, v in (("camera", camera), ("calib", calib), ("fov", fov)) if v is not None]
        if len(given) > 1:
            raise InputError(f"expected one of camera, calib and fov, got {' and '.join(given)}")
        if camera is not None and not isinstance(camera, Camera):
            camera = parse_camera(camera)
        path = Path(calib) if isinstance(calib, str | Path) else calib
        if isinstance(path, Path) and not path.exists():
            raise InputError(
                f"{path}: no such calibration: expected a camera file, such as a KITTI calib or a ROS camera_info .yaml, or a "
                "folder of them"
            )
        if fov is not None and FISHEYE_DEG <= fov < 360:
            raise InputError(f"field of view: {fisheye(fov)}")
        if fov is not None and not FOV_LIMITS_DEG[0] <= fov < FISHEYE_DEG:
            raise InputError(
                f"field of view: expected {FOV_LIMITS_DEG[0]:g} to {FISHEYE_DEG:g} degrees (horizontal), got {fov:g}"
            )
        return CameraChoice(camera, path, fov)

    def for_picture(self, *args: Any, **kwargs: Any) -> KnownCamera:
        """Deprecated name of `for_image`."""
        warnings.warn("CameraChoice.for_picture is now called for_image", DeprecationWarning, stacklevel=2)
        return self.for_image(*args, **kwargs)

    def for_image(self, name: str, width: int, height: int, film_mm: float | None = None) -> KnownCamera:
        """The camera of the image ``name`` of this size.

        Args:
            film_mm: EXIF's 35 mm-equivalent focal length, where there is one.

        Raises:
            InputError: where the calibration is missing, malformed or cannot belong to an image of this size.
        """
        if self.camera is not None:
            return _given(self.camera, width, height)
        if isinstance(self.calib, CalibText):
            file = parse_camera_file(self.calib.content, self.calib.name, (width, height), name)
            return _from_file(file, self.calib.name, width, height)
        if self.calib is not None:
            path = _calib_file(self.calib, name)
            return _from_file(read_camera_file(path, (width, height), name), str(path), width, height)
        if self.fov is not None:
            camera = Camera.from_fov(self.fov, width, height)
            return KnownCamera(camera, f"field of view {self.fov:g} degrees")
        if film_mm is not None:
            camera = camera_from_film(film_mm, width, height)
            return KnownCamera(camera, f"EXIF, {film_mm:g} mm on 35 mm film", check_camera(camera, "EXIF"))
        camera = camera_from_film(GUESSED_MM, width, height)
        warning = (
            f"no camera given: assumed fx = fy = {float(camera.fx):.0f} pixels ({GUESSED_MM:g} mm on 35 mm film, a phone's "
            "main camera); all distances scale with it. Give four intrinsics, a camera file or a field of view"
        )
        return KnownCamera(camera, f"guess, {GUESSED_MM:g} mm on 35 mm film", (warning,))


def parse_camera(text: str | Sequence[float]) -> Camera:
    """Camera from "fx,fy,cx,cy" in pixels, optionally with ",width,height" of the images it was calibrated on."""
    words = text.split(",") if isinstance(text, str) else list(text)
    shown = (text if isinstance(text, str) else ",".join(str(w) for w in words[:8]))[:80]
    if len(words) not in (4, 6):
        raise InputError(f"camera: expected fx,fy,cx,cy or fx,fy,cx,cy,width,height in pixels, got {shown!r}")
    try:
        numbers = [float(w) for w in words]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"camera: expected numbers fx,fy,cx,cy, got {shown!r}") from None
    width, height = (numbers[4], numbers[5]) if len(numbers) == 6 else (0.0, 0.0)
    sides = (width, height)
    whole = all(0 <= side <= LARGEST_SIDE and side == int(side) for side in sides)
    if not whole or (width > 0) != (height > 0):
        raise InputError(f"camera: expected a size of whole pixels, got {width:g} x {height:g}")
    fx, fy, cx, cy = numbers[:4]
    return Camera(fx, fy, cx, cy, width=int(width), height=int(height))


def camera_from_film(film_mm: float, width: int, height: int) -> Camera:
    """From a 35 mm-equivalent focal length: the image's diagonal stands for the film's. Square pixels, centred."""
    focal = film_mm * math.hypot(width, height) / FILM_DIAGONAL_MM
    return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width=width, height=height)


def check_camera(camera: Camera, where: str, stated: bool = False) -> tuple[str, ...]:
    """Warnings about one camera of known image size whose numbers are unusual for its image.

    Args:
        where: the file or option that messages begin with
        stated: as for ``camera_check.check_numbers``.

    Raises:
        InputError: where they cannot belong together: a focal length of another unit or of a fisheye, a principal point of
            an image of another size, a translation of another unit, numbers of no camera.
    """
    if camera.fx.ndim:
        raise InputError(
            f"{where}: expected one camera, got a batch of {camera.fx.numel()}: detect one image at a time"
        )
    return check_numbers(camera_numbers(camera), camera.width, camera.height, where, stated)


def check_dataset(data: KittiDataset) -> tuple[str, ...]:
    """Warnings about the cameras of a data set, each kind once; reads headers and calibrations, no pixels.

    A single camera that does not fit its image is an error, as an unreadable label is: it would teach, or score, wrong metres
    without any other sign, and an image that is left out silently changes the data. The message names the files.
    Raises InputError for such cameras, and for images and calibrations that cannot be read.
    """
    tally = CameraTally()
    unfit = []
    for name in data.ids:
        path = text_file(data.root / "calib", name)
        width, height = image_size(find_image(data.root, name))
        if not tally.add(short_name(path), read_calib(path).p2.tolist(), width, height):
            unfit.append(name)
    if unfit:
        others = f"; so are those of {', '.join(unfit[1:6])}" + (" ..." if len(unfit) > 6 else "")
        raise InputError(
            f"{data.root}: the camera of {len(unfit)} of {tally.images} images cannot be theirs: {tally.errors[0]}"
            + (others if len(unfit) > 1 else "")
            + ". Correct calib/, or leave these ids out of the split"
        )
    return tally.warnings


def camera_numbers(camera: Camera) -> CameraNumbers:
    """A single camera as plain numbers."""
    fx, fy, cx, cy, *t = (float(getattr(camera, k)) for k in ("fx", "fy", "cx", "cy", "tx", "ty", "tz"))
    return CameraNumbers(fx, fy, cx, cy, (t[0], t[1], t[2]))


def camera_of_numbers(numbers: CameraNumbers, width: int = 0, height: int = 0) -> Camera:
    """The inverse of `camera_numbers`, with the size of the image. Raises InputError as `Camera`."""
    return Camera(numbers.fx, numbers.fy, numbers.cx, numbers.cy, *numbers.translation, width, height)


def _calib_file(calib: Path, name: str) -> Path:
    """The calibration of an image: the file itself, or the one in a folder that has the image's name, or a whole drive's."""
    if not calib.is_dir():
        return calib
    for stem, suffixes in ((name, SUFFIXES), ("calib_cam_to_cam", (".txt",))):
        if path := find_file(calib, stem, suffixes):
            return path
    raise InputError(
        f"{calib / name}{SUFFIXES[0]}: no calibration for image {name}: expected one file per image in {calib}, "
        "or a single file for all of them as --calib"
    )


def _from_file(file: CameraFile, where: str, width: int, height: int) -> KnownCamera:
    try:
        camera = camera_of_numbers(file.numbers, *(file.size or (width, height)))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if file.size not in (None, (width, height)):
        camera = _resized(camera, width, height, where)
    odd = check_camera(camera, where)
    return KnownCamera(camera, f"{file.kind} {where}" if where != file.kind else where, odd + file.warnings)


def _given(camera: Camera, width: int, height: int) -> KnownCamera:
    where = "the camera given"
    if camera.fx.ndim:
        raise InputError(
            f"camera: expected one camera, got a batch of {camera.fx.numel()}: detect one image at a time"
        )
    numbers = ", ".join(f"{name} {float(getattr(camera, name)):g}" for name in ("fx", "fy", "cx", "cy"))
    if not (camera.width and camera.height):
        sized = camera.after_crop(0, 0, width, height)  # nothing is cut: this gives it the image's size
        return KnownCamera(sized, f"given: {numbers}", check_camera(sized, where))
    if (camera.width, camera.height) == (width, height):
        # the stated size may be that of any crop
        return KnownCamera(camera, f"given: {numbers}", check_camera(camera, where, stated=True))
    odd = check_camera(
        camera, where, stated=True
    )  # of its own image: messages then show the numbers as given
    scaled = _resized(camera, width, height, where)
    origin = f"given for {camera.width} x {camera.height}: {numbers}; scaled to this image"
    return KnownCamera(scaled, origin, odd)


def _resized(camera: Camera, width: int, height: int, where: str) -> Camera:
    """The camera of the whole image at another size. Raises InputError for another shape."""
    if abs(camera.width * height - camera.height * width) > max(camera.width, camera.height) + max(
        width, height
    ):
        raise InputError(
            f"{where}: it is for images of {camera.width} x {camera.height}, this one has {width} x {height}: another shape, "
            "so it was cropped; give the cropped image's camera (Camera.after_crop)"
        )
    return camera.after_resize(width, height)
