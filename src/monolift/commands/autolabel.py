"""``monolift autolabel``: 3D boxes, shapes and textures without any 3D label."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.option import option
from monolift.errors import InputError
from monolift.files.progress import Progress

if TYPE_CHECKING:
    from monolift.autolabel import Job, Outcome
    from monolift.files.manifest import Manifest


@dataclass(frozen=True)
class Autolabel:
    """Label cars from instance masks and depth maps, without any 3D label (MonoDR).

    monolift autolabel --data world --masks world/training/instance_2 --depth world/training/depth_2 --out labels --limit 2
    """

    data: Annotated[Path, tyro.conf.arg(metavar="ROOT")]
    """Folder with image_2 and calib, or with training/ that has them; labels are not read."""
    masks: Annotated[str, tyro.conf.arg(metavar="DIR-or-FILE")]
    """Instance masks: a folder of NAME.png (ids, 8 or 16 bit) or NAME.npz, a COCO JSON file with RLE, or model:... ."""
    depth: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Depth maps: a folder of NAME.npy (metres) or NAME.png (16 bit, metres * 256, 0 = unknown), or model:... ."""
    out: Path
    """Output folder; rerun the same command to resume."""
    preset: str = "default"
    """default (faster, occlusion-aware) or paper (published constants, the detector's 2D boxes)."""
    decoder: Annotated[Path | None, option("FILE")] = None
    """Car generator, written by `monolift shapes build --kind textured` (default: the bundled one)."""
    foreground: Annotated[Path | None, option("DIR")] = None
    """Folder of foreground maps NAME.png, 0 for background (default: the union of the masks)."""
    settings: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")
    ] = ()
    """Override one setting of the method or of the selection (score, classes, min_height, min_pixels, box)."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids, one per line (default: all images that have masks and depth)."""
    score: float = 0.1
    """Score threshold on the 2D detections of the mask source."""
    depth_scale: Annotated[float | None, option("NUMBER")] = None
    """Metres per stored unit of the depth maps, for example 0.001 for millimetres (default: the file format's unit)."""
    motion: Annotated[Path | None, option("FILE")] = None
    """Scale of the depth maps from the car's velocity. Per line: metres driven between two frames, and metres predicted."""
    save: str = "kitti,json,glb,image"
    """Output formats, comma-separated: kitti, json, glb, image, animation."""
    limit: Annotated[int | None, option("N")] = None
    """Maximum number of images."""
    shard: Annotated[str | None, option("I/N")] = None
    """Shard index I of N, as in 1/8 to 8/8; all shards may write to one output folder."""
    workers: int = 1
    """Number of worker processes."""
    device: str = "auto"
    """Device on which objects are fitted: cpu, cuda, cuda:1 or auto."""
    seed: int = 0
    """Random seed of the initial angles and hypotheses."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print errors only."""


