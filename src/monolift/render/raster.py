"""A plain z-buffer rasteriser in numpy: triangles in, face ids and depth out. Not differentiable, no torch.

Triangles are cut into spans (one per triangle and pixel row) and spans into fragments, all triangles at once, so
the cost follows the number of fragments and not the number of triangles. Shading is deferred: `rasterise` only finds the
nearest face of every sample; `Interpolator` then interpolates whatever the corners carry at the visible samples.

Conventions: camera frame x right, y down, z forward, metres; pixels with centres at integers; "soup" is one row
per triangle, nothing shared: corners (F, 3, 3), pixels (F, 3, 2), anything carried (F, 3, A).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monolift.files.renamed import renamed

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]

NEAR = 0.1  # metres; what lies nearer is cut off
_CHUNK = 1 << 19  # fragments worked on at once: large enough for numpy, small enough for the cache
_FACE_BITS = 32


@dataclass(frozen=True)
class Buffers:
    """What every sample sees.

    Attributes:
        face: (H, W) int64 index of the nearest face, -1 where there is none or the background is nearer
        inv_depth: (H, W) float32 1 / z there, 1/metres; 0 is infinitely far
    """

    face: npt.NDArray[np.int64]
    inv_depth: npt.NDArray[np.float32]

    @property
    def depth(self) -> npt.NDArray[np.float32]:
        """(H, W) z in metres, inf where nothing is."""
        with np.errstate(divide="ignore"):
            return 1.0 / self.inv_depth


@dataclass(frozen=True)
class RasterImage:
    """A rendered image: image (H, W, A) float, what the corners carried; depth (H, W) metres, inf where
    nothing is; ids (H, W) int64, -1 where nothing is."""

    image: FloatArray
    depth: FloatArray
    ids: IntArray


def project(points: FloatArray, projection: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pixels (..., 2) and projective depth (...) of points (..., 3) under a (3, 4) matrix such as KITTI's P2.

    Points at or behind the camera give meaningless pixels: cut with `clip_near` first.
    """
    homogeneous = points @ projection[:, :3].T + projection[:, 3]
    depth = homogeneous[..., 2]
    return homogeneous[..., :2] / depth[..., None], depth


def sample_projection(projection: FloatArray, supersample: int) -> FloatArray:
    """The projection to the samples of an image that is `supersample` times finer: u -> s (u + 0.5) - 0.5."""
    s = float(supersample)
    shift = (s - 1.0) / 2.0
    return np.array([[s, 0.0, shift], [0.0, s, shift], [0.0, 0.0, 1.0]]) @ projection


def box_filter(samples: FloatArray, supersample: int) -> FloatArray:
    """(H s, W s, A) samples averaged to (H, W, A) pixels."""
    if supersample == 1:
        return samples
    height, width = samples.shape[0] // supersample, samples.shape[1] // supersample
    total = np.zeros((height, width, *samples.shape[2:]), samples.dtype)
    for row in range(supersample):
        for column in range(supersample):
            total += samples[row::supersample, column::supersample]
    return total / supersample**2


