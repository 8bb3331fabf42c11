"""Instance masks of images from COCO JSON, PNG id maps or npz.

`open_masks` finds out which; whatever the file, an image's masks become `Instances`: one map of object numbers with a row per
object. Where masks overlap, the pixel is the better scored object's, as in panoptic segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from monolift.data.formats.coco_masks import CocoMasks
from monolift.data.formats.depth_maps import read_numbers
from monolift.data.formats.frames import kitti_name
from monolift.data.formats.instances import Instances, Mask, merge, score_and_box
from monolift.errors import InputError
from monolift.files.arrays import read_npz
from monolift.files.folders import listed
from monolift.files.json_text import (
    integer_of,
    optional,
    read_json,
    text_value,
    value,
)

MASK_SUFFIXES = (".png", ".npz")


@runtime_checkable
class MaskSource(Protocol):
    """Masks of many images."""

    names: tuple[str, ...]
    """The images that the source speaks of."""

    def read(self, name: str, size: tuple[int, int]) -> Instances:
        """The objects of the image ``name`` of ``size`` (width, height); none where it has none.

        Raises:
            InputError: naming the file, where it cannot be read or belongs to an image of another size.
        """


def open_masks(path: str | Path) -> MaskSource:
    """The masks at a path, whatever their kind:

    - a COCO JSON file, or a folder that holds one and nothing else: annotations with "segmentation" as RLE, compressed or not;
      with "images" the images are found by file_name, in a plain list of results by image_id
    - a folder of NAME.png: 8 or 16 bit, k for the pixels of object k, 0 for none (`monolift synth --masks` writes such). A
      NAME.json beside each, [{"id", "box": [x1, y1, x2, y2], "score", "class"}], or one JSON file, {NAME: [...]}, describes
      the objects
    - a folder of NAME.npz: "masks" (N, H, W) or "instances" (H, W) as in a PNG, and if known "boxes" (N, 4) x1, y1, x2, y2,
      "scores" (N,), "classes" (N,)

    Raises:
        InputError: where there is nothing of the kind, or no object in all of it.
    """
    path = Path(path)
    if path.is_file():
        return CocoMasks(path, read_json(path))
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder of masks")
    tables = listed(path, (".json",)).files
    if listed(path, MASK_SUFFIXES).files:
        stems = listed(path, MASK_SUFFIXES).by_stem(MASK_SUFFIXES)
        own = {p.stem: rows for p in tables if p.stem in stems and isinstance(rows := read_json(p), list)}
        shared = [p for p in tables if p.stem not in own]
        if len(shared) > 1 or (shared and own):
            names = ", ".join(p.name for p in shared[:5])
            raise InputError(f"{path}: expected one JSON file beside the masks at most, got {names}")
        for name, rows in own.items():
            if not all(isinstance(row, dict) for row in rows):
                raise InputError(f"{path / name}.json: expected [{{id, box, score, class}}, ...]")
        table = own or (_table(shared[0]) if shared else None)
        return _MaskFolder(path, table, complete=not own)
    if len(tables) == 1:
        return CocoMasks(tables[0], read_json(tables[0]))
    raise InputError(
        f"{path}: no masks: expected NAME.png or NAME.npz per image, or one COCO JSON file, got "
        + (f"{len(tables)} JSON files" if tables else "none of them")
    )


# --- a file per image


class _MaskFolder:
    """NAME.png or NAME.npz, with or without a table of the objects; an incomplete one describes some of the images only."""

    def __init__(
        self,
        folder: Path,
        table: Mapping[str, Sequence[Mapping[str, Any]]] | None,
        complete: bool = True,
    ) -> None:
        self.folder, self.table, self.complete = folder, table, complete
        self.files = listed(folder, MASK_SUFFIXES).by_stem(MASK_SUFFIXES)
        self.names = tuple(sorted(self.files))
        if complete and table is not None and not any(table.values()):
            raise InputError(f"{folder}: the table beside the masks lists no object at all")

    def read(self, name: str, size: tuple[int, int]) -> Instances:
        path = self.files.get(name)
        if path is None:
            raise InputError(f"{self.folder / name}: no masks: expected {name}.png or {name}.npz")
        if path.suffix.lower() == ".npz":
            return merge(_npz(path), size, str(path))
        ids = read_numbers(path).numpy()
        present = np.unique(ids[ids > 0]).tolist()
        if self.table is None or (not self.complete and name not in self.table):
            found = [Mask(str(k), ids == k) for k in present]
        else:
            found = self._described(ids, present, self.table.get(name, ()), path)
        return merge(found, size, str(path))

    def _described(
        self, ids: npt.NDArray[np.integer], present: list[int], rows: Sequence[Mapping[str, Any]], path: Path
    ) -> list[Mask]:
        found = []
        for k, row in enumerate(rows):
            where = f"{self.folder}: object {k} of {path.stem}"
            number = integer_of(value(row, "id", where), f"{where}: id")
            score, box = score_and_box(row, where)
            found.append(
                Mask(
                    str(number),
                    ids == number,
                    box,
                    score,
                    kitti_name(optional(row, "class", text_value, where) or "Car"),
                )
            )
        unknown = sorted(set(map(str, present)) - {f.id for f in found}, key=int)
        if unknown:
            raise InputError(
                f"{path}: pixels of objects {', '.join(unknown[:5])}, but the JSON file beside it lists "
                f"{', '.join(f.id for f in found[:5]) or 'none'} for {path.stem}"
            )
        return found


def _table(path: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in content.values()
    ):
        raise InputError(
            f"{path}: expected {{image: [{{id, box, score, class}}, ...]}} beside a folder of masks"
        )
    return content


def _npz(path: Path) -> list[Mask]:
    content = read_npz(path)
    if "masks" in content:
        masks = content["masks"]
        if masks.ndim != 3 or masks.dtype.kind not in "biuf" or not np.isin(masks, (0, 1)).all():
            raise InputError(f"{path}: masks: expected (N, H, W) of 0 and 1, got shape {masks.shape}")
        found = [Mask(str(k), mask.astype(bool)) for k, mask in enumerate(masks)]
    elif "instances" in content:
        ids = content["instances"]
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError(f"{path}: instances: expected (H, W) whole numbers, got {ids.dtype} {ids.shape}")
        found = [Mask(str(k), ids == k) for k in np.unique(ids[ids > 0]).tolist()]
    else:
        raise InputError(f"{path}: expected 'masks' or 'instances', got {', '.join(content) or 'nothing'}")
    for key, axes in (("boxes", 2), ("scores", 1), ("classes", 1)):
        if key in content and content[key].ndim != axes:
            raise InputError(f"{path}: {key}: expected {axes} axes, got shape {content[key].shape}")
        if key in content and len(content[key]) != len(found):
            raise InputError(f"{path}: {len(found)} masks, but {len(content[key])} {key}")
    described = []
    for k, item in enumerate(found):
        told = {
            one: content[many][k].tolist()
            for one, many in (("box", "boxes"), ("score", "scores"))
            if many in content
        }
        score, box = score_and_box(told, f"{path}: object {k}")
        name = kitti_name(str(content["classes"][k])) if "classes" in content else "Car"
        described.append(replace(item, score=score, box=box, class_name=name))
    return described
