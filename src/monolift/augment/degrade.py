"""Camera artefacts as augmentation: tone curves, grey sensors, blur and sharpening, noise, JPEG compression."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image, ImageFilter

from monolift.typing import Tensor, UInt8

EACH = 0.3  # probability of each change, but for the loss of colour
GREY = 0.1


def degraded(image: UInt8[Tensor, "3 h w"], rng: np.random.Generator) -> UInt8[Tensor, "3 h w"]:
    """The image with a random selection of changes, in the order in which a camera makes them; labels stay as they are.

    Gamma of 0.6 to 1.65; grey; Gaussian blur of 0.4 to 1.4 pixels or an unsharp mask; Gaussian noise of 2 to 9 grey levels;
    JPEG of quality 25 to 84.
    """
    pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if rng.random() < EACH:
        gamma = math.exp(rng.uniform(-0.5, 0.5))
        pixels = pixels.point([round(255 * (v / 255) ** gamma) for v in range(256)] * 3)
    if rng.random() < GREY:
        pixels = pixels.convert("L").convert("RGB")
    if rng.random() < EACH:
        radius = rng.uniform(0.4, 1.4)
        soft = rng.random() < 0.7
        pixels = pixels.filter(ImageFilter.GaussianBlur(radius) if soft else ImageFilter.UnsharpMask(2, 80))
    if rng.random() < EACH:
        values = np.asarray(pixels, np.float32)
        values = values + rng.uniform(2, 9) * rng.standard_normal(values.shape, np.float32)
        pixels = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if rng.random() < EACH:
        buffer = io.BytesIO()
        pixels.save(buffer, "jpeg", quality=int(rng.integers(25, 85)))
        pixels = Image.open(buffer)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
