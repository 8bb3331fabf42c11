"""The mesh of a `CarShape`: every car has the same vertices, faces and texture coordinates, only the positions differ.

The body is a grid of stations (from the nose over the roof to the stern) by rings (from the middle of the roof down the side
to the middle of the floor), mirrored; each grid point starts where the unrounded body would have it and is moved onto the zero
of the signed distance. A station has one meaning in all cars (`STATION_MARKS`: the middle of the windscreen, the edge of the
boot), so one texel does too. Arches are painted, not cut: the wheels cover them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monolift.shapes.procedural import WHEEL_HALF, CarShape, body_distance_and_normal, wheel_middle

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

# Intervals between the landmarks nose, bonnet, cowl, screen top, roof end, rear glass, tail, stern (upper edge) ...
_UPPER = (4, 5, 5, 6, 4, 3, 5)
# ... and, on the lower edge, nose - front sill - rear sill - stern: the same number in all.
_LOWER = (4, 23, 5)
STATIONS = sum(_UPPER) + 1
TOP, SIDE, FLOOR = (
    4,
    6,
    1,
)  # ring points on the upper face (middle to edge), down the side, in the floor's middle
RING = TOP + SIDE + FLOOR
STATION_MARKS = np.concatenate([k + np.arange(n) / n for k, n in enumerate(_UPPER)] + [[7.0]])
"""(STATIONS,) landmark coordinate of each station's upper edge, see `CarShape.outline`."""
ATLAS = (128, 256)
"""Rows and columns of the texture: the body's half in the upper 96 rows (front to rear along a row), the wheel below it."""
BODY_ROWS = 96
WHEEL_PATCH = 32
SPOKES = 14


@dataclass(frozen=True)
class CarMesh:
    """vertices (V, 3) metres, object frame; normals (V, 3) outward; faces (F, 3), ordered so that
    (b - a) x (c - a) points outward; uv (V, 2) in [0, 1], column and row of the texture. Faces and uv are the same for all."""

    vertices: FloatArray
    normals: FloatArray
    faces: IntArray
    uv: FloatArray


def build_mesh(shape: CarShape) -> CarMesh:
    """The mesh of a car. Its extent is the shape's box to the last bit of rounding."""
    half, half_normals = body_grid(shape)
    flip = np.array([1.0, 1.0, -1.0])
    # The mirrored half repeats only what does not lie in the plane of symmetry.
    mirrored = slice(1, RING - 1)
    body = np.concatenate([half, half[:, mirrored] * flip], 1).reshape(-1, 3)
    normals = np.concatenate([half_normals, half_normals[:, mirrored] * flip], 1).reshape(-1, 3)
    wheels, wheel_normals = _wheels(shape)
    faces, uv = topology()
    vertices = np.concatenate([body, wheels])
    box = np.array([shape.length, shape.height, shape.width])
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) * (box / (high - low))
    return CarMesh(vertices, np.concatenate([normals, wheel_normals]), faces, uv)


@lru_cache(maxsize=64)  # mesh and texture both ask for it
def body_grid(shape: CarShape) -> tuple[FloatArray, FloatArray]:
    """Positions and outward normals (STATIONS, RING, 3) of the half of the body with z >= 0; not to be written to."""
    points, marks = shape.outline
    order = np.argsort(marks)
    points, marks = points[order], marks[order]
    upper = np.stack([np.interp(STATION_MARKS, marks, points[:, k], period=10) for k in range(2)], 1)
    lower_marks = np.concatenate(
        [
            10 - np.arange(_LOWER[0]) / _LOWER[0],
            np.full(_LOWER[1], np.nan),
            8 - np.arange(_LOWER[2] + 1) / _LOWER[2],
        ]
    )
    lower = np.stack([np.interp(lower_marks, marks, points[:, k], period=10) for k in range(2)], 1)
    under = np.isnan(lower_marks)
    floor = (marks > 8) & (marks < 9)
    backwards = points[floor][np.argsort(points[floor][:, 0])]
    inside = np.clip(upper[under, 0], backwards[0, 0], backwards[-1, 0])
    lower[under] = np.stack([inside, np.interp(inside, backwards[:, 0], backwards[:, 1])], 1)

    grid = np.zeros((STATIONS, RING, 3))  # forward, up, across
    share = np.arange(1, SIDE + 1) / SIDE
    grid[:, :TOP, :2] = upper[:, None]
    grid[:, TOP : TOP + SIDE, :2] = upper[:, None] + share[None, :, None] * (lower - upper)[:, None]
    grid[:, -1, :2] = lower
    across = shape.half_width(grid[..., 0], grid[..., 1])
    across[:, :TOP] *= np.array([0.0, 0.45, 0.82, 1.0])
    across[:, -1] = 0
    grid[..., 2] = across
    start = np.stack([grid[..., 0], shape.height / 2 - grid[..., 1], grid[..., 2]], -1).reshape(-1, 3)
    moved: FloatArray = start
    for _ in range(3):
        value, normal = body_distance_and_normal(shape, moved)
        moved = moved - value[:, None] * normal
    moved = moved.reshape(grid.shape)
    moved[:, [0, -1], 2] = 0  # the middle stays in the middle
    normals = body_distance_and_normal(shape, moved.reshape(-1, 3))[1].reshape(grid.shape)
    moved.flags.writeable = normals.flags.writeable = False
    return moved, normals


