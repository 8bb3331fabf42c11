"""A parametric family of cars as an analytic signed distance.

From it come a TSDF (`tsdf`), a mesh of fixed topology (`car_mesh`) and a texture (`car_texture`). A body is its side profile
(bumper, bonnet, windscreen, roof, rear) extruded across its width; the width tapers towards the ends and, above the belt line,
towards the roof (tumblehome). Arches are cut out and wheels put in.

Object frame, as `geometry.Boxes3D`: x to the front, y down, z along the width, origin in the centre of the box, metres.
The profile is written in (forward, up) coordinates with the ground at 0, where cars are easier to think of.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

EDGE_RADIUS = 0.07  # metres; how far the edges between profile and sides are rounded
CORNER_SIGMA = 0.045  # metres; how far the corners of the profile are smoothed
OUTLINE_POINTS = 160
# Positions of the profile's landmarks, named; `landmarks` holds them in this order, over the top and back below.
NOSE, BONNET, COWL, SCREEN_TOP, ROOF_END, REAR_GLASS, TAIL, STERN, REAR_SILL, FRONT_SILL = range(10)


@dataclass(frozen=True)
class CarShape:
    """One car. Lengths in metres; `*_at` are shares of the length, counted from the front."""

    kind: str
    """small, car, large, suv, van or pickup."""
    length: float
    height: float
    width: float
    clearance: float
    """Height of the body's underside above the ground."""
    nose: float
    """Height of the bumper's foremost point."""
    bonnet: float
    """Height of the bonnet's front edge."""
    cowl_at: float
    cowl: float
    """Where and how high the windscreen begins."""
    screen_top_at: float
    """Where the windscreen meets the roof."""
    roof_end_at: float
    roof_end: float
    """Where the roof ends and how high it is there, as a share of the height."""
    rear_glass_at: float
    rear_glass: float
    """Lower edge of the rear window: place and height."""
    tail: float
    """Height of the tail's upper edge."""
    stern: float
    """Height of the rear bumper's hindmost point."""
    tumblehome: float
    """Width of the roof as a share of the width at the belt line."""
    taper_front: float
    taper_rear: float
    """Share of the half width lost at the ends."""
    wheel_radius: float
    front_axle_at: float
    rear_axle_at: float

    @property
    def belt(self) -> float:
        """Height of the side windows' lower edge."""
        return self.cowl + 0.02

    def landmarks(self) -> FloatArray:
        """(10, 2) corners of the side profile before smoothing: (share of the length from the front, height)."""
        h = self.height
        return np.array([
            (0.0, self.nose),
            (0.018, self.bonnet),
            (self.cowl_at, self.cowl),
            (self.screen_top_at, 0.985 * h),
            (self.roof_end_at, self.roof_end * h),
            (self.rear_glass_at, self.rear_glass),
            (0.985, self.tail),
            (1.0, self.stern),
            (0.975, self.clearance + 0.06),
            (0.03, self.clearance + 0.02),
        ])  # fmt: skip

    @cached_property
    def outline(self) -> tuple[FloatArray, FloatArray]:
        """The smoothed profile: points (P, 2) in (forward, up), and for each its landmark coordinate (P,).

        The landmark coordinate runs from 0 at the nose over the roof to 7 at the stern and back below to 10: a point
        half way up the windscreen has COWL + 0.5 in every car.
        """
        corners = self.landmarks()
        corners[:, 0] = self.length * (0.5 - corners[:, 0])
        # The roof is arched: one more point between windscreen and roof end, at the full height.
        crown = np.array([0.55 * corners[SCREEN_TOP, 0] + 0.45 * corners[ROOF_END, 0], self.height])
        loop = np.insert(corners, ROOF_END, crown, 0)
        mark = np.array([0, 1, 2, 3, 3.45, 4, 5, 6, 7, 8, 9, 10.0])
        loop = np.vstack([loop, loop[:1]])
        run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(loop, axis=0), axis=1))])
        fine = np.linspace(0, run[-1], 1024, endpoint=False)
        points = np.stack([np.interp(fine, run, loop[:, k]) for k in range(2)], 1)
        points = _smooth_loop(points, CORNER_SIGMA * 1024 / run[-1])
        # Smoothing shrinks: stretch back, so that the profile touches its box.
        low, high = points.min(0), points.max(0)
        points[:, 0] = (points[:, 0] - low[0]) / (high[0] - low[0]) * self.length - self.length / 2
        bottom = self.clearance
        points[:, 1] = (points[:, 1] - low[1]) / (high[1] - low[1]) * (self.height - bottom) + bottom
        marks = np.interp(fine, run, mark)
        keep = np.linspace(0, 1024, OUTLINE_POINTS, endpoint=False).astype(int)
        extremes = [int(points[:, 0].argmin()), int(points[:, 0].argmax()), int(points[:, 1].argmax())]
        keep = np.unique(np.concatenate([keep, extremes]))
        return points[keep], marks[keep]

    def half_width(self, forward: FloatArray, up: FloatArray) -> FloatArray:
        """Half the width of the body, metres, at (forward, up): widest below the belt line at mid length."""
        belt = self.belt
        low = np.clip((0.62 * belt - up) / (0.62 * belt), 0, 1)
        lower = 1.0 - 0.05 * low * np.sqrt(low)
        waist = 1.0 - 0.03 * np.clip((up - 0.8 * belt) / (0.2 * belt), 0, 1) ** 2
        inward = (1.0 - self.tumblehome) * np.clip((up - belt) / max(self.height - belt, 0.2), 0, 1)
        reach = 0.25 * self.length
        front = np.clip((forward - (self.length / 2 - reach)) / reach, 0, 1)
        rear = np.clip((-forward - (self.length / 2 - reach)) / reach, 0, 1)
        plan = 1.0 - self.taper_front * np.square(front * front) - self.taper_rear * np.square(rear * rear)
        return self.width / 2 * plan * (lower * waist - inward)

    def axles(self) -> FloatArray:
        """(2,) forward coordinate of the front and rear axle."""
        return self.length * (0.5 - np.array([self.front_axle_at, self.rear_axle_at]))

    def vector(self) -> FloatArray:
        """(21,) the numbers of the shape in the order of its fields: its code."""
        return np.array([getattr(self, f.name) for f in fields(self)[1:]])

    def resized(self, length: float, height: float, width: float) -> CarShape:
        """The same design in another box: heights follow the height, all else stays in proportion."""
        up = height / self.height
        scaled = {
            n: getattr(self, n) * up
            for n in ("clearance", "nose", "bonnet", "cowl", "rear_glass", "tail", "stern")
        }
        return replace(
            self, length=length, height=height, width=width, wheel_radius=self.wheel_radius * up, **scaled
        )


