"""Meshes: their edges against a dictionary of edges, the sphere, and what is refused."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from monolift.errors import InputError
from monolift.render.mesh import Mesh, icosphere
from monolift.typing import Tensor

TRIANGLE = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
ONE_FACE = torch.tensor([[0, 1, 2]])


def faces_at_edges(faces: Tensor) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """For each edge, the faces there and the vertex of each that is not on it."""
    found = defaultdict(list)
    for f, corners in enumerate(faces.tolist()):
        for k in range(3):
            a, b = sorted((corners[k], corners[(k + 1) % 3]))
            found[a, b].append((f, corners[(k + 2) % 3]))
    return {edge: sorted(there) for edge, there in found.items()}


def listed(mesh: Mesh) -> dict[tuple[int, int], list[tuple[int, int]]]:
    found = defaultdict(list)
    for (a, b), faces, opposite in zip(*(t.tolist() for t in mesh.edges), strict=True):
        assert a < b
        found[a, b] += [pair for pair in zip(faces, opposite, strict=True) if pair[0] >= 0]
    return {edge: sorted(there) for edge, there in found.items()}


def test_every_edge_of_a_closed_surface_joins_two_faces() -> None:
    vertices, faces = icosphere(1)
    mesh = Mesh(vertices, faces)
    assert listed(mesh) == faces_at_edges(faces)
    assert bool((mesh.edges.faces >= 0).all())
    assert len(mesh.edges.vertices) == len(faces) * 3 // 2


def test_open_edges_and_edges_of_three_faces() -> None:
    faces = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])  # a book of three pages
    mesh = Mesh(torch.randn(5, 3), faces)
    found = listed(mesh)
    assert found == faces_at_edges(faces)
    assert len(found[0, 1]) == 3
    rows = (mesh.edges.vertices == torch.tensor([0, 1])).all(1)
    assert sorted(mesh.edges.faces[rows].flatten().tolist()) == [-1, 0, 1, 2]  # one pair, one alone
    assert int((mesh.edges.faces[~rows, 1] == -1).sum()) == 6


def test_a_mesh_without_faces_has_no_edges() -> None:
    assert [len(t) for t in Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)).edges] == [0, 0, 0]


@pytest.mark.parametrize("subdivisions", [0, 1, 3])
def test_sphere(subdivisions: int) -> None:
    vertices, faces = icosphere(subdivisions)
    assert (len(vertices), len(faces)) == (10 * 4**subdivisions + 2, 20 * 4**subdivisions)
    torch.testing.assert_close(vertices.norm(dim=1), torch.ones(len(vertices)))
    assert len(vertices.unique(dim=0)) == len(vertices)
    assert len(vertices) - len(Mesh(vertices, faces).edges.vertices) + len(faces) == 2  # Euler
    a, b, c = vertices[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    assert bool(((normal * a).sum(1) > 0).all())  # outward
    area = normal.norm(dim=1)
    assert float(area.max() / area.min()) < 2.5  # no part of it is much coarser


def test_another_shape_keeps_topology_and_texture() -> None:
    vertices, faces = icosphere(0)
    mesh = Mesh(vertices, faces, torch.rand(len(faces), 3, 2), torch.rand(3, 4, 4))
    edges = mesh.edges
    moved = mesh.with_vertices(2 * vertices.expand(5, -1, -1))
    assert moved.edges is edges
    assert moved.texture is mesh.texture
    torch.testing.assert_close(moved.vertices[4], 2 * vertices)
    torch.testing.assert_close(mesh.vertices, vertices)  # the first is as it was
    painted = mesh.with_texture(torch.zeros(5, 3, 2, 2))
    assert painted.vertices is mesh.vertices
    with pytest.raises(InputError, match="12 vertices"):
        mesh.with_vertices(vertices[:5])
    with pytest.raises(InputError, match="without uvs"):
        Mesh(vertices, faces).with_texture(torch.zeros(3, 2, 2))


def test_another_device_takes_the_edges_along() -> None:
    vertices, faces = icosphere(0)
    moved = Mesh(vertices, faces).to("meta")
    assert {t.device.type for t in (moved.vertices, moved.faces, *moved.edges)} == {"meta"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"faces": torch.tensor([[0, 1, 3]])}, "0 to 2, got indices from 0 to 3"),
        ({"faces": torch.tensor([[-1, 1, 2]])}, "got indices from -1 to 2"),
        ({"vertices": TRIANGLE * torch.tensor([1.0, float("nan"), 1.0])}, "finite, got 3 NaN"),
        ({"uvs": torch.zeros(1, 3, 2)}, "a texture is missing"),
        ({"texture": torch.zeros(3, 2, 2)}, "uvs is missing"),
        ({"uvs": torch.full((1, 3, 2), torch.inf), "texture": torch.zeros(3, 2, 2)}, "uvs must be finite"),
        ({"uvs": torch.zeros(1, 3, 2), "texture": torch.zeros(3, 0, 2)}, "at least one texel"),
        (
            {
                "vertices": TRIANGLE.expand(2, 3, 3),
                "uvs": torch.zeros(1, 3, 2),
                "texture": torch.zeros(4, 3, 2, 2),
            },
            "2 objects, but 4 textures",
        ),
    ],
)
def test_what_is_refused(fields: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mesh(**({"vertices": TRIANGLE, "faces": ONE_FACE} | fields))
