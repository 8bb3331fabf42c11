"""Reading label and result folders: which images are evaluated, which files are invalid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from monolift.data.formats.kitti_format import read_split
from monolift.data.formats.kitti_table import KittiTable, read_table
from monolift.errors import InputError
from monolift.evaluation.corpus import Corpus
from monolift.files.folders import is_hidden

PathLike = str | os.PathLike[str]
MISSING = ("error", "empty")


class Truth:
    """The labels of the images to evaluate, read once for any number of prediction sets.

    `split` is a file with one image id per line; without it every label file is evaluated.
    Raises InputError when the folder, a label file or the split cannot be used.
    """

    def __init__(self, labels: PathLike, split: PathLike | None = None) -> None:
        self.folder = _folder(labels, "labels", "label_2")
        self.split = None if split is None else Path(split).name
        self.files = _text_files(self.folder)
        self.ids = read_split(split) if split is not None else tuple(sorted(self.files))
        if not self.ids:
            raise InputError(f"{self.folder}: expected label files such as 000123.txt, found none")
        lacking = [i for i in self.ids if i not in self.files]
        if lacking:
            raise InputError(
                f"{self.folder}: {len(lacking):,} of {len(self.ids):,} images of {self.split or 'the split'} have no "
                f"label file (first: {lacking[0]}.txt)"
            )
        self.table: KittiTable = self.read(self.ids)

    def read(self, ids: Sequence[str]) -> KittiTable:
        """The labels of other images of the same folder, as of a training split."""
        return read_table([f"{self.folder}/{self.files.get(i, i + '.txt')}" for i in ids], scored=False)


def load(truth: Truth, predictions: PathLike, missing: str = "error") -> tuple[Corpus, list[str]]:
    """The corpus of one prediction folder and remarks on its files.

    An image without a prediction file is an error, as in the official program, or with `missing="empty"` an image without
    detections. Raises InputError for that and for every unreadable row.
    """
    if missing not in MISSING:
        raise InputError(f"missing: expected 'error' or 'empty', got {missing!r}")
    folder = _folder(predictions, "predictions", "data")
    present = _text_files(folder)
    lacking = [i for i in truth.ids if i not in present]
    stray = sorted(present.keys() - set(truth.ids))
    notes = []
    if lacking:
        notes.append(_lacking(folder, truth, lacking, stray, missing))
    elif stray:
        notes.append(
            f"{_plural(len(stray), 'file')} in {folder.name} ignored: not among the images evaluated "
            f"(first: {stray[0]}.txt)"
        )
    others = sorted(
        entry for entry in os.listdir(folder) if not entry.lower().endswith(".txt") and not is_hidden(entry)
    )
    if others:
        notes.append(
            f"{_plural(len(others), 'entry', 'entries')} in {folder.name} ignored: no .txt file (first: {others[0]})"
        )
    gone = set(lacking)
    table = read_table(["" if i in gone else f"{folder}/{present[i]}" for i in truth.ids], scored=True)
    if not len(table.labels) and table.unscored:
        raise InputError(
            f"{table.unscored[0]}: expected 16 fields with the score last, got 15, and no row of {folder.name} has a score: "
            "these look like labels"
        )
    return Corpus(truth.ids, truth.table, table), notes + _rows(table, truth.table)


def _lacking(folder: Path, truth: Truth, lacking: list[str], stray: list[str], missing: str) -> str:
    count = f"{len(lacking):,} of {len(truth.ids):,} images have no prediction file (first: {lacking[0]}.txt)"
    if len(lacking) == len(truth.ids) and stray:
        raise InputError(
            f"{folder}: none of its {len(stray):,} files is named after an image: expected names such as "
            f"{lacking[0]}.txt, got {stray[0]}.txt"
        )
    misnamed = (
        f"; {_plural(len(stray), 'file')} there named otherwise (first: {stray[0]}.txt)" if stray else ""
    )
    if missing == "error":
        raise InputError(
            f"{folder}: {count}{misnamed}. For a part of the labels pass --split FILE; to count these images as having no "
            "detections pass --missing empty"
        )
    return f"{count}: counted as images without detections, the official program would refuse{misnamed}"


def _rows(table: KittiTable, truth: KittiTable) -> list[str]:
    notes = []
    if table.unscored:
        notes.append(
            f"{_plural(len(table.unscored), 'prediction')} without a score left out, as the official program does "
            f"silently (first: {table.unscored[0]})"
        )
    for which, surplus in (("prediction", table.surplus), ("label", truth.surplus)):
        if surplus:
            notes.append(
                f"surplus fields of {_plural(len(surplus), which + ' row')} not read (first: {surplus[0]})"
            )
    return notes


def _folder(path: PathLike, what: str, inner: str) -> Path:
    """The folder itself, or the one that KITTI's layout puts inside it."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected the folder of {what}, {'got a file' if folder.exists() else 'not found'}"
        )
    nested = folder / inner
    return nested if nested.is_dir() and not _text_files(folder) else folder


def _text_files(folder: Path) -> dict[str, str]:
    """Names of the label or result files by id."""
    return {
        name[:-4]: name
        for name in sorted(os.listdir(folder))  # of a.TXT and a.txt the latter
        if name.lower().endswith(".txt") and not is_hidden(name)
    }


def _plural(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
