"""Boxes on an image and from above: what a result looks like.

Detections are drawn with full lines, labels beside them with white dashes; each class keeps its colour
(`canvas.CLASS_COLORS`). The heading shows on the image as a crossed and tinted front face, from above as a filled
arrowhead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image

from monolift.files.renamed import renamed
from monolift.geometry import CORNER_SIGNS, EDGES, FRONT, Camera
from monolift.geometry.boxes import NEAR_PLANE
from monolift.render.draw.birds_eye import birds_eye
from monolift.render.draw.canvas import INK, PAPER, Canvas, Color, Points, class_color, cut_polygon
from monolift.render.draw.objects import Drawable
from monolift.typing import Tensor, UInt8

__all__ = ["birds_eye", "draw_result", "overlay"]

WHITE: Color = (255, 255, 255)
GAP = 6  # pixels between image and panel
PANEL, PANEL_AREA = (
    (240, 4096),
    40_000_000,
)  # least and most pixels along; with what is beside it, pixels in all
ENLARGED_WIDTH, ENLARGED_AREA = 800, 8_000_000  # pixels: text fits; a strip of an image is not blown up
FRONT_FACE = 1  # of _faces_seen: the positive side of axis 0, the length
_SIGNS = np.array(CORNER_SIGNS, dtype=np.float64)


@dataclass(frozen=True)
class _Eye:
    """A camera as plain numbers, read from its tensors once."""

    fx: float
    fy: float
    cx: float
    cy: float
    tx: float
    ty: float
    tz: float

    @classmethod
    def of(cls, camera: Camera) -> _Eye:
        return cls(*(float(getattr(camera, field.name)) for field in fields(cls)))


def draw_result(
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    found: Drawable | None = None,
    labels: Drawable | None = None,
    relative: bool = True,
    steady: bool = False,
) -> Image.Image:
    """The image with its boxes and the bird's-eye panel: below a wide image, else beside it.

    With both ``found`` and ``labels`` the labels are white dashes and only detections carry text; labels alone have nothing
    to differ from and are drawn like detections. relative: velocities of tracked objects are as seen from the camera.
    steady: the panel's range does not follow the objects, for frames of a video.
    """
    drawn = overlay(image, camera, found, labels, relative)
    width, height = drawn.size
    wide = width > 1.9 * height
    side = width if wide else height
    along = min(
        side, max(PANEL[0], min(PANEL[1], PANEL_AREA // side))
    )  # a strip of an image gets a small panel
    panel = birds_eye(camera, found, labels, along=along, forward="right" if wide else "up", steady=steady)
    size = (width, height + GAP + panel.height) if wide else (width + GAP + panel.width, height)
    both = Image.new("RGB", size, PAPER)
    both.paste(drawn, (0, 0))
    both.paste(panel, (0, height + GAP) if wide else (width + GAP, 0))
    return both


def overlay(
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    found: Drawable | None = None,
    labels: Drawable | None = None,
    relative: bool = True,
) -> Image.Image:
    """The image with its boxes. One under 800 pixels wide is enlarged so that the text fits, unless it is very tall."""
    base = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    zoom = ENLARGED_WIDTH / base.width
    if zoom > 1 and base.width * base.height * zoom**2 <= ENLARGED_AREA:
        size = (ENLARGED_WIDTH, round(base.height * zoom))
        camera = _sized(camera, base.width, base.height).after_resize(*size)
        base = base.resize(size, Image.Resampling.BICUBIC)
    canvas = Canvas(base)
    line = max(1.4, canvas.width / 750)
    if found is not None and labels is not None:
        _draw_boxes(canvas, camera, labels, line, dash=4 * line, color=WHITE)
    main = found if found is not None else labels
    if main is not None:
        _draw_boxes(canvas, camera, main, line)
        _draw_labels(canvas, camera, main, relative)
    return canvas.finish()


def _sized(camera: Camera, width: int, height: int) -> Camera:
    fields = (camera.fx, camera.fy, camera.cx, camera.cy, camera.tx, camera.ty, camera.tz)
    return Camera(*fields, width=width, height=height)


def _draw_boxes(
    canvas: Canvas,
    camera: Camera,
    objects: Drawable,
    line: float,
    dash: float | None = None,
    color: Color | None = None,
) -> None:
    eye = _Eye.of(camera)
    corners = objects.boxes.to("cpu", torch.float64).corners()
    order = torch.argsort(camera.depth(corners).mean(1), descending=True).tolist()  # near ones cover far ones
    for i in order:
        _draw_box(canvas, eye, corners[i], color or class_color(objects.classes[i]), line, dash)


def _draw_box(
    canvas: Canvas, eye: _Eye, corners: Tensor, color: Color, line: float, dash: float | None
) -> None:
    """One box of (8, 3) corners: front face tinted and crossed, hidden edges thin, visible ones with a dark rim."""
    seen = _faces_seen(eye, corners)
    hidden = {edge for edge in EDGES if not seen.intersection(_faces_of(*edge))}
    front = _visible_polygon(eye, corners[list(FRONT)].numpy())
    if len(front) >= 3:
        canvas.polygon(front, color, 0.12 if dash else 0.3 if FRONT_FACE in seen else 0.15)
    edges = [(_visible_segment(eye, corners[[a, b]].numpy()), (a, b) in hidden) for a, b in EDGES]
    drawn = [(segment, is_hidden) for segment, is_hidden in edges if segment is not None]
    for segment, is_hidden in drawn:
        if not is_hidden:
            canvas.line(segment, INK, line + 1.4, 0.55 if dash is None else 0.35)
    for segment, is_hidden in drawn:
        canvas.line(segment, color, 0.6 * line if is_hidden else line, 0.6 if is_hidden else 1.0, dash)
    for a, b in ((FRONT[0], FRONT[2]), (FRONT[1], FRONT[3])):
        diagonal = _visible_segment(eye, corners[[a, b]].numpy())
        if diagonal is not None:
            canvas.line(diagonal, color, 0.6 * line, 0.9, dash)


def _faces_seen(eye: _Eye, corners: Tensor) -> set[int]:
    """Faces turned towards the camera, as 2 * axis + (1 for the positive side). A box is convex, so these are all it shows."""
    points = corners.numpy()
    center, at = points.mean(0), -np.array([eye.tx, eye.ty, eye.tz])
    seen = set()
    for axis in range(3):
        for positive in (0, 1):
            face = points[(_SIGNS[:, axis] > 0) == positive].mean(0)
            if (at - face) @ (face - center) > 0:
                seen.add(2 * axis + positive)
    return seen


def _faces_of(a: int, b: int) -> set[int]:
    """The two faces that share the edge between corners ``a`` and ``b``."""
    return {2 * k + int(_SIGNS[a, k] > 0) for k in range(3) if _SIGNS[a, k] == _SIGNS[b, k]}


def _visible_polygon(eye: _Eye, points: Points) -> Points:
    """Pixels of the part of a polygon of (K, 3) points before the near plane, which may be none."""
    ahead = cut_polygon(points, points[:, 2] + eye.tz - NEAR_PLANE)
    return _pixels(eye, ahead)


def _visible_segment(eye: _Eye, ends: Points) -> Points | None:
    """Pixels (2, 2) of the part of a segment (2, 3) before the near plane; None where it lies behind."""
    z = ends[:, 2] + eye.tz - NEAR_PLANE
    if (z <= 0).all():
        return None
    if (z < 0).any():
        cut = ends[0] + z[0] / (z[0] - z[1]) * (ends[1] - ends[0])
        ends = np.stack([cut, ends[1]] if z[0] < 0 else [ends[0], cut])
    return _pixels(eye, ends)


def _pixels(eye: _Eye, points: Points) -> Points:
    """(K, 2) of (K, 3) points: ``Camera.px_from_cam`` in numpy, whose calls take a tenth of the time of torch's."""
    z = np.maximum(points[:, 2] + eye.tz, 1e-3)
    u = eye.fx * (points[:, 0] + eye.tx) / z + eye.cx
    v = eye.fy * (points[:, 1] + eye.ty) / z + eye.cy
    return np.stack([u, v], -1)


