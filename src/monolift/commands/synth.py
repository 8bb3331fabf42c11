"""``monolift synth``: driving scenes with exact labels, in KITTI's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monolift.errors import InputError


@dataclass(frozen=True)
class Synth:
    """Synthetic driving scenes with exact labels in KITTI's layout: ROOT/training/{image_2,label_2,calib}, ROOT/ImageSets.

    monolift synth --out world --images 100 --seed 1 --masks --depth --points --shapes
    """

    out: Path
    """The data set's folder; a run that was interrupted goes on here."""
    images: int = 100
    """How many images."""
    seed: int = 0
    """The same seed gives the same bytes."""
    width: int = 1242
    """Of the images, pixels."""
    height: int = 375
    """Of the images, pixels."""
    focal: float | None = None
    """Focal length in pixels; without it KITTI's field of view."""
    format: str = "jpg"
    """jpg or png."""
    masks: bool = False
    """Also instance masks, instance_2/ID.png: k + 1 for row k of the labels."""
    depth: bool = False
    """Also dense depth, depth_2/ID.png: metres times 256, 0 for the sky."""
    points: bool = False
    """Also a laser scanner's points, velodyne/ID.bin: float32 x, y, z, intensity, as KITTI's."""
    shapes: bool = False
    """Also shape and style of each car, cars_2/ID.json, by row of the labels."""
    workers: int = 1
    """Processes."""
    json: str | None = None
    """What was made, as JSON in this file, or on standard output with "-"."""
    quiet: bool = False
    """Only errors."""


def run(options: Synth) -> int:
    for name in ("images", "workers"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: expected 1 or more, got {getattr(options, name)}")
    from monolift.files.progress import Progress
    from monolift.world.synthetic import World, write_world

    world = World(
        seed=options.seed,
        width=options.width,
        height=options.height,
        focal=options.focal,
        image_format=options.format,
        masks=options.masks,
        depth=options.depth,
        points=options.points,
        shapes=options.shapes,
    )
    made = objects = 0
    with Progress(options.images, "images", options.quiet) as progress:
        for count in write_world(options.out, world, options.images, options.workers):
            made += count >= 0
            objects += max(count, 0)
            progress.advance(1, f"{objects} objects" if objects else "")
        kept = options.images - made
        found = f", {kept} were there already" if kept else ""
        progress.say(f"{options.out}: {made} images with {objects} objects made{found}")
    if options.json is not None:
        from monolift.commands.output import write_json

        write_json(options.json, {"out": str(options.out), "made": made, "kept": kept, "objects": objects})
    return 0
