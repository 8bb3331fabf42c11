"""The car family: signed distance against brute force, mesh and texture against the distance, sizes against KITTI."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from monolift.shapes import procedural
from monolift.shapes.car_mesh import RING, STATIONS, body_grid, build_mesh, topology
from monolift.shapes.car_texture import CarStyle, paint, sample_style
from monolift.shapes.procedural import KINDS, CarShape, Grid, distance, sample_shape, tsdf


@pytest.fixture(params=KINDS)
def shape(request: pytest.FixtureRequest) -> CarShape:
    return sample_shape(np.random.default_rng(7), request.param)


def test_sampling_is_seeded() -> None:
    one, two = (sample_shape(np.random.default_rng(3)) for _ in range(2))
    assert one == two and sample_style(np.random.default_rng(3)) == sample_style(np.random.default_rng(3))
    assert one != sample_shape(np.random.default_rng(4))
    assert one.vector().shape == (21,) and np.isfinite(one.vector()).all()
    with pytest.raises(ValueError, match="one of small, car, large, suv, pickup, van, got 'tank'"):
        sample_shape(np.random.default_rng(0), "tank")


def test_sizes_are_those_of_kitti() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([[s.length, s.height, s.width] for s in (sample_shape(rng) for _ in range(800))])
    # 28,742 labelled cars of KITTI's training set.
    np.testing.assert_allclose(sizes.mean(0), [3.88, 1.53, 1.63], atol=0.04)
    np.testing.assert_allclose(sizes.std(0), [0.43, 0.14, 0.10], rtol=0.25)
    vans = np.array([[s.length, s.height, s.width] for s in (sample_shape(rng, "van") for _ in range(200))])
    np.testing.assert_allclose(vans.mean(0), [5.08, 2.21, 1.90], atol=0.15)


def test_every_car_is_well_formed() -> None:
    rng = np.random.default_rng(11)
    for k in range(60):
        s = sample_shape(rng, KINDS[k % len(KINDS)])
        points, marks = s.outline
        assert np.ptp(points[:, 0]) == pytest.approx(s.length) and points[:, 1].max() == pytest.approx(
            s.height
        )
        assert (np.diff(marks) >= 0).all()
        assert s.bonnet < s.cowl < s.height and s.nose < s.bonnet and s.rear_glass < s.height
        assert s.wheel_radius > s.clearance


def slow_polygon_distance(polygon: np.ndarray, point: np.ndarray) -> float:
    best, winding = np.inf, 0.0
    for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        t = min(max((point - a) @ (b - a) / ((b - a) @ (b - a)), 0), 1)
        best = min(best, float(np.linalg.norm(point - a - t * (b - a))))
        turn = np.arctan2(*(b - point)[::-1]) - np.arctan2(*(a - point)[::-1])
        winding += (turn + np.pi) % (2 * np.pi) - np.pi
    return best if abs(winding) < np.pi else -best


def test_polygon_distance_and_its_gradient() -> None:
    rng = np.random.default_rng(5)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 17))
    polygon = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.4, 1.0, (17, 1))
    points = rng.uniform(-1.3, 1.3, (200, 2))
    value, slope = procedural.polygon_distance(polygon, points)
    np.testing.assert_allclose(value, [slow_polygon_distance(polygon, p) for p in points], atol=1e-12)
    step = 1e-6
    numeric = [(procedural.polygon_distance(polygon, points + step * e)[0] - value) / step for e in np.eye(2)]
    smooth = np.abs(np.linalg.norm(numeric, axis=0) - 1) < 1e-3  # not on the medial axis
    assert smooth.mean() > 0.95
    np.testing.assert_allclose(slope[smooth], np.array(numeric).T[smooth], atol=1e-3)
    for loop in (polygon, polygon[::-1]):  # on the polygon itself, whichever way it runs
        middles = (loop + np.roll(loop, -1, 0)) / 2
        zero, outward = procedural.polygon_distance(loop, middles)
        assert np.abs(zero).max() < 1e-9
        assert (procedural.polygon_distance(loop, middles + 1e-3 * outward)[0] > 0).all()


def test_normal_is_the_gradient_of_the_distance(shape: CarShape) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.6, 0.6, (300, 3)) * [shape.length, shape.height, shape.width]
    value, normal = procedural.body_distance_and_normal(shape, points)
    step = 1e-5
    numeric = np.stack(
        [
            (
                procedural.body_distance(shape, points + step * e)
                - procedural.body_distance(shape, points - step * e)
            )
            / (2 * step)
            for e in np.eye(3)
        ],
        1,
    )
    length = np.linalg.norm(numeric, axis=1)
    assert length.max() < 1.1
    agree = (numeric / length[:, None] * normal).sum(1)
    assert np.mean(agree > 0.999) > 0.93  # creases of the profile's medial axis, ends of the clipped ramps
    assert (np.abs(value) > 0).all()


def surface_points(shape: CarShape, rng: np.random.Generator, n: int) -> np.ndarray:
    mesh = build_mesh(shape)
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = rng.choice(len(area), n, p=area / area.sum())
    weights = rng.dirichlet(np.ones(3), n)
    return (weights[:, :, None] * corners[face]).sum(1)


def test_distance_against_the_nearest_of_many_surface_points(shape: CarShape) -> None:
    rng = np.random.default_rng(2)
    surface = surface_points(shape, rng, 20_000)
    points = rng.uniform(-0.8, 0.8, (250, 3)) * [shape.length, shape.height, shape.width]
    true = KDTree(surface).query(points)[0]
    value = distance(shape, points)
    outside = value > 0.15
    assert outside.sum() > 100
    # Never more than the ground truth (rounded edges of the coarse mesh: 4 cm), and not much less.
    assert (value - true)[outside].max() < 0.04
    assert np.median((value / true)[outside]) > 0.85


def test_tsdf(shape: CarShape) -> None:
    grid = Grid((32, 16, 16), (6.4, 3.2, 3.2), 0.3)
    volume = tsdf(shape, grid)
    assert volume.shape == (32, 16, 16) and volume.dtype == np.float32
    np.testing.assert_array_equal(volume, volume[:, :, ::-1])  # left and right are alike
    np.testing.assert_allclose(
        volume.ravel(), np.clip(distance(shape, grid.points()) / 0.3, -1, 1), atol=1e-6
    )
    inside = (volume < 0).sum() * 0.2**3
    assert 0.45 < inside / (shape.length * shape.height * shape.width) < 0.85
    centre = grid.points().reshape(32, 16, 16, 3)[20, 3, 5]
    np.testing.assert_allclose(
        centre, [(20.5 / 32 - 0.5) * 6.4, (3.5 / 16 - 0.5) * 3.2, (5.5 / 16 - 0.5) * 3.2]
    )


# --- mesh


def test_mesh_fills_its_box_and_lies_on_the_surface(shape: CarShape) -> None:
    mesh = build_mesh(shape)
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    np.testing.assert_allclose(high - low, [shape.length, shape.height, shape.width], atol=1e-9)
    np.testing.assert_allclose(high + low, 0, atol=1e-9)
    grid, _ = body_grid(shape)
    error = np.abs(procedural.body_distance(shape, grid.reshape(-1, 3)))
    assert np.median(error) < 1e-4 and np.quantile(error, 0.98) < 0.01


def test_all_cars_share_their_topology(shape: CarShape) -> None:
    mesh = build_mesh(shape)
    faces, uv = topology()
    assert mesh.faces is faces and mesh.uv is uv and len(mesh.vertices) == len(uv)
    assert uv.min() > 0 and uv.max() < 1
    mirrored = mesh.vertices * [1, 1, -1]
    nearest = KDTree(mesh.vertices).query(mirrored)[0]
    assert nearest.max() < 1e-9


def test_mesh_is_closed_and_faces_outward(shape: CarShape) -> None:
    mesh = build_mesh(shape)
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    body = mesh.faces.max(1) < STATIONS * (2 * RING - 2)
    volume = (corners[body][:, 0] * normal[body]).sum() / 6
    points = Grid((48, 24, 24), (shape.length, shape.height, shape.width)).points()
    voxels = (procedural.body_distance(shape, points) < 0).mean() * shape.length * shape.height * shape.width
    assert volume == pytest.approx(voxels, rel=0.03)
    size = np.linalg.norm(normal, axis=1)
    agree = (normal * mesh.normals[mesh.faces].mean(1)).sum(1)[size > 1e-6]
    assert (agree > 0).mean() > 0.97
    # Each edge once in either direction, but for the two lines in which nose and stern end.
    edges = np.concatenate([mesh.faces[body][:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    known = {tuple(e) for e in edges.tolist()}
    assert len(known) == len(edges)
    lonely = [e for e in known if e[::-1] not in known]
    around = 2 * RING - 2
    assert all(max(e) < around or min(e) >= (STATIONS - 1) * around for e in lonely)


# --- texture


def style_of(paint_rgb: tuple[float, float, float]) -> CarStyle:
    return CarStyle(paint_rgb, glass=0.02, trim=False, rim=0.3, spokes=5, blind=False)


@pytest.mark.parametrize("kind", KINDS)
def test_front_and_rear_differ(kind: str) -> None:
    from monolift.shapes.car_texture import _texel_positions

    shape = sample_shape(np.random.default_rng(9), kind)
    texture = paint(shape, style_of((0.1, 0.3, 0.1)))
    body = texture[:96]
    position, _ = _texel_positions(shape)
    forward, up = position[..., 0], position[..., 1]
    red = (body[..., 0] > 0.3) & (body[..., 1] < 0.05)
    white = (body[..., :3].min(-1) > 0.65) & (body[..., 3] > 0.9)
    assert red.sum() > 20 and forward[red].max() < -0.35 * shape.length
    assert white.sum() > 20 and forward[white].min() > 0.35 * shape.length
    glass = (body[..., 3] == 1.0) & (body[..., :3].max(-1) < 0.05)
    assert glass.mean() > 0.05 and up[glass].min() > 0.4 * shape.height
    plain = np.isclose(body[..., :3], [0.1, 0.3, 0.1], atol=1e-6).all(-1)
    assert plain.mean() > 0.3
    assert texture.dtype == np.float32 and texture.min() >= 0 and texture.max() <= 1


def test_paint_follows_the_style() -> None:
    shape = sample_shape(np.random.default_rng(9), "van")
    seen, blind = (paint(shape, CarStyle((0.5, 0.5, 0.5), 0.02, False, 0.3, 5, b)) for b in (False, True))
    assert (seen[:96, :, 3] == 1.0).sum() > 1.5 * (blind[:96, :, 3] == 1.0).sum()
    plain, trimmed = (paint(shape, CarStyle((0.5, 0.5, 0.5), 0.02, t, 0.3, 5, False)) for t in (False, True))
    assert trimmed[:96, :, :3].mean() < plain[:96, :, :3].mean()
    np.testing.assert_array_equal(plain[96:], trimmed[96:])  # the wheel
