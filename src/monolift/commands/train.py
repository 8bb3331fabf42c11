"""``monolift train``: a detector on KITTI-format data, on one device or many."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from monolift.commands.processes import run_on_several
from monolift.errors import InputError
from monolift.files.settings import show
from monolift.methods import method_names
from monolift.training.run_file import RunFile, read_run_file

MOST_DEVICES = 64


@dataclass(frozen=True)
class Train:
    """Train a detector on KITTI-format folders (image_2, label_2, calib). `monolift train METHOD --help` lists its settings.

    monolift train smoke --data KITTI/training --split train.txt --val-split val.txt --out runs/smoke --set epochs=60
    """

    method: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="METHOD")] = ""
    """smoke, ss3d or roi10d; needed unless --config names it."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder, needed: checkpoints last/ and best/, metrics.jsonl, results.csv, run.toml, images/."""
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="ROOT...")] = ()
    """KITTI folders, needed; --split and --val-split belong to the first, further ones are used whole."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A run as TOML or YAML, such as the run.toml of every run folder; options override it."""
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Training ids of the first folder, one per line; all of them without it."""
    val_split: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Validation ids of the first folder; no validation without it."""
    preset: str = "default"
    """Configuration and recipe to start from: default, paper, and others of the method."""
    settings: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")
    ] = ()
    """Change one setting of the method; may be given several times."""
    init: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Weights to start from: a bundled model's name, a checkpoint folder (of another method too: what fits is taken), or a
    file for the backbone alone. The run reports what was taken."""
    init_partial: bool = False
    """Accept a checkpoint that fills less than half of the weights (of another method: of the backbone's)."""
    resume: bool = False
    """Continue from OUT/last, to the same end as a run that was never interrupted."""
    overwrite: bool = False
    """Replace the run that is in OUT."""
    devices: int = 1
    """Processes on this machine, one per GPU; under torchrun leave it at 1."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 0
    """Loader processes per device."""
    val_every: int = 5
    """Epochs between validations."""
    save_minutes: float = 5.0
    """A checkpoint is written at least this often, and after each epoch."""
    seed: int = 0
    """Random seed."""
    tensorboard: bool = False
    """Also write events to OUT/tensorboard."""
    quiet: bool = False
    """Only warnings and errors."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the best checkpoint lies, as JSON in this file, or on standard output with "-"."""


def defaults(arguments: Sequence[str]) -> Train:
    """The options' defaults: those of the file that ``--config`` names, where it is given."""
    path = None
    for k, word in enumerate(arguments):
        if word == "--config" and k + 1 < len(arguments):
            path = arguments[k + 1]
        elif word.startswith("--config="):
            path = word.partition("=")[2]
    # a file that is not there is named by `run`
    return _of_file(read_run_file(path)) if path is not None and Path(path).is_file() else Train()


def _of_file(run: RunFile) -> Train:
    given = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("settings", "measure")}
    given = {name: value for name, value in given.items() if value is not None}
    paths: dict[str, Any] = {
        name: Path(given[name]) for name in ("out", "split", "val_split", "init") if name in given
    }
    changed: dict[str, Any] = {**given, **paths, "data": tuple(map(Path, run.data))}
    return replace(Train(), **changed)


def page(arguments: Sequence[str]) -> str | None:
    """The help of one method's settings, where the arguments ask for it."""
    if arguments and {"-h", "--help"} & set(arguments) and arguments[0] in method_names():
        from monolift.commands.settings_page import settings_page

        return settings_page(arguments[0])
    return None


def run(options: Train) -> int:
    if options.config is not None and not options.config.is_file():
        raise InputError(f"{options.config}: no such file")
    if options.method not in method_names():
        said = show(options.method) if options.method else "none"
        raise InputError(f"METHOD: expected one of {', '.join(method_names())}, got {said}")
    if not options.data:
        raise InputError("--data: expected at least one KITTI folder (image_2, label_2, calib), got none")
    if options.out is None:
        raise InputError("--out: expected the folder of the run, got none")
    for path in (*options.data, options.split, options.val_split):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if not 1 <= options.devices <= MOST_DEVICES:
        raise InputError(f"--devices: expected 1 to {MOST_DEVICES}, got {options.devices}")
    if options.devices > 1 and "WORLD_SIZE" not in os.environ:
        return run_on_several(options.devices, sys.argv[1:])
    best = _train(options, options.out)
    if os.environ.get("RANK", "0") == "0":
        if options.json is not None:
            from monolift.commands.output import write_json

            write_json(options.json, {"checkpoint": str(best)})
        if not options.quiet:
            sys.stderr.write(f"trained: {best}\ntry it: monolift detect IMAGE --model {best}\n")
    return 0


def _train(options: Train, out: Path) -> Path:
    from monolift.methods import get_method
    from monolift.training.options import choose
    from monolift.training.train import train

    file = RunFile() if options.config is None else read_run_file(options.config)
    method = get_method(options.method)
    chosen = choose(method, options.preset, file.settings, options.settings, str(options.config))
    return train(
        chosen.config,
        chosen.recipe,
        options.data,
        out,
        split=options.split,
        val_split=options.val_split,
        keep=chosen.keep,
        measure=chosen.measure if file.measure is None else file.measure,
        init=options.init,
        init_partial=options.init_partial,
        seed=options.seed,
        device=options.device,
        workers=options.workers,
        val_every=options.val_every,
        save_minutes=options.save_minutes,
        resume=options.resume,
        overwrite=options.overwrite,
        tensorboard=options.tensorboard,
        quiet=options.quiet,
    )
