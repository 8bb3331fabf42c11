"""What a spinning laser scanner measures in a synthetic scene: points in KITTI's velodyne frame.

The scanner is KITTI's: 64 beams, the upper 32 a third of a degree apart from +2 degrees down, the lower 32 half a degree
apart from -8.83 degrees down, a measurement every 0.1728 degrees of turn (Velodyne HDL-64E S2, user's manual; 10 Hz).

How it is made: the scene's triangles are drawn once more into a z-buffer as seen from the scanner, finer than its beams; each
beam looks up which triangle it meets there and is cut with that triangle's plane, or with the ground's. So the places are exact
but for beams that pass a silhouette within a cell (a fifth of a degree), and what the camera sees and the scanner does not is
missing, as in reality. Returns are a rule of thumb, not physics: see `_strength`. One place and time per image: no
distortion by the car's motion, no second echoes, no points behind glass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import KittiCalib
from monolift.render import raster
from monolift.render.texture_bank import TextureBank
from monolift.world.ground import Ground, Noise, ground_albedo
from monolift.world.render import Stage

FloatArray = npt.NDArray[np.floating]

BEAMS = np.concatenate([2.0 - np.arange(32) / 3, -8.83 - np.arange(32) / 2])
"""(64,) elevation of the beams, degrees."""
TURN = 0.1728  # degrees between measurements of a beam
NEAREST, FARTHEST = 1.0, 120.0  # metres
RANGE_NOISE = 0.02  # metres, standard deviation
LOST = 0.03  # share of returns lost for no reason
_CELLS = np.array([550.0, 320.0])  # of the z-buffer per unit of tangent, across and down
_VELO_FROM_EYE = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # from x right, y down, z forward


@dataclass(frozen=True)
class _Echoes:
    """What M measurements meet: z along the scanner's axis in metres (inf: nothing), share of light sent back, gloss, and the
    cosine between beam and surface normal; each (M,)."""

    z: FloatArray
    reflects: FloatArray
    gloss: FloatArray
    facing: FloatArray


def scan(
    stage: Stage, ground: Ground, calib: KittiCalib, size: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """(N, 4) x forward, y left, z up in metres and the intensity of the return, 0 to 0.99; velodyne frame of `calib`.

    Only points that fall into the image of `size` (width, height).
    """
    turn, place = _eye_from_camera(calib)
    beams = _directions(calib.p2, size, rng)
    rays = np.column_stack([beams, np.ones(len(beams))])
    echoes = _road(ground, rays @ turn, place, _grain())
    if stage.parts:
        _meet(stage, turn, place, beams, echoes)
    distance = echoes.z * np.linalg.norm(rays, axis=1)
    strength = _strength(echoes, distance) * np.exp(rng.normal(0, 0.4, len(distance)))
    noticed = (strength > 1) & (rng.random(len(distance)) > LOST)
    kept = noticed & (distance > NEAREST) & (distance < FARTHEST)
    share = 1 + rng.normal(0, RANGE_NOISE, len(distance))[kept] / distance[kept]
    points = rays[kept] * (echoes.z[kept] * share)[:, None]
    intensity = np.clip(np.round(_returned(echoes) * 1.2, 2), 0, 0.99)[kept]
    inside = _in_image(points @ turn + place, calib.p2, size)
    return np.column_stack([points @ _VELO_FROM_EYE.T, intensity])[inside].astype(np.float32)


@functools.lru_cache(maxsize=1)
def _grain() -> Noise:
    """Unevenness of what the ground sends back; the same in all images."""
    return Noise(np.random.default_rng(0))


def _road(ground: Ground, rays: FloatArray, place: FloatArray, noise: Noise) -> _Echoes:
    """Where rays (M, 3), camera axes, one metre long along the scanner's z, meet the ground plane."""
    fall = rays[:, 1] - ground.slope_x * rays[:, 0] - ground.slope_z * rays[:, 2]
    drop = float(ground.y(place[0], place[2]) - place[1])
    down = np.flatnonzero(fall > 1e-6)
    z, reflects = np.full(len(rays), np.inf), np.zeros(len(rays))
    z[down] = drop / fall[down]
    met = place + rays[down] * z[down, None]
    reflects[down] = _infrared(ground_albedo(ground, met[:, 0], met[:, 2], np.maximum(met[:, 2], 1), noise))
    facing = np.abs(fall) / np.linalg.norm(rays, axis=1)
    return _Echoes(z, reflects, np.zeros(len(rays)), facing)


