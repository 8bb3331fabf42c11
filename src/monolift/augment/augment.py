"""Augmentation of samples: image, camera, boxes and labels change together.

An `Augmenter` pastes, mirrors, zooms, shifts and degrades one sample and draws its colour change. The colour change itself is
applied later to a whole batch, by `recolored`, on the device that trains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from monolift.augment.augmentation import Augmentation
from monolift.augment.cutouts import Cutout
from monolift.augment.degrade import degraded
from monolift.augment.paste import PasteOptions, paste
from monolift.augment.view import View
from monolift.data.sample import Sample
from monolift.geometry.rotations import mirrored_rotation
from monolift.typing import Float, Tensor, UInt8

NO_COLOUR = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
TINT = 0.2  # of the strength: colour temperature varies less than brightness


@dataclass(frozen=True)
class Augmenter:
    """Augmentation of samples, the same for the same random generator.

    Attributes:
        augmentation: how far and how often
        bank: cars to paste, none without it
        pasting: where they may come to stand
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    bank: Sequence[Cutout] = ()
    pasting: PasteOptions = field(default_factory=PasteOptions)

    @classmethod
    def of(cls, augmentation: Augmentation, bank: Sequence[Cutout] = ()) -> Augmenter:
        """The augmenter of a recipe, which bounds the number of pasted cars."""
        return cls(augmentation, bank, PasteOptions(up_to=augmentation.paste_up_to))

    def __call__(
        self, sample: Sample, view: View, rng: np.random.Generator
    ) -> tuple[Sample, Float[Tensor, " 6"]]:
        """The sample through a random window near ``view``, and the colour change that `recolored` is to make."""
        chosen = self.augmentation
        if self.bank and rng.random() < chosen.paste:
            sample = paste(sample, rng, self.bank, self.pasting)
        if rng.random() < chosen.mirror:
            sample = mirror(sample)
        if chosen.rescale == 1 or rng.random() < chosen.rescale:
            sample = dataclasses.replace(random_view(view, chosen, rng).sample(sample), rescaled=True)
        else:
            sample = view.sample(sample)
        if chosen.degrade and rng.random() < chosen.degrade:
            sample = dataclasses.replace(sample, image=degraded(sample.image, rng))
        return sample, random_colour(rng, chosen.recolor) if chosen.recolor else torch.tensor(NO_COLOUR)


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
        rotation=None if sample.rotation is None else mirrored_rotation(sample.rotation),
        boxes2d=flipped(sample.boxes2d),
        ignore=flipped(sample.ignore),
    )


def random_view(view: View, augmentation: Augmentation, rng: np.random.Generator) -> View:
    """The plain view zoomed about its middle and shifted at random."""
    if augmentation.steps:
        return _stepped_view(view, augmentation, rng)
    low, high = augmentation.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    center_x, center_y = view.left + view.width / 2, view.top + view.height / 2
    dx, dy = augmentation.shift * rng.uniform(-1, 1, 2)
    left = zoom * center_x - view.width * (0.5 + dx)
    top = zoom * center_y - view.height * (0.5 + dy)
    return View(view.scale * zoom, round(left), round(top), view.width, view.height)


def _stepped_view(view: View, augmentation: Augmentation, rng: np.random.Generator) -> View:
    """As SMOKE's released code: the window takes one of a few sizes and places."""
    step, (small, large) = augmentation.steps, augmentation.scale
    size = small + step * rng.integers(0, round((large - small) / step) + 1)
    reach = round(augmentation.shift / step)
    dx, dy = step * rng.integers(-reach, reach + 1, 2)
    return resized_view(view, float(size), float(dx), float(dy))


def resized_view(view: View, size: float, shift_x: float, shift_y: float) -> View:
    """A window ``size`` times as large, its middle shifted by shares of the image; ``view`` has the image's middle in its own.

    Its edges are no whole pixels, as in SMOKE's released code.
    """
    middle_x, middle_y = view.left + view.width / 2, view.top + view.height / 2
    left = (1 + 2 * shift_x) * middle_x / size - view.width / 2
    top = (1 + 2 * shift_y) * middle_y / size - view.height / 2
    return View(view.scale / size, left, top, view.width, view.height)


def random_colour(rng: np.random.Generator, strength: float = 0.3) -> Float[Tensor, " 6"]:
    """A random change of brightness, contrast, saturation and colour temperature (red, green, blue), 1 for none."""
    gain, contrast, saturation = (1 + strength * rng.uniform(-1, 1) for _ in range(3))
    tint = 1 + TINT * strength * rng.uniform(-1, 1, 3)
    return torch.tensor([gain, contrast, saturation, *tint.tolist()])


def recolored(images: UInt8[Tensor, "b 3 h w"], colours: Float[Tensor, "b 6"]) -> UInt8[Tensor, "b 3 h w"]:
    """Each image with its own colour change, on the images' device; an image of `NO_COLOUR` is returned as it is."""
    if bool((colours == 1).all()):
        return images
    if images.device.type == "cpu":  # one by one they stay in the cache: three times as fast
        pairs = zip(images.split(1), colours.split(1), strict=True)
        return torch.cat([_recolored(image, colour) for image, colour in pairs])
    return _recolored(images, colours)


def _recolored(images: UInt8[Tensor, "b 3 h w"], colours: Float[Tensor, "b 6"]) -> UInt8[Tensor, "b 3 h w"]:
    gain, contrast, saturation = colours[:, :3, None, None, None].unbind(1)
    x = images.float()
    grey = x.mean(1, keepdim=True)
    x = (grey + saturation * (x - grey)) * gain * colours[:, 3:, None, None]
    middle = x.flatten(1).mean(1)[:, None, None, None]
    x = middle + contrast * (x - middle)
    changed = (colours != 1).any(1)[:, None, None, None]
    return torch.where(changed, x.clamp(0, 255).round().to(torch.uint8), images)
