"""Parsing of a request: image, camera and options. Errors name the field."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monolift.data.cameras import CalibText, CameraChoice, KnownCamera
from monolift.data.sources import InputImage, input_image
from monolift.errors import InputError, MissingExtraError
from monolift.files import images
from monolift.files.images import TooLargeError
from monolift.inference.shots import Shot

FORMATS = {"json": "application/json", "kitti": "text/plain", "png": "image/png", "html": "text/html"}
OPTIONS = ("camera", "fov", "calib", "score", "classes", "format", "name")
CAMERA_OPTIONS = ("camera", "fov", "calib")
NAME_LENGTH = 100


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and what all of them may hold at one moment."""

    bytes: int = 20_000_000
    """Body, bytes."""
    pixels: int = 25_000_000
    """Image, pixels."""
    seconds: float = 30.0
    """From the request to its answer."""
    held_bytes: int = 400_000_000
    """Bodies that wait and answers that are sent, all requests together, bytes; at least twice ``bytes``."""
    held_pixels: int = 50_000_000
    """Images that are decoded, all requests together, pixels; at least ``pixels``. A pixel takes up to 16 bytes meanwhile."""


class RefusedError(Exception):
    """A request that is answered 4xx. field: what is wrong with it."""

    def __init__(self, status: int, field: str, message: str) -> None:
        super().__init__(message)
        self.status, self.field, self.message = status, field, message


@dataclass
class Order:
    """A request that can be served, its image still encoded."""

    body: bytes
    name: str
    pixels: int
    """Of the image, as its header states."""
    choice: CameraChoice
    camera_field: str
    """That of the camera option which errors name."""
    limits: Limits
    score: float | None
    classes: tuple[str, ...]
    format: str

    def shot(self) -> Shot:
        """The image, decoded, with its camera. Raises RefusedError."""
        with _refused(self.name):
            photo = input_image(self.body, self.name, limits=_image_limits(self.limits))
        return Shot(photo, _camera(self.choice, self.camera_field, photo))

    def forget(self) -> None:
        """Lets go of the bytes."""
        self.body = b""


def read_order(
    body: bytes, options: Mapping[str, str], known_classes: tuple[str, ...], limits: Limits
) -> Order:
    """Options and the image's header, checked; nothing is decoded yet. Raises RefusedError."""
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise RefusedError(422, unknown[0][:NAME_LENGTH], f"unknown option; expected {', '.join(OPTIONS)}")
    kind = options.get("format", "json")
    if kind not in FORMATS:
        raise RefusedError(422, "format", f"expected {', '.join(FORMATS)}, got {kind[:40]!r}")
    score = _score(options.get("score"))
    classes = _classes(options.get("classes"), known_classes)
    choice = _camera_choice(options)
    field = next((name for name in CAMERA_OPTIONS if options.get(name)), "camera")
    name = (
        "".join(c for c in Path(options.get("name", "image")).stem if c.isprintable())[:NAME_LENGTH]
        or "image"
    )
    pixels = _pixels(body, name, limits)
    return Order(body, name, pixels, choice, field, limits, score, classes, kind)


def _pixels(body: bytes, name: str, limits: Limits) -> int:
    """Width times height by the image's header."""
    if not body:
        raise RefusedError(422, "image", "expected an image, got nothing")
    with _refused(name), images.opened(body, name, _image_limits(limits)) as image:
        return int(image.width * image.height)


def _image_limits(limits: Limits) -> images.Limits:
    return images.Limits(pixels=limits.pixels)


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    """Turns the errors of an image that is called ``name`` into RefusedError."""
    try:
        yield
    except TooLargeError as error:
        raise RefusedError(413, "image", str(error).removeprefix(f"{name}: ")) from None
    except InputError as error:
        raise RefusedError(422, "image", str(error).removeprefix(f"{name}: ")) from None


def _camera_choice(options: Mapping[str, str]) -> CameraChoice:
    given = [name for name in CAMERA_OPTIONS if options.get(name)]
    if len(given) > 1:
        raise RefusedError(422, given[1], f"expected one of camera, fov and calib, got {' and '.join(given)}")
    try:
        fov = float(options["fov"]) if options.get("fov") else None
    except ValueError:
        raise RefusedError(422, "fov", f"expected degrees, got {options['fov'][:40]!r}") from None
    if fov is not None and not math.isfinite(fov):
        raise RefusedError(422, "fov", f"expected finite degrees, got {fov}")
    try:
        calib = CalibText(options["calib"]) if options.get("calib") else None
        return CameraChoice.of(options.get("camera") or None, calib, fov)
    except InputError as error:
        raise RefusedError(422, given[0] if given else "camera", str(error)) from None


def _camera(choice: CameraChoice, field: str, photo: InputImage) -> KnownCamera:
    height, width = photo.image.shape[1:]
    try:
        return choice.for_image(photo.name, width, height, photo.film_mm)
    except (InputError, MissingExtraError) as error:
        raise RefusedError(422, field, str(error)) from None


def _score(text: str | None) -> float | None:
    if text is None or text == "":
        return None
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise RefusedError(422, "score", f"expected a number from 0 to 1, got {text[:40]!r}")
    return score


def _classes(text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if not text:
        return known
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RefusedError(422, "classes", f"this model knows {', '.join(known)}, got {unknown[0][:40]!r}")
    return names
