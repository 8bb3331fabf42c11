"""``monolift detect``: 3D boxes of images, folders, globs and videos."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.errors import InputError
from monolift.files.json_text import format_json
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.inference.results import Results3D

FORMATS = {
    "kitti": ".txt",
    "json": ".json",
    "image": ".png",
    "html": ".html",
    "glb": ".glb",
    "omni3d": ".omni3d.json",
}
SHOWN_IN_FULL = 3  # with more pictures than this each gets a line instead of a table


@dataclass(frozen=True)
class Detect:
    """3D boxes of images, folders, globs and videos: a table, and files in --out named like the pictures.

    monolift detect street.jpg --fov 70 --save image,json,kitti --out out
    """

    source: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")] = ()
    """Images, folders, globs, videos."""
    model: str = "smoke"
    """A name that `monolift models` lists, or a checkpoint folder."""
    camera: Annotated[str | None, tyro.conf.arg(metavar="FX,FY,CX,CY")] = None
    """Intrinsics in pixels; FX,FY,CX,CY,WIDTH,HEIGHT where calibrated at another size."""
    calib: Annotated[Path | None, tyro.conf.arg(metavar="FILE-or-DIR")] = None
    """KITTI calib file or ROS camera_info .yaml, or a folder of them matched by name."""
    fov: Annotated[float | None, tyro.conf.arg(metavar="DEGREES")] = None
    """Horizontal field of view, degrees. With no camera at all: EXIF, else a guess and a warning."""
    score: float | None = None
    """Lowest score that is kept; by default the model's own, which weighs misses against false alarms."""
    classes: Annotated[str | None, tyro.conf.arg(metavar="CLASS,...")] = None
    """Only these classes."""
    device: str = "auto"
    """cpu, cuda, cuda:1 or auto."""
    out: Path = Path("out")
    """Folder of the saved files."""
    save: str = "image"
    """What to save, separated by commas: image, json, kitti, html, glb (meshes or boxes), omni3d; or none."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """All results as one JSON list in this file, or on standard output with "-"."""
    hints: bool = False
    """In --json, also the named measurements behind each box and which disagree with it (ss3d)."""
    quiet: bool = False
    """Only warnings and errors."""


def run(options: Detect) -> int:
    """Every file in turn; one that cannot be used is reported, and the others still get done."""
    formats = _formats(options.save)
    if not options.source:
        raise InputError(
            "nothing to look at: expected images, folders, globs or videos, as in `monolift detect street.jpg`"
        )
    from monolift.data.cameras import CameraChoice
    from monolift.data.sources import expand, is_video
    from monolift.inference.model import load

    choice = CameraChoice.of(options.camera, options.calib, options.fov)
    files = [path for source in options.source for path in expand(source)]
    model = load(options.model, options.device)
    classes = _classes(options.classes, model.classes)
    in_full = len(files) <= SHOWN_IN_FULL and not any(map(is_video, files))
    writer = _Writer(options.out, formats)
    rows: list[dict[str, Any]] = []
    failed = 0
    with Progress(len(files), "files", options.quiet or in_full) as progress:
        report = _Report(progress, options, in_full)
        for path in files:
            try:
                for everything in model.detect_file(path, choice, options.score):
                    result = everything.filter(classes=classes)
                    writer.write(result)
                    report.result(result)
                    rows.append(result.to_dict(options.hints))
            except InputError as error:
                failed += 1
                report.complain(str(error))
                rows.append({"source": str(path), "error": str(error)})
            progress.advance(1, path.name)
    if options.json is not None:
        write_json(options.json, rows)
    found = sum(len(row.get("objects", ())) for row in rows)
    seen = len(rows) - failed
    text = f"{_count(found, 'object')} in {_count(seen, 'picture')}"
    text += f"; {failed} of {_count(len(files), 'file')} failed" if failed else ""
    report.say(text + (f"; {_count(writer.written, 'file')} in {options.out}" if writer.written else ""))
    return 2 if failed else 0


def write_json(target: str, content: Any) -> None:
    """To a file, complete or not at all, or to standard output with "-"."""
    from monolift.data.formats.kitti_format import write_atomically

    text = format_json(content) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_atomically(target, text.encode())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _formats(save: str) -> list[str]:
    names = [name.strip() for name in save.split(",") if name.strip() not in ("", "none")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], FORMATS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"--save: expected {', '.join(FORMATS)} or none, got {', '.join(unknown)}{hint}")
    return list(dict.fromkeys(names))


def _classes(wanted: str | None, known: tuple[str, ...]) -> list[str]:
    names = list(known) if wanted is None else [name.strip() for name in wanted.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"--classes: this model knows {', '.join(known)}, got {', '.join(unknown)}")
    return names


class _Writer:
    """Files named like the pictures. Two pictures of one name would overwrite each other, so the second is refused."""

    def __init__(self, folder: Path, formats: list[str]) -> None:
        self.folder, self.formats = folder, formats
        self.written = 0
        self._origin: dict[str, Path | None] = {}

    def write(self, result: Results3D) -> None:
        if not self.formats:
            return
        if result.name in self._origin:
            raise InputError(
                f"{result.path}: {self._origin[result.name]} has the same name: its files in {self.folder} would be "
                "overwritten; use another --out"
            )
        self._origin[result.name] = result.path
        for name in self.formats:
            target = self.folder / (result.name + FORMATS[name])
            if result.path is not None and target.resolve() == result.path.resolve():
                raise InputError(f"{target}: is the picture itself and is not overwritten; use another --out")
            getattr(result, f"save_{name}")(target)
            self.written += 1


class _Report:
    """What the user reads: tables for a few pictures, a line each for many. Standard output stays clean for --json -."""

    def __init__(self, progress: Progress, options: Detect, in_full: bool) -> None:
        self.progress, self.quiet, self.in_full = progress, options.quiet, in_full
        self.to_stderr = options.json == "-"
        self._warned: set[str] = set()

    def result(self, result: Results3D) -> None:
        for warning in result.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self.complain(f"{result.name}: warning: {warning}")
        if self.in_full:
            self.say(result.table() if len(result) else str(result))
        else:
            self.progress.say(f"{result}  ({sum(result.timings.values()):.2f} s)")

    def say(self, content: Any) -> None:
        if not self.quiet:
            console(self.to_stderr).print(content, highlight=False, markup=False)

    def complain(self, text: str) -> None:
        """One line on standard error, also when quiet."""
        line = "monolift: " + " ".join(text.split())
        if self.progress.quiet:
            sys.stderr.write(line + "\n")
        else:
            self.progress.say(line)


def console(stderr: bool = False) -> Any:
    """rich's console; wide enough for the tables where the width is not a terminal's."""
    from rich.console import Console

    plain = Console(stderr=stderr)
    return plain if plain.is_terminal else Console(stderr=stderr, width=120)
