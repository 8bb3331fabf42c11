"""The state of a training beside its last checkpoint: what resuming needs, and whether it is the same training."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from monolift.augment.augmentation import Augmentation
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from monolift.files.folders import partial_folder, remove_folder
from monolift.files.settings import as_setting, changed, differences
from monolift.inference import checkpoint
from monolift.methods.base import Detector
from monolift.methods.recipe import Recipe
from monolift.training.optimizer import Average

STATE_FILE = "trainer.pt"
LAST, PREVIOUS = "last", "last.old"


@dataclass
class State:
    """How far a training is.

    Attributes:
        epoch: epochs done
        step: steps done in all
        done: steps done of the present epoch
        best: its best selection score
        sums: of each named loss over ``summed`` steps of the present epoch
    """

    epoch: int = 0
    step: int = 0
    done: int = 0
    best: float = -1.0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0

    def count(self, losses: dict[str, float]) -> None:
        """Takes one more step in, and its losses, or those of the step before it."""
        self.add(losses)
        self.step += 1
        self.done += 1
        self.summed += 1

    def add(self, losses: dict[str, float]) -> None:
        """Takes losses of a counted step in."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def next_epoch(self) -> None:
        """The present epoch is done."""
        self.epoch, self.done, self.sums, self.summed = self.epoch + 1, 0, {}, 0


@dataclass(frozen=True)
class Identity:
    """What must be the same for a resumed training to end as one that was never interrupted.

    parts, val: name, number of images and hash of the ids of each data set; seed, processes, recipe: of the training
    """

    parts: list[list[Any]]
    val: list[Any]
    processes: int
    seed: int
    recipe: Recipe

    @classmethod
    def of(
        cls,
        parts: Sequence[KittiDataset],
        val: KittiDataset | None,
        processes: int,
        seed: int,
        recipe: Recipe,
    ) -> Identity:
        """Of the training that is to begin or to be resumed."""
        return cls(
            [_fingerprint(p) for p in parts], _fingerprint(val) if val else [], processes, seed, recipe
        )

    def compare(self, saved: dict[str, Any], where: Path) -> None:
        """Raises InputError, naming the option to change, where ``saved`` is of another training. Older runs say less."""
        problems = []
        if saved["seed"] != self.seed:
            problems.append(f"seed was {saved['seed']}, is {self.seed}: resume with --seed {saved['seed']}")
        # settings that are younger than the run had no effect on it: their defaults
        before = dict(saved["recipe"])
        before["augmentation"] = changed(Augmentation(), before["augmentation"], f"{where}: augmentation.")
        for name, (was, now) in differences(changed(Recipe(), before, f"{where}: "), self.recipe).items():
            problems.append(f"{name} was {was}, is {now}: resume with --set '{as_setting(name, was)}'")
        if problems:
            raise InputError(f"{where}: was trained with another recipe or seed: {'; '.join(problems)}{ANEW}")
        for kind, mine in (("parts", self.parts), ("val", [self.val])):
            others = saved.get(kind)
            others = [others] if kind == "val" and others is not None else others
            if others is not None and others != mine:
                what, option = (
                    ("data", "--data and --split") if kind == "parts" else ("validation data", "--val-split")
                )
                raise InputError(
                    f"{where}: was trained with other {what} ({_said(others)}; now {_said(mine)}): resume with the "
                    f"{option} it began with{ANEW}"
                )
        if saved.get("processes", self.processes) != self.processes:
            raise InputError(
                f"{where}: was trained by {saved['processes']} processes, now there are {self.processes}: resume with "
                f"--devices {saved['processes']}{ANEW}"
            )


ANEW = "; or begin anew with --overwrite"


def data_name(data: KittiDataset) -> str:
    """The name of a data set's folder, without its path."""
    folder = data.root.resolve()
    return folder.parent.name if folder.name == "training" else folder.name


def _fingerprint(data: KittiDataset) -> list[Any]:
    return [data_name(data), len(data), hashlib.sha256("\n".join(data.ids).encode()).hexdigest()[:16]]


