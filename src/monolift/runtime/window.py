"""The window through which a network sees an image; what ``monolift.augment.view.View`` is to training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .lens import Lens

MULTIPLE = 32  # pixels: the coarsest stride of every backbone


@dataclass(frozen=True)
class Window:
    """u' = scale (u + 0.5) - 0.5 - left, and so for rows; what lies outside the image is black."""

    scale: float
    left: float
    top: float
    width: int
    height: int

    def lens(self, lens: Lens) -> Lens:
        """The camera of the network image."""
        return lens.scaled_and_cut(self.scale, self.left, self.top, self.width, self.height)

    def source_from_window(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(..., 2) pixels of the network image to pixels of the image."""
        return (pixels + np.array([self.left, self.top], pixels.dtype) + 0.5) / self.scale - 0.5

    def image(self, source: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W, 3) RGB to the (3, h, w) network image, bilinear with antialiasing."""
        height, width = source.shape[:2]
        x0, x1 = self._inside(self.left, self.width, width)
        y0, y1 = self._inside(self.top, self.height, height)
        out = np.zeros((self.height, self.width, 3), np.uint8)
        if x1 > x0 and y1 > y0:
            left, top = (x0 + self.left) / self.scale, (y0 + self.top) / self.scale
            right, bottom = (x1 + self.left) / self.scale, (y1 + self.top) / self.scale
            box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))  # rounding
            part = Image.fromarray(source).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box)
            out[y0:y1, x0:x1] = np.asarray(part)
        return np.ascontiguousarray(out.transpose(2, 0, 1))

    def _inside(self, offset: float, extent: int, source_extent: int) -> tuple[int, int]:
        """Cells of the window that lie wholly inside the image."""
        last = math.floor(source_extent * self.scale + 1e-6 - offset)
        return max(0, math.ceil(-offset - 1e-6)), min(extent, last)


def window_for(config: dict[str, Any], width: int, height: int) -> Window:
    """The window that a model's configuration (input_width, input_height, fit) gives an image of this size."""
    out_width, out_height = config["input_width"], config["input_height"]
    fit = config.get("fit", "area")
    if fit == "width-crop":
        scale = out_width / width
        return Window(scale, 0, (height * scale - out_height) / 2, out_width, out_height)
    if fit == "area":
        scale = math.sqrt(out_width * out_height / (width * height))
        out_width, out_height = (
            max(MULTIPLE, MULTIPLE * math.floor(side * scale / MULTIPLE + 0.5)) for side in (width, height)
        )
    scale = min(1.0 if fit == "pad" else math.inf, out_width / width, out_height / height)
    left, top = (round(width * scale) - out_width) // 2, (round(height * scale) - out_height) // 2
    return Window(scale, left, top, out_width, out_height)
