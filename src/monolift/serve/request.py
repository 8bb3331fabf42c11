"""Parsing of a request: image, camera and options. Errors name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monolift.data.cameras import CalibText, CameraChoice, KnownCamera
from monolift.data.sources import InputImage, input_image
from monolift.errors import InputError, MissingExtraError
from monolift.files import images
from monolift.files.images import TooLargeError
from monolift.inference.model import Shot

FORMATS = {"json": "application/json", "kitti": "text/plain", "png": "image/png", "html": "text/html"}
OPTIONS = ("camera", "fov", "calib", "score", "classes", "format", "name")
NAME_LENGTH = 100


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    bytes: int = 20_000_000
    """Body, bytes."""
    pixels: int = 25_000_000
    """Image, pixels."""
    seconds: float = 30.0
    """From the request to its answer."""


class RefusedError(Exception):
    """A request that is answered 4xx. field: what is wrong with it."""

    def __init__(self, status: int, field: str, message: str) -> None:
        super().__init__(message)
        self.status, self.field, self.message = status, field, message


@dataclass(frozen=True)
class Order:
    """A request that can be served."""

    shot: Shot
    score: float | None
    classes: tuple[str, ...]
    format: str


def read_order(
    body: bytes, options: Mapping[str, str], known_classes: tuple[str, ...], limits: Limits
) -> Order:
    """Image and options, checked. Raises RefusedError."""
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise RefusedError(422, unknown[0][:NAME_LENGTH], f"unknown option; expected {', '.join(OPTIONS)}")
    kind = options.get("format", "json")
    if kind not in FORMATS:
        raise RefusedError(422, "format", f"expected {', '.join(FORMATS)}, got {kind[:40]!r}")
    score = _score(options.get("score"))
    classes = _classes(options.get("classes"), known_classes)
    choice = _camera_choice(options)
    photo = read_image(body, options.get("name", "image"), limits.pixels)
    return Order(Shot(photo, _camera(choice, options, photo)), score, classes, kind)


def read_image(body: bytes, name: str, most_pixels: int) -> InputImage:
    """Upright RGB. Its size is known before its pixels are unpacked. Raises RefusedError."""
    name = "".join(c for c in Path(name).stem if c.isprintable())[:NAME_LENGTH] or "image"
    if not body:
        raise RefusedError(422, "image", "expected an image, got nothing")
    try:
        return input_image(body, name, limits=images.Limits(pixels=most_pixels))
    except TooLargeError as error:
        raise RefusedError(413, "image", str(error).removeprefix(f"{name}: ")) from None
    except InputError as error:
        raise RefusedError(422, "image", str(error).removeprefix(f"{name}: ")) from None


def _camera_choice(options: Mapping[str, str]) -> CameraChoice:
    given = [name for name in ("camera", "fov", "calib") if options.get(name)]
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


def _camera(choice: CameraChoice, options: Mapping[str, str], photo: InputImage) -> KnownCamera:
    height, width = photo.image.shape[1:]
    try:
        return choice.for_image(photo.name, width, height, photo.film_mm)
    except (InputError, MissingExtraError) as error:
        field = next((name for name in ("camera", "fov", "calib") if options.get(name)), "camera")
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
