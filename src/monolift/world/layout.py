"""What stands where: a random street with its houses, trees, vehicles and people, as a camera on a car would meet it.

Places are drawn in road coordinates (s along the road, t across, right positive) and carried to the camera frame by `Ground`.
Objects stand upright in the camera frame, with their bottom centre on the ground plane: KITTI's labels know only a yaw, so with
a sloping plane this, and not a tilted car, is what an exact label can describe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from monolift.shapes.car_texture import CarStyle, sample_style
from monolift.shapes.procedural import CarShape, sample_shape
from monolift.world import figures
from monolift.world.ground import Ground
from monolift.world.parts import Part
from monolift.world.render import Light
from monolift.world.sensor import Sensor

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Vehicle:
    """A vehicle that stands nowhere yet: KITTI class, size (length, height, width); shape and style of the family's cars."""

    name: str
    size: tuple[float, float, float]
    shape: CarShape | None = None
    style: CarStyle | None = None


@dataclass(frozen=True)
class Actor:
    """A labelled object: KITTI class, bottom centre (3,), size (length, height, width), yaw.

    The family's cars have a shape and a style; how people and lorries look comes from `seed`.
    """

    name: str
    bottom: FloatArray
    size: tuple[float, float, float]
    yaw: float
    shape: CarShape | None = None
    style: CarStyle | None = None
    seed: int = 0

    @cached_property
    def part(self) -> Part:
        """Its mesh where it stands, camera frame."""
        rng = np.random.default_rng(self.seed)
        if self.shape is not None:
            figure = figures.car(self.shape, self.style)
        elif self.name == "Cyclist":
            figure = figures.cyclist(rng).fitted(*self.size)
        elif self.name == "Pedestrian":
            figure = figures.pedestrian(rng).fitted(*self.size)
        else:
            figure = figures.lorry(rng, *self.size)
        return figure.placed(self.bottom, self.yaw)


@dataclass
class Scene:
    """A street: ground, light, camera faults, labelled actors, and the rest."""

    kind: str
    ground: Ground
    light: Light
    sensor: Sensor
    actors: list[Actor] = field(default_factory=list)
    scenery: list[Part] = field(default_factory=list)
    occupied: list[tuple[float, float, float, float]] = field(default_factory=list)
    """(s, t, half length, half width) of what stands on the street."""

    def free(self, s: float, t: float, length: float, width: float) -> bool:
        """Whether a rectangle in road coordinates is free; takes it when it is."""
        for s0, t0, a, b in self.occupied:
            if abs(s - s0) < a + length / 2 and abs(t - t0) < b + width / 2:
                return False
        self.occupied.append((s, t, length / 2, width / 2))
        return True

    def place(self, s: float, t: float) -> tuple[FloatArray, float]:
        """Camera-frame point on the ground and the road's direction there (radians to the right of +z)."""
        g = self.ground
        turn = np.arctan(g.heading + g.bend * s)
        x, z = float(g.middle(s)) + t * np.cos(turn), s - t * np.sin(turn)
        return np.array([x, float(g.y(x, z)), z]), float(turn)


KINDS = {"residential": 0.42, "city": 0.30, "country": 0.28}


