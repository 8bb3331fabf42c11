"""Things that stand beside a synthetic road, and the bricks they are made of.

Each function returns a `Part` in its own frame: x forward, y down, z across, standing at y = 0 with its middle at the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
Numbers = Sequence[float] | FloatArray


@dataclass(frozen=True)
class Part:
    """A triangle soup with its texture.

    corners (F, 3, 3) metres; normals (F, 3, 3) unit, outward; uv (F, 3, 2); texture (h, w, 4) linear RGB and gloss, sides
    powers of two. `solid`: a closed surface whose back faces need not be drawn.
    """

    corners: FloatArray
    normals: FloatArray
    uv: FloatArray
    texture: FloatArray
    solid: bool = False

    def extent(self) -> FloatArray:
        """(3,) size along x, y, z."""
        points = self.corners.reshape(-1, 3)
        return points.max(0) - points.min(0)

    def placed(self, bottom: FloatArray, yaw: float) -> Part:
        """Turned by yaw about +y (KITTI's rotation_y) and moved to the camera frame."""
        turn = rotation(yaw)
        return Part(self.corners @ turn.T + bottom, self.normals @ turn.T, self.uv, self.texture, self.solid)

    def fitted(self, length: float, height: float, width: float) -> Part:
        """Stretched to a box of that size standing on y = 0 round the origin."""
        points = self.corners.reshape(-1, 3)
        low, high = points.min(0), points.max(0)
        scale = np.array([length, height, width]) / (high - low)
        shift = np.array([(low[0] + high[0]) / 2, high[1], (low[2] + high[2]) / 2])
        return Part((self.corners - shift) * scale, self.normals, self.uv, self.texture, self.solid)


def rotation(yaw: float) -> FloatArray:
    """(3, 3) object to camera axes."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def colour(*rgb: float, gloss: float = 0.0) -> FloatArray:
    """A texture of one texel."""
    return np.array([[[*rgb, gloss]]], np.float32)


def join(parts: Sequence[Part]) -> Part:
    """Parts with one-texel (or one-row) textures as one: their textures become columns of a common one."""
    columns = 1 << int(np.ceil(np.log2(max(len(parts), 1))))
    texture = np.zeros((1, columns, 4), np.float32)
    uvs = []
    for k, part in enumerate(parts):
        texture[0, k] = part.texture[0, 0]
        uvs.append(np.full_like(part.uv, (k + 0.5) / columns))
    corners, normals = (np.concatenate([getattr(p, n) for p in parts]) for n in ("corners", "normals"))
    return Part(corners, normals, np.concatenate(uvs), texture)


# --- bricks to build with


def box(size: Numbers, centre: Numbers, texture: FloatArray, tile: float | None = None) -> Part:
    """An upright box; with `tile` the texture repeats every so many metres."""
    half = np.array(size) / 2
    corners, normals, uvs = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            a, b = ((1, 2), (2, 0), (0, 1))[axis]
            if axis != 1:
                a, b = (b, a) if a == 1 else (a, b)  # u runs horizontally, v vertically
            square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
            points = np.zeros((4, 3))
            points[:, axis], points[:, a], points[:, b] = sign, square[:, 0], square[:, 1]
            points = points * half
            uv = (square + 1) / 2 if tile is None else (points[:, [a, b]] + half[[a, b]]) / tile
            triangles = np.array([(0, 1, 2), (0, 2, 3)])
            direction = np.zeros(3)
            direction[axis] = sign
            corners.append(points[triangles] + np.array(centre))
            normals.append(np.broadcast_to(direction, (2, 3, 3)))
            uvs.append(uv[triangles])
    return Part(np.concatenate(corners), np.concatenate(normals), np.concatenate(uvs), texture)


def tube(
    points: FloatArray, radii: FloatArray, texture: FloatArray, sides: int = 8, flat: float = 1.0
) -> Part:
    """A closed tube along points (P, 3) with radii (P,); `flat` squeezes it along z."""
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    helper_axis = np.where(np.abs(along[:, 2:]) < 0.8, np.array([0.0, 0, 1]), np.array([1.0, 0, 0]))
    one = np.cross(along, helper_axis)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    two = np.cross(along, one)
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.cos(angle)[:, None] * one[:, None] + np.sin(angle)[:, None] * two[:, None]
    offset = ring * radii[:, None, None] * np.array([1, 1, flat])
    grid = points[:, None] + offset
    k, j = np.meshgrid(np.arange(len(points) - 1), np.arange(sides), indexing="ij")
    quad = np.stack(
        [k * sides + j, k * sides + (j + 1) % sides, (k + 1) * sides + (j + 1) % sides, (k + 1) * sides + j],
        -1,
    )
    faces = np.concatenate([quad[..., [0, 1, 2]].reshape(-1, 3), quad[..., [0, 2, 3]].reshape(-1, 3)])
    corners, normals = grid.reshape(-1, 3)[faces], ring.reshape(-1, 3)[faces]
    for end, sign in ((0, -1.0), (-1, 1.0)):
        around = np.stack([grid[end], np.roll(grid[end], -1, 0), np.broadcast_to(points[end], (sides, 3))], 1)
        corners = np.concatenate([corners, around])
        normals = np.concatenate([normals, np.broadcast_to(sign * along[end], around.shape)])
    return Part(corners, normals, np.full((len(corners), 3, 2), 0.5), texture)


def ball(centre: Numbers, radii: Numbers, texture: FloatArray) -> Part:
    """An ellipsoid as a tube with round ends."""
    share = np.cos(np.linspace(0, np.pi, 7))
    points = np.stack([np.full(7, centre[0]), centre[1] + share * radii[1], np.full(7, centre[2])], 1)
    return tube(points, np.sqrt(np.maximum(1 - share**2, 1e-4)) * radii[0], texture, 8, radii[2] / radii[0])


# --- beside the road


def facade(rng: np.random.Generator, wall: FloatArray) -> FloatArray:
    """(64, 64, 4) one storey of one window's width, 3 m x 3 m."""
    texture = np.zeros((64, 64, 4), np.float32)
    texture[..., :3] = wall * rng.uniform(0.88, 1.1, (64, 64, 1))
    texture[:2, :, :3] *= rng.uniform(0.7, 1.0)
    width, height = int(rng.integers(12, 24)), int(rng.integers(14, 22))
    top = int(rng.integers(10, 18))
    rows, columns = slice(top, top + 2 * height), slice(32 - width, 32 + width)
    texture[rows, columns] = (0.75, 0.75, 0.72, 0.1)
    texture[top + 3 : top + 2 * height - 3, 35 - width : 29 + width] = (0.03, 0.04, 0.05, 0.9)
    if rng.random() < 0.7:
        texture[rows, 31:34] = (0.75, 0.75, 0.72, 0.1)
    return texture


def house(rng: np.random.Generator, length: float, depth: float, height: float, gabled: bool) -> list[Part]:
    """A block `length` along x and `depth` along z; with `gabled` a tiled roof on top of it."""
    wall = np.array(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.8, 1.15)
    storeys = max(round(height / 3.0), 1)
    windows = max(round(length / 3.0), 1)
    body = box((length, height, depth), (0, -height / 2, 0), facade(rng, wall))
    scaled = body.uv * np.array([windows, storeys])
    body = Part(body.corners, body.normals, scaled, body.texture)
    if not gabled:
        return [body]
    ridge = -height - 0.42 * depth
    eave, half = length / 2 + 0.3, depth / 2 + 0.35
    low = -height + 0.1
    a, b = np.array([(-eave, low, -half), (eave, low, -half)])
    c, d = np.array([(eave, ridge, 0), (-eave, ridge, 0)])
    e, f = np.array([(eave, low, half), (-eave, low, half)])
    corners = np.array([(a, b, c), (a, c, d), (d, c, e), (d, e, f), (b, e, c), (a, f, d)])
    normals = np.array([(0, -0.76, -0.65)] * 2 + [(0, -0.76, 0.65)] * 2 + [(1, 0, 0), (-1, 0, 0)])
    tiles = np.array(_ROOFS[rng.integers(len(_ROOFS))]) * rng.uniform(0.8, 1.1)
    texture = np.zeros((16, 16, 4), np.float32)
    texture[..., :3] = tiles * rng.uniform(0.75, 1.15, (16, 16, 1))
    texture[::4, :, :3] *= 0.6
    uv = np.stack([corners[..., 0], corners[..., 1] * 1.3], -1) / 2.0
    return [body, Part(corners, np.repeat(normals[:, None], 3, 1).astype(float), uv, texture)]


_WALLS = (
    (0.55, 0.50, 0.42), (0.62, 0.60, 0.55), (0.50, 0.38, 0.22), (0.33, 0.14, 0.09),
    (0.40, 0.40, 0.40), (0.58, 0.52, 0.33), (0.25, 0.22, 0.20), (0.45, 0.33, 0.28),
)  # fmt: skip
_ROOFS = ((0.25, 0.07, 0.04), (0.10, 0.09, 0.09), (0.18, 0.09, 0.06), (0.13, 0.06, 0.04))


def speckle(rng: np.random.Generator, base: Numbers, spread: float, side: int = 32) -> FloatArray:
    """(side, side, 4) a colour with noise on it: hedges, leaves, plaster."""
    texture = np.zeros((side, side, 4), np.float32)
    texture[..., :3] = np.array(base) * rng.uniform(1 - spread, 1 + spread, (side, side, 1))
    return texture


def foliage(rng: np.random.Generator, green: Numbers, side: int = 64) -> FloatArray:
    """(side, side, 4) leaves in light and in each other's shade: clumps of several sizes, so that it stays uneven from afar."""
    texture = np.zeros((side, side, 4), np.float32)
    light = np.ones((side, side, 1))
    for clump, low in ((side // 4, 0.55), (side // 16, 0.5), (2, 0.35), (1, 0.2)):
        cells = rng.uniform(low, 2 - low, (side // clump, side // clump, 1))
        light *= cells.repeat(clump, 0).repeat(clump, 1)
    texture[..., :3] = np.array(green) * light
    return texture


def leaf_colour(rng: np.random.Generator, autumn: float = 0.1) -> FloatArray:
    """(3,) linear RGB of a plant's leaves: greens, and some autumn."""
    if rng.random() < autumn:
        return np.array([0.16, 0.10, 0.02]) * rng.uniform(0.6, 1.5, 3)
    return np.array([0.055, 0.085, 0.022]) * rng.uniform(0.5, 1.2) * rng.uniform(0.8, 1.2, 3)


def tree(rng: np.random.Generator, height: float, leaves: int = 900) -> list[Part]:
    """A trunk and a crown."""
    crown = height * rng.uniform(0.55, 0.8)
    bark = colour(*(np.array([0.09, 0.07, 0.05]) * rng.uniform(0.4, 1.3)))
    top = -height + crown * 0.5
    trunk = tube(np.array([(0, 0, 0), (0, top, 0)]), np.array([0.025, 0.012]) * height, bark, 6)
    radii = np.array([0.42, 0.5, 0.42]) * crown
    return [trunk, leafy(rng, np.array([0, -height + crown * 0.5, 0]), radii, leaves)]


def bush(rng: np.random.Generator, radius: float) -> Part:
    return leafy(rng, np.array([0, -0.75 * radius, 0]), np.array([1.0, 0.8, 1.0]) * radius, 220)


def leafy(rng: np.random.Generator, centre: FloatArray, radii: FloatArray, leaves: int) -> Part:
    """A lumpy ellipsoid of loose patches of leaves, shaded as if it were solid: the more patches, the smaller."""
    direction = rng.normal(size=(leaves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    where = direction * rng.uniform(0.2, 1.0, (leaves, 1)) ** 0.5
    lump = 1 + 0.25 * np.sin(3 * direction[:, 0] + rng.uniform(0, 6)) * np.cos(
        4 * direction[:, 1] + rng.uniform(0, 6)
    )
    size = float(radii[1]) * 3.6 / np.sqrt(leaves)
    corners = (centre + where * lump[:, None] * radii)[:, None] + rng.normal(size=(leaves, 3, 3)) * size
    corners[..., 1] = np.minimum(corners[..., 1], 0)
    # Less light arrives below: the normals lean down.
    normals = np.repeat((direction + np.array([0, 0.35, 0]))[:, None], 3, 1)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    uv = rng.uniform(0, 1, (leaves, 1, 2)) + rng.normal(size=(leaves, 3, 2)) * min(size / 3.0, 0.25)
    return Part(corners, normals, uv, foliage(rng, leaf_colour(rng)))


def thicket(rng: np.random.Generator, along: FloatArray, height: float) -> Part:
    """A wall of woods or shrubs through points (P, 3), 1 m or so apart: a ragged curtain that leans back as it rises."""
    rough = 1 + 0.22 * np.cumsum(rng.normal(0, 0.35, len(along))) / np.sqrt(1 + np.arange(len(along)))
    rise = np.maximum(height * (np.clip(rough, 0.5, 1.6) + rng.normal(0, 0.07, len(along))), 0.4)
    rows = np.array([0.0, 0.35, 0.75, 1.0])
    bulge = np.array([0.0, 0.10, 0.05, -0.12])
    run = np.gradient(along, axis=0)
    across = np.stack([-run[:, 2], np.zeros(len(along)), run[:, 0]], 1)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    grid = (
        along[:, None] + (bulge * height + rng.normal(0, 0.15, (len(along), 4)))[..., None] * across[:, None]
    )
    grid[..., 1] -= rows * rise[:, None] - 0.3 * (rows == 0)
    k, j = np.meshgrid(np.arange(len(along) - 1), np.arange(3), indexing="ij")
    quad = np.stack([k * 4 + j, (k + 1) * 4 + j, (k + 1) * 4 + j + 1, k * 4 + j + 1], -1)
    faces = np.concatenate([quad[..., [0, 1, 2]].reshape(-1, 3), quad[..., [0, 2, 3]].reshape(-1, 3)])
    corners = grid.reshape(-1, 3)[faces]
    slope = np.array([0.35, 0.0, -0.5, -0.8])  # shade below, light on top
    normals = across[:, None] + slope[None, :, None] * np.array([0.0, 1, 0])
    normals = np.broadcast_to(normals, grid.shape).reshape(-1, 3)[faces]
    normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(along, axis=0), axis=1))])
    flat = np.stack(np.broadcast_arrays(length[:, None], rows * height), -1).reshape(-1, 2)
    return Part(corners, normals, flat[faces] / 6.0, foliage(rng, leaf_colour(rng), 128))


def railing(rng: np.random.Generator, length: float) -> Part:
    """A crash barrier or a fence along x."""
    if rng.random() < 0.6:
        steel = colour(*(np.array([0.30, 0.31, 0.32]) * rng.uniform(0.5, 1.2)), gloss=0.2)
        bars = [box((length, 0.3, 0.05), (0, -0.62, 0), steel)]
        posts, height, wide = np.arange(-length / 2 + 0.5, length / 2, 2.0), 0.7, 0.08
    else:
        steel = colour(*(np.array([0.12, 0.12, 0.12]) * rng.uniform(0.3, 2.0)))
        bars = [box((length, 0.05, 0.04), (0, -h, 0), steel) for h in (0.25, 1.05)]
        posts, height, wide = np.arange(-length / 2 + 0.1, length / 2, 0.3), 1.05, 0.025
    return join([*bars, *(box((wide, height, wide), (x, -height / 2, 0), steel) for x in posts)])


def pole(rng: np.random.Generator) -> Part:
    """A street lamp, or a traffic sign on its post."""
    metal = colour(*(np.array([0.22, 0.23, 0.23]) * rng.uniform(0.5, 1.3)), gloss=0.2)
    if rng.random() < 0.5:
        height = rng.uniform(5, 8)
        stem = tube(np.array([(0, 0, 0), (0, -height, 0)]), np.array([0.09, 0.05]), metal, 6)
        arm = tube(np.array([(0, -height, 0), (0, -height - 0.1, 1.3)]), np.array([0.05, 0.05]), metal, 6)
        return join([stem, arm])
    height = rng.uniform(2.2, 3.0)
    stem = tube(np.array([(0, 0, 0), (0, -height, 0)]), np.array([0.035, 0.035]), metal, 6)
    signs = ((0.5, 0.02, 0.02), (0.02, 0.08, 0.4), (0.75, 0.75, 0.75), (0.6, 0.45, 0.02))
    plate = colour(*signs[rng.integers(len(signs))], gloss=0.1)
    if rng.random() < 0.6:
        sign = tube(np.array([(-0.03, -height, 0), (0.03, -height, 0)]), np.array([0.31, 0.31]), plate, 12)
    else:
        sign = box((0.05, 0.6, 0.6), (0, -height, 0), plate)
    return join([stem, sign])


def clutter(rng: np.random.Generator) -> Part:
    """A bin, a cabinet, a bush: things that are no vehicles."""
    choice = rng.random()
    if choice < 0.4:
        size = rng.uniform((0.4, 0.8, 0.4), (0.9, 1.4, 0.8))
        shade = colour(
            *rng.choice([(0.05, 0.06, 0.05), (0.02, 0.05, 0.12), (0.25, 0.25, 0.22), (0.3, 0.2, 0.02)])
        )
        return box(size, (0, -size[1] / 2, 0), shade)
    return bush(rng, rng.uniform(0.4, 1.1))
