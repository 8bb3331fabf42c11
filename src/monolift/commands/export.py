"""``monolift export``: a checkpoint as ONNX, written only if it agrees with PyTorch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.data.kitti import KittiDataset
    from monolift.export import CameraImage, Report
    from monolift.inference.model import Model

COMPARED, CALIBRATED = 8, 200  # images at most


@dataclass(frozen=True)
class Export:
    """Export a model to ONNX and check it against PyTorch.

    monolift export smoke --out smoke.onnx
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "smoke"
    """Bundled model, as listed by `monolift models`, or checkpoint folder."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.onnx")] = Path("model.onnx")
    """Output file, written only if it agrees with PyTorch."""
    images: Annotated[Path | None, option("FILE-or-DIR")] = None
    """Images to compare on: file, folder or glob (default: the bundled example)."""
    calib: Annotated[Path | None, option("FILE-or-DIR")] = None
    """KITTI calibration of --images (default: EXIF or an assumed camera, sufficient to compare)."""
    int8: bool = False
    """Quantise convolutions to 8 bits; needs --calibration, prints the cost in accuracy."""
    calibration: Annotated[Path | None, option("DIR")] = None
    """Calibration images for --int8: a folder of images or a KITTI folder."""
    ap_data: Annotated[Path | None, option("ROOT")] = None
    """KITTI folder on which the AP of both models is evaluated."""
    ap_split: Annotated[Path | None, option("FILE")] = None
    """Image ids of --ap-data, one per line (default: all)."""
    folder: Annotated[Path | None, option("DIR")] = None
    """Also write a deployment folder that needs neither torch nor monolift: model, runtime, script."""
    triton: Annotated[Path | None, option("DIR")] = None
    """Also write a Triton model repository."""
    json: Annotated[str | None, option("FILE")] = None
    """Write the comparison as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print neither progress nor table."""


def run(options: Export) -> int:
    if options.int8 and options.calibration is None:
        raise InputError(
            "--int8 needs --calibration DIR: typical images from which the ranges of the activations are taken"
        )
    if options.calibration is not None and not options.int8:
        raise InputError("--calibration is for --int8 only")
    if options.ap_split is not None and options.ap_data is None:
        raise InputError("--ap-split names ids of --ap-data ROOT, which is missing")
    from monolift.commands.output import write_json
    from monolift.export import export
    from monolift.export.folder import write_folder, write_triton
    from monolift.inference.model import load

    def say(text: str) -> None:
        if not options.quiet:
            sys.stderr.write(text + "\n")

    model = load(options.model, "cpu")
    calibration = None if options.calibration is None else _calibration(options.calibration)
    report = export(
        model, options.out, _images(model, options), calibration, _scored(options, calibration), say
    )
    if options.folder is not None:
        write_folder(report.path, options.folder)
    if options.triton is not None:
        write_triton(report.path, options.triton, options.out.stem)
    if options.json is not None:
        write_json(options.json, report.to_dict())
    if not options.quiet:
        _print(report, options)
    return 0


def _images(model: Model, options: Export) -> Sequence[CameraImage]:
    from monolift.data.cameras import CameraChoice
    from monolift.data.sources import expand, is_video, read_input_image
    from monolift.inference import zoo as model_zoo

    source, calib = options.images, options.calib
    if source is None:
        source, calib = model_zoo.EXAMPLE / "example.jpg", model_zoo.EXAMPLE / "calib.txt"
    choice = CameraChoice.of(calib=calib)
    files = [path for path in expand(source) if isinstance(path, Path) and not is_video(path)]
    images = []
    for path in _spread(files, COMPARED):
        photo = read_input_image(path)
        height, width = photo.image.shape[1:]
        images.append((photo.image, choice.for_image(photo.name, width, height, photo.film_mm).camera))
    return images


def _calibration(root: Path) -> Sequence[CameraImage]:
    """Evenly spread images of a folder; cameras do not matter for ranges."""
    from monolift.data.sources import expand, is_video, read_input_image
    from monolift.files.folders import dataset_root
    from monolift.geometry import Camera

    with contextlib.suppress(InputError):  # else a plain folder of images
        root = dataset_root(root, ("image_2",)) / "image_2"
    files = [path for path in expand(root) if isinstance(path, Path) and not is_video(path)]
    photos = [read_input_image(path) for path in _spread(files, CALIBRATED)]
    return [(p.image, Camera.from_fov(70, p.image.shape[2], p.image.shape[1])) for p in photos]


def _spread(files: Sequence[Path], most: int) -> Sequence[Path]:
    """At most so many of the files, evenly spread."""
    return files[:: max(1, len(files) // most)][:most]


def _scored(options: Export, calibration: Sequence[CameraImage] | None) -> KittiDataset | None:
    """The split to score: as given; for int8 without one, the calibration folder if it has labels."""
    from monolift.data.kitti import KittiDataset

    if options.ap_data is not None:
        return KittiDataset(options.ap_data, options.ap_split)
    if calibration is not None and options.calibration is not None:
        try:
            labelled = KittiDataset(options.calibration)
        except InputError:
            return None
        return KittiDataset(options.calibration, labelled.ids[:CALIBRATED])
    return None


def _print(report: Report, options: Export) -> None:
    from rich import box
    from rich.table import Table

    from monolift.commands.output import console

    found = report.agreement
    ours, theirs = found.seconds
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{report.path}, {report.megabytes:.1f} MB", title_justify="left"
    )
    table.add_column("compared with PyTorch")
    table.add_column("largest difference", justify="right")
    for name, error in found.raw.items():
        table.add_row(f"raw {name}", f"{error:.1e}")
    for name, value, unit in (
        ("centre", found.center, "m"),
        ("size", found.size, "m"),
        ("yaw", found.yaw, "rad"),
        ("score", found.score, ""),
    ):
        table.add_row(f"{name} of {found.boxes} boxes", f"{value:.1e} {unit}")
    table.add_row("boxes without partner", str(found.lost))
    table.add_row("network, s per image", f"{theirs:.3f} (PyTorch {ours:.3f})")
    screen = console()
    screen.print(table)
    for note in report.notes:
        screen.print(note)
    if report.ap:
        scores = Table(box=box.SIMPLE_HEAD, title="AP R40, percent, moderate", title_justify="left")
        for heading in ("class, metric, IoU", "PyTorch", "exported", "change"):
            scores.add_column(heading, justify="left" if heading.startswith("class") else "right")
        for key, (before, after) in report.ap.items():
            scores.add_row(key.replace("_", " "), f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}")
        screen.print(scores)
    elif options.int8:
        screen.print(
            "what int8 costs in AP was not measured: there are no labels; give --ap-data ROOT [--ap-split FILE]"
        )
