"""The scene from above: rings every ten metres, the camera's view, each box with its heading and distance."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from monolift.geometry import Boxes3D, Camera
from monolift.render.draw.canvas import Canvas, Color, Points, class_color
from monolift.render.draw.objects import Drawable

GROUND: Color = (22, 27, 34)
VIEW: Color = (34, 41, 51)
RING: Color = (62, 72, 86)
FAINT: Color = (142, 154, 168)
WHITE: Color = (255, 255, 255)
SPREAD: Color = (214, 222, 232)

RANGES = (20, 30, 40, 50, 60, 80, 100)  # metres shown: the first that holds every object
STEADY = (60, 14.0)  # metres ahead and aside that every frame of a video shows
BEHIND = 2.5  # metres shown behind the camera


class Ground:
    """Where metres of the ground (x right, z forward) lie on the panel. Nothing is mirrored: right of forward stays right."""

    def __init__(self, along: int, reach: float, lateral: float, forward: Literal["up", "right"]) -> None:
        self.forward = forward
        scale = along / (reach + BEHIND)
        across = 2 * scale * (lateral + 2)
        limits = (0.3 * along, 0.45 * along) if forward == "right" else (0.45 * along, 1.1 * along)
        self.across = round(min(max(across, limits[0]), limits[1]))
        self.scale = min(scale, self.across / (2 * (lateral + 1)))
        self.along = along
        self.size = (along, self.across) if forward == "right" else (self.across, along)

    def px(self, x: Any, z: Any) -> Points:
        """(..., 2) pixels of ground points in metres."""
        ahead, aside = self.scale * (np.asarray(z) + BEHIND), self.across / 2 + self.scale * np.asarray(x)
        u, v = (ahead, aside) if self.forward == "right" else (aside, self.along - ahead)
        return np.stack(np.broadcast_arrays(u, v), -1).astype(np.float64)


def birds_eye(
    camera: Camera,
    found: Drawable | None = None,
    labels: Drawable | None = None,
    along: int = 900,
    forward: Literal["up", "right"] = "up",
    steady: bool = False,
) -> Image.Image:
    """A panel ``along`` pixels long in the forward direction; its breadth and range follow what there is to show.

    steady: a range that does not follow the objects, for frames of a video.
    ``camera`` must know its image's width for its view to be drawn. Objects beyond 100 m are left out. Where the centre's
    covariance is known an ellipse holds it with a probability of 39 % (one standard deviation each way).
    """
    groups = [group for group in (found, labels) if group is not None and len(group.boxes)]
    footprints = [_footprints(group.boxes) for group in groups]
    ellipses = [ellipse for group in groups for ellipse in _spreads(group)]
    points = np.concatenate([*(f.reshape(-1, 2) for f in footprints), *ellipses, np.array([[6.0, 10.0]])])
    points = points[points[:, 1] <= RANGES[-1]]
    reach = next((r for r in RANGES if r >= points[:, 1].max() + 1), RANGES[-1])
    lateral = min(float(np.abs(points[:, 0]).max()), 45.0)
    ground = Ground(along, *(STEADY if steady else (reach, lateral)), forward)
    canvas = Canvas(Image.new("RGB", ground.size, GROUND))
    text = min(max(11.0, max(ground.size) / 88), 40.0)
    _draw_ground(canvas, ground, camera, text)
    for group, corners in zip(groups, footprints, strict=True):
        is_label = group is labels
        for name, rectangle in zip(group.classes, corners, strict=True):
            plain = not is_label or found is None
            _draw_footprint(
                canvas, ground, rectangle, class_color(name) if plain else WHITE, text / 11, not plain
            )
    for ellipse in ellipses:
        canvas.line(ground.px(ellipse[:, 0], ellipse[:, 1]), SPREAD, 0.09 * text, 0.9)
    _draw_legend(canvas, ground, found, labels, text)
    for group, corners in zip(groups[:1], footprints[:1], strict=True):
        _draw_distances(canvas, ground, group, corners, text)
    return canvas.finish()


def _footprints(boxes: Boxes3D) -> Points:
    """(N, 4, 2) x, z of the corners: front right, front left, rear left, rear right of the box's own +-z sides."""
    corners: Points = boxes.to("cpu", torch.float64).corners()[:, :4].numpy()
    return corners[..., [0, 2]]


def _draw_ground(canvas: Canvas, ground: Ground, camera: Camera, text: float) -> None:
    """What the camera sees as a lighter wedge, rings round the camera, and the camera."""
    eye, far = ground.px(0.0, 0.0), 2.0 * max(ground.size) / ground.scale
    borders = [ground.px(far * math.sin(a), far * math.cos(a)) for a in _view_edges(camera)]
    if borders:
        canvas.polygon(np.stack([eye, *borders]), VIEW)
    for radius in range(10, int(max(ground.size) / ground.scale) + 1, 10):
        canvas.arc(eye, radius * ground.scale, RING, 1.2 if radius % 20 == 0 else 0.6)
        if radius % 20 == 0:
            _draw_ring_label(canvas, ground, radius, 0.9 * text)
    for border in borders:
        canvas.line(np.stack([eye, border]), RING, 1.2)
    metre = 0.8 * text / ground.scale  # the camera's mark has the size of the text, whatever the scale
    nose = [ground.px(x * metre, z * metre) for x, z in ((0.0, 1.0), (0.75, -1.0), (-0.75, -1.0))]
    canvas.polygon(np.stack(nose), WHITE)


