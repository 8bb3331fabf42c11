"""Records of a training: the card in its checkpoints, and run.toml, which starts the same run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monolift.data.formats.kitti_format import write_split
from monolift.data.kitti import KittiDataset
from monolift.files.folders import write_atomically
from monolift.inference import zoo
from monolift.methods.base import DetectorConfig, Method
from monolift.methods.recipe import Recipe
from monolift.training.options import RunOptions, as_settings, described
from monolift.training.run_file import RunFile, format_run_file
from monolift.training.run_folder import DESCRIPTION, TRAIN_IDS, VAL_IDS
from monolift.training.state import data_name

HEAD = "# this training, as `monolift train --config FILE --out OUT` takes it\n"


@dataclass(frozen=True)
class Record:
    """One training; config and measured: before and after the data's statistics."""

    method: Method
    config: DetectorConfig
    measured: DetectorConfig
    recipe: Recipe
    parts: list[KittiDataset]
    val: KittiDataset | None
    options: RunOptions

    @property
    def card(self) -> dict[str, Any]:
        """For the checkpoints: names of data sets and splits (no paths), preset, settings, seed."""
        preset, changes = self._described
        return {
            "data": [data_name(part) for part in self.parts],
            "split": _name(self.options.split),
            "val_split": _name(self.options.val_split),
            "images": sum(map(len, self.parts)),
            "preset": preset,
            "settings": as_settings(changes),
            "init": _name(self.options.init),
            "seed": self.options.seed,
        }

    def write(self, out: Path) -> None:
        """Writes OUT/run.toml, and beside it the ids of splits that no file holds."""
        options = self.options
        preset, changes = self._described
        init = options.init
        run = RunFile(
            method=self.method.name,
            preset=preset,
            data=tuple(str(part.root.resolve()) for part in self.parts),
            split=_split_file(options.split, self.parts[0], out / TRAIN_IDS),
            val_split=_split_file(options.val_split, self.val, out / VAL_IDS),
            init=None if init is None else str(init if str(init) in zoo.names() else Path(init).resolve()),
            init_partial=options.init_partial or None,
            seed=options.seed,
            device=options.device,
            workers=options.workers,
            val_every=options.val_every,
            save_minutes=options.save_minutes,
            tensorboard=options.tensorboard,
            measure=options.measure,
            settings=changes,
        )
        write_atomically(out / DESCRIPTION, (HEAD + format_run_file(run)).encode())

    @property
    def _described(self) -> tuple[str, dict[str, Any]]:
        return described(self.method, self.config, self.measured, self.recipe, self.options.keep)


def _name(given: Any) -> str | None:
    """How a card names a file: without its folder; ids that were given as such are only counted."""
    if given is None:
        return None
    return Path(given).name if isinstance(given, str | Path) else f"{len(given)} ids"


def _split_file(given: Any, data: KittiDataset | None, path: Path) -> str | None:
    """The file of a data set's ids: the one that was given, or ``path``, written, unless they are all of the folder's."""
    if isinstance(given, str | Path):
        return str(Path(given).resolve())
    if data is None or (given is None and data.ids == KittiDataset(data.root).ids):
        return None
    write_split(path, data.ids)
    return str(path.resolve())
