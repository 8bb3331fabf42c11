"""Is a download of KITTI's object data set complete: `monolift inspect --kitti`.

The numbers are KITTI's own (7,481 training and 7,518 test images) and counts over its published label and calibration files.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monolift.data.formats import kitti_format as fmt
from monolift.errors import InputError
from monolift.files.folders import listed
from monolift.files.images import IMAGE_SUFFIXES, image_size
from monolift.files.text import read_bytes
from monolift.inspection.dataset import training_folder

COUNTS = {"training": 7481, "testing": 7518}
LABELS = {
    "Car": 28742, "Pedestrian": 4487, "Cyclist": 1627, "Van": 2914, "Truck": 1094, "Tram": 511, "Person_sitting": 222,
    "Misc": 973, "DontCare": 11295,
}  # fmt: skip
"""Rows of the 7,481 label files by class."""
RIGS = {
    721.5377: (6057, (1242, 375)),
    707.0493: (770, (1224, 370)),
    718.3351: (358, (1238, 374)),
    718.856: (296, (1241, 376)),
}
"""Focal length of P2 -> training images of this camera, and their size."""
SPLITS = {"train": 3712, "val": 3769, "trainval": 7481, "test": 7518}
"""Ids in the files of ImageSets: the usual split (Chen et al., 2015)."""
ARCHIVES = {
    "image_2": "data_object_image_2.zip",
    "label_2": "data_object_label_2.zip",
    "calib": "data_object_calib.zip",
}
FOLDERS = {"training": ("image_2", "label_2", "calib"), "testing": ("image_2", "calib")}


@dataclass(frozen=True)
class Completeness:
    """What a download has of KITTI, and what it lacks, a line each."""

    present: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        lines = ["KITTI object data set", *(f"  {line}" for line in self.present)]
        if self.missing:
            lines += [f"MISSING OR WRONG: {len(self.missing)}", *(f"  {line}" for line in self.missing)]
        else:
            lines.append("Complete.")
        return "\n".join(lines)


def check_kitti(root: str | os.PathLike[str]) -> Completeness:
    """Compare a folder with the numbers of KITTI's object data set.

    Args:
        root: holds training/ and testing/, or is training/.

    Raises:
        InputError: there is no label folder.
    """
    training = Path(
        os.path.abspath(training_folder(root))
    )  # of "." the name and the folder above would be "" and "."
    base = training.parent if training.name == "training" else training
    present: list[str] = []
    missing: list[str] = []
    for part, folders in FOLDERS.items():
        folder = training if part == "training" else base / part
        for name in folders:
            _check_files(folder / name, f"{part}/{name}", COUNTS[part], present, missing)
    _check_labels(training / "label_2", present, missing)
    _check_cameras(training, present, missing)
    _check_splits(base / "ImageSets", present, missing)
    return Completeness(tuple(present), tuple(missing))


def _check_files(folder: Path, name: str, count: int, present: list[str], missing: list[str]) -> None:
    archive = ARCHIVES[folder.name]
    if not folder.is_dir():
        missing.append(f"{name}: no such folder, expected {count:,} files: unpack {archive}")
        return
    found = _stems(folder)
    wanted = {f"{k:06d}" for k in range(count)}
    if absent := sorted(wanted - found):
        missing.append(
            f"{name}: {len(wanted & found):,} of {count:,} files, first missing {_some(absent)}: unpack {archive} again"
        )
    else:
        present.append(f"{name}: {count:,} files")
    if more := sorted(found - wanted):
        missing.append(f"{name}: {len(more):,} files that KITTI does not have, first {_some(more)}")


def _stems(folder: Path) -> set[str]:
    suffixes = IMAGE_SUFFIXES if folder.name == "image_2" else (".txt",)
    return set(listed(folder, suffixes).by_stem(IMAGE_SUFFIXES)) if folder.is_dir() else set()


def _check_labels(folder: Path, present: list[str], missing: list[str]) -> None:
    counts: Counter[str] = Counter()
    for path in listed(folder, (".txt",)).by_stem().values():
        try:
            counts.update(words[0].decode("ascii", "replace") for _, words in _rows(path))
        except InputError as error:
            missing.append(str(error))
    for name, wanted in LABELS.items():
        if counts[name] != wanted:
            missing.append(f"training/label_2: {counts[name]:,} rows of {name}, expected {wanted:,}")
    if all(counts[name] == wanted for name, wanted in LABELS.items()):
        present.append("labels: " + ", ".join(f"{wanted:,} {name}" for name, wanted in LABELS.items()))
    if others := sorted(set(counts) - set(LABELS)):
        missing.append(f"training/label_2: classes that KITTI does not have: {_some(others)}")


def _rows(path: Path) -> Iterable[tuple[int, Sequence[bytes]]]:
    return fmt.split_rows(read_bytes(path), fmt.short_name(path))


def _check_cameras(training: Path, present: list[str], missing: list[str]) -> None:
    calibs = listed(training / "calib", (".txt",)).by_stem() if (training / "calib").is_dir() else {}
    folder = training / "image_2"
    images = listed(folder, IMAGE_SUFFIXES).by_stem(IMAGE_SUFFIXES) if folder.is_dir() else {}
    counts: Counter[float] = Counter()
    wrong: list[str] = []
    for name, path in calibs.items():
        try:
            focal = round(float(fmt.read_calib(path).p2[0, 0]), 4)
            size = image_size(images[name]) if name in images else None
        except InputError as error:
            missing.append(str(error))
            continue
        counts[focal] += 1
        if focal not in RIGS:
            missing.append(f"training/calib/{name}.txt: focal length {focal:g}, which no camera of KITTI has")
        elif size is not None and size != RIGS[focal][1]:
            wrong.append(
                f"{name} ({size[0]} x {size[1]}, expected {RIGS[focal][1][0]} x {RIGS[focal][1][1]})"
            )
    if wrong:
        missing.append(
            f"training/image_2: {len(wrong):,} images of another size than their camera's, first {wrong[0]}"
        )
    for focal, (count, (width, height)) in RIGS.items():
        if calibs and counts[focal] != count:
            missing.append(
                f"training/calib: {counts[focal]:,} files of the camera with {width} x {height}, expected {count:,}"
            )
    if calibs and not wrong and all(counts[focal] == count for focal, (count, _) in RIGS.items()):
        checked = f"{len(set(images) & set(calibs)):,} image sizes checked"
        present.append(f"cameras: four, as published; {checked}")


def _check_splits(folder: Path, present: list[str], missing: list[str]) -> None:
    found: dict[str, set[str]] = {}
    for name, count in SPLITS.items():
        path = folder / f"{name}.txt"
        if not path.is_file():
            if name in ("train", "val"):
                missing.append(
                    f"ImageSets/{name}.txt: missing, expected {count:,} ids (the split of Chen et al.)"
                )
            continue
        try:
            ids = fmt.read_split(path)
        except InputError as error:
            missing.append(str(error))
            continue
        found[name] = set(ids)
        if len(found[name]) != count or not all(re.fullmatch(r"\d{6}", i) for i in ids):
            missing.append(
                f"ImageSets/{name}.txt: {len(found[name]):,} ids, expected {count:,} of six digits"
            )
        else:
            present.append(f"ImageSets/{name}.txt: {count:,} ids")
    if shared := found.get("train", set()) & found.get("val", set()):
        missing.append(
            f"ImageSets: {len(shared):,} ids are in train.txt and val.txt, first {_some(sorted(shared))}"
        )


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