def _smooth_loop(points: FloatArray, sigma: float) -> FloatArray:
    """A closed curve (P, 2) convolved with a Gaussian of `sigma` points, through its Fourier coefficients."""
    frequency = np.fft.fftfreq(len(points))[:, None]
    damping = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    return np.fft.ifft(np.fft.fft(points, axis=0) * damping, axis=0).real


# --- signed distance


def body_distance(shape: CarShape, points: FloatArray) -> FloatArray:
    """(N,) signed distance, metres, negative inside, to the body without arches and wheels; points (N, 3)."""
    return body_distance_and_normal(shape, points)[0]


def body_distance_and_normal(shape: CarShape, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`body_distance` (N,) and its direction of steepest growth (N, 3), unit length: outward, on the surface the normal."""
    forward, up = points[:, 0], shape.height / 2 - points[:, 1]
    profile, along = polygon_distance(shape.outline[0], np.stack([forward, up], 1))
    half = shape.half_width(forward, up)
    # The side leans: its distance is overstated by up to the slope of `half_width`.
    side = (np.abs(points[:, 2]) - half) / 1.1
    step = 1e-4
    slope_forward = (shape.half_width(forward + step, up) - half) / step
    slope_up = (shape.half_width(forward, up + step) - half) / step
    across = np.stack([-slope_forward, slope_up, np.where(points[:, 2] < 0, -1.0, 1.0)], 1) / 1.1
    # A maximum whose crease is rounded where the two differ by less than the radius.
    blend = np.clip(0.5 - 0.5 * np.abs(profile - side) / EDGE_RADIUS, 0, None)
    value = np.maximum(profile, side) + blend * blend * EDGE_RADIUS
    share = np.where(profile > side, 1 - blend, blend)[:, None]
    lengthwise = np.stack([along[:, 0], -along[:, 1], np.zeros(len(points))], 1)
    slope = share * lengthwise + (1 - share) * across
    return value, slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)


def distance(shape: CarShape, points: FloatArray) -> FloatArray:
    """(N,) signed distance, metres, negative inside, to the car; points (N, 3) in the object frame.

    The zero set is exact; away from it the value is a lower bound of the true distance, as maxima and minima of distances are
    (to about 10 % where the body tapers).
    """
    body = body_distance(shape, points)
    wheels = np.full(len(points), np.inf)
    inner = shape.width / 2 - 0.28
    across = np.abs(points[:, 2])
    for axle in shape.axles():
        radius = np.hypot(points[:, 0] - axle, shape.height / 2 - shape.wheel_radius - points[:, 1])
        arch = np.maximum(radius - shape.wheel_radius - 0.05, inner - across)
        body = np.maximum(body, -arch)
        tyre = np.maximum(radius - shape.wheel_radius, np.abs(across - wheel_middle(shape)) - WHEEL_HALF)
        wheels = np.minimum(wheels, tyre)
    return np.minimum(body, wheels)


WHEEL_HALF = 0.095  # metres; half the width of a tyre


def wheel_middle(shape: CarShape) -> float:
    """Distance of the wheels' middle planes from the car's, metres."""
    return shape.width / 2 * 0.985 - WHEEL_HALF


def polygon_distance(polygon: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Exact signed distance (N,), negative inside, of points (N, 2) to a closed polygon (P, 2); and its gradient (N, 2)."""
    # Portions whose (points x edges) tables stay in the processor's cache.
    parts = [_polygon_distance(polygon, points[k : k + 256]) for k in range(0, len(points), 256)]
    if not parts:
        return np.zeros(0), np.zeros((0, 2))
    return np.concatenate([d for d, _ in parts]), np.concatenate([g for _, g in parts])


def _polygon_distance(polygon: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    following = np.roll(polygon, -1, 0)
    edges = following - polygon
    squared_length = np.maximum((edges * edges).sum(1), 1e-12)
    # Which edge is nearest, from products of matrices: |p - a - s e|^2 without its |p|^2, with s the share along the edge.
    along = points @ edges.T - (polygon * edges).sum(1)
    share = np.clip(along / squared_length, 0, 1)
    score = share * squared_length
    score -= 2 * along
    score *= share
    score += (polygon * polygon).sum(1) - 2 * (points @ polygon.T)
    nearest = score.argmin(1)
    edge = edges[nearest]
    offset = points - polygon[nearest]
    share = np.clip((offset * edge).sum(1) / squared_length[nearest], 0, 1)
    offset -= share[:, None] * edge
    length = np.hypot(offset[:, 0], offset[:, 1])
    sign = np.where(_crossings(polygon, following, points) % 2, -1.0, 1.0)
    # On the polygon itself the offset has no direction: take the edge's outward normal.
    normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.sqrt(squared_length[nearest])[:, None]
    far = (length > 1e-7)[:, None]
    outward = offset * (sign / np.maximum(length, 1e-7))[:, None]
    return sign * length, np.where(far, outward, _outward(polygon) * normal)


def _crossings(start: FloatArray, end: FloatArray, points: FloatArray) -> IntArray:
    """(N,) how many edges a ray from each point towards +x crosses."""
    above = start[:, 1] > points[:, 1:]
    point, edge = np.nonzero(above != np.roll(above, -1, 1))
    (ax, ay), (bx, by) = start[edge].T, end[edge].T
    x, y = points[point].T
    return np.bincount(point[x < ax + (y - ay) * (bx - ax) / (by - ay)], minlength=len(points))


def _outward(polygon: FloatArray) -> float:
    """+1 when (dy, -dx) of the edges points out of the polygon, -1 when it points in."""
    x, y = polygon.T
    return 1.0 if (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0 else -1.0


@dataclass(frozen=True)
class Grid:
    """A box of voxels: `shape` counts along x (length), y (height), z (width); `extent` its sides in metres,
    centred on the object; distances are cut at `truncation` metres."""

    shape: tuple[int, int, int] = (64, 32, 32)
    extent: tuple[float, float, float] = (6.0, 3.0, 3.0)
    truncation: float = 0.3

    def points(self) -> FloatArray:
        """(X * Y * Z, 3) centres of the voxels, z fastest."""
        axes = [(np.arange(n) + 0.5) / n * e - e / 2 for n, e in zip(self.shape, self.extent, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def tsdf(shape: CarShape, grid: Grid) -> npt.NDArray[np.float32]:
    """(X, Y, Z) truncated signed distance as a share of the truncation: -1 deep inside, 0 on the surface, 1 outside."""
    value = distance(shape, grid.points()) / grid.truncation
    return np.clip(value, -1, 1).astype(np.float32).reshape(grid.shape)


# --- the family

# Mean and standard deviation of length, height, width in metres. Set so that the mixture of the classes that KITTI calls
# Car has KITTI's statistics (28,742 labelled cars: 3.88 +- 0.43, 1.53 +- 0.14, 1.63 +- 0.10) and van those of its 2,914
# vans (5.08 +- 0.83, 2.21 +- 0.32, 1.90 +- 0.17).
SIZES = {
    "small": ((3.42, 0.17), (1.50, 0.085), (1.56, 0.06)),
    "car": ((3.87, 0.21), (1.485, 0.085), (1.63, 0.07)),
    "large": ((4.32, 0.20), (1.515, 0.105), (1.69, 0.07)),
    "suv": ((4.17, 0.26), (1.77, 0.12), (1.73, 0.09)),
    "pickup": ((4.95, 0.20), (1.74, 0.08), (1.76, 0.07)),
    "van": ((5.08, 0.70), (2.21, 0.28), (1.90, 0.14)),
}
KINDS = tuple(SIZES)
# Shares among what KITTI calls Car.
CAR_SHARES = {"small": 0.26, "car": 0.41, "large": 0.21, "suv": 0.11, "pickup": 0.01}

# Means of the remaining parameters: heights as shares of the height, places as shares of the length.
_DESIGN_FIELDS = (
    "clearance", "nose", "bonnet", "cowl_at", "cowl", "screen_top_at", "roof_end_at",
    "roof_end", "rear_glass_at", "rear_glass", "tail", "stern", "tumblehome",
)  # fmt: skip
_DESIGNS = {
    "small": (0.12, 0.33, 0.5, 0.235, 0.63, 0.405, 0.86, 0.955, 0.955, 0.64, 0.6, 0.33, 0.83),
    "hatch": (0.12, 0.33, 0.49, 0.265, 0.625, 0.435, 0.83, 0.95, 0.945, 0.65, 0.6, 0.33, 0.81),
    "sedan": (0.12, 0.33, 0.49, 0.275, 0.625, 0.43, 0.68, 0.97, 0.82, 0.69, 0.655, 0.34, 0.79),
    "estate": (0.12, 0.33, 0.48, 0.265, 0.62, 0.42, 0.885, 0.94, 0.965, 0.64, 0.6, 0.33, 0.81),
    "suv": (0.145, 0.36, 0.54, 0.265, 0.63, 0.405, 0.87, 0.955, 0.955, 0.64, 0.61, 0.36, 0.82),
    "pickup": (0.16, 0.38, 0.56, 0.26, 0.64, 0.36, 0.575, 0.975, 0.605, 0.62, 0.6, 0.38, 0.83),
    "van": (0.11, 0.25, 0.42, 0.135, 0.555, 0.275, 0.955, 0.975, 0.978, 0.57, 0.5, 0.26, 0.9),
}  # fmt: skip
_VARIANTS = {
    "small": (("small", 1.0),),
    "car": (("hatch", 0.65), ("sedan", 0.2), ("estate", 0.15)),
    "large": (("sedan", 0.5), ("estate", 0.5)),
    "suv": (("suv", 1.0),),
    "pickup": (("pickup", 1.0),),
    "van": (("van", 1.0),),
}
_HEIGHTS = ("clearance", "nose", "bonnet", "cowl", "rear_glass", "tail", "stern")


def sample_shape(rng: np.random.Generator, kind: str | None = None) -> CarShape:
    """A car of the family; `kind` one of KINDS, or drawn with KITTI's shares among cars. Equal seeds, equal cars.

    Raises:
        ValueError: for a kind that does not exist.
    """
    if kind is None:
        kind = str(rng.choice(list(CAR_SHARES), p=list(CAR_SHARES.values())))
    if kind not in SIZES:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    length, height, width = (m + s * float(np.clip(rng.normal(), -2.2, 2.2)) for m, s in SIZES[kind])
    names, shares = zip(*_VARIANTS[kind], strict=True)
    values = dict(zip(_DESIGN_FIELDS, _DESIGNS[str(rng.choice(names, p=shares))], strict=True))
    for name, value in values.items():
        spread = 0.012 if name.endswith("_at") else 0.018
        values[name] = value + float(np.clip(rng.normal(0, spread), -0.03, 0.03))
    values["roof_end"] = min(values["roof_end"], 0.985)
    values["rear_glass_at"] = min(max(values["rear_glass_at"], values["roof_end_at"] + 0.02), 0.98)
    values["cowl"] = max(values["cowl"], values["bonnet"] + 0.06)
    for name in _HEIGHTS:
        values[name] *= height
    radius = (0.205 if kind != "van" else 0.155) * height * float(rng.uniform(0.96, 1.06))
    front = {"van": 0.185, "pickup": 0.175}.get(kind, 0.19) + float(rng.uniform(-0.012, 0.012))
    rear = 0.815 - (0.02 if kind in ("large", "pickup") else 0.0) + float(rng.uniform(-0.012, 0.012))
    return CarShape(
        kind, length, height, width,
        taper_front=float(rng.uniform(0.10, 0.18)) * (0.6 if kind == "van" else 1.0),
        taper_rear=float(rng.uniform(0.06, 0.13)) * (0.4 if kind == "van" else 1.0),
        wheel_radius=radius, front_axle_at=front, rear_axle_at=rear, **values,
    )  # fmt: skip
