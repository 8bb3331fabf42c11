"""``monolift synth``: driving scenes with exact labels, in KITTI's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from monolift.commands.option import option
from monolift.errors import InputError


@dataclass(frozen=True)
class Synth:
    """Render synthetic driving scenes with exact labels, in KITTI's folder layout.

    monolift synth --out world --images 100 --seed 1 --masks --depth --points --shapes
    """

    out: Path
    """Output folder; rerun the same command to resume."""
    images: int = 100
    """Number of images."""
    seed: int = 0
    """Random seed; the same seed gives the same bytes."""
    width: int = 1242
    """Image width in pixels."""
    height: int = 375
    """Image height in pixels."""
    focal: Annotated[float | None, option("NUMBER")] = None
    """Focal length in pixels (default: KITTI's field of view)."""
    format: str = "jpg"
    """Image format: jpg or png."""
    masks: bool = False
    """Also write instance masks, instance_2/ID.png: k + 1 for row k of the labels."""
    depth: bool = False
    """Also write dense depth maps, depth_2/ID.png: metres * 256, 0 for the sky."""
    points: bool = False
    """Also write LiDAR points, velodyne/ID.bin: float32 x, y, z, intensity, as KITTI."""
    shapes: bool = False
    """Also write shape and style of each car, cars_2/ID.json, by row of the labels."""
    workers: int = 1
    """Number of worker processes."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print errors only."""


def run(options: Synth) -> int:
    for name in ("images", "workers"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: expected 1 or more, got {getattr(options, name)}")
    from monolift.commands.output import kept, write_json
    from monolift.files.output_folder import locked
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
    made = objects = done = 0
    with (
        locked(options.out, "synth"),
        kept(lambda: done, options.images),
        Progress(options.images, "images", options.quiet) as progress,
    ):
        for count in write_world(options.out, world, options.images, options.workers):
            done += 1
            made += count >= 0
            objects += max(count, 0)
            progress.advance(1, f"{objects} objects" if objects else "")
        there = options.images - made
        found = f", {there} were there already" if there else ""
        progress.say(f"{options.out}: {made} images with {objects} objects made{found}")
    if options.json is not None:
        write_json(options.json, {"out": str(options.out), "made": made, "kept": there, "objects": objects})
    return 0
