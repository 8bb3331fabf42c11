"""The shape space: the sphere's arithmetic, learning a few cars by heart, and what the bundled space promises."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from monolift.errors import InputError
from monolift.shapes.autoencoder import (
    ALL,
    BUNDLED,
    CLASSES,
    ShapeConfig,
    ShapeSpace,
    between,
    load_shape_space,
    median,
    save_shape_space,
    shape_loss,
    surface_of,
)
from monolift.shapes.shape_training import (
    ShapeTraining,
    autoencoder_loss,
    grid_of,
    learn,
    procedural_cars,
    reconstruction_iou,
)
from monolift.shapes.tsdf import components, is_watertight, surface

SMALL = ShapeConfig(grid=(32, 16, 16), smoothness=0.2)


def unit(*numbers: float) -> torch.Tensor:
    return F.normalize(torch.tensor(numbers, dtype=torch.float64), dim=0)


# -- on the sphere ----------------------------------------------------------------------------------------------------


def test_the_paper_loss_cannot_tell_opposite_codes_and_the_geodesic_can() -> None:
    s = unit(1, 2, -1, 0, 3, 1)
    across = unit(2, -1, 0, 0, 0, 0)
    pairs = torch.stack([s, -s, across])
    targets = s.expand(3, 6)
    paper, geodesic = shape_loss(pairs, targets), shape_loss(pairs, targets, "geodesic")
    assert paper.tolist() == pytest.approx([0, 0, math.pi], abs=2e-3)
    assert geodesic.tolist() == pytest.approx([0, math.pi, math.pi / 2], abs=2e-3)
    codes = F.normalize(torch.randn(50, 6, dtype=torch.float64), dim=1)
    cosine = (codes[:25] * codes[25:]).sum(1)
    assert torch.allclose(shape_loss(codes[:25], codes[25:]), 2 * torch.arccos(cosine.abs()), atol=1e-6)
    with pytest.raises(InputError, match="geodesic"):
        shape_loss(codes, codes, "l2")


def test_the_loss_has_a_finite_slope_everywhere() -> None:
    s = unit(1, 0, 0, 0, 0, 0).expand(2, 6).clone().requires_grad_()
    shape_loss(s, torch.stack([s[0].detach(), -s[0].detach()]), "geodesic").sum().backward()
    assert s.grad is not None
    assert s.grad.isfinite().all()


def test_weiszfeld_finds_the_middle_one_and_ignores_an_outlier() -> None:
    """On one great circle with an odd number of points the median is the middle one."""
    angles = torch.tensor([-0.2, -0.1, 0.05, 0.12, 0.3], dtype=torch.float64)
    codes = torch.stack([angles.cos(), angles.sin(), torch.zeros(5, dtype=torch.float64)], 1)
    assert torch.allclose(median(codes), codes[2], atol=2e-3)
    cluster = F.normalize(unit(1, 1, 0, 0, 0, 0) + 0.01 * torch.randn(20, 6, dtype=torch.float64), dim=1)
    with_outlier = torch.cat([cluster, unit(0, 0, 0, 0, 0, 1)[None]])
    assert (median(with_outlier) - median(cluster)).norm() < 0.005
    assert (F.normalize(with_outlier.mean(0), dim=0) - median(cluster)).norm() > 0.02  # the mean does not
    with pytest.raises(InputError):
        median(torch.zeros(0, 6))


def test_the_way_between_codes_is_a_great_circle_at_even_speed() -> None:
    a, b = unit(1, 0, 0, 0, 1, 0), unit(0, 1, 1, 0, 0, 0)
    way = between(a, b, torch.linspace(0, 1, 7, dtype=torch.float64))
    assert torch.allclose(way.norm(dim=1), torch.ones(7, dtype=torch.float64))
    assert torch.allclose(way[0], a)
    assert torch.allclose(way[-1], b)
    steps = torch.arccos((way[1:] * way[:-1]).sum(1))
    assert torch.allclose(steps, steps[0].expand(6))
    assert torch.allclose(between(a, a, torch.tensor([0.3], dtype=torch.float64))[0], a)
    with pytest.raises(InputError, match="opposite"):
        between(a, -a, torch.tensor([0.5], dtype=torch.float64))


# -- learning ---------------------------------------------------------------------------------------------------------


def test_equation_4_is_the_sum_of_its_three_terms() -> None:
    torch.manual_seed(1)
    space = ShapeSpace(ShapeConfig(grid=(16, 16, 16), smoothness=0.5))
    grid = torch.rand(2, 1, 16, 16, 16) * 2 - 1
    raw = space.encoder(grid)
    decoded = space.decode(raw)
    terms = (decoded - grid).abs().mean() + ((raw**2).sum(1).sqrt() - 1).abs().mean()
    d = decoded
    terms = terms + 0.5 * (
        (d[:, :, 1:] - d[:, :, :-1]).abs().mean()
        + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        + (d[..., 1:] - d[..., :-1]).abs().mean()
    )
    assert torch.allclose(autoencoder_loss(space, grid), terms)
    assert torch.allclose(decoded, decoded.flip(-1))  # a car is its own mirror image
    assert torch.allclose(space.decode(3 * raw), decoded, atol=1e-6)  # only directions count


def test_four_cars_are_learnt_by_heart_and_the_file_gives_the_same_space(tmp_path: Path) -> None:
    cars = procedural_cars(4, seed=3)
    grids = torch.stack([grid_of(shape, SMALL) for _, shape in cars])
    names = [name for name, _ in cars]
    assert names == list(CLASSES)
    losses: list[float] = []
    training = ShapeTraining(steps=250, batch=4, lr=5e-3)
    space = learn(grids, names, SMALL, training, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.3 * losses[0]
    assert reconstruction_iou(space, grids).min() > 0.9
    assert list(space.medians) == [ALL, *CLASSES]
    assert torch.allclose(space.encode(grids[:1, None])[0], space.medians["Small Car"], atol=1e-4)
    save_shape_space(tmp_path / "a" / "space.safetensors", space)
    loaded = load_shape_space(tmp_path / "a" / "space.safetensors")
    assert loaded.config == space.config
    assert list(loaded.medians) == list(space.medians)
    assert (
        loaded.decode(loaded.encode(grids[:, None])) - space.decode(space.encode(grids[:, None]))
    ).abs().max() < 0.05


def test_what_is_no_space_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "space.safetensors"
    with pytest.raises(InputError, match=r"space.safetensors: not a shape space"):
        load_shape_space(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"space.safetensors: not a shape space"):
        load_shape_space(path)
    with pytest.raises(InputError, match="multiples of 16"):
        ShapeConfig(grid=(64, 32, 30))


# -- the bundled space ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> ShapeSpace:
    return load_shape_space()


def test_cars_it_never_saw_are_rebuilt(bundled: ShapeSpace) -> None:
    cars = procedural_cars(4, seed=77)
    grids = torch.stack([grid_of(shape, bundled.config) for _, shape in cars])
    assert reconstruction_iou(bundled, grids).mean() >= 0.9
    assert BUNDLED.stat().st_size < 2_000_000


def test_every_point_between_medians_is_one_watertight_piece(bundled: ShapeSpace) -> None:
    assert list(bundled.medians) == [ALL, *CLASSES]
    for a, b in itertools.combinations(CLASSES, 2):
        codes = between(bundled.medians[a], bundled.medians[b], torch.linspace(0, 1, 3))
        for grid in bundled.decode(codes)[:, 0]:
            raw = surface(grid, torch.ones(3))
            sizes = components(raw).bincount()
            assert sizes.sum() - sizes.max() < 0.01 * sizes.max(), (
                a,
                b,
            )  # bubbles of a voxel inside the rear arches
            mesh = surface_of(grid, 1.1)
            assert is_watertight(mesh), (a, b)
            assert components(mesh).max() == 0, (a, b)


def test_a_mesh_fills_its_box_and_faces_outward(bundled: ShapeSpace) -> None:
    size = torch.tensor([4.1, 1.6, 1.7])
    mesh = bundled.mesh(bundled.medians["SUV"], size)
    assert torch.allclose(mesh.vertices.amax(0), size / 2, atol=1e-5)
    assert torch.allclose(mesh.vertices.amin(0), -size / 2, atol=1e-5)
    assert is_watertight(mesh)
    # The bonnet is lower than the roof: +x is the front, and y points down.
    front = mesh.vertices[mesh.vertices[:, 0] > 0.4 * size[0]]
    assert front[:, 1].min() > mesh.vertices[:, 1].min() + 0.25 * size[1]
