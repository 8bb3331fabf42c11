"""Paint for a car: windows, lamps, plates, arches and wheels on the fixed atlas of `car_mesh`.

Each texel knows where on the car it lies, so a part is painted as a region of space (a lamp: near the front, off the middle,
below the bonnet's edge) and fits every shape. Edges are smooth: a texel that a region's border crosses takes its share of the
paint. Front and rear differ: white lamps and a grille against red lamps.
"""

from __future__ import annotations

import functools
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
Colour = tuple[float, float, float]

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
    body = _Body(shape, style, position, mark)
    body.bumpers()
    body.windows()
    body.front()
    body.rear()
    body.seams()
    body.underside()
    canvas[:BODY_ROWS] = body.canvas
    canvas[BODY_ROWS : BODY_ROWS + WHEEL_PATCH, :WHEEL_PATCH] = _paint_wheel(style)
    return canvas


def _texel_positions(shape: CarShape) -> tuple[FloatArray, FloatArray]:
    """(96, 256, 3) forward, up and (unsigned) across of each texel of the body, and its landmark coordinate (96, 256)."""
    grid = body_grid(shape)[0].transpose(1, 0, 2).astype(np.float32)
    station = np.linspace(0, STATIONS - 1, ATLAS[1])
    ring = np.interp((np.arange(BODY_ROWS) + 0.5) / ATLAS[0], ring_row(), np.arange(len(ring_row())))

    def blend(values: FloatArray, index: FloatArray) -> FloatArray:
        low = np.minimum(index.astype(int), len(values) - 2)
        share = (index - low)[:, None, None].astype(np.float32)
        return values[low] * (1 - share) + values[low + 1] * share

    rows = blend(grid, ring)
    position = blend(rows.transpose(1, 0, 2), station).transpose(1, 0, 2)
    position[..., 1] = shape.height / 2 - position[..., 1]
    mark = np.interp(station, np.arange(STATIONS), STATION_MARKS)
    return position, np.broadcast_to(mark, position.shape[:2])


class _Field:
    """A number at each texel, such as the height above the ground. Its methods give (96, 256) signed distances from the border
    of a region, positive inside, in texels."""

    def __init__(self, values: FloatArray) -> None:
        self.values = values.astype(np.float32)
        step = np.full_like(self.values, 1e-5)  # how much the field changes over a texel
        for here, change in ((step, np.diff(self.values, axis=0)), (step.T, np.diff(self.values, axis=1).T)):
            here[1:] += np.abs(change)
            here[0] += np.abs(change[0])
        self.scale = 1 / step

    def below(self, limit: float) -> FloatArray:
        return (np.float32(limit) - self.values) * self.scale

    def above(self, limit: float) -> FloatArray:
        return (self.values - np.float32(limit)) * self.scale

    def near(self, middle: float, reach: float) -> FloatArray:
        return (np.float32(reach) - np.abs(self.values - np.float32(middle))) * self.scale


_PLASTIC = (0.022, 0.022, 0.024)
_BLACK = (0.008, 0.008, 0.008)
_CHROME = (0.40, 0.41, 0.42)


