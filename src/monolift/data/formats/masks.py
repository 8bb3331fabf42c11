"""Instance masks of images from COCO JSON, PNG id maps or npz.

`open_masks` finds out which; whatever the file, an image's masks become `Instances`: one map of object numbers with a row per
object. Where masks overlap, the pixel is the better scored object's, as in panoptic segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from monolift.data.formats.depth_maps import read_numbers
from monolift.data.formats.frames import kitti_name
from monolift.data.formats.rle import decode_rle
from monolift.errors import InputError
from monolift.files.arrays import read_npz
from monolift.files.folders import listed
from monolift.files.json_text import (
    flag_of,
    identifier,
    integer_of,
    numbers,
    optional,
    read_json,
    show_value,
    table,
    text_value,
    value,
)
from monolift.typing import Float, Int, Tensor

OWN, BACKGROUND, OTHER = 1, 0, -1
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
HALF_PIXEL = 0.5
MASK_SUFFIXES = (".png", ".npz")


@dataclass(frozen=True)
class Instances:
    """The N objects of one image that have a mask.

    Attributes:
        map: (H, W) which object each pixel shows: k + 1 for object k, 0 for none
        boxes2d: (N, 4) x1, y1, x2, y2 in pixels, the detector's; those round the masks where it gives none
        scores: (N,) the detector's, 0 to 1; 1 where it gives none
        classes: N names in KITTI's spelling
        ids: N names of the objects in their file, for messages and results
        dropped: (id, why) of objects in the file that have no pixel
    """

    map: Int[Tensor, "H W"]
    boxes2d: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> Int[Tensor, " n"]:
        """How many pixels each object has."""
        return torch.bincount(self.map.flatten(), minlength=len(self) + 1)[1:]

    def three_states(self, k: int) -> Int[Tensor, "H W"]:
        """int8: 1 where object k is, -1 where another object is (behind which k may go on), 0 for all else."""
        own = self.map == k + 1
        return torch.where(own, OWN, torch.where(self.map > 0, OTHER, BACKGROUND)).to(torch.int8)

    def mask_boxes(self) -> Float[Tensor, "n 4"]:
        """Bounding boxes of the masks' pixels, from edge to edge: half a pixel beyond the outermost centres."""
        boxes = torch.zeros(len(self), 4)
        for k in range(len(self)):
            rows, columns = (self.map == k + 1).nonzero(as_tuple=True)
            low, high = (torch.stack([f(columns), f(rows)]) for f in (torch.min, torch.max))
            boxes[k] = torch.cat([low - HALF_PIXEL, high + HALF_PIXEL])
        return boxes


@dataclass(frozen=True)
class _Found:
    """One object as read: its mask (H, W) and what its file says of it."""

    id: str
    mask: npt.NDArray[np.bool_]
    box: list[float] | None = None
    score: float | None = None
    class_name: str = "Car"


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
        return _CocoMasks(path, read_json(path))
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
        return _CocoMasks(tables[0], read_json(tables[0]))
    raise InputError(
        f"{path}: no masks: expected NAME.png or NAME.npz per image, or one COCO JSON file, got "
        + (f"{len(tables)} JSON files" if tables else "none of them")
    )


def _instances(found: Sequence[_Found], size: tuple[int, int], where: str) -> Instances:
    """Objects painted into one map, the best last; what has no pixel of its own left is dropped."""
    width, height = size
    areas = [int(f.mask.sum()) for f in found]
    for item in found:
        if item.mask.shape != (height, width):
            got = f"{item.mask.shape[1]} x {item.mask.shape[0]}"
            raise InputError(f"{where}: the masks are {got}, but the image is {width} x {height}")
    painted = np.zeros((height, width), np.int64)
    # of equal scores the smaller mask is the one in front more often
    for k in sorted(range(len(found)), key=lambda k: (_score(found[k]), -areas[k])):
        painted[found[k].mask] = k + 1
    left = np.bincount(painted.ravel(), minlength=len(found) + 1)[1:] > 0
    kept = [f for f, seen in zip(found, left, strict=True) if seen]
    dropped = [
        (f.id, "covered by masks of better score" if area else "no mask")
        for f, area, seen in zip(found, areas, left, strict=True)
        if not seen
    ]
    number = np.concatenate([[0], np.cumsum(left) * left])
    instances = Instances(
        map=torch.from_numpy(number[painted]),
        boxes2d=torch.zeros(len(kept), 4),
        scores=torch.tensor([_score(f) for f in kept], dtype=torch.float32),
        classes=tuple(f.class_name for f in kept),
        ids=tuple(f.id for f in kept),
        dropped=tuple(dropped),
    )
    boxes = instances.mask_boxes()
    for k, item in enumerate(kept):
        if item.box is not None:
            boxes[k] = torch.tensor(item.box)
    return replace(instances, boxes2d=boxes)


