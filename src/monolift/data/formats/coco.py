"""COCO's object detection JSON (cocodataset.org, "Data format"), read and written.

COCO knows 2D boxes only: [x, y, width, height] measured from the image's outer corner, half a pixel left of and above the
centre of the first pixel, from which KITTI measures. So written boxes are moved by half a pixel, and read ones back.

What COCO has no word for stands in fields of this project that its tools skip: "projection" (3, 4) of an image; "box3d"
{center, size (length, height, width), yaw}, "truncation" and "occlusion" of an annotation. With them KITTI -> COCO -> KITTI
loses nothing (alpha is computed anew, from the box); objects of other COCO files have no 3D box. Crowds, and the class
DontCare, are regions whose content is not labelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from monolift.data.formats.coco_json import CocoTables, matrix_of, path_from
from monolift.data.formats.frames import (
    DECIMALS,
    Frame,
    geometry_of,
    has_box3d,
    kitti_name,
    labels_from_columns,
)
from monolift.errors import InputError
from monolift.files.json_text import (
    flag_of,
    integer_of,
    number_of,
    numbers,
    object_of,
    optional,
    show_value,
    value,
)

HALF_PIXEL = 0.5
MAX_LEVEL = 9  # of occlusion; KITTI's are 0 to 3


class CocoDataset(CocoTables):
    """A COCO file and its images.

    Args:
        path: instances_NAME.json
        root: the folder that file_name starts from, by default the file's own.

    Raises:
        InputError: naming file, table and row.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        super().__init__(path, root)
        bare = [row for rows in self.of_image.values() for _, row in rows if not row.get("bbox")]
        if bare:
            self.warnings += (
                f"{self.path}: {len(bare)} annotations without bbox are left out (first: id {show_value(bare[0].get('id'))})",
            )

    def frame(self, index: int) -> Frame:
        image, width, height = self.image(index)
        row, where = self.images[index], f"{self.path}: images[{index}]"
        lines = optional(row, "projection", lambda v, place: matrix_of(v, place, 3, 4), where)
        projection = None if lines is None else np.array(lines)
        read = [self._object(where, row) for where, row in self.rows_of(index) if row.get("bbox")]
        names, boxes2d, center, size, yaw, truncation, occlusion = (
            zip(*read, strict=True) if read else ((),) * 7
        )
        labels = labels_from_columns(names, boxes2d, center, size, yaw, truncation, occlusion)
        return Frame(self.ids[index], image, width, height, projection, labels)

    def _object(self, where: str, row: dict[str, Any]) -> tuple[Any, ...]:
        x, y, w, h = numbers(value(row, "bbox", where), 4, f"{where}: bbox")
        if w < 0 or h < 0:
            raise InputError(f"{where}: bbox: expected x, y, width, height, got {row['bbox']}")
        center, size, yaw = [math.nan] * 3, [-1.0] * 3, 0.0
        if (box := optional(row, "box3d", object_of, where)) is not None:
            inner = f"{where}: box3d"
            center = numbers(value(box, "center", inner), 3, f"{inner}: center")
            size = numbers(value(box, "size", inner), 3, f"{inner}: size")
            yaw = number_of(value(box, "yaw", inner), f"{inner}: yaw")
        crowd = optional(row, "iscrowd", flag_of, where, False)
        name = "DontCare" if crowd else kitti_name(self.category_of(row, where))
        unknown = -1 if name == "DontCare" else 3
        return (
            name,
            [x - HALF_PIXEL, y - HALF_PIXEL, x + w - HALF_PIXEL, y + h - HALF_PIXEL],
            center,
            size,
            yaw,
            optional(row, "truncation", lambda v, place: number_of(v, place, -1, 1), where, -1.0),
            optional(row, "occlusion", lambda v, place: integer_of(v, place, -1, MAX_LEVEL), where, unknown),
        )


def coco_tables(frames: Iterable[Frame], folder: Path | None = None) -> dict[str, Any]:
    """Frames as COCO's dictionary; objects of result files also get "score".

    Args:
        folder: where the file will lie, from which file_name starts; None: paths as they are. Ids count from 1, as COCO's
            do.
    """
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, frame in enumerate(frames, 1):
        image: dict[str, Any] = {
            "id": index,
            "width": frame.width,
            "height": frame.height,
            "file_name": str(frame.image) if folder is None else path_from(folder, frame.image),
        }
        if frame.projection is not None:
            image["projection"] = frame.projection.tolist()
        images.append(image)
        for row in _annotations(frame):
            category = categories.setdefault(row.pop("category"), len(categories) + 1)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": category, **row}
            )
    return {
        "info": {"description": "written by monolift"},
        "licenses": [],
        "images": images,
        "categories": [{"id": k, "name": text, "supercategory": ""} for text, k in categories.items()],
        "annotations": annotations,
    }


def _annotations(frame: Frame) -> list[dict[str, Any]]:
    labels, known = frame.labels, has_box3d(frame.labels)
    center, size, yaw = geometry_of(labels)
    rows = []
    for i, name in enumerate(labels.names):
        x1, y1, x2, y2 = labels.boxes2d[i].tolist()
        row = {
            "category": name,
            "bbox": [round(v, DECIMALS) for v in (x1 + HALF_PIXEL, y1 + HALF_PIXEL, x2 - x1, y2 - y1)],
            "area": round((x2 - x1) * (y2 - y1), DECIMALS),
            "segmentation": [],
            "iscrowd": int(name == "DontCare"),
            "truncation": float(labels.truncation[i]),
            "occlusion": int(labels.occlusion[i]),
        }
        if known[i]:
            row["box3d"] = {
                "center": np.round(center[i], DECIMALS).tolist(),
                "size": size[i].tolist(),
                "yaw": float(yaw[i]),
            }
        if labels.score is not None:
            row["score"] = float(labels.score[i])
        rows.append(row)
    return rows
