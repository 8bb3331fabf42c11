"""A KITTI folder's scans as depth maps, and a detector's masks as maps of its label rows: depth_2 and instance_2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from monolift.data.formats.depth_maps import encode_depth
from monolift.data.formats.instances import Instances
from monolift.data.formats.kitti_format import KittiLabels, read_calib, read_labels, read_split
from monolift.data.formats.masks import MaskSource, open_masks
from monolift.data.formats.velodyne import depth_of_points, velodyne_points
from monolift.data.kitti import find_image, read_camera, training_folder
from monolift.errors import DiskError, InputError
from monolift.files.folders import check_new, dataset_root, find_file, listed, partial_folder, text_file
from monolift.files.images import image_size, write_image
from monolift.geometry import iou_2d

SCANNED = ("image_2", "calib")  # besides velodyne; a test set has no labels
LEAST_OVERLAP = 0.5
"""IoU of a mask's rectangle, or its detection's box, with the labelled 2D box that it belongs to."""


@dataclass(frozen=True)
class Mapped:
    """What came of writing maps.

    Attributes:
        images: maps written
        objects: label rows that have a mask
        failed: (id, why) of images without a map
    """

    out: Path
    images: int
    objects: int
    failed: tuple[tuple[str, str], ...]


def write_depth_maps(
    root: str | Path,
    out: str | Path,
    split: str | Path | Sequence[str] | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> Mapped:
    """Write depth maps, OUT/ID.png, of the scans velodyne/ID.bin of a KITTI folder: 16 bit, metres times 256, 0 unknown.

    Args:
        root: with velodyne, calib (P2, R0_rect, Tr_velo_to_cam) and image_2, of which only the sizes are read.
        out: a new folder; ROOT/depth_2 is where training looks.
        split: ids, or a file of them; all scans without it.
        advance: called with each id.

    Raises:
        InputError: where there is no scan, not one can be used, or ``out`` exists; DiskError where the disk is
            full.
    """
    names, root = scanned_ids(root, split), dataset_root(root, SCANNED)

    def depth(name: str) -> tuple[Image.Image, int]:
        calib = text_file(root / "calib", name)
        camera = read_camera(calib, *image_size(find_image(root, name)))
        scan = find_file(root / "velodyne", name, (".bin",)) or root / "velodyne" / f"{name}.bin"
        points = velodyne_points(scan, read_calib(calib))
        return Image.fromarray(encode_depth(depth_of_points(points, camera))), 0

    return _write(Path(out), names, depth, advance)


def write_instance_maps(
    root: str | Path,
    masks: str | Path | MaskSource,
    out: str | Path,
    split: str | Path | Sequence[str] | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> Mapped:
    """Write maps of label rows, OUT/ID.png, of a detector's masks: 16 bit, k for what shows row k of label_2/ID.txt, from 1.

    A mask belongs to the labelled 2D box that its rectangle overlaps most, by at least `LEAST_OVERLAP`; each box has one mask,
    that of the largest overlap. Masks of objects that no label knows are left out.

    Args:
        root: with label_2 and image_2, of which only the sizes are read.
        masks: a path as for `monolift.data.formats.masks.open_masks`, or what it gave.
        out: a new folder; ROOT/instance_2 is where training looks.
        split: ids, or a file of them; all images that the masks speak of without it.
        advance: called with each id.

    Raises:
        InputError: where there are no masks, not one image can be used, or ``out`` exists; DiskError where the
            disk is full.
    """
    root, source = training_folder(root), _opened(masks)
    names = masked_ids(root, source, split)

    def rows(name: str) -> tuple[Image.Image, int]:
        labels = read_labels(text_file(root / "label_2", name))
        found = source.read(name, image_size(find_image(root, name)))
        owners = row_of_masks(found, labels)
        numbers = torch.tensor([0, *(0 if row is None else row + 1 for row in owners)])
        written = numbers[found.map.long()].numpy().astype(np.uint16)
        return Image.fromarray(written), sum(row is not None for row in owners)

    return _write(Path(out), names, rows, advance)


def row_of_masks(found: Instances, labels: KittiLabels) -> list[int | None]:
    """The label row of each mask, None for a mask that no row has; DontCare rows have none."""
    known = [k for k, name in enumerate(labels.names) if name.lower() != "dontcare"]
    owners: list[int | None] = [None] * len(found)
    if not known or not len(found):
        return owners
    boxes = torch.from_numpy(np.ascontiguousarray(labels.boxes2d[known])).float()
    overlap = torch.maximum(iou_2d(found.mask_boxes(), boxes), iou_2d(found.boxes2d, boxes))
    while float(overlap.max()) >= LEAST_OVERLAP:  # the best pair first, each of both once
        mask, column = divmod(int(overlap.argmax()), overlap.shape[1])
        owners[mask] = known[column]
        overlap[mask], overlap[:, column] = -1.0, -1.0
    return owners


def scanned_ids(root: str | Path, split: str | Path | Sequence[str] | None = None) -> list[str]:
    """The ids of ``split``, or of all scans of a KITTI folder. Raises InputError where there is none."""
    folder = dataset_root(root, SCANNED) / "velodyne"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of scans, ID.bin")
    names = _ids(split) or sorted(listed(folder, (".bin",)).by_stem())
    if not names:
        raise InputError(f"{folder}: expected scans, ID.bin, found none")
    return names


def masked_ids(
    root: str | Path, masks: str | Path | MaskSource, split: str | Path | Sequence[str] | None = None
) -> list[str]:
    """The ids of ``split``, or of all labelled images that the masks speak of. Raises InputError where there is none."""
    source = _opened(masks)
    folder = training_folder(root) / "label_2"
    names = _ids(split) or sorted(set(source.names) & set(listed(folder, (".txt",)).by_stem()))
    if not names:
        raise InputError(
            f"{folder}: the masks speak of none of its images: they know {', '.join(source.names[:3]) or 'none'}, ..."
        )
    return names


def _opened(masks: str | Path | MaskSource) -> MaskSource:
    return open_masks(masks) if isinstance(masks, str | Path) else masks


def _ids(split: str | Path | Sequence[str] | None) -> list[str]:
    return list(read_split(split)) if isinstance(split, str | Path) else list(split or ())


def _write(
    out: Path,
    names: Sequence[str],
    make: Callable[[str], tuple[Image.Image, int]],
    advance: Callable[[str], None],
) -> Mapped:
    check_new(out)
    failed: dict[str, str] = {}
    objects = 0
    with partial_folder(out) as folder:
        for name in names:
            try:
                image, count = make(name)
                write_image(folder / f"{name}.png", image, durable=False)
                objects += count
            except DiskError:
                raise
            except InputError as error:
                failed[name] = str(error)
            advance(name)
        if len(failed) == len(names):
            raise InputError(
                f"{next(iter(failed.values()))} (and {len(failed) - 1} more: no image can be converted)"
            )
    return Mapped(out, len(names) - len(failed), objects, tuple(failed.items()))
