"""Windows on images: a `View` cuts and scales an image, and its camera and labels follow.

Because the camera follows, 3D boxes need no change, and a scaled object is the same object at another focal length.
That is why, unlike in SMOKE's published code, a scaled sample trains depth.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from monolift.data.sample import Sample
from monolift.files.images import image_of_planes, planes
from monolift.geometry import Camera, clip_to_image
from monolift.typing import Float, Int, Tensor, UInt8

MIN_VISIBLE = 0.1
"""Share of a labelled 2D box that must lie in a window for the object to be there."""


@runtime_checkable
class InputSize(Protocol):
    """Configuration of a network's input: width and height, pixels, and how any image is fitted to it."""

    @property
    def input_width(self) -> int: ...
    @property
    def input_height(self) -> int: ...
    @property
    def fit(self) -> str:
        """area, letterbox or width-crop."""
        ...


@dataclass(frozen=True)
class View:
    """A window of the scaled image: u' = scale (u + 0.5) - 0.5 - left, and so for rows.

    scale: network pixels per source pixel; left, top: the window's first pixel in the scaled image, negative where it begins
    outside, and whole numbers but where SMOKE's released code is followed; width, height: of the window. What lies outside the
    image is black.
    """

    scale: float
    left: float
    top: float
    width: int
    height: int

    def px_from_source(self, px: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        return self.scale * (px + 0.5) - 0.5 - px.new_tensor([self.left, self.top])

    def px_source_from_view(self, px: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Inverse of `px_from_source`."""
        return (px + px.new_tensor([self.left, self.top]) + 0.5) / self.scale - 0.5

    def camera(self, camera: Camera) -> Camera:
        return camera.after_scale(self.scale).after_crop(self.left, self.top, self.width, self.height)

    def image(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
        """The window, bilinear with antialiasing (Pillow), one resampling."""
        height, width = image.shape[1:]
        # target cells that lie wholly inside the source, so that the source box below is exact
        x0, x1 = self._inside(self.left, self.width, width)
        y0, y1 = self._inside(self.top, self.height, height)
        out = np.zeros((self.height, self.width, 3), np.uint8)
        if x1 > x0 and y1 > y0:
            box = tuple(
                v / self.scale for v in (x0 + self.left, y0 + self.top, x1 + self.left, y1 + self.top)
            )
            box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))  # rounding
            source = image_of_planes(image.numpy())
            part = source.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box)
            out[y0:y1, x0:x1] = np.asarray(part)
        return torch.from_numpy(planes(out))

    def nearest(self, values: Tensor) -> Tensor:
        """The window (h, w) of a map (H, W) whose values cannot be mixed, such as depth or object numbers: each pixel takes
        the value of the source pixel its centre falls into, and 0 where the window's image is black."""
        height, width = values.shape
        out = values.new_zeros(self.height, self.width)
        x0, x1 = self._inside(self.left, self.width, width)
        y0, y1 = self._inside(self.top, self.height, height)
        if x1 > x0 and y1 > y0:
            columns = self._source_index(x0, x1, self.left, width)
            rows = self._source_index(y0, y1, self.top, height)
            out[y0:y1, x0:x1] = values[rows[:, None], columns]
        return out

    def _source_index(self, first: int, last: int, offset: float, extent: int) -> Int[Tensor, " n"]:
        # pixel k of the source covers [k - 0.5, k + 0.5)
        centers = (torch.arange(first, last, dtype=torch.float64) + offset + 0.5) / self.scale
        return centers.floor().long().clamp(0, extent - 1)

    def _inside(self, offset: float, extent: int, source_extent: int) -> tuple[int, int]:
        first = max(0, math.ceil(-offset - 1e-6))
        last = min(extent, math.floor(source_extent * self.scale + 1e-6 - offset))
        return first, last

    def sample(self, sample: Sample, min_visible: float = MIN_VISIBLE) -> Sample:
        """The sample as seen through the window: `labels` with the image, and depth and instances (`nearest`) if it has any."""
        whole = dataclasses.replace(
            self.cut(sample),
            image=self.image(sample.image),
            depth=None if sample.depth is None else self.nearest(sample.depth),
            instances=None if sample.instances is None else self.nearest(sample.instances),
        )
        return whole.keep(self.visible(sample) > min_visible)

    def labels(self, sample: Sample, min_visible: float = MIN_VISIBLE) -> Sample:
        """As `sample` without its pixels: of the image only the size is there.

        2D boxes are cut to the window, truncation grows by the share that is cut away, and objects of which less than
        ``min_visible`` of the labelled box remains are dropped.
        """
        return self.cut(sample).keep(self.visible(sample) > min_visible)

    def visible(self, sample: Sample) -> Float[Tensor, " n"]:
        """Share of each labelled 2D box that lies in the window; 0 for a box without area."""
        corners, clipped = self._boxes2d(sample)
        area, rest = (((b[:, 2:] - b[:, :2]).clamp_min(0)).prod(1) for b in (corners, clipped))
        return rest / area.clamp_min(1e-9)

    def cut(self, sample: Sample) -> Sample:
        """Every object of the sample with its label in the window's pixels; the image is black, one row that says its size."""
        ignore = clip_to_image(
            self.px_from_source(sample.ignore.view(-1, 2, 2)).view(-1, 4), self.width, self.height
        )
        return dataclasses.replace(
            sample,
            image=torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, self.height, self.width),
            camera=self.camera(sample.camera),
            depth=None,
            instances=None,
            boxes2d=self._boxes2d(sample)[1],
            truncation=(1 - (1 - sample.truncation) * self.visible(sample)).clamp(0, 1),
            ignore=ignore[(ignore[:, 2:] > ignore[:, :2]).all(1)],
        )

    def _boxes2d(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Labelled 2D boxes in the window's pixels, whole and cut to the window."""
        corners = self.px_from_source(sample.boxes2d.view(-1, 2, 2)).view(-1, 4)
        return corners, clip_to_image(corners, self.width, self.height)


def letterbox(width: int, height: int, out_width: int, out_height: int) -> View:
    """The whole image, as large as fits, in the middle of ``out_width`` x ``out_height``."""
    scale = min(out_width / width, out_height / height)
    left = (round(width * scale) - out_width) // 2
    top = (round(height * scale) - out_height) // 2
    return View(scale, left, top, out_width, out_height)


def same_area(width: int, height: int, area: int, multiple: int = 32) -> View:
    """The whole image scaled to about ``area`` pixels in a window whose sides are multiples of ``multiple``.

    A portrait, a panorama and a KITTI image each cost the same and none is squeezed into another's shape.
    """
    scale = math.sqrt(area / (width * height))
    sides = [max(multiple, multiple * math.floor(side * scale / multiple + 0.5)) for side in (width, height)]
    return letterbox(width, height, *sides)


def width_crop(width: int, height: int, out_width: int, out_height: int) -> View:
    """SMOKE's released code: the scale is set by the width alone and rows that do not fit are lost, half above, half below.

    The half is no whole number of pixels, there and here.
    """
    scale = out_width / width
    return View(scale, 0, (height * scale - out_height) / 2, out_width, out_height)


def padded(width: int, height: int, out_width: int, out_height: int) -> View:
    """As `letterbox`, but an image that fits is not enlarged: SMOKE's paper pads KITTI's to 1280 x 384."""
    scale = min(1.0, out_width / width, out_height / height)
    left = (round(width * scale) - out_width) // 2
    top = (round(height * scale) - out_height) // 2
    return View(scale, left, top, out_width, out_height)


def network_view(config: InputSize, width: int, height: int) -> View:
    """The window through which a network sees an image of this size.

    Args:
        config: with input_width and input_height, pixels, and fit: area, letterbox, pad or width-crop.
    """
    if config.fit == "area":
        return same_area(width, height, config.input_width * config.input_height)
    return training_view(config, width, height)


def training_view(config: InputSize, width: int, height: int) -> View:
    """As `network_view`, always of the training size: images of one batch must agree."""
    makers = {"width-crop": width_crop, "pad": padded}
    return makers.get(config.fit, letterbox)(width, height, config.input_width, config.input_height)
