"""2D boxes of any detector, read from KITTI rows, COCO JSON, plain JSON or CSV: what a method that lifts boxes starts from."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monolift.data.formats.kitti_format import read_labels
from monolift.errors import InputError
from monolift.files.folders import find_file
from monolift.files.json_text import (
    list_of,
    number_of,
    numbers,
    object_of,
    read_json,
    table,
    text_value,
    value,
)
from monolift.files.text import read_text
from monolift.typing import Float, Tensor

ALIKE = {"person": "pedestrian", "people": "pedestrian", "rider": "cyclist", "bicyclist": "cyclist"}
"""Names of other data sets for classes of KITTI, in small letters."""

IMAGE = ("image", "image_name", "file_name", "filename", "file", "path", "name")
CLASS = ("class", "class_name", "label", "category")
SIDES = (
    ("x1", "xmin", "x_min", "left"),
    ("y1", "ymin", "y_min", "top"),
    ("x2", "xmax", "x_max", "right"),
    ("y2", "ymax", "y_max", "bottom"),
)
HALF_PIXEL = 0.5  # COCO counts from a pixel's corner, we from its centre
SCORE = ("score", "confidence", "conf")


@dataclass(frozen=True)
class Boxes2D:
    """N 2D boxes of one image.

    Attributes:
        boxes: (N, 4) x1, y1, x2, y2 pixels of the image
        classes: N class names
        scores: (N,) 0 to 1
    """

    boxes: Float[Tensor, "n 4"]
    classes: tuple[str, ...]
    scores: Float[Tensor, " n"]

    @classmethod
    def of(cls, boxes: Any, classes: Sequence[str], scores: Any = None, where: str = "boxes") -> Boxes2D:
        """From numbers, checked.

        Args:
            boxes: (N, 4) x1, y1, x2, y2 pixels: a list, an array or a tensor.
            classes: a name each.
            scores: N numbers from 0 to 1; ones without.
            where: what errors name.

        Raises:
            InputError: for counts that differ, numbers that are not finite, boxes without an extent, scores beyond 0 to 1.
        """
        try:
            xyxy = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            given = torch.ones(len(xyxy)) if scores is None else torch.as_tensor(scores, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{where}: expected boxes of 4 numbers and a score each") from None
        names = tuple(map(str, classes))
        if not len(xyxy) == len(names) == given.numel():
            raise InputError(
                f"{where}: {len(xyxy)} boxes, but {len(names)} classes and {given.numel()} scores"
            )
        for k, ((x1, y1, x2, y2), score) in enumerate(
            zip(xyxy.tolist(), given.flatten().tolist(), strict=True)
        ):
            if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
                raise InputError(
                    f"{where}: box {k}: expected x1 < x2 and y1 < y2, got {x1:g}, {y1:g}, {x2:g}, {y2:g}"
                )
            if not 0 <= score <= 1:
                raise InputError(f"{where}: box {k}: expected a score from 0 to 1, got {score:g}")
        return cls(xyxy, names, given.flatten())

    def __len__(self) -> int:
        return len(self.classes)

    def known(self, classes: Sequence[str]) -> tuple[Boxes2D, Float[Tensor, " k"], str | None]:
        """The boxes of a model's classes, their labels, and a warning that counts the others.

        Names are compared without regard to case; a person is a Pedestrian, a rider a Cyclist.
        """
        index = {name.lower(): k for k, name in enumerate(classes)}
        small = [name.lower() for name in self.classes]
        label = [index.get(name, index.get(ALIKE.get(name, ""), -1)) for name in small]
        kept = [k for k, one in enumerate(label) if one >= 0]
        others = [self.classes[k] for k, one in enumerate(label) if one < 0]
        counted = ", ".join(f"{others.count(name)} {name}" for name in dict.fromkeys(others))
        said = f"2D boxes left out: {counted}; this model lifts {', '.join(classes)}" if others else None
        chosen = Boxes2D(self.boxes[kept], tuple(self.classes[k] for k in kept), self.scores[kept])
        return chosen, torch.tensor([label[k] for k in kept], dtype=torch.long), said


class BoxFiles:
    """The 2D boxes of many images, found by the image's name; see `read_boxes2d`."""

    def __init__(self, origin: Path, found: Mapping[str, Boxes2D] | None) -> None:
        """found: boxes by the image's stem; None: a folder of KITTI files, read one by one."""
        self.origin, self._found = origin, found
        self._numbered = {int(name): name for name in found or () if name.isdecimal()}

    def of(self, name: str) -> Boxes2D:
        """The boxes of an image, by the stem of its file; none where the file says nothing of it.

        Raises:
            InputError: for a folder without a file of that name, and a file that cannot be read.
        """
        if self._found is None:
            path = find_file(self.origin, name, (".txt",))
            if path is None:
                raise InputError(f"{self.origin}: no boxes of {name} (looked for {name}.txt)")
            return _kitti(path)
        if name not in self._found and name.isdecimal():  # an id that was written as a number: 7 of 000007
            name = self._numbered.get(int(name), name)
        return self._found.get(name, Boxes2D(torch.zeros(0, 4), (), torch.zeros(0)))


