"""Sample -> Sample: what happens to the picture happens to camera, boxes and labels too.

A picture is cut and scaled by a :class:`View`; because the camera follows, 3D boxes need no change, and an object that is
scaled up is the same object seen by a longer lens. That is why, unlike in SMOKE's published code, a scaled sample trains depth.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from monolift.augment.view import View
from monolift.data.sample import Sample
from monolift.typing import Tensor


def mirror(sample: Sample) -> Sample:
    """The left-right mirrored sample; twice gives the sample back."""

    def flipped(boxes: Tensor) -> Tensor:
        last = sample.size[0] - 1
        return torch.stack([last - boxes[:, 2], boxes[:, 1], last - boxes[:, 0], boxes[:, 3]], 1)

    return dataclasses.replace(
        sample,
        image=sample.image.flip(-1),
        camera=sample.camera.after_mirror(),
        depth=None if sample.depth is None else sample.depth.flip(-1),
        instances=None if sample.instances is None else sample.instances.flip(-1),
        boxes=sample.boxes.mirrored(),
        boxes2d=flipped(sample.boxes2d),
        ignore=flipped(sample.ignore),
    )


def recolor(sample: Sample, rng: np.random.Generator, strength: float = 0.3) -> Sample:
    """Random brightness, contrast, saturation and colour temperature; labels untouched."""
    gain = 1 + strength * rng.uniform(-1, 1)
    contrast = 1 + strength * rng.uniform(-1, 1)
    saturation = 1 + strength * rng.uniform(-1, 1)
    tint = torch.tensor(1 + 0.2 * strength * rng.uniform(-1, 1, 3), dtype=torch.float32).view(3, 1, 1)
    x = sample.image.float()
    grey = x.mean(0, keepdim=True)
    x = (grey + saturation * (x - grey)) * gain * tint
    x = x.mean() + contrast * (x - x.mean())
    return dataclasses.replace(sample, image=x.clamp(0, 255).round().to(torch.uint8))


@dataclass(frozen=True)
class Augmentation:
    """What training does to a sample before it becomes a network picture."""

    mirror: float = 0.5
    """Probability of the mirror image."""
    recolor: float = 0.3
    """Strength of the colour changes, 0 for none."""
    scale: tuple[float, float] = (0.85, 1.4)
    """Range of the zoom against the plain view, log-uniform."""
    shift: float = 0.15
    """Largest shift of a window that shows less than the whole, or more, as a share of its size."""
    paste: float = 0.0
    """Probability that cars cut out of other training pictures are put into one (``data.paste``)."""
    paste_up_to: int = 3
    """Most cars put into one picture."""
    paste_masks: str = ""
    """Folder of masks to cut out with; without it instance_2 beside the pictures, or the shapes' silhouettes."""


def random_view(view: View, augmentation: Augmentation, rng: np.random.Generator) -> View:
    """The plain view zoomed about its middle and shifted at random."""
    low, high = augmentation.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    center_x, center_y = view.left + view.width / 2, view.top + view.height / 2
    dx, dy = augmentation.shift * rng.uniform(-1, 1, 2)
    left = zoom * center_x - view.width * (0.5 + dx)
    top = zoom * center_y - view.height * (0.5 + dy)
    return View(view.scale * zoom, round(left), round(top), view.width, view.height)


def augment(sample: Sample, view: View, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Mirror, zoom, shift and colour as ``augmentation`` says; ends in a picture of the view's size."""
    if rng.random() < augmentation.mirror:
        sample = mirror(sample)
    sample = random_view(view, augmentation, rng).sample(sample)
    return recolor(sample, rng, augmentation.recolor) if augmentation.recolor else sample
