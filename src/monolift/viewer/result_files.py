"""Detection results read back from the files that ``monolift detect`` writes: --save json, --save jsonl and --json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monolift.data.cameras import check_camera
from monolift.data.sample import Objects
from monolift.data.sources import VIDEO_SUFFIXES
from monolift.errors import InputError
from monolift.files.folders import find_file
from monolift.files.images import IMAGE_SUFFIXES
from monolift.files.json_text import integer_of, parse_json, read_json, show_value
from monolift.geometry import Boxes3D, Camera
from monolift.inference.results import SCHEMA
from monolift.viewer.scene import Scene, VideoFrame

LARGEST = 1e18  # numbers beyond have no place in single precision once they are squared
_DEVIATIONS = ("x", "y", "z", "length", "height", "width", "yaw")


@dataclass(frozen=True)
class Entry:
    """One result of a file: its name and time, and how to read the rest."""

    name: str
    time: float | None
    read: Callable[[], dict[str, Any]]


def entries_of(path: Path) -> list[Entry]:
    """The results of one file: JSON of one result or a list of them, or JSON lines; images that failed are left out.

    Of JSON lines nothing but names, times and places is in memory.

    Raises:
        InputError: for a file that is not JSON or holds something else.
    """
    if path.suffix.lower() == ".jsonl":
        return list(_lines(path))
    content = read_json(path)
    rows = content if isinstance(content, list) else [content]
    return [_entry(row, partial(_itself, row), path) for row in rows if not _has_failed(row)]


def _itself(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _lines(path: Path) -> Iterator[Entry]:
    """One entry per line."""
    try:
        with path.open("rb") as file:
            place = 0
            for number, line in enumerate(file, 1):
                where = f"{path}:{number}"
                if line.strip():
                    row = parse_json(line, where)
                    if not _has_failed(row):
                        yield _entry(row, partial(_line_at, path, place, len(line), where), where)
                place += len(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _line_at(path: Path, place: int, length: int, where: str) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(place)
        row: dict[str, Any] = parse_json(file.read(length), where)
    return row


def _entry(row: Any, read: Callable[[], dict[str, Any]], where: object) -> Entry:
    if not isinstance(row, dict) or not str(row.get("schema", "")).startswith(SCHEMA.partition("/")[0] + "/"):
        raise InputError(
            f"{where}: expected a result of `monolift detect --save json` (schema {SCHEMA}), got something else"
        )
    return Entry(str(row.get("name")), _time(row), read)


def _time(row: dict[str, Any]) -> float | None:
    """Seconds, of a video's frame."""
    time: Any = row.get("time")
    return float(time) if _finite(time) else None


def _has_failed(row: Any) -> bool:
    return isinstance(row, dict) and "error" in row


def is_result_file(path: Path) -> bool:
    """Whether a file holds results."""
    try:
        return bool(entries_of(path))
    except InputError:
        return False


def scene_of_row(row: dict[str, Any], file: Path, images: Path | None = None) -> Scene:
    """The scene of one result. Its image is looked for in ``images``, at its stated path, then beside the file; see `_image`.

    Raises InputError, naming the file and the field, for a malformed result. An image that is nowhere is a warning.
    """
    reader = _Reader(file)
    name = str(reader.field(row, "name", str))
    size = reader.field(row, "image", dict)
    width, height = (
        integer_of(size.get(key), f"{file}: image.{key}", least=1, most=1e6) for key in ("width", "height")
    )
    camera = _camera(reader, reader.field(row, "camera", dict), width, height)
    odd = check_camera(camera, f"{file}: camera", stated=True)
    image, missing = _image(row, name, file, images)
    objects = _objects(reader, reader.field(row, "objects", list))
    said = row.get("warnings") or []
    said = [str(v) for v in said] if isinstance(said, list) else []
    warnings = (*said, *odd, *([missing] if missing else ()))
    return Scene(name, image, camera, objects, warnings=warnings, over_ground="camera_speed" in row)


def _camera(reader: _Reader, row: dict[str, Any], width: int, height: int) -> Camera:
    fields: dict[str, Any] = {key: reader.number(row, key, "camera.") for key in ("fx", "fy", "cx", "cy")}
    offset = reader.numbers(row.get("translation", [0, 0, 0]), 3, "camera.translation")
    fields |= dict(zip(("tx", "ty", "tz"), offset, strict=True))
    try:
        return replace(Camera(1, 1, 0, 0, width=width, height=height), **fields)
    except InputError as error:
        raise InputError(f"{reader.file}: {error}") from None


