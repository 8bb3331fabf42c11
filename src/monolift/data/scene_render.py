"""From a synthetic scene to a picture: ground and sky per sample, all else by z-buffer, one sun with shadows, a camera's faults.

Light is linear until `develop`. Shadows come from a second z-buffer seen from the sun, laid out on the ground: each point is
pushed along the sun's rays onto the plane y = 0, and the highest thing that lands on a cell hides all below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monolift.data.scene_props import Part
from monolift.render import raster
from monolift.render.texture_bank import TextureBank

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

ROAD, LINE, KERB, PAVEMENT, VERGE, PARKING = range(6)


@dataclass(frozen=True)
class Ground:
    """The plane y = height + slope_x x + slope_z z (camera frame, y down), and the road on it.

    The road's middle is at x = offset + heading z + bend z^2 / 2; half widths in metres from there outward.
    """

    height: float
    slope_x: float
    slope_z: float
    offset: float
    heading: float
    bend: float
    road: float
    """Half width of the carriageway."""
    parking: float
    """Width of the parking lanes beside it, 0 for none."""
    pavement: float
    crossing_at: float | None
    """z of a crossing road's middle."""
    crossing: float
    """Half width of the crossing road."""
    albedo: FloatArray
    """(6, 3) linear RGB of ROAD, LINE, KERB, PAVEMENT, VERGE, PARKING."""
    dash: float
    """Length of the middle line's dashes, metres; 0 for no middle line."""
    wear: float
    """0 clean to 1 patched and stained."""

    def y(self, x: FloatArray, z: FloatArray) -> FloatArray:
        """Height of the plane at (x, z)."""
        return self.height + self.slope_x * x + self.slope_z * z

    def middle(self, z: FloatArray) -> FloatArray:
        """x of the road's middle line."""
        return self.offset + self.heading * z + 0.5 * self.bend * np.square(z)


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
class Sensor:
    """exposure: factor on linear light; blur: standard deviation in pixels; noise: of a mid-grey in 8-bit steps."""

    exposure: float
    contrast: float
    warmth: float
    blur: float
    noise: float


