"""Antialiasing along silhouette edges: what makes an image differentiable where one surface ends before another.

A pixel sees one face, so its colour jumps when an edge passes its centre and no gradient says so. Here each silhouette edge of
the mesh is walked. An edge steeper than 45 degrees crosses pixel rows, one less steep pixel columns. At a crossing, between two
neighbouring pixel centres, the share of the pixel that the edge cuts off takes the neighbour's colour:

    p            crossing      p + 1           g = crossing - (p + 1/2), in [-1/2, 1/2]
    |---------------|---|--------|             g > 0: pixel p + 1 takes the share g of pixel p's colour
    centre        edge  middle  centre         g < 0: pixel p takes the share -g of pixel p + 1's colour

The covered length of every row, hence the area, is then exact, and its derivative flows through g to the edge's two vertices.
The idea of pairs is nvdiffrast's (Laine et al., "Modular Primitives for High-Performance Differentiable Rendering", 2020,
section 3.6). There the edges examined are those of the triangle seen at a pixel; at an object's limb triangles are thinner than
a pixel and the edge seldom belongs to that triangle, which loses half of the gradient. So here the edges look for the pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from monolift.render.mesh import Edges
from monolift.render.rasterize import Fragments
from monolift.typing import Float, Int, Tensor

DEPTH_TOLERANCE = 1.002  # the surface beyond an edge is behind it by more than rounding and its own slope


class _Walks(NamedTuple):
    """S silhouette edges: indices of their ends and of the inner face's third vertex among the batch's vertices, whether
    they cross columns, the first line (row or column) crossed and how many."""

    object: Tensor
    start: Tensor
    end: Tensor
    across_columns: Tensor
    inner_is_after: Tensor
    first: Tensor
    lines: Tensor


class _Crossings(NamedTuple):
    """Places where an edge passes between two pixel centres: the edge (an index of ``_Walks``), the line crossed, the
    pixel before and its index and the one after among the batch's pixels."""

    walk: Tensor
    line: Tensor
    before: Tensor
    pixel_before: Tensor
    pixel_after: Tensor


def antialias(
    image: Float[Tensor, "b h w c"],
    screen: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    edges: Edges,
    fragments: Fragments,
) -> Float[Tensor, "b h w c"]:
    """``image`` (colours of the fragments, background elsewhere) with its silhouettes smoothed; differentiable in image and
    screen vertices.

    Where silhouettes meet, a pixel is cut from two sides and its share may leave [0, 1] by a little.
    """
    colours = image.reshape(-1, image.shape[-1])
    with torch.no_grad():
        walks = _silhouette_edges(screen, edges, fragments)
        crossings = _crossings(screen, walks, fragments)
    cut = _offsets(screen.reshape(-1, 3), walks, crossings)[:, None]
    before, after = (
        colours.index_select(0, crossings.pixel_before),
        colours.index_select(0, crossings.pixel_after),
    )
    pixel_cut = torch.where(cut[:, 0] > 0, crossings.pixel_after, crossings.pixel_before)
    return colours.index_add(0, pixel_cut, cut * (before - after)).view(image.shape)


def _silhouette_edges(screen: Tensor, edges: Edges, fragments: Fragments) -> _Walks:
    """Edges with exactly one drawn face."""
    _, height, width = fragments.shape
    drawn = fragments.drawn[:, edges.faces.clamp_min(0)] & (edges.faces >= 0)
    objects, edge = (drawn[..., 0] != drawn[..., 1]).nonzero(as_tuple=True)
    inner_face = drawn[objects, edge, 1].long()
    offset = objects * screen.shape[1]
    start, end = edges.vertices[edge, 0] + offset, edges.vertices[edge, 1] + offset
    third = edges.opposite[edge, inner_face] + offset
    vertices = screen.reshape(-1, 3)
    a, b, c = vertices[start], vertices[end], vertices[third]
    across_columns = (b[:, 1] - a[:, 1]).abs() < (b[:, 0] - a[:, 0]).abs()
    a_line, a_place = _axes(a, across_columns)
    b_line, b_place = _axes(b, across_columns)
    c_line, c_place = _axes(c, across_columns)
    # Drawn faces have an area, so that the third vertex is never on the edge; an edge of no length is never crossed.
    inner_is_after = c_place > a_place + (c_line - a_line) / (b_line - a_line) * (b_place - a_place)
    limit = torch.where(across_columns, width, height)
    # Half open: where two edges of a silhouette meet on a line, one of them crosses it.
    first = torch.minimum(a_line, b_line).ceil().clamp_min(0)
    last = torch.minimum(torch.maximum(a_line, b_line).ceil() - 1, limit - 1)
    count = (last - first + 1).clamp_min(0).long()
    return _Walks(objects, start, end, across_columns, inner_is_after, first.clamp(max=2**24).long(), count)


