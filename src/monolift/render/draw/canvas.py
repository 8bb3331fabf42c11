"""An image to draw on with Pillow alone: smooth lines, dashes, translucent faces, text, labels that keep apart.

Coordinates are pixels with centres at integers, as everywhere: the image spans [-0.5, W - 0.5].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Points = npt.NDArray[np.float64]
Rectangle = tuple[float, float, float, float]

INK: Color = (16, 20, 26)
PAPER: Color = (246, 247, 249)

# After Okabe and Ito (2008), whose eight colours stay apart under every common colour blindness; lightened for images.
CLASS_COLORS: dict[str, Color] = {
    "Car": (86, 190, 255),
    "Pedestrian": (255, 176, 38),
    "Cyclist": (38, 214, 150),
    "Van": (186, 160, 255),
    "Truck": (240, 130, 190),
    "Tram": (244, 230, 80),
    "Person_sitting": (255, 122, 70),
    "Misc": (190, 198, 206),
}
_SPARE = tuple(CLASS_COLORS.values())


def class_color(name: str) -> Color:
    """The colour of a class; a class we have not met gets one of the same colours, always the same."""
    return CLASS_COLORS.get(name) or _SPARE[sum(name.encode("utf-8", "surrogatepass")) % len(_SPARE)]


@lru_cache(maxsize=32)
def font(size: float) -> Any:
    """Pillow's own scalable font: nothing to bundle, nothing to find on the machine."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class _Shape:
    """One call of Pillow's: ``kind`` of its methods, (K, 2) pixels of the enlarged image, and its other arguments.

    Attributes:
        area: x1, y1, x2, y2 of all the pixels that it may touch, enlarged.
    """

    number: int
    kind: str
    points: Points
    options: dict[str, Any]
    area: Rectangle

    def draw(self, canvas: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draws on the part of the enlarged image that begins at (left, top)."""
        flat = (self.points - (left, top)).ravel().tolist()
        getattr(canvas, self.kind)(flat, **self.options)


class Canvas:
    """Shapes are drawn enlarged and reduced at the end, which smooths them; text is set after that, so it stays sharp.

    Only the parts of the image that shapes touch are enlarged: on a large image with a few boxes that is most of the time.
    """

    def __init__(self, image: Image.Image) -> None:
        self.width, self.height = image.size
        area = self.width * self.height
        self._zoom = 3 if area <= 1_500_000 else 2 if area <= 6_000_000 else 1
        self._image = image.convert("RGB")
        if self._image is image:  # convert made no copy
            self._image = image.copy()
        self._shapes: list[_Shape] = []
        self._texts: list[tuple[tuple[float, float], str, float, Color, str]] = []
        self._taken: list[Rectangle] = []

    def line(
        self, points: Points, color: Color, width: float = 1.0, alpha: float = 1.0, dash: float | None = None
    ) -> None:
        """A polyline through (K, 2) points; ``dash`` is the length of a dash and of a gap, pixels."""
        for a, b in pairwise(points):
            clipped = clip_segment(a, b, (-99.0, -99.0, self.width + 99.0, self.height + 99.0))
            if clipped is None:
                continue
            for start, end in _dashes(*clipped, dash):
                self._stroke(start, end, (*color, round(255 * alpha)), width)

    def _stroke(self, start: Points, end: Points, color: tuple[int, ...], width: float) -> None:
        ends = self._px(np.stack([start, end]))
        thick = max(1, round(width * self._zoom))
        self._add("line", ends, thick, fill=color, width=thick)
        if thick >= 3 and color[3] == 255:  # round ends, so that edges meet without notches
            r = thick / 2 - 0.5
            for point in ends:
                self._add("ellipse", np.stack([point - r, point + r]), fill=color)

    def polygon(self, points: Points, color: Color, alpha: float = 1.0) -> None:
        """A filled polygon of (K, 2) points, cut to the image."""
        inside = clip_polygon(points, (-9.0, -9.0, self.width + 9.0, self.height + 9.0))
        if len(inside) >= 3:
            self._add("polygon", self._px(inside), fill=(*color, round(255 * alpha)))

    def arc(self, center: Points, radius: float, color: Color, width: float = 1.0) -> None:
        """A circle; what lies outside the image is not seen."""
        middle, r = self._px(center), radius * self._zoom
        thick = max(1, round(width * self._zoom))
        self._add("ellipse", np.stack([middle - r, middle + r]), outline=(*color, 255), width=thick)

    def text(
        self, position: tuple[float, float], text: str, size: float, color: Color, anchor: str = "la"
    ) -> None:
        """Text with Pillow's anchors: first letter l m r, second a (top) m s d (bottom)."""
        self._texts.append((position, text, size, color, anchor))

    def label(self, candidates: Sequence[tuple[float, float]], text: str, size: float, color: Color | None,
              ink: Color = INK) -> Rectangle | None:  # fmt: skip
        """Text in a filled chip (bare text without ``color``) at the first candidate where it covers no other label.

        A candidate is where the middle of the chip's bottom edge goes. Returns the chip's rectangle, or None where there is
        no free place: one label fewer reads better than two on top of each other.
        """
        pad_x, pad_y = (0.45 * size, 0.22 * size) if color else (0.1 * size, 0.0)
        width = font(size).getlength(text) + 2 * pad_x
        height = 1.05 * size + 2 * pad_y
        for x, y in candidates:
            left = min(max(x - width / 2, 1.0), self.width - width - 1)
            top = y - height
            spot = (left, top, left + width, y)
            if left < 0 or top < 0 or y > self.height or any(_overlap(spot, other) for other in self._taken):
                continue
            self._taken.append(spot)
            if color:
                corners = self._px(np.array(spot).reshape(2, 2))
                self._add("rounded_rectangle", corners, radius=0.28 * size * self._zoom, fill=(*color, 240))
            self.text((left + width / 2, top + height / 2), text, size, ink, "mm")
            return spot
        return None

    def reserve(self, area: Rectangle) -> None:
        """Keep labels out of a rectangle."""
        self._taken.append(area)

    def finish(self) -> Image.Image:
        """The image with all that was drawn."""
        for shapes in self._groups():
            self._draw_group(shapes)
        draw = ImageDraw.Draw(self._image)
        for (x, y), text, size, color, anchor in self._texts:
            draw.text((x + 0.5, y + 0.5), text, font=font(size), fill=color, anchor=anchor)
        return self._image

    def _add(self, kind: str, points: Points, reach: float = 0.0, **options: Any) -> None:
        """Takes down a shape; ``reach``: how far it goes beyond its points, enlarged pixels."""
        low, high = points.min(0) - reach - 2, points.max(0) + reach + 2
        area = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        self._shapes.append(_Shape(len(self._shapes), kind, points, options, area))

    def _groups(self) -> list[list[_Shape]]:
        """The shapes in sets whose areas do not meet, so that each can be drawn without the others."""
        groups: list[tuple[Rectangle, list[_Shape]]] = []
        for shape in self._shapes:
            area, members = shape.area, [shape]
            if groups and _covers(groups[-1][0], area):  # mostly another line of the same box
                groups[-1][1].append(shape)
                continue
            while met := [k for k, group in enumerate(groups) if _overlap(area, group[0])]:
                for k in reversed(met):
                    other, others = groups.pop(k)
                    area, members = _union(area, other), members + others
            groups.append((area, members))
        return [sorted(members, key=lambda shape: shape.number) for _, members in groups]

    def _draw_group(self, shapes: list[_Shape]) -> None:
        z = self._zoom
        low = np.min([shape.area[:2] for shape in shapes], 0) // z
        high = -(-np.max([shape.area[2:] for shape in shapes], 0) // z)
        left, top = (int(v) for v in np.maximum(low, 0))
        right, bottom = (int(v) for v in np.minimum(high, (self.width, self.height)))
        if left >= right or top >= bottom:
            return
        # nearest here and the mean below: what is not drawn on comes back unchanged
        size = ((right - left) * z, (bottom - top) * z)
        part = self._image.crop((left, top, right, bottom)).resize(size, Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(part, "RGBA")
        for shape in shapes:
            shape.draw(draw, left * z, top * z)
        self._image.paste(part.reduce(z) if z > 1 else part, (left, top))

    def _px(self, points: Points) -> Points:
        """(..., 2) pixels of the enlarged image."""
        return points * self._zoom + (self._zoom - 1) / 2


def clip_segment(a: Points, b: Points, area: Rectangle) -> tuple[Points, Points] | None:
    """The part of a segment inside a rectangle (Liang and Barsky), None where there is none."""
    enter, leave = 0.0, 1.0
    d = b - a
    for axis in (0, 1):
        for sign, limit in ((-1, area[axis]), (1, area[axis + 2])):
            speed, room = sign * d[axis], sign * (limit - a[axis])
            if speed == 0:
                if room < 0:
                    return None
            elif speed > 0:
                leave = min(leave, room / speed)
            else:
                enter = max(enter, room / speed)
    return (a + enter * d, a + leave * d) if enter <= leave else None


def clip_polygon(points: Points, area: Rectangle) -> Points:
    """The part of a polygon inside a rectangle (Sutherland and Hodgman)."""
    for axis in (0, 1):
        for sign, limit in ((1.0, area[axis]), (-1.0, area[axis + 2])):
            points = cut_polygon(points, sign * (points[:, axis] - limit) if len(points) else np.zeros(0))
    return points


def cut_polygon(points: npt.NDArray[np.float64], inside: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The part of a polygon of (K, D) points where a linear function, given at the points, is not negative."""
    kept = []
    for i in range(len(points)):
        p, q, s, t = points[i - 1], points[i], inside[i - 1], inside[i]
        if (s >= 0) != (t >= 0):
            kept.append(p + s / (s - t) * (q - p))
        if t >= 0:
            kept.append(q)
    return np.array(kept).reshape(-1, points.shape[1])


def _dashes(a: Points, b: Points, dash: float | None) -> list[tuple[Points, Points]]:
    """The segment, or its dashes: a whole number of them and as many gaps less one, so that both ends are drawn."""
    length = float(np.hypot(*(b - a)))
    if dash is None or length <= 2 * dash:
        return [(a, b)]
    count = round((length / dash + 1) / 2)
    steps = np.linspace(0, 1, 2 * count)[:, None]
    points = a + steps * (b - a)
    return list(zip(points[0::2], points[1::2], strict=True))


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def _covers(a: Rectangle, b: Rectangle) -> bool:
    return bool(a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3])


def _union(a: Rectangle, b: Rectangle) -> Rectangle:
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