@dataclass(frozen=True)
class Shot:
    """A rendered picture with what each sample shows.

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


class Noise:
    """Tileable value noise, 512 x 512, several octaves, mean 0, standard deviation 1."""

    SIZE = 512

    def __init__(self, rng: np.random.Generator) -> None:
        white = np.fft.rfft2(rng.normal(size=(self.SIZE, self.SIZE)))
        frequency = np.hypot(np.fft.fftfreq(self.SIZE)[:, None], np.fft.rfftfreq(self.SIZE)[None])
        frequency[0, 0] = np.inf
        smooth = np.fft.irfft2(white / frequency**0.9, (self.SIZE, self.SIZE))
        self.values = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """The noise at texel coordinates, nearest texel."""
        mask = self.SIZE - 1
        return self.values[y.astype(np.int32) & mask, x.astype(np.int32) & mask]


# --- the sun's view

_MAP_X, _MAP_Z, _MAP_SCALE = (-32.0, 32.0), (-4.0, 80.0), 14.0  # metres, metres, cells per metre
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

    def lit(self, points: FloatArray, bias: float) -> FloatArray:
        """(N,) 1 where the sun reaches points (N, 3), 0 in shadow; bias in metres against self-shadowing."""
        cells, height = self._cells(points)
        column, row = np.rint(cells[:, 0]).astype(np.int32), np.rint(cells[:, 1]).astype(np.int32)
        rows, columns = self.map.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        found = self.map[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        return 1.0 - (inside & (found > height + bias)).astype(np.float32)


# --- the picture


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
    corners, carried, owner, pixels, depth = (a[keep] for a in (corners, carried, owner, pixels, depth))

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


def _rays(projection: FloatArray, width: int, height: int) -> tuple[tuple[FloatArray, FloatArray], FloatArray]:
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


def _paint_sky(image: FloatArray, rays: tuple[FloatArray, FloatArray], light: Light, noise: Noise, where: FloatArray) -> None:
    row, column = np.nonzero(where)
    x, y = rays[0][column], rays[1][row]
    up = np.clip(-y, 0.004, None)
    share = np.clip(up * 2.2, 0, 1)[:, None] ** 0.6
    colour = light.horizon * (1 - share) + light.zenith * share
    # Clouds lie in a plane: they crowd towards the horizon.
    clouds = np.clip(0.5 + 0.5 * noise(60 * x / (up + 0.15) + 4096, 60 / (up + 0.15)), 0, 1)[:, None] * light.cloud
    image[row, column] = colour * (1 - clouds) + np.float32(1.05) * light.horizon.max() * clouds


def _hazed(colour: FloatArray, depth: FloatArray, light: Light) -> FloatArray:
    share = np.exp(-depth / light.haze)[:, None].astype(np.float32)
    return colour * share + (1 - share) * light.horizon.astype(np.float32) * 0.85


def _paint_ground(
    image: FloatArray, where: FloatArray, inverse: FloatArray, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
    ground: Ground, light: Light, shadows: ShadowMap, footprints: FloatArray, noise: Noise,
) -> None:  # fmt: skip
    rows, columns = np.nonzero(where)
    for part in _chunks(len(rows)):
        row, column = rows[part], columns[part]
        depth = 1.0 / np.maximum(inverse[row, column], 1 / 2000.0)
        image[row, column] = _ground_light(row, column, depth, rays, eye, ground, light, shadows, footprints, noise)


def _ground_light(
    row: IntArray, column: IntArray, depth: FloatArray, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
    ground: Ground, light: Light, shadows: ShadowMap, footprints: FloatArray, noise: Noise,
) -> FloatArray:  # fmt: skip
    x = rays[0][column] * depth + np.float32(eye[0])
    z = depth + np.float32(eye[2])
    albedo = ground_albedo(ground, x, z, depth, noise)
    points = np.stack([x, ground.y(x, z).astype(np.float32), z], 1)
    sun = shadows.lit(points, 0.12)
    ambient = contact_shade(x, z, footprints)
    facing = np.float32(max(-light.sun[1], 0.05))
    shade = ambient[:, None] * light.diffuse.astype(np.float32) + (sun * facing)[:, None] * light.direct.astype(np.float32)
    return _hazed(albedo * shade, depth, light)


def _chunks(count: int, size: int = 1 << 15) -> list[slice]:
    """Samples are shaded in portions that stay in the processor's cache: about twice as fast."""
    return [slice(k, k + size) for k in range(0, count, size)]


def ground_albedo(ground: Ground, x: FloatArray, z: FloatArray, depth: FloatArray, noise: Noise) -> FloatArray:
    """(N, 3) linear reflectance of the ground at (x, z); fine grain fades with depth, where samples are coarser than it."""
    across = x - ground.middle(z).astype(np.float32)
    beside = np.abs(across)
    zone = np.full(len(x), VERGE, np.int8)
    kerb = ground.road + ground.parking
    zone[beside < kerb + 0.15 + ground.pavement] = PAVEMENT
    zone[beside < kerb + 0.15] = KERB
    zone[beside < kerb] = PARKING if ground.parking else ROAD
    zone[beside < ground.road] = ROAD
    if ground.dash:
        zone[(beside < 0.07) & (z % (3 * ground.dash) < ground.dash)] = LINE
    edge = ground.road - 0.2
    if not ground.parking:
        zone[(beside > edge) & (beside < edge + 0.12)] = LINE
    if ground.crossing_at is not None:
        along = np.abs(z - ground.crossing_at)
        zone[(along < ground.crossing + 2.2) & (beside > kerb)] = PAVEMENT
        zone[(along < ground.crossing + 0.15) & (beside > kerb)] = KERB
        zone[along < ground.crossing] = ROAD
        stop = z - (ground.crossing_at - ground.crossing - 1.0)
        zone[(np.abs(stop) < 0.25) & (across > 0.1) & (across < ground.road - 0.3)] = LINE
    albedo = ground.albedo.astype(np.float32)[zone]
    fade = np.clip(14.0 / depth, 0, 1)
    grain = noise(x * 37.0 + 9000.0, z * 37.0 + 9000.0) * fade
    broad = noise(x * 5.0 + 700.0, z * 1.6 + 300.0)
    rough = np.array([0.07, 0.06, 0.06, 0.07, 0.16, 0.08], np.float32)[zone]
    blotch = np.array([0.05, 0.08, 0.06, 0.07, 0.14, 0.08], np.float32)[zone] * (0.5 + ground.wear)
    factor = 1 + rough * grain + blotch * broad
    # Slabs of the pavement, and the darker strip the wheels have polished off the lane.
    joint = (zone == PAVEMENT) & ((z % 1.2 < 0.05) | (across % 1.2 < 0.05)) & (depth < 18)
    factor[joint] *= 0.82
    lane = np.abs(beside - ground.road / 2)
    factor -= (zone == ROAD) * 0.06 * ground.wear * np.exp(-np.square((lane - 0.75) / 0.35))
    return albedo * np.maximum(factor, 0.2)[:, None]