def _axes(points: Tensor, across_columns: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinate that counts the lines crossed, and the coordinate along a line: (y, x) where rows are crossed."""
    x, y = points[:, 0], points[:, 1]
    return torch.where(across_columns, x, y), torch.where(across_columns, y, x)


def _crossings(screen: Tensor, walks: _Walks, fragments: Fragments) -> _Crossings:
    """The crossings at which a covered pixel lies within the edge and a more distant surface, or nothing, beyond it."""
    _, height, width = fragments.shape
    vertices = screen.reshape(-1, 3)
    walk = torch.arange(len(walks.lines), device=screen.device).repeat_interleave(walks.lines)
    line = torch.arange(len(walk), device=screen.device) - (walks.lines.cumsum(0) - walks.lines)[walk]
    line = line + walks.first[walk]
    a, b, across = vertices[walks.start[walk]], vertices[walks.end[walk]], walks.across_columns[walk]
    a_line, a_place = _axes(a, across)
    b_line, b_place = _axes(b, across)
    share = (line - a_line) / (b_line - a_line)
    place = a_place + share * (b_place - a_place)
    before = place.floor()
    in_image = (before >= 0) & (before + 1 < torch.where(across, height, width))
    before = torch.where(in_image, before, 0).long()
    row, column = torch.where(across, before, line), torch.where(across, line, before)
    pixel_before = (walks.object[walk] * height + row) * width + column
    pixel_after = torch.where(in_image, pixel_before + torch.where(across, width, 1), pixel_before)

    face = fragments.face_map().view(-1)
    depth = fragments.image(fragments.depth.detach()).view(-1)
    after = walks.inner_is_after[walk]
    inner, outer = (
        torch.where(after, pixel_after, pixel_before),
        torch.where(after, pixel_before, pixel_after),
    )
    edge_depth = 1 / ((1 - share) / a[:, 2] + share / b[:, 2])
    behind = (depth[outer] > edge_depth * DEPTH_TOLERANCE) & (depth[outer] > depth[inner])
    seen = in_image & (face[inner] >= 0) & ((face[outer] < 0) | behind)
    kept = seen.nonzero().squeeze(1)
    outward = torch.where(after, before - place, place - before)[kept]
    slot = 2 * pixel_before[kept] + across[kept].long()
    kept = kept[_outermost(slot, outward, 2 * len(face))]
    return _Crossings(walk[kept], line[kept], before[kept], pixel_before[kept], pixel_after[kept])


def _outermost(slot: Tensor, outward: Tensor, slots: int) -> Tensor:
    """Of the crossings between the same two pixels, the index of the one furthest out; the first of equals."""
    best = outward.new_full((slots,), -2).scatter_reduce_(0, slot, outward, "amax")
    candidate = (best[slot] == outward).nonzero().squeeze(1)
    winner = torch.full((slots,), len(slot), device=slot.device)
    winner.scatter_reduce_(0, slot[candidate], candidate, "amin")
    return candidate[winner[slot[candidate]] == candidate]


def _offsets(vertices: Tensor, walks: _Walks, crossings: _Crossings) -> Tensor:
    """g of each crossing (N,): how far past the middle between its two pixels it lies; differentiable."""
    start, end = walks.start[crossings.walk], walks.end[crossings.walk]
    across = walks.across_columns[crossings.walk]
    a_line, a_place = _axes(vertices.index_select(0, start), across)
    b_line, b_place = _axes(vertices.index_select(0, end), across)
    place = a_place + (crossings.line - a_line) / (b_line - a_line) * (b_place - a_place)
    return place - crossings.before - 0.5
