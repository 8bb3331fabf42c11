"""Which triangle each pixel sees, and where on it: the part of rendering that has no gradient, and the part that has.

Pixel centres are at integers. A triangle covers the pixel centres inside it or on its edge. Rows are cut at the edges: an edge
from a to b crosses row y at x = a_x + (y - a_y) (b_x - a_x) / (b_y - a_y), and is always computed from its vertex of
lower index, so that two triangles that share it agree to the last bit: no pixel falls between them.

"Screen" vertices hold column and row in pixels and depth in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.typing import Bool, Float, Int, Tensor

NEAR = 0.1  # metres; a face that reaches nearer to the image plane is not drawn
MIN_AREA = 1e-4  # square pixels, doubled; below it rounding decides which way a triangle faces
_CHUNK = 1 << 22  # fragments held at once
_CORNER_PAIRS = ((0, 1), (1, 2), (2, 0))


@dataclass(frozen=True)
class Fragments:
    """What a batch of B images of H x W pixels sees: P covered pixels, in order of pixel.

    Attributes:
        shape: (B, H, W)
        pixel: (P,) index of the pixel in the flattened batch
        face: (P,) index of the nearest face
        weights: (P, 3) perspective-correct barycentric coordinates; sum 1; differentiable in the screen vertices
        depth: (P,) metres; differentiable
        drawn: (B, F) whether the face looks at the camera and lies in front of it
    """

    shape: tuple[int, int, int]
    pixel: Int[Tensor, " p"]
    face: Int[Tensor, " p"]
    weights: Float[Tensor, "p 3"]
    depth: Float[Tensor, " p"]
    drawn: Bool[Tensor, "b f"]

    @property
    def owner(self) -> Int[Tensor, " p"]:
        """(P,) index of the object, which is the image's."""
        return self.pixel // max(self.shape[1] * self.shape[2], 1)

    def face_map(self) -> Int[Tensor, "b h w"]:
        """Index of the face each pixel sees, -1 where there is none."""
        face = self.face.new_full((self.shape[0] * self.shape[1] * self.shape[2],), -1)
        return face.index_copy(0, self.pixel, self.face).view(self.shape)

    def image(self, values: Float[Tensor, "p *c"]) -> Float[Tensor, "b h w *c"]:
        """Values of the covered pixels as images, zero elsewhere."""
        size = self.shape[0] * self.shape[1] * self.shape[2]
        empty = values.new_zeros(size, *values.shape[1:])
        return empty.index_copy(0, self.pixel, values).view(*self.shape, *values.shape[1:])

    def interpolate(self, corners: Float[Tensor, "f 3 c"]) -> Float[Tensor, "p c"]:
        """What the corners of the faces carry, at the covered pixels."""
        mine = corners.index_select(0, self.face)
        return (self.weights[:, :, None] * mine).sum(1)


def project(vertices: Float[Tensor, "b v 3"], cameras: Camera) -> Float[Tensor, "b v 3"]:
    """Screen vertices of points of the camera frame, one camera per object; differentiable in both.

    Raises:
        InputError: when the numbers of objects and cameras differ.
    """
    if cameras.fx.shape != vertices.shape[:1]:
        raise InputError(
            f"expected {vertices.shape[0]} cameras, one per object, got cameras of shape {tuple(cameras.fx.shape)}"
        )
    cameras = cameras[:, None]
    return torch.cat([cameras.px_from_cam(vertices), cameras.depth(vertices)[..., None]], -1)


def rasterize(
    screen: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], height: int, width: int
) -> Fragments:
    """The nearest face of each pixel, with weights and depth that are differentiable in ``screen``. Any device.

    Not drawn: faces that look away, that are thinner than ``MIN_AREA``, that reach nearer than ``NEAR`` (they are not cut:
    an object that near has no crop), or with a vertex that is not finite. Gradients of the weights and depth are exact
    inside a face and leave out that pixels appear and vanish at edges: ``antialias`` is for that.
    """
    with torch.no_grad():
        objects, faces_drawn, drawn = _drawn_faces(screen, faces)
        face_map = _nearest_faces(screen, faces, objects, faces_drawn, height, width)
        pixel = (face_map >= 0).nonzero().squeeze(1)
        face = face_map.index_select(0, pixel)
    shape = (screen.shape[0], height, width)
    weights, depth = _interpolation(screen, faces, shape, pixel, face)
    return Fragments(shape, pixel, face, weights, depth, drawn)


