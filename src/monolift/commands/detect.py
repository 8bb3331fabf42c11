"""``monolift detect``: 3D boxes of images, folders, globs, videos, cameras and streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.detect_job import DetectJob, Log, Report, Writer
from monolift.commands.detect_sequence import Save
from monolift.commands.option import option
from monolift.commands.output import check_file, check_writable, count, kept, write_json_rows
from monolift.errors import InputError
from monolift.files.manifest import Manifest
from monolift.files.output_folder import locked
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.data.live import LiveSource
    from monolift.inference.model import Model
    from monolift.inference.results import Results3D

LOG = "detect.log"
READ_AHEAD = 2  # images at least that are read while the network runs
SHOWN_IN_FULL = 3  # with more images than this each gets a line instead of a table


@dataclass(frozen=True)
class Detect:
    """Detect 3D boxes in images, folders, videos and cameras; print and save them.

    monolift detect street.jpg --fov 70 --save image,json,kitti --out out
    """

    source: Annotated[tuple[str, ...], tyro.conf.Positional, option("SOURCE...")] = ()
    """Images, folders, globs, videos, cameras (0, 1, /dev/video0) or streams (rtsp://...)."""
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
    boxes: Annotated[Path | None, option("FILE-or-DIR")] = None
    """Lift these 2D boxes of another detector (--model roi10d): KITTI .txt or folder, COCO JSON, JSON, CSV (docs/boxes.md)."""
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
    save: Annotated[str | None, option("FORMAT,...")] = None
    """Per image: image, json, kitti, html, glb, omni3d. Per video: video, jsonl, tracking. none (default: image or video)."""
    track: bool = False
    """Track objects through videos and folders of frames: stable ids, smoothed boxes, velocities."""
    fps: Annotated[float, tyro.conf.arg(metavar="NUMBER")] = 10.0
    """Frames per second of folders of frames; videos state theirs."""
    camera_speed: Annotated[str | None, option("M/S|FILE|DIR")] = None
    """Velocities over ground: camera's speed in m/s, file of one per frame, or oxts folder (default: as seen from it)."""
    limit: Annotated[int | None, option("N")] = None
    """Maximum number of frames of each video, camera or stream (default: all; Ctrl+C ends a camera or stream)."""
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
    save = Save.parse(options.save)
    if not options.source:
        raise InputError(
            "nothing to look at: expected images, folders, globs or videos, as in `monolift detect street.jpg`"
        )
    if options.batch < 1:
        raise InputError(f"--batch: expected 1 or more, got {options.batch}")
    files = _files(options, save)
    from monolift.data.sources import is_video

    few = len(files) <= SHOWN_IN_FULL and set(map(str, files)) <= set(options.source)
    few = few and not any(map(is_video, files))
    with contextlib.ExitStack() as stack:
        if save or options.resume:
            check_writable(options.out)
            stack.enter_context(locked(options.out, "detect", shared=few and not options.resume))
        if options.json not in (None, "-"):
            check_file(Path(options.json))
        return _detect(options, save, files, few)


def _files(options: Detect, save: Save) -> list[Path | LiveSource]:
    """What to look at, in order. Raises InputError for options that do not go together."""
    from monolift.data.live import LiveSource
    from monolift.data.sources import expand, is_video

    if "tracking" in save.videos and not options.track:
        raise InputError("--save tracking: KITTI's tracking format has track ids: add --track")
    if options.camera_speed is not None and not options.track:
        raise InputError("--camera-speed: only tracked objects have a velocity: add --track")
    if not 0 < options.fps <= 1000:
        raise InputError(f"--fps: expected more than 0 and at most 1000, got {options.fps:g}")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit: expected 1 or more, got {options.limit}")
    files = [path for source in options.source for path in expand(source)]
    stills = [path for path in files if not isinstance(path, LiveSource) and not is_video(path)]
    if stills and (options.track or save.folders):
        if options.resume:
            raise InputError(
                "--resume does not go with --track or --save video, jsonl, tracking of images: a sequence is done as a whole"
            )
        from monolift.inference.sequences import frame_order

        order, known = iter(sorted(stills, key=frame_order)), set(stills)
        files = [next(order) if path in known else path for path in files]
    return files


def _detect(options: Detect, save: Save, files: list[Path | LiveSource], few: bool) -> int:
    """The job in an output folder that is this process's. few: some named images, a table each and no manifest."""
    from monolift.data.sources import is_video

    zooms = _zooms(options.zooms)
    model = _loaded(options, len(files))
    classes = _classes(options.classes, model.classes)
    _stream(model, options, zooms, [])  # a wrong option leaves no manifest
    keeps = options.resume or (bool(save) and not few)
    in_full = len(files) <= SHOWN_IN_FULL and not any(map(is_video, files))
    place = Manifest.path_in(options.out) if keeps else None
    depends_on = _depends_on(options, save, model, zooms) if keeps else {}
    manifest = Manifest(place, "detect", depends_on, options.resume)
    path = options.log or (options.out / LOG if keeps else None)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(contextlib.closing(Log(path))) if path else None
        with Progress(len(files), "files", options.quiet or in_full) as progress:
            report = Report(progress, options.quiet, options.json == "-", in_full, log)
            writer = Writer(options.out, save, options.fps, options.hints)
            job = DetectJob(writer, report, manifest, options.hints, options.json is not None, len(files))
            left = job.left(files)
            report.note(f"detect: {count(len(files), 'file')}, {len(files) - len(left)} done before; {model}")
            progress.advance(len(files) - len(left))
            try:
                resumed = "the same command with --resume continues" if keeps else ""
                with kept(lambda: job.images + job.skipped, len(files), resumed):
                    _detect_all(model, options, zooms, left, classes, job)
            except BaseException as error:  # whatever stops the job: what is done is reported
                writer.discard(error)
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
    files: list[Path | LiveSource],
    classes: list[str],
    job: DetectJob,
) -> None:
    """Detects in the files; another thread draws and encodes one image while the next is detected."""
    from monolift.data.live import LiveSource
    from monolift.inference.pipeline import Behind

    live = any(isinstance(path, LiveSource) for path in files)
    ends = contextlib.suppress(KeyboardInterrupt) if live else contextlib.nullcontext()
    with Behind(job.outcome) as write, ends:  # Ctrl+C is how one leaves a camera
        ahead = 0 if live else max(READ_AHEAD, options.batch)
        results = _stream(model, options, zooms, files, lambda source, error: write((source, error)), ahead)
        kept = (result.filter(classes=classes) for result in results)
        for result in _in_sequence(options, kept, job.writer.save):
            write(result)
    job.turn(None)


