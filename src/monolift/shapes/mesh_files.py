"""Watertight meshes from files (OBJ, STL, GLB), and their signed distance: other cars than the procedural ones.

Files are read as glTF means them: metres or any unit, y up, front towards +z.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from monolift.errors import InputError
from monolift.files.text import read_bytes, read_text
from monolift.render.glb import read_glb
from monolift.render.mesh import Mesh
from monolift.shapes.autoencoder import ShapeConfig
from monolift.shapes.tsdf import is_watertight
from monolift.typing import Bool, Float, Tensor

SUFFIXES = (".obj", ".stl", ".glb")
SAMPLES = 12_000
"""Surface points among which each voxel's nearest triangles are looked for."""
CANDIDATES = 6


def read_mesh(path: str | Path) -> Mesh:
    """One closed mesh in the box frame (x to the front, y down, z along the width), vertices at one place joined.

    Raises:
        InputError: for a file that cannot be read or is not watertight.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".glb":
            meshes = read_glb(path)
            corners = torch.cat([m.vertices[m.faces] for m in meshes])
        elif path.suffix.lower() == ".stl":
            corners = _stl(read_bytes(path))
        else:
            corners = _obj(read_text(path))
    except (ValueError, IndexError, RuntimeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable mesh: {error}") from None
    if not len(corners):
        raise InputError(f"{path}: has no faces")
    if not corners.isfinite().all():
        raise InputError(f"{path}: not a readable mesh: corners that are not finite")
    # glTF's axes (left, up, front) to the box's (front, down, left); a turn, so faces keep their outside
    corners = corners[..., [2, 1, 0]] * corners.new_tensor([1.0, -1.0, 1.0])
    size = float((corners.amax((0, 1)) - corners.amin((0, 1))).max())
    places, faces = (corners.reshape(-1, 3) / size * 1e6).round().unique(dim=0, return_inverse=True)
    faces = faces.view(-1, 3)
    distinct = (faces != faces.roll(1, 1)).all(1)
    mesh = Mesh((places * size / 1e6).float(), faces[distinct])
    if not is_watertight(mesh):
        raise InputError(
            f"{path}: is not watertight: expected every edge between exactly two faces, all facing outward "
            "(a mesh editor's repair or remesh makes it so)"
        )
    return mesh


def _obj(text: str) -> Float[Tensor, "f 3 3"]:
    """Corners of the faces; polygons become fans, indices may count from the end."""
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(w) for w in words[1:4]])
        elif words[:1] == ["f"]:
            loop = [int(w.split("/")[0]) for w in words[1:]]
            loop = [k - 1 if k > 0 else len(vertices) + k for k in loop]
            faces += [(loop[0], b, c) for b, c in itertools.pairwise(loop[1:])]
    return torch.tensor(vertices, dtype=torch.float64).view(-1, 3)[torch.tensor(faces).long().view(-1, 3)]


def _stl(data: bytes) -> Float[Tensor, "f 3 3"]:
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count:
        rows = np.frombuffer(data, np.dtype([("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")]), count, 84)
        return torch.from_numpy(rows["v"].astype(np.float64))
    words = data.decode("ascii", "strict").split()
    numbers = [[float(w) for w in words[k + 1 : k + 4]] for k, word in enumerate(words) if word == "vertex"]
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 3, 3)


def grid_of_mesh(
    mesh: Mesh, config: ShapeConfig, size: Float[Tensor, " 3"] | None = None
) -> Float[Tensor, "X Y Z"]:
    """The TSDF of a watertight mesh scaled to its box, as a share of the truncation.

    size: length, height, width in metres that the box stands for; the mesh's own without it. Distances are to triangles, those
    nearest among ``SAMPLES`` points spread over the surface; the sign follows from how often a ray crosses the surface.
    """
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    size = high - low if size is None else size
    vertices = (mesh.vertices - (low + high) / 2) * (size / (high - low))
    corners = vertices[mesh.faces].double()
    sides = config.margin * size.double()
    axes = [(torch.arange(n).double() + 0.5) / n * e - e / 2 for n, e in zip(config.grid, sides, strict=True)]
    inside = _inside(corners, axes)
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).float()
    value = _distance(corners.float(), points, config.truncation) / config.truncation
    return torch.where(inside, -1.0, 1.0) * value.view(config.grid)


def _inside(corners: Float[Tensor, "f 3 3"], axes: list[Tensor]) -> Bool[Tensor, "X Y Z"]:
    """Whether each grid point lies inside: the ray along z from it crosses the surface an odd number of times."""
    x, y, z = axes
    # A ray through an edge would be counted twice or never: rays are moved aside by an irrational trifle.
    x, y = x + 1.3e-7 * 2**0.5, y + 1.1e-7 * 3**0.5
    crossings = torch.zeros(len(x), len(y), len(z) + 1, dtype=torch.long)
    for a, b, c in corners:
        columns = ((x >= min(a[0], b[0], c[0])) & (x <= max(a[0], b[0], c[0]))).nonzero().squeeze(1)
        rows = ((y >= min(a[1], b[1], c[1])) & (y <= max(a[1], b[1], c[1]))).nonzero().squeeze(1)
        if not len(columns) or not len(rows):
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        u, v = x[columns][:, None], y[rows]
        weight_b = ((u - a[0]) * (c[1] - a[1]) - (v - a[1]) * (c[0] - a[0])) / area
        weight_c = ((b[0] - a[0]) * (v - a[1]) - (b[1] - a[1]) * (u - a[0])) / area
        hit = (weight_b >= 0) & (weight_c >= 0) & (weight_b + weight_c <= 1)
        height = a[2] + weight_b * (b[2] - a[2]) + weight_c * (c[2] - a[2])
        i, j = hit.nonzero().unbind(1)
        crossings[columns[i], rows[j], torch.searchsorted(z, height[i, j].contiguous())] += 1
    return crossings.cumsum(2)[..., :-1] % 2 == 1


def _distance(
    corners: Float[Tensor, "f 3 3"], points: Float[Tensor, "p 3"], limit: float
) -> Float[Tensor, " p"]:
    """Metres from each point to the triangles, no more than ``limit``."""
    generator = torch.Generator().manual_seed(0)
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    face = torch.multinomial(area, SAMPLES, replacement=True, generator=generator)
    weights = torch.rand(SAMPLES, 3, generator=generator).log()
    samples = (weights / weights.sum(1, keepdim=True))[..., None].mul(corners[face]).sum(1)
    # Most points are far from the surface: a few samples, none of the others farther than a gap from them, tell which.
    few = samples[: SAMPLES // 20]
    gap = torch.cdist(samples, few).amin(1).max()
    close = torch.cat([torch.cdist(part, few).amin(1) for part in points.split(8192)]) < limit + gap
    distance = torch.full((len(points),), limit)
    found = []
    for part in points[close].split(2048):
        near = face[torch.cdist(part, samples).topk(CANDIDATES, largest=False).indices]
        found.append(_to_triangles(part[:, None], corners[near]).amin(1))
    distance[close] = torch.cat(found).clamp(max=limit)
    return distance


def _to_triangles(point: Float[Tensor, "p 1 3"], corners: Float[Tensor, "p c 3 3"]) -> Float[Tensor, "p c"]:
    """Distance from points to triangles: to the plane where the foot lies inside, else to the nearest edge."""
    a, b, c = corners.unbind(2)
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    beyond, edges = torch.zeros_like(normal[..., 0], dtype=torch.bool), []
    for start, end in ((a, b), (b, c), (c, a)):
        side, offset = end - start, point - start
        beyond |= (torch.linalg.cross(side, offset) * normal).sum(-1) < 0
        share = ((offset * side).sum(-1) / side.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
        edges.append((offset - share[..., None] * side).norm(dim=-1))
    plane = ((point - a) * normal).sum(-1).abs()
    return torch.where(beyond, torch.stack(edges).amin(0), plane)
