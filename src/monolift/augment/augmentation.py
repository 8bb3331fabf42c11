"""Augmentation options, without torch, so that help can list them."""

from __future__ import annotations

from dataclasses import dataclass

from monolift.errors import InputError
from monolift.files.settings import SHARE, Range, check_fields

RANGES = {
    "mirror": SHARE,
    "recolor": SHARE,
    "degrade": SHARE,
    "rescale": SHARE,
    "steps": SHARE,
    "scale": Range(0.05, 20),
    "shift": SHARE,
    "paste": SHARE,
    "paste_up_to": Range(1, 100),
}


@dataclass(frozen=True)
class Augmentation:
    """Data augmentation of training samples."""

    mirror: float = 0.5
    """Probability of a horizontal flip."""
    recolor: float = 0.3
    """Strength of the colour jitter; 0: none."""
    degrade: float = 0.0
    """Probability of camera artefacts: tone curve, blur, noise, JPEG (``augment.degrade``)."""
    rescale: float = 1.0
    """Probability of a random scale and shift."""
    scale: tuple[float, float] = (0.85, 1.4)
    """Range of the random scale relative to the full image, log-uniform; with ``steps`` of its inverse, uniform."""
    shift: float = 0.15
    """Maximum random shift of the crop window, as a fraction of its size; with ``steps`` of the image's size."""
    steps: float = 0.0
    """Scale and shift in steps of this size, as SMOKE draws them (0.1: scales 0.6, 0.7, ...; 0: continuous)."""
    paste: float = 0.0
    """Probability of pasting cars of other training images into an image (``augment.paste``)."""
    paste_up_to: int = 3
    """Maximum number of cars pasted into one image."""
    paste_masks: str = ""
    """Folder of instance masks to cut cars out with (default: instance_2, else silhouettes of the shape space)."""

    def __post_init__(self) -> None:
        check_fields("augmentation", self, limits=RANGES)
        if self.scale[0] > self.scale[1]:
            raise InputError(f"augmentation scale must be (smallest, largest), got {self.scale}")