def clip_near(
    corners: FloatArray, carried: FloatArray, near: float = NEAR, offset: float = 0.0
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Cut triangles at z + offset = near; what they carry is interpolated along the cut edges.

    corners (F, 3, 3), carried (F, 3, A). Returns both for the triangles in front (a cut one may become two) and
    `source` (F'), the row each came from. Triangles with a corner that is not finite are dropped.
    """
    depth = corners[..., 2] + offset
    inside = depth >= near
    finite = np.isfinite(np.einsum("fij->f", corners))  # a sum is finite when all its terms are
    count = np.where(finite, inside[:, 0].astype(np.int8) + inside[:, 1] + inside[:, 2], 0)
    whole = np.flatnonzero(count == 3)
    joint = np.concatenate([corners, carried], 2)

    def cut(row: IntArray, a: IntArray, b: IntArray) -> FloatArray:
        """The point of edge a-b on the near plane."""
        za, zb = depth[row, a], depth[row, b]
        share = ((near - za) / (zb - za))[:, None]
        return joint[row, a] + share * (joint[row, b] - joint[row, a])

    # Turn each cut triangle so that its odd corner (the only one inside, or the only one outside) comes first.
    one = np.flatnonzero(count == 1)
    first = inside[one].argmax(1)
    second, third = (first + 1) % 3, (first + 2) % 3
    tips = np.stack([joint[one, first], cut(one, first, second), cut(one, first, third)], 1)
    two = np.flatnonzero(count == 2)
    first = (~inside[two]).argmax(1)
    second, third = (first + 1) % 3, (first + 2) % 3
    on_second, on_third = cut(two, second, first), cut(two, third, first)
    lower = np.stack([joint[two, second], joint[two, third], on_third], 1)
    upper = np.stack([joint[two, second], on_third, on_second], 1)
    out = np.concatenate([joint[whole], tips, lower, upper])
    return out[..., :3], out[..., 3:], np.concatenate([whole, one, two, two])


def front_facing(pixels: FloatArray) -> BoolArray:
    """(F,) whether the outside is seen, for corners ordered so that (b - a) x (c - a) points outward: they then run
    counter-clockwise to the eye."""
    one, two = pixels[:, 1] - pixels[:, 0], pixels[:, 2] - pixels[:, 0]
    return one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] < 0


@dataclass(frozen=True)
class _Spans:
    """One row of pixels of one triangle each: face, row, columns start <= x < stop."""

    face: IntArray
    row: IntArray
    start: IntArray
    stop: IntArray


def _spans(pixels: FloatArray, height: int, width: int) -> _Spans:
    """Which samples each triangle covers. A sample belongs to a triangle when its centre lies in
    [left, right) x [top, bottom), so that triangles sharing an edge share no sample and leave no gap."""
    x, y = pixels[..., 0], pixels[..., 1]
    near = (_largest(x) > 0) & (_smallest(x) < width) & (_largest(y) > 0) & (_smallest(y) < height)
    faces = np.flatnonzero(near)
    order = np.argsort(y[faces], 1, kind="stable")
    x, y = (np.take_along_axis(v[faces], order, 1).astype(np.float64).T for v in (x, y))
    top, middle, bottom = (np.clip(np.ceil(v), 0, height).astype(np.int64) for v in y)
    rows = bottom - top
    count = np.repeat(np.arange(len(faces)), rows)
    row = np.arange(len(count)) + np.repeat(top - np.cumsum(rows) + rows, rows)
    # The crossing of an edge is computed from its upper end in both of its triangles: bit for bit the same.
    with np.errstate(divide="ignore", invalid="ignore"):  # level edges cross no row
        long_slope = (x[2] - x[0]) / (y[2] - y[0])
        slopes = np.concatenate([(x[1] - x[0]) / (y[1] - y[0]), (x[2] - x[1]) / (y[2] - y[1])])
    starts_x, starts_y = np.concatenate([x[0], x[1]]), np.concatenate([y[0], y[1]])
    long_edge = x[0].take(count) + (row - y[0].take(count)) * long_slope.take(count)
    short = count + len(faces) * (row >= middle.take(count))
    short_edge = starts_x.take(short) + (row - starts_y.take(short)) * slopes.take(short)
    left = np.clip(np.ceil(np.minimum(long_edge, short_edge)), 0, width).astype(np.int64)
    right = np.clip(np.ceil(np.maximum(long_edge, short_edge)), 0, width).astype(np.int64)
    some = np.flatnonzero(right > left)
    return _Spans(faces.take(count.take(some)), row.take(some), left.take(some), right.take(some))


def _smallest(corners: FloatArray) -> FloatArray:
    """(F,) least of three columns (F, 3); numpy is slow at short axes."""
    return np.minimum(np.minimum(corners[:, 0], corners[:, 1]), corners[:, 2])


def _largest(corners: FloatArray) -> FloatArray:
    return np.maximum(np.maximum(corners[:, 0], corners[:, 1]), corners[:, 2])


def _fragments(spans: _Spans, width: int) -> Iterator[tuple[slice, IntArray, IntArray, IntArray]]:
    """Chunks of fragments: which spans, how many fragments each of them has, and of each fragment the place in its span and
    the flat pixel index."""
    length = spans.stop - spans.start
    ends = np.cumsum(length)
    begin = 0
    while begin < len(length):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        chosen, part = slice(begin, end), length[begin:end]
        place = np.arange(ends[end - 1] - done) - np.repeat(ends[chosen] - part - done, part)
        yield chosen, part, place, place + np.repeat(spans.row[chosen] * width + spans.start[chosen], part)
        begin = end


def _inv_depth_planes(pixels: FloatArray, inv_depth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradient (F, 2) of 1 / z over the screen and its value (F,) at the first corner.

    1 / z is linear on the screen; a triangle without area gets a zero gradient (it has no fragments anyway).
    """
    edge1, edge2 = pixels[:, 1] - pixels[:, 0], pixels[:, 2] - pixels[:, 0]
    rise1, rise2 = inv_depth[:, 1] - inv_depth[:, 0], inv_depth[:, 2] - inv_depth[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    safe = np.where(area == 0, np.inf, area)
    slope_x = (rise1 * edge2[:, 1] - rise2 * edge1[:, 1]) / safe
    slope_y = (rise2 * edge1[:, 0] - rise1 * edge2[:, 0]) / safe
    return np.stack([slope_x, slope_y], 1), inv_depth[:, 0]


def rasterise(
    pixels: FloatArray,
    inv_depth: FloatArray,
    height: int,
    width: int,
    background: npt.NDArray[np.float32] | None = None,
) -> Buffers:
    """The nearest face of every sample.

    pixels (F, 3, 2) projected corners, all in front of the camera; inv_depth (F, 3) their 1 / z, or any other
    positive quantity that is linear on the screen and larger when nearer; background (H, W) float32 inverse
    depth of what lies behind (a ground plane, say): faces farther than it are not drawn.
    On equal depth the face with the larger index wins.
    """
    slope, first = _inv_depth_planes(pixels.astype(np.float64), inv_depth.astype(np.float64))
    spans = _spans(pixels, height, width)
    face = spans.face
    across, down = slope[:, 0].take(face), slope[:, 1].take(face)
    x, y = pixels[:, 0, 0].take(face), pixels[:, 0, 1].take(face)
    at_start = (first.take(face) + down * (spans.row - y) + across * (spans.start - x)).astype(np.float32)
    across = across.astype(np.float32)
    # Rounding may carry a sliver's plane beyond its corners.
    lowest = _smallest(inv_depth).astype(np.float32).take(face)
    highest = _largest(inv_depth).astype(np.float32).take(face)
    # Depth and face in one integer: positive float32 order as their bits do, so one maximum finds the nearest.
    if background is None:
        keys = np.zeros(height * width, np.int64)
    else:
        keys = (
            np.ascontiguousarray(background, np.float32).view(np.int32).astype(np.int64).ravel() << _FACE_BITS
        )
    for chosen, part, place, pixel in _fragments(spans, width):
        value = np.repeat(across[chosen], part)
        value *= place
        value += np.repeat(at_start[chosen], part)
        np.clip(value, np.repeat(lowest[chosen], part), np.repeat(highest[chosen], part), out=value)
        key = value.view(np.int32).astype(np.int64)
        key <<= _FACE_BITS
        key |= np.repeat(face[chosen] + 1, part)
        np.maximum.at(keys, pixel, key)
    nearest = (keys & ((1 << _FACE_BITS) - 1)) - 1
    depth = (keys >> _FACE_BITS).astype(np.int32).view(np.float32)
    return Buffers(nearest.reshape(height, width), depth.reshape(height, width))


def coverage(pixels: FloatArray, height: int, width: int) -> BoolArray:
    """(H, W) whether any triangle covers the sample; pixels as in `rasterise`."""
    covered = np.zeros(height * width, bool)
    for *_, pixel in _fragments(_spans(pixels, height, width), width):
        covered[pixel] = True
    return covered.reshape(height, width)


class Interpolator:
    """What the corners of a soup carry, at the samples where its faces are seen; perspective-correct.

    pixels (F, 3, 2) and inv_depth (F, 3) as in `rasterise`, carried (F, 3, A). Weights are screen barycentrics times 1 / z,
    normalised.
    """

    def __init__(self, pixels: FloatArray, inv_depth: FloatArray, carried: FloatArray) -> None:
        self.origin = pixels[:, 0].astype(np.float64)
        edge1, edge2 = pixels[:, 1] - self.origin, pixels[:, 2] - self.origin
        area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
        scale = (1.0 / np.where(area == 0, np.inf, area))[:, None]
        self.to_one = (np.stack([edge2[:, 1], -edge2[:, 0]], 1) * scale).astype(np.float32)
        self.to_two = (np.stack([-edge1[:, 1], edge1[:, 0]], 1) * scale).astype(np.float32)
        self.inv_depth = inv_depth.astype(np.float32)
        self.carried = carried.astype(np.float32)

    def weights(
        self, face: IntArray, column: IntArray | FloatArray, row: IntArray | FloatArray
    ) -> FloatArray:
        """(N, 3) float32 weights of the corners of `face` at (column, row), which may lie between samples."""
        # Offsets in float64 before rounding: a corner may lie far outside the image.
        origin, to_one, to_two = (v.take(face, 0) for v in (self.origin, self.to_one, self.to_two))
        x = (column - origin[:, 0]).astype(np.float32)
        y = (row - origin[:, 1]).astype(np.float32)
        one = np.clip(x * to_one[:, 0] + y * to_one[:, 1], 0, 1)
        two = np.clip(x * to_two[:, 0] + y * to_two[:, 1], 0, 1)
        weights = self.inv_depth.take(face, 0)
        weights[:, 0] *= np.maximum(1 - one - two, 0)
        weights[:, 1] *= one
        weights[:, 2] *= two
        return weights / (weights[:, 0] + weights[:, 1] + weights[:, 2])[:, None]

    def __call__(
        self, face: IntArray, column: IntArray | FloatArray, row: IntArray | FloatArray
    ) -> FloatArray:
        """(N, A) float32 interpolated values."""
        weights, values = self.weights(face, column, row), self.carried.take(face, 0)
        return np.einsum("nk,nka->na", weights, values)


def render(
    corners: FloatArray,
    carried: FloatArray,
    projection: FloatArray,
    height: int,
    width: int,
    ids: IntArray | None = None,
    supersample: int = 2,
    background: float = 0.0,
) -> RasterImage:
    """Draw a triangle soup with the simplest shading: what the corners carry (colours) is what is seen.

    corners (F, 3, 3) metres, carried (F, 3, A), projection (3, 4), ids (F,) per face (the face's index when absent).
    Depth and ids are those of the pixel centres; the image averages supersample^2 samples per pixel.
    """
    corners, carried, source = clip_near(corners, carried, offset=float(projection[2, 3]))
    labels = source if ids is None else np.asarray(ids)[source]
    image = np.full((height * supersample, width * supersample, carried.shape[2]), background, np.float32)
    pixels, depth = project(corners, sample_projection(projection, supersample))
    seen = rasterise(pixels, 1.0 / depth, *image.shape[:2]).face
    row, column = np.nonzero(seen >= 0)
    face = seen[row, column]
    image[row, column] = Interpolator(pixels, 1.0 / depth, carried)(face, column, row)
    pixels, depth = project(corners, projection)
    exact = rasterise(pixels, 1.0 / depth, height, width)
    named = np.where(exact.face >= 0, np.append(labels, -1)[exact.face], -1)
    return RasterImage(box_filter(image, supersample), exact.depth, named)


__getattr__ = renamed(__name__, Picture="RasterImage")