def _objects(reader: _Reader, rows: list[Any]) -> Objects:
    classes, columns, boxes2d, scores = [], [], [], []
    for k, row in enumerate(rows):
        where = f"objects[{k}]."
        size = reader.field(row, "size", dict, where)
        lengths = [reader.number(size, key, f"{where}size.") for key in ("length", "height", "width")]
        center = reader.numbers(row.get("center"), 3, f"{where}center")
        classes.append(str(reader.field(row, "class", str, where)))
        columns.append([*center, *lengths, reader.number(row, "yaw", where)])
        scores.append(reader.number(row, "score", where))
        boxes2d.append(reader.numbers(row.get("box2d"), 4, f"{where}box2d"))
    t = torch.tensor(columns, dtype=torch.float32).reshape(-1, 7)
    return Objects.named(
        Boxes3D(t[:, :3], t[:, 3:6], t[:, 6]),
        classes,
        scores=torch.tensor(scores, dtype=torch.float32),
        boxes2d=torch.tensor(boxes2d, dtype=torch.float32).reshape(-1, 4),
        covariance=_covariance(reader, rows),
        **_motion(reader, rows),
    )


def _motion(reader: _Reader, rows: list[Any]) -> dict[str, torch.Tensor]:
    """Ids and velocities of tracked objects."""
    columns: dict[str, torch.Tensor] = {}
    if rows and all("track" in row for row in rows):
        ids = [
            integer_of(row["track"], f"{reader.file}: objects[{k}].track", least=0, most=2**53)
            for k, row in enumerate(rows)
        ]
        columns["tracks"] = torch.tensor(ids, dtype=torch.long)
    if rows and all("velocity" in row for row in rows):
        velocities = [
            reader.numbers(row["velocity"], 3, f"objects[{k}].velocity") for k, row in enumerate(rows)
        ]
        columns["velocity"] = torch.tensor(velocities, dtype=torch.float32)
    return columns


def _covariance(reader: _Reader, rows: list[Any]) -> torch.Tensor | None:
    """Diagonal, from the standard deviations that the file holds where the method knows them; NaN where it does not."""
    if not any(isinstance(row.get("standard_deviation"), dict) for row in rows):
        return None
    deviations = torch.full((len(rows), 7), math.nan)
    for k, row in enumerate(rows):
        known = row.get("standard_deviation")
        known = known if isinstance(known, dict) else {}
        for column, key in enumerate(_DEVIATIONS):
            if known.get(key) is not None:
                value = reader.number(known, key, f"objects[{k}].standard_deviation.")
                size = row["size"].get(key, 1.0)  # of a side the covariance holds that of its logarithm
                deviations[k, column] = value / size if size else math.nan
    return torch.diag_embed(deviations**2)


def _image(
    row: dict[str, Any], name: str, file: Path, images: Path | None
) -> tuple[Path | VideoFrame | None, str | None]:
    """The image's file or the frame of its video, or None and a warning.

    A result may come from anybody, and its page may be passed on: only images in ``images``, in the result's own folder, in the
    working folder, or below these are shown. A stated path that leads elsewhere is not followed; its name is looked for.
    """
    source = row.get("source")
    time = _time(row)
    of_video = isinstance(source, str) and Path(source).suffix.lower() in VIDEO_SUFFIXES and time is not None
    allowed = [folder.resolve() for folder in (images, file.parent, Path()) if folder is not None]
    beside = find_file(images, name, IMAGE_SUFFIXES) if images and not of_video else None
    places = [beside] if beside else []
    if isinstance(source, str):
        stated = Path(source)
        named = [folder / stated.name for folder in (images, file.parent) if folder is not None]
        places += [*named[:-1], stated, file.parent / stated, named[-1]]
    elsewhere = None
    for place in places:
        known = VIDEO_SUFFIXES if of_video else IMAGE_SUFFIXES
        if place.suffix.lower() not in known or not _is_file(place):
            continue
        target = place.resolve()  # of a link, what it leads to
        if any(folder in target.parents for folder in allowed):
            return (VideoFrame(place, time) if of_video and time is not None else place), None
        elsewhere = elsewhere or target
    what = "video" if of_video else "image"
    if elsewhere:
        shown = f"--images {elsewhere.parent} shows it"
        return None, f"the {what} {elsewhere} is outside the result's folder: {shown}"
    return None, f"the {what} {source or name} is missing: give its folder with --images DIR"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name may be
        return False


class _Reader:
    """Fields of the right type and finite numbers, or an error that names them."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def field(self, row: Any, key: str, kind: type, where: str = "") -> Any:
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, kind):
            got = "nothing" if value is None else type(value).__name__
            raise InputError(f"{self.file}: {where}{key}: expected {_KINDS[kind]}, got {got}")
        return value

    def number(self, row: Any, key: str, where: str = "") -> float:
        return self.numbers([row.get(key) if isinstance(row, dict) else None], 1, where + key)[0]

    def numbers(self, values: Any, count: int, where: str) -> list[float]:
        if not isinstance(values, list) or len(values) != count or not all(map(_finite, values)):
            raise InputError(
                f"{self.file}: {where}: expected {count} finite number(s), got {show_value(values)}"
            )
        return [float(v) for v in values]


_KINDS: dict[type, str] = {str: "text", dict: "an object", list: "a list"}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
