"""From an opened Pillow image to upright 8-bit RGB: EXIF's rotation and focal length, grey, palette, transparency, 16 bits."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from monolift.errors import InputError

UInt8Array = npt.NDArray[np.uint8]

UNDER_TRANSPARENCY = (128, 128, 128)

# What Pillow raises for a file that is no image, is cut short or lies about its size.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    # of single decoders, on files made to break them
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
)

EXIF_IGNORED = "EXIF cannot be read and is ignored"  # broken metadata on a sound image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The upright image; what `rgb` asks of ``info`` stays with it."""
    upright = image.transpose(TURNS[orientation])
    upright.info.update({k: v for k, v in image.info.items() if k == "transparency"})
    return upright


def orientation_of(image: Image.Image) -> tuple[int, bool]:
    """EXIF's orientation, 1 where there is none; and whether EXIF could be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation) or 1), True
    except UNREADABLE:
        return 1, False


def png_has_exif(image: Image.Image) -> bool:
    """Whether a PNG holds EXIF or XMP, by its chunks' names: Pillow would unpack all pixels to know."""
    if image.info.keys() & {"exif", "XML:com.adobe.xmp", "Raw profile type exif", "xmp"}:
        return True
    stream = getattr(image, "fp", None)  # of an image that comes from a file
    if stream is None:
        return True
    place = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            if kind == b"IEND":
                break
            stream.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(place)


def rgb(image: Image.Image, name: str) -> tuple[UInt8Array, tuple[str, ...]]:
    """(H, W, 3) uint8 of an image of any mode, and what is doubtful; what is transparent becomes grey."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > 65535:
            raise InputError(f"{name}: expected 8 or 16 bits per pixel, got values from {least} to {most}")
        doubts: tuple[str, ...] = ()
        if 0 < most < 4096:
            doubts = (
                f"16-bit grey of values up to {most}, of 65535: it is read as nearly black; scale it to the full range first",
            )
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2), doubts
    if image.mode == "F":
        raise InputError(
            f"{name}: expected 8 or 16 bits per pixel, got floating-point pixels: save it as PNG or JPEG"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _composed(image.convert("RGBA")), ()
    return np.array(image.convert("RGB")), ()


def _composed(image: Image.Image) -> UInt8Array:
    """An RGBA image over grey, in strips: three whole copies of a large one would not fit."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, 4_000_000 // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        ground = Image.new("RGBA", strip.size, (*UNDER_TRANSPARENCY, 255))
        pixels[top : top + rows] = np.asarray(Image.alpha_composite(ground, strip).convert("RGB"))
    return pixels


def film_length(image: Image.Image) -> tuple[float | None, tuple[str, ...]]:
    """EXIF's 35 mm-equivalent focal length; not that of an image whose shape has changed since it was taken."""
    try:
        tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
        film_mm = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm) or 0)
        taken = sorted(
            int(tags.get(tag) or 0) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        )
    except UNREADABLE:
        return None, (EXIF_IGNORED,)
    if not 1 <= film_mm <= 5000:
        return None, ()
    now = sorted(image.size)
    if taken[0] > 0 and abs(taken[0] / taken[1] - now[0] / now[1]) > 0.01:
        size = f"{image.size[0]} x {image.size[1]}"
        return None, (
            f"EXIF's focal length is ignored: taken as {taken[1]} x {taken[0]}, cropped to {size} since",
        )
    return film_mm, ()
