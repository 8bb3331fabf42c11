"""From a synthetic scene to light on pixels: ground and sky per sample, all else by z-buffer, one sun with shadows.

Light is linear until `sensor.develop`. Shadows come from a second z-buffer seen from the sun, laid out on the ground: each
point is pushed along the sun's rays onto the plane y = 0, and the highest thing that lands on a cell hides all below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monolift.render import raster
from monolift.render.texture_bank import TextureBank
from monolift.world.ground import Ground, Noise, contact_shade, ground_albedo
from monolift.world.parts import Part

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Light:
    """sun (3,) unit vector towards the sun (y negative); strengths are linear RGB of direct and of diffuse light."""

    sun: FloatArray
    direct: FloatArray
    diffuse: FloatArray
    zenith: FloatArray
    horizon: FloatArray
    cloud: float
    haze: float
    """Distance in metres over which haze takes 63 % of the contrast."""


@dataclass(frozen=True)
class Shot:
    """A rendered image with what each sample shows.

    image (H, W, 3) linear light; owner (H s, W s) number of the part each of the s x s samples per pixel sees, -1 ground,
    -2 sky.
    """

    image: FloatArray
    owner: IntArray


@dataclass
class Stage:
    """All parts of a scene as one soup; the parts' numbers are their order of arrival."""

    parts: list[Part] = field(default_factory=list)

    def add(self, part: Part) -> int:
        self.parts.append(part)
        return len(self.parts) - 1

    def soup(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """corners (F, 3, 3), carried (F, 3, 5) = uv and normal, owner (F,)."""
        if not self.parts:
            return np.zeros((0, 3, 3)), np.zeros((0, 3, 5)), np.zeros(0, np.int64)
        corners = np.concatenate([p.corners for p in self.parts])
        carried = np.concatenate([np.concatenate([p.uv, p.normals], 2) for p in self.parts])
        owner = np.repeat(np.arange(len(self.parts)), [len(p.corners) for p in self.parts])
        return corners, carried, owner


# --- the sun's view

_MAP_X, _MAP_Z, _MAP_SCALE = (-32.0, 32.0), (-4.0, 80.0), 11.0  # metres, metres, cells per metre
_LIFT = 20.0  # metres added to heights, so that the rasteriser sees positive numbers


class ShadowMap:
    """Heights of what the sun sees."""

    def __init__(self, corners: FloatArray, light: Light) -> None:
        self.sun = light.sun
        cells, height = self._cells(corners)
        rows, columns = int((_MAP_Z[1] - _MAP_Z[0]) * _MAP_SCALE), int((_MAP_X[1] - _MAP_X[0]) * _MAP_SCALE)
        low = height.min(1) > 0.05
        self.map = raster.rasterise(cells[low], height[low], rows, columns).inv_depth

    def _cells(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        push = points[..., 1] / self.sun[1]
        x = points[..., 0] - push * self.sun[0] - _MAP_X[0]
        z = points[..., 2] - push * self.sun[2] - _MAP_Z[0]
        return np.stack([x, z], -1) * _MAP_SCALE - 0.5, _LIFT - points[..., 1]

    def lit(self, points: FloatArray, bias: float, row: IntArray, column: IntArray) -> FloatArray:
        """(N,) 1 where the sun reaches points (N, 3), 0 in shadow; bias in metres against self-shadowing.

        The points' samples, (row, column) in the image, look at places half a cell apart: their mean softens the edges.
        """
        cells, height = self._cells(points)
        cells = cells + np.stack([(column % 2) * 0.6 - 0.3, (row % 2) * 0.6 - 0.3], 1).astype(np.float32)
        column, row = np.rint(cells[:, 0]).astype(np.int32), np.rint(cells[:, 1]).astype(np.int32)
        rows, columns = self.map.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        found = self.map[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        return 1.0 - (inside & (found > height + bias)).astype(np.float32)


# --- the image


def shoot(
    stage: Stage, ground: Ground, light: Light, footprints: FloatArray, projection: FloatArray, size: tuple[int, int],
    rng: np.random.Generator, supersample: int = 2,
) -> Shot:  # fmt: skip
    """Render the scene. footprints (N, 5): x, z, length, width, yaw of what stands on the ground and darkens it;
    size (width, height)."""
    width, height = size[0] * supersample, size[1] * supersample
    fine = raster.sample_projection(projection, supersample)
    corners, carried, owner = stage.soup()
    shadows = ShadowMap(corners, light)
    corners, carried, source = raster.clip_near(corners, carried, offset=float(projection[2, 3]))
    owner = owner[source]
    pixels, depth = raster.project(corners, fine)
    solid = np.array([p.solid for p in stage.parts], bool)[owner]
    keep = ~solid | raster.front_facing(pixels)
    carried, owner, pixels, depth = carried[keep], owner[keep], pixels[keep], depth[keep]

    rays, eye = _rays(fine, width, height)
    inverse = _ground_inverse_depth(ground, rays, eye)
    buffers = raster.rasterise(pixels, 1.0 / depth, height, width, inverse)
    drawn = buffers.face >= 0
    noise = Noise(rng)
    image = np.empty((height, width, 3), np.float32)
    _paint_sky(image, rays, light, noise, (buffers.inv_depth <= 0))
    on_ground = ~drawn & (buffers.inv_depth > 0)
    _paint_ground(image, on_ground, buffers.inv_depth, rays, eye, ground, light, shadows, footprints, noise)
    if drawn.any():
        _paint_parts(image, drawn, buffers, rays, eye, light, shadows, stage, (pixels, depth, carried, owner))
    named = np.where(drawn, np.append(owner, -1)[buffers.face], np.where(buffers.inv_depth > 0, -1, -2))
    return Shot(raster.box_filter(image, supersample), named)


def survey(
    stage: Stage, ground: Ground, projection: FloatArray, size: tuple[int, int]
) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """What the very centres of the pixels see: owner (H, W) as in `Shot`; z (H, W), metres, camera frame, inf for the sky."""
    width, height = size
    corners, carried, owner = stage.soup()
    corners, _, source = raster.clip_near(corners, carried[..., :0], offset=float(projection[2, 3]))
    owner = owner[source]
    pixels, depth = raster.project(corners, projection)
    rays, eye = _rays(projection, width, height)
    buffers = raster.rasterise(pixels, 1.0 / depth, height, width, _ground_inverse_depth(ground, rays, eye))
    named = np.where(
        buffers.face >= 0, np.append(owner, -1)[buffers.face], np.where(buffers.inv_depth > 0, -1, -2)
    )
    return named, buffers.depth - np.float32(projection[2, 3])


def _rays(
    projection: FloatArray, width: int, height: int
) -> tuple[tuple[FloatArray, FloatArray], FloatArray]:
    """Ray directions as (x per column, y per row) at z = 1, and the camera's centre (3,). P2 has no skew."""
    eye = -np.linalg.solve(projection[:, :3], projection[:, 3])
    x = (np.arange(width) - projection[0, 2]) / projection[0, 0]
    y = (np.arange(height) - projection[1, 2]) / projection[1, 1]
    return (x.astype(np.float32), y.astype(np.float32)), eye


def _ground_inverse_depth(ground: Ground, rays: tuple[FloatArray, FloatArray], eye: FloatArray) -> FloatArray:
    """(H, W) 1 / z of the plane, 0 above the horizon."""
    drop = ground.y(eye[0], eye[2]) - eye[1]
    slope = rays[1][:, None] - ground.slope_x * rays[0][None] - ground.slope_z
    return np.maximum(slope / np.float32(drop), 0).astype(np.float32)


def _paint_sky(
    image: FloatArray, rays: tuple[FloatArray, FloatArray], light: Light, noise: Noise, where: BoolArray
) -> None:
    row, column = np.nonzero(where)
    x, y = rays[0][column], rays[1][row]
    up = np.clip(-y, 0.004, None)
    share = np.clip(up * 2.2, 0, 1)[:, None] ** 0.6
    colour = light.horizon * (1 - share) + light.zenith * share
    if light.cloud > 0:
        # Clouds lie in a plane: they crowd towards the horizon. Broad banks carry finer ones.
        far = 1 / (up + 0.12)
        banks = noise.smooth(9 * x * far + 4096, 9 * far) + 0.4 * noise.smooth(31 * x * far + 4096, 31 * far)
        clouds = np.clip(0.4 + 0.6 * banks, 0, 1)[:, None] * np.float32(light.cloud)
        colour = colour * (1 - clouds) + np.float32(1.05) * light.horizon.max() * clouds
    image[row, column] = colour


def _hazed(colour: FloatArray, depth: FloatArray, light: Light) -> FloatArray:
    share = np.exp(-depth / light.haze)[:, None].astype(np.float32)
    return colour * share + (1 - share) * np.minimum(light.horizon * 0.8, 0.9).astype(np.float32)


def _paint_ground(
    image: FloatArray, where: BoolArray, inverse: FloatArray, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
    ground: Ground, light: Light, shadows: ShadowMap, footprints: FloatArray, noise: Noise,
) -> None:  # fmt: skip
    rows, columns = np.nonzero(where)
    for part in _chunks(len(rows)):
        row, column = rows[part], columns[part]
        depth = 1.0 / np.maximum(inverse[row, column], 1 / 2000.0)
        image[row, column] = _ground_light(
            row, column, depth, rays, eye, ground, light, shadows, footprints, noise
        )


def _ground_light(
    row: IntArray, column: IntArray, depth: FloatArray, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
    ground: Ground, light: Light, shadows: ShadowMap, footprints: FloatArray, noise: Noise,
) -> FloatArray:  # fmt: skip
    x = rays[0][column] * depth + np.float32(eye[0])
    z = depth + np.float32(eye[2])
    albedo = ground_albedo(ground, x, z, depth, noise)
    points = np.stack([x, ground.y(x, z).astype(np.float32), z], 1)
    sun = shadows.lit(points, 0.12, row, column)
    ambient = contact_shade(x, z, footprints)
    facing = np.float32(max(-light.sun[1], 0.05))
    shade = ambient[:, None] * light.diffuse.astype(np.float32) + (sun * facing)[
        :, None
    ] * light.direct.astype(np.float32)
    return _hazed(albedo * shade, depth, light)


def _chunks(count: int, size: int = 1 << 15) -> list[slice]:
    """Samples are shaded in portions that stay in the processor's cache: about twice as fast."""
    return [slice(k, k + size) for k in range(0, count, size)]


def _paint_parts(
    image: FloatArray, drawn: BoolArray, buffers: raster.Buffers, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
    light: Light, shadows: ShadowMap, stage: Stage, soup: tuple[FloatArray, FloatArray, FloatArray, IntArray],
) -> None:  # fmt: skip
    pixels, depth, carried, owner = soup
    bank = TextureBank(4)
    texture = np.array([bank.add(p.texture) for p in stage.parts])[owner]
    level = bank.levels(texture, carried[..., :2], pixels)
    solid = np.array([p.solid for p in stage.parts], bool)[owner]
    interpolate = raster.Interpolator(pixels, 1.0 / depth, carried)
    rows, columns = np.nonzero(drawn)
    for part in _chunks(len(rows)):
        row, column = rows[part], columns[part]
        face = buffers.face[row, column]
        values = interpolate(face, column, row)
        material = bank.look_up(level[face], values[:, :2])
        distance = 1.0 / buffers.inv_depth[row, column]
        view = np.stack([rays[0][column], rays[1][row], np.ones(len(row), np.float32)], 1)
        points = view * distance[:, None] + eye.astype(np.float32)
        normal, view = _unit(values[:, 2:5]), _unit(view)
        towards = -_dot(normal, view)
        # Loose faces (leaves, walls) are lit from the side that is seen.
        closed = solid[face]
        normal *= np.where(closed | (towards > 0), 1, -1).astype(np.float32)[:, None]
        towards = np.where(closed, np.maximum(towards, 0), np.abs(towards))
        sun = shadows.lit(points + 0.08 * normal, 0.12, row, column)
        image[row, column] = _hazed(_lit(material, normal, view, towards, sun, light), distance, light)


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.sqrt(np.maximum(_dot(vectors, vectors), 1e-12))[:, None]


def _dot(one: FloatArray, two: FloatArray) -> FloatArray:
    return np.einsum("ij,ij->i", one, two)


def _lit(
    material: FloatArray,
    normal: FloatArray,
    view: FloatArray,
    towards: FloatArray,
    sun: FloatArray,
    light: Light,
) -> FloatArray:
    """(N, 3) light from surfaces: Lambert under sun and sky, plus the sky and the sun mirrored in what is glossy."""
    direction, direct, diffuse = (np.asarray(v, np.float32) for v in (light.sun, light.direct, light.diffuse))
    facing = np.maximum(normal @ direction, 0) * sun
    # A surface facing down sees ground instead of sky.
    ambient = 0.62 - 0.38 * normal[:, 1]
    shade = ambient[:, None] * diffuse + facing[:, None] * direct
    gloss = material[:, 3]
    mirrored = view + 2 * towards[:, None] * normal
    fresnel = gloss * (0.06 + 0.94 * (1 - np.clip(towards, 0, 1)) ** 4)
    height = -mirrored[:, 1]
    # Sky above the horizon, the street's dimmer sides below it.
    above = np.clip(height * 12 + 0.3, 0, 1)
    sky = (0.16 + above * (0.29 + 0.55 * np.clip(1 - height, 0, 1)))[:, None] * light.horizon.astype(
        np.float32
    )
    glint = (gloss * sun * np.maximum(mirrored @ direction, 0) ** 90)[:, None] * direct * 1.5
    return material[:, :3] * shade * (1 - 0.3 * fresnel[:, None]) + fresnel[:, None] * sky + glint
