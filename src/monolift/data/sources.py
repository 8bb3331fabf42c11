"""What users point at: files, folders, globs, videos, arrays; all become photographs, upright 8-bit RGB."""

from __future__ import annotations

import glob
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from monolift.errors import InputError, MissingExtraError
from monolift.typing import Tensor, UInt8

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
SMALLEST = 32  # pixels: below this nothing can be recognised
UNDER_TRANSPARENCY = (128, 128, 128)

# What Pillow raises for a file that is no picture, is cut short or lies about its size.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Photograph:
    """One picture to look at.

    name: its file's stem, or "image"; image: (3, H, W) uint8 RGB, upright; path: where it came from, if from disk;
    film_mm: 35 mm-equivalent focal length from EXIF, if it is there and the picture was not cropped since.
    """

    name: str
    image: UInt8[Tensor, "3 H W"]
    path: Path | None = None
    film_mm: float | None = None
    warnings: tuple[str, ...] = ()


def is_video(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def expand(source: str | os.PathLike[str]) -> list[Path]:
    """The files behind a path: itself, a folder's pictures and videos in order of name, or a glob's matches (** too).

    Raises InputError where there is nothing.
    """
    path = Path(source)
    if path.is_dir():
        known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
        if not files:
            raise InputError(f"{path}: no pictures in this folder (looked for {', '.join(known)})")
        return files
    if path.exists() or not glob.has_magic(str(source)):
        return [path]  # a missing file is reported when it is read
    files = [Path(p) for p in sorted(glob.glob(str(source), recursive=True)) if Path(p).is_file()]
    if not files:
        raise InputError(f"{source}: the pattern matches no file")
    return files


def read_photograph(path: str | os.PathLike[str]) -> Photograph:
    """Reads a picture: EXIF's rotation applied, grey, palette, transparent and 16-bit pictures brought to 8-bit RGB.

    Raises InputError for a file that is missing, empty, cut short, no picture, or too small.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file (0 bytes): expected a picture")
        with Image.open(path) as picture:
            picture.load()
            return photograph(picture, path.stem, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except UNREADABLE as error:
        reason = str(error).replace(f" {str(path)!r}", "").strip() or type(error).__name__
        raise InputError(f"{path}: not a readable picture ({reason})") from None


def photograph(source: Any, name: str = "image", path: Path | None = None) -> Photograph:
    """A picture in memory: PIL image; (H, W, 3) uint8 RGB array, also (H, W), (H, W, 4) and uint16; (3, H, W) uint8 tensor.

    Raises InputError for another type, shape or number type: floats are not guessed at.
    """
    warnings: tuple[str, ...] = ()
    film_mm = None
    if isinstance(source, Image.Image):
        film_mm, warnings = _film_length(source)
        pixels = _rgb(ImageOps.exif_transpose(source), name)
    elif isinstance(source, Tensor):
        if source.ndim != 3 or source.shape[0] != 3 or source.dtype != torch.uint8:
            raise InputError(
                f"{name}: expected a tensor (3, H, W) of uint8, RGB, got {tuple(source.shape)} of {source.dtype}"
            )
        pixels = source.detach().cpu().permute(1, 2, 0).numpy()
    elif isinstance(source, np.ndarray):
        pixels = _rgb_array(source, name)
    else:
        raise InputError(f"{name}: expected a path, array, PIL image or tensor, got {type(source).__name__}")
    height, width = pixels.shape[:2]
    if min(width, height) < SMALLEST:
        raise InputError(
            f"{path or name}: a picture of {width} x {height} is too small: expected at least {SMALLEST} pixels each way"
        )
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()
    return Photograph(name, image, path, film_mm, warnings)


def _rgb_array(array: np.ndarray, name: str) -> np.ndarray:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: expected an array (H, W, 3) of uint8, RGB, got {array.shape} of {array.dtype}"
            + ("; for values 0 to 1 give (255 * array).astype('uint8')" if array.dtype.kind == "f" else "")
        )
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return _rgb(Image.fromarray(np.ascontiguousarray(array)), name)


def _rgb(picture: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of a picture of any mode; what is transparent becomes grey."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{name}: expected 8 or 16 bits per pixel, got values from {values.min()} to {values.max()}"
            )
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    if picture.mode == "F":
        raise InputError(
            f"{name}: expected 8 or 16 bits per pixel, got floating-point pixels: save it as PNG or JPEG"
        )
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        ground = Image.new("RGBA", picture.size, (*UNDER_TRANSPARENCY, 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


def _film_length(picture: Image.Image) -> tuple[float | None, tuple[str, ...]]:
    """EXIF's 35 mm-equivalent focal length; not that of a picture whose shape has changed since it was taken."""
    try:
        tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        film_mm = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm) or 0)
        taken = sorted(
            int(tags.get(tag) or 0) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        )
    except (*UNREADABLE, TypeError, KeyError, ZeroDivisionError):
        return None, ("EXIF cannot be read and is ignored",)  # broken metadata on a sound picture
    if not 1 <= film_mm <= 5000:
        return None, ()
    now = sorted(picture.size)
    if taken[0] and abs(taken[0] / taken[1] - now[0] / now[1]) > 0.01:
        size = f"{picture.size[0]} x {picture.size[1]}"
        return None, (
            f"EXIF's focal length is ignored: taken as {taken[1]} x {taken[0]}, cropped to {size} since",
        )
    return film_mm, ()


def frames(path: str | os.PathLike[str]) -> Iterator[Photograph]:
    """The frames of a video, one at a time, named clip_000000, clip_000001, ...

    Raises MissingExtraError without PyAV, InputError for a file that is missing or no video.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file (0 bytes): expected a video")
    try:
        import av
    except ImportError:
        raise MissingExtraError(f"{path}: reading a video", "video") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no pictures in this file, only sound")
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                pixels = np.array(_upright(frame))
                yield photograph(pixels, f"{path.stem}_{index:06d}", path)
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: not a readable video ({error})") from None


def _upright(frame: Any) -> np.ndarray:
    """(H, W, 3) of a video frame, turned as its container says: phones film sideways and note the angle."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    quarter_turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.rot90(pixels, quarter_turns)
