"""The synthetic world: exact labels against slow counting, determinism, resuming, the subcommand, the bundled example."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.commands.synth import Synth, run
from monolift.data.formats.kitti_format import parse_calib, parse_labels, read_calib, read_labels
from monolift.data.formats.masks import open_masks
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.zoo import EXAMPLE
from monolift.render import raster
from monolift.shapes.procedural import sample_shape
from monolift.world import parts, synthetic
from monolift.world.ground import Ground
from monolift.world.labels import bounds_inside, label_scene, outline
from monolift.world.layout import Actor, Scene, add_vehicle, car_of, sample_scene
from monolift.world.sensor import Sensor, develop
from monolift.world.synthetic import (
    World,
    frame_files,
    make_frame,
    make_labels,
    sample_calib,
    write_world,
)

W, H = 416, 126
SMALL = World(seed=5, width=W, height=H, masks=True, depth=True, points=True, shapes=True)


@pytest.fixture(scope="module")
def frames() -> list[synthetic.Frame]:
    return [make_frame(1, k, W, H) for k in (5, 11)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    assert all(n >= 0 for n in write_world(root, SMALL, 2))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- labels


def test_boxes_are_tight_round_what_is_seen(frames: list[synthetic.Frame]) -> None:
    checked = 0
    for frame in frames:
        instances, _ = frame.truth()
        for k, name in enumerate(frame.labels.names):
            mask = instances == k + 1
            box = frame.labels.boxes2d[k]
            if not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            seen = np.array([columns[0], rows[0], columns[-1], rows[-1]])
            # Never outside the box; equal to it within a pixel where nothing hides the object.
            assert (seen[:2] >= box[:2] - 0.5).all() and (seen[2:] <= box[2:] + 0.5).all(), (k, name)
            if frame.labels.occlusion[k] == 0 and frame.labels.truncation[k] == 0 and name in ("Car", "Van"):
                hidden = outline(frame.scene.actors[frame.actors[k]].part.corners, frame.calib.p2, W, H)
                assert hidden is not None
                if mask.sum() > 0.97 * hidden.inside:
                    assert np.abs(seen - box).max() <= 1.0, (k, name)
                    checked += 1
    assert checked >= 5


def test_labels_agree_with_the_projected_3d_boxes(frames: list[synthetic.Frame]) -> None:
    """The mesh fills its 3D box, so the outline lies in the projection of the box and nearly fills it."""
    for frame in frames:
        known = frame.labels.select([n != "DontCare" for n in frame.labels.names])
        camera = Camera.from_matrix(torch.tensor(frame.calib.p2), W, H)
        size = torch.tensor(known.size_hwl[:, [2, 0, 1]])
        centre = torch.tensor(known.bottom) - torch.stack(
            [torch.zeros(len(known)), size[:, 1] / 2, torch.zeros(len(known))], 1
        )
        boxes = Boxes3D(centre, size, torch.tensor(known.rotation_y))
        rectangle = boxes.projected(camera).numpy()
        assert (known.boxes2d[:, :2] >= rectangle[:, :2] - 0.6).all() and (
            known.boxes2d[:, 2:] <= rectangle[:, 2:] + 0.6
        ).all()
        area = (known.boxes2d[:, 2:] - known.boxes2d[:, :2]).prod(1) / (
            rectangle[:, 2:] - rectangle[:, :2]
        ).prod(1)
        assert np.median(area[known.truncation == 0]) > 0.8
        np.testing.assert_allclose(np.cos(boxes.alpha.numpy() - known.alpha), 1, atol=2e-4)


def test_objects_stand_on_the_ground(frames: list[synthetic.Frame]) -> None:
    for frame in frames:
        ground = frame.scene.ground
        for actor in frame.scene.actors:
            x, y, z = actor.bottom
            assert y == pytest.approx(ground.height + ground.slope_x * x + ground.slope_z * z)
            points = actor.part.corners.reshape(-1, 3)
            turn = parts.rotation(actor.yaw)
            own = (points - actor.bottom) @ turn
            length, height, width = actor.size
            np.testing.assert_allclose(own.max(0), [length / 2, 0, width / 2], atol=1e-6)
            np.testing.assert_allclose(own.min(0), [-length / 2, -height, -width / 2], atol=1e-6)


def test_depth_of_the_road(frames: list[synthetic.Frame]) -> None:
    """Where nothing stands, each pixel's depth puts its ray on the ground plane."""
    frame = frames[0]
    instances, depth = frame.truth()
    ground, p2 = frame.scene.ground, frame.calib.p2
    camera = Camera.from_matrix(torch.tensor(p2), W, H)
    bottom = np.arange(0, W, 7)
    rows = np.full(len(bottom), H - 3)
    free = instances[rows, bottom] == 0
    pixels = torch.tensor(np.stack([bottom, rows], 1)[free], dtype=torch.float64)
    z = torch.tensor(depth[rows, bottom][free], dtype=torch.float64)
    points = camera.cam_from_px(pixels, z).numpy()
    np.testing.assert_allclose(points[:, 2], z, rtol=1e-4)
    on_ground = np.abs(points[:, 1] - ground.y(points[:, 0], points[:, 2])) < 1e-3
    assert on_ground.mean() > 0.6 and (points[:, 1] < ground.y(points[:, 0], points[:, 2]) + 1e-3).all()


