"""The contract between the methods and the programs that train, run and export them.

`Method` is what programs know of a published system before a detector is built: its configuration, presets, recipes, how its
constants are measured on a data set, and what it learns from. `Detector` is what they use afterwards; every member that a
program may call stands here, so no program asks a detector what it happens to have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from monolift.augment.view import View, network_view, training_view
from monolift.data.sample import Detections, Sample
from monolift.errors import InputError
from monolift.geometry import Camera, clip_to_image
from monolift.methods.recipe import Recipe
from monolift.nn.backbones import Backbone
from monolift.typing import Float, Int, Tensor, UInt8

# ImageNet, RGB, [0, 1]: what every backbone here was trained on
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectorConfig:
    """What every method's configuration has. A method's own is a frozen dataclass that JSON can hold, with defaults and a
    docstring for each field, these four included."""

    classes: tuple[str, ...]
    """Class names by label index."""
    input_width: int
    """Width of the training image, pixels."""
    input_height: int
    """Height of the training image, pixels."""
    fit: str
    """How an image is fitted to the input size: area, letterbox, pad or width-crop."""


@runtime_checkable
class Targets(Protocol):
    """Training targets of a batch, made in a loader's worker and moved to the device."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the batch's samples, for messages."""
        ...

    @property
    def label(self) -> Int[Tensor, " n"]:
        """Class index of each object that trains boxes."""
        ...

    def to(self, device: torch.device | str) -> Targets: ...


Config = TypeVar("Config", bound=DetectorConfig)  # a method's own
Encoded = TypeVar("Encoded", bound=Targets)


@dataclass(frozen=True)
class Renamed:
    """Where a configuration's field of an earlier version stands now.

    Attributes:
        name: of the field, "nms", or of one of a field's own, "quirks.bgr"
        values: its value for each earlier one, where they differ
        also: other fields that the earlier one decided
    """

    name: str
    values: Mapping[Any, Any] | None = None
    also: tuple[Renamed, ...] = ()

    def value(self, earlier: Any, name: str) -> Any:
        """The present value. Raises InputError for one that the field, ``name``, never had."""
        if self.values is None:
            return earlier
        for known, present in self.values.items():
            if type(known) is type(earlier) and known == earlier:
                return present
        raise InputError(f"{name} must be one of {', '.join(map(str, self.values))}, got {earlier!r}")


@dataclass(frozen=True)
class Released(Generic[Config]):
    """A checkpoint of another program, of a system that is one of our methods.

    program: whose, "lzccccc/SMOKE"
    config:  what gives the weights the meaning that they have there
    state:   every entry of the detector of ``config``, float32
    ignored: entries of the file that have no use, in its names
    """

    program: str
    config: Config
    state: Mapping[str, Tensor]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Method(Generic[Config]):
    """One published system, as programs know it before a detector is built.

    Attributes:
        name: of the command line and the checkpoint, "smoke"
        title: the paper
        config: the configuration's class, a frozen dataclass (`DetectorConfig`)
        detector: builds the detector of a configuration
        presets: configurations by name; "default" and "paper" are always there
        recipes: how each preset is trained
        statistics: (config, samples, keep) -> config with the constants measured on a training split, of all fields but
            those named in ``keep``, which the user has set
        fixed: presets whose constants are published and are never measured
        learns_depth: (config) -> whether its training uses ``Sample.depth`` where there is one
        renamed: fields of earlier versions' configurations: a checkpoint that has them still loads
        released: the entries of another program's weight file -> its checkpoint, or None where they are not of this system
        adapted: (checkpoint, config) -> its entries for a detector of ``config``, and what was changed, in words
    """

    name: str
    title: str
    config: type[Config]
    detector: Callable[[Config], Detector[Config, Any]]
    presets: Mapping[str, Callable[[], Config]]
    recipes: Mapping[str, Recipe]
    statistics: Callable[[Config, Sequence[Sample], Collection[str]], Config]
    fixed: frozenset[str] = frozenset()
    learns_depth: Callable[[Config], bool] = lambda config: False
    renamed: Mapping[str, Renamed] = field(default_factory=dict)
    released: Callable[[Mapping[str, Tensor]], Released[Config] | None] | None = None
    adapted: Callable[[Released[Config], Config], tuple[dict[str, Tensor], list[str]]] | None = None

    def up_to_date(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration as JSON or TOML holds it, fields of earlier versions under their present names and values.

        A present name takes precedence over an earlier one of the same field. Raises InputError for an earlier value that is
        none.
        """
        now: dict[str, Any] = {}
        for name, value in values.items():
            if name not in self.renamed:
                continue
            for present in (self.renamed[name], *self.renamed[name].also):
                *outer, last = present.name.split(".")
                level = now
                for part in outer:
                    level = level.setdefault(part, {})
                level[last] = present.value(value, name)
        for name, value in values.items():
            if name not in self.renamed:
                nested = isinstance(value, Mapping) and isinstance(now.get(name), Mapping)
                now[name] = {**now[name], **value} if nested else value
        return now