def _draw_ring_label(canvas: Canvas, ground: Ground, radius: int, size: float) -> None:
    """The ring's radius, straight ahead of the camera and just inside (forward right) or beside the line (up)."""
    x, y = ground.px(0.0, float(radius))
    width = 3.4 * size
    if ground.forward == "right":
        canvas.text((x - 4, y - 3), f"{radius} m", size, FAINT, "rd")
        canvas.reserve((x - 4 - width, y - 3 - size, x - 4, y - 3))
    else:
        canvas.text((x + 4, y - 2), f"{radius} m", size, FAINT, "ld")
        canvas.reserve((x + 4, y - 2 - size, x + 4 + width, y - 2))


def _view_edges(camera: Camera) -> tuple[float, ...]:
    """Angles of the image's left and right border against straight ahead, radians; none for a camera without a size."""
    borders = (-0.5, camera.width - 0.5) if camera.width else ()
    return tuple(math.atan2(u - float(camera.cx), float(camera.fx)) for u in borders)


def _draw_footprint(
    canvas: Canvas, ground: Ground, rectangle: Points, color: Color, line: float, dashed: bool
) -> None:
    """The box from above with an arrowhead in its front half."""
    px = ground.px(rectangle[:, 0], rectangle[:, 1])
    closed = np.concatenate([px, px[:1]])
    if not dashed:
        canvas.polygon(px, color, 0.32)
    canvas.line(closed, color, 1.3 * line, 1.0, 3.5 * line if dashed else None)
    front, rear = (px[0] + px[1]) / 2, (px[2] + px[3]) / 2
    middle, side = (front + rear) / 2, 0.38 * (px[0] - px[1])
    if dashed:
        canvas.line(np.stack([middle + side, front, middle - side]), color, 1.1 * line)
    else:
        canvas.polygon(np.stack([middle + side, front, middle - side]), color, 0.95)


def _spreads(group: Drawable) -> list[Points]:
    """(73, 2) x, z of the one-sigma ellipse of each centre on the ground, closed; none where it is not known."""
    if group.covariance is None:
        return []
    centers = group.boxes.center.detach().cpu().double().numpy()[:, [0, 2]]
    spreads = group.covariance.detach().cpu().double().numpy()[:, [0, 2]][:, :, [0, 2]]
    angle = np.linspace(0, 2 * math.pi, 73)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    ellipses = []
    for center, spread in zip(centers, spreads, strict=True):
        if np.isfinite(spread).all():
            value, axes = np.linalg.eigh(spread)
            ellipses.append((axes * np.sqrt(value.clip(0)) @ circle).T + center)
    return ellipses


def _draw_distances(canvas: Canvas, ground: Ground, group: Drawable, corners: Points, text: float) -> None:
    """Metres along the ground beside each box, nearest first, wherever no other label stands."""
    for rectangle in corners:
        px = ground.px(rectangle[:, 0], rectangle[:, 1])
        low, high = px.min(0), px.max(0)
        canvas.reserve((low[0], low[1], high[0], high[1]))
    center = group.boxes.center.detach().cpu().double().numpy()
    distance = np.hypot(center[:, 0], center[:, 2])
    for i in np.argsort(distance):
        px = ground.px(corners[i, :, 0], corners[i, :, 1])
        low, high = px.min(0), px.max(0)
        middle, half = (low + high) / 2, 1.5 * text
        candidates = [
            (middle[0], low[1] - 2), (middle[0], high[1] + 1.15 * text + 2),
            (high[0] + half, middle[1] + 0.5 * text), (low[0] - half, middle[1] + 0.5 * text),
        ]  # fmt: skip
        if high[0] > 0 and high[1] > 0 and low[0] < canvas.width and low[1] < canvas.height:
            canvas.label(candidates, f"{distance[i]:.0f} m", text, None, class_color(group.classes[i]))


def _draw_legend(
    canvas: Canvas, ground: Ground, found: Drawable | None, labels: Drawable | None, text: float
) -> None:
    """Classes and line styles in a corner beside the camera, where the view is not."""
    shown = found if found is not None else labels
    names = sorted(set(shown.classes), key=list(shown.classes).index) if shown is not None else []
    rows = [(name, class_color(name)) for name in names]
    if found is not None and labels is not None:
        rows.append(("label", WHITE))
    if shown is not None and shown.covariance is not None and len(shown.boxes):
        rows.append(("ellipse: one sigma", SPREAD))
    step = 1.45 * text
    top = text if ground.forward == "right" else canvas.height - text - step * len(rows)
    for k, (name, color) in enumerate(rows):
        y = top + (k + 0.5) * step
        dash = 0.3 * text if name == "label" else None
        canvas.line(np.array([[0.8 * text, y], [2.2 * text, y]]), color, 0.22 * text, dash=dash)
        canvas.text((2.7 * text, y), name, text, color, "lm")
    canvas.reserve((0, top - 4, 10 * text, top + step * len(rows) + 4))