def _words(objects: Drawable, i: int, relative: bool) -> list[str]:
    """Class, distance and score of an object; of a tracked one its id and speed in place of the score."""
    name, center = objects.classes[i], objects.boxes.center[i]
    distance = f"{math.hypot(center[0], center[2]):.0f} m"
    tracks, velocity = getattr(objects, "tracks", None), getattr(objects, "velocity", None)
    if tracks is not None:
        speed = [] if velocity is None else [speed_text(float(velocity[i].norm()), relative)]
        return [f"{name} #{int(tracks[i])}", distance, *speed]
    return [name, distance] + ([] if objects.scores is None else [f"{objects.scores[i]:.2f}"])


def speed_text(speed: float, relative: bool) -> str:
    """A speed of ``speed`` m/s in km/h; marked where it is as seen from a camera that moves itself."""
    return f"{3.6 * speed:.0f} km/h{' rel' if relative else ''}"


def _draw_labels(canvas: Canvas, camera: Camera, objects: Drawable, relative: bool) -> None:
    """Class, distance and score above each box, the nearest first; a displaced label is tied to its box by a line."""
    size = min(max(11.0, canvas.width / 95), 40.0)
    boxes = objects.boxes.to("cpu", torch.float64)
    rectangles = boxes.projected(_sized(camera, canvas.width, canvas.height)).numpy()
    step = 1.6 * size
    for i in torch.argsort(boxes.center[:, 2]).tolist():
        x1, y1, x2, y2 = rectangles[i]
        if x2 - x1 < 1 or y2 - y1 < 1:
            continue
        name = objects.classes[i]
        words = _words(objects, i, relative)
        middle = (x1 + x2) / 2
        above = [(middle, y1 - 4 - k * step) for k in range(7)]
        below = [(middle, y2 + 4 + step + k * step) for k in range(2)]
        inside = [(middle, y1 + step + 2)]
        spot = canvas.label(above + below + inside, "  ".join(words), size, class_color(name))
        if spot is not None and spot[3] < y1 - 5:
            tie = np.array([[min(max(middle, spot[0] + 4), spot[2] - 4), spot[3]], [middle, y1]])
            canvas.line(tie, class_color(name), 1.0, 0.9)


__getattr__ = renamed(__name__, picture="draw_result")
