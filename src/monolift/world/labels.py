"""Labels of a synthetic scene in KITTI's terms.

How the labels come about (KITTI's readme leaves the measuring to its annotators; here it is counted):

- bbox: the rectangle round that part of the object's outline, hidden parts included, which lies in the image. It is tight
  round the mesh, not round the projected 3D box. (KITTI's own boxes of truncated cars are like this: over a quarter of its
  training set, 827 cars, the top edge agrees to 1.4 px on average; cutting the rectangle of the whole car misses by 3.2.)
- truncated: share of the object's outline, in pixels, that lies outside the image.
- occluded: from the share of the outline's pixels inside the image that other things hide:
  up to 10 % is 0 (fully visible), up to 55 % is 1 (partly), above is 2 (largely); 3 (unknown) is never written. KITTI's
  annotators judged by eye; these limits are ours.
- DontCare: objects of which less than 8 % or fewer than 30 pixels are seen, or lower than 10 pixels, if anything is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monolift.data.formats.kitti_format import KittiLabels, from_numbers
from monolift.render import raster
from monolift.world.layout import Actor

FloatArray = npt.NDArray[np.floating]

PARTLY, LARGELY = 0.10, 0.55  # hidden shares above which occlusion is 1 and 2
MIN_SEEN, MIN_PIXELS, MIN_HEIGHT, MIN_DEPTH = 0.08, 30, 10.0, 0.5


@dataclass(frozen=True)
class Outline:
    """What an object would cover if nothing stood before it: rectangle (4,) round what lies in the image, pixels; how many
    pixels the whole has, and how many of them lie in the image."""

    rectangle: FloatArray
    total: float
    inside: float


def outline(corners: FloatArray, projection: FloatArray, width: int, height: int) -> Outline | None:
    """The outline of a soup (F, 3, 3) in an image; None when nothing of it lies there.

    What lies farther out than one image's width or height is not counted: objects beside the camera reach to infinity.
    The pixels are counted on a grid fine or coarse enough for about 200 cells along the object.
    """
    corners, _, _ = raster.clip_near(corners, corners, offset=float(projection[2, 3]))
    if not len(corners):
        return None
    pixels = raster.project(corners, projection)[0]
    low = np.maximum(pixels.min((0, 1)), [-width, -height])
    high = np.minimum(pixels.max((0, 1)), [2 * width, 2 * height])
    rectangle = bounds_inside(pixels, width, height)
    if rectangle is None or (high <= low).any():
        return None
    scale = 200 / float(max(*(high - low), 1.0))
    columns, rows = (int(np.ceil(v)) + 1 for v in (high - low) * scale)
    # Cell (i, j) has its centre at low + (i + 0.5, j + 0.5) / scale.
    covered = raster.coverage((pixels - low) * scale - 0.5, rows, columns)
    x = low[0] + (np.arange(columns) + 0.5) / scale
    y = low[1] + (np.arange(rows) + 0.5) / scale
    within = (x > -0.5) & (x < width - 0.5)
    between = (y > -0.5) & (y < height - 0.5)
    inside = covered[between][:, within].sum()
    return Outline(rectangle, covered.sum() / scale**2, inside / scale**2)


def bounds_inside(pixels: FloatArray, width: int, height: int) -> FloatArray | None:
    """(4,) rectangle round the part of triangles (F, 3, 2) inside [0, W - 1] x [0, H - 1]; None when there is none.

    Its extremes are corners inside the image, places where an edge meets the border, or corners of the image that a
    triangle covers.
    """
    limit = np.array([width - 1.0, height - 1.0])
    low, high = pixels.min((0, 1), initial=np.inf), pixels.max((0, 1), initial=-np.inf)
    if (low >= 0).all() and (high <= limit).all() and len(pixels):
        return np.concatenate([low, high])  # most objects: no edge meets the border
    found = [pixels.reshape(-1, 2)]
    start, end = pixels.reshape(-1, 2), np.roll(pixels, -1, 1).reshape(-1, 2)
    for axis in (0, 1):
        for border in (0.0, limit[axis]):
            crosses = (start[:, axis] < border) != (end[:, axis] < border)
            a, b = start[crosses], end[crosses]
            share = (border - a[:, axis]) / (b[:, axis] - a[:, axis])
            points = a + share[:, None] * (b - a)
            points[:, axis] = border
            found.append(points)
    for corner in np.array([(0.0, 0.0), (limit[0], 0.0), (0.0, limit[1]), (limit[0], limit[1])]):
        edge, offset = np.roll(pixels, -1, 1) - pixels, corner - pixels
        side = edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]
        if ((side > 0).all(1) | (side < 0).all(1)).any():
            found.append(corner[None])
    points = np.concatenate(found)
    points = points[((points >= 0) & (points <= limit)).all(1)]
    return np.concatenate([points.min(0), points.max(0)]) if len(points) else None


@dataclass(frozen=True)
class Labelled:
    """KITTI rows, nearest first, DontCare last; for each row the index of its actor, and (N,) the share of its outline inside
    the image that other things hide."""

    labels: KittiLabels
    actors: tuple[int, ...]
    hidden: FloatArray


def label_scene(
    actors: list[Actor], seen: FloatArray, projection: FloatArray, width: int, height: int
) -> Labelled:
    """The rows of the actors in the image; seen (N,) visible pixels of each actor."""
    rows: list[tuple[int, str, list[float], float]] = []
    ignored: list[tuple[int, str, list[float], float]] = []
    for k in np.argsort([a.bottom[2] for a in actors], kind="stable"):
        actor, visible = actors[k], float(seen[k])
        shape = outline(actor.part.corners, projection, width, height)
        if shape is None or visible <= 0 or shape.inside <= 0:
            continue
        box = shape.rectangle
        share = min(visible / shape.inside, 1.0)
        if (
            share < MIN_SEEN
            or visible < MIN_PIXELS
            or box[3] - box[1] < MIN_HEIGHT
            or actor.bottom[2] < MIN_DEPTH
        ):
            unknown = [-1, -1, -1, -1000, -1000, -1000, -10]
            ignored.append((int(k), "DontCare", [-1, -1, -10, *box, *unknown], 1 - share))
            continue
        truncation = max(1 - shape.inside / shape.total, 0.0)
        truncation = truncation if truncation > 0.01 else 0.0  # counting pixels is no better than that
        occlusion = 0 if 1 - share <= PARTLY else 1 if 1 - share <= LARGELY else 2
        alpha = (actor.yaw - np.arctan2(actor.bottom[0], actor.bottom[2]) + np.pi) % (2 * np.pi) - np.pi
        length, tall, wide = actor.size
        numbers = [truncation, occlusion, alpha, *box, tall, wide, length, *actor.bottom, actor.yaw]
        rows.append((int(k), actor.name, numbers, 1 - share))
    table = rows + ignored
    # Two decimals, as KITTI's files have; adding zero turns -0.0 into 0.0.
    numbers_2 = np.round(np.array([r for _, _, r, _ in table], float).reshape(-1, 14), 2) + 0.0
    labels = from_numbers([name for _, name, _, _ in table], numbers_2)
    return Labelled(labels, tuple(k for k, *_ in table), np.array([h for *_, h in table]))
