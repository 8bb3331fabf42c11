"""Statistics of a training split that the methods' constants are measured from: sizes and depths of the labelled objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from monolift.augment.view import InputSize, training_view
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.typing import Float, Int, Tensor


class ScaledConfig(InputSize, Protocol):
    """A configuration with a reference focal length."""

    @property
    def focal(self) -> float:
        """Network pixels; 0 where depths are not scaled by it."""
        ...


@dataclass(frozen=True)
class SplitStatistics:
    """The N labelled objects of some classes in a training split, in the order of the samples.

    Attributes:
        focal: reference focal length: the median of the network images', or the one that is kept; 0 where depths are not
            scaled
        label: (N,) index into the classes
        center: (N, 3) metres
        size: (N, 3) metres
        focals: (N,) focal length of the network image of each object, pixels
    """

    focal: float
    label: Int[Tensor, " n"]
    center: Float[Tensor, "n 3"]
    size: Float[Tensor, "n 3"]
    focals: Float[Tensor, " n"]

    def at_reference(self, metres: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Depths as they would look through a camera of the reference focal length; unchanged where that is 0."""
        return (metres.double() * self.focal / self.focals).to(metres.dtype) if self.focal else metres

    def sizes(self, label: int) -> Float[Tensor, "n 3"]:
        """Sizes of the objects of one class."""
        return self.size[self.label == label]


def split_statistics(
    config: ScaledConfig, samples: Sequence[Sample], classes: Sequence[str], keep: Collection[str] = ()
) -> SplitStatistics:
    """The labelled objects of ``classes``; objects without a 3D label (a size that is not positive) do not count.

    Args:
        samples: labels only will do.
        keep: fields that the user has set; with "focal" among them, depths are taken at it.

    Raises:
        InputError: where a class has no object.
    """
    focals, label, center, size, of_object = [], [], [], [], []
    for sample in samples:
        focal = float(training_view(config, *sample.size).camera(sample.camera).fx)
        focals.append(focal)
        for k, name in enumerate(sample.classes):
            if name in classes and float(sample.boxes.size[k].min()) > 0:
                label.append(list(classes).index(name))
                center.append(sample.boxes.center[k])
                size.append(sample.boxes.size[k])
                of_object.append(focal)
    missing = [name for k, name in enumerate(classes) if k not in label]
    if missing:
        raise InputError(
            f"no training object of class {', '.join(missing)}: remove it from the classes or check the split"
        )
    median = float(torch.tensor(focals).median())
    reference = config.focal if "focal" in keep or not config.focal else median
    return SplitStatistics(
        focal=reference,
        label=torch.tensor(label),
        center=torch.stack(center),
        size=torch.stack(size),
        focals=torch.tensor(of_object, dtype=torch.float64),
    )
