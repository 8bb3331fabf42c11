"""What COCO's and Omni3D's files share: JSON tables of images, categories and annotations that name each other by id."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monolift.data.formats.frames import FrameDataset
from monolift.errors import InputError
from monolift.files.folders import write_atomically


class CocoTables(FrameDataset):
    """The tables of one file, checked for what refers to nothing.

    path: the JSON file; root: folder that the pictures' paths in it start from, by default the file's own.
    Raises InputError naming the file, the table and the row.
    """

    path_key = "file_name"  # of an image

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        content = read_json(self.path)
        tables = {name: rows(content, name, self.path) for name in ("images", "categories", "annotations")}
        self.images = tables["images"]
        if not self.images:
            raise InputError(f"{self.path}: images: expected at least one, got none")
        self.categories = {
            value(row, "id", f"{self.path}: categories[{k}]"): str(
                value(row, "name", f"{self.path}: categories[{k}]")
            )
            for k, row in enumerate(tables["categories"])
        }
        self.of_image: dict[Any, list[tuple[str, dict[str, Any]]]] = {
            value(row, "id", f"{self.path}: images[{k}]"): [] for k, row in enumerate(self.images)
        }
        for k, row in enumerate(tables["annotations"]):
            where = f"{self.path}: annotations[{k}]"
            for key, known in (("image_id", self.of_image), ("category_id", self.categories)):
                if value(row, key, where) not in known:
                    raise InputError(f"{where}: {key} {row[key]!r} is not in the file")
            self.of_image[row["image_id"]].append((where, row))
        self.ids = self._names()

    def _names(self) -> tuple[str, ...]:
        """The pictures' file names without suffix; where two are alike, all are called by their number."""
        paths = [
            str(value(row, self.path_key, f"{self.path}: images[{k}]")) for k, row in enumerate(self.images)
        ]
        stems = tuple(Path(path).stem for path in paths)
        return stems if len(set(stems)) == len(stems) else tuple(f"{k:06d}" for k in range(len(stems)))

    def picture(self, index: int) -> tuple[Path, int, int]:
        """(file, width, height) of one picture."""
        row, where = self.images[index], f"{self.path}: images[{index}]"
        width, height = (
            numbers(value(row, key, where), 1, f"{where}: {key}")[0] for key in ("width", "height")
        )
        return self.root / row[self.path_key], int(width), int(height)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError where it is missing or malformed."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def rows(content: Any, name: str, path: Path) -> list[dict[str, Any]]:
    """A table of the file: a list of objects."""
    table = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise InputError(f"{path}: expected {name}, a list of objects")
    return table


def value(row: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise InputError(f"{where}: expected the key {key!r}, got {', '.join(row) or 'nothing'}")
    return row[key]


def numbers(given: Any, count: int, where: str) -> list[float]:
    """``count`` finite numbers, of a list or a single number."""
    listed = given if isinstance(given, list) else [given]
    sound = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in listed)
    if len(listed) != count or not sound:
        raise InputError(f"{where}: expected {count} finite number{'s' * (count > 1)}, got {str(given)[:80]}")
    return [float(v) for v in listed]


def path_from(folder: Path, target: Path) -> str:
    """``target`` as a file in ``folder`` writes it: relative, with slashes."""
    return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def write_json_tables(path: Path, content: Any) -> None:
    """One line of JSON, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())
