"""The linear shape space and the measures by which shape spaces are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monolift.errors import InputError
from monolift.render.mesh import Mesh
from monolift.shapes.measure import chamfer_distance, inside_iou, main_piece, surface_points
from monolift.shapes.pca import LinearSpace


def ball(
    radius: float, middle: tuple[float, float, float] = (0.0, 0.0, 0.0), cells: int = 16
) -> torch.Tensor:
    """A ball's signed distance in [-1, 1]^3, cut at a quarter."""
    line = (torch.arange(cells) + 0.5) / cells * 2 - 1
    place = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
    return ((place - torch.tensor(middle)).norm(dim=-1) - radius).clamp(-0.25, 0.25) / 0.25


def test_linear_space_is_made_of_the_eigenvectors_of_the_covariance() -> None:
    grids = torch.randn(9, 4, 3, 2, dtype=torch.float64)
    space = LinearSpace.of(grids, 3)
    flat = grids.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    best = vectors[:, ::-1][:, :3]
    coordinates = torch.from_numpy((flat - flat.mean(0)) @ best)
    torch.testing.assert_close((space.encode(grids) * space.deviations).abs(), coordinates.abs())
    torch.testing.assert_close(space.deviations.square(), torch.from_numpy(values[::-1][:3].copy()))


def test_what_the_components_span_is_decoded_exactly() -> None:
    grids = 0.3 * torch.rand(4, 4, 4, 4, dtype=torch.float64)
    space = LinearSpace.of(grids, 3)  # four cars differ in three directions
    torch.testing.assert_close(space.decode(space.encode(grids)), grids)
    with pytest.raises(InputError, match="expected more than 4 cars"):
        LinearSpace.of(grids, 4)


def test_overlap_of_balls() -> None:
    small, large = ball(0.4, cells=48), ball(0.8, cells=48)
    assert float(inside_iou(small, large)) == pytest.approx(1 / 8, rel=0.03)
    assert inside_iou(torch.stack([small, large]), torch.stack([small, small])).tolist()[0] == 1.0
    empty = torch.ones(4, 4, 4)
    assert float(inside_iou(empty, empty)) == 1.0


def test_a_balls_and_two_balls_pieces() -> None:
    assert main_piece(ball(0.5, cells=10)) == 1.0
    two = torch.minimum(ball(0.3, (-0.5, 0, 0), 12), ball(0.3, (0.5, 0, 0), 12))
    assert main_piece(two) == pytest.approx(0.5, abs=0.02)
    assert main_piece(torch.ones(8, 8, 8)) == 0.0


def test_chamfer_distance_of_shifted_squares() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]])
    square = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    points = surface_points(square, seed=1)
    assert points[:, 2].abs().max() == 0 and points[:, :2].min() >= 0 and points[:, :2].max() <= 4
    torch.testing.assert_close(points.mean(0)[:2], torch.tensor([2.0, 2.0]), atol=0.1, rtol=0)
    same = chamfer_distance(points, surface_points(square, seed=2))
    lifted = chamfer_distance(
        points, surface_points(square.with_vertices(vertices + torch.tensor([0, 0, 1.0])), seed=2)
    )
    assert same < 0.06 and lifted == pytest.approx(1.0, abs=0.01)
