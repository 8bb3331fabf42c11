"""Surfaces of grids: closed whatever the grid, where the distance is zero, and as large as geometry says."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monolift.render.mesh import Mesh
from monolift.shapes.tsdf import components, is_watertight, largest_component, surface, volume


def grid_points(shape: tuple[int, int, int], extent: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z, 3) centres of the voxels."""
    axes = [(torch.arange(n) + 0.5) / n * e - e / 2 for n, e in zip(shape, extent.tolist(), strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def closed_and_consistent(mesh: Mesh) -> bool:
    """By a plain count: every directed edge once, and its reverse once."""
    directed = Counter((int(f[k]), int(f[(k + 1) % 3])) for f in mesh.faces for k in range(3))
    return bool(directed) and all(n == 1 and directed[(b, a)] == 1 for (a, b), n in directed.items())


def round_vertices(mesh: Mesh) -> bool:
    """Whether the faces round each vertex form one ring: no two cones that only touch in a point."""
    follows: dict[int, dict[int, int]] = {}
    for face in mesh.faces.tolist():
        for k in range(3):
            follows.setdefault(face[k], {})[face[(k + 1) % 3]] = face[(k + 2) % 3]
    for ring in follows.values():
        start = next(iter(ring))
        seen, at = 1, ring[start]
        while at != start:
            seen, at = seen + 1, ring[at]
        if seen != len(ring):
            return False
    return True


def test_all_256_cubes_are_cut_into_closed_surfaces() -> None:
    """Each pattern of eight corners as a grid of its own, with outside all round it."""
    for pattern in range(1, 256):
        grid = torch.tensor([-1.0 if pattern >> c & 1 else 1.0 for c in range(8)])
        grid = grid.view(2, 2, 2).permute(2, 1, 0)  # bit 0 is the first axis
        mesh = surface(grid, torch.ones(3))
        assert closed_and_consistent(mesh), pattern
        assert round_vertices(mesh), pattern
        assert volume(mesh) > 0


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_random_grids_have_closed_surfaces(seed: int) -> None:
    grid = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))
    mesh = surface(grid, torch.ones(3))
    assert is_watertight(mesh)
    assert closed_and_consistent(mesh)
    assert round_vertices(mesh)


def test_an_ellipsoid_has_its_volume_and_its_place() -> None:
    extent, radii = torch.tensor([6.0, 3.0, 3.0]), torch.tensor([2.0, 0.8, 1.1])
    points = grid_points((64, 32, 32), extent) - torch.tensor([0.3, -0.2, 0.1])
    mesh = surface((points / radii).norm(dim=-1) - 1, extent)
    assert float(volume(mesh)) == pytest.approx(4 / 3 * math.pi * float(radii.prod()), rel=0.02)
    middle = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
    assert torch.allclose(middle, torch.tensor([0.3, -0.2, 0.1]), atol=0.01)
    assert torch.allclose((mesh.vertices.amax(0) - mesh.vertices.amin(0)) / 2, radii, atol=0.01)


def test_a_box_has_its_volume() -> None:
    extent, half = torch.tensor([4.0, 2.0, 2.0]), torch.tensor([1.3, 0.6, 0.7])
    offset = grid_points((64, 32, 32), extent).abs() - half
    distance = offset.clamp_min(0).norm(dim=-1) + offset.amax(-1).clamp_max(0)
    mesh = surface(distance, extent)
    assert float(volume(mesh)) == pytest.approx(8 * float(half.prod()), rel=0.02)


def test_vertices_of_a_linear_field_lie_exactly_on_its_zero_and_follow_it() -> None:
    extent = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    x = grid_points((8, 8, 8), extent.float())[..., 0].double()
    level = torch.tensor(0.11, dtype=torch.float64, requires_grad=True)
    mesh = surface(x - level, extent)
    front = mesh.vertices[(mesh.vertices[:, 0] > 0) & (mesh.vertices[:, 1:].abs() < 0.4).all(1)]
    assert len(front) == 36  # grid lines along x away from the border, where the surface is capped
    assert torch.allclose(front[:, 0], level.detach().expand(36), atol=1e-7)
    front[:, 0].mean().backward()
    assert level.grad is not None
    assert float(level.grad) == pytest.approx(1.0)


def test_what_touches_the_border_is_closed_there_and_nothing_gives_no_faces() -> None:
    mesh = surface(torch.full((3, 3, 3), -1.0), torch.ones(3))
    assert is_watertight(mesh)
    nothing = surface(torch.ones(3, 3, 3), torch.ones(3))
    assert len(nothing.faces) == 0
    assert not is_watertight(nothing)


def test_pieces_are_told_apart_and_the_largest_kept() -> None:
    extent = torch.tensor([6.0, 3.0, 3.0])
    points = grid_points((48, 24, 24), extent)
    balls = [(torch.tensor([x, 0.0, 0.0]), r) for x, r in ((-1.8, 0.5), (0.0, 0.9), (2.0, 0.4))]
    grid = torch.stack([(points - c).norm(dim=-1) - r for c, r in balls]).amin(0)
    mesh = surface(grid, extent)
    piece = components(mesh)
    assert piece.unique().tolist() == [0, 1, 2]
    for a, b in itertools.combinations(range(3), 2):
        assert (mesh.vertices[piece == a].mean(0) - mesh.vertices[piece == b].mean(0)).norm() > 1
    largest = largest_component(mesh)
    assert is_watertight(largest)
    assert components(largest).max() == 0
    assert float(volume(largest)) == pytest.approx(4 / 3 * math.pi * 0.9**3, rel=0.03)


def test_an_open_or_inconsistent_mesh_is_not_watertight() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert is_watertight(Mesh(corners, faces))
    assert float(volume(Mesh(corners, faces))) == pytest.approx(1 / 6)
    assert not is_watertight(Mesh(corners, faces[:3]))
    turned = faces.clone()
    turned[0] = turned[0].flip(0)
    assert not is_watertight(Mesh(corners, turned))
