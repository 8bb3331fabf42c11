"""An image whose two objects stand where one can work it out by hand; found by ``fake_detector``."""

from __future__ import annotations

from PIL import Image, ImageDraw

import monolift
from fake_detector import COLORS

CAMERA = monolift.Camera(700.0, 700.0, 620.5, 187.0)
WALL = (90, 110, 90)


def street(scale: float = 1.0, names: tuple[str, ...] = ("Car", "Pedestrian")) -> Image.Image:
    """A car 1.5 m high on 50 pixel rows: at focal length 700 it is 21 m away, its middle 0.4 m right of the axis."""
    image = Image.new("RGB", (1242, 376), WALL)
    draw = ImageDraw.Draw(image)
    rectangles = {"Car": (600, 170, 663, 219), "Pedestrian": (300, 140, 329, 219)}
    for name in names:
        draw.rectangle(rectangles[name], fill=COLORS[name])
    size = (round(1242 * scale), round(376 * scale))
    return image if scale == 1 else image.resize(size, Image.Resampling.BILINEAR)
