"""What training reads: data sets, and batches of augmented network images with their targets, made in loader processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from monolift.augment.augment import Augmenter, recolored
from monolift.augment.augmentation import Augmentation
from monolift.augment.cutouts import Cutout, cut_out
from monolift.augment.view import training_view
from monolift.data.kitti import KittiDataset, training_folder
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files.progress import Progress
from monolift.methods import method_of
from monolift.methods.base import Detector, DetectorConfig, Targets
from monolift.training.processes import Processes
from monolift.typing import Float, Tensor, UInt8

Key = tuple[int, int]
"""Epoch and index of a training view: all that its chance depends on, besides the seed."""
Source = str | Path | KittiDataset


def open_data(
    depth: bool, data: Source | Sequence[Source], split: Any, val_split: Any
) -> tuple[list[KittiDataset], KittiDataset | None]:
    """The training sets, and the validation set where there is one.

    depth: whether training uses depth maps where there are some. split and val_split belong to the first of ``data``; further
    ones are used whole. Raises InputError where folders or
    files are missing, or an image stands in both splits.
    """
    sources = [data] if isinstance(data, str | Path | KittiDataset) else list(data)
    if not sources:
        raise InputError("data: expected at least one KITTI folder, got none")
    parts = [_training_set(source, split if k == 0 else None, depth) for k, source in enumerate(sources)]
    if val_split is None:
        return parts, None
    val = val_split if isinstance(val_split, KittiDataset) else KittiDataset(parts[0].root, val_split)
    same = [part for part in parts if part.root.resolve() == val.root.resolve()]
    if leak := {name for part in same for name in part.ids} & set(val.ids):
        raise InputError(
            f"{len(leak)} images are in both splits, first {min(leak)}: validation would measure memory"
        )
    return parts, val


def _training_set(source: Source, split: Any, depth: bool) -> KittiDataset:
    """A data set, with its depth maps where there are some and ``depth`` asks for them."""
    if isinstance(source, KittiDataset):
        if split is not None:
            raise InputError(
                "split: belongs to a folder; the first of data is a data set that has its ids already"
            )
        return source
    depth = depth and (training_folder(source) / "depth_2").is_dir()
    return KittiDataset(source, split, depth=depth)


def cutout_bank(
    parts: Sequence[KittiDataset], augmentation: Augmentation, seed: int, quiet: bool
) -> list[Cutout]:
    """Cars of the training images to paste into others, where the recipe asks for it; the same in every process."""
    if not augmentation.paste:
        return []
    masks = augmentation.paste_masks or None
    if masks is not None and not Path(masks).is_dir():
        raise InputError(f"augmentation.paste_masks: no folder {masks}")
    with Progress(sum(map(len, parts)), "images searched for cars", quiet) as progress:
        return cut_out(parts, masks, seed=seed, on_step=lambda found: progress.advance(1, f"{found} cut out"))


# -- batches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Network images as bytes, the colour change that each is to get, and the targets of their labels."""

    images: UInt8[Tensor, "b 3 h w"]
    colours: Float[Tensor, "b 6"]
    targets: Any

    def pin_memory(self) -> Batch:
        """In memory from which a GPU reads fast; called by the data loader."""
        values = {f.name: getattr(self.targets, f.name) for f in dataclasses.fields(self.targets)}
        pinned = {k: v.pin_memory() for k, v in values.items() if isinstance(v, Tensor)}
        targets = dataclasses.replace(self.targets, **pinned)
        return Batch(self.images.pin_memory(), self.colours.pin_memory(), targets)

    def to(self, device: torch.device) -> Batch:
        """On the device."""
        images, colours = (x.to(device, non_blocking=True) for x in (self.images, self.colours))
        return Batch(images, colours, self.targets.to(device))

    def network_images(self, detector: Detector) -> Float[Tensor, "b 3 h w"]:
        """Recoloured and normalised, on the batch's device."""
        images = detector.normalise(recolored(self.images, self.colours))
        return images.contiguous(memory_format=torch.channels_last) if images.is_cuda else images


class Encoder:
    """Samples to targets in a loader process, to which the configuration travels and no weights."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(self, samples: Sequence[Sample]) -> Targets:
        return self.detector.encode(samples)

    def __getstate__(self) -> DetectorConfig:
        return self.detector.config

    def __setstate__(self, config: DetectorConfig) -> None:
        self.detector = method_of(config).detector(config)


class Views(Dataset[Any]):
    """Batches of augmented views of samples; what is random depends on (seed, epoch, index) alone."""

    def __init__(
        self,
        parts: Sequence[KittiDataset],
        config: DetectorConfig,
        augmenter: Augmenter,
        encode: Any,
        seed: int,
    ) -> None:
        self.parts, self.config, self.augmenter, self.encode, self.seed = (
            parts,
            config,
            augmenter,
            encode,
            seed,
        )
        self.places = [(part, k) for part, p in enumerate(parts) for k in range(len(p))]

    def __len__(self) -> int:
        return len(self.places)

    def view(self, epoch: int, index: int) -> tuple[Sample, Float[Tensor, " 6"]]:
        """One augmented network image with its labels, and the colour change that it is to get."""
        part, k = self.places[index]
        sample = self.parts[part][k]
        rng = np.random.default_rng((self.seed, epoch, index))
        return self.augmenter(sample, training_view(self.config, *sample.size), rng)

    def __getitem__(self, keys: Sequence[Key]) -> Batch | InputError:
        """The batch of these views; an InputError is returned, because raised in a loader process it loses its message."""
        try:
            samples, colours = zip(*(self.view(*key) for key in keys), strict=True)
            images = torch.stack([sample.image for sample in samples])
            return Batch(images, torch.stack(colours), self.encode(samples))
        except InputError as error:
            return error


def batches(
    count: int, epoch: int, seed: int, size: int, rank: int, world: int, skip: int
) -> Iterator[list[Key]]:
    """Keys of one process's batches of an epoch, all processes having equally many; the first ``skip`` are left out."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    per_step = size * world
    for start in range(skip * per_step, count - per_step + 1, per_step):
        share = order[start + rank * size : start + (rank + 1) * size]
        yield [(epoch, int(i)) for i in share]


class Loader:
    """The batches of each epoch for one of several processes, loaded by ``workers`` processes that live as long as it."""

    def __init__(self, views: Views, size: int, processes: Processes, workers: int = 0) -> None:
        self.views, self.size, self.rank, self.world = views, size, processes.rank, processes.world
        if not self.steps:
            raise InputError(
                f"{len(views)} images do not fill one batch of {size} x {self.world}: lower batch_size, or add images"
            )
        self._keys: list[list[Key]] = []
        self._loader = DataLoader(
            views,
            sampler=self,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=processes.device.type == "cuda",
        )

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.views) // (self.size * self.world)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[list[Key]]:  # the data loader takes the keys from here
        return iter(self._keys)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch without the first ``skip``. Raises InputError for an image or label that cannot be read."""
        self._keys = list(
            batches(len(self.views), number, self.views.seed, self.size, self.rank, self.world, skip)
        )
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