def actor_at(x: float, z: float, yaw: float, seed: int = 0) -> Actor:
    shape = sample_shape(np.random.default_rng(seed), "car")
    vehicle = car_of(shape, np.random.default_rng(seed))
    bottom = np.array([x, 1.65, z])
    return Actor("Car", bottom, vehicle.size, yaw, vehicle.shape, vehicle.style)


def silhouette(actor: Actor, p2: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W) what the actor covers when it stands alone."""
    corners, _, _ = raster.clip_near(actor.part.corners, actor.part.corners, offset=p2[2, 3])
    return raster.coverage(raster.project(corners, p2)[0], height, width)


def count(actors: list[Actor], p2: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible pixels of each actor and of each alone, one z-buffer each."""
    together = np.concatenate([a.part.corners for a in actors])
    ids = np.repeat(np.arange(len(actors)), [len(a.part.corners) for a in actors])
    seen = raster.render(together, together[..., :1], p2, height, width, ids, supersample=1).ids
    alone = [silhouette(a, p2, width, height) for a in actors]
    return np.bincount(seen[seen >= 0], minlength=len(actors)).astype(float), np.array(
        [m.sum() for m in alone], float
    )


def test_occlusion_is_counted() -> None:
    p2 = sample_calib(np.random.default_rng(0), 1242, 375).p2
    levels = set()
    for shift in (-3.0, -1.6, -1.2, -0.9, -0.5, 0.0):
        actors = [actor_at(0.5, 10.0, -np.pi / 2), actor_at(0.6 + shift, 16.0, -np.pi / 2, 1)]
        seen, alone = count(actors, p2, 1242, 375)
        found = label_scene(actors, seen, p2, 1242, 375)
        labels = found.labels
        assert found.actors == (0, 1) and labels.occlusion[0] == 0
        hidden = 1 - seen[1] / alone[1]
        assert found.hidden[1] == pytest.approx(hidden, abs=0.02)
        if hidden > 0.92:
            assert labels.names[1] == "DontCare"
            levels.add("DontCare")
        else:
            expected = 0 if hidden <= 0.10 else 1 if hidden <= 0.55 else 2
            assert labels.occlusion[1] == expected, hidden
            levels.add(expected)
    assert levels >= {0, 1, 2}


