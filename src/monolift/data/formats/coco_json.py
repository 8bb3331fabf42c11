"""What COCO's and Omni3D's files share: JSON tables of images, categories and annotations that name each other by id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monolift.data.formats.frames import FrameDataset
from monolift.errors import InputError
from monolift.files.images import image_size
from monolift.files.json_text import (
    identifier,
    integer_of,
    numbers,
    object_of,
    optional,
    read_json,
    show_value,
    table,
    text_value,
    value,
    write_json,
)

LARGEST_SIDE = 1_000_000  # pixels


class CocoTables(FrameDataset):
    """The tables of one file, checked for ids that are used twice and for what refers to nothing.

    path: the JSON file; root: folder that the images' paths in it start from, by default the file's own.
    Ids are compared as text, so that 1, 1.0 and "1" are one id.
    Raises InputError naming the file, the table and the row.
    """

    path_key = "file_name"  # of an image

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        content = object_of(read_json(self.path), self.path)
        self.images, categories = (table(content, name, self.path) for name in ("images", "categories"))
        if not self.images:
            raise InputError(f"{self.path}: images: expected at least one, got none")
        self.paths = self._paths()
        images = self._by_id("images", self.images)
        annotations = [] if content.get("annotations") is None else table(content, "annotations", self.path)
        known = self._by_id("categories", categories)
        self.categories = {
            key: text_value(value(row, "name", where), f"{where}: name")
            for key, (where, row) in known.items()
        }
        self.of_image: dict[str, list[tuple[str, dict[str, Any]]]] = {key: [] for key in images}
        self._by_id("annotations", annotations, required=False)
        for k, row in enumerate(annotations):
            where = f"{self.path}: annotations[{k}]"
            for key, there in (("image_id", self.of_image), ("category_id", self.categories)):
                if key_of(value(row, key, where), f"{where}: {key}") not in there:
                    raise InputError(f"{where}: {key} {show_value(row[key])} is not in the file")
            self.of_image[key_of(row["image_id"], where)].append((where, row))
        self.keys = tuple(images)
        self.ids = self._names()
        self.warnings = _no_ground_truth(self.path, content, len(annotations))

    def _by_id(
        self, name: str, rows: list[dict[str, Any]], required: bool = True
    ) -> dict[str, tuple[str, dict[str, Any]]]:
        """Place and row of every id of a table. Raises InputError for an id that comes twice, naming both places."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for k, row in enumerate(rows):
            where = f"{self.path}: {name}[{k}]"
            if not required and row.get("id") is None:
                continue
            key = key_of(value(row, "id", where), f"{where}: id")
            if key in found:
                first, other = found[key]
                files = (
                    f" ({other.get(self.path_key)} and {row.get(self.path_key)})" if name == "images" else ""
                )
                raise InputError(
                    f"{where}: id {key} comes a second time, first in {first.removeprefix(f'{self.path}: ')}{files}: "
                    "give every row an id of its own"
                )
            found[key] = where, row
        return found

    def _paths(self) -> tuple[str, ...]:
        """The images' paths. Raises InputError for one file under two ids: each would have a part of its labels."""
        found: dict[str, int] = {}
        for k, row in enumerate(self.images):
            where = f"{self.path}: images[{k}]"
            path = text_value(value(row, self.path_key, where), f"{where}: {self.path_key}")
            if "\0" in path:
                raise InputError(f"{where}: {self.path_key}: expected a path, got {show_value(path)}")
            path = str(Path(path.replace("\\", "/")))  # as tools on Windows write it
            if path in found:
                raise InputError(
                    f"{where}: {path} comes a second time, first in images[{found[path]}]: its annotations would be torn apart"
                )
            found[path] = k
        return tuple(found)

    def _names(self) -> tuple[str, ...]:
        """The images' file names without suffix; where two are alike, all are called by their number."""
        stems = tuple(Path(path).stem for path in self.paths)
        return stems if len(set(stems)) == len(stems) else tuple(f"{k:06d}" for k in range(len(stems)))

    def rows_of(self, index: int) -> list[tuple[str, dict[str, Any]]]:
        """(place, annotation) of the objects of one image."""
        return self.of_image[self.keys[index]]

    def category_of(self, row: Mapping[str, Any], where: str) -> str:
        return self.categories[key_of(row["category_id"], where)]

    def image(self, index: int) -> tuple[Path, int, int]:
        """(file, width, height) of one image; the file's own size where the row states none."""
        row, where = self.images[index], f"{self.path}: images[{index}]"
        file = self.root / self.paths[index]
        width, height = (
            optional(row, key, lambda v, place: integer_of(v, place, 1, LARGEST_SIDE), where)
            for key in ("width", "height")
        )
        if width is None or height is None:
            width, height = image_size(file)
        return file, width, height


def key_of(given: Any, where: str) -> str:
    """An id as text, by which ids are compared."""
    return str(identifier(given, where))


def matrix_of(given: Any, where: str, rows: int, columns: int) -> list[list[float]]:
    """``rows`` lists of ``columns`` finite numbers. Raises InputError naming the field."""
    if not isinstance(given, list) or len(given) != rows:
        raise InputError(f"{where}: expected {rows} rows of {columns} numbers, got {show_value(given)}")
    return [numbers(line, columns, where) for line in given]


def path_from(folder: Path, target: Path) -> str:
    """``target`` as a file in ``folder`` writes it: relative, with slashes."""
    return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def write_json_tables(path: Path, content: Any) -> None:
    """One line of JSON, complete or not at all."""
    write_json(path, content, compact=True)


def _no_ground_truth(path: Path, content: Mapping[str, Any], annotations: int) -> tuple[str, ...]:
    """Why no image has a label, if none has."""
    if annotations:
        return ()
    why = "no table of annotations" if content.get("annotations") is None else "an empty table of annotations"
    return (
        f"{path}: no ground truth: it has {why}, as that of a test split: images without labels serve detection only",
    )