def _stream(
    model: Model,
    options: Detect,
    zooms: tuple[float, ...] | None,
    files: list[Path | LiveSource],
    on_error: Callable[[str, Exception], None] | None = None,
    read_ahead: int = 0,
) -> Iterator[Results3D]:
    """The results of the files. Raises InputError at once for options that cannot be used."""
    from monolift.data.formats.boxes2d import read_boxes2d

    return model.stream(
        files,
        options.camera,
        calib=options.calib,
        fov=options.fov,
        score=options.score,
        batch=options.batch,
        zooms=zooms,
        flip=options.flip,
        on_error=on_error,
        read_ahead=read_ahead,
        limit=options.limit,
        boxes=None if options.boxes is None else read_boxes2d(options.boxes),
    )


def _in_sequence(options: Detect, results: Iterator[Results3D], save: Save) -> Iterator[Results3D]:
    """The results with tracks, or with times where the output has them."""
    if options.track:
        from monolift.inference.motion import CameraMotion
        from monolift.inference.tracking import track

        motion = None if options.camera_speed is None else CameraMotion.read(options.camera_speed)
        return track(results, options.fps, motion=motion)
    if save.folders:
        from monolift.inference.sequences import timed

        return timed(results, options.fps)
    return results


def _depends_on(options: Detect, save: Save, model: Model, zooms: tuple[float, ...] | None) -> dict[str, Any]:
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
        "save": save.names,
        "json": options.json is not None,
        "hints": options.hints,
        **({} if options.boxes is None else {"boxes": str(options.boxes)}),
        **{k: getattr(options, k) for k in ("track", "camera_speed", "limit") if getattr(options, k)},
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
