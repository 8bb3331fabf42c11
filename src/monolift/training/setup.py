"""All that a training works with, built from its configuration, recipe and data, at its beginning or where it was stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monolift.augment.augment import Augmenter
from monolift.data.cameras import check_dataset
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files.progress import Progress
from monolift.methods.base import Detector, DetectorConfig, Method
from monolift.methods.recipe import Recipe
from monolift.nn.cpu_training import train_faster
from monolift.training.census import take_census
from monolift.training.data import Encoder, Loader, Views, cutout_bank
from monolift.training.initialise import initialise
from monolift.training.optimizer import Average, freeze, make_optimizer
from monolift.training.options import RunOptions
from monolift.training.processes import Processes
from monolift.training.record import Record
from monolift.training.run_folder import History, clear
from monolift.training.state import Identity, State, compare_config, read_saved, restore
from monolift.typing import Tensor


@dataclass
class Training:
    """What the loop works with.

    Attributes:
        model: the detector, or what averages its gradients over the processes
        frozen: its parts that are not trained
        card: what a checkpoint says of its training
    """

    detector: Detector
    model: nn.Module
    average: Average
    frozen: list[nn.Module]
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    loader: Loader
    parts: list[KittiDataset]
    val: KittiDataset | None
    state: State
    identity: Identity
    out: Path
    history: History
    card: dict[str, Any]
    processes: Processes
    progress: Progress


def set_up(
    method: Method,
    config: DetectorConfig,
    recipe: Recipe,
    parts: list[KittiDataset],
    val: KittiDataset | None,
    out: Path,
    processes: Processes,
    weights: Path | None,
    options: RunOptions,
) -> Training:
    """Everything built and, where there is something to resume, as it was then.

    Args:
        weights: to start from.

    Raises:
        InputError: before anything in ``out`` is touched.
    """
    quiet = options.quiet or not processes.first
    torch.manual_seed(options.seed)
    samples = read_labels_of(parts, quiet)
    measured = measure_config(method, config, samples, options.keep) if options.measure else config
    detector = method.detector(measured).to(processes.device)
    if processes.device.type == "cpu" and recipe.precision == "float32":
        train_faster(detector.network)
    if processes.device.type == "cuda":
        # what its convolutions are fastest in; torch's stubs do not know the keyword
        detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Average(detector, method, recipe.ema)
    frozen = freeze(detector, recipe)
    optimizer = make_optimizer(detector, recipe)
    bank = cutout_bank(parts, recipe.augmentation, options.seed, quiet)
    views = Views(parts, measured, Augmenter.of(recipe.augmentation, bank), Encoder(detector), options.seed)
    loader = Loader(views, recipe.batch_size, processes, options.workers)
    identity = Identity.of(parts, val, processes.world, options.seed, recipe)
    saved, damaged = read_saved(out, processes.device) if options.resume else (None, [])
    notes = [f"warning: {problem}: continuing from the state before" for problem in damaged]
    state = State()
    if saved is not None:
        identity.compare(saved.content, saved.path)
        compare_config(config, measured, saved)
        state = restore(saved, detector, average, optimizer, loader.steps)
    else:
        if weights is not None:
            images = lambda: some_images(views, detector)  # noqa: E731
            notes.append(initialise(detector, weights, images, options.init_partial))
        notes += detector.before_training(any(part.has_depth for part in parts))
        average.restart()
    record = Record(method, config, measured, recipe, parts, val, options)
    if processes.first:
        notes += _notes_on_data(parts, val, samples, detector)
        if options.overwrite:
            clear(out)
        record.write(out)
    history = History(out, options.tensorboard and processes.first)
    notes += history.warnings()
    per_step = recipe.batch_size * processes.world
    progress = Progress(
        recipe.epochs_of(loader.steps) * loader.steps * per_step, "images", quiet, done=state.step * per_step
    )
    if processes.first:
        for note in notes:
            (progress.complain if note.startswith("warning") else progress.say)(note)
    return Training(
        detector, processes.share_gradients(detector), average, frozen, optimizer, recipe, loader, parts, val, state,
        identity, out, history, record.card, processes, progress,
    )  # fmt: skip


def _notes_on_data(
    parts: list[KittiDataset], val: KittiDataset | None, samples: Sequence[Sample], detector: Detector
) -> list[str]:
    """Warnings about cameras, and how many labelled objects reach the loss."""
    cameras = [f"warning: {text}" for data in data_sets(parts, val) for text in check_dataset(data)]
    census = take_census(parts, samples, detector)
    return [*cameras, str(census), *census.warnings()]


def data_sets(parts: Sequence[KittiDataset], val: KittiDataset | None) -> list[KittiDataset]:
    """The data sets of a training, with the validation set where there is one."""
    return [*parts, val] if val is not None else [*parts]


def read_labels_of(parts: Sequence[KittiDataset], quiet: bool) -> list[Sample]:
    """The labels of every image, one part after the other; of the images only the headers are read."""
    samples = []
    with Progress(sum(map(len, parts)), "labels read", quiet) as progress:
        for part in parts:
            for k in range(len(part)):
                samples.append(part.labels(k))
                progress.advance()
    return samples


def measure_config(
    method: Method, config: DetectorConfig, samples: Sequence[Sample], keep: Collection[str]
) -> DetectorConfig:
    """The configuration with its constants measured on the training data, but for the fields named in ``keep``."""
    try:
        return method.statistics(config, samples, keep)
    except InputError as error:
        found = Counter(name for sample in samples for name in sample.classes)
        names = (
            ", ".join(f"{name} ({count})" for name, count in found.most_common(12))
            or "no object with a 3D box"
        )
        raise InputError(f"{error}; the labels hold {names}") from None


def some_images(views: Views, detector: Detector) -> Tensor:
    """Sixteen or so of the network images of an epoch, normalised, (b, 3, h, w)."""
    batch = views[[(0, i) for i in range(0, len(views), max(1, len(views) // 16))]]
    if isinstance(batch, InputError):
        raise batch
    return batch.to(detector.device).network_images(detector)
