"""``monolift convert``: data sets of other formats as KITTI folders, and back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from monolift.errors import InputError


@dataclass(frozen=True)
class Convert:
    """KITTI folders, nuScenes folders, Omni3D and COCO files: each as a KITTI folder, an Omni3D file or a COCO file.

    monolift convert nuscenes --to kitti --out nuscenes-kitti
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A KITTI or nuScenes folder, an Omni3D or COCO file; which one is told from what is there."""
    to: Literal["kitti", "omni3d", "coco"]
    """The format to write."""
    out: Path
    """A new folder for kitti (pictures are copied), a file for omni3d and coco (pictures stay where they are)."""
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Only these ids of a KITTI folder."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the picture paths in an Omni3D or COCO file start; by default beside the file."""
    channel: str = "CAM_FRONT"
    """Camera of a nuScenes folder."""
    version: Annotated[str | None, tyro.conf.arg(metavar="v1.0-...")] = None
    """Tables of a nuScenes folder that has several."""
    camera: Annotated[str | None, tyro.conf.arg(metavar="FX,FY,CX,CY")] = None
    """For data sets that know no cameras: intrinsics in pixels."""
    fov: Annotated[float | None, tyro.conf.arg(metavar="DEGREES")] = None
    """For data sets that know no cameras: horizontal field of view."""
    rename: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OLD=NEW")] = ()
    """Another name for a class, person=Pedestrian; may be given several times. DontCare as the new name makes it a region
    to ignore."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """What was written, as JSON in this file, or on standard output with "-"."""
    quiet: bool = False
    """Only warnings and errors."""


def run(options: Convert) -> int:
    """Raises InputError for sources that cannot be read and an --out that is there already."""
    from monolift.commands.output import write_json
    from monolift.data.cameras import CameraChoice
    from monolift.data.formats.convert import convert, open_dataset
    from monolift.files.progress import Progress

    rename = dict(_pair(text) for text in options.rename)
    given = options.camera is not None or options.fov is not None
    choice = CameraChoice.of(options.camera, None, options.fov) if given else None
    dataset = open_dataset(options.source, options.split, options.images, options.version, options.channel)
    with Progress(len(dataset), "pictures", options.quiet) as progress:
        done = convert(
            dataset,
            options.to,
            options.out,
            camera=choice,
            rename=rename,
            advance=lambda frame: progress.advance(1, frame.name),
        )
        progress.say(f"{done.out}: {done.frames} pictures with {done.objects} objects and regions")
    for warning in done.warnings:  # also when quiet
        sys.stderr.write(f"monolift: warning: {warning}\n")
    if options.json is not None:
        write_json(
            options.json,
            {
                "out": str(done.out),
                "pictures": done.frames,
                "objects": done.objects,
                "warnings": list(done.warnings),
            },
        )
    return 0


def _pair(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not (separator and old.strip() and new.strip()):
        raise InputError(f"--rename: expected OLD=NEW, got {text!r}")
    return old.strip(), new.strip()