@dataclass(frozen=True)
class Prepared:
    """An image as a network takes it.

    Attributes:
        image: (3, h, w) normalised
        camera: of it
        view: the window that made it from the source
    """

    image: Float[Tensor, "3 h w"]
    camera: Camera
    view: View


def in_source(found: Detections, view: View, width: int, height: int) -> Detections:
    """Detections with their 2D boxes in pixels of the source image of this size, clipped to it; 3D boxes need no change."""
    if found.boxes2d is None:
        return found
    boxes2d = view.px_source_from_view(found.boxes2d.view(-1, 2, 2)).view(-1, 4)
    return replace(found, boxes2d=clip_to_image(boxes2d, width, height))


def focal_ratio(focal: Float[Tensor, "*b"], reference: float) -> Float[Tensor, "*b"]:
    """f / f_ref, or ones where ``reference`` is 0: what a depth predicted for the reference focal length is multiplied by.

    The same object twice as far away through a camera of twice the focal length looks the same, so a network can only ever
    predict depth f_ref / f.
    """
    return focal / reference if reference else torch.ones_like(focal)


def normalised(colours: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Colours in [0, 1] by the ImageNet statistics."""
    mean, std = (torch.tensor(v, device=colours.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    return (colours - mean) / std


def keeping(config: Config, measured: Config, keep: Collection[str]) -> Config:
    """``measured``, with the fields named in ``keep`` as ``config`` has them: what the user sets takes precedence."""
    set_by_user = {f.name for f in fields(config)} & set(keep)
    return replace(measured, **{name: getattr(config, name) for name in set_by_user})


@dataclass(frozen=True)
class GivenBoxes:
    """N 2D boxes of an image from another detector: (N, 4) pixels, (N,) class indices, (N,) scores from 0 to 1."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]


class Detector(nn.Module, ABC, Generic[Config, Encoded]):
    """A network with what turns images into its input and its output into boxes.

    A method gives ``method``, ``config``, ``network``, and `encode`, `loss`, `decode`; it may override `normalise`, `forward`
    and `with_meshes`. The rest is final.
    """

    method: ClassVar[str]
    """The name of its `Method`."""
    config: Config
    network: nn.Module
    """With a child named ``backbone``."""
    lifts: bool = False
    """Whether it lifts 2D boxes from elsewhere to 3D."""
    averages: bool = True
    """Whether the detections of several views of an image may be averaged: not where they hold more than boxes."""

    # -- images -----------------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label index."""
        return tuple(self.config.classes)

    def view(self, width: int, height: int) -> View:
        """The window through which the network sees an image of this size."""
        return network_view(self.config, width, height)

    def training_view(self, width: int, height: int) -> View:
        """As `view`, always of the training size, because the images of one batch must agree."""
        return training_view(self.config, width, height)

    def normalise(self, image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """uint8 RGB to what the backbone was trained on; on the image's device."""
        return normalised(image.float() / 255)

    def prepare(self, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Prepared:
        """One source image and its camera as the network takes them."""
        view = self.view(image.shape[2], image.shape[1])
        return Prepared(self.normalise(view.image(image)), view.camera(camera), view)

    # -- the network ------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def backbone(self) -> Backbone:
        """The part that starts from pretrained weights; its parts are what ``Recipe.freeze`` names."""
        backbone = self.network.get_submodule("backbone")
        if not isinstance(backbone, Backbone):
            raise TypeError(
                f"{type(self).__name__}.network.backbone should be a Backbone, got {type(backbone).__name__}"
            )
        return backbone

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
        """Named maps, float32; only the codec knows what a channel means."""
        return self.network(images)

    # -- targets, losses, detections --------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, samples: Sequence[Sample]) -> Encoded:
        """Training targets of samples whose images are network images of one size. Uses no weights: runs in workers."""

    @abstractmethod
    def loss(self, raw: dict[str, Tensor], targets: Encoded) -> dict[str, Tensor]:
        """Named scalars; "total" is what is minimised. A batch without objects has a loss with a gradient, too."""

    @abstractmethod
    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        """Per image, best first: boxes in metres, camera frame; 2D boxes in network pixels.

        Args:
            cameras: of the network images, one each.
        """

    def lift(self, raw: dict[str, Tensor], cameras: Camera, given: Sequence[GivenBoxes]) -> list[Detections]:
        """As `decode`, of 2D boxes from elsewhere, from methods that lift regions (``lifts``): one object per box.

        Args:
            cameras: of the network images, one each.
            given: of each image, its 2D boxes in network pixels.
        """
        raise NotImplementedError(f"{self.method} does not lift 2D boxes")

    def before_training(self, depth_maps: bool) -> list[str]:
        """Called once, after ``init``, before the first step of a training; not where one is resumed.

        Args:
            depth_maps: whether some training image has one.

        Returns:
            what is worth saying, lines; warnings begin with "warning: ".
        """
        return []

    def after_step(self) -> None:
        """Called by the training loop after each step of the optimiser: a loss with a warm-up counts here."""

    def with_meshes(self, found: Detections, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Detections:
        """The detections of one source image with meshes, from methods that know shapes; others return ``found``.

        Args:
            found: 2D boxes in pixels of ``image``
            camera: of ``image``.
        """
        return found