def _wheels(shape: CarShape) -> tuple[FloatArray, FloatArray]:
    """Vertices and normals of the four wheels: per wheel a hub, an outer rim, and the tread's two rings."""
    angle = np.arange(SPOKES) * 2 * np.pi / SPOKES + np.pi / 2  # one vertex stands on the ground
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    vertices, normals = [], []
    for axle in shape.axles():
        for side in (1.0, -1.0):
            outer = side * (wheel_middle(shape) + WHEEL_HALF)
            inner = side * (wheel_middle(shape) - WHEEL_HALF)
            middle = np.array([axle, shape.height / 2 - shape.wheel_radius])
            ring = middle + shape.wheel_radius * circle
            face = np.concatenate([middle[None], ring])
            vertices += [np.column_stack([face, np.full(len(face), outer)])]
            normals += [np.tile([0.0, 0.0, side], (len(face), 1))]
            for depth in (outer, inner):
                vertices += [np.column_stack([ring, np.full(SPOKES, depth)])]
                normals += [np.column_stack([circle, np.zeros(SPOKES)])]
    return np.concatenate(vertices), np.concatenate(normals)


@lru_cache(maxsize=1)
def topology() -> tuple[IntArray, FloatArray]:
    """Faces (F, 3) and texture coordinates (V, 2), the same for every car."""
    around = 2 * RING - 2
    station, ring = np.meshgrid(np.arange(STATIONS - 1), np.arange(around), indexing="ij")
    # Columns of the full ring: 0 .. RING - 1 down one side, then the mirrored inner points; walk it as a loop.
    loop = np.concatenate([np.arange(RING), np.arange(around - 1, RING - 1, -1)])
    here, following = loop[ring], loop[(ring + 1) % around]
    a, b = station * around + here, station * around + following
    c, d = a + around, b + around
    body = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    row = np.concatenate([np.arange(RING), np.arange(1, RING - 1)])
    uv_body = np.stack(np.meshgrid(station_column(), ring_row()[row], indexing="ij"), -1).reshape(-1, 2)

    faces, uv = [body], [uv_body]
    first = STATIONS * around
    for wheel in range(4):
        spoke = np.arange(SPOKES)
        after = (spoke + 1) % SPOKES
        hub, rim = first, first + 1
        outer, inner = rim + SPOKES, rim + 2 * SPOKES
        disc = np.stack([np.full(SPOKES, hub), rim + spoke, rim + after], 1)
        tread = np.concatenate(
            [
                np.stack([outer + spoke, inner + spoke, inner + after], 1),
                np.stack([outer + spoke, inner + after, outer + after], 1),
            ]
        )
        mine = np.concatenate([disc, tread])
        faces.append(mine if wheel % 2 == 0 else mine[:, ::-1])
        uv.append(_wheel_uv())
        first = rim + 3 * SPOKES
    return np.concatenate(faces), np.concatenate(uv)


def station_column() -> FloatArray:
    """(STATIONS,) texture u of each station."""
    return (0.5 + np.arange(STATIONS) / (STATIONS - 1) * (ATLAS[1] - 1)) / ATLAS[1]


def ring_row() -> FloatArray:
    """(RING,) texture v of each ring point: 3 x 9 rows of texels above, 6 x 10.5 at the side, 5 below."""
    rows = np.concatenate([9.0 * np.arange(TOP), 27 + 10.5 * np.arange(1, SIDE + 1), [BODY_ROWS - 1.0]])
    return (0.5 + rows) / ATLAS[0]


def _wheel_uv() -> FloatArray:
    """(1 + 3 SPOKES, 2): the disc into the wheel patch, the tread onto its dark edge."""
    angle = np.arange(SPOKES) * 2 * np.pi / SPOKES
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    middle = np.array([WHEEL_PATCH / 2, BODY_ROWS + WHEEL_PATCH / 2])
    disc = np.concatenate([middle[None], middle + circle * (WHEEL_PATCH / 2 - 1)])
    tread = np.tile(middle + np.array([0.0, WHEEL_PATCH / 2 - 1.5]), (2 * SPOKES, 1))
    return np.concatenate([disc, tread]) / np.array([ATLAS[1], ATLAS[0]])
