"""Truncated signed distance grids and their zero surface.

A grid is a tensor (X, Y, Z) of values at the centres of voxels that fill a box: the axes are the object's own (x to the front,
y down, z along the width), negative inside. ``surface`` is marching cubes (Lorensen and Cline, 1987) with a table that is
worked out here rather than copied: the usual one leaves holes where two cubes cut their common face differently.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
import torch.nn.functional as F

from monolift.render.mesh import Mesh
from monolift.typing import Bool, Float, Int, Tensor

MIN_SHARE = 1e-3
"""A vertex keeps this share of its grid edge away from both ends, so that no two vertices coincide."""

# A cube's corner c lies at bit 0 along x, bit 1 along y, bit 2 along z. Its edge e runs along _AXIS[e] from corner _START[e].
_EDGES = tuple((c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1)
_START = torch.tensor([a for a, _ in _EDGES])
_AXIS = torch.tensor([axis for axis in range(3) for _ in range(4)])


def _cube_faces() -> tuple[tuple[int, ...], ...]:
    """The corners of the six faces of a cube, each in counter-clockwise order for somebody who looks at it from outside."""
    faces = []
    for axis, side in itertools.product(range(3), (0, 1)):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        loop = (0, u, u | v, v) if side else (0, v, u | v, u)
        faces.append(tuple(c | side << axis for c in loop))
    return tuple(faces)


_FACES = _cube_faces()


@lru_cache(maxsize=1)
def _table() -> tuple[Int[Tensor, "256 t 3"], Int[Tensor, " 256"]]:
    """For each of the 256 patterns of corners inside: triangles as edge numbers, and how many there are.

    On a face whose diagonal corners are inside, each of the two is cut off by itself: the rule looks at that face alone, so
    the neighbour cuts it alike and the surface closes.
    """
    rows = [[t for loop in _loops(pattern) for t in _triangles(loop)] for pattern in range(256)]
    most = max(map(len, rows))
    table = torch.full((256, most, 3), -1)
    for pattern, triangles in enumerate(rows):
        if triangles:
            table[pattern, : len(triangles)] = torch.tensor(triangles)
    return table, torch.tensor([len(r) for r in rows])


def _loops(pattern: int) -> list[list[int]]:
    """Closed polygons of edge numbers in which the surface cuts a cube, counter-clockwise seen from outside the object."""
    edge_of = {frozenset(ends): e for e, ends in enumerate(_EDGES)}
    after: dict[int, int] = {}
    for corners in _FACES:
        inside = [bool(pattern >> c & 1) for c in corners]
        edges = [edge_of[frozenset((corners[k], corners[(k + 1) % 4]))] for k in range(4)]
        # Going round the face, the surface is entered where an inside run begins and left where it ends.
        begins = [k for k in range(4) if not inside[k] and inside[(k + 1) % 4]]
        for k in begins:
            end = next(j % 4 for j in range(k + 1, k + 5) if inside[j % 4] and not inside[(j + 1) % 4])
            after[edges[k]] = edges[end]
    loops = []
    while after:
        edge, following = after.popitem()
        loop = [edge]
        while following != loop[0]:
            loop.append(following)
            following = after.pop(following)
        loops.append(loop)
    return loops


def _triangles(loop: list[int]) -> list[tuple[int, int, int]]:
    """A fan of the loop, from a corner none of whose diagonals lies in a face of the cube; every loop has one.

    Such a diagonal might also be drawn by the neighbour, and four triangles would share it.
    """

    def in_one_face(a: int, b: int) -> bool:
        ends = {*_EDGES[a], *_EDGES[b]}
        return any(ends <= set(face) for face in _FACES)

    turns = (loop[k:] + loop[:k] for k in range(len(loop)))
    fan = next(t for t in turns if not any(in_one_face(t[0], far) for far in t[2:-1]))
    return [(fan[0], a, b) for a, b in itertools.pairwise(fan[1:])]


def surface(grid: Float[Tensor, "X Y Z"], extent: Float[Tensor, " 3"], level: float = 0.0) -> Mesh:
    """The surface on which a grid has the value ``level``: closed, every edge between exactly two faces, facing outward.

    extent: sides of the grid's box, metres; the mesh's origin is its middle. Outside the grid counts as outside the object, so
    what touches the border is closed there. Positions are differentiable in the grid. A grid without a surface gives a mesh
    without faces.
    """
    outside = max(level + 1.0, float(grid.detach().max()))
    grid = F.pad(grid, (1,) * 6, value=outside)
    inside = grid.detach() < level
    faces, (start, axis) = _faces(inside)
    strides = torch.tensor([grid.shape[1] * grid.shape[2], grid.shape[2], 1])
    flat = grid.reshape(-1)
    near, far = flat[start], flat[start + strides[axis]]
    share = ((level - near) / (far - near)).clamp(MIN_SHARE, 1 - MIN_SHARE)
    place = torch.stack([start // strides[0], start // strides[1] % grid.shape[1], start % grid.shape[2]], 1)
    place = place.to(grid.dtype) + F.one_hot(axis, 3) * share[:, None]
    counts = torch.tensor(grid.shape, dtype=grid.dtype) - 2  # without the border
    vertices = ((place - 0.5) / counts - 0.5) * extent.to(grid.dtype)
    return Mesh(vertices, faces)


def _faces(
    inside: Bool[Tensor, "X Y Z"],
) -> tuple[Int[Tensor, "f 3"], tuple[Int[Tensor, " v"], Int[Tensor, " v"]]]:
    """Faces, and for each vertex the flat index of the voxel in which its grid edge starts, and the edge's axis."""
    x, y, z = inside.shape
    corners = [
        inside[c & 1 : x - 1 + (c & 1), c >> 1 & 1 : y - 1 + (c >> 1 & 1), c >> 2 & 1 : z - 1 + (c >> 2 & 1)]
        for c in range(8)
    ]
    pattern = sum((corner.long() << bit for bit, corner in enumerate(corners)), torch.zeros(()).long())
    cubes = ((pattern > 0) & (pattern < 255)).nonzero()
    strides = torch.tensor([y * z, z, 1])
    table, count = _table()
    rows = pattern[tuple(cubes.T)]
    triangles = table[rows]
    edges = triangles[torch.arange(table.shape[1]) < count[rows][:, None]]  # (F, 3)
    origin = (cubes * strides).sum(1).repeat_interleave(count[rows])
    corner = torch.stack([_START & 1, _START >> 1 & 1, _START >> 2 & 1], 1)
    start = origin[:, None] + (corner * strides).sum(1)[edges]
    keys, faces = (start * 3 + _AXIS[edges]).unique(return_inverse=True)
    return faces, (keys // 3, keys % 3)


# --- what a surface must be


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge lies between exactly two faces that agree on which side is out; False for a mesh without faces."""
    ends = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    count = mesh.vertices.shape[-2]
    there, back = ends[:, 0] * count + ends[:, 1], ends[:, 1] * count + ends[:, 0]
    there, back = there.sort().values, back.sort().values
    return bool(len(there) and (there[1:] != there[:-1]).all() and torch.equal(there, back))


def components(mesh: Mesh) -> Int[Tensor, " v"]:
    """Which connected piece each vertex belongs to, numbered from 0; a vertex without faces is a piece of its own."""
    label = torch.arange(mesh.vertices.shape[-2])
    start, end = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]]]).unbind(1)
    while True:
        lower = torch.minimum(label[start], label[end])
        new = label.scatter_reduce(0, torch.cat([start, end]), lower.repeat(2), "amin")
        new = new[new]  # the label is itself a vertex: jump to its label, so that long ways take few rounds
        if torch.equal(new, label):
            return label.unique(return_inverse=True)[1]
        label = new


def largest_component(mesh: Mesh) -> Mesh:
    """The piece with the most vertices, without texture."""
    piece = components(mesh)
    kept = piece == piece.bincount().argmax()
    number = kept.cumsum(0) - 1
    return Mesh(mesh.vertices[kept], number[mesh.faces[kept[mesh.faces[:, 0]]]])


def volume(mesh: Mesh) -> Float[Tensor, ""]:
    """Cubic metres inside a watertight mesh (divergence theorem); negative when it faces inward."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6