def sample_scene(rng: np.random.Generator) -> Scene:
    """A whole scene; the same generator state gives the same scene."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    scene = Scene(kind, _sample_ground(rng, kind), _sample_light(rng), _sample_sensor(rng))
    scene.occupied.append(
        (0.0, -float(scene.ground.middle(0.0)), 4.0, 1.2)
    )  # the car that carries the camera
    _park(scene, rng)
    _drive(scene, rng)
    _walk(scene, rng)
    return scene


def _sample_ground(rng: np.random.Generator, kind: str) -> Ground:
    road = {
        "residential": rng.uniform(2.4, 3.6),
        "city": rng.uniform(3.2, 6.5),
        "country": rng.uniform(3.2, 5.0),
    }[kind]
    parks = rng.random() < {"residential": 0.85, "city": 0.7, "country": 0.12}[kind]
    lane = road * rng.uniform(0.35, 0.6) if kind != "residential" else rng.uniform(0.0, 1.2)
    bend = rng.normal(0, 0.0015) if rng.random() < 0.7 else rng.normal(0, 0.007)
    asphalt = np.array([0.11, 0.11, 0.115]) * rng.uniform(0.6, 1.9)
    paving = np.array([0.26, 0.25, 0.235]) * rng.uniform(0.6, 1.3)
    green = np.array([0.075, 0.10, 0.03]) * rng.uniform(0.4, 1.1) * rng.uniform(0.85, 1.2, 3)
    soil = green if rng.random() < {"residential": 0.85, "city": 0.3, "country": 0.97}[kind] else paving * 0.7
    cobbled = paving * np.array([0.9, 0.85, 0.8]) if rng.random() < 0.5 else asphalt * 0.9
    albedo = np.array(
        [asphalt, [0.62, 0.62, 0.60], paving * 1.2, paving if kind != "country" else green, soil, cobbled]
    )
    spread = 0.35 if rng.random() < 0.16 else 0.06  # now and then the camera's car is turning
    crosses = rng.random() < {"residential": 0.35, "city": 0.45, "country": 0.12}[kind]
    return Ground(
        height=1.65 + rng.normal(0, 0.03), slope_x=rng.normal(0, 0.008), slope_z=rng.normal(0.002, 0.010),
        offset=-lane, heading=float(np.clip(rng.normal(0, spread), -0.6, 0.6)), bend=bend, road=road,
        parking=2.2 if parks else 0.0,
        pavement=rng.uniform(1.5, 3.5) if kind != "country" else rng.uniform(0.3, 1.5),
        crossing_at=rng.uniform(13, 45) if crosses else None, crossing=rng.uniform(2.8, 4.5),
        albedo=albedo, dash=0.0 if kind == "residential" and rng.random() < 0.7 else rng.uniform(2.0, 4.0),
        wear=rng.uniform(0, 1),
    )  # fmt: skip


def _sample_light(rng: np.random.Generator) -> Light:
    """Sun and sky. Shadows are deep and skies often burnt out, as in KITTI's images: their darkest tenth of an image lies
    below 19 of 255 on average, their brightest above 233."""
    overcast = rng.random() < 0.25
    height, round_about = rng.uniform(0.30, 1.15), rng.uniform(0, 2 * np.pi)
    sun = np.array(
        [np.cos(height) * np.cos(round_about), -np.sin(height), np.cos(height) * np.sin(round_about)]
    )
    warm = np.array([1.0, 0.93 - 0.1 * (height < 0.5), 0.82 - 0.15 * (height < 0.5)])
    blue = np.array([0.85, 0.95, 1.08])
    if overcast:
        return Light(sun, warm * rng.uniform(0.0, 0.35), np.array([0.95, 0.98, 1.0]) * rng.uniform(0.5, 0.9),
                     np.array([1.0, 1.05, 1.1]), np.array([1.2, 1.2, 1.2]), 0.9, rng.uniform(400, 1500))  # fmt: skip
    sky = rng.uniform(0.4, 1.0)
    zenith = np.array([0.15, 0.34, 0.78]) * sky + 0.05
    horizon = np.array([0.80, 0.90, 1.0]) * rng.uniform(0.8, 1.6)
    cloud = 0.0 if rng.random() < 0.45 else rng.uniform(0.2, 0.9)
    return Light(
        sun=sun,
        direct=warm * rng.uniform(1.2, 2.2),
        diffuse=blue * rng.uniform(0.14, 0.42),
        zenith=zenith,
        horizon=horizon,
        cloud=cloud,
        haze=rng.uniform(700, 3000),
    )


def _sample_sensor(rng: np.random.Generator) -> Sensor:
    return Sensor(
        exposure=float(np.exp(rng.normal(0.0, 0.12))), contrast=rng.uniform(1.15, 1.6), warmth=rng.normal(0, 0.03),
        blur=rng.uniform(0.25, 0.7), noise=rng.uniform(0.5, 3.0),
        metering=0.8,
    )  # fmt: skip


# --- vehicles


def sample_vehicle(rng: np.random.Generator) -> Vehicle:
    """KITTI's mixture of cars, vans and lorries."""
    draw = rng.random()
    if draw < 0.035:
        size = (float(rng.uniform(5.5, 12)), float(rng.uniform(2.6, 3.7)), float(rng.uniform(2.2, 2.7)))
        return Vehicle("Truck", size)
    return car_of(sample_shape(rng, "van" if draw < 0.125 else None), rng)


def car_of(shape: CarShape, rng: np.random.Generator, style: CarStyle | None = None) -> Vehicle:
    """A shape of the family in a style, drawn when none is given."""
    name = "Van" if shape.kind == "van" else "Car"
    return Vehicle(
        name, (shape.length, shape.height, shape.width), shape, style or sample_style(rng, shape.kind)
    )


def add_vehicle(
    scene: Scene, rng: np.random.Generator, s: float, t: float, turn: float, vehicle: Vehicle | None = None
) -> bool:
    """Put a vehicle (a random one if none is given) at (s, t), turned against the road by `turn` (0: with it, pi: oncoming),
    if there is room."""
    vehicle = vehicle or sample_vehicle(rng)
    size = vehicle.size
    length = abs(size[0] * np.cos(turn)) + abs(size[2] * np.sin(turn))
    width = abs(size[0] * np.sin(turn)) + abs(size[2] * np.cos(turn))
    if not scene.free(s, t, length + 0.7, width + 0.25):
        return False
    bottom, road = scene.place(s, t)
    yaw = _wrapped(road - np.pi / 2 + turn)
    scene.actors.append(Actor(vehicle.name, bottom, size, yaw, vehicle.shape, vehicle.style, _seed(rng)))
    return True


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 32))


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _park(scene: Scene, rng: np.random.Generator) -> None:
    g = scene.ground
    if not g.parking:
        return
    for side in (1.0, -1.0):
        if rng.random() < (0.30 if side > 0 else 0.12):
            continue
        across = rng.random() < 0.18
        slant = rng.uniform(0.3, 0.8) if rng.random() < 0.35 else 0.0
        gap = rng.uniform(0.05, 0.55)
        against = 0.2 if side > 0 else 0.75
        s = rng.uniform(-1.0, 9) if rng.random() < 0.65 else rng.uniform(9, 40)
        end = s + rng.exponential(22) + 4
        while s < min(end, 72):
            crossing = g.crossing_at is not None and abs(s - g.crossing_at) < g.crossing + 4
            if rng.random() > gap and not crossing:
                turn = float(np.pi * (rng.random() < against)) + rng.normal(0, 0.045)
                t = g.road + 1.05 + rng.normal(0, 0.1)
                if across:
                    turn, t = (
                        rng.choice([-1, 1]) * (np.pi / 2 - slant) + rng.normal(0, 0.12),
                        g.road + 2.4 + rng.normal(0, 0.2),
                    )
                add_vehicle(scene, rng, s, side * t, turn)
            s += (2.6 if across else 5.2) + rng.uniform(0, 0.8)


