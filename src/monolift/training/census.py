"""How many labelled objects reach the loss, and why others do not: a training on nothing is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from monolift.augment.view import MIN_VISIBLE, training_view
from monolift.data.formats.kitti_format import read_labels
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.methods.base import Detector

MOST = 500  # images whose targets are made; of larger sets evenly spread ones
LARGE = 0.2  # share of the labelled objects whose loss is worth a warning

NO_BOX3D = "without a 3D box"
NO_BOX2D = "with a 2D box of no area (as 0 0 0 0)"
OUTSIDE = "outside the image"
UNFIT = "too small, too truncated or behind the camera for the method"
ADVICE = {
    NO_BOX3D: "label rows need size, location and rotation_y",
    NO_BOX2D: "write each object's 2D box, for example that of its projected corners",
    OUTSIDE: "do labels, calibration and images belong together, at the same image size?",
    UNFIT: "see min_height, max_truncation and the input size among the method's settings",
}


@dataclass
class Census:
    """Labelled objects of the classes to be learnt: all, those that reach the loss, and why others do not.

    Attributes:
        found: objects of every class name, learnt or not
    """

    classes: tuple[str, ...]
    images: int = 0
    counted: int = 0
    found: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    taught: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def share_lost(self) -> float:
        """Of the labelled objects."""
        return 1 - self.taught.total() / max(self.labelled.total(), 1)

    @property
    def names(self) -> str:
        """The class names that the labels hold, with their counts."""
        return ", ".join(f"{name} ({count})" for name, count in self.found.most_common(12)) or "no object"

    def reasons(self) -> str:
        """Why objects do not reach the loss."""
        return ", ".join(f"{count} {why}" for why, count in self.lost.most_common() if count)

    def __str__(self) -> str:
        by_class = ", ".join(f"{name} {self.taught[name]} of {self.labelled[name]}" for name in self.classes)
        sampled = f" (of {self.counted} of the {self.images} images)" if self.counted < self.images else ""
        reasons = self.reasons()
        return f"objects that reach the loss{sampled}: {by_class}" + (
            f"; not used: {reasons}" if reasons else ""
        )

    def warnings(self) -> list[str]:
        """What is worth a warning. Raises InputError where nothing is left to learn from."""
        classes = ", ".join(self.classes)
        if not self.labelled.total():
            raise InputError(
                f"no training object of class {classes}: the labels hold {self.names}: change the classes "
                "(--set classes=...) or check the split"
            )
        advice = ADVICE[next((name for name, count in self.lost.most_common(1) if count), UNFIT)]
        if not self.taught.total():
            raise InputError(
                f"no labelled object reaches the loss: of {self.labelled.total()} of class {classes} there are "
                f"{self.reasons()}: {advice}"
            )
        found = [
            f"warning: no labelled object of class {name} reaches the loss: the labels hold {self.names}"
            for name in self.classes
            if not self.taught[name]
        ]
        if self.share_lost > LARGE:
            share = f"{self.share_lost:.0%} of the labelled objects do not reach the loss"
            found.append(f"warning: {share}: {self.reasons()}: {advice}")
        return found


def take_census(parts: Sequence[KittiDataset], samples: Sequence[Sample], detector: Detector) -> Census:
    """Counts the labelled objects that reach the loss in plain views, without augmentation.

    Args:
        samples: the labels of all ``parts``, one after the other; of many, evenly spread ones are counted.
    """
    files = [part.root / "label_2" / f"{name}.txt" for part in parts for name in part.ids]
    census = Census(detector.classes, images=len(files))
    spread = -(-len(files) // MOST)
    order = [*range(0, len(files), spread), *(k for k in range(len(files)) if k % spread)]
    for k in order:
        if census.counted >= MOST and census.taught.total():  # without any: a refusal must be sure
            break
        _count(census, files[k], samples[k], detector)
    return census


def _count(census: Census, labels: Path, sample: Sample, detector: Detector) -> None:
    names = [name for name in read_labels(labels).names if name.lower() != "dontcare"]
    wanted = [name for name in names if name in census.classes]
    census.counted += 1
    census.found.update(names)
    census.labelled.update(wanted)
    sample = sample.keep(torch.tensor([name in census.classes for name in sample.classes], dtype=torch.bool))
    census.lost[NO_BOX3D] += len(wanted) - len(sample)
    if not len(sample):
        return
    view = training_view(detector.config, *sample.size)
    flat = ((sample.boxes2d[:, 2:] - sample.boxes2d[:, :2]) <= 0).any(1)
    outside = ~flat & (view.visible(sample) <= MIN_VISIBLE)
    taught = detector.encode([view.labels(sample)]).label.tolist()
    census.taught.update(detector.classes[label] for label in taught)
    census.lost[NO_BOX2D] += int(flat.sum())
    census.lost[OUTSIDE] += int(outside.sum())
    census.lost[UNFIT] += int((~flat & ~outside).sum()) - len(taught)
