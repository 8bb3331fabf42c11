"""``monolift train``: a detector on KITTI-format data, on one device or many."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from monolift.errors import InputError
from monolift.inference import zoo as model_zoo


@dataclass(frozen=True)
class Train:
    """Train a detector on KITTI-format folders (image_2, label_2, calib).

    monolift train smoke --data KITTI/training --split train.txt --val-split val.txt --out runs/smoke --set epochs=60
    """

    method: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")]
    """smoke, ss3d or roi10d."""
    out: Path
    """The run's folder: checkpoints last/ and best/, metrics.jsonl, results.csv, pictures/."""
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="ROOT...")]
    """KITTI folders; --split and --val-split belong to the first, further ones are used whole."""
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Training ids of the first folder, one per line; all of them without it."""
    val_split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Validation ids of the first folder; no validation without it."""
    preset: str = "default"
    """Configuration and recipe to start from: default, paper, and others that the method names (an unknown one lists them)."""
    settings: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")
    ] = ()
    """Change one value of configuration or recipe; may be given several times."""
    init: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Weights to start from: a bundled model's name, a checkpoint folder (of another method too: what fits is taken), or a
    file for the backbone alone."""
    resume: bool = False
    """Go on from OUT/last, to the same end as a run that was never interrupted."""
    devices: int = 1
    """Processes on this machine, one per GPU; under torchrun leave it at 1."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 0
    """Loader processes per device."""
    val_every: int = 5
    """Epochs between validations."""
    seed: int = 0
    """Of everything random."""
    quiet: bool = False
    """Only errors."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the best checkpoint lies, as JSON in this file, or on standard output with "-"."""


def run(options: Train) -> int:
    init = options.init
    if init is not None and str(init) in model_zoo.names():
        init = model_zoo.resolve(init)
    for path in (*options.data, options.split, options.val_split, init):
        if path is not None and not path.exists():
            bundled = f", nor a bundled model ({', '.join(model_zoo.names())})" if path is init else ""
            raise InputError(f"{path}: no such file or folder{bundled}")
    if options.devices < 1:
        raise InputError(f"--devices: expected 1 or more, got {options.devices}")
    if options.devices > 1 and "WORLD_SIZE" not in os.environ:
        return _on_several(options.devices)
    from monolift.commands.output import write_json
    from monolift.training.train import TrainOptions, train

    best = train(
        TrainOptions(
            method=options.method,
            data=options.data,
            out=options.out,
            preset=options.preset,
            split=options.split,
            val_split=options.val_split,
            settings=options.settings,
            init=init,
            seed=options.seed,
            device=options.device,
            workers=options.workers,
            val_every=options.val_every,
            resume=options.resume,
            quiet=options.quiet,
        )
    )
    if os.environ.get("RANK", "0") == "0":
        if options.json is not None:
            write_json(options.json, {"checkpoint": str(best)})
        if not options.quiet:
            sys.stderr.write(f"trained: {best}\ntry it: monolift detect PICTURE --model {best}\n")
    return 0


def _on_several(devices: int) -> int:
    """The same command line once per device, under torchrun, which sets WORLD_SIZE."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    return 1 if subprocess.run([*torchrun, "-m", "monolift", *sys.argv[1:]], check=False).returncode else 0
