"""Checks and statistics of a KITTI-format data set (`monolift inspect`).

ROOT (or ROOT/training) holds label_2 and, as far as they exist, calib and image_2. Nothing here stops at the first fault: every
unreadable line and file is listed, what merely looks odd is listed apart.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.data.camera_tally import CameraTally
from monolift.data.formats import kitti_format as fmt
from monolift.errors import InputError
from monolift.evaluation.protocol import DONT_CARE, LEVELS
from monolift.files.folders import Listed, dataset_root, listed
from monolift.files.images import IMAGE_SUFFIXES, image_size, read_rgb
from monolift.files.text import read_bytes
from monolift.inspection import oddities

FloatArray = npt.NDArray[np.float64]

TEXT = (".txt",)


@dataclass(frozen=True)
class ClassStatistics:
    """What a class looks like: mean and deviation as training needs them (metres), counts by difficulty."""

    count: int
    by_level: dict[str, int]
    """Objects whose easiest level this is; "beyond" for the rest. Officially levels are cumulative."""
    depth: tuple[float, float]
    size_lhw: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    """(mean, deviation) of length, height, width."""


@dataclass(frozen=True)
class CalibGroup:
    """Images that share P2 and, where images were found, their size."""

    images: int
    focal: float
    centre: tuple[float, float]
    translation: tuple[float, float, float]
    """P2's fourth column."""
    image_size: tuple[int, int] | None


@dataclass(frozen=True)
class Inspection:
    """The findings; `str()` is the report for people, `to_json()` the one for machines."""

    root: str
    files: dict[str, int]
    """Number of label, calib and image files."""
    empty: int
    """Images without a labelled object."""
    classes: dict[str, ClassStatistics]
    calibs: list[CalibGroup]
    errors: list[str]
    """What cannot be read or is missing, each with file and line."""
    odd: dict[str, list[str]]
    """What can be read but looks wrong: kind of finding, and each place."""
    ids: tuple[str, ...] = field(default=(), repr=False)

    def to_json(self) -> str:
        """JSON text of everything above."""
        content: dict[str, Any] = {
            "root": self.root,
            "files": self.files,
            "images_without_objects": self.empty,
            "classes": {
                name: {
                    "count": s.count,
                    "by_level": s.by_level,
                    "depth": _mean_std(s.depth),
                    **{
                        k: _mean_std(v)
                        for k, v in zip(("length", "height", "width"), s.size_lhw, strict=True)
                    },
                }
                for name, s in self.classes.items()
            },
            "calibs": [vars(group) for group in self.calibs],
            "errors": self.errors,
            "odd": self.odd,
        }
        return json.dumps(content, indent=1)

    def __str__(self) -> str:
        lines = [
            f"{self.root}: " + ", ".join(f"{n:,} {kind}" for kind, n in self.files.items()),
            f"{self.empty:,} images without a labelled object",
            "",
        ]
        levels = "".join(f"{level.name:>10}" for level in LEVELS)
        lines.append(f"{'class':<16}{'objects':>9}{levels}{'beyond':>10}")
        for name, s in self.classes.items():
            counts = "".join(f"{n:>10,}" for n in s.by_level.values())
            lines.append(f"{name:<16}{s.count:>9,}{counts}")
        columns = "".join(f"{name:>16}" for name in ("depth", "length", "height", "width"))
        lines += ["", f"{'metres':<16}{columns}"]
        for name, s in self.classes.items():
            values = "".join(f"{f'{mean:.2f} +- {std:.2f}':>16}" for mean, std in (s.depth, *s.size_lhw))
            lines.append(f"{name:<16}{values}")
        lines += ["", "cameras (by P2)"]
        for group in self.calibs:
            size = f"{group.image_size[0]}x{group.image_size[1]}" if group.image_size else "size unknown"
            lines += [
                f"  {group.images:,} images {size}, focal {group.focal:.2f}, centre {group.centre[0]:.2f}, "
                f"{group.centre[1]:.2f},",
                f"    fourth column {', '.join(f'{v:.4g}' for v in group.translation)}",
            ]
        for kind, places in self.odd.items():
            lines += ["", f"{kind}: {len(places):,}", *_some(places)]
        if self.errors:
            lines += [
                "",
                f"ERRORS, to be fixed before training: {len(self.errors):,}",
                *_some(self.errors, 50),
            ]
        else:
            lines += ["", "No errors: every file was read."]
        return "\n".join(lines)


def inspect(
    root: str | os.PathLike[str], split: str | os.PathLike[str] | None = None, decode: bool = False
) -> Inspection:
    """Check a data set and gather its statistics.

    `split` restricts it to the ids of a file; `decode` decodes every image instead of reading its header only.
    Raises InputError if there is no label folder; all other faults are findings.
    """
    folder = training_folder(root)
    found_files = [
        listed(folder / name, suffixes) if (folder / name).is_dir() else Listed(folder / name, ())
        for name, suffixes in (("label_2", TEXT), ("calib", TEXT), ("image_2", IMAGE_SUFFIXES))
    ]
    labels, calibs, images = (files.by_stem(IMAGE_SUFFIXES) for files in found_files)
    ids = fmt.read_split(split) if split is not None else tuple(labels)
    errors = _missing(ids, labels, calibs, images)
    found, table = _read_labels([labels[i] for i in ids if i in labels], errors)
    cameras = _read_calibs(ids, calibs, errors)
    sizes = _read_images(ids, images, errors, decode)
    tally = _check_cameras(cameras, sizes)
    errors += tally.errors
    odd = oddities.find(table, found, cameras, sizes)
    if tally.warnings:
        odd["unusual cameras"] = list(tally.warnings)
    strays = [f"{files.folder.name}/{name}" for files in found_files for name in files.strays]
    if strays:
        odd["other files, which are skipped"] = strays
    objects = np.array([n.lower() != DONT_CARE for n in table.names], dtype=bool)
    filled = {found[row][0] for row in np.flatnonzero(objects)}
    return Inspection(
        root=str(folder),
        files={"labels": len(labels), "calibs": len(calibs), "images": len(images)},
        empty=len([i for i in ids if i in labels and i not in filled]),
        classes=_statistics(table),
        calibs=_group(cameras, sizes),
        errors=errors,
        odd=odd,
        ids=tuple(ids),
    )


