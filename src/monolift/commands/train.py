"""``monolift train``: a detector on KITTI-format data, on one device or many."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from monolift.commands.option import option
from monolift.commands.processes import run_on_several
from monolift.errors import InputError
from monolift.files.settings import show
from monolift.methods import method_names
from monolift.training.run_file import RunFile, read_run_file

MOST_DEVICES = 64


@dataclass(frozen=True)
class Train:
    """Train a detector; `monolift train METHOD --help` lists a method's settings.

    monolift train smoke --data KITTI/training --split train.txt --val-split val.txt --out runs/smoke --set epochs=60
    """

    method: Annotated[str, tyro.conf.Positional, option("METHOD")] = ""
    """smoke, ss3d or roi10d; required unless --config names it."""
    out: Annotated[Path | None, option("DIR")] = None
    """Run folder (required): checkpoints last/ and best/, metrics.jsonl, results.csv, run.toml, images/."""
    data: Annotated[tuple[Path, ...], option("ROOT...")] = ()
    """KITTI folders (required). --split and --val-split apply to the first; additional data sets are used in full."""
    config: Annotated[Path | None, option("FILE")] = None
    """Run configuration, TOML or YAML, such as a run folder's run.toml; options override it."""
    split: Annotated[Path | None, option("FILE")] = None
    """Training image ids of the first folder, one per line (default: all)."""
    val_split: Annotated[Path | None, option("FILE")] = None
    """Validation image ids of the first folder (default: no validation)."""
    preset: str = "default"
    """Preset configuration and recipe: default, paper, or another of the method."""
    settings: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")
    ] = ()
    """Override one setting of the method."""
    init: Annotated[Path | None, option("PATH")] = None
    """Pretrained weights: bundled model, checkpoint folder (any method: matching layers), backbone or released SMOKE file."""
    init_partial: bool = False
    """Accept a checkpoint that matches less than half of the weights (of another method: of the backbone's)."""
    resume: bool = False
    """Resume from OUT/last (bit-exact)."""
    overwrite: bool = False
    """Overwrite the run in OUT."""
    devices: int = 1
    """Number of local processes, one per GPU; keep 1 under torchrun."""
    device: str = "auto"
    """Device: cpu, cuda or auto."""
    workers: int = 0
    """Data loader workers per device."""
    val_every: int = 5
    """Epochs between validations."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; each epoch also ends with one."""
    seed: int = 0
    """Random seed."""
    tensorboard: bool = False
    """Also write TensorBoard events to OUT/tensorboard."""
    quiet: bool = False
    """Print warnings and errors only."""
    json: Annotated[str | None, option("FILE")] = None
    """Write the path of the best checkpoint as JSON to FILE, or to standard output with "-"."""


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
        found = "a folder" if options.config.is_dir() else "no such file"
        raise InputError(f"{options.config}: expected a run configuration (TOML, YAML or JSON), got {found}")
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
