"""Images: one reader, from whatever file or bytes to upright 8-bit RGB, with numpy and Pillow alone.

Every image of the package comes through here: EXIF's rotation is applied; grey, palette, transparent and 16-bit images are
brought to 8-bit RGB. The format is decided by the content before anything is decoded: only `FORMATS` are opened, none of which
starts a program (an EPS named .jpg would run Ghostscript). The size is held against `Limits` before memory is taken. Whatever
Pillow raises becomes an InputError that names the file.

The runtime has a copy of `read_rgb` of its own, because it imports nothing of this package; a test holds the two together.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from monolift.errors import InputError
from monolift.files.folders import partial_file
from monolift.files.image_content import refuse_foreign, webp_canvas
from monolift.files.image_pixels import (
    EXIF_IGNORED,
    TURNS,
    UNREADABLE,
    UInt8Array,
    film_length,
    orientation_of,
    png_has_exif,
    rgb,
    turned,
)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
JPEG_QUALITY = 92  # of what is written


class TooLargeError(InputError):
    """An image beyond the `Limits`."""


@dataclass(frozen=True)
class Limits:
    """How large an image may be; checked on the header, before its pixels take memory."""

    pixels: int = 80_000_000
    """Width times height. As RGB 240 MB; cameras of 61 megapixels are within."""
    side: int = 20_000
    """Width and height. 32 x 781,250 is within any limit of pixels, and a bird's-eye view as wide as it is tall is not."""
    aspect: float = 100.0
    """The longer side divided by the shorter. KITTI has 3.3, panoramas have up to 8; a narrower strip shows nothing."""

    def check(self, width: int, height: int, where: str) -> None:
        """Raises TooLargeError, beginning with ``where``, for an image that is larger."""
        got = f"got {width} x {height}"
        if width < 1 or height < 1:
            raise InputError(f"{where}: expected an image, {got} pixels")
        if width * height > self.pixels:
            raise TooLargeError(
                f"{where}: expected at most {self.pixels:,} pixels, {got}: make it smaller first"
            )
        if max(width, height) > self.side:
            raise TooLargeError(f"{where}: expected sides of at most {self.side:,} pixels, {got}")
        if max(width, height) > self.aspect * min(width, height):
            raise TooLargeError(
                f"{where}: expected a longer side of at most {self.aspect:g} times the shorter, {got}"
            )


LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image in memory.

    pixels: (H, W, 3) uint8 RGB, upright. film_mm: 35 mm-equivalent focal length from EXIF, if it is there and the image was not
    cropped since. warnings: what is doubtful about it, one line each.
    """

    pixels: UInt8Array
    film_mm: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_rgb(
    source: str | os.PathLike[str] | bytes | Image.Image, name: str = "image", limits: Limits = LIMITS
) -> DecodedImage:
    """The image of a file, of a file's bytes, or of a PIL image: upright 8-bit RGB.

    name: how messages call bytes and PIL images; files are called by their path.
    16-bit grey is divided by 256; whole numbers beyond 16 bits and floating-point pixels are refused, because nothing states
    which value is white. What is transparent becomes grey. Of an animation the first frame is taken.

    Raises InputError for files that are missing, empty, cut short, no image, not of `FORMATS`, or beyond ``limits``.
    """
    if isinstance(source, Image.Image):
        with _named(name):
            return _decoded(source, name, limits)
    where = _where(source, name)
    with opened(source, name, limits) as image:
        return _decoded(image, where, limits)


def image_size(
    source: str | os.PathLike[str] | bytes, name: str = "image", limits: Limits = LIMITS
) -> tuple[int, int]:
    """(width, height) of the upright image, from the header alone. Raises InputError as `read_rgb`."""
    with opened(source, name, limits) as image:
        width, height = image.size
        if (
            image.format == "TIFF"
        ):  # Pillow turns the size of some versions at once, of others with the pixels
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = int(tags[256]), int(tags[257])
        if image.format == "PNG" and not png_has_exif(image):
            return width, height
        turned = orientation_of(image)[0] in _SIDEWAYS
        return (height, width) if turned else (width, height)


@contextlib.contextmanager
def opened(
    source: str | os.PathLike[str] | bytes,
    name: str = "image",
    limits: Limits = LIMITS,
    formats: Collection[str] = FORMATS,
) -> Iterator[Image.Image]:
    """A PIL image whose header is read and within ``limits``: for those who want its stored values (maps, textures).

    Whatever Pillow raises within the block becomes an InputError that names the file.
    """
    where = _where(source, name)
    with _named(where), _stream(source, where) as stream:
        head = stream.read(64)
        stream.seek(0)
        if not head:
            raise InputError(f"{where}: not a readable image: empty file (0 bytes)")
        refuse_foreign(head, where, formats)
        if canvas := webp_canvas(head):
            limits.check(*canvas, where)
        with Image.open(stream, formats=tuple(formats)) as image:
            width, height = image.size
            limits.check(width, height, where)
            yield image


def write_image(
    path: str | os.PathLike[str],
    image: UInt8Array | Image.Image,
    parents: bool = False,
    durable: bool = True,
    **options: Any,
) -> None:
    """Writes an image in the format of the path's suffix, complete or not at all.

    Args:
        parents: makes the folder.
        durable: as of `monolift.files.folders.write_atomically`.
        options: Pillow's, such as quality=95.

    Raises:
        InputError: for a suffix that no format has, and when it cannot write.
    """
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise InputError(f"{path}: cannot write this image format: expected a name that ends in .png or .jpg")
    if kind == "JPEG":
        options.setdefault("quality", JPEG_QUALITY)
    encoded = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    if kind == "PNG" and encoded.mode == "RGB":
        # a photograph repeats itself in runs at most: deflate's search finds no more and takes four times as long
        options.setdefault("compress_type", zlib.Z_RLE)
        options.setdefault("compress_level", 1)
    with partial_file(path, parents, durable) as partial:
        encoded.save(partial, kind, **options)


def planes(pixels: UInt8Array) -> UInt8Array:
    """(3, H, W) of (H, W, 3) pixels, contiguous; numpy copies them in a third of the time of torch."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def image_of_planes(colours: UInt8Array) -> Image.Image:
    """The RGB image of (3, H, W) planes."""
    return Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(plane)) for plane in colours])


# --- opening


def _where(source: str | os.PathLike[str] | bytes, name: str) -> str:
    return name if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Turns what Pillow raises into InputError, beginning with ``where``."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, which comes before ours
        found = re.search(r"[0-9]+", str(error))
        got = f"{int(found[0]):,}" if found else "more"
        raise TooLargeError(f"{where}: expected at most {LIMITS.pixels:,} pixels, got {got}") from None
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        if isinstance(error, UnidentifiedImageError):
            reason = f"expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        elif isinstance(error, MemoryError):
            reason = "it takes more memory than there is"
        raise InputError(f"{where}: not a readable image ({reason[:200]})") from None


def _stream(source: str | os.PathLike[str] | bytes, where: str) -> contextlib.AbstractContextManager[Any]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    kind = os.stat(source).st_mode
    if stat.S_ISDIR(kind):
        raise InputError(f"{where}: is a folder: expected an image")
    if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
        raise InputError(f"{where}: not a regular file: expected an image")
    return open(source, "rb")


# --- decoding

_SIDEWAYS = (5, 6, 7, 8)


def _decoded(image: Image.Image, where: str, limits: Limits) -> DecodedImage:
    limits.check(*image.size, where)
    image.load()
    film_mm, warnings = film_length(image)
    orientation, readable = orientation_of(image)
    if not readable and not warnings:
        warnings = (EXIF_IGNORED,)
    if orientation in TURNS:
        image = turned(image, orientation)
    pixels, doubts = rgb(image, where)
    return DecodedImage(pixels, film_mm, warnings + doubts)


def rgb_of_array(array: npt.NDArray[Any], name: str = "image") -> UInt8Array:
    """(H, W, 3) uint8 of an array (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, RGB.

    Raises:
        InputError: for another shape or number type: floats are not guessed at.
    """
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or array.size == 0 or array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: expected an array (H, W, 3) of uint8, RGB, got {array.shape} of {array.dtype}"
            + ("; for values 0 to 1 give (255 * array).astype('uint8')" if array.dtype.kind == "f" else "")
        )
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return rgb(Image.fromarray(np.ascontiguousarray(array)), name)[0]
