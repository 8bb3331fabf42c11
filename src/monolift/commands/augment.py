"""``monolift augment``: ROI-10D's synthetic 3D augmentation as a data set."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from monolift.commands.option import option
from monolift.errors import InputError

if TYPE_CHECKING:
    from monolift.augment.pasted_files import PastedSet
    from monolift.data.kitti import KittiDataset


@dataclass(frozen=True)
class Augment:
    """Paste cars into labelled images: ROI-10D's synthetic 3D augmentation.

    monolift augment --data KITTI --split train.txt --out pasted --copies 2
    """

    data: Annotated[Path, tyro.conf.arg(metavar="ROOT")]
    """KITTI folder whose cars are cut out and pasted into its images."""
    out: Path
    """Output folder of the new data set; rerun the same command to resume."""
    split: Annotated[Path | None, option("FILE")] = None
    """Image ids to use, one per line (default: all). Give the training ids, or validation images leak into training."""
    masks: Annotated[Path | None, option("DIR")] = None
    """Folder of instance masks ID.png (default: instance_2 of the data set, else silhouettes of the shape space)."""
    copies: int = 1
    """Augmented copies per image."""
    per_image: int = 3
    """Maximum number of cars pasted into one image."""
    bank: int = 140
    """Number of cars to cut out."""
    device: str = "auto"
    """Device on which cars are rendered: cpu, cuda, cuda:1 or auto."""
    seed: int = 0
    """Random seed; the same seed gives the same files."""
    json: Annotated[str | None, option("FILE")] = None
    """Write a summary as JSON to FILE, or to standard output with "-"."""
    quiet: bool = False
    """Print errors only."""


def run(options: Augment) -> int:
    for name in ("copies", "per_image", "bank"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}: expected 1 or more, got {getattr(options, name)}")
    if options.seed < 0:
        raise InputError(f"--seed: expected 0 or more, got {options.seed}")
    from monolift.inference.device import pick_device

    device = pick_device(options.device)
    for path in (options.data, options.split, options.masks):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    from monolift.augment.pasted_files import PastedSet, claim
    from monolift.commands.output import write_json
    from monolift.data.kitti import KittiDataset, training_folder
    from monolift.files.output_folder import locked

    root = training_folder(options.data)
    maps = {
        name: (root / f"{folder}_2").is_dir()
        for name, folder in (("depth", "depth"), ("instances", "instance"))
    }
    data = KittiDataset(root, options.split, **maps)
    made_from = PastedSet(
        source=options.data.name,
        masks="" if options.masks is None else options.masks.name,
        split="" if options.split is None else options.split.name,
        seed=options.seed,
        copies=options.copies,
        up_to=options.per_image,
        bank=options.bank,
    )
    failed: dict[str, str] = {}  # reason by id
    with locked(options.out, "augment"):
        claim(options.out, made_from, data)  # before the long search
        content = _write(options, data, made_from, failed, device)
    if options.json is not None:
        write_json(options.json, content)
    for reason in failed.values():
        sys.stderr.write(f"monolift: {reason}\n")
    if failed:
        sys.stderr.write(f"monolift: {len(failed)} images cannot be read and are left out\n")
    return 2 if failed else 0


def _write(
    options: Augment, data: KittiDataset, made_from: PastedSet, failed: dict[str, str], device: str
) -> dict[str, Any]:
    """Cuts cars out and writes the images that are not there yet; what --json says. ``failed`` takes reasons by id."""
    from monolift.augment.cutouts import CutoutLimits, cut_out
    from monolift.augment.pasted_files import names_of, write_pasted
    from monolift.commands.output import kept
    from monolift.files.progress import Progress

    with Progress(len(data), "images searched for cars", options.quiet) as progress:
        bank = cut_out(
            [data],
            options.masks,
            CutoutLimits(most=options.bank),
            seed=options.seed,
            on_step=lambda found: progress.advance(1, f"{found} cut out"),
            on_fault=failed.setdefault,
        )
        progress.say(f"{len(bank)} cars cut out")
    made = pasted = there = 0
    total = len(names_of(data, options.copies))
    with kept(lambda: made + there, total), Progress(total, "images", options.quiet) as progress:
        for count in write_pasted(options.out, data, bank, made_from, failed.setdefault, device):
            made += count >= 0
            there += count < 0
            pasted += max(count, 0)
            progress.advance(1, f"{pasted} cars" if pasted else "")
        found = f", {there} were there already" if there else ""
        progress.say(f"{options.out}: {made} images with {pasted} pasted cars made{found}")
    content = {
        "out": str(options.out),
        "made": made,
        "kept": there,
        "cut_out": len(bank),
        "pasted": pasted,
    }
    return {**content, "failed": dict(failed)} if failed else content