def test_labels_without_a_image(frames: list[synthetic.Frame]) -> None:
    alone = make_labels(1, 5, W, H)
    assert alone.actors == frames[0].actors
    np.testing.assert_array_equal(alone.labels.boxes2d, frames[0].labels.boxes2d)
    np.testing.assert_array_equal(alone.labels.truncation, frames[0].labels.truncation)
    assert np.mean(alone.labels.occlusion == frames[0].labels.occlusion) > 0.8


def test_truncation_is_counted() -> None:
    p2 = sample_calib(np.random.default_rng(0), 1242, 375).p2
    wide = p2.copy()
    wide[:2] += (
        np.array([[1242], [375]]) * p2[2]
    )  # the same camera, three times as wide and high: nothing is cut there
    found = []
    for x in (-4.0, -6.0, -7.5, -8.5, -12.0):
        actor = actor_at(x, 9.0, -np.pi / 2 + 0.3)
        whole = silhouette(actor, wide, 3 * 1242, 3 * 375)
        inside = whole[375:750, 1242:2484]
        seen = np.array([float(inside.sum())])
        labels = label_scene([actor], seen, p2, 1242, 375).labels
        if not inside.any():
            assert len(labels) == 0
            continue
        assert labels.truncation[0] == pytest.approx(1 - inside.sum() / whole.sum(), abs=0.02)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        np.testing.assert_allclose(labels.boxes2d[0], [columns[0], rows[0], columns[-1], rows[-1]], atol=1.0)
        found.append(labels.truncation[0])
    assert found[0] == 0 and max(found) > 0.5 and found == sorted(found)


def test_what_lies_behind_or_beside_the_camera_is_not_labelled() -> None:
    p2 = sample_calib(np.random.default_rng(0), 1242, 375).p2
    for x, z in ((0.0, -8.0), (30.0, 5.0), (-2.5, -1.0)):
        assert outline(actor_at(x, z, 0.3).part.corners, p2, 1242, 375) is None
    beside = outline(actor_at(2.3, 2.5, -np.pi / 2).part.corners, p2, 1242, 375)  # reaches past the camera
    assert (
        beside is not None and 0 < beside.inside < 0.6 * beside.total and np.isfinite(beside.rectangle).all()
    )


def test_bounds_reach_a_corner_that_is_covered() -> None:
    big = np.array([[(-50.0, -50.0), (90.0, -40.0), (-40.0, 90.0)]])
    np.testing.assert_allclose(bounds_inside(big, 200, 100), [0, 0, 50 + 1 / 13, 50 + 1 / 13], atol=4)
    everywhere = np.array([[(-500.0, -500.0), (1500.0, -500.0), (-500.0, 1500.0)]])
    np.testing.assert_allclose(bounds_inside(everywhere, 200, 100), [0, 0, 199, 99])
    assert bounds_inside(everywhere + 3000, 200, 100) is None


# --- cameras


def test_cameras_are_kittis() -> None:
    focals = set()
    for k in range(20):
        p2 = sample_calib(np.random.default_rng(k), 1242, 375).p2
        focals.add(p2[0, 0])
        assert p2[0, 3] == pytest.approx(
            {721.5377: 44.85728, 707.0493: 45.75831, 718.3351: 44.50382, 718.856: 45.38225}[p2[0, 0]]
        )
    assert focals >= {721.5377, 707.0493}
    half = sample_calib(np.random.default_rng(0), 621, 192).p2
    full = sample_calib(np.random.default_rng(0), 1242, 375).p2
    camera, smaller = (
        Camera.from_matrix(torch.tensor(full), 1242, 375),
        Camera.from_matrix(torch.tensor(half), 621, 192),
    )
    points = torch.tensor([[1.0, 1.0, 9.0], [-3.0, 0.5, 20.0]], dtype=torch.float64)
    expected = (camera.px_from_cam(points) + 0.5) / 2 - 0.5
    expected[:, 1] += (192 - 187.5) / 2  # the extra rows go half above, half below
    torch.testing.assert_close(smaller.px_from_cam(points), expected, rtol=0, atol=1e-6)
    assert sample_calib(np.random.default_rng(0), 640, 480, focal=500.0).p2[0, 0] == 500.0