def run(options: Autolabel) -> int:
    """Label every image; report and skip images that cannot be used."""
    for name in ("workers", "limit"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise InputError(f"--{name}: expected 1 or more, got {getattr(options, name)}")
    from monolift import autolabel
    from monolift.commands.output import kept, write_json
    from monolift.files.manifest import Manifest
    from monolift.files.output_folder import locked

    job = _job(options)
    summary = _Summary(options.out)
    on_step = summary.fitting if options.workers == 1 else None
    with locked(options.out, "autolabel", options.shard or ""):
        total, outcomes = autolabel.run(
            job, options.split, options.shard, options.limit, options.workers, on_step
        )
        manifest = Manifest(Manifest.path_in(options.out, options.shard or ""), "autolabel", {}, resume=True)
        with (
            contextlib.closing(manifest),
            kept(lambda: summary.images + summary.skipped, total),
            Progress(total, "images", options.quiet) as progress,
        ):
            summary.progress = progress
            for outcome in outcomes:
                summary.add(outcome)
                _note(manifest, job, outcome)
            progress.say(str(summary))
    if options.json is not None:
        write_json(options.json, summary.to_dict())
    return 2 if summary.errors else 0


def _note(manifest: Manifest, job: Job, outcome: Outcome) -> None:
    """A line of an image that is done or failed; of one that was done before only where it has none yet."""
    from monolift.files.folders import find_file
    from monolift.files.images import IMAGE_SUFFIXES
    from monolift.files.manifest import DONE, FAILED

    image = find_file(job.root / "image_2", outcome.name, IMAGE_SUFFIXES)
    source = outcome.name if image is None else str(image)
    if outcome.error is not None:
        manifest.note(source, FAILED, error=outcome.error)
    elif not outcome.skipped:
        manifest.note(source, DONE, objects=outcome.objects)
    elif source not in manifest.earlier or manifest.earlier[source].status != DONE:
        manifest.note(source, DONE)


def _job(options: Autolabel) -> Job:
    from monolift.autolabel import SELECTIONS, Job
    from monolift.files.settings import apply_settings
    from monolift.inference.device import pick_device
    from monolift.methods.monodr import PRESETS

    presets: dict[str, Any] = dict(PRESETS)
    if options.preset not in presets:
        raise InputError(f"--preset: expected {' or '.join(presets)}, got {options.preset!r}")
    preset, selection = (
        presets[options.preset](),
        replace(SELECTIONS[options.preset](), score=options.score),
    )
    config, selection = apply_settings((preset, selection), options.settings)
    return Job(
        data=options.data,
        masks=options.masks,
        depth=options.depth,
        out=options.out,
        config=config,
        selection=selection,
        formats=tuple(dict.fromkeys(name.strip() for name in options.save.split(",") if name.strip())),
        depth_scale=options.depth_scale if options.motion is None else _scale_of_motion(options),
        seed=options.seed,
        decoder=options.decoder,
        foreground=options.foreground,
        device=pick_device(options.device),
    )


def _scale_of_motion(options: Autolabel) -> float:
    """Metres per stored unit, by the velocity."""
    import torch

    from monolift.files.text import read_text
    from monolift.methods.monodr.scale import velocity_scale

    assert options.motion is not None
    if options.depth_scale is not None:
        raise InputError(
            "--motion and --depth-scale both give the scale of the depth maps: expected one of them"
        )
    rows = []
    for number, line in enumerate(read_text(options.motion).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            moved, translation = (float(word) for word in words)
        except ValueError:
            raise InputError(
                f"{options.motion}:{number}: expected two numbers, metres driven and translation, got {line.strip()!r}"
            ) from None
        rows.append((moved, translation))
    try:
        return velocity_scale(*torch.tensor(rows, dtype=torch.float64).view(-1, 2).unbind(1))
    except InputError as error:
        raise InputError(f"{options.motion}: {error}") from None


class _Summary:
    """Counts and reports outcomes."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.images = self.objects = self.skipped = 0
        self.errors: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self.began = time.monotonic()
        self.progress: Progress | None = None

    @property
    def rate(self) -> float:
        """Objects per second."""
        return self.objects / max(time.monotonic() - self.began, 1e-9)

    def fitting(self, objects: int, done: int, to_do: int) -> None:
        if self.progress is not None:
            self.progress.advance(0, f"{self._so_far()}; fitting {objects}: {done}/{to_do}")

    def add(self, outcome: Outcome) -> None:
        assert self.progress is not None
        if outcome.error is not None:
            self.errors[outcome.name] = outcome.error
            self.progress.complain(f"monolift: {outcome.name}: {' '.join(outcome.error.split())}")
        self.skipped += outcome.skipped
        self.images += not outcome.skipped and outcome.error is None
        self.objects += outcome.objects
        self.left_out.update(why for _, why in outcome.dropped)
        self.progress.advance(1, self._so_far())

    def _so_far(self) -> str:
        return f"{self.objects} objects, {self.rate:.2f} objects/s"

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.objects} objects in {self.images} images, {self.rate:.2f} objects/s"]
        if self.skipped:
            lines.append(f"{self.skipped} images were there already")
        if self.left_out:
            reasons = ", ".join(f"{count} {why}" for why, count in self.left_out.most_common())
            lines.append(f"left out: {reasons}")
        if self.errors:
            lines.append(f"{len(self.errors)} images failed: {', '.join(sorted(self.errors)[:10])}")
        return "; ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "images": self.images,
            "objects": self.objects,
            "skipped": self.skipped,
            "objects_per_second": round(self.rate, 3),
            "left_out": dict(self.left_out.most_common()),
            "failed": dict(sorted(self.errors.items())),
        }
