"""Training: one loop for every detector, on one process or many.

    train(TrainOptions(method="smoke", data=("KITTI",), out="runs/smoke", split="train.txt", val_split="val.txt"))

Under torchrun (or ``--devices N``) each process takes its share of every epoch and the gradients are averaged. Everything
random is drawn from (seed, epoch, picture), so a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from monolift.augment.augment import Augmentation, augment
from monolift.augment.cutouts import Cutout, cut_out
from monolift.augment.paste import PasteOptions, paste
from monolift.data.kitti import KittiDataset, training_folder
from monolift.data.sample import Sample
from monolift.errors import InputError, MissingExtraError
from monolift.files.progress import Progress
from monolift.inference import checkpoint
from monolift.methods import get_method
from monolift.methods.base import Method
from monolift.methods.recipe import Recipe
from monolift.training.optimizer import freeze, initialise, make_optimizer, origin
from monolift.training.options import apply_settings
from monolift.training.validate import draw_some, validate
from monolift.typing import Tensor

STATE_FILE = "trainer.pt"


@dataclass(frozen=True)
class TrainOptions:
    """One training run."""

    method: str
    """smoke, ss3d or roi10d."""
    data: tuple[str | Path, ...]
    """KITTI folders; the first is split, further ones are used whole for training."""
    out: str | Path
    """The run's folder: last/ and best/ checkpoints, metrics.jsonl, results.csv, pictures/."""
    preset: str = "default"
    """Configuration and recipe to start from; see the method's PRESETS."""
    split: str | Path | None = None
    """File of training ids of the first folder; everything without it."""
    val_split: str | Path | None = None
    """File of validation ids of the first folder; no validation without it."""
    settings: tuple[str, ...] = ()
    """key=value changes of the configuration or the recipe: ("epochs=20", "backbone=dla34", "augmentation.mirror=0")."""
    init: str | Path | None = None
    """Weights to start from: a checkpoint folder, or a backbone's file (.onnx YOLOX-nano, .safetensors, .pth)."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 0
    """Loader processes; 0 loads in the training process."""
    val_every: int = 5
    """Epochs between validations; the last epoch is always validated."""
    save_minutes: float = 5.0
    """A checkpoint is written at least this often, and after each epoch that took longer."""
    resume: bool = False
    """Go on from out/last."""
    tensorboard: bool = False
    """Also write TensorBoard events to out/tensorboard (extra monolift[tensorboard])."""
    quiet: bool = False
    """No progress."""


class Views(torch.utils.data.Dataset[tuple[Sample, Tensor]]):
    """Augmented network pictures of samples; what is random depends on (seed, epoch, index) alone."""

    def __init__(
        self,
        samples: Sequence[Sequence[Sample]],
        detector: Any,
        recipe: Recipe,
        seed: int,
        bank: Sequence[Cutout] = (),
    ) -> None:
        self.parts, self.bank = samples, bank
        self.places = [(part, k) for part, p in enumerate(samples) for k in range(len(p))]
        self.detector, self.recipe, self.seed = detector, recipe, seed

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: Any) -> tuple[Sample, Tensor]:
        epoch, index = key
        part, k = self.places[index]
        sample = self.parts[part][k]
        rng = np.random.default_rng((self.seed, epoch, index))
        view = self.detector.training_view(*sample.size)
        if self.bank and rng.random() < self.recipe.augmentation.paste:
            options = PasteOptions(up_to=self.recipe.augmentation.paste_up_to)
            sample = paste(sample, rng, self.bank, options)
        sample = augment(sample, view, self.recipe.augmentation, rng)
        return sample, self.detector.normalise(sample.image)


def batches(
    count: int, epoch: int, seed: int, size: int, rank: int, world: int, skip: int
) -> Iterator[list[Any]]:
    """Keys (epoch, index) of this process's batches of an epoch, all processes having equally many; the first
    ``skip`` are left out."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    per_step = size * world
    for start in range(skip * per_step, count - per_step + 1, per_step):
        share = order[start + rank * size : start + (rank + 1) * size]
        yield [(epoch, int(i)) for i in share]