# --- the same seed, the same bytes


def test_same_seed_same_bytes(written: Path) -> None:
    again = frame_files(SMALL, 1)
    assert list(again) == synthetic.files_of(SMALL, "000001")
    for path, content in again.items():
        assert (written / "training" / path).read_bytes() == content, path
    other = frame_files(replace(SMALL, seed=6), 1)
    assert all(other[path] != again[path] for path in again if "calib" not in path and ".json" not in path)
    image = np.asarray(Image.open(io.BytesIO(again["image_2/000001.jpg"])))
    assert image.shape == (H, W, 3) and image.std() > 20


def test_files_are_kittis(written: Path) -> None:
    for k in ("000000", "000001"):
        labels = read_labels(written / f"training/label_2/{k}.txt", scored=False)
        text = (written / f"training/label_2/{k}.txt").read_text()
        assert all(len(word.partition(".")[2]) <= 2 for word in text.split()), "two decimals"
        mask = np.asarray(Image.open(written / f"training/instance_2/{k}.png"))
        depth = np.asarray(Image.open(written / f"training/depth_2/{k}.png"))
        assert mask.shape == depth.shape == (H, W) and mask.max() <= len(labels)
        found = open_masks(written / "training/instance_2").read(k, (W, H))
        assert found.classes == tuple(labels.names[int(one) - 1] for one in found.ids)
        for row in np.unique(mask[mask > 0]):
            if labels.names[row - 1] == "Car":
                there = np.median(depth[mask == row]) / 256
                assert abs(there - labels.bottom[row - 1, 2]) < 3.0
        p2 = read_calib(written / f"training/calib/{k}.txt").p2
        assert p2[0, 3] != 0 and p2[2, 3] != 0
    assert (written / "ImageSets/all.txt").read_text() == "000000\n000001\n"