class _Body:
    """The body's canvas, (96, 256, 4), and where on the car its texels lie."""

    def __init__(self, shape: CarShape, style: CarStyle, position: FloatArray, mark: FloatArray) -> None:
        forward, up, across = np.moveaxis(position.astype(np.float32), -1, 0)
        half = shape.half_width(forward, up)
        self.shape, self.style = shape, style
        self.forward, self.up, self.across = _Field(forward), _Field(up), _Field(across)
        self.from_front, self.from_rear = (
            _Field(shape.length / 2 - forward),
            _Field(shape.length / 2 + forward),
        )
        self.lateral, self.inward, self.mark = _Field(across / half), _Field(half - across), _Field(mark)
        row = _Field(np.repeat(np.arange(float(BODY_ROWS))[:, None], forward.shape[1], 1))
        # The last rows are the floor, and hold the lower halves of bumper and stern where they rise.
        self.side = np.minimum(row.above(9 * (TOP - 1) - 2), row.below(91.5))
        self.floor = np.minimum(row.above(91.5), self.up.below(shape.clearance + 0.05))
        self.hatch = shape.rear_glass_at > 0.9
        self.canvas = np.empty((*forward.shape, CHANNELS), np.float32)
        self.canvas[:] = (*style.paint, 0.5)

    def fill(self, colour: Colour, gloss: float, *where: FloatArray, strength: float = 1.0) -> None:
        """Paint the texels that lie inside all regions."""
        cover = functools.reduce(np.minimum, where).ravel()
        touched = np.flatnonzero(cover > -0.5)
        share = np.minimum(cover[touched] + np.float32(0.5), 1)[:, None] * np.float32(strength)
        paint = np.array([*colour, gloss], np.float32)
        texels = self.canvas.reshape(-1, CHANNELS)
        texels[touched] = texels[touched] * (1 - share) + paint * share

    def bumpers(self) -> None:
        """Unpainted plastic along the lower edge, and as a style round the ends and along the sides."""
        shape = self.shape
        self.fill(_PLASTIC, 0.05, self.up.below(shape.clearance + 0.045))
        if self.style.trim:
            for end in (self.from_front, self.from_rear):
                self.fill(_PLASTIC, 0.1, self.up.below(0.9 * shape.nose), end.below(0.35))
            self.fill(_PLASTIC, 0.1, self.side, self.up.near(0.9 * shape.nose, 0.045))

    def windows(self) -> None:
        """Windscreen, rear window, and side windows with a dark pillar between the doors."""
        shape, style = self.shape, self.style
        glass = (style.glass, style.glass * 1.1, style.glass * 1.15)
        framed = np.minimum(self.inward.above(0.085), self.up.above(0.45 * shape.height))
        for paint, extra in ((_BLACK, 0.035), (glass, 0.0)):  # the seal, then the glass
            inner = framed - 1.0 * (extra == 0)
            gloss = 1.0 if extra == 0 else 0.3
            self.fill(
                paint,
                gloss,
                inner,
                self.mark.above(COWL + 0.06 - extra),
                self.mark.below(SCREEN_TOP - 0.06 + extra),
            )
            if not style.blind:
                start = ROOF_END + (0.12 if self.hatch else 0.1)
                self.fill(
                    paint,
                    gloss,
                    inner,
                    self.mark.above(start - extra),
                    self.mark.below(REAR_GLASS - 0.04 + extra),
                )
        from_roof = _Field(self._below_outline())
        pillars = [shape.length * (0.5 - share) for share in (_door_split(shape), _rear_pillar(shape))]
        behind = self.forward.above(pillars[0]) if style.blind or shape.kind == "pickup" else self.side
        self.fill(_BLACK, 0.3, self.side, self.up.above(shape.belt + 0.02), from_roof.above(0.07), behind)
        panes = [self.side, self.up.above(shape.belt + 0.04), from_roof.above(0.09), behind]
        panes += [-self.forward.near(pillar, 0.04) for pillar in pillars]
        self.fill(glass, 1.0, *panes)

    def _below_outline(self) -> FloatArray:
        """(96, 256) how far each texel of the greenhouse lies inside the profile, metres; 0 below the belt line.

        The field is smooth: every third row and column will do.
        """
        shape, rows, columns = self.shape, np.arange(0, BODY_ROWS, 3), np.arange(0, ATLAS[1], 3)
        grid = np.ix_(rows, columns)
        forward, up = self.forward.values[grid], self.up.values[grid]
        found = np.zeros(forward.shape)
        high = up > shape.belt - 0.12
        points = np.stack([forward[high], up[high]], 1).astype(np.float64)
        found[high] = -polygon_distance(shape.outline[0][::3], points)[0]
        wide = np.stack([np.interp(np.arange(ATLAS[1]), columns, line) for line in found])
        return np.stack([np.interp(np.arange(BODY_ROWS), rows, line) for line in wide.T], 1)

    def front(self) -> None:
        """Grille, air intake, head lamps and plate."""
        shape, up, lateral = self.shape, self.up, self.lateral
        nose = np.minimum(self.from_front.below(0.45), self.mark.below(COWL - 0.4))
        edge = shape.bonnet - 0.02
        lamp = 0.14 * shape.height / 1.5
        grille = np.minimum(up.below(edge), up.above(edge - 0.75 * lamp))
        self.fill(_CHROME, 0.8, nose, lateral.below(0.54), grille)
        for k in range(3):  # slats
            self.fill(
                _BLACK, 0.2, nose, lateral.below(0.51), up.near(edge - (k + 0.5) * 0.25 * lamp, 0.1 * lamp)
            )
        self.fill(
            _BLACK,
            0.1,
            nose,
            lateral.below(0.62),
            up.below(0.8 * shape.nose),
            up.above(0.8 * shape.nose - 0.15),
        )
        self.fill(_BLACK, 0.1, nose, lateral.near(0.74, 0.07), up.near(0.8 * shape.nose - 0.07, 0.05))
        housing = [nose, lateral.above(0.56), self.from_front.below(0.36), up.below(edge + 0.03)]
        self.fill((0.09, 0.09, 0.10), 0.9, *housing, up.above(edge - lamp))
        middle = edge - 0.48 * lamp
        self.fill((0.62, 0.65, 0.68), 0.95, *housing, lateral.above(0.585), self.from_front.below(0.31),
                  up.near(middle, 0.38 * lamp))  # fmt: skip
        for where in (0.68, 0.86):  # reflectors
            self.fill((0.88, 0.9, 0.92), 1.0, nose, lateral.near(where, 0.055), self.from_front.below(0.31),
                      up.near(middle, 0.30 * lamp))  # fmt: skip
        self.plate(nose, self.from_front.below(0.2), 0.98 * shape.nose)

    def rear(self) -> None:
        """Tail lamps, plate and the lower edge of the bumper. Lamps stand upright at hatchbacks and vans, and lie below the
        edge of a boot."""
        shape, up, lateral = self.shape, self.up, self.lateral
        stern = np.minimum(self.from_rear.below(0.40), self.mark.above(REAR_GLASS - 0.6))
        top = shape.rear_glass + (0.02 if self.hatch else -0.06)
        bottom = top - (0.34 if self.hatch else 0.17) * shape.height / 1.5
        inner = 0.74 if self.hatch else 0.6
        lamp = [stern, lateral.above(inner), self.from_rear.below(0.24)]
        frame = [stern, lateral.above(inner - 0.03), self.from_rear.below(0.27)]
        self.fill((0.10, 0.004, 0.004), 0.6, *frame, up.below(top + 0.015), up.above(bottom - 0.015))
        self.fill((0.42, 0.012, 0.01), 0.9, *lamp, up.below(top), up.above(bottom))
        middle = bottom + 0.3 * (top - bottom)
        self.fill((0.55, 0.42, 0.38), 0.9, *lamp, lateral.above(inner + 0.05), up.near(middle, 0.028))
        plate = 0.5 * (bottom + shape.stern) if self.hatch else 0.98 * shape.stern + 0.1
        self.fill(
            self._shaded(0.55),
            0.3,
            stern,
            self.from_rear.below(0.2),
            self.across.below(0.31),
            up.near(plate, 0.085),
        )
        self.plate(stern, self.from_rear.below(0.2), plate)
        behind = [self.from_rear.below(0.3), self.mark.above(6)]
        self.fill(_PLASTIC, 0.1, *behind, up.below(shape.clearance + 0.11), lateral.below(0.7))

    def plate(self, end: FloatArray, at_end: FloatArray, height: float) -> None:
        """A number plate: white, with a dark frame and something like writing."""
        for paint, reach, rise in ((_BLACK, 0.272, 0.068), ((0.78, 0.78, 0.76), 0.255, 0.054)):
            self.fill(paint, 0.2, end, at_end, self.across.below(reach), self.up.near(height, rise))
        writing = [self.across.below(0.20), self.up.near(height, 0.026)]
        self.fill(_BLACK, 0.2, end, at_end, *writing, strength=0.55)

    def seams(self) -> None:
        """Gaps between the doors, round bonnet and hatch; handles."""
        shape, dark = self.shape, self._shaded(0.3)
        doors = [shape.cowl_at + 0.03, _door_split(shape), _rear_pillar(shape) - 0.03]
        for share in doors:
            gap = self.forward.near(shape.length * (0.5 - share), 0.008)
            self.fill(
                dark, 0.2, self.side, gap, self.up.above(shape.clearance + 0.1), self.up.below(shape.belt)
            )
        for share in doors[1:]:
            handle = self.forward.near(shape.length * (0.5 - share) + 0.14, 0.08)
            self.fill(self._shaded(0.45), 0.6, self.side, handle, self.up.near(0.86 * shape.belt, 0.016))
        bonnet = [self.mark.above(0.8), self.mark.below(COWL + 0.02)]
        self.fill(dark, 0.2, *bonnet, self.inward.near(0.13, 0.006), self.up.above(shape.bonnet - 0.02))
        if self.hatch:
            self.fill(dark, 0.2, self.mark.above(ROOF_END + 0.2), self.from_rear.below(0.5), self.lateral.near(0.72, 0.008),
                      self.up.below(shape.rear_glass), self.up.above(shape.stern))  # fmt: skip

    def underside(self) -> None:
        """Wheel arches and floor."""
        for axle in self.shape.axles():
            radius = _Field(
                np.hypot(self.forward.values - axle, self.up.values - self.shape.wheel_radius)
            ).below(self.shape.wheel_radius + 0.045)
            self.fill(_BLACK, 0.0, np.maximum(self.side, self.floor), radius)
        self.fill((0.004, 0.004, 0.004), 0.0, self.floor)

    def _shaded(self, share: float) -> Colour:
        red, green, blue = self.style.paint
        return red * share, green * share, blue * share