def instances_of(
    masks: npt.NDArray[np.bool_],
    boxes2d: npt.NDArray[np.floating],
    scores: npt.NDArray[np.floating],
    classes: Sequence[str],
    where: str,
) -> Instances:
    """What a model found in an image: masks (N, H, W), boxes2d (N, 4), scores (N,); `where` begins messages.

    Raises:
        InputError: for scores outside 0 to 1 and for boxes without extent.
    """
    rows = zip(boxes2d.tolist(), scores.tolist(), strict=True)
    checked = [_row({"box": b, "score": s}, f"{where}: object {k}") for k, (b, s) in enumerate(rows)]
    found = [
        _Found(str(k), mask, box, score, name)
        for k, (mask, (score, box), name) in enumerate(zip(masks, checked, classes, strict=True))
    ]
    return _instances(found, (masks.shape[2], masks.shape[1]), where)


def _score(found: _Found) -> float:
    return 1.0 if found.score is None else found.score


def _row(row: Mapping[str, Any], where: str) -> tuple[float | None, list[float] | None]:
    """Score and x1, y1, x2, y2 of a row with "score" and "box", either of which may be missing."""
    score = numbers(row["score"], 1, f"{where}: score")[0] if row.get("score") is not None else None
    if score is not None and not 0 <= score <= 1:
        raise InputError(f"{where}: score: expected a number from 0 to 1, got {score:g}")
    box = numbers(row["box"], 4, f"{where}: box") if row.get("box") is not None else None
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"{where}: box: expected x1 < x2 and y1 < y2, got {box}")
    return score, box


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
            return _instances(_npz(path), size, str(path))
        ids = read_numbers(path).numpy()
        present = np.unique(ids[ids > 0]).tolist()
        if self.table is None or (not self.complete and name not in self.table):
            found = [_Found(str(k), ids == k) for k in present]
        else:
            found = self._described(ids, present, self.table.get(name, ()), path)
        return _instances(found, size, str(path))

    def _described(
        self, ids: npt.NDArray[np.integer], present: list[int], rows: Sequence[Mapping[str, Any]], path: Path
    ) -> list[_Found]:
        found = []
        for k, row in enumerate(rows):
            where = f"{self.folder}: object {k} of {path.stem}"
            number = integer_of(value(row, "id", where), f"{where}: id")
            score, box = _row(row, where)
            found.append(
                _Found(
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


def _npz(path: Path) -> list[_Found]:
    content = read_npz(path)
    if "masks" in content:
        masks = content["masks"]
        if masks.ndim != 3 or masks.dtype.kind not in "biuf" or not np.isin(masks, (0, 1)).all():
            raise InputError(f"{path}: masks: expected (N, H, W) of 0 and 1, got shape {masks.shape}")
        found = [_Found(str(k), mask.astype(bool)) for k, mask in enumerate(masks)]
    elif "instances" in content:
        ids = content["instances"]
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError(f"{path}: instances: expected (H, W) whole numbers, got {ids.dtype} {ids.shape}")
        found = [_Found(str(k), ids == k) for k in np.unique(ids[ids > 0]).tolist()]
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
        score, box = _row(told, f"{path}: object {k}")
        name = kitti_name(str(content["classes"][k])) if "classes" in content else "Car"
        described.append(replace(item, score=score, box=box, class_name=name))
    return described


# --- COCO


class _CocoMasks:
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
        return _instances(found, size, f"{self.path}: {name}")

    def _is_crowd(self, index: int, row: Mapping[str, Any]) -> bool:
        return bool(optional(row, "iscrowd", flag_of, f"{self.path}: annotations[{index}]"))

    def _object(self, index: int, row: Mapping[str, Any], size: tuple[int, int]) -> _Found:
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
        score, box = _row({"score": row.get("score"), "box": box}, where)
        category: int | str | None = optional(row, "category_id", identifier, where)
        number: int | str | None = optional(row, "id", identifier, where)
        name = "Misc" if category is None else self.classes.get(category, "Misc")
        return _Found(str(index if number is None else number), mask, box, score, name)


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
