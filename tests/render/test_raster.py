"""The numpy rasteriser against rays cast one by one, and the texture bank against its own texels."""

from __future__ import annotations

import numpy as np
import pytest

from monolift.render import raster
from monolift.render.texture_bank import TextureBank

P = np.array(
    [[60.0, 0, 30, 3], [0, 60.0, 20, -1], [0, 0, 1, 0.01]]
)  # KITTI-like: the camera is not at the origin
WIDTH, HEIGHT = 64, 40


def random_soup(rng: np.random.Generator, n: int) -> np.ndarray:
    centre = rng.uniform([-3, -2, 3], [3, 2, 12], (n, 1, 3))
    return centre + rng.normal(0, 1.0, (n, 3, 3))


def cast(corners: np.ndarray, u: float, v: float) -> tuple[int, float]:
    """The nearest triangle on the ray of a pixel and its projective depth, by solving for one triangle after the other."""
    eye = -np.linalg.solve(P[:, :3], P[:, 3])
    ray = np.linalg.solve(P[:, :3], np.array([u, v, 1.0]))
    best, nearest = -1, np.inf
    for k, (a, b, c) in enumerate(corners):
        system = np.column_stack([b - a, c - a, -ray])
        if abs(np.linalg.det(system)) < 1e-9:
            continue
        s, t, depth = np.linalg.solve(system, eye - a)
        if s >= 0 and t >= 0 and s + t <= 1 and 0 < depth < nearest:
            best, nearest = k, depth
    return best, nearest


def draw(corners: np.ndarray) -> tuple[raster.Buffers, np.ndarray, np.ndarray]:
    pixels, depth = raster.project(corners, P)
    return raster.rasterise(pixels, 1 / depth, HEIGHT, WIDTH), pixels, depth