def _door_split(shape: CarShape) -> float:
    """Where the pillar between the doors stands, as a share of the length."""
    return 0.36 if shape.kind == "van" else 0.5 * (shape.cowl_at + 0.78) - 0.01


def _rear_pillar(shape: CarShape) -> float:
    return 0.66 if shape.kind == "van" else 0.76


def _paint_wheel(style: CarStyle) -> FloatArray:
    """(32, 32, 4): tyre, rim with spokes, hub; the mean of 4 x 4 samples per texel."""
    radius, angle = _wheel_samples()
    canvas = np.zeros((*radius.shape, CHANNELS), np.float32)
    canvas[:] = (0.012, 0.012, 0.012, 0.0)
    spoke = np.cos(style.spokes * angle) > 0.25 - 0.9 * radius
    rim = (radius < 0.68) & (spoke | (radius > 0.58) | (radius < 0.2))
    canvas[rim] = (style.rim, style.rim, style.rim * 1.02, 0.4)
    canvas[radius < 0.09] = (0.03, 0.03, 0.03, 0.2)
    return canvas.reshape(WHEEL_PATCH, 4, WHEEL_PATCH, 4, CHANNELS).mean((1, 3))


@functools.lru_cache(maxsize=1)
def _wheel_samples() -> tuple[FloatArray, FloatArray]:
    """(128, 128) share of the wheel's radius, and angle."""
    axis = np.arange(4 * WHEEL_PATCH, dtype=np.float32) + 0.5 - 2 * WHEEL_PATCH
    x, y = np.meshgrid(axis, axis)
    return np.hypot(x, y) / (2 * WHEEL_PATCH - 4), np.arctan2(y, x)