def train(options: TrainOptions) -> Path:
    """Runs or resumes a training; returns the folder of the best checkpoint (the last without validation).

    Raises InputError for data or options that cannot be used, and FloatingPointError naming the pictures whose loss is not
    finite (the last checkpoint stays).
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = _device(options.device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(options.seed)
    run = _Run(options, device, rank, world)
    try:
        with run.progress:
            run.go()
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
    best = Path(options.out) / "best"
    return best if best.exists() else Path(options.out) / "last"


class _Run:
    """State of one training: what is saved is what is here."""

    def __init__(self, options: TrainOptions, device: torch.device, rank: int, world: int) -> None:
        self.options, self.device, self.rank, self.world = options, device, rank, world
        self.out = Path(options.out)
        self.epoch = self.step = self.done = 0  # done: steps of this epoch
        self.best = -1.0
        make = get_method(options.method)
        if options.preset not in make.presets:
            raise InputError(
                f"{options.method} preset must be one of {', '.join(make.presets)}, got {options.preset!r}"
            )
        first = _training_set(options.data[0], options.split, make)
        parts = [first] + [_training_set(root, None, make) for root in options.data[1:]]
        self.val = KittiDataset(options.data[0], options.val_split) if options.val_split else None
        if self.val and (leak := set(self.val.ids) & set(first.ids)):
            raise InputError(
                f"{len(leak)} pictures are in both splits, first {min(leak)}: validation would measure memory"
            )
        config, self.recipe = apply_settings(
            make.presets[options.preset](), make.recipes[options.preset], options.settings
        )
        state_path = self._state_path() if options.resume else None
        if state_path:
            self.detector = checkpoint.load(state_path.parent, str(device))
            began = self.detector.config
            if apply_settings(began, self.recipe, options.settings)[0] != began:
                raise InputError(
                    f"{state_path.parent}: was trained with another configuration: resume with its settings"
                )
        else:
            if options.preset not in make.fixed:
                labels = [p.labels(i) for p in parts for i in range(len(p))]
                keep = {setting.partition("=")[0].split(".")[0] for setting in options.settings}
                config = make.statistics(config, labels, keep & {f.name for f in dataclasses.fields(config)})
            self.detector = make.detector(config).to(device)
        self.average = _copy(self.detector, make) if self.recipe.ema else self.detector
        self.views = Views(parts, self.detector, self.recipe, options.seed, self._bank(parts))
        self.origin = origin(options, len(self.views))
        self.per_epoch = len(self.views) // (self.recipe.batch_size * world)
        if not self.per_epoch:
            raise InputError(
                f"{len(self.views)} pictures do not fill one batch of {self.recipe.batch_size} x {world}"
            )
        self.total = self.per_epoch * self.recipe.epochs
        self.frozen = freeze(self.detector, self.recipe)
        self.optimizer = make_optimizer(self.detector, self.recipe)
        if state_path:
            self._restore(state_path)
        elif options.init:
            initialise(self.detector, options.init, self._some_pictures)
            self.average.load_state_dict(self.detector.state_dict())
        self.events = _events(self.out) if options.tensorboard and rank == 0 else None
        self.model = DistributedDataParallel(self.detector) if world > 1 else self.detector
        per_step = self.recipe.batch_size * world
        self.progress = Progress(
            self.total * per_step, "pictures", options.quiet or rank > 0, done=self.step * per_step
        )

    def go(self) -> None:
        saved = time.monotonic()
        while self.epoch < self.recipe.epochs:
            self.detector.train()
            for part in self.frozen:
                part.eval()  # or its norms would go on measuring
            sums: dict[str, float] = {}
            steps = 0  # of this epoch in this process: a resumed epoch has fewer
            for samples, images in self._loader():
                losses = self._step(samples, images)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
                steps += 1
                self.done += 1
                self.step += 1
                remark = f"epoch {self.epoch + 1}  loss {losses['total']:.3f}"
                self.progress.advance(self.recipe.batch_size * self.world, remark)
                if time.monotonic() - saved > 60 * self.options.save_minutes:
                    self._save("last")
                    saved = time.monotonic()
            row = {
                "epoch": self.epoch + 1,
                "step": self.step,
                **{k: v / steps for k, v in sums.items()},
            }
            self.epoch, self.done = self.epoch + 1, 0
            if self.epoch % self.options.val_every == 0 or self.epoch == self.recipe.epochs:
                row |= self._validate()
            if self.rank == 0:
                self._log(row)
            self._save("last")
            saved = time.monotonic()

    def _bank(self, parts: Sequence[KittiDataset]) -> list[Cutout]:
        """Cars of the training pictures to put into others, where the recipe asks for it; the same in every process."""
        augmentation = self.recipe.augmentation
        if not augmentation.paste:
            return []
        with Progress(sum(map(len, parts)), "pictures searched for cars", self.options.quiet) as progress:
            return cut_out(
                parts,
                augmentation.paste_masks or None,
                seed=self.options.seed,
                on_step=lambda found: progress.advance(1, f"{found} cut out"),
            )

    def _some_pictures(self) -> Tensor:
        """Sixteen or so of the pictures of an epoch, (b, 3, h, w)."""
        return torch.stack(
            [self.views[(0, i)][1] for i in range(0, len(self.views), max(1, len(self.views) // 16))]
        )

    def _loader(self) -> DataLoader[Any]:
        keys = batches(
            len(self.views),
            self.epoch,
            self.options.seed,
            self.recipe.batch_size,
            self.rank,
            self.world,
            self.done,
        )
        workers = self.options.workers
        return DataLoader(
            self.views,
            batch_sampler=list(keys),
            collate_fn=_collate,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )

    def _step(self, samples: list[Sample], images: Tensor) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.recipe.rate(self.step / self.total)
        targets = self.detector.encode(samples).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            raw = self.model(images.to(self.device, non_blocking=True))
        losses = self.detector.loss(raw, targets)
        if not bool(torch.isfinite(losses["total"])):
            values = {k: float(v.detach()) for k, v in losses.items()}
            raise FloatingPointError(
                f"loss is not finite in epoch {self.epoch + 1}, pictures {', '.join(s.name for s in samples)}: {values}; "
                f"the last checkpoint is {self.out / 'last'}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(
                [p for p in self.detector.parameters() if p.requires_grad], self.recipe.clip
            )
        self.optimizer.step()
        self.detector.after_step()
        if self.recipe.ema:
            # a short memory at first: the average must not remember the untrained weights
            decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
            _average(self.average, self.detector, decay)
        return {k: float(v.detach()) for k, v in losses.items()}

    def _validate(self) -> dict[str, float]:
        """AP of the averaged weights on the validation split, computed by the first process; and a few pictures."""
        if self.rank:
            return {}
        self.average.eval()
        tag = f"epoch{self.epoch:03d}"
        if self.val is None:
            draw_some(self.average, self.views.parts[0], self.out / "pictures", tag)
            return {}
        scores = validate(self.average, self.val, self.out / "val", self.out / "pictures", tag)
        if scores["selection"] > self.best:
            self.best = scores["selection"]
            card = {
                "epoch": self.epoch,
                "score": scores["score"],
                "validation": scores,
                "training": self.origin,
            }
            checkpoint.save(self.out / "best", self.average, card)
        return scores

    def _log(self, row: dict[str, float]) -> None:
        self.progress.say("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        rows = [r for r in rows if r["epoch"] < row["epoch"]] + [
            row
        ]  # an epoch that is run again replaces its line
        _write(path, "".join(json.dumps(r) + "\n" for r in rows))
        names = list(dict.fromkeys(k for r in rows for k in r))
        partial = self.out / "results.csv.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self.out / "results.csv")
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["epoch"])
            self.events.flush()

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        """The trained weights as a checkpoint, with what resuming needs beside them; complete or not at all."""
        if self.rank:
            return
        new = checkpoint.save(
            self.out / (name + ".new"), self.detector, {"epoch": self.epoch, "training": self.origin}
        )
        state = {
            "epoch": self.epoch, "step": self.step, "done": self.done, "best": self.best, "seed": self.options.seed,
            "recipe": dataclasses.asdict(self.recipe),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.recipe.ema else {},
        }  # fmt: skip
        torch.save(state, new / STATE_FILE)
        checkpoint.replace_folder(new, self.out / name)

    def _state_path(self) -> Path | None:
        """Where to resume: last, or last.old if a kill hit the moment between two renames."""
        for name in ("last", "last.old"):
            path = self.out / name / STATE_FILE
            if path.exists():
                return path
        if self.out.exists() and any(self.out.iterdir()):
            raise InputError(f"{self.out}: nothing to resume: expected last/{STATE_FILE}")
        return None

    def _restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        recipe = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        began = json.loads(json.dumps(state["recipe"]))
        # settings that are younger than the run had no effect on it: their defaults
        began["augmentation"] = dataclasses.asdict(Augmentation()) | began["augmentation"]
        if json.loads(json.dumps(began)) != recipe or state["seed"] != self.options.seed:
            raise InputError(
                f"{path}: was trained with another recipe or seed: resume with the options it began with"
            )
        self.epoch, self.step, self.done, self.best = (state[k] for k in ("epoch", "step", "done", "best"))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.recipe.ema:
            self.average.load_state_dict(state["average"])


def _training_set(
    root: str | Path, split: str | Path | None, make: Method
) -> Any:  # a type check would read pictures
    """A data set with its depth maps where there are some and the method learns from them."""
    depth = make.learns_depth and (training_folder(root) / "depth_2").is_dir()
    return KittiDataset(root, split, depth=depth)


def _collate(pairs: list[tuple[Sample, Tensor]]) -> tuple[list[Sample], Tensor]:
    # the uint8 pictures have done their work: a sample of one pixel row is all that has to cross processes
    samples = [dataclasses.replace(s, image=s.image[:, :1, :1].expand_as(s.image)) for s, _ in pairs]
    return samples, torch.stack([image for _, image in pairs])


def _copy(detector: Any, make: Method) -> Any:
    twin = make.detector(detector.config).to(next(detector.parameters()).device)
    twin.load_state_dict(detector.state_dict())
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    new = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError("device cuda: this torch sees no GPU; use --device cpu")
        index = int(os.environ.get("LOCAL_RANK", 0)) if name == "cuda" else torch.device(name).index or 0
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device(name)


def _events(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard=True", "tensorboard") from error
    return SummaryWriter(str(out / "tensorboard"))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
