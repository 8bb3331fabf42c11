"""``monolift convert``: data sets of other formats as KITTI folders, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

SHOWN = 20  # images that cannot be used


@dataclass(frozen=True)
class Convert:
    """Convert a KITTI, nuScenes, Omni3D or COCO data set to KITTI, Omni3D or COCO.

    monolift convert nuscenes --to kitti --out nuscenes-kitti
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """KITTI or nuScenes folder, Omni3D or COCO file; the format is detected."""
    to: Literal["kitti", "omni3d", "coco", "depth", "instances"]
    """Output format. depth: depth maps from a KITTI folder's LiDAR. instances: instance maps by label row, from --masks."""
    out: Path
    """Output folder for kitti, depth and instances; output file for omni3d and coco, which refer to the images."""
    masks: Annotated[Path | None, option("PATH")] = None
    """For instances: instance masks of a detector, as COCO JSON, NAME.png or NAME.npz."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids of a KITTI folder, one per line (default: all)."""
    images: Annotated[Path | None, option("DIR")] = None
    """Folder that image paths of an Omni3D or COCO file are relative to (default: the file's folder)."""
    channel: str = "CAM_FRONT"
    """nuScenes camera channel."""
    version: Annotated[str | None, option("v1.0-...")] = None
    """nuScenes version, where the folder has several."""
    scenes: Annotated[str | None, option("NAMES")] = None
    """nuScenes scenes to convert, comma-separated: scene-0061,scene-0103 (default: all)."""
    skip_missing: bool = False
    """Skip missing images instead of failing (always on for nuScenes)."""
    camera: Annotated[str | None, option("FX,FY,CX,CY")] = None
    """Camera intrinsics in pixels, for data sets without cameras."""
    fov: Annotated[float | None, option("DEGREES")] = None
    """Horizontal field of view in degrees, for data sets without cameras."""
    rename: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="OLD=NEW")] = ()
    """Rename a class, as in person=Pedestrian. DontCare as the new name makes its objects ignore regions."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print warnings and errors only."""


def run(options: Convert) -> int:
    """Writes what can be read; images that cannot be used are named, and the exit code is 2.

    Raises InputError for sources that cannot be read at all and an --out that exists.
    """
    if options.to in ("depth", "instances"):
        return _maps(options)
    if options.masks is not None:
        raise InputError(f"--masks: belongs to --to instances, not to --to {options.to}")
    from monolift.commands.output import write_json
    from monolift.data.cameras import CameraChoice
    from monolift.data.formats.convert import convert, open_dataset
    from monolift.files.output_folder import locked_beside
    from monolift.files.progress import Progress

    rename = dict(_pair(text) for text in options.rename)
    given = options.camera is not None or options.fov is not None
    choice = CameraChoice.of(options.camera, None, options.fov) if given else None
    scenes = [name.strip() for name in (options.scenes or "").split(",") if name.strip()]
    dataset = open_dataset(
        options.source, options.split, options.images, options.version, options.channel, scenes
    )
    with (
        locked_beside(options.out, "convert"),
        Progress(len(dataset), "images", options.quiet) as progress,
    ):
        done = convert(
            dataset,
            options.to,
            options.out,
            camera=choice,
            rename=rename,
            advance=lambda frame: progress.advance(1, frame.name),
            skip_missing=options.skip_missing,
        )
        progress.say(f"{done.out}: {done.frames} images with {done.objects} objects and regions")
    for warning in done.warnings:  # also when quiet
        sys.stderr.write(f"monolift: warning: {warning}\n")
    _report(done.failed, options.json is not None)
    if options.skip_missing and done.missing:
        sys.stderr.write(
            f"monolift: {len(done.missing)} images are not there and left out, first {done.missing[0]}\n"
        )
    if options.json is not None:
        content = {
            "out": str(done.out),
            "images": done.frames,
            "objects": done.objects,
            "warnings": list(done.warnings),
        }
        if done.failed:
            content["failed"] = dict(done.failed)
        if done.missing:
            content["missing"] = list(done.missing)
        write_json(options.json, content)
    return 2 if done.failed else 0


def _maps(options: Convert) -> int:
    """Depth maps or maps of label rows beside a KITTI folder's images; images that cannot be used give exit code 2."""
    from monolift.commands.output import write_json
    from monolift.data.formats.maps import masked_ids, scanned_ids, write_depth_maps, write_instance_maps
    from monolift.data.formats.masks import open_masks
    from monolift.files.output_folder import locked_beside
    from monolift.files.progress import Progress

    if not options.source.is_dir():
        raise InputError(f"{options.source}: expected a KITTI folder, found none")
    if (options.to == "instances") != (options.masks is not None):
        raise InputError("--masks: expected with --to instances, and only there")
    source, split = options.source, options.split
    masks = None if options.masks is None else open_masks(options.masks)  # once: its JSON can be large
    names = scanned_ids(source, split) if masks is None else masked_ids(source, masks, split)
    with (
        locked_beside(options.out, "convert"),
        Progress(len(names), "images", options.quiet) as progress,
    ):

        def advance(name: str) -> None:
            progress.advance(1, name)

        if masks is not None:
            done = write_instance_maps(source, masks, options.out, names, advance)
        else:
            done = write_depth_maps(source, options.out, names, advance)
        objects = f" with {done.objects} label rows" if masks is not None else ""
        progress.say(f"{done.out}: {done.images} maps{objects}")
    _report(done.failed, options.json is not None)
    if options.json is not None:
        content = {"out": str(done.out), "images": done.images, "objects": done.objects}
        write_json(options.json, {**content, **({"failed": dict(done.failed)} if done.failed else {})})
    return 2 if done.failed else 0


def _report(failed: Sequence[tuple[str, str]], in_json: bool) -> None:
    """The images that are not in the output, each on a line of standard error."""
    for _, error in failed[:SHOWN]:
        sys.stderr.write(f"monolift: {' '.join(error.split())}\n")
    if failed:
        more = len(failed) - SHOWN
        rest = (
            f"; {more} more are " + ("in --json" if in_json else "listed by --json FILE") if more > 0 else ""
        )
        sys.stderr.write(f"monolift: {len(failed)} images cannot be used and are left out{rest}\n")


def _pair(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not (separator and old.strip() and new.strip()):
        raise InputError(f"--rename: expected OLD=NEW, got {text!r}")
    return old.strip(), new.strip()
