"""Triangle meshes: one topology, the positions and textures of one object or of a batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from monolift.errors import InputError
from monolift.typing import Float, Int, Tensor


class Edges(NamedTuple):
    """The E edges of a mesh, each with the one or two faces that meet there.

    Attributes:
        vertices: (E, 2) vertex indices, the lower first
        faces: (E, 2) face indices; the second is -1 where only one face has the edge
        opposite: (E, 2) the vertex of each of these faces that is not on the edge; -1 like the face
    """

    vertices: Int[Tensor, "e 2"]
    faces: Int[Tensor, "e 2"]
    opposite: Int[Tensor, "e 2"]


@dataclass(frozen=True)
class Mesh:
    """A textured triangle mesh, or a batch of B that differ only in positions and texture.

    Attributes:
        vertices: (V, 3) or (B, V, 3), metres
        faces: (F, 3) indices of vertices, wound so that (b - a) x (c - a) points out of the object: only faces that look at
            the camera are drawn
        uvs: (F, 3, 2) texture coordinates of the faces' corners, column and row in [0, 1] from the texture's top left
            corner; per corner, because a closed surface is cut somewhere to lie flat. Given one per vertex: ``uv[faces]``
        texture: (C, h, w) or (B, C, h, w); any number of channels

    Raises:
        InputError: when shapes disagree, an index has no vertex, a number of vertices or uvs is not finite, or only one of
            uvs and texture is given.
    """

    vertices: Float[Tensor, "*batch v 3"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "f 3 2"] | None = None
    texture: Float[Tensor, "*texture_batch c h w"] | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        vertex_count = self.vertices.shape[-2]
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < vertex_count:
            raise InputError(
                f"mesh faces must index its {vertex_count} vertices from 0 to {vertex_count - 1}, "
                f"got indices from {int(self.faces.min())} to {int(self.faces.max())}"
            )
        for name in ("vertices", "uvs"):
            values = getattr(self, name)
            if values is not None and not bool(values.isfinite().all()):
                raise InputError(
                    f"mesh {name} must be finite, got {int((~values.isfinite()).sum())} NaN or inf"
                )

    def _check_shapes(self) -> None:
        if self.vertices.ndim not in (2, 3) or self.vertices.shape[-1] != 3:
            raise InputError(f"mesh vertices must be (V, 3) or (B, V, 3), got {tuple(self.vertices.shape)}")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise InputError(f"mesh faces must be triangles (F, 3), got {tuple(self.faces.shape)}")
        if (self.uvs is None) != (self.texture is None):
            missing = "uvs" if self.uvs is None else "a texture"
            raise InputError(f"a mesh has uvs and a texture, or neither: {missing} is missing")
        if self.uvs is not None and self.uvs.shape != (len(self.faces), 3, 2):
            raise InputError(
                f"mesh uvs must be {(len(self.faces), 3, 2)}, one per corner of a face, got {tuple(self.uvs.shape)}; "
                "from one per vertex: uv[faces]"
            )
        if self.texture is not None:
            batch = self.texture.shape[:-3]
            if self.texture.ndim not in (3, 4) or 0 in self.texture.shape[-2:]:
                raise InputError(
                    f"mesh texture must be (C, h, w) or (B, C, h, w) with at least one texel, got {tuple(self.texture.shape)}"
                )
            if batch and self.vertices.ndim == 3 and batch != self.vertices.shape[:1]:
                raise InputError(f"{self.vertices.shape[0]} objects, but {batch[0]} textures")

    def with_vertices(self, vertices: Float[Tensor, "*batch v 3"]) -> Mesh:
        """The same mesh in another shape or place. Fits call it at every step, so nothing is checked but the number of
        vertices, and the edges are not searched again; what is not finite is not drawn."""
        if vertices.shape[-2:] != self.vertices.shape[-2:]:
            raise InputError(
                f"expected {self.vertices.shape[-2]} vertices of 3 coordinates, got {tuple(vertices.shape)}"
            )
        return self._changed(vertices=vertices)

    def with_texture(self, texture: Float[Tensor, "*texture_batch c h w"]) -> Mesh:
        """The same mesh painted otherwise. Raises InputError when it has no uvs."""
        if self.uvs is None:
            raise InputError("a mesh without uvs cannot wear a texture")
        return self._changed(texture=texture)

    def _changed(self, **fields: Tensor | Edges) -> Mesh:
        # Copied field by field past __post_init__: its checks wait for the GPU, and topology is what costs.
        new = object.__new__(Mesh)
        new.__dict__.update(self.__dict__, **fields)
        new._check_shapes()
        return new

    def to(self, device: torch.device | str) -> Mesh:
        """The mesh on another device."""
        moved = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        edges = Edges(*(t.to(device) for t in self.edges))
        return self._changed(**{k: v.to(device) for k, v in moved.items() if v is not None}, edges=edges)

    @cached_property
    def edges(self) -> Edges:
        """Every edge once. Of an edge shared by more than two faces the faces are paired two by two, so that it is listed
        more than once."""
        return _edges(self.faces, self.vertices.shape[-2])


def _edges(faces: Int[Tensor, "f 3"], vertex_count: int) -> Edges:
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    opposite = torch.cat([faces[:, 2], faces[:, 0], faces[:, 1]])
    face = torch.arange(len(faces), device=faces.device).repeat(3)
    key, order = (ends[:, 0] * vertex_count + ends[:, 1]).sort(stable=True)
    place = torch.arange(len(key), device=faces.device)
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    rank = place - torch.where(new, place, 0).cummax(0).values  # the how-manieth face with this edge
    first = (rank % 2 == 0).nonzero().squeeze(1)
    second = first + 1
    paired = second < len(key)
    paired[paired.clone()] = key[second[paired]] == key[first[paired]]
    other = order[torch.where(paired, second, first)]
    mine = order[first]

    def both(values: Tensor) -> Tensor:
        return torch.stack([values[mine], torch.where(paired, values[other], -1)], 1)

    return Edges(ends[mine], both(face), both(opposite))


def icosphere(subdivisions: int) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """Unit sphere of 10 * 4^n + 2 vertices and 20 * 4^n faces that look outward: an icosahedron whose triangles are cut
    into four n times. The template of star-shaped objects: scale the directions."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [
        point
        for a, b in itertools.product((-1.0, 1.0), (-golden, golden))
        for point in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))
    ]
    vertices = torch.tensor(corners, dtype=torch.float64)
    # Neighbours on the icosahedron are 2 apart; three mutual neighbours are a face.
    near = (torch.cdist(vertices, vertices) - 2).abs() < 1e-6
    found = [
        t
        for t in itertools.combinations(range(12), 3)
        if all(near[i, j] for i, j in itertools.combinations(t, 2))
    ]
    faces = torch.tensor(found)
    a, b, c = vertices[faces].unbind(1)
    inward = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    faces = torch.where(inward[:, None], faces[:, [0, 2, 1]], faces)
    for _ in range(subdivisions):
        vertices, faces = _subdivided(vertices, faces)
    return (vertices / vertices.norm(dim=1, keepdim=True)).float(), faces


def _subdivided(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    vertices = vertices / vertices.norm(dim=1, keepdim=True)
    a, b, c = faces.unbind(1)
    sides = torch.cat([torch.stack(pair, 1) for pair in ((a, b), (b, c), (c, a))]).sort(dim=1).values
    unique, place = sides.unique(dim=0, return_inverse=True)
    ab, bc, ca = (place + len(vertices)).view(3, -1)
    quarters = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    return (
        torch.cat([vertices, vertices[unique].mean(1)]),
        torch.cat([torch.stack(corners, 1) for corners in quarters]),
    )