def contact_shade(x: FloatArray, z: FloatArray, footprints: FloatArray) -> FloatArray:
    """(N,) share of the sky that ground points see beside and under the things standing on it."""
    shade = np.ones(len(x), np.float32)
    for px, pz, length, width, yaw in footprints:
        near = np.flatnonzero((np.abs(x - px) < length) & (np.abs(z - pz) < length))
        dx, dz = x[near] - px, z[near] - pz
        along, across = dx * np.cos(yaw) - dz * np.sin(yaw), dx * np.sin(yaw) + dz * np.cos(yaw)
        outside = np.hypot(np.maximum(np.abs(along) - length / 2 + 0.25, 0), np.maximum(np.abs(across) - width / 2 + 0.25, 0))
        shade[near] *= 1 - 0.88 * np.exp(-np.square(outside / 0.38)).astype(np.float32)
    return shade


def _paint_parts(
    image: FloatArray, drawn: FloatArray, buffers: raster.Buffers, rays: tuple[FloatArray, FloatArray], eye: FloatArray,
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
        towards = -(normal * view).sum(1)
        # Loose faces (leaves, walls) are lit from the side that is seen.
        closed = solid[face]
        normal *= np.where(closed | (towards > 0), 1, -1).astype(np.float32)[:, None]
        towards = np.where(closed, np.maximum(towards, 0), np.abs(towards))
        sun = shadows.lit(points + 0.06 * normal, 0.10)
        image[row, column] = _hazed(_lit(material, normal, view, towards, sun, light), distance, light)


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.sqrt(np.maximum((vectors * vectors).sum(1, keepdims=True), 1e-12))


def _lit(
    material: FloatArray, normal: FloatArray, view: FloatArray, towards: FloatArray, sun: FloatArray, light: Light
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
    sky = np.where(height > 0.02, 0.45 + 0.55 * np.clip(1 - height, 0, 1), 0.22)[:, None] * light.horizon.astype(np.float32)
    glint = (gloss * sun * np.maximum(mirrored @ direction, 0) ** 90)[:, None] * direct * 1.5
    return material[:, :3] * shade * (1 - 0.3 * fresnel[:, None]) + fresnel[:, None] * sky + glint


# --- the camera


def develop(linear: FloatArray, sensor: Sensor, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Linear light (H, W, 3) to an 8-bit picture: lens blur, exposure, shot and read noise, tone curve."""
    light = linear * sensor.exposure
    light = light * np.array([1 + sensor.warmth, 1.0, 1 - sensor.warmth], np.float32)
    light = _blurred(light.astype(np.float32), sensor.blur)
    grain = rng.standard_normal(light.shape, np.float32)
    # Photon noise grows with the root of light; its standard deviation at mid-grey is `noise` steps after the tone curve.
    light = light + grain * (sensor.noise / 255 * 0.8) * np.sqrt(np.maximum(light, 0) * 0.18 + 0.001)
    tone = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    # A KITTI picture is contrasty: pull away from mid-grey, clip the bright end.
    tone = 0.45 + (tone - 0.45) * sensor.contrast
    return (np.clip(tone, 0, 1) * 255 + 0.5).astype(np.uint8)


def _blurred(image: FloatArray, sigma: float) -> FloatArray:
    """Gaussian blur with a five-tap kernel; edges repeat."""
    if sigma <= 0.05:
        return image
    taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding, mode="edge")
        n = image.shape[axis]
        image = sum(t * np.take(padded, range(k, k + n), axis) for k, t in enumerate(taps))  # type: ignore[assignment]
    return image