def test_sees_what_single_rays_see() -> None:
    corners = random_soup(np.random.default_rng(1), 25)
    corners[..., 2] = np.maximum(corners[..., 2], 1.0)
    buffers, _, _ = draw(corners)
    wrong = 0
    for v in range(0, HEIGHT, 2):
        for u in range(v // 2 % 2, WIDTH, 2):
            face, depth = cast(corners, u, v)
            if face != buffers.face[v, u]:
                wrong += 1  # only where a ray meets an edge within rounding
            elif face >= 0:
                assert buffers.depth[v, u] == pytest.approx(depth, rel=1e-5)
            else:
                assert buffers.inv_depth[v, u] == 0
    assert (buffers.face >= 0).mean() > 0.3
    assert wrong <= 2


def test_neighbours_share_no_sample_and_leave_no_gap() -> None:
    # A jittered grid whose corners partly lie exactly on samples; every triangle is drawn alone and the hits are counted.
    rng = np.random.default_rng(2)
    x, y = np.meshgrid(np.linspace(2, 60, 9), np.linspace(3, 37, 7))
    inner = np.zeros_like(x)
    inner[1:-1, 1:-1] = 1
    points = np.stack(
        [x + inner * rng.integers(-4, 5, x.shape) / 2, y + inner * rng.integers(-4, 5, x.shape) / 2], -1
    )
    hits = np.zeros((HEIGHT, WIDTH), int)
    for i in range(6):
        for j in range(8):
            a, b, c, d = points[i, j], points[i, j + 1], points[i + 1, j + 1], points[i + 1, j]
            for triangle in ((a, b, c), (a, c, d)):
                hits += raster.coverage(np.array([triangle]), HEIGHT, WIDTH)
    assert hits.max() == 1
    assert (hits[3:37, 2:60] == 1).all()
    assert hits.sum() == 34 * 58


def test_carried_values_are_perspective_correct() -> None:
    corners = random_soup(np.random.default_rng(3), 25)
    corners[..., 2] = np.maximum(corners[..., 2], 1.0)
    buffers, pixels, depth = draw(corners)
    row, column = np.nonzero(buffers.face >= 0)
    face = buffers.face[row, column]
    points = raster.Interpolator(pixels, 1 / depth, corners)(face, column, row)
    again, z = raster.project(points.astype(float), P)
    np.testing.assert_allclose(again, np.stack([column, row], 1), atol=2e-3)
    np.testing.assert_allclose(z, buffers.depth[row, column], rtol=1e-4)


def test_cuts_at_the_near_plane() -> None:
    # A floor that runs through the camera: below the horizon the depth is that of the plane everywhere.
    corners = np.array(
        [[(-50, 1.6, -30), (50, 1.6, -30), (50, 1.6, 90)], [(-50, 1.6, -30), (50, 1.6, 90), (-50, 1.6, 90)]],
        float,
    )
    carried = corners.copy()
    cut, kept, source = raster.clip_near(corners, carried, near=0.1, offset=P[2, 3])
    assert set(source) == {0, 1} and len(cut) == 3
    np.testing.assert_allclose(kept, cut)
    assert (cut[..., 2] + P[2, 3] >= 0.1 - 1e-12).all()
    pixels, depth = raster.project(cut, P)
    found = raster.rasterise(pixels, 1 / depth, HEIGHT, WIDTH).depth[30]
    eye = -np.linalg.solve(P[:, :3], P[:, 3])
    np.testing.assert_allclose(found, (1.6 - eye[1]) / ((30 - P[1, 2]) / 60), rtol=1e-5)


def test_a_nearer_background_hides() -> None:
    corners = np.array([[(-20, -20, 5), (60, -20, 5), (-20, 60, 5)]], float)
    pixels, depth = raster.project(corners, P)
    wall = np.zeros((HEIGHT, WIDTH), np.float32)
    wall[:, 20:40] = 1 / 4.0
    buffers = raster.rasterise(pixels, 1 / depth, HEIGHT, WIDTH, wall)
    assert (buffers.face[:, 20:40] == -1).all() and (buffers.inv_depth[:, 20:40] == 0.25).all()
    assert (buffers.face[:, :20] == 0).all()


def test_nothing_degenerate_is_drawn() -> None:
    point = np.full((1, 3, 3), 5.0)
    line = np.array([[(-1, 0, 5), (0, 0, 5), (1, 0, 5)]], float)
    broken = np.array([[(np.nan, 0, 5), (0, 1, 5), (1, 0, 5)]], float)
    behind = np.array([[(0, 0, -5), (1, 0, -5), (0, 1, -5)]], float)
    for soup in (point, line, broken, behind, np.zeros((0, 3, 3))):
        image = raster.render(soup, np.ones_like(soup), P, HEIGHT, WIDTH)
        assert (image.ids == -1).all() and (image.image == 0).all() and np.isinf(image.depth).all()


def test_culling_the_back_of_a_closed_body_changes_nothing() -> None:
    from monolift.shapes.car_mesh import build_mesh
    from monolift.shapes.procedural import sample_shape

    mesh = build_mesh(sample_shape(np.random.default_rng(0), "car"))
    for yaw in (0.3, 2.0, 4.0):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        corners = (mesh.vertices @ turn.T + [0.3, 0.6, 6.0])[mesh.faces]
        pixels, depth = raster.project(corners, P)
        front = raster.front_facing(pixels)
        whole = raster.rasterise(pixels, 1 / depth, HEIGHT, WIDTH).depth
        culled = raster.rasterise(pixels[front], 1 / depth[front], HEIGHT, WIDTH).depth
        assert 0.3 < front.mean() < 0.6
        seen = np.isfinite(whole)
        # Wheels stand in the body: a few samples look into the seam.
        assert (np.isfinite(culled) == seen).mean() > 0.999
        assert (np.abs(whole[seen] - culled[seen]) < 1e-3).mean() > 0.99


def test_supersampling_is_an_average_over_the_pixel() -> None:
    # The left edge of a wall at x = 10.25: 75 % of a pixel's width is covered, pixels reaching from u - 0.5 to u + 0.5.
    left = (10.25 - P[0, 2] * 1) / 60
    corners = np.array(
        [[(left, -9, 1), (9, -9, 1), (9, 9, 1)], [(left, -9, 1), (9, 9, 1), (left, 9, 1)]], float
    )
    camera = P.copy()
    camera[:, 3] = 0
    image = raster.render(corners, np.ones((2, 3, 1)), camera, HEIGHT, WIDTH, supersample=4).image[20, :, 0]
    np.testing.assert_allclose(image[[9, 10, 11]], [0, 0.25, 1])


# --- textures


def test_bank_returns_its_texels_and_wraps() -> None:
    rng = np.random.default_rng(4)
    bank = TextureBank(3)
    bank.add(rng.uniform(size=(4, 4, 3)))
    texture = rng.uniform(size=(8, 16, 3)).astype(np.float32)
    number = bank.add(texture)
    corner = np.array([[(0, 0), (1, 0), (0, 1)]], float)
    level = bank.levels(np.array([number]), corner, corner * 1000)  # magnified: the finest copy
    row, column = (a.ravel() for a in np.mgrid[0:8, 0:16])
    uv = np.stack([(column + 0.5) / 16, (row + 0.5) / 8], 1)
    for turns in (0.0, 1.0, -3.0):
        found = bank.look_up(np.repeat(level, 128, 0), uv + turns)
        np.testing.assert_allclose(found, texture[row, column], atol=1e-5)
    between = bank.look_up(
        level, np.array([[1.0, 0.5 / 8]])
    )  # half way between the last and the first column
    np.testing.assert_allclose(between[0], (texture[0, -1] + texture[0, 0]) / 2, atol=1e-6)


def test_bank_averages_what_is_small() -> None:
    texture = np.random.default_rng(5).uniform(size=(16, 16, 1)).astype(np.float32)
    bank = TextureBank(1)
    number = bank.add(texture)
    corner = np.array([[(0, 0), (1, 0), (0, 1)]], float)
    for pixels, side in ((16, 16), (4, 4), (1, 1), (0.01, 1)):
        assert bank.levels(np.array([number]), corner, corner * pixels)[0, 1] == side
    level = bank.levels(np.array([number]), corner, corner * 0.5)
    np.testing.assert_allclose(bank.look_up(level, np.array([[0.3, 0.7]]))[0, 0], texture.mean(), rtol=1e-5)


def test_bank_refuses_odd_sizes() -> None:
    with pytest.raises(ValueError, match=r"powers of two by 4 channels, got \(6, 8, 4\)"):
        TextureBank(4).add(np.zeros((6, 8, 4)))