def training_folder(root: str | os.PathLike[str]) -> Path:
    """ROOT or ROOT/training, whichever holds label_2. Raises InputError if neither does."""
    return dataset_root(root, ("label_2",))


def _missing(ids: Sequence[str], labels: Any, calibs: Any, images: Any) -> list[str]:
    errors = []
    for kind, present, suffix in (
        ("label_2", labels, ".txt"),
        ("calib", calibs, ".txt"),
        ("image_2", images, ".png"),
    ):
        if present or kind == "label_2":  # labels alone can be inspected too: the count of 0 says so
            errors += [f"{kind}/{i}{suffix}: missing" for i in ids if i not in present]
    return errors


def _read_labels(paths: Sequence[Path], errors: list[str]) -> tuple[list[tuple[str, str]], fmt.KittiLabels]:
    """Every readable row of every file, with (id, place) for each; the others go to the errors."""
    found: list[tuple[str, str]] = []
    names: list[str] = []
    numbers: list[list[float]] = []
    for path in paths:
        name = fmt.short_name(path)
        try:
            rows = fmt.split_rows(read_bytes(path), name)
        except InputError as error:
            errors.append(str(error))
            continue
        for line, words in rows:
            try:
                fmt.check_row(words, f"{name}:{line}")
            except InputError as error:
                errors.append(str(error))
                continue
            found.append((path.stem, f"{name}:{line}"))
            names.append(words[0].decode())
            numbers.append([float(w) for w in words[1 : fmt.N_LABEL]])
    return found, fmt.from_numbers(names, np.array(numbers).reshape(len(names), fmt.N_LABEL - 1))


def _read_calibs(ids: Sequence[str], paths: dict[str, Path], errors: list[str]) -> dict[str, FloatArray]:
    cameras = {}
    for i in ids:
        if i in paths:
            try:
                cameras[i] = fmt.read_calib(paths[i]).p2
            except InputError as error:
                errors.append(str(error))
    return cameras


def _read_images(
    ids: Sequence[str], paths: dict[str, Path], errors: list[str], decode: bool
) -> dict[str, tuple[int, int]]:
    sizes = {}
    for i in ids:
        if i in paths:
            try:
                sizes[i] = image_size(paths[i])
                if decode:
                    read_rgb(paths[i])
            except InputError as error:
                errors.append(str(error).replace(str(paths[i]), fmt.short_name(paths[i])))
    return sizes


def _check_cameras(cameras: dict[str, FloatArray], sizes: dict[str, tuple[int, int]]) -> CameraTally:
    """Whether each camera can belong to its image."""
    tally = CameraTally()
    for i, p2 in cameras.items():
        if i in sizes:
            tally.add(f"calib/{i}.txt", p2.tolist(), *sizes[i])
    return tally


def _statistics(table: fmt.KittiLabels) -> dict[str, ClassStatistics]:
    names = np.array(table.names, dtype=object)
    height = table.boxes2d[:, 3] - table.boxes2d[:, 1]
    level = np.full(len(table), len(LEVELS))
    for i, limits in reversed(list(enumerate(LEVELS))):
        fits = (height > limits.min_height) & (table.occlusion <= limits.max_occlusion)
        level[fits & (table.truncation <= limits.max_truncation)] = i
    labels = [v.name for v in LEVELS] + ["beyond"]
    statistics = {}
    for name, count in Counter(table.names).most_common():
        if name.lower() == DONT_CARE:
            continue
        rows = names == name
        size = table.size_hwl[rows]
        statistics[name] = ClassStatistics(
            count=count,
            by_level={text: int((level[rows] == i).sum()) for i, text in enumerate(labels)},
            depth=(float(table.bottom[rows, 2].mean()), float(table.bottom[rows, 2].std())),
            size_lhw=tuple((float(size[:, k].mean()), float(size[:, k].std())) for k in (2, 0, 1)),  # type: ignore[arg-type]
        )
    return statistics


def _group(cameras: dict[str, FloatArray], sizes: dict[str, tuple[int, int]]) -> list[CalibGroup]:
    groups = Counter((tuple(p2.ravel().tolist()), sizes.get(i)) for i, p2 in cameras.items())
    return [
        CalibGroup(n, p2[0], (p2[2], p2[6]), (p2[3], p2[7], p2[11]), size)
        for (p2, size), n in groups.most_common()
    ]


def _mean_std(value: tuple[float, float]) -> dict[str, float]:
    return {"mean": value[0], "std": value[1]}


def _some(places: Sequence[str], most: int = 5) -> list[str]:
    shown = [f"  {place}" for place in places[:most]]
    return shown + ([f"  ... and {len(places) - most:,} more (all in --json)"] if len(places) > most else [])
