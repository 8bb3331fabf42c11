"""Instance masks of COCO files: annotations, or a list of results in COCO's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from monolift.data.formats.frames import kitti_name
from monolift.data.formats.instances import HALF_PIXEL, Instances, Mask, merge, score_and_box
from monolift.data.formats.rle import decode_rle
from monolift.errors import InputError
from monolift.files.json_text import (
    flag_of,
    identifier,
    numbers,
    optional,
    show_value,
    table,
    text_value,
    value,
)

COCO_CLASSES: dict[int | str, str] = {
    1: "person",
    2: "bicycle",
    3: "Car",
    4: "motorcycle",
    6: "bus",
    7: "train",
    8: "Truck",
}
"""COCO's own numbers of what moves on roads, for result lists, which name no categories."""


class CocoMasks:
    """Annotations of a COCO file, or a list of results in COCO's form."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path = path
        rows = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: expected COCO's annotations or a list of results, got something else")
        if not rows:
            raise InputError(f"{path}: no object in the whole file: nothing to label")
        tables = content if isinstance(content, dict) else {}
        self.classes: Mapping[int | str, str] = _class_names(tables, path) or COCO_CLASSES
        images = _stems(tables, path)
        self.rows: dict[str, list[tuple[int, Mapping[str, Any]]]] = {name: [] for name in images.values()}
        for k, row in enumerate(rows):
            where = f"{path}: annotations[{k}]"
            image = identifier(value(row, "image_id", where), f"{where}: image_id")
            if images and image not in images:
                raise InputError(f"{path}: annotations[{k}]: image_id {image!r} is not in the file")
            self.rows.setdefault(images.get(image, str(image)), []).append((k, row))
        self.names = tuple(sorted(self.rows))

    def read(self, name: str, size: tuple[int, int]) -> Instances:
        # result lists know images by number: 000123 is their 123
        rows = self.rows.get(name) or self.rows.get(str(int(name)) if name.isdecimal() else name, [])
        found = [self._object(k, row, size) for k, row in rows if not self._is_crowd(k, row)]
        return merge(found, size, f"{self.path}: {name}")

    def _is_crowd(self, index: int, row: Mapping[str, Any]) -> bool:
        return bool(optional(row, "iscrowd", flag_of, f"{self.path}: annotations[{index}]"))

    def _object(self, index: int, row: Mapping[str, Any], size: tuple[int, int]) -> Mask:
        where = f"{self.path}: annotations[{index}]"
        outline = row.get("segmentation")
        if isinstance(outline, list) and outline:
            raise InputError(
                f"{where}: segmentation: polygons are not read, only run lengths (RLE): convert them with pycocotools"
            )
        mask = (
            decode_rle(outline, f"{where}: segmentation", size) if outline else np.zeros(size[::-1], np.bool_)
        )
        box = None
        if row.get("bbox") is not None:
            # measured from the image's outer corner; ours from the first pixel's centre
            x, y, w, h = numbers(row["bbox"], 4, f"{where}: bbox")
            x, y = x - HALF_PIXEL, y - HALF_PIXEL
            box = [x, y, x + w, y + h]
        score, box = score_and_box({"score": row.get("score"), "box": box}, where)
        category: int | str | None = optional(row, "category_id", identifier, where)
        number: int | str | None = optional(row, "id", identifier, where)
        name = "Misc" if category is None else self.classes.get(category, "Misc")
        return Mask(str(index if number is None else number), mask, box, score, name)


def _class_names(tables: Mapping[str, Any], path: Path) -> dict[int | str, str]:
    """Class names by category id; categories without a name are left out."""
    rows = table(tables, "categories", path) if tables.get("categories") is not None else []
    found = {}
    for k, row in enumerate(rows):
        if row.get("id") is not None and row.get("name") is not None:
            where = f"{path}: categories[{k}]"
            found[identifier(row["id"], f"{where}: id")] = kitti_name(
                text_value(row["name"], f"{where}: name")
            )
    return found


def _stems(tables: Mapping[str, Any], path: Path) -> dict[int | str, str]:
    """Names of the images, their files' without folder and suffix, by id. Raises InputError where two are alike."""
    rows = table(tables, "images", path) if tables.get("images") is not None else []
    found: dict[int | str, str] = {}
    for k, row in enumerate(rows):
        where = f"{path}: images[{k}]"
        number = identifier(value(row, "id", where), f"{where}: id")
        stem = PurePosixPath(
            text_value(value(row, "file_name", where), f"{where}: file_name").replace("\\", "/")
        ).stem
        if number in found:
            raise InputError(
                f"{where}: id {show_value(number)} comes a second time: its masks could be either image's"
            )
        if stem in found.values():
            raise InputError(
                f"{where}: file_name: a second image of the name {stem}: masks are found by that name"
            )
        found[number] = stem
    return found
