"""A job's manifest: a line of JSON for every file that is done or failed, written as the job goes, read when it is resumed.

    {"schema": "monolift.manifest/1", "job": "detect", "options": {"model": "smoke", "score": 0.25, ...}}
    {"source": "images/a.jpg", "status": "done", "bytes": 81733, "mtime_ns": 17..., "images": 1, "objects": 3}
    {"source": "images/b.jpg", "status": "failed", "bytes": 0, "mtime_ns": 17..., "error": "images/b.jpg: not a readable ..."}
    {"resumed": 1}

A line may hold the row of the results that belongs to it ("result"), so that results need no memory. What a kill has cut off
is no line, and its file is done again. Of several lines of a file those of the latest run count. Every process that works on
a share of the files ("2/8") has a manifest of its own in the folder they share.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files.folders import to_disk, write_error
from monolift.files.output_folder import differences

SCHEMA = "monolift.manifest/1"
DONE, FAILED, FRAME = "done", "failed", "frame"


@dataclass
class Entry:
    """What earlier runs have noted of a file: the latest run's lines count."""

    run: int
    status: str = ""
    line: dict[str, Any] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))
    """Where in the file its lines begin that hold a row of the results."""


class Manifest:
    """Notes of one job; nothing but the files that earlier runs have done is in memory."""

    def __init__(self, path: Path | None, job: str, options: Mapping[str, Any], resume: bool = False) -> None:
        """Begins a manifest, or continues one.

        Args:
            path: see `path_in`; None keeps the notes in an unnamed file that goes with the process.
            job: the subcommand.
            options: all that results depend on, as JSON can hold it.
            resume: continue what is there; begins where nothing is.

        Raises:
            InputError: where the file is of another job or other options, or cannot be written.
        """
        self.path = path
        self.earlier: dict[str, Entry] = {}
        header = {"schema": SCHEMA, "job": job, "options": json.loads(json.dumps(options))}
        try:
            with contextlib.ExitStack() as failing:
                self._file = self._open()
                failing.callback(self._file.close)
                if not resume:
                    self._empty()
                if self._file.seek(0, os.SEEK_END):
                    self._read(header)
                    self._begin = self._file.seek(0, os.SEEK_END)
                    self._write({"resumed": len(self.earlier)})
                else:
                    self._write(header)
                    self._begin = self._file.tell()
                if path is not None:
                    to_disk(path.parent)
                failing.pop_all()
        except OSError as error:
            raise write_error(path or "manifest", error) from None

    @staticmethod
    def path_in(folder: Path, shard: str = "") -> Path:
        """Where a job's manifest stands in its output folder; shard: "2/8"."""
        return folder / f"manifest{'-' + shard.replace('/', '-of-') if shard else ''}.jsonl"

    def _open(self) -> Any:
        if self.path is None:
            return tempfile.TemporaryFile()
        return self.path.open("r+b" if self.path.is_file() else "w+b")

    def _empty(self) -> None:
        """Removes what earlier runs have noted. Raises InputError for a file that is no manifest."""
        first = self._file.readline()
        if first.strip() and f'"schema": "{SCHEMA}"'.encode() not in first:
            raise InputError(
                f"{self.path}: is not of this program and is not overwritten: choose another folder"
            )
        self._file.truncate(0)

    def _read(self, header: dict[str, Any]) -> None:
        """Takes in what earlier runs have noted; cuts off a line that was not finished."""
        self._file.seek(0)
        run = 0
        first = _parsed(self._file.readline())
        if first is None or first.get("schema") != SCHEMA or not isinstance(first.get("options"), dict):
            raise InputError(
                f"{self.path}: damaged: not a manifest: begin anew without --resume, or in another folder"
            )
        if first.get("job") != header["job"] or first["options"] != header["options"]:
            other = differences(
                {"job": first.get("job"), **first["options"]}, {"job": header["job"], **header["options"]}
            )
            raise InputError(
                f"{self.path}: was begun with other options ({other}): resume with those, or begin anew without --resume"
            )
        end = self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                break
            begin, end = end, end + len(line)
            found = _parsed(line)
            if found is None:
                continue  # damaged: its file is done again
            if "resumed" in found:
                run += 1
            elif isinstance(found.get("source"), str):
                self._take(found, run, begin)
        self._file.truncate(end)

    def _take(self, found: dict[str, Any], run: int, begin: int) -> None:
        entry = self.earlier.get(found["source"])
        if entry is None or entry.run != run:
            entry = self.earlier[found["source"]] = Entry(run)
        if "result" in found or found.get("status") == FAILED:
            entry.rows.append(begin)
        if entry.status != FAILED:  # of a video with a bad frame the others' lines follow
            entry.status = str(found.get("status"))
        entry.line = {k: v for k, v in found.items() if k != "result"}

    def is_done(self, source: str) -> bool:
        """Whether an earlier run has done this file and it has not changed since."""
        entry = self.earlier.get(source)
        if entry is None or entry.status != DONE:
            return False
        return _stamp(source) == {k: entry.line.get(k) for k in ("bytes", "mtime_ns")}

    def note(self, source: str, status: str, **more: Any) -> None:
        """Adds a line. Raises InputError where it cannot be written, DiskError where the disk is full."""
        try:
            self._write({"source": source, "status": status, **_stamp(source), **more})
        except OSError as error:
            raise write_error(self.path or "manifest", error) from None

    def rows(self, sources: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The rows of the results of earlier runs and this one in the order of ``sources``, which is that of this run."""
        fresh = self._fresh()
        waiting = next(fresh, None)
        skipped = {source for source in self.earlier if self.is_done(source)}
        for source in sources:
            if source in skipped and (waiting is None or waiting["source"] != source):
                skipped.discard(source)
                for begin in self.earlier[source].rows:
                    yield self._row(begin)
            while waiting is not None and waiting["source"] == source:
                yield _row_of(waiting)
                waiting = next(fresh, None)

    def _fresh(self) -> Iterator[dict[str, Any]]:
        place = self._begin
        while True:
            self._file.seek(place)
            line = self._file.readline()
            if not line:
                return
            place += len(line)
            found = _parsed(line) or {}
            if "result" in found or found.get("status") == FAILED:
                yield found

    def _row(self, begin: int) -> dict[str, Any]:
        self._file.seek(begin)
        return _row_of(json.loads(self._file.readline()))

    def _write(self, content: dict[str, Any]) -> None:
        """One line, handed to the system at once: a killed process loses nothing of it."""
        self._file.seek(0, os.SEEK_END)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
        self._file.write(text.encode("utf-8", "surrogatepass"))
        self._file.flush()

    def close(self) -> None:
        """Waits until the disk has it. Raises InputError where it cannot be written, DiskError where the disk is full."""
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise write_error(self.path or "manifest", error) from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _row_of(line: dict[str, Any]) -> dict[str, Any]:
    """The row of the results that a line stands for."""
    return (
        dict(line["result"]) if "result" in line else {"source": line["source"], "error": line.get("error")}
    )


def _stamp(source: str) -> dict[str, Any]:
    """Size and time of a file, by which a later run sees that it has changed; None where there is none."""
    try:
        found = os.stat(source)
    except (OSError, ValueError):
        return {"bytes": None, "mtime_ns": None}
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