def _said(parts: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{p[1]} images of {p[0]}, ids {p[2]}" if p else "none" for p in parts)


# -- saving -----------------------------------------------------------------------------------------------------------


def save_last(
    out: Path,
    state: State,
    detector: Detector,
    average: Average,
    optimizer: torch.optim.Optimizer,
    identity: Identity,
    card: dict[str, Any],
) -> None:
    """Writes OUT/last, the trained weights with what resuming needs beside them, complete or not at all.

    The one before it stays as OUT/last.old until `tidy`.
    """
    content = {
        **dataclasses.asdict(state),
        **{f.name: getattr(identity, f.name) for f in dataclasses.fields(identity)},
        "recipe": dataclasses.asdict(identity.recipe),
        "optimizer": optimizer.state_dict(),
        "average": average.detector.state_dict() if average.decay else {},
    }
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a traceback
    torch.save(content, buffer)
    with partial_folder(out / LAST, keep=True) as new:
        checkpoint.write(new, detector, {"epoch": state.epoch, "training": card})
        (new / STATE_FILE).write_bytes(buffer.getbuffer())


def tidy(out: Path) -> None:
    """Removes the state before the last one, once a training has ended."""
    if (out / LAST / STATE_FILE).is_file():
        remove_folder(out / PREVIOUS)


# -- resuming ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """A state that was read from disk, and the detector of the checkpoint beside it."""

    path: Path
    detector: Detector
    content: dict[str, Any]

    @property
    def state(self) -> State:
        """How far that training was."""
        names = [f.name for f in dataclasses.fields(State)]
        return State(**{name: self.content[name] for name in names if name in self.content})


def read_saved(out: Path, device: torch.device) -> tuple[Saved | None, list[str]]:
    """The newest state of OUT that can be read, None where nothing was saved yet, and what is wrong with newer ones.

    Raises:
        InputError: where all that are there are damaged, or where the folder holds something else.
    """
    damaged: list[str] = []
    for name in (LAST, PREVIOUS):
        path = out / name / STATE_FILE
        if (out / name).is_dir():
            try:
                detector = checkpoint.load(out / name, str(device))
                if not all_finite(detector.state_dict()):
                    raise InputError(f"{out / name}: damaged: weights that are not finite")
                return Saved(path, detector, _read(path, device)), damaged
            except InputError as error:
                damaged.append(str(error))
    if damaged:
        raise InputError(
            f"{'; '.join(damaged)}: nothing to resume: begin anew with --overwrite, or in another folder from the last weights "
            f"with --init {out / LAST}"
        )
    return None, damaged


def all_finite(tree: Any) -> bool:
    """Whether all numbers in nested dictionaries and lists of tensors are finite."""
    if isinstance(tree, torch.Tensor):
        return not tree.is_floating_point() or bool(torch.isfinite(tree).all())
    if isinstance(tree, dict):
        return all(map(all_finite, tree.values()))
    return not isinstance(tree, list | tuple) or all(map(all_finite, tree))


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: missing, the training state beside these weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused
            content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # of a cut, empty or foreign file torch raises a dozen kinds
        raise InputError(f"{path}: damaged, not a training state ({type(error).__name__})") from None
    numbers, tables = ("epoch", "step", "done", "seed", "best"), ("recipe", "optimizer", "average")
    for name in (*numbers, *tables):
        found = content.get(name) if isinstance(content, dict) else None
        if not isinstance(found, dict if name in tables else int | float):
            raise InputError(f"{path}: damaged, not a training state (no {name})")
    if not isinstance(content["recipe"].get("augmentation"), dict):
        raise InputError(f"{path}: damaged, not a training state (no augmentation)")
    return dict(content)


def restore(
    saved: Saved, detector: Detector, average: Average, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> State:
    """Puts weights, averaged weights and the optimiser's state in their places; returns how far the training was.

    Raises:
        InputError: where they do not fit, or where an epoch then had another number of steps.
    """
    state, path = saved.state, saved.path
    if state.step != state.epoch * steps_per_epoch + state.done:
        raise InputError(
            f"{path}: is at step {state.step} after {state.epoch} epochs and {state.done} steps, which are not "
            f"{steps_per_epoch} steps an epoch: resume with the data, split and number of processes it began with{ANEW}"
        )
    detector.load_state_dict(saved.detector.state_dict())
    try:
        optimizer.load_state_dict(saved.content["optimizer"])
        if average.decay:
            average.detector.load_state_dict(saved.content["average"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: its optimiser state or averaged weights do not fit this training ({reason})"
        ) from None
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            kept = optimizer.state.get(parameter, {})
            if any(
                isinstance(v, torch.Tensor) and v.ndim and v.shape != parameter.shape for v in kept.values()
            ):
                raise InputError(f"{path}: its optimiser state is of other weights")
    return state


def compare_config(given: Any, measured: Any, saved: Saved) -> None:
    """Raises InputError, naming the settings, where the checkpoint has another configuration than is asked for.

    Fields that are measured on the data, in which ``measured`` is not ``given``, may differ in their last digits.
    """
    was = saved.detector.config
    if type(was) is not type(given):
        raise InputError(
            f"{saved.path.parent}: is a training of {saved.detector.method}, which needs another configuration: "
            f"resume with it{ANEW}"
        )
    free = set(differences(given, measured))
    problems = [
        f"{name} was {old}, is {new}: resume with --set '{as_setting(name, old)}'"
        for name, (old, new) in differences(was, measured).items()
        if not (name in free and _close(old, new))
    ]
    if problems:
        raise InputError(
            f"{saved.path.parent}: was trained with another configuration: {'; '.join(problems)}{ANEW}"
        )


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    return math.isclose(one, other, rel_tol=1e-4) if isinstance(one, int | float) else bool(one == other)
