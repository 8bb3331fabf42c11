"""The folder of a run: one training at a time writes there, never over another; its history in two formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from monolift.errors import InputError, MissingExtraError
from monolift.files.folders import remove_folder, write_atomically
from monolift.files.output_folder import LOCK

METRICS, RESULTS, DESCRIPTION = "metrics.jsonl", "results.csv", "run.toml"
TRAIN_IDS, VAL_IDS = "train_ids.txt", "val_ids.txt"
STATES = ("last", "last.old", "best")
OURS = (
    *STATES, "last.new", "best.old", METRICS, RESULTS, DESCRIPTION, TRAIN_IDS, VAL_IDS, "val", "val.txt", "images",
    "tensorboard", "pictures",  # the name of images/ in runs of 0.1.0
)  # fmt: skip
"""All that a training writes; nothing else in the folder is ever touched."""


def claim(out: Path, resume: bool, overwrite: bool) -> None:
    """Make sure that a training may write to the folder; `clear` removes what ``overwrite`` gives up.

    Raises:
        InputError: where there is a run and neither option is given, or something to resume is missing.
    """
    if resume and overwrite:
        raise InputError("resume and overwrite exclude each other: choose one")
    there = _run_in(out)
    states = [name for name in ("last", "last.old") if (out / name / "trainer.pt").exists()]
    if resume and not states:
        strangers = [path.name for path in out.iterdir() if path.name not in (LOCK, *OURS)]
        if (there and (out / "best").exists()) or (strangers and not there):
            raise InputError(
                f"{out}: nothing to resume: expected last/trainer.pt; to begin there leave --resume out"
                + (", with --overwrite" if there else "")
            )
    if resume or not there:
        return
    if not overwrite:
        raise InputError(
            f"{out}: holds a training already ({', '.join(there)}): resume it with --resume, overwrite it with --overwrite, or "
            "choose another output folder"
        )


def clear(out: Path) -> None:
    """Removes an earlier run from the folder, and nothing else; a folder that holds none is left as it is."""
    if not _run_in(out):
        return
    for name in reversed(OURS):  # the parts by which a run is known last: a kill in between is a run still
        path = out / name
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)


def _run_in(out: Path) -> list[str]:
    """The parts of a run that the folder holds."""
    return [name for name in (*STATES, METRICS, RESULTS) if (out / name).exists()]


class History:
    """The rows of metrics.jsonl and results.csv, one for each epoch, and TensorBoard's events where asked for."""

    def __init__(self, out: Path, tensorboard: bool = False) -> None:
        self.out = out
        self.rows, self.damaged = self._read()
        self.events = _events(out) if tensorboard else None

    def warnings(self) -> list[str]:
        """What was wrong with the rows that an earlier run has left."""
        if not self.damaged:
            return []
        return [f"warning: {self.out / METRICS}: {self.damaged} damaged lines are left out"]

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """The rows that can be read, and how many cannot: a kill or a full disk may have cut the last."""
        path, rows, damaged = self.out / METRICS, [], 0
        lines = path.read_bytes().splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and isinstance(row.get("epoch"), int):
                rows.append(row)
            else:
                damaged += 1
        return rows, damaged

    def add(self, row: dict[str, float]) -> None:
        """Appends an epoch's row; an epoch that is run again replaces its own and later ones."""
        self.rows = [*(r for r in self.rows if r["epoch"] < row["epoch"]), row]
        text = "".join(json.dumps(r) + "\n" for r in self.rows)
        write_atomically(self.out / METRICS, text.encode())
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(dict.fromkeys(k for r in self.rows for k in r)))
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.out / RESULTS, table.getvalue().encode())
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["epoch"])
            self.events.flush()


def _events(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard=True", "tensorboard") from error
    return SummaryWriter(str(out / "tensorboard"))
