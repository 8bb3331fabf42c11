"""Input sources: paths, globs, videos and arrays to upright 8-bit RGB images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from monolift.data.live import PATIENCE, LiveSource, live_source
from monolift.errors import InputError, MissingExtraError
from monolift.files.folders import is_hidden, listed
from monolift.files.images import IMAGE_SUFFIXES, LIMITS, DecodedImage, Limits, planes, read_rgb, rgb_of_array
from monolift.files.renamed import renamed
from monolift.typing import Tensor, UInt8

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
SMALLEST = 32  # pixels: below this nothing can be recognised


@dataclass(frozen=True)
class InputImage:
    """One input image.

    Attributes:
        name: its file's stem, or "image"
        image: (3, H, W) uint8 RGB, upright
        path: where it came from, if from disk
        film_mm: 35 mm-equivalent focal length from EXIF, if it is there and the image was not cropped since
        time: seconds since the beginning, of a video's frame, and its ``frame`` number from 0.
    """

    name: str
    image: UInt8[Tensor, "3 H W"]
    path: Path | None = None
    film_mm: float | None = None
    warnings: tuple[str, ...] = ()
    time: float | None = None
    frame: int | None = None


def is_video(path: str | os.PathLike[str] | LiveSource) -> bool:
    """Whether a source is a video, a camera or a stream: many frames."""
    if isinstance(path, LiveSource):
        return True
    return Path(path).suffix.lower() in VIDEO_SUFFIXES or live_source(path) is not None


def expand(source: str | os.PathLike[str] | LiveSource) -> list[Path | LiveSource]:
    """The files behind a path: itself, a folder's images and videos in order of name, or a glob's matches (** too).

    A camera's number or a URL stands for a live source; see `monolift.data.live`.

    Raises:
        InputError: where there is nothing.
    """
    live = live_source(source)
    if live is not None:
        return [live]
    assert not isinstance(source, LiveSource)
    path = Path(source)
    if path.is_dir():
        known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
        inside = list(listed(path, known).files)
        if not inside:
            raise InputError(f"{path}: no images in this folder (looked for {', '.join(known)})")
        return [*inside]
    if path.exists() or not glob.has_magic(str(source)):
        return [path]  # a missing file is reported when it is read
    matches = (Path(p) for p in sorted(glob.glob(str(source), recursive=True)))
    files = [p for p in matches if not is_hidden(p) and not p.is_dir()]
    if not files:
        raise InputError(f"{source}: the pattern matches no file")
    return [*files]


def read_input_image(path: str | os.PathLike[str]) -> InputImage:
    """The image of a file, see `monolift.files.images.read_rgb`.

    Raises:
        InputError: for a file that is missing, empty, cut short, no image, too large, or too small.
    """
    path = Path(path)
    return _input_image(read_rgb(path), path.stem, path)


def input_image(
    source: Any, name: str = "image", path: Path | None = None, limits: Limits = LIMITS
) -> InputImage:
    """An image in memory: a file's bytes; PIL image; (H, W, 3) uint8 RGB array, also (H, W), (H, W, 4) and uint16; (3, H, W)
    uint8 tensor.

    Raises:
        InputError: for another type, shape or number type: floats are not guessed at.
    """
    if isinstance(source, Image.Image | bytes):
        decoded = read_rgb(source, name, limits)
    elif isinstance(source, Tensor):
        if source.ndim != 3 or source.shape[0] != 3 or source.dtype != torch.uint8:
            raise InputError(
                f"{name}: expected a tensor (3, H, W) of uint8, RGB, got {tuple(source.shape)} of {source.dtype}"
            )
        decoded = DecodedImage(source.detach().cpu().permute(1, 2, 0).numpy())
    elif isinstance(source, np.ndarray):
        decoded = DecodedImage(rgb_of_array(source, name))
    else:
        raise InputError(f"{name}: expected a path, array, PIL image or tensor, got {type(source).__name__}")
    return _input_image(decoded, name, path)


def _input_image(decoded: DecodedImage, name: str, path: Path | None) -> InputImage:
    height, width = decoded.pixels.shape[:2]
    if min(width, height) < SMALLEST:
        raise InputError(
            f"{path or name}: an image of {width} x {height} is too small: expected at least {SMALLEST} pixels each way"
        )
    image = torch.from_numpy(planes(decoded.pixels))
    return InputImage(name, image, path, decoded.film_mm, decoded.warnings)


def frames(source: str | os.PathLike[str] | LiveSource) -> Iterator[InputImage]:
    """The frames of a video, a camera or a stream, one at a time, named clip_000000, clip_000001, ...

    Args:
        source: a video's file, or what `monolift.data.live.live_source` knows; the times of a live source begin with 0.

    Raises:
        MissingExtraError: without PyAV.
        InputError: for a file that is missing or no video, a camera or a stream that does not answer or ends.
    """
    live = live_source(source)
    path = Path(str(live or source))
    if live is None:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: empty file (0 bytes): expected a video")
    try:
        import av
    except ImportError:
        raise MissingExtraError(f"{path}: reading a video", "video") from None
    stem = path.stem if live is None else live.stem
    began: float | None = None if live is not None else 0.0
    try:
        with _opened(live, path) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no images in this file, only sound")
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                pixels = np.array(upright_pixels(frame))
                image = input_image(pixels, f"{stem}_{index:06d}", path)
                time = None if frame.time is None else float(frame.time)
                if time is not None:
                    began = time if began is None else began
                    time -= began
                yield replace(image, time=time, frame=index)
    except (av.error.FFmpegError, OSError) as error:
        what = "readable video" if live is None else "camera or stream that answers"
        reason = str(error).replace(live.address, live.name) if live is not None else error
        raise InputError(f"{path}: not a {what} ({reason})") from None


def _opened(live: LiveSource | None, path: Path) -> Any:
    """PyAV's container of a file or a live source."""
    import av

    if live is None:
        return av.open(str(path))
    timeout = None if live.format else (PATIENCE, PATIENCE)
    return av.open(live.address, format=live.format, options=live.options, timeout=timeout)


def upright_pixels(frame: Any) -> np.ndarray:
    """(H, W, 3) of a video frame, rotated by the angle that its container states."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    quarter_turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.rot90(pixels, quarter_turns)


__getattr__ = renamed(
    __name__, Photograph="InputImage", photograph="input_image", read_photograph="read_input_image"
)