def read_boxes2d(path: str | Path) -> BoxFiles:
    """2D boxes by image.

    Args:
        path: a folder of KITTI label or result files named like the images, or one of them; COCO JSON (annotations with their
            tables, or a list of results with file names and class names); a JSON object that lists
            {"class", "box": [x1, y1, x2, y2], "score"} under each image's name; CSV with the columns image, class, x1, y1,
            x2, y2 and, where known, score.

    Raises:
        InputError: for anything else, naming the file and the row.
    """
    path = Path(path)
    if path.is_dir():
        return BoxFiles(path, None)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder of 2D boxes")
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return BoxFiles(path, {path.stem: _kitti(path)})
    if suffix not in (".json", ".csv"):
        raise InputError(
            f"{path}: expected 2D boxes as a folder or .txt of KITTI, .json or .csv, got {suffix or 'no suffix'}"
        )
    rows = _csv(path) if suffix == ".csv" else _json(path)
    images: dict[str, list[_Row]] = {}
    for row in rows:
        images.setdefault(Path(row.image.replace("\\", "/")).stem, []).append(row)
    found = {
        stem: Boxes2D.of(
            [r.box for r in own], [r.name for r in own], [r.score for r in own], f"{path}: {stem}"
        )
        for stem, own in images.items()
    }
    return BoxFiles(path, found)


@dataclass(frozen=True)
class _Row:
    image: str
    name: str
    box: list[float]
    score: float


def _kitti(path: Path) -> Boxes2D:
    rows = read_labels(path)
    kept = [k for k, name in enumerate(rows.names) if name.lower() != "dontcare"]
    scores = None if rows.score is None else rows.score[kept]
    return Boxes2D.of(rows.boxes2d[kept], [rows.names[k] for k in kept], scores, str(path))


def _csv(path: Path) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}

    def column(names: Sequence[str], required: bool = True) -> Any:
        known = next((columns[name] for name in names if name in columns), None)
        if known is None and required:
            raise InputError(f"{path}:1: expected a column {names[0]}, got {', '.join(columns) or 'none'}")
        return known

    image, name, sides, score = column(IMAGE), column(CLASS), [column(s) for s in SIDES], column(SCORE, False)
    for row in reader:
        where = f"{path}:{reader.line_num}"
        try:
            box = [float(row[side]) for side in sides]
            sure = float(row[score]) if score is not None and row[score] not in (None, "") else 1.0
        except (TypeError, ValueError):
            raise InputError(f"{where}: expected numbers x1, y1, x2, y2 and a score") from None
        if not row[image] or not row[name]:
            raise InputError(f"{where}: expected an image and a class")
        yield _Row(row[image], row[name], box, sure)


def _json(path: Path) -> Iterator[_Row]:
    content = read_json(path)
    if isinstance(content, list):
        yield from _coco_results(content, str(path))
    elif isinstance(content, dict) and "annotations" in content:
        yield from _coco(content, path)
    else:
        for image, rows in object_of(content, path).items():
            for k, row in enumerate(list_of(rows, f"{path}: {image}")):
                where = f"{path}: {image}[{k}]"
                box = numbers(value(row, "box", where), 4, f"{where}: box")
                score = number_of(row.get("score", 1.0), f"{where}: score")
                yield _Row(image, text_value(value(row, "class", where), f"{where}: class"), box, score)


def _coco(content: dict[str, Any], path: Path) -> Iterator[_Row]:
    def names(key: str, field: str) -> dict[str, str]:
        rows = table(content, key, path)
        where = f"{path}: {key}"
        return {
            str(value(row, "id", where)): text_value(value(row, field, where), f"{where}: {field}")
            for row in rows
        }

    images, categories = names("images", "file_name"), names("categories", "name")
    for k, row in enumerate(table(content, "annotations", path)):
        where = f"{path}: annotations[{k}]"
        image, category = str(value(row, "image_id", where)), str(value(row, "category_id", where))
        if image not in images or category not in categories:
            raise InputError(f"{where}: image_id {image} or category_id {category} is not in the file")
        yield _Row(
            images[image],
            categories[category],
            _xyxy(row, where),
            number_of(row.get("score", 1.0), f"{where}: score"),
        )


def _coco_results(content: list[Any], path: str) -> Iterator[_Row]:
    for k, row in enumerate(content):
        where = f"{path}[{k}]"
        entry = object_of(row, where)
        image = next(
            (entry[key] for key in ("file_name", "image", "image_id") if entry.get(key) is not None), None
        )
        name = next(
            (entry[key] for key in ("category_name", *CLASS) if isinstance(entry.get(key), str)), None
        )
        if image is None:
            raise InputError(f"{where}: expected a file_name or an image_id")
        if name is None:
            raise InputError(
                f"{where}: expected a class name in category_name; category_id alone has none: add the names, or give the file "
                "with its images and categories"
            )
        yield _Row(
            str(image), name, _xyxy(entry, where), number_of(entry.get("score", 1.0), f"{where}: score")
        )


def _xyxy(row: Any, where: str) -> list[float]:
    x, y, width, height = numbers(value(row, "bbox", where), 4, f"{where}: bbox")
    return [x - HALF_PIXEL, y - HALF_PIXEL, x + width - HALF_PIXEL, y + height - HALF_PIXEL]
