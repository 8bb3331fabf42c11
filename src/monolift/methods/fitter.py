"""The contract of methods that are fitted rather than trained: observations of objects in, boxes, meshes and residuals out.

A `Fitter` has no weights to learn and no loss over a data set: it explains the pixels of one object at a time, given what 2D
detectors and depth networks report about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar, Generic, TypeVar

import torch

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.render.mesh import Mesh
from monolift.typing import Float, Int, Tensor, UInt8

OWN, BACKGROUND, OTHER = 1, 0, -1
OnStep = Callable[[int, int], None]
Config = TypeVar("Config")  # a fitter's own, a frozen dataclass
Group = TypeVar("Group")


@dataclass(frozen=True)
class Observation:
    """One object of one image, as a 2D detector with masks and a depth network report it. Nothing here is a 3D label.

    Attributes:
        image: (3, H, W) uint8, RGB; objects of one image share the tensor: those that do, share the depth map's scale
        camera: of this very image
        mask: (H, W) int8: 1 the object's own pixels, 0 background, -1 someone else's, behind which it may go on
        depth: (H, W) z in metres of what each pixel shows, 0 where unknown
        box2d: (4,) x1, y1, x2, y2 in pixels, round the visible part
        score: the 2D detector's confidence, 0 to 1

    Raises:
        InputError: where shapes disagree, or the box is not finite or has no extent.
    """

    image: UInt8[Tensor, "3 H W"]
    camera: Camera
    mask: Int[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    box2d: Float[Tensor, "4"]
    score: float = 1.0
    class_name: str = "Car"

    def __post_init__(self) -> None:
        size = tuple(self.image.shape[1:])
        for name, values in (("mask", self.mask), ("depth", self.depth)):
            if tuple(values.shape) != size:
                raise InputError(
                    f"observation: {name} must be of the image's size {size}, got {tuple(values.shape)}"
                )
        if self.camera.fx.ndim:
            raise InputError("observation: expected the camera of one image, got a batch")
        extent = self.box2d[2:] - self.box2d[:2]
        if not bool(torch.isfinite(self.box2d).all()) or not bool((extent > 0).all()):
            raise InputError(
                f"observation: box2d must be x1 < x2, y1 < y2 in pixels, got {self.box2d.tolist()}"
            )


@dataclass(frozen=True)
class History:
    """Where objects stood at each step of a fit, the start first.

    Attributes:
        boxes: of each step
        meshes: (step) -> the meshes at it
    """

    boxes: tuple[Boxes3D, ...]
    meshes: Callable[[int], tuple[Mesh, ...]] = field(repr=False, compare=False)

    def __getitem__(self, objects: Any) -> History:
        """Of the objects chosen; see `Objects`."""

        def meshes(step: int) -> tuple[Mesh, ...]:
            order = torch.arange(len(self.boxes[0]))[objects].tolist()
            every = self.meshes(step)
            return tuple(every[k] for k in order)

        return History(tuple(boxes[objects] for boxes in self.boxes), meshes)


@dataclass(frozen=True, kw_only=True)
class FittedObjects(Objects):
    """What a fit found, object by object in the order of the observations, with their classes and 2D boxes.

    scores:      (N,) the confidence of a fit; 0 where no pixel of the mask was seen, and then the box is where the fit would
                 have started
    score2d:     (N,) the 2D detector's
    shape, texture: (N, C) unit codes of the decoder
    residuals:   name -> (N,): the terms of the loss, unweighted
    start:       N boxes before the fit
    depth_scale: (N,) what the image's depth map was multiplied by
    trace:       each step of the fit; None when it was not asked for

    Indexing gives FittedObjects with all of this.
    """

    score2d: Float[Tensor, " n"]
    shape: Float[Tensor, "n c"]
    texture: Float[Tensor, "n c"]
    start: Boxes3D
    depth_scale: Float[Tensor, " n"]
    residuals: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)
    trace: History | None = None

    @property
    def confidence(self) -> Float[Tensor, " n"]:
        """The scores."""
        assert self.scores is not None
        return self.scores

    @property
    def history(self) -> list[Boxes3D] | None:
        """N boxes after each step, the start first; None when they were not kept."""
        return None if self.trace is None else list(self.trace.boxes)

    def mesh_at(self, step: int) -> tuple[Mesh, ...]:
        """N meshes as they were at ``history[step]``. Raises InputError when no history was kept."""
        if self.trace is None:
            raise InputError("this fit kept no history: fit(..., history=True)")
        return self.trace.meshes(step)

    def _chosen(self, index: Any) -> dict[str, Any]:
        return {
            **super()._chosen(index),
            "residuals": {name: values[index] for name, values in self.residuals.items()},
            "trace": None if self.trace is None else self.trace[index],
        }

    def _columns(self) -> dict[str, Any]:
        return {k: v for k, v in super()._columns().items() if k not in ("residuals", "trace")}

    @classmethod
    def cat(cls, parts: Sequence[FittedObjects]) -> FittedObjects:
        """The objects of all parts, of which there is at least one, in their order; classes and 2D boxes are left out."""
        traces = [part.trace for part in parts if part.trace is not None]
        steps = zip(*(trace.boxes for trace in traces), strict=True)
        return cls(
            boxes=Boxes3D.cat([part.boxes for part in parts]),
            scores=torch.cat([part.confidence for part in parts]),
            meshes=tuple(mesh for part in parts for mesh in part.meshes or ()),
            score2d=torch.cat([part.score2d for part in parts]),
            shape=torch.cat([part.shape for part in parts]),
            texture=torch.cat([part.texture for part in parts]),
            start=Boxes3D.cat([part.start for part in parts]),
            depth_scale=torch.cat([part.depth_scale for part in parts]),
            residuals={k: torch.cat([part.residuals[k] for part in parts]) for k in parts[0].residuals},
            trace=History(
                tuple(Boxes3D.cat(list(boxes)) for boxes in steps),
                lambda step: tuple(mesh for trace in traces for mesh in trace.meshes(step)),
            )
            if traces
            else None,
        )


class Fitter(ABC, Generic[Config]):
    """Fits boxes to observations. A method gives ``method``, ``config``, `batch` and `fit_batch`; `fit` is final."""

    method: ClassVar[str]
    """The name of its `FittedMethod`."""
    config: Config

    @property
    @abstractmethod
    def batch(self) -> int:
        """Most objects that are fitted at a time."""

    @property
    @abstractmethod
    def iterations(self) -> int:
        """Steps of a fit."""

    @abstractmethod
    def fit_batch(
        self,
        observations: Sequence[Observation],
        generator: torch.Generator,
        on_step: Callable[[], None],
        history: bool,
    ) -> FittedObjects:
        """Fit objects together, none to `batch` of them; ``on_step`` is called after each iteration."""

    def fit(
        self,
        observations: Sequence[Observation],
        seed: int = 0,
        on_step: OnStep | None = None,
        history: bool = False,
    ) -> FittedObjects:
        """Fit all objects, of any number of images; objects of one image that stand side by side in ``observations`` share a
        batch where they can.

        seed: of the first angles and the random trials; equal seeds, equal results. on_step: called with iterations done
        and to do, all batches counted. history: keep the boxes after each iteration (and their meshes, on demand).
        """
        generator = torch.Generator().manual_seed(seed)
        batches = list(_batches(observations, self.batch)) or [[]]
        done, steps = 0, len(batches) * self.iterations

        def step() -> None:
            nonlocal done
            done += 1
            if on_step:
                on_step(done, steps)

        parts = [self.fit_batch(batch, generator, step, history) for batch in batches]
        classes = [observation.class_name for observation in observations]
        names = tuple(dict.fromkeys(classes))
        boxes2d = [observation.box2d for observation in observations]
        return replace(
            FittedObjects.cat(parts),
            labels=torch.tensor([names.index(name) for name in classes], dtype=torch.long),
            names=names,
            boxes2d=torch.stack(boxes2d) if boxes2d else torch.zeros(0, 4),
        )


@dataclass(frozen=True)
class FittedMethod(Generic[Config]):
    """One published system that is fitted, as programs know it before a fitter is built.

    Attributes:
        name: "monodr"
        title: the paper
        config: the configuration's class
        fitter: builds the fitter of a configuration
        presets: configurations by name; "default" and "paper" are always there
    """

    name: str
    title: str
    config: type[Config]
    fitter: Callable[[Config], Fitter[Config]]
    presets: Mapping[str, Callable[[], Config]]


def runs(groups: Iterable[Group], size: int, count: Callable[[Group], int]) -> Iterator[list[Group]]:
    """Neighbouring groups together, as many as hold at most ``size`` objects, or one that alone holds more."""
    run: list[Group] = []
    total = 0
    for group in groups:
        if run and total + count(group) > size:
            yield run
            run, total = [], 0
        run.append(group)
        total += count(group)
    if run:
        yield run


def _batches(observations: Sequence[Observation], size: int) -> Iterator[list[Observation]]:
    """Runs of at most ``size`` objects; an image is divided only when it alone has more."""
    images = [list(group) for _, group in groupby(observations, lambda o: o.image.data_ptr())]
    parts = [image[k : k + size] for image in images for k in range(0, len(image), size)]
    return ([o for part in run for o in part] for run in runs(parts, size, len))
