"""How training varies its samples: the options alone, without torch, so that help can list them."""

from __future__ import annotations

from dataclasses import dataclass

from monolift.errors import InputError
from monolift.files.settings import SHARE, Range, check_fields

RANGES = {
    "mirror": SHARE,
    "recolor": SHARE,
    "degrade": SHARE,
    "scale": Range(0.05, 20),
    "shift": SHARE,
    "paste": SHARE,
    "paste_up_to": Range(1, 100),
}


@dataclass(frozen=True)
class Augmentation:
    """What training does to a sample before it becomes a network image."""

    mirror: float = 0.5
    """Probability of the mirror image."""
    recolor: float = 0.3
    """Strength of the colour changes, 0 for none."""
    degrade: float = 0.0
    """Probability that an image gets what other cameras do to it: tone curve, blur, noise, JPEG (``augment.degrade``)."""
    scale: tuple[float, float] = (0.85, 1.4)
    """Range of the zoom against the plain view, log-uniform."""
    shift: float = 0.15
    """Largest shift of a window that shows less than the whole, or more, as a share of its size."""
    paste: float = 0.0
    """Probability that cars cut out of other training images are put into one (``augment.paste``)."""
    paste_up_to: int = 3
    """Most cars put into one image."""
    paste_masks: str = ""
    """Folder of masks to cut out with; without it instance_2 beside the images, or the shapes' silhouettes."""

    def __post_init__(self) -> None:
        check_fields("augmentation", self, limits=RANGES)
        if self.scale[0] > self.scale[1]:
            raise InputError(f"augmentation scale must be (smallest, largest), got {self.scale}")
