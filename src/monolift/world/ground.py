"""The ground of a synthetic street: a plane, the road on it, what it is made of and how things on it darken it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

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

    def y(self, x: Any, z: Any) -> Any:
        """y of the plane at (x, z), numbers or arrays."""
        return self.height + self.slope_x * x + self.slope_z * z

    def middle(self, z: Any) -> Any:
        """x of the road's middle line at z, a number or an array."""
        return self.offset + self.heading * z + 0.5 * self.bend * np.square(z)


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

    def smooth(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """The same, bilinear between texels."""
        left, top = np.floor(x), np.floor(y)
        right_share, low_share = x - left, y - top
        upper = self(left, top) * (1 - right_share) + self(left + 1, top) * right_share
        lower = self(left, top + 1) * (1 - right_share) + self(left + 1, top + 1) * right_share
        return upper * (1 - low_share) + lower * low_share


def ground_albedo(
    ground: Ground, x: FloatArray, z: FloatArray, depth: FloatArray, noise: Noise
) -> FloatArray:
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
    _wear_road(ground, zone == ROAD, across, z, depth, noise, factor)
    # Slabs of the pavement.
    joint = (zone == PAVEMENT) & ((z % 1.2 < 0.05) | (across % 1.2 < 0.05)) & (depth < 18)
    factor[joint] *= 0.82
    return albedo * np.maximum(factor, 0.2)[:, None]


def _wear_road(
    ground: Ground, road: npt.NDArray[np.bool_], across: FloatArray, z: FloatArray, depth: FloatArray, noise: Noise,
    factor: FloatArray,
) -> None:  # fmt: skip
    """Darken the asphalt: strips polished by wheels, fixed patches, seams of tar."""
    here = np.flatnonzero(road)
    across, z, depth = across[here], z[here], depth[here]
    lane = np.abs(np.abs(across) - ground.road / 2)
    dark = 0.08 * ground.wear * np.exp(-np.square((lane - 0.75) / 0.35))
    patch = noise(np.floor(across / 1.7) * 91 + 40, np.floor(z / 6.5) * 57 + 11)
    dark += np.where(patch > 2.2 - 1.4 * ground.wear, 0.16, 0.0) - np.where(
        patch < -2.4 + ground.wear, 0.14, 0.0
    )
    near = depth < 40
    wobble = 0.35 * noise.smooth(z * 3.0 + 1700, np.full_like(z, 77))
    for k, line in enumerate((-0.9, 0.15, 1.7)):
        if ground.wear * 3 > k + 0.6:
            dark += np.where(
                near & (np.abs(across - line - ground.bend * 90 - wobble * (k + 1) / 3) < 0.03), 0.35, 0.0
            )
    factor[here] -= dark


def contact_shade(x: FloatArray, z: FloatArray, footprints: FloatArray) -> FloatArray:
    """(N,) share of the sky that ground points see beside and under the things standing on it."""
    shade = np.ones(len(x), np.float32)
    for px, pz, length, width, yaw in footprints:
        near = np.flatnonzero((np.abs(x - px) < length) & (np.abs(z - pz) < length))
        dx, dz = x[near] - px, z[near] - pz
        along, across = dx * np.cos(yaw) - dz * np.sin(yaw), dx * np.sin(yaw) + dz * np.cos(yaw)
        outside = np.hypot(
            np.maximum(np.abs(along) - length / 2 + 0.25, 0), np.maximum(np.abs(across) - width / 2 + 0.25, 0)
        )
        shade[near] *= 1 - 0.88 * np.exp(-np.square(outside / 0.38)).astype(np.float32)
    return shade
