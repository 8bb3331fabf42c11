"""From an image file to upright 8-bit RGB, with numpy and Pillow alone; the same rules as ``monolift.files.images``."""

from __future__ import annotations

import os
import stat
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # none of them starts a program
MOST_PIXELS, MOST_SIDE, MOST_ASPECT = 80_000_000, 20_000, 100.0
UNDER_TRANSPARENCY = (128, 128, 128)
ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_rgb(source: str | os.PathLike[str] | Image.Image, name: str = "image") -> npt.NDArray[np.uint8]:
    """(H, W, 3) of a file or a PIL image. Raises ValueError for what is no image, too large, or of unknown depth."""
    if isinstance(source, Image.Image):
        return _decoded(source, name)
    try:
        kind = os.stat(source).st_mode
        if not stat.S_ISREG(kind):
            raise ValueError("is a folder" if stat.S_ISDIR(kind) else "not a regular file")
        with open(source, "rb") as file:
            if not file.read(1):
                raise ValueError("empty file, 0 bytes")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                return _decoded(image, str(source))
    except UnidentifiedImageError:
        raise ValueError(f"{source}: not a readable image (expected {', '.join(FORMATS)})") from None
    except Exception as error:  # a decoder may raise anything on a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if reason.startswith(str(source)):
            raise ValueError(reason) from None
        raise ValueError(f"{source}: not a readable image ({reason})") from None


def _decoded(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    width, height = image.size
    short, long = sorted(image.size)
    if width * height > MOST_PIXELS or long > MOST_SIDE or long > MOST_ASPECT * short:
        raise ValueError(
            f"{name}: expected at most {MOST_PIXELS:,} pixels, sides of at most {MOST_SIDE:,}, a longer side of at most "
            f"{MOST_ASPECT:g} times the shorter, got {width} x {height}"
        )
    image.load()
    transparent = "transparency" in image.info
    try:
        turn = int(image.getexif().get(ORIENTATION) or 1)
    except Exception:  # broken metadata on a sound image
        turn = 1
    upright = image.transpose(_TURNS[turn]) if turn in _TURNS else image
    if transparent:
        upright.info["transparency"] = image.info["transparency"]
    return _rgb(upright, name, transparent)


def _rgb(image: Image.Image, name: str, transparent: bool) -> npt.NDArray[np.uint8]:
    mode = image.mode
    if mode.startswith("I"):
        values: npt.NDArray[Any] = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{name}: expected 8 or 16 bits per pixel, got values from {values.min()} to {values.max()}"
            )
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    if mode == "F":
        raise ValueError(
            f"{name}: expected 8 or 16 bits per pixel, got floating-point pixels: save it as PNG or JPEG"
        )
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparent:
        ground = Image.new("RGBA", image.size, (*UNDER_TRANSPARENCY, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return np.array(image.convert("RGB"))