def _drawn_faces(screen: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Object and face (T,) of each triangle to draw, and the same as a mask (B, F)."""
    corners = screen.index_select(1, faces.reshape(-1)).unflatten(1, (len(faces), 3))
    x, y, z = corners.unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (x[..., 2] - x[..., 0]) * (
        y[..., 1] - y[..., 0]
    )
    # With y down, what looks at the camera winds to a negative area. NaN fails every comparison, inf ends as NaN or inf.
    drawn = (area < -MIN_AREA) & (z > NEAR).all(-1) & area.isfinite() & z.isfinite().all(-1)
    objects, face = drawn.nonzero(as_tuple=True)
    return objects, face, drawn


def _nearest_faces(
    screen: Tensor, faces: Tensor, objects: Tensor, face: Tensor, height: int, width: int
) -> Tensor:
    """Index of the nearest face of each pixel, (B * H * W,), -1 where there is none: a z-buffer without a loop.

    Triangles are cut into spans, one per pixel row, and spans into fragments; each fragment bids for its pixel with a
    64-bit key, inverse depth above, face below, so that one scattered maximum is the depth test.
    """
    span_triangle, span_row, start, count = _spans(screen, faces, objects, face, height, width)
    plane = _inverse_depth_planes(screen, faces, objects, face)
    best = torch.full((screen.shape[0] * height * width,), -1, dtype=torch.int64, device=screen.device)
    last_face = len(faces) - 1
    ends = count.cumsum(0)
    first = 0
    while first < len(count):
        before = int(ends[first - 1]) if first else 0
        stop = max(int(torch.searchsorted(ends, before + _CHUNK, right=True)), first + 1)
        spans = torch.arange(first, stop, device=screen.device).repeat_interleave(count[first:stop])
        place = torch.arange(before, before + len(spans), device=screen.device)
        column = start[spans] + place - (ends - count)[spans]
        triangle, row = span_triangle[spans], span_row[spans]
        x0, y0, q0, qx, qy, low, high = plane[triangle].unbind(1)
        inverse_depth = q0 + (column - x0) * qx + (row - y0) * qy
        # A sliver's plane is steep: rounding must not carry it past its own corners.
        inverse_depth = torch.minimum(torch.maximum(inverse_depth, low), high)
        # The bits of a positive float32 grow with it. On equal depth the lower face wins.
        key = (inverse_depth.float().view(torch.int32).long() << 32) | (last_face - face[triangle])
        best.scatter_reduce_(0, (objects[triangle] * height + row) * width + column, key, "amax")
        first = stop
    return torch.where(best < 0, best, last_face - (best & 0xFFFFFFFF))


def _spans(
    screen: Tensor, faces: Tensor, objects: Tensor, face: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Triangle, row, first column and number of pixels of each span; all (S,) integers."""
    vertex = faces[face] + objects[:, None] * screen.shape[1]
    corners = screen.reshape(-1, 3)[vertex]  # (T, 3 corners, 3)
    y = corners[..., 1]
    top = y.amin(1).ceil().clamp(0, height)
    bottom = y.amax(1).floor().clamp(-1, height - 1)
    rows = (bottom - top + 1).clamp_min(0).long()
    triangle = torch.arange(len(rows), device=screen.device).repeat_interleave(rows)
    row = torch.arange(len(triangle), device=screen.device) - (rows.cumsum(0) - rows)[triangle]
    row = row + top.long()[triangle]

    start = screen.new_zeros(len(triangle))
    stop = screen.new_full((len(triangle),), width - 1)
    for i, j in _CORNER_PAIRS:
        swap = (vertex[:, i] > vertex[:, j])[:, None]
        a = torch.where(swap, corners[:, j], corners[:, i])
        b = torch.where(swap, corners[:, i], corners[:, j])
        slope = (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        low, high = torch.minimum(a[:, 1], b[:, 1]), torch.maximum(a[:, 1], b[:, 1])
        downward = (y[:, j] > y[:, i]).to(
            slope.dtype
        )  # an edge walked downwards bounds the triangle on the left
        table = torch.stack([a[:, 0], a[:, 1], slope, low, high, downward], 1).index_select(0, triangle)
        ax, ay, slope, low, high, left = table.unbind(1)
        cut = (row >= low) & (row <= high) & (low < high)
        crossing = ax + (row - ay) * slope
        start = torch.where(cut & (left > 0), torch.maximum(start, crossing.ceil()), start)
        stop = torch.where(cut & (left == 0), torch.minimum(stop, crossing.floor()), stop)
    count = (stop - start + 1).clamp(0, width).long()
    kept = (count > 0).nonzero().squeeze(1)
    return triangle[kept], row[kept], start[kept].long(), count[kept]


def _inverse_depth_planes(screen: Tensor, faces: Tensor, objects: Tensor, face: Tensor) -> Tensor:
    """(T, 7): x0, y0, 1/z0 at the first corner, the slopes of 1/z along x and y, its least and greatest value.

    On the screen 1/z is linear, z is not.
    """
    corners = screen.reshape(-1, 3)[faces[face] + objects[:, None] * screen.shape[1]]
    x, y, z = corners.unbind(-1)
    q = 1 / z
    x1, y1, q1 = (v[:, 1] - v[:, 0] for v in (x, y, q))
    x2, y2, q2 = (v[:, 2] - v[:, 0] for v in (x, y, q))
    area = x1 * y2 - x2 * y1
    qx, qy = (q1 * y2 - q2 * y1) / area, (x1 * q2 - x2 * q1) / area
    return torch.stack([x[:, 0], y[:, 0], q[:, 0], qx, qy, q.amin(1), q.amax(1)], 1)


def _interpolation(
    screen: Tensor, faces: Tensor, shape: tuple[int, int, int], pixel: Tensor, face: Tensor
) -> tuple[Tensor, Tensor]:
    """Perspective-correct weights (P, 3) and depth (P,) of the covered pixels."""
    _, height, width = shape
    owner = pixel // max(height * width, 1)
    in_image = pixel - owner * (height * width)
    row = in_image // max(width, 1)
    column = in_image - row * width
    vertex = faces.index_select(0, face) + (owner * screen.shape[1])[:, None]
    corners = screen.reshape(-1, 3).index_select(0, vertex.reshape(-1)).view(-1, 9)
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = corners.unbind(1)
    # Relative to the pixel, twice the areas opposite to the corners are products of small numbers: nothing cancels.
    x0, x1, x2 = x0 - column, x1 - column, x2 - column
    y0, y1, y2 = y0 - row, y1 - row, y2 - row
    area0, area1, area2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
    over0, over1, over2 = area0 / z0, area1 / z1, area2 / z2
    total = over0 + over1 + over2
    weights = torch.stack([over0, over1, over2], 1) / total[:, None]
    return weights, (area0 + area1 + area2) / total
