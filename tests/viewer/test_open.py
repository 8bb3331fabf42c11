"""What `monolift view` can be pointed at: each kind of path gives the scenes that stand there, or a clear refusal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.cli import main
from monolift.data.formats.kitti_format import format_labels, parse_calib, read_labels, write_labels
from monolift.data.kitti import read_sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.results import Results3D
from monolift.render.glb import write_glb
from monolift.render.mesh import Mesh, icosphere
from monolift.viewer.open import depth_points, open_frames, velodyne_points
from monolift.viewer.review import Decision, reviewed_labels
from viewer_scenes import toy_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return toy_world(tmp_path / "world", 2)


@pytest.fixture
def result(world: Path) -> Results3D:
    sample = read_sample(world, "000001")
    n = len(sample)
    return Results3D(
        "000001",
        replace(
            sample.objects,
            scores=torch.linspace(0.9, 0.4, n),
            covariance=torch.diag(torch.arange(1.0, 8)).repeat(n, 1, 1),
        ),
        sample.camera,
        sample.image,
        path=world / "image_2" / "000001.png",
    )


def same_boxes(a: Boxes3D, b: Boxes3D) -> None:
    for name in ("center", "size", "yaw"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=2e-4, rtol=0)


def test_a_kitti_folder_shows_its_labels(world: Path) -> None:
    for path in (world, world.parent):
        frames = open_frames(path)
        assert frames.names == ("000000", "000001")
        sample = read_sample(world, "000001")
        scene = frames[1]
        same_boxes(scene.objects.boxes, sample.boxes)
        assert scene.camera == replace(sample.camera) or torch.equal(
            scene.camera.matrix, sample.camera.matrix
        )
        assert scene.image == world / "image_2" / "000001.png" and not len(scene.labels)


def test_predictions_stand_beside_the_labels(world: Path, tmp_path: Path, result: Results3D) -> None:
    result.save_kitti(tmp_path / "found" / "000001.txt")
    frames = open_frames(world, predictions=tmp_path / "found")
    assert frames.names == ("000001",)
    same_boxes(frames[0].objects.boxes, result.boxes)
    assert frames[0].objects.scores.tolist() == pytest.approx([0.9, 0.65, 0.4])
    assert len(frames[0].labels) == 3


def test_a_result_file_comes_back_as_it_was(tmp_path: Path, result: Results3D) -> None:
    result.save_json(tmp_path / "out" / "000001.json")
    for path in (tmp_path / "out", tmp_path / "out" / "000001.json"):
        assert result.path is not None
        outside = open_frames(path)[0]  # a file from anybody: it cannot show any image of this disk
        assert outside.image is None and f"--images {result.path.parent}" in outside.warnings[0]
        scene = open_frames(path, images=result.path.parent)[0]
        same_boxes(scene.objects.boxes, result.boxes)
        assert scene.image == result.path and scene.warnings == ()
        assert torch.equal(scene.camera.matrix, result.camera.matrix)
        torch.testing.assert_close(scene.objects.covariance, result.covariance, rtol=1e-3, atol=1e-3)


def test_a_image_that_has_gone_is_told_and_found_elsewhere(tmp_path: Path, result: Results3D) -> None:
    moved = replace(result, path=tmp_path / "gone" / "000001.png")
    moved.save_json(tmp_path / "out" / "000001.json")
    scene = open_frames(tmp_path / "out")[0]
    assert scene.image is None and "--images DIR" in scene.warnings[0]
    assert result.path is not None
    found = open_frames(tmp_path / "out", images=result.path.parent)[0]
    assert found.image == result.path


def test_autolabels_come_with_their_meshes_and_images(world: Path, tmp_path: Path, result: Results3D) -> None:
    out = tmp_path / "auto"
    result.save_kitti(out / "label_2" / "000001.txt")
    directions, faces = icosphere(1)
    meshes = [Mesh(directions + center, faces) for center in result.boxes.center]
    (out / "meshes").mkdir()
    write_glb(out / "meshes" / "000001.glb", meshes)
    (out / "autolabel.json").write_text(json.dumps({"inputs": {"data": str(world)}}))
    scene = open_frames(out)[0]
    assert len(scene.labels) == 3 and scene.objects.meshes is not None
    torch.testing.assert_close(
        scene.objects.meshes[2].vertices.mean(0), result.boxes.center[2], atol=1e-3, rtol=0
    )
    (out / "autolabel.json").write_text(json.dumps({"inputs": {"data": "elsewhere"}}))
    with pytest.raises(InputError, match="--images ROOT"):
        open_frames(out)
    assert open_frames(out, images=world).names == ("000001",)
    write_glb(out / "meshes" / "000001.glb", meshes[:2])
    with pytest.raises(InputError, match="expected a mesh for each of 3 objects, got 2"):
        open_frames(out, images=world)[0]


def test_a_glb_file_shows_its_meshes(tmp_path: Path) -> None:
    directions, faces = icosphere(1)
    write_glb(tmp_path / "a.glb", [Mesh(directions * 2 + torch.tensor([0.0, 1, 9]), faces)])
    scene = open_frames(tmp_path / "a.glb")[0]
    assert scene.camera is None and scene.image is None
    assert scene.objects.boxes.center[0].tolist() == pytest.approx([0, 1, 9], abs=0.1)
    assert scene.objects.boxes.size[0].tolist() == pytest.approx([4, 4, 4], abs=0.4)


def test_scanner_points_are_carried_to_the_camera(tmp_path: Path) -> None:
    """Forward, left, up of a scanner 0.27 m behind and 0.08 m above the camera."""
    calib = parse_calib(
        "P2: 700 0 300 0 0 700 90 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
        "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27\n"
    )
    np.array([[10, 2, -1.5, 0.3]], "<f4").tofile(tmp_path / "a.bin")
    assert velodyne_points(tmp_path / "a.bin", calib)[0].tolist() == pytest.approx([-2, 1.42, 9.73])
    (tmp_path / "a.bin").write_bytes(b"123")
    with pytest.raises(InputError, match=r"a\.bin: expected 16 bytes for each point, got 3"):
        velodyne_points(tmp_path / "a.bin", calib)


def test_depth_maps_become_points_that_project_back(world: Path) -> None:
    camera = Camera(700, 710, 310, 90, 0.06, 0, 0.003, width=620, height=180)
    depth = torch.zeros(180, 620)
    depth[40, 100], depth[150, 600] = 12.0, 30.5
    points = depth_points(depth, camera)
    torch.testing.assert_close(
        camera.px_from_cam(points), torch.tensor([[100.0, 40], [600, 150]]), atol=1e-3, rtol=0
    )
    assert points[:, 2].tolist() == [12.0, 30.5]
    assert len(depth_points(torch.full((180, 620), 9.0), camera)) == 90 * 310  # dense: thinned
    (world / "depth_2").mkdir()
    Image.fromarray(np.full((188, 621), 2560, np.uint16)).save(world / "depth_2" / "000000.png")
    shown = open_frames(world)[0].points
    assert shown is not None and set(shown[:, 2].tolist()) == {10.0}
    (world / "depth_2").rename(world / "elsewhere")
    assert open_frames(world)[0].points is None
    assert len(open_frames(world, points=world / "elsewhere")[0].points) == len(shown)


def test_what_cannot_be_shown_is_refused(tmp_path: Path, world: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text('{"schema": "other"}')
    (tmp_path / "b.json").write_text("{")
    for path, words in (
        ("nowhere", "no such file"), ("empty", "expected a KITTI folder"), ("a.json", "expected a result of"),
        ("b.json", "not JSON"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            open_frames(tmp_path / path)
    with pytest.raises(InputError, match="--limit"):
        open_frames(world, limit=0)
    with pytest.raises(InputError, match="expected a folder of result files"):
        open_frames(world, predictions=tmp_path / "nowhere")
    shutil.rmtree(world / "label_2")
    assert len(open_frames(world)[0].objects) == 0  # images alone are fine


def test_a_malformed_result_names_file_and_field(tmp_path: Path, result: Results3D) -> None:
    content = result.to_dict()
    for change, words in (
        (
            {"objects": [{**content["objects"][0], "center": [1, 2]}]},
            r"objects\[0\]\.center: expected 3 finite",
        ),
        (
            {"objects": [{**content["objects"][0], "size": 4}]},
            r"objects\[0\]\.size: expected an object, got int",
        ),
        ({"camera": {**content["camera"], "fx": 0}}, "positive pixels"),
        ({"camera": None}, "camera: expected an object, got nothing"),
    ):
        (tmp_path / "x.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=words):
            open_frames(tmp_path / "x.json")[0]


def test_the_command_writes_a_page(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pages" / "scenes.html"
    assert main(["view", str(world), "--out", str(out), "--limit", "1", "--json", "-"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"images": 1, "file": str(out), "bytes": out.stat().st_size}
    assert "1 image" in told.err and '"names":["000000"]' in out.read_text("utf-8")
    assert main(["view", str(world), "--out", "scenes.txt"]) == 2
    assert main(["view", str(world), "--out", str(out), "--save-to", str(tmp_path)]) == 2
    assert main(["view", str(tmp_path / "nothing")]) == 2
    assert all(line.startswith("monolift: ") for line in capsys.readouterr().err.splitlines())


def test_dontcare_rows_survive_a_review(world: Path, tmp_path: Path) -> None:
    from monolift.viewer.review import Decision, save_review

    file = world / "label_2" / "000000.txt"
    region = "DontCare -1 -1 -10 10.00 20.00 30.00 40.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    file.write_text(region + file.read_text())
    scene = open_frames(world)[0]
    boxes = scene.objects.boxes
    decisions = tuple(
        Decision(status, tuple(boxes.center[i].tolist()), tuple(boxes.size[i].tolist()), float(boxes.yaw[i]))
        for i, status in enumerate(("rejected", "accepted", "open"))
    )
    target, written = save_review(tmp_path / "saved", scene, decisions)
    lines = file.read_text().splitlines()
    assert written == 1 and target.read_text().splitlines() == [lines[0], lines[2]]
    with pytest.raises(InputError, match="cannot be the name of a file"):
        save_review(tmp_path / "saved", replace(scene, name="../x"), decisions)
    write_labels(tmp_path / "again.txt", read_labels(target))
    assert (tmp_path / "again.txt").read_bytes() == target.read_bytes()


def test_a_photograph_is_sent_to_detect(tmp_path: Path) -> None:
    photo = tmp_path / "street.png"
    photo.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"street\.png: expected a folder, a result file .* monolift detect --save html"
    ):
        open_frames(photo)


def test_rows_known_in_2d_only_are_not_shown_and_survive_a_review(
    world: Path, tmp_path: Path, result: Results3D
) -> None:
    found = tmp_path / "found"
    result.save_kitti(found / "000001.txt")
    flat = "Car -1 -1 -10 100.00 90.00 160.00 120.00 -1 -1 -1 -1000 -1000 -1000 -10 0.81"
    rows = (found / "000001.txt").read_text().splitlines()
    (found / "000001.txt").write_text("\n".join([rows[0], flat, *rows[1:]]) + "\n")
    scene = open_frames(world, predictions=found)[0]
    same_boxes(scene.objects.boxes, result.boxes)
    assert scene.objects.scores.tolist() == pytest.approx([0.9, 0.65, 0.4])
    assert scene.warnings == ("not shown: 1 of 4 rows have no 3D box (sizes of -1)",)
    decisions = tuple(
        Decision(status, tuple(box.center[0].tolist()), tuple(box.size[0].tolist()), float(box.yaw))
        for status, box in zip(
            ("accepted", "rejected", "accepted"), (scene.objects.boxes[k] for k in range(3)), strict=True
        )
    )
    kept = reviewed_labels(scene, decisions)
    assert format_labels(kept).splitlines() == [rows[0], flat, rows[2]]
    (found / "000001.txt").write_text(flat + "\n")
    assert len(open_frames(world, predictions=found)[0].objects) == 0


def test_a_result_shows_no_image_from_elsewhere(
    tmp_path: Path, result: Results3D, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, away, work = (tmp_path / name for name in ("own", "away", "work"))
    for folder in (own, away, work):
        folder.mkdir()
    image = Path(str(result.path)).read_bytes()
    for place in (away / "secret.png", work / "street.png"):
        place.write_bytes(image)
    (away / "notes.txt").write_bytes(image)
    (own / "link.png").symlink_to(away / "secret.png")
    monkeypatch.chdir(work)
    content = json.loads(result.to_json())
    for source, name in (
        (str(away / "secret.png"), "000001"),
        ("../away/secret.png", "000001"),
        (str(own / ".." / "away" / "secret.png"), "000001"),
        ("link.png", "000001"),
        (str(away / "notes.txt"), "000001"),
        ("x.png", "../away/secret"),
        ("\0.png", "000001"),
        ("/dev/zero", "000001"),
    ):
        (own / "r.json").write_text(json.dumps({**content, "source": source, "name": name}))
        for images in (None, own):
            scene = open_frames(own / "r.json", images=images)[0]
            assert scene.image is None and len(scene.warnings) == 1, (source, name)
    (own / "r.json").write_text(json.dumps({**content, "source": "street.png"}))
    assert open_frames(own / "r.json")[0].image == Path("street.png")  # where detect ran, view finds it
