"""A KITTI-format data set with pasted cars, written image by image (``monolift augment``)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from monolift.augment.cutouts import Cutout
from monolift.augment.paste import PasteOptions, paste
from monolift.data.formats.depth_maps import DEPTH_SCALE
from monolift.data.formats.kitti_format import (
    KittiLabels,
    format_labels,
    from_numbers,
    read_labels,
    to_numbers,
    write_atomically,
    write_split,
)
from monolift.data.kitti import KittiDataset, find_image
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files import output_folder
from monolift.files.folders import text_file
from monolift.files.text import read_bytes

NOTE = "augment.json"


@dataclass(frozen=True)
class PastedSet:
    """What an augmented data set is made from: the same PastedSet and images give the same files."""

    source: str
    """Folder of the original images."""
    masks: str
    """Folder of the masks that were cut out with; empty: those beside the images."""
    split: str = ""
    """File of the ids that were used; empty: all."""
    seed: int = 0
    copies: int = 1
    """Versions of each image, named ID_0, ID_1 ..."""
    up_to: int = 3
    """Most cars pasted into one image."""
    bank: int = 140
    """Cars cut out."""


def names_of(data: KittiDataset, copies: int) -> list[str]:
    """The ids of the new images."""
    return [f"{name}_{copy}" for name in data.ids for copy in range(copies)]


def write_pasted(
    root: Path,
    data: KittiDataset,
    bank: Sequence[Cutout],
    made_from: PastedSet,
    on_fault: Callable[[str, str], object] | None = None,
    device: str = "cpu",
) -> Iterator[int]:
    """Writes every version of every image below root/training and ImageSets/all.txt; yields the number of pasted cars.

    Versions that are complete (the label file comes last) are left alone and yield -1, so a killed run resumes where it
    stopped. on_fault: called with the id and the reason where an image cannot be read, which is then left out; without it that
    raises. device: where cars are rendered.

    Depth and instances are written where ``data`` reads them. Raises InputError where the folder holds anything else.
    """
    claim(root, made_from, data)
    write_split(root / "ImageSets" / "all.txt", names_of(data, made_from.copies))
    failed: set[str] = set()
    for k, name in enumerate(data.ids):
        missing = [c for c in range(made_from.copies) if not _label(root, f"{name}_{c}").is_file()]
        yield from [-1] * (made_from.copies - len(missing))
        try:
            sample = data[k] if missing else None
        except InputError as error:
            if on_fault is None:
                raise
            on_fault(name, str(error))
            failed |= {f"{name}_{c}" for c in missing}
            continue
        for copy in missing:
            assert sample is not None
            rng = np.random.default_rng((made_from.seed, k, copy))
            pasted = paste(sample, rng, bank, PasteOptions(up_to=made_from.up_to, device=device))
            for path, content in _files(data, sample, pasted, f"{name}_{copy}").items():
                write_atomically(root / "training" / path, content)
            yield len(pasted) - len(sample)
    if failed:
        done = [name for name in names_of(data, made_from.copies) if name not in failed]
        if not done:
            raise InputError(f"{data.root}: none of {len(data)} images can be read")
        write_split(root / "ImageSets" / "all.txt", done)


def claim(root: Path, made_from: PastedSet, data: KittiDataset) -> None:
    """Make the folders and note what they hold. Raises InputError where they hold something else."""
    folders = (
        ["image_2", "calib", "label_2"]
        + ["depth_2"] * bool(data.depth)
        + ["instance_2"] * bool(data.instances)
    )
    paths = [*(f"training/{folder}" for folder in folders), "ImageSets"]
    wanted = {**asdict(made_from), "ids": zlib.crc32("\n".join(data.ids).encode())}
    if (root / NOTE).is_file() and b'"ids"' not in read_bytes(root / NOTE):
        del wanted["ids"]  # a folder of an earlier version, which noted the split's name only
    output_folder.claim(root, NOTE, wanted, paths, "augmented set")


def _label(root: Path, name: str) -> Path:
    return root / "training" / "label_2" / f"{name}.txt"


def _files(data: KittiDataset, sample: Sample, pasted: Sample, name: str) -> dict[str, bytes]:
    """Path below root/training -> content, the label last."""
    original = find_image(data.root, sample.name)
    suffix = ".jpg" if original.suffix.lower() in (".jpg", ".jpeg") else ".png"
    rows = read_labels(text_file(data.root / "label_2", sample.name))
    files = {
        f"image_2/{name}{suffix}": _encoded(pasted.image.permute(1, 2, 0).numpy(), suffix),
        f"calib/{name}.txt": read_bytes(text_file(data.root / "calib", sample.name)),
    }
    if pasted.depth is not None:
        coded = (pasted.depth * DEPTH_SCALE).round().clamp(0, 65535).numpy().astype(np.uint16)
        files[f"depth_2/{name}.png"] = _encoded(coded, ".png")
    if pasted.instances is not None:
        files[f"instance_2/{name}.png"] = _encoded(_row_numbers(pasted, rows), ".png")
    files[f"label_2/{name}.txt"] = format_labels(labels_with_pasted(rows, sample, pasted)).encode()
    return files


def labels_with_pasted(rows: KittiLabels, sample: Sample, pasted: Sample) -> KittiLabels:
    """The original's rows, digit for digit, and below them one for each object that ``pasted`` has more than ``sample``."""
    new = pasted.keep(torch.arange(len(pasted)) >= len(sample))
    length, height, width = new.boxes.size.double().T
    columns = [
        new.truncation, new.occlusion, new.boxes.alpha, *new.boxes2d.T,
        height, width, length, *new.boxes.bottom.T, new.boxes.yaw,
    ]  # fmt: skip
    numbers = (
        np.round(torch.stack([c.double() for c in columns], 1).numpy(), 2) + 0.0
    )  # two decimals; no -0.0
    spelling = (*rows.spelling, *((),) * len(new)) if rows.spelling else ()
    return from_numbers((*rows.names, *new.classes), np.concatenate([to_numbers(rows), numbers]), spelling)


def _row_numbers(pasted: Sample, rows: KittiLabels) -> np.ndarray:
    """Numbers of label rows in place of those of objects: DontCare rows count, and pasted objects come after all."""
    labelled = [k + 1 for k, name in enumerate(rows.names) if name.lower() != "dontcare"]
    added = range(len(rows) + 1, len(rows) + 1 + len(pasted) - len(labelled))
    assert pasted.instances is not None
    return np.array([0, *labelled, *added], np.uint16)[pasted.instances.numpy()]


def _encoded(image: np.ndarray, suffix: str) -> bytes:
    file = BytesIO()
    if suffix == ".png":
        Image.fromarray(image).save(file, "PNG")
    else:
        Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()