def _meet(stage: Stage, turn: FloatArray, place: FloatArray, beams: FloatArray, echoes: _Echoes) -> None:
    """Put what stands before the ground into the echoes."""
    corners, carried, owner = stage.soup()
    corners, carried = (corners - place) @ turn.T, carried.copy()
    carried[..., 2:] = carried[..., 2:] @ turn.T
    corners, carried, source = raster.clip_near(corners, carried)
    low, high = beams.min(0), beams.max(0)
    window = np.array(
        [[_CELLS[0], 0, 1 - _CELLS[0] * low[0], 0], [0, _CELLS[1], 1 - _CELLS[1] * low[1], 0], [0, 0, 1, 0]]
    )
    pixels, depth = raster.project(corners, window)
    width, height = (
        int(np.ceil(extent * cells)) + 3 for extent, cells in zip(high - low, _CELLS, strict=True)
    )
    seen = raster.rasterise(pixels, 1.0 / depth, height, width).face
    column, row = ((beams - low) * _CELLS + 1).T
    face = seen[np.rint(row).astype(int), np.rint(column).astype(int)]
    hit = np.flatnonzero(face >= 0)
    face = face[hit]
    joint = np.concatenate([carried, depth[..., None]], 2)
    values = raster.Interpolator(pixels, 1.0 / depth, joint)(face, column[hit], row[hit])
    first = values[:, 5] < echoes.z[hit]
    hit, face, values = hit[first], face[first], values[first]
    bank = TextureBank(4)
    texture = np.array([bank.add(p.texture) for p in stage.parts])[owner[source]]
    material = bank.look_up(bank.levels(texture, carried[..., :2], pixels)[face], values[:, :2])
    rays = np.column_stack([beams[hit], np.ones(len(hit))])
    echoes.z[hit] = values[:, 5]
    echoes.reflects[hit], echoes.gloss[hit] = _infrared(material), material[:, 3]
    echoes.facing[hit] = np.abs((_unit(values[:, 2:5]) * _unit(rays)).sum(1))


def _infrared(colour: FloatArray) -> FloatArray:
    """(M,) reflectance at the laser's 905 nm, guessed from linear RGB: the mean, and more for what is green, as leaves are."""
    green = colour[:, 1] - np.maximum(colour[:, 0], colour[:, 2])
    return colour[:, :3].mean(1) + 4 * np.maximum(green, 0)


def _returned(echoes: _Echoes) -> FloatArray:
    """(M,) share of the light sent back; rough surfaces send some back at grazing angles too."""
    return echoes.reflects * (0.35 + 0.65 * echoes.facing)


def _strength(echoes: _Echoes, distance: FloatArray) -> FloatArray:
    """(M,) strength of the return; 1 is just noticed.

    The manual's anchor is a surface that reflects 10 % at 50 m. Glass and lamps (gloss near 1) pass the beam or throw it
    elsewhere: a tenth comes back.
    """
    return _returned(echoes) * np.where(echoes.gloss > 0.8, 0.1, 1.0) / 0.1 * np.square(50.0 / distance)


def _eye_from_camera(calib: KittiCalib) -> tuple[FloatArray, FloatArray]:
    """(3, 3) turn from camera axes to the scanner's (x right, y down, z forward); (3,) its place in the camera frame."""
    rectify, velo = calib["R0_rect"], calib["Tr_velo_to_cam"]
    camera_from_eye = rectify @ velo[:, :3] @ _VELO_FROM_EYE
    return camera_from_eye.T, rectify @ velo[:, 3]


def _directions(projection: FloatArray, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """(M, 2) tangents (right, down) of the measurements to the front, beam by beam; no two beams start at the same turn."""
    reach = [np.arctan((edge - projection[0, 2]) / projection[0, 0]) for edge in (-0.5, size[0] - 0.5)]
    first, last = np.clip(np.degrees(reach) + np.array([-0.5, 0.5]), -80, 80)
    step = np.arange(0, last - first, TURN)
    azimuth = np.radians(first + step[None] + rng.uniform(0, TURN, (len(BEAMS), 1)))
    elevation = np.radians(BEAMS)[:, None]
    return np.stack([np.tan(azimuth), -np.tan(elevation) / np.cos(azimuth)], -1).reshape(-1, 2)


def _in_image(points: FloatArray, projection: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    homogeneous = points @ projection[:, :3].T + projection[:, 3]
    pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    limit = np.array(size) - 0.5
    return (homogeneous[:, 2] > 0) & ((pixels > -0.5) & (pixels < limit)).all(1)


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
