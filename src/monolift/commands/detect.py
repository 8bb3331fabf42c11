"""``monolift detect``: 3D boxes of images, folders, globs and videos."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.option import option
from monolift.commands.output import check_writable, console, count, write_json
from monolift.errors import InputError, MissingExtraError
from monolift.files.json_text import format_json
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.inference.model import Model
    from monolift.inference.results import Results3D

FORMATS = {
    "kitti": ".txt",
    "json": ".json",
    "image": ".png",
    "html": ".html",
    "glb": ".glb",
    "omni3d": ".omni3d.json",
}
READ_AHEAD = 2  # images at least that are read while the network runs
SHOWN_IN_FULL = 3  # with more images than this each gets a line instead of a table


@dataclass(frozen=True)
class Detect:
    """Detect 3D boxes in images, folders, globs and videos; print and save them.

    monolift detect street.jpg --fov 70 --save image,json,kitti --out out
    """

    source: Annotated[tuple[str, ...], tyro.conf.Positional, option("SOURCE...")] = ()
    """Input images, folders, globs or videos."""
    model: str = "smoke"
    """Bundled model, as listed by `monolift models`, or checkpoint folder."""
    camera: Annotated[str | None, option("FX,FY,CX,CY")] = None
    """Camera intrinsics in pixels; FX,FY,CX,CY,WIDTH,HEIGHT if calibrated at another image size."""
    calib: Annotated[Path | None, option("FILE-or-DIR")] = None
    """Calibration file (KITTI, ROS camera_info, OpenCV, RealSense, JSON) or a folder of them, matched by name."""
    fov: Annotated[float | None, option("DEGREES")] = None
    """Horizontal field of view in degrees. Without any camera option: EXIF, else an assumed phone camera and a warning."""
    score: Annotated[float | None, option("NUMBER")] = None
    """Score threshold (default: the model's own, best F1 on its validation split)."""
    classes: Annotated[str | None, option("CLASS,...")] = None
    """Classes to keep, comma-separated (default: all)."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1 or auto."""
    backend: str = "auto"
    """Inference backend: torch, onnx, openvino, or auto (onnx if the exported file exists)."""
    onnx: Annotated[Path | None, option("FILE-or-DIR")] = None
    """Exported file of this model (`monolift export`) or its folder (default: one in the user's cache)."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Maximum batch size; images of one size share a batch."""
    zooms: Annotated[str | None, option("ZOOM,...")] = None
    """Test-time augmentation: average detections at these scales of the network image, as in 0.8,1,1.3. Not for roi10d."""
    flip: bool = False
    """Test-time augmentation: average with detections in the flipped image."""
    out: Path = Path("out")
    """Output folder."""
    save: str = "image"
    """Output formats, comma-separated: image, json, kitti, html, glb (meshes or boxes), omni3d; or none."""
    json: Annotated[str | None, option("FILE")] = None
    """Write all results as one JSON list to FILE, or to standard output with "-"."""
    hints: bool = False
    """Add per-parameter predictions, uncertainties and residuals to --json (ss3d)."""
    quiet: bool = False
    """Print warnings and errors only."""


def run(options: Detect) -> int:
    """Detect in every file; report and skip files that cannot be used."""
    formats = _formats(options.save)
    if not options.source:
        raise InputError(
            "nothing to look at: expected images, folders, globs or videos, as in `monolift detect street.jpg`"
        )
    if options.batch < 1:
        raise InputError(f"--batch: expected 1 or more, got {options.batch}")
    if formats:
        check_writable(options.out)
    if options.json not in (None, "-"):
        check_writable(Path(options.json).parent)
    from monolift.data.sources import expand, is_video
    from monolift.inference.pipeline import Behind

    files = [path for source in options.source for path in expand(source)]
    zooms = _zooms(options.zooms)
    model = _loaded(options, len(files))
    classes = _classes(options.classes, model.classes)
    in_full = len(files) <= SHOWN_IN_FULL and not any(map(is_video, files))
    with Progress(len(files), "files", options.quiet or in_full) as progress:
        report = _Report(progress, options, in_full)
        job = _Job(_Writer(options.out, formats), report, options.hints)
        try:
            with Behind(job.outcome) as write:  # drawing and encoding, while the next image is detected
                results = model.stream(
                    files,
                    options.camera,
                    calib=options.calib,
                    fov=options.fov,
                    score=options.score,
                    batch=options.batch,
                    zooms=zooms,
                    flip=options.flip,
                    on_error=lambda source, error: write((source, error)),
                    read_ahead=max(READ_AHEAD, options.batch),
                )
                for result in results:
                    write(result.filter(classes=classes))
            report.turn(None)
        finally:  # whatever stops the job: what is done is told
            if options.json is not None and (job.rows or sys.exc_info()[0] is None):
                write_json(options.json, job.rows)
    report.say(f"{job.summary(len(files), options.out)}; backend {model.backend}")
    return 2 if job.failures else 0


def _loaded(options: Detect, files: int) -> Model:
    """The model on the backend that the options name, or on the best one."""
    from monolift.inference import zoo
    from monolift.inference.backends import choose
    from monolift.inference.model import load

    wanted = "onnx" if options.onnx is not None and options.backend == "auto" else options.backend
    if options.onnx is not None and wanted == "torch":
        raise InputError("--onnx is for the backends onnx and openvino, got --backend torch")
    checkpoint = zoo.resolve(options.model)
    choose(wanted, checkpoint, "cpu", 0)  # a wrong name is reported before anything is loaded
    model = load(checkpoint, options.device)
    backend = choose(wanted, checkpoint, str(model.device), files)
    if backend == "torch":
        return model
    from monolift.export.backend import with_backend

    def say(text: str) -> None:
        if not options.quiet:
            sys.stderr.write(f"monolift: {text}\n")

    return with_backend(model, backend, checkpoint, options.onnx, say)


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


def _zooms(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(zoom) for zoom in text.split(","))
    except ValueError:
        raise InputError(f"--zooms: expected numbers separated by commas, got {text!r}") from None


class _Job:
    """What becomes of every result: files, a row of --json, a line; pixels are not kept."""

    def __init__(self, writer: _Writer, report: _Report, hints: bool) -> None:
        self.writer, self.report, self.hints = writer, report, hints
        self.rows: list[dict[str, Any]] = []
        self.images = self.objects = 0
        self.failures: set[str] = set()

    def outcome(self, outcome: Results3D | tuple[str, Exception]) -> None:
        """A result, or the source and the exception of an image that could not be used."""
        if isinstance(outcome, tuple):
            self.failed(*outcome)
        else:
            self.done(outcome)

    def done(self, result: Results3D) -> None:
        source = str(result.path or result.name)
        self.report.turn(source)
        try:
            row = result.to_dict(self.hints)
            format_json(row)  # here a number that JSON does not know costs one image, at the end all of them
            self.writer.write(result)
        except Exception as error:
            if self.writer.formats and not isinstance(error, _TakenError):
                check_writable(self.writer.folder)  # a full disk ends the job; one odd name does not
            self.failed(source, error)
            return
        self.rows.append(row)
        self.images += 1
        self.objects += len(result)
        self.report.result(result)

    def failed(self, source: str, error: Exception) -> None:
        """Reports a file that cannot be used: bad input in the words of its error, anything else with its type."""
        self.report.turn(source)
        text = str(error)
        if not isinstance(error, (InputError, MissingExtraError)):
            reason = text.splitlines()[0] if text else "no message"
            text = f"{source}: {type(error).__name__}: {reason}"
        self.failures.add(source)
        self.rows.append({"source": source, "error": text})
        self.report.complain(text)

    def summary(self, files: int, folder: Path) -> str:
        text = f"{count(self.objects, 'object')} in {count(self.images, 'image')}"
        if self.failures:
            text += f"; {len(self.failures)} of {count(files, 'file')} failed"
        return text + (f"; {count(self.writer.written, 'file')} in {folder}" if self.writer.written else "")


class _TakenError(InputError):
    """A result's file is another's, or the image itself."""


class _Writer:
    """Files named like the images. Two images of one name would overwrite each other, so the second is refused."""

    def __init__(self, folder: Path, formats: list[str]) -> None:
        self.folder, self.formats = folder, formats
        self.written = 0
        self._origin: dict[str, Path | None] = {}

    def write(self, result: Results3D) -> None:
        if not self.formats:
            return
        if result.name in self._origin:
            raise _TakenError(
                f"{result.path}: {self._origin[result.name]} has the same name: its files in {self.folder} would be "
                "overwritten; use another --out"
            )
        self._origin[result.name] = result.path
        for name in self.formats:
            target = self.folder / (result.name + FORMATS[name])
            if result.path is not None and target.resolve() == result.path.resolve():
                raise _TakenError(f"{target}: is the image itself and is not overwritten; use another --out")
            _save(result, name, target)
            self.written += 1


def _save(result: Results3D, name: str, target: Path) -> None:
    if name == "html":
        from monolift.viewer import save_html

        save_html(result, target)
    else:
        getattr(result, f"save_{name}")(target)


class _Report:
    """What the user reads: tables for a few images, a line each for many. Standard output stays clean for --json -."""

    def __init__(self, progress: Progress, options: Detect, in_full: bool) -> None:
        self.progress, self.quiet, self.in_full = progress, options.quiet, in_full
        self.to_stderr = options.json == "-"
        self._warned: set[str] = set()
        self._source: str | None = None

    def turn(self, source: str | None) -> None:
        """The next result is of this file, or there is none: progress counts the one before."""
        if self._source is not None and source != self._source:
            self.progress.advance(1, Path(self._source).name)
        self._source = source

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