def test_a_killed_run_goes_on(written: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(written, root)
    kept = (root / "training/image_2/000000.jpg").stat().st_mtime_ns
    (root / "training/label_2/000001.txt").unlink()  # killed before the last file of the second frame
    (root / "training/image_2/000001.jpg").write_bytes(b"half")
    counts = list(write_world(root, SMALL, 2, workers=2))  # a process of its own gives the same bytes
    assert sorted(c >= 0 for c in counts) == [False, True]
    assert contents(root) == contents(written)
    assert (root / "training/image_2/000000.jpg").stat().st_mtime_ns == kept


def test_refuses_a_folder_of_something_else(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"another synthetic world.*seed 5 there, 8 given"):
        list(write_world(written, replace(SMALL, seed=8), 2))
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        list(write_world(tmp_path, SMALL, 1))
    for wrong, message in (
        ({"width": 8}, "width: expected 32 to 16384"),
        ({"focal": -1.0}, "focal: expected a positive"),
        ({"image_format": "bmp"}, "expected jpg or png, got 'bmp'"),
        ({"seed": -1}, "seed: expected 0 or more"),
    ):
        with pytest.raises(InputError, match=message):
            replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_verb(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Synth(
        written,
        images=2,
        seed=5,
        width=W,
        height=H,
        masks=True,
        depth=True,
        points=True,
        shapes=True,
        json=str(tmp_path / "made.json"),
    )
    assert run(options) == 0
    assert json.loads((tmp_path / "made.json").read_text()) == {
        "out": str(written),
        "made": 0,
        "kept": 2,
        "objects": 0,
    }
    assert "2 were there already" in capsys.readouterr().err
    with pytest.raises(InputError, match="--images: expected 1 or more, got 0"):
        run(Synth(tmp_path / "none", images=0))


# --- the scene


def test_streets_are_like_kittis() -> None:
    """Most cars stand along the road, either way, between 3 and 80 m; nothing stands in anything else."""
    actors: list[Actor] = []
    for seed in range(12):
        scene = sample_scene(np.random.default_rng(seed))
        actors += scene.actors
        for i, (s, t, a, b) in enumerate(scene.occupied):
            for s0, t0, a0, b0 in scene.occupied[:i]:
                assert abs(s - s0) >= a + a0 or abs(t - t0) >= b + b0
    cars = [a for a in actors if a.name == "Car"]
    assert len(cars) > 30
    along = np.array([abs(np.sin(a.yaw)) for a in cars])
    assert 0.7 < (along > 0.9).mean() < 1.0
    both = np.array([np.sin(a.yaw) for a in cars if abs(np.sin(a.yaw)) > 0.9])
    assert 0.2 < (both > 0).mean() < 0.8
    assert all(-2 < a.bottom[2] < 85 for a in actors)


def test_a_taken_place_is_refused() -> None:
    frame = sample_scene(np.random.default_rng(0))
    scene = Scene("country", frame.ground, frame.light, frame.sensor)
    rng = np.random.default_rng(0)
    assert add_vehicle(scene, rng, 20.0, 0.0, 0.0)
    assert not add_vehicle(scene, rng, 22.0, 0.5, 0.0)
    assert add_vehicle(scene, rng, 40.0, 0.0, np.pi)
    assert [round(float(np.sin(a.yaw))) for a in scene.actors] == [
        -1,
        1,
    ]  # with the road: away from the camera


def test_the_middle_of_the_road() -> None:
    ground = sample_scene(np.random.default_rng(0)).ground
    bent = replace(ground, offset=-1.0, heading=0.1, bend=0.002)
    assert isinstance(bent, Ground)
    np.testing.assert_allclose(bent.middle(np.array([0.0, 10.0])), [-1.0, 0.1])


def test_develop_keeps_grey_grey_and_adds_the_noise_it_promises() -> None:
    sensor = Sensor(exposure=1.0, contrast=1.0, warmth=0.0, blur=0.0, noise=0.0)
    grey = np.full((40, 60, 3), 0.18, np.float32)
    plain = develop(grey, sensor, np.random.default_rng(0))
    assert (plain == round(0.18 ** (1 / 2.2) * 255)).all()
    noisy = develop(grey, replace(sensor, noise=4.0), np.random.default_rng(0)).astype(float)
    assert 2.5 < noisy.std() < 6 and abs(noisy.mean() - plain.mean()) < 0.5
    step = np.zeros((9, 40, 3), np.float32)
    step[:, 20:] = 1
    soft = develop(step, replace(sensor, blur=0.7), np.random.default_rng(0))[4, :, 0]
    assert 0 < soft[19] < soft[20] < 255 and soft[15] == 0 and soft[25] == 255


# --- the bundled example


def test_the_example_is_what_its_source_makes() -> None:
    from monolift.world.example import example_frame

    frame = example_frame(supersample=1)
    image = np.asarray(Image.open(EXAMPLE / "example.jpg")).astype(float)
    assert image.shape == (375, 1242, 3) and (EXAMPLE / "example.jpg").stat().st_size <= 250_000
    assert np.abs(image - frame.image).mean() < 8  # JPEG's loss, and one sample per pixel against nine
    assert parse_labels((EXAMPLE / "label.txt").read_bytes()).names == frame.labels.names
    bundled = read_labels(EXAMPLE / "label.txt", scored=False)
    np.testing.assert_allclose(bundled.boxes2d, frame.labels.boxes2d, atol=0.011)
    np.testing.assert_allclose(bundled.bottom, frame.labels.bottom, atol=0.011)
    np.testing.assert_array_equal(bundled.occlusion, frame.labels.occlusion)
    np.testing.assert_allclose(parse_calib((EXAMPLE / "calib.txt").read_bytes()).p2, frame.calib.p2)
    cars = [k for k, n in enumerate(bundled.names) if n == "Car"]
    assert 4 <= len(cars) <= 7 and {"Pedestrian", "Cyclist"} <= set(bundled.names)
