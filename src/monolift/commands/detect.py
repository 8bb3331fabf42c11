"""``monolift detect``: 3D boxes of images, folders, globs and videos."""

from __future__ import annotations

import contextlib
import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.detect_job import FORMATS, DetectJob, Log, Report, Writer
from monolift.commands.option import option
from monolift.commands.output import check_file, check_writable, count, kept, write_json_rows
from monolift.errors import InputError
from monolift.files.manifest import Manifest
from monolift.files.output_folder import locked
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.inference.model import Model

LOG = "detect.log"
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
    """Bundled model, as listed by `monolift models`, checkpoint folder, or file of SMOKE's released code or MMDetection3D."""
    camera: Annotated[str | None, option("FX,FY,CX,CY")] = None
    """Camera intrinsics in pixels; FX,FY,CX,CY,WIDTH,HEIGHT if calibrated at another image size."""
    calib: Annotated[Path | None, option("FILE-or-DIR")] = None
    """Calibration file (KITTI, ROS camera_info, OpenCV, RealSense, JSON), or folder of one per image, named like it."""
    fov: Annotated[float | None, option("DEGREES")] = None
    """Horizontal field of view in degrees. Without any camera option: EXIF, else an assumed phone camera and a warning."""
    score: Annotated[float | None, option("NUMBER")] = None
    """Score threshold (default: the model's own, best F1 on its validation split)."""
    classes: Annotated[str | None, option("CLASS,...")] = None
    """Classes to keep, comma-separated (default: all)."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1 or auto."""
    backend: str = "auto"
    """Inference backend: torch, onnx, openvino, or auto (onnx on a CPU if the exported file exists or for 1000 images)."""
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
    resume: bool = False
    """Resume an interrupted run with the same options: skip files that OUT/manifest.jsonl lists as done, retry failed ones."""
    log: Annotated[Path | None, option("FILE")] = None
    """Log file (default: OUT/detect.log for folders, globs, videos and more than three images)."""
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
    from monolift.data.sources import expand

    files = [path for source in options.source for path in expand(source)]
    few = len(files) <= SHOWN_IN_FULL and set(map(str, files)) <= set(options.source)
    with contextlib.ExitStack() as stack:
        if formats or options.resume:
            check_writable(options.out)
            stack.enter_context(locked(options.out, "detect", shared=few and not options.resume))
        if options.json not in (None, "-"):
            check_file(Path(options.json))
        return _detect(options, formats, files, few)


def _detect(options: Detect, formats: list[str], files: list[Path], few: bool) -> int:
    """The job in an output folder that is this process's. few: some named images, a table each and no manifest."""
    from monolift.data.sources import is_video

    zooms = _zooms(options.zooms)
    model = _loaded(options, len(files))
    classes = _classes(options.classes, model.classes)
    keeps = options.resume or (bool(formats) and not few)
    in_full = len(files) <= SHOWN_IN_FULL and not any(map(is_video, files))
    place = Manifest.path_in(options.out) if keeps else None
    depends_on = _depends_on(options, formats, model, zooms) if keeps else {}
    manifest = Manifest(place, "detect", depends_on, options.resume)
    path = options.log or (options.out / LOG if keeps else None)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(contextlib.closing(Log(path))) if path else None
        with Progress(len(files), "files", options.quiet or in_full) as progress:
            report = Report(progress, options.quiet, options.json == "-", in_full, log)
            writer = Writer(options.out, formats)
            job = DetectJob(writer, report, manifest, options.hints, options.json is not None, len(files))
            left = job.left(files)
            report.note(f"detect: {count(len(files), 'file')}, {len(files) - len(left)} done before; {model}")
            progress.advance(len(files) - len(left))
            try:
                resumed = "the same command with --resume continues" if keeps else ""
                with kept(lambda: job.images + job.skipped, len(files), resumed):
                    _detect_all(model, options, zooms, left, classes, job)
            except BaseException:  # whatever stops the job: what is done is reported
                with contextlib.suppress(InputError):
                    report.note(f"stopped: {job.summary()}")
                    if options.json is not None and job.images + job.skipped + job.failed_files:
                        write_json_rows(options.json, manifest.rows(map(str, files)))
                raise
        if options.json is not None:
            write_json_rows(options.json, manifest.rows(map(str, files)))
        manifest.close()
        summary = f"{job.summary()}; backend {model.backend}"
        report.note(summary)
        report.say(summary)
    return 2 if job.failed_files else 0


def _detect_all(
    model: Model,
    options: Detect,
    zooms: tuple[float, ...] | None,
    files: list[Path],
    classes: list[str],
    job: DetectJob,
) -> None:
    """Detects in the files; another thread draws and encodes one image while the next is detected."""
    from monolift.inference.pipeline import Behind

    with Behind(job.outcome) as write:
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
    job.turn(None)


def _depends_on(
    options: Detect, formats: list[str], model: Model, zooms: tuple[float, ...] | None
) -> dict[str, Any]:
    """All that results depend on, for a resumed job to be the same."""
    return {
        "model": options.model,
        "weights": model.weights_digest(),
        "backend": model.backend,
        "camera": options.camera,
        "calib": None if options.calib is None else str(options.calib),
        "fov": options.fov,
        "score": options.score,
        "classes": options.classes,
        "zooms": zooms,
        "flip": options.flip,
        "save": formats,
        "json": options.json is not None,
        "hints": options.hints,
    }


def _loaded(options: Detect, files: int) -> Model:
    """The model on the backend that the options name, or on the best one."""
    from monolift.inference import zoo
    from monolift.inference.backends import choose
    from monolift.inference.model import load

    wanted = "onnx" if options.onnx is not None and options.backend == "auto" else options.backend
    if options.onnx is not None and wanted == "torch":
        raise InputError("--onnx is for the backends onnx and openvino, got --backend torch")
    checkpoint = zoo.resolve(options.model)
    if wanted != "auto":
        choose(wanted, checkpoint, "cpu", 0)  # a wrong name is reported before anything is loaded
    model = load(checkpoint, options.device)
    backend = choose(wanted, checkpoint, str(model.device), files)
    if backend == "torch":
        return model
    from monolift.export.backend import with_backend

    def say(text: str) -> None:
        if not options.quiet:
            sys.stderr.write(f"monolift: {text}\n")

    try:
        return with_backend(model, backend, checkpoint, options.onnx, say)
    except (InputError, FloatingPointError) as error:
        if wanted != "auto":
            raise
        sys.stderr.write(f"monolift: warning: {' '.join(str(error).split())}; torch computes instead\n")
        return model


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
