"""Training: one loop for every detector, on one process or many.

    from monolift.methods.smoke import RECIPES, SmokeConfig

    train(SmokeConfig(), RECIPES["default"], "KITTI", "runs/smoke", split="train.txt", val_split="val.txt")

Under torchrun (or ``--devices N``) each process takes its share of every epoch and the gradients are averaged. All that is
random is drawn from (seed, epoch, image) or (seed, step), so a run that is killed and resumed ends with the same weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from monolift.data.kitti import KittiDataset
from monolift.files.folders import recover
from monolift.files.output_folder import locked
from monolift.inference import checkpoint
from monolift.methods import method_of
from monolift.methods.base import Detector, DetectorConfig
from monolift.methods.recipe import Recipe
from monolift.training.data import Batch, Source, open_data
from monolift.training.initialise import find_weights
from monolift.training.optimizer import set_rate
from monolift.training.options import RunOptions
from monolift.training.processes import Processes
from monolift.training.run_folder import claim
from monolift.training.setup import Training, set_up
from monolift.training.state import LAST, PREVIOUS, all_finite, save_last, tidy
from monolift.training.validate import draw_some, validate
from monolift.typing import Tensor


@dataclass(frozen=True)
class Step:
    """Argument of ``on_step``, called after each optimiser step, once its checkpoint, if due, is written.

    epoch, step: done so far, the step counted over all epochs; names: of the images; losses: their values, on a GPU
    those of the step before, and none after the first
    """

    epoch: int
    step: int
    names: tuple[str, ...]
    losses: dict[str, float]
    detector: Detector


def train(
    config: DetectorConfig,
    recipe: Recipe,
    data: Source | Sequence[Source],
    out: str | Path,
    *,
    split: str | Path | Sequence[str] | None = None,
    val_split: str | Path | Sequence[str] | KittiDataset | None = None,
    keep: Collection[str] = (),
    measure: bool = True,
    init: str | Path | None = None,
    init_partial: bool = False,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    val_every: int = 5,
    save_minutes: float = 5.0,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Path:
    """Train a detector; return the folder of its best checkpoint, the last one without validation.

    Args:
        config: of the method to train, as ``SmokeConfig()``; its class says which method.
        recipe: optimiser, schedule, augmentation; each method's ``RECIPES`` has one for each preset.
        data: KITTI folders or data sets; ``split`` and ``val_split`` belong to the first, additional data sets are used in
            full.
        out: folder of the run: checkpoints last/ and best/, metrics.jsonl, results.csv, run.toml, images/.
        split: training ids, or a file of them; all without it.
        val_split: validation ids, a file of them, or a data set; no validation without it.
        keep: fields of ``config`` that are not measured on the training data.
        measure: whether ``config``'s constants (mean sizes, depths, focal length) are measured on the training data; not for
            a released model's constants.
        init: weights to start from: a bundled model's name, a checkpoint folder, of another method too, or a file for the
            backbone alone.
        init_partial: accept a checkpoint that fills less than half of the weights (of another method: of the backbone's).
        seed: random seed; the same seed gives the same run.
        device: cpu, cuda, cuda:N or auto.
        workers: loader processes; 0 loads in the training process.
        val_every: epochs between validations; the last epoch is always validated.
        save_minutes: a checkpoint is written at least this often, and after each epoch.
        resume: continue from out/last, bit-exact; begins a new run where nothing is there.
        overwrite: replace a run that is in ``out``; without it (and resume) that is an error.
        tensorboard: also write events to out/tensorboard (extra monolift[tensorboard]).
        quiet: no progress; warnings are still printed.
        on_step: called after each step.

    Raises:
        InputError: for data or options that cannot be used, and where no labelled object reaches the loss.
        FloatingPointError: naming the images whose loss is not finite; the last checkpoint stays.
    """
    method, out = method_of(config), Path(out)
    options = RunOptions(
        split, val_split, init, init_partial, frozenset(keep), measure, seed, device, workers, val_every, save_minutes,
        resume, overwrite, tensorboard, quiet,
    )  # fmt: skip
    weights = None if init is None else find_weights(init)
    parts, val = open_data(method.learns_depth(config), data, split, val_split)
    processes = Processes.join(device)
    with contextlib.ExitStack() as stack:
        stack.callback(processes.leave)
        if processes.first:
            stack.enter_context(locked(out, "training"))
            claim(out, resume, overwrite)
            recover(out / "best")
        training = set_up(method, config, recipe, parts, val, out, processes, weights, options)
        stack.enter_context(training.progress)
        _run(training, val_every, 60 * save_minutes, on_step)
        if processes.first:
            tidy(out)
    return out / "best" if (out / "best").exists() else out / LAST


def _run(t: Training, val_every: int, save_seconds: float, on_step: Callable[[Step], None] | None) -> None:
    """All epochs that are left: steps, a validation now and then, a row of history and a checkpoint after each."""
    state, recipe = t.state, t.recipe
    total, epochs = recipe.length(t.loader.steps), recipe.epochs_of(t.loader.steps)
    saved = time.monotonic()
    late = _LateLosses(t)
    while state.epoch < epochs:
        t.detector.train()
        for part in t.frozen:
            part.eval()  # keep the BatchNorm statistics frozen
        skipped = state.done
        for batch in t.loader.epoch(state.epoch, skip=skipped):
            torch.manual_seed(t.identity.seed + state.step)  # some losses draw: alike after resuming
            set_rate(t.optimizer, recipe.rate(state.step / total))
            losses = late.known(batch.targets.names, _step(t, batch.to(t.processes.device)))
            t.average.update(state.step)
            state.count(losses)
            remark = f"epoch {state.epoch + 1}" + (f"  loss {losses['total']:.3f}" if losses else "")
            t.progress.advance(recipe.batch_size * t.processes.world, remark)
            if time.monotonic() - saved > save_seconds:
                state.add(late.rest())
                _refuse_exploded(t, batch)
                _save(t)
                saved = time.monotonic()
            if on_step is not None:
                on_step(Step(state.epoch, state.step, batch.targets.names, losses, t.detector))
        state.add(late.rest())
        if state.done > skipped:
            _refuse_exploded(t, batch)
        means = {name: value / state.summed for name, value in state.sums.items()}
        row = {"epoch": state.epoch + 1, "step": state.step, **means}
        state.next_epoch()
        if state.epoch % val_every == 0 or state.epoch == epochs:
            row |= _validate(t)
        if t.processes.first:
            t.progress.say("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            t.history.add(row)
        _save(t)
        saved = time.monotonic()


def _step(t: Training, batch: Batch) -> dict[str, Tensor]:
    """One step of the optimiser; the losses before it, on the device. On a CPU raises FloatingPointError for one not finite."""
    with torch.autocast(t.processes.device.type, torch.bfloat16, enabled=t.recipe.precision == "bfloat16"):
        raw = t.model(batch.network_images(t.detector))
    losses = t.detector.loss(raw, batch.targets)
    if not losses["total"].is_cuda:  # there asking would wait for the GPU: `_LateLosses` asks one step later
        _check_finite(t, batch.targets.names, {name: float(value.detach()) for name, value in losses.items()})
    t.optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    if t.recipe.clip:
        trained = [p for p in t.detector.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(trained, t.recipe.clip)
    t.optimizer.step()
    t.detector.after_step()
    return t.processes.mean({name: value.detach() for name, value in losses.items()})


def _check_finite(t: Training, names: tuple[str, ...], losses: dict[str, float]) -> None:
    """Raises FloatingPointError, naming the images, for a total that is not finite."""
    if not math.isfinite(losses["total"]):
        raise FloatingPointError(
            f"loss is not finite in epoch {t.state.epoch + 1}, images {', '.join(names)}: {losses}; {_checkpoints(t.out)}"
        )


class _LateLosses:
    """Losses as numbers. Of a GPU they are read one step late, so that the CPU prepares a step while the GPU computes the one
    before, and never waits for what it has just queued."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._waiting: tuple[tuple[str, ...], list[str], Tensor] | None = None

    def known(self, names: tuple[str, ...], losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses known after this step of the images ``names``: its own, or those of the step before."""
        if not losses["total"].is_cuda:
            return {name: float(value) for name, value in losses.items()}
        before = self.rest()
        values = torch.stack([value.float() for value in losses.values()])
        self._waiting = (names, list(losses), values.to("cpu", non_blocking=True))
        self._event = torch.cuda.Event()
        self._event.record()
        return before

    def rest(self) -> dict[str, float]:
        """The losses that have not been told yet. Raises FloatingPointError for one that is not finite."""
        if self._waiting is None:
            return {}
        names, keys, values = self._waiting
        self._event.synchronize()
        self._waiting = None
        losses = dict(zip(keys, values.tolist(), strict=True))
        _check_finite(self._training, names, losses)
        return losses


def _refuse_exploded(t: Training, batch: Batch) -> None:
    """Raises FloatingPointError where the last step of the optimiser has spoilt the weights, before they are saved.

    A step's loss is that of the weights before it. What it made of them shows in a pass of its own batch, which leaves the
    measured norms and all that is random as they were.
    """
    if not t.processes.first:
        return
    buffers = {name: buffer.clone() for name, buffer in t.detector.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng():
        on_device = batch.to(t.processes.device)
        with torch.autocast(
            t.processes.device.type, torch.bfloat16, enabled=t.recipe.precision == "bfloat16"
        ):
            raw = t.detector(on_device.network_images(t.detector))
        loss = t.detector.loss(raw, on_device.targets)["total"]
        for name, buffer in t.detector.named_buffers():
            buffer.copy_(buffers[name])
    states = (t.detector.state_dict(), t.average.detector.state_dict(), t.optimizer.state_dict())
    if not (bool(torch.isfinite(loss)) and all_finite(states)):
        raise FloatingPointError(
            f"step {t.state.step} in epoch {t.state.epoch + 1} spoilt the weights, images {', '.join(batch.targets.names)}: "
            f"the loss after it is {float(loss):g}; they are not saved; {_checkpoints(t.out)}: lower lr"
        )


def _checkpoints(out: Path) -> str:
    """Which checkpoints a run that failed has left."""
    if not (out / LAST).is_dir():
        return "no checkpoint was written yet: lower lr, or check these images' labels"
    before = f", the one before it {out / PREVIOUS}" if (out / PREVIOUS).is_dir() else ""
    return f"the last checkpoint is {out / LAST}{before}"


def _validate(t: Training) -> dict[str, float]:
    """AP of the averaged weights on the validation split, computed by the first process; and a few drawn images."""
    if not t.processes.first:
        return {}
    detector = t.average.detector.eval()
    tag = f"epoch{t.state.epoch:03d}"
    if t.val is None:
        draw_some(detector, t.parts[0], t.out / "images", tag)
        return {}
    scores = validate(detector, t.val, t.out / "val", t.out / "images", tag)
    if scores["selection"] > t.state.best:
        t.state.best = scores["selection"]
        card = {"epoch": t.state.epoch, "score": scores["score"], "validation": scores, "training": t.card}
        checkpoint.save(t.out / "best", detector, card)
    return scores


def _save(t: Training) -> None:
    if t.processes.first:
        save_last(t.out, t.state, t.detector, t.average, t.optimizer, t.identity, t.card)
