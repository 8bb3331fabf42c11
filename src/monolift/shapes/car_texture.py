"""Paint for a car: windows, lamps, plates, arches and wheels on the fixed atlas of `car_mesh`.

Each texel knows where on the car it lies, so a part is painted as a region of space (a lamp: near the front, off the middle,
below the bonnet's edge) and fits every shape. Front and rear differ: white lamps and a grille against red lamps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monolift.shapes.car_mesh import (
    ATLAS,
    BODY_ROWS,
    STATION_MARKS,
    STATIONS,
    TOP,
    WHEEL_PATCH,
    body_grid,
    ring_row,
)
from monolift.shapes.procedural import COWL, REAR_GLASS, ROOF_END, SCREEN_TOP, CarShape, polygon_distance

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

CHANNELS = 4  # red, green, blue (linear, 0 to 1) and gloss

# Paints as linear RGB with their shares on German streets of the 2010s, roughly.
_PAINTS = (
    ((0.010, 0.010, 0.012), 0.22), ((0.40, 0.41, 0.42), 0.20), ((0.12, 0.125, 0.13), 0.17), ((0.72, 0.72, 0.70), 0.11),
    ((0.025, 0.045, 0.13), 0.09), ((0.30, 0.015, 0.015), 0.07), ((0.05, 0.14, 0.32), 0.04), ((0.03, 0.07, 0.045), 0.03),
    ((0.24, 0.20, 0.13), 0.04), ((0.55, 0.36, 0.02), 0.02), ((0.45, 0.10, 0.01), 0.01),
)  # fmt: skip
_VAN_WHITE = 0.5  # share of vans that are white


@dataclass(frozen=True)
class CarStyle:
    """What is not shape. paint (3,) linear RGB; glass its brightness; trim whether bumpers and sills are unpainted plastic;
    rim brightness of the wheels; spokes their number; blind whether the rear sides have no windows (delivery vans)."""

    paint: tuple[float, float, float]
    glass: float
    trim: bool
    rim: float
    spokes: int
    blind: bool

    def vector(self) -> FloatArray:
        """(8,) the numbers of the style: its code."""
        return np.array([*self.paint, self.glass, self.trim, self.rim, self.spokes, self.blind], float)


def sample_style(rng: np.random.Generator, kind: str = "car") -> CarStyle:
    """A style; equal seeds, equal styles."""
    colours, shares = zip(*_PAINTS, strict=True)
    paint = np.array(colours[rng.choice(len(colours), p=shares)])
    if kind == "van" and rng.random() < _VAN_WHITE:
        paint = np.array(colours[3])
    paint = np.clip(paint * rng.uniform(0.7, 1.3) + rng.normal(0, 0.006, 3), 0.004, 0.8)
    red, green, blue = (float(c) for c in paint)
    return CarStyle(
        paint=(red, green, blue),
        glass=float(rng.uniform(0.008, 0.03)),
        trim=bool(rng.random() < (0.6 if kind == "van" else 0.25)),
        rim=float(rng.uniform(0.12, 0.45)),
        spokes=int(rng.integers(5, 10)),
        blind=bool(kind == "van" and rng.random() < 0.65),
    )


def paint(shape: CarShape, style: CarStyle) -> npt.NDArray[np.float32]:
    """(128, 256, 4) float32 texture: linear RGB and gloss."""
    canvas = np.zeros((*ATLAS, CHANNELS), np.float32)
    position, mark = _texel_positions(shape)
    canvas[:BODY_ROWS] = _paint_body(shape, style, position, mark)
    canvas[BODY_ROWS : BODY_ROWS + WHEEL_PATCH, :WHEEL_PATCH] = _paint_wheel(style)
    return canvas


def _texel_positions(shape: CarShape) -> tuple[FloatArray, FloatArray]:
    """(96, 256, 3) forward, up and (unsigned) across of each texel of the body, and its landmark coordinate (96, 256)."""
    grid = body_grid(shape)[0].transpose(1, 0, 2)
    station = np.linspace(0, STATIONS - 1, ATLAS[1])
    ring = np.interp((np.arange(BODY_ROWS) + 0.5) / ATLAS[0], ring_row(), np.arange(len(ring_row())))

    def blend(values: FloatArray, index: FloatArray) -> FloatArray:
        low = np.minimum(index.astype(int), len(values) - 2)
        share = (index - low)[:, None, None]
        return values[low] * (1 - share) + values[low + 1] * share

    rows = blend(grid, ring)
    position = blend(rows.transpose(1, 0, 2), station).transpose(1, 0, 2)
    position[..., 1] = shape.height / 2 - position[..., 1]
    mark = np.interp(station, np.arange(STATIONS), STATION_MARKS)
    return position, np.broadcast_to(mark, position.shape[:2])


def _paint_body(shape: CarShape, style: CarStyle, position: FloatArray, mark: FloatArray) -> FloatArray:
    forward, up, across = np.moveaxis(position, -1, 0)
    from_front, from_rear = shape.length / 2 - forward, forward + shape.length / 2
    half = shape.half_width(forward, up)
    lateral = across / half
    row = np.arange(BODY_ROWS)[:, None] + np.zeros_like(forward)
    # The floor's rows also hold the lower halves of bumper and stern, where they rise.
    below = row > 91
    on_floor = below & (up < shape.clearance + 0.05)
    side = (row >= 9 * (TOP - 1) - 2) & ~below
    canvas = np.empty((*forward.shape, CHANNELS), np.float32)
    canvas[:] = (*style.paint, 0.5)

    def fill(where: BoolArray, colour: tuple[float, float, float], gloss: float) -> None:
        canvas[where] = (*colour, gloss)

    plastic = (0.028, 0.028, 0.03)
    glass = (style.glass, style.glass * 1.1, style.glass * 1.15)
    fill(up < shape.clearance + 0.045, plastic, 0.05)
    if style.trim:
        fill((up < 0.9 * shape.nose) & ((from_front < 0.35) | (from_rear < 0.35)), plastic, 0.1)
        fill(side & (np.abs(up - 0.9 * shape.nose) < 0.045), plastic, 0.1)
    _paint_windows(shape, style, position, mark, side, lambda where: fill(where, glass, 1.0))

    front, rear = (from_front < 0.45) & (mark < COWL - 0.4), (from_rear < 0.40) & (mark > REAR_GLASS - 0.6)
    chin = shape.bonnet - 0.02
    lamp_height = 0.14 * shape.height / 1.5
    fill(front & (lateral < 0.52) & (up < chin) & (up > chin - 0.75 * lamp_height), plastic, 0.4)
    fill(front & (lateral < 0.62) & (up < 0.8 * shape.nose) & (up > 0.8 * shape.nose - 0.16), plastic, 0.1)
    lamp = front & (lateral > 0.56) & (from_front < 0.34) & (up < chin + 0.03) & (up > chin - lamp_height)
    fill(lamp, (0.03, 0.03, 0.032), 0.9)
    fill(
        lamp
        & (lateral > 0.60)
        & (from_front < 0.30)
        & (np.abs(up - chin + 0.5 * lamp_height) < 0.4 * lamp_height),
        (0.7, 0.73, 0.76),
        1.0,
    )
    fill(
        front & (from_front < 0.2) & (across < 0.26) & (np.abs(up - 0.98 * shape.nose) < 0.06),
        (0.8, 0.8, 0.78),
        0.2,
    )
    # Rear lamps stand upright at hatchbacks and vans, lie below the edge of a boot.
    upright = shape.rear_glass_at > 0.9
    top = shape.rear_glass + (0.02 if upright else -0.06)
    bottom = top - (0.34 if upright else 0.17) * shape.height / 1.5
    fill(
        rear & (lateral > (0.74 if upright else 0.6)) & (from_rear < 0.24) & (up < top) & (up > bottom),
        (0.42, 0.012, 0.01),
        0.9,
    )
    middle = bottom + 0.3 * (top - bottom)
    band = rear & (lateral > (0.74 if upright else 0.6)) & (np.abs(up - middle) < 0.03) & (from_rear < 0.2)
    fill(band, (0.75, 0.55, 0.5), 0.9)
    plate = 0.5 * (bottom + shape.stern) if upright else 0.98 * shape.stern + 0.1
    fill(rear & (across < 0.26) & (np.abs(up - plate) < 0.06), (0.8, 0.8, 0.76), 0.2)
    fill((from_rear < 0.3) & (up < shape.clearance + 0.11) & (lateral < 0.7) & (mark > 6), plastic, 0.1)

    _paint_side_lines(shape, forward, up, side, canvas)
    for axle in shape.axles():
        radius = np.hypot(forward - axle, up - shape.wheel_radius)
        fill((side | on_floor) & (radius < shape.wheel_radius + 0.055), (0.006, 0.006, 0.006), 0.0)
    fill(on_floor, (0.004, 0.004, 0.004), 0.0)
    return canvas


def _paint_windows(
    shape: CarShape,
    style: CarStyle,
    position: FloatArray,
    mark: FloatArray,
    side: BoolArray,
    fill: Callable[[BoolArray], None],
) -> None:
    """Windscreen, rear window and side windows, with pillars of paint between them."""
    forward, up, across = np.moveaxis(position, -1, 0)
    half = shape.half_width(forward, up)
    upright = shape.rear_glass_at > 0.9
    in_frame = (across < half - 0.085) & (up > 0.45 * shape.height)
    fill(in_frame & (mark > COWL + 0.06) & (mark < SCREEN_TOP - 0.06))
    if not style.blind:
        fill(in_frame & (mark > ROOF_END + (0.12 if upright else 0.1)) & (mark < REAR_GLASS - 0.04))
    pane = side & (up > shape.belt + 0.035)
    outline = shape.outline[0][::2]
    pane[pane] = polygon_distance(outline, np.stack([forward[pane], up[pane]], 1))[0] < -0.085
    doors = shape.length * (0.5 - np.array([_door_split(shape), _rear_pillar(shape)]))
    for pillar in doors:
        pane &= np.abs(forward - pillar) > 0.04
    if style.blind or shape.kind == "pickup":
        pane &= forward > doors[0]
    fill(pane)


def _door_split(shape: CarShape) -> float:
    """Where the pillar between the doors stands, as a share of the length."""
    return 0.36 if shape.kind == "van" else 0.5 * (shape.cowl_at + 0.78) - 0.01


def _rear_pillar(shape: CarShape) -> float:
    return 0.66 if shape.kind == "van" else 0.76


def _paint_side_lines(
    shape: CarShape, forward: FloatArray, up: FloatArray, side: BoolArray, canvas: FloatArray
) -> None:
    """Gaps between the doors, and handles."""
    places = [shape.cowl_at + 0.03, _door_split(shape), _rear_pillar(shape) - 0.03]
    for share in places:
        near = np.abs(forward - shape.length * (0.5 - share)) < 0.016
        canvas[side & near & (up > shape.clearance + 0.1) & (up < shape.belt), :3] *= 0.35
    for share in places[1:]:
        middle = shape.length * (0.5 - share) + 0.14
        handle = (np.abs(forward - middle) < 0.08) & (np.abs(up - 0.86 * shape.belt) < 0.02)
        canvas[side & handle, :3] = 0.5 * canvas[side & handle, :3] + 0.04


def _paint_wheel(style: CarStyle) -> FloatArray:
    """(32, 32, 4): tyre, rim with spokes, hub."""
    axis = np.arange(WHEEL_PATCH) + 0.5 - WHEEL_PATCH / 2
    x, y = np.meshgrid(axis, axis)
    radius, angle = np.hypot(x, y) / (WHEEL_PATCH / 2 - 1), np.arctan2(y, x)
    canvas = np.zeros((WHEEL_PATCH, WHEEL_PATCH, CHANNELS), np.float32)
    canvas[:] = (0.012, 0.012, 0.012, 0.0)
    spoke = np.cos(style.spokes * angle) > -0.25
    rim = (radius < 0.66) & (spoke | (radius > 0.56) | (radius < 0.2))
    canvas[rim] = (style.rim, style.rim, style.rim * 1.02, 0.4)
    canvas[radius < 0.09] = (0.03, 0.03, 0.03, 0.2)
    return canvas
