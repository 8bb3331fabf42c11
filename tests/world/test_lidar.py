"""The synthetic laser scanner against rays cut with every triangle, and its files; the cars' codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monolift.errors import InputError
from monolift.shapes.car_mesh import build_mesh
from monolift.shapes.car_texture import paint
from monolift.world import lidar
from monolift.world.car_codes import format_codes, read_codes
from monolift.world.layout import Scene
from monolift.world.render import Stage
from monolift.world.synthetic import Frame, World, frame_files, generator, make_frame

W, H = 416, 126


@pytest.fixture(scope="module")
def frame() -> Frame:
    return make_frame(1, 3, W, H)


def in_camera(points: np.ndarray, frame: Frame) -> np.ndarray:
    """(N, 3) points of the velodyne frame in the camera's, by the chain that KITTI's readme gives."""
    velo = frame.calib["Tr_velo_to_cam"]
    return (points[:, :3] @ velo[:, :3].T + velo[:, 3]) @ frame.calib["R0_rect"].T


def first_hit(origin: np.ndarray, ray: np.ndarray, corners: np.ndarray, scene: Scene) -> float:
    """How many times `ray` from `origin` to the nearest triangle or the ground, each solved for on its own."""
    g = scene.ground
    fall = ray[1] - g.slope_x * ray[0] - g.slope_z * ray[2]
    best = (g.y(origin[0], origin[2]) - origin[1]) / fall if fall > 0 else np.inf
    a, b, c = corners.transpose(1, 0, 2)
    # origin + t ray = a + u (b - a) + v (c - a)
    system = np.stack([np.broadcast_to(-ray, a.shape), b - a, c - a], -1)
    sound = np.abs(np.linalg.det(system)) > 1e-12
    t, u, v = np.linalg.solve(system[sound], (origin - a[sound])[..., None])[..., 0].T
    met = t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)]
    return min(best, float(met.min(initial=np.inf)))


def test_points_are_where_rays_meet_the_scene(frame: Frame) -> None:
    points = frame.points(np.random.default_rng(0))
    assert points.dtype == np.float32 and 3000 < len(points) < 30_000
    some = np.random.default_rng(1).choice(len(points), 150, replace=False)
    origin = in_camera(np.zeros((1, 3)), frame)[0]
    rays = in_camera(points[some], frame) - origin
    corners = np.concatenate(
        [p.corners for p in [*(a.part for a in frame.scene.actors), *frame.scene.scenery]]
    )
    share = np.array([first_hit(origin, ray, corners, frame.scene) for ray in rays])
    error = np.abs(share - 1) * np.linalg.norm(rays, axis=1)
    # Only the range is noisy; beams that just pass a silhouette may take the neighbour's triangle.
    assert np.mean(error < 4 * lidar.RANGE_NOISE) > 0.95
    assert 0.5 * lidar.RANGE_NOISE < np.median(error) < lidar.RANGE_NOISE


def test_points_lie_on_64_beams_in_the_image(frame: Frame) -> None:
    points = frame.points(np.random.default_rng(0)).astype(float)
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    offset = np.abs(elevation[:, None] - lidar.BEAMS).min(1)
    assert offset.max() < 1e-3
    assert len(np.unique(np.abs(elevation[:, None] - lidar.BEAMS).argmin(1))) > 40
    cam = in_camera(points, frame)
    pixels = cam @ frame.calib.p2[:, :3].T + frame.calib.p2[:, 3]
    pixels = pixels[:, :2] / pixels[:, 2:]
    assert (pixels > -0.51).all() and (pixels < [W - 0.49, H - 0.49]).all()
    assert ((points[:, 3] >= 0) & (points[:, 3] <= 0.991)).all() and np.ptp(points[:, 3]) > 0.2


def test_an_empty_road_gives_rings_on_the_ground(frame: Frame) -> None:
    ground = frame.scene.ground
    points = lidar.scan(Stage(), ground, frame.calib, (W, H), np.random.default_rng(2))
    cam = in_camera(points, frame)
    above = ground.y(cam[:, 0], cam[:, 2]) - cam[:, 1]
    assert len(points) > 1000 and np.abs(above).max() < 5 * lidar.RANGE_NOISE
    # What the ground sends back fades with distance, well before the scanner's reach.
    distance = np.linalg.norm(points[:, :3], axis=1)
    assert 20 < np.percentile(distance, 99) < 60 and distance.max() < lidar.FARTHEST


def test_glass_returns_less_than_paint() -> None:
    far = np.full(2, 20.0)
    echoes = lidar._Echoes(far, np.full(2, 0.1), np.array([0.0, 1.0]), np.ones(2))
    paint_, glass = lidar._strength(echoes, far)
    assert paint_ == pytest.approx(6.25) and glass == pytest.approx(0.625)  # (50 / 20)^2, and a tenth


def test_files_hold_what_the_frame_has(frame: Frame, tmp_path: Path) -> None:
    world = World(seed=1, width=W, height=H, points=True, shapes=True)
    files = frame_files(world, 3)
    stored = np.frombuffer(files["velodyne/000003.bin"], "<f4").reshape(-1, 4)
    np.testing.assert_array_equal(stored, frame.points(generator(1, 3, 1)))
    (tmp_path / "000003.json").write_bytes(files["cars_2/000003.json"])
    codes = read_codes(tmp_path / "000003.json")
    family = [row for row, name in enumerate(frame.labels.names) if name in ("Car", "Van")]
    assert family and set(family) <= set(codes)
    for row in family:
        actor = frame.scene.actors[frame.actors[row]]
        assert (codes[row].shape, codes[row].style) == (actor.shape, actor.style)
        assert codes[row].shape.length == pytest.approx(frame.labels.size_hwl[row, 2], abs=0.006)
    code = codes[family[0]]
    actor = frame.scene.actors[frame.actors[family[0]]]
    assert actor.shape is not None and actor.style is not None
    np.testing.assert_array_equal(build_mesh(code.shape).vertices, build_mesh(actor.shape).vertices)
    np.testing.assert_array_equal(paint(code.shape, code.style), paint(actor.shape, actor.style))
    assert format_codes(frame.labels, codes).encode() == files["cars_2/000003.json"]


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("", "not JSON"),
        ("[]", "expected the cars of a synthetic image"),
        ('{"cars": [{"row": 0}]}', "expected the cars of a synthetic image"),
        ('{"cars": [{"row": 0, "shape": {}, "style": {}}]}', "expected the cars of a synthetic image"),
    ],
)
def test_other_json_is_refused(text: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "cars.json").write_text(text)
    with pytest.raises(InputError, match=rf"cars.json: {wrong}"):
        read_codes(tmp_path / "cars.json")