def _drive(scene: Scene, rng: np.random.Generator) -> None:
    g = scene.ground
    lane = 0.5 * g.road
    busy = {"residential": 0.6, "city": 1.5, "country": 1.7}[scene.kind]
    for side, turn in ((1.0, 0.0), (-1.0, np.pi)):
        for _ in range(rng.poisson(busy * (0.7 if side > 0 else 1.0))):
            s = 4.5 + rng.gamma(1.8, 13.0)
            if s < 75:
                add_vehicle(scene, rng, s, side * lane + rng.normal(0, 0.25), turn + rng.normal(0, 0.04))
    if g.crossing_at is not None:
        for _ in range(rng.poisson(0.9)):
            right = rng.random() < 0.5
            s = g.crossing_at + (0.5 if right else -0.5) * g.crossing + rng.normal(0, 0.3)
            turn = (np.pi / 2 if right else -np.pi / 2) + rng.normal(0, 0.12)
            add_vehicle(scene, rng, s, rng.uniform(-24, 24), turn)
        for _ in range(rng.poisson(0.25)):  # in the middle of a turn
            add_vehicle(
                scene, rng, g.crossing_at + rng.normal(0, 2), rng.normal(0, 4), rng.uniform(-np.pi, np.pi)
            )
    for _ in range(rng.poisson(0.9)):  # in drives and yards, on squares and side roads
        add_vehicle(
            scene,
            rng,
            rng.uniform(6, 55),
            rng.choice([-1, 1], p=[0.65, 0.35]) * (g.road + g.parking + rng.uniform(2.5, 16)),
            rng.uniform(-np.pi, np.pi),
        )


# --- people


def _walk(scene: Scene, rng: np.random.Generator) -> None:
    g = scene.ground
    walkers, riders = {"residential": (0.5, 0.3), "city": (1.8, 0.6), "country": (0.1, 0.2)}[scene.kind]
    for _ in range(rng.poisson(walkers)):
        side = rng.choice([-1.0, 1.0])
        t = side * (g.road + g.parking + rng.uniform(0.4, max(g.pavement, 1.0)))
        turn = rng.choice([0, np.pi]) + rng.normal(0, 0.25)
        if rng.random() < 0.2:
            t, turn = rng.uniform(-g.road, g.road), rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.2)
        size = (
            float(rng.uniform(0.5, 1.1)),
            float(np.clip(rng.normal(1.76, 0.09), 1.45, 1.98)),
            float(np.clip(rng.normal(0.66, 0.08), 0.45, 0.9)),
        )
        add_person(scene, rng, "Pedestrian", 5 + rng.gamma(2.0, 6.5), t, turn, size)
    for _ in range(rng.poisson(riders)):
        side = rng.choice([-1.0, 1.0], p=[0.4, 0.6])
        turn = (0.0 if side > 0 else np.pi) + rng.normal(0, 0.12)
        size = (
            float(np.clip(rng.normal(1.76, 0.1), 1.4, 2.1)),
            float(np.clip(rng.normal(1.74, 0.08), 1.5, 1.95)),
            float(np.clip(rng.normal(0.6, 0.06), 0.42, 0.85)),
        )
        add_person(
            scene,
            rng,
            "Cyclist",
            6 + rng.gamma(2.0, 8.5),
            side * (g.road - rng.uniform(0.2, 1.0)),
            turn,
            size,
        )


def add_person(
    scene: Scene,
    rng: np.random.Generator,
    name: str,
    s: float,
    t: float,
    turn: float,
    size: tuple[float, float, float],
) -> None:
    """Put a Pedestrian or a Cyclist of a size (length, height, width) at (s, t), if there is room."""
    if s > 60 or not scene.free(s, t, max(size[0], size[2]) + 0.2, max(size[0], size[2]) + 0.2):
        return
    bottom, road = scene.place(s, t)
    yaw = _wrapped(road - np.pi / 2 + turn)
    scene.actors.append(Actor(name, bottom, size, yaw, seed=_seed(rng)))
