"""The auto-labelling loop: objects of many images share a batch; complete images are skipped."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from monolift.autolabel.adapters import open_depth, open_mask_finder
from monolift.autolabel.files import write_outputs
from monolift.autolabel.job import Job, image_names, shard_of
from monolift.autolabel.observe import ForegroundFiles, View, observe, read_calibrated
from monolift.errors import InputError
from monolift.methods.fitter import runs
from monolift.methods.monodr import MonoDR
from monolift.shapes.textured import load_textured

GROUP = 16
"""Images that a process takes at a time."""
OnStep = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image: objects labelled, (id, reason) of those skipped, or why the image failed."""

    name: str
    objects: int = 0
    dropped: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    skipped: bool = False


class Labeller:
    """Opens a job's sources once and labels images with them. Raises InputError where they cannot be opened."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.masks = open_mask_finder(job.masks)
        self.depth = open_depth(job.depth, job.depth_scale)
        self.foreground = None if job.foreground is None else ForegroundFiles(job.foreground)
        decoder = None if job.decoder is None else load_textured(job.decoder)
        self.model = MonoDR(job.config, decoder, job.device)

    def names(self, split: Path | None = None) -> list[str]:
        """The images to label, see `image_names`."""
        known = [source.names for source in (self.masks, self.depth) if source.names is not None]
        return image_names(self.job, known, split)

    def label(self, names: Sequence[str], on_step: OnStep | None = None) -> Iterator[Outcome]:
        """Labels and writes images, a batch of objects at a time; yields each image when its files are there.

        An image that cannot be used is yielded with its error, and the others go on. on_step: called during a fit with
        the number of its objects, iterations done and to do.
        """
        failed: list[Outcome] = []
        for views in runs(self._views(names, failed), self.model.batch, lambda view: len(view.observations)):
            yield from failed
            failed.clear()
            yield from self._fit(views, on_step)
        yield from failed

    def _views(self, names: Sequence[str], failed: list[Outcome]) -> Iterator[View]:
        """The images that can be used; ``failed`` takes the others."""
        for name in names:
            try:
                photo = read_calibrated(self.job.root, name)
                yield observe(photo, self.masks, self.depth, self.job.selection, self.foreground)
            except InputError as error:
                failed.append(Outcome(name, error=str(error)))

    def _fit(self, views: Sequence[View], on_step: OnStep | None) -> Iterator[Outcome]:
        observations = [o for view in views for o in view.observations]

        def step(done: int, to_do: int) -> None:
            if on_step is not None:
                on_step(len(observations), done, to_do)

        try:
            fitted = self.model.fit(
                observations, self.job.seed, step, history="animation" in self.job.formats
            )
        except InputError as error:
            if len(views) == 1:
                yield Outcome(views[0].photo.name, error=str(error))
                return
            for view in views:  # one of them is to blame; the others shall not suffer
                yield from self._fit([view], on_step)
            return
        first = 0
        for view in views:
            count, dropped = write_outputs(self.job, view, fitted[first : first + len(view.observations)])
            yield Outcome(view.photo.name, count, dropped)
            first += len(view.observations)


def run(
    job: Job,
    split: Path | None = None,
    shard: str | None = None,
    limit: int | None = None,
    workers: int = 1,
    on_step: OnStep | None = None,
) -> tuple[int, Iterator[Outcome]]:
    """Does a job: how many images it is about, and their outcomes as they come, those that were done before first.

    Args:
        split: file of ids
        shard: "i/n", see `shard_of`
        limit: the first so many
        workers: processes.

    Raises:
        InputError: where the sources cannot be opened or the folder holds another job's labels.
    """
    labeller = Labeller(job)
    names = shard_of(labeller.names(split), shard)[:limit]
    job.claim()
    missing = [name for name in names if not job.done(name)]
    there = set(names).difference(missing)

    def outcomes() -> Iterator[Outcome]:
        yield from (Outcome(name, skipped=True) for name in names if name in there)
        if workers <= 1:
            yield from labeller.label(missing, on_step)
        else:
            yield from _in_processes(job, missing, workers)

    return len(names), outcomes()


# --- processes

_labeller: Labeller | None = None  # of a worker process


def _in_processes(job: Job, names: Sequence[str], workers: int) -> Iterator[Outcome]:
    size = max(1, min(GROUP, -(-len(names) // workers)))
    groups = [names[k : k + size] for k in range(0, len(names), size)]
    threads = max(1, (os.cpu_count() or 1) // workers)
    # spawn: a fork would copy locks of threads that no longer exist
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_open, initargs=(job, threads)) as pool:
        try:
            for done in as_completed([pool.submit(_label_group, group) for group in groups]):
                yield from done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _open(job: Job, threads: int) -> None:
    global _labeller
    torch.set_num_threads(threads)
    _labeller = Labeller(job)


def _label_group(names: Sequence[str]) -> list[Outcome]:
    assert _labeller is not None
    return list(_labeller.label(names))
