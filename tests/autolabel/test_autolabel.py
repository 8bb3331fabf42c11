"""Auto-labelling whole folders: what is written, bad images among good ones, killed runs, several processes.

The fits have few steps: how well they find boxes is tested with the method; here it is what becomes of their results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.autolabel import SELECTIONS, Job, Selection, run
from monolift.autolabel.job import image_names, shard_of
from monolift.cli import main
from monolift.data.formats.kitti_format import read_labels
from monolift.data.kitti import read_camera
from monolift.errors import InputError
from monolift.methods.monodr import MonoDRConfig
from monolift.render.glb import read_glb
from shapenet_cars import write_box_car
from toy_kitti import write_toy

NAMES = ["000001", "000002", "000003"]
SIZE = (496, 150)
QUICK = MonoDRConfig(crop=24, iterations=4, escape_until=1)
KINDS = (("label_2", "txt"), ("json", "json"), ("meshes", "glb"))
QUICKLY = ["--set", "crop=24", "--set", "iterations=4", "--set", "escape_until=1"]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Three images of two cars each; the masks are the 2D boxes' lower parts, the depth the nearest car's."""
    root = tmp_path / "world"
    write_toy(root, NAMES, cars=2, size=SIZE)
    folder = root / "training"
    for kind in ("instance_2", "depth_2"):
        (folder / kind).mkdir()
    for name in NAMES:
        labels = read_labels(folder / "label_2" / f"{name}.txt")
        ids, depth = np.zeros(SIZE[::-1], np.uint8), np.zeros(SIZE[::-1])
        for k in np.argsort(-labels.bottom[:, 2]):
            x1, y1, x2, y2 = labels.boxes2d[k].round().astype(int)
            ids[y1 : y2 + 1, x1 : x2 + 1] = k + 1
            depth[y1 : y2 + 1, x1 : x2 + 1] = labels.bottom[k, 2] - labels.size_hwl[k, 1] / 2
        Image.fromarray(ids).save(folder / "instance_2" / f"{name}.png")
        Image.fromarray((depth * 256).astype(np.uint16)).save(folder / "depth_2" / f"{name}.png")
    return root


def job(world: Path, **changes: Any) -> Job:
    folder = world / "training"
    given = {
        "data": world,
        "masks": str(folder / "instance_2"),
        "depth": str(folder / "depth_2"),
        "out": world.parent / "labels",
        "config": QUICK,
    }
    return Job(**(given | changes))


def arguments(world: Path, *more: str) -> list[str]:
    folder = world / "training"
    inputs = ["--masks", str(folder / "instance_2"), "--depth", str(folder / "depth_2")]
    return [
        "autolabel",
        "--data",
        str(world),
        *inputs,
        "--out",
        str(world.parent / "labels"),
        *QUICKLY,
        *more,
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which grows with every run."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.jsonl"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_everything_that_is_written_says_the_same(world: Path) -> None:
    wanted = job(world, formats=("kitti", "json", "glb", "image", "animation"))
    total, outcomes = run(wanted)
    found = list(outcomes)
    assert total == 3
    assert [(o.name, o.objects, o.error) for o in found] == [(name, 2, None) for name in NAMES]
    for name in NAMES:
        rows = read_labels(wanted.out / "label_2" / f"{name}.txt", scored=True)
        assert rows.names == ("Car", "Car")
        assert rows.score is not None and 0 < rows.score[1] <= rows.score[0] <= 1
        content = json.loads((wanted.out / "json" / f"{name}.json").read_text())
        meshes = read_glb(wanted.out / "meshes" / f"{name}.glb")
        camera = read_camera(world / "training" / "calib" / f"{name}.txt", *SIZE)
        assert content["schema"] == "monolift.autolabel/1"
        assert content["image"] == {"width": SIZE[0], "height": SIZE[1]}
        assert content["camera"]["fx"] == pytest.approx(float(camera.fx))
        for k, one in enumerate(content["objects"]):
            size = [one["size"][axis] for axis in ("height", "width", "length")]
            assert rows.size_hwl[k].tolist() == pytest.approx(size, abs=1e-4)
            bottom = [one["center"][0], one["center"][1] + size[0] / 2, one["center"][2]]
            assert rows.bottom[k].tolist() == pytest.approx(bottom, abs=2e-4)
            assert rows.rotation_y[k] == pytest.approx(one["yaw"], abs=1e-4)
            assert rows.score[k] == pytest.approx(one["score"], abs=1e-4)
            # the mesh fills its box: turned back, its extent is the box's size
            turned = meshes[k].vertices.double() - torch.tensor(one["center"])
            c, s = np.cos(one["yaw"]), np.sin(one["yaw"])
            x = c * turned[:, 0] - s * turned[:, 2]
            assert float(x.max() - x.min()) == pytest.approx(one["size"]["length"], rel=0.02)
            for code in ("shape", "texture"):
                assert np.linalg.norm(one[code]) == pytest.approx(1, abs=1e-3)
            assert {"pixel", "box", "silhouette", "depth", "size"} <= set(one["residuals"])
            assert one["score"] <= one["score2d"] == 1
            assert one["depth_pixels"] > 60
        with Image.open(wanted.out / "before_after" / f"{name}.jpg") as image:
            assert image.height > 2 * image.width * SIZE[1] / SIZE[0]
        with Image.open(wanted.out / "animations" / f"{name}.gif") as image:
            assert image.n_frames == 5  # the start and four steps


def test_labels_serve_as_a_data_sets_and_as_predictions(world: Path) -> None:
    """What is written is read by the evaluator and by the loader of the detectors."""
    from monolift.data.kitti import KittiDataset

    wanted = job(world, formats=("kitti",))
    list(run(wanted)[1])
    labels = str(world / "training" / "label_2")
    assert (
        main(["evaluate", "--labels", labels, "--predictions", str(wanted.out / "label_2"), "--quiet"]) == 0
    )
    copy = world.parent / "copy"
    copy.mkdir()
    for folder in ("image_2", "calib"):
        (copy / folder).symlink_to(world / "training" / folder)
    (copy / "label_2").symlink_to(wanted.out / "label_2")
    assert [len(sample) for sample in KittiDataset(copy)] == [2, 2, 2]


def test_a_bad_image_in_the_middle_is_told_and_the_others_are_done(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = world / "training" / "image_2" / "000002.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert main(arguments(world, "--save", "kitti", "--json", "-")) == 2
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert summary["images"] == 2 and summary["objects"] == 4
    assert list(summary["failed"]) == ["000002"]
    assert "000002.png: not a readable image" in summary["failed"]["000002"]
    assert "1 images failed: 000002" in told.err
    out = world.parent / "labels"
    assert sorted(p.name for p in (out / "label_2").iterdir()) == ["000001.txt", "000003.txt"]
    assert noted(out) == dict.fromkeys(("000001", "000003"), "done") | {"000002": "failed"}
    done = contents(out)
    assert main(arguments(world, "--save", "kitti", "--quiet")) == 2  # quiet, not silent
    assert "000002.png: not a readable image" in capsys.readouterr().err
    broken.write_bytes(whole)  # fixed: only the missing image is labelled
    assert main(arguments(world, "--save", "kitti", "--json", "-", "--quiet")) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["skipped"], again["images"], again["failed"]) == (2, 1, {})
    assert done.items() <= contents(out).items()
    assert noted(out) == dict.fromkeys(NAMES, "done")


def noted(out: Path) -> dict[str, str]:
    """The status of each image by the manifest."""
    lines = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    return {Path(line["source"]).stem: line["status"] for line in lines if "source" in line}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("size", "the depth map is 100 x 100, but its image is 496 x 150"),
        ("depth", "000002: no depth map"),
        ("mask", "the masks are 100 x 100, but the image is 496 x 150"),
        ("calib", "000002.txt"),
    ],
)
def test_each_input_of_a_image_may_be_the_bad_one(world: Path, what: str, said: str) -> None:
    folder = world / "training"
    small = Image.fromarray(np.full((100, 100), 3000, np.uint16))
    if what == "size":
        small.save(folder / "depth_2" / "000002.png")
    elif what == "depth":
        (folder / "depth_2" / "000002.png").unlink()
    elif what == "mask":
        small.save(folder / "instance_2" / "000002.png")
    else:
        (folder / "calib" / "000002.txt").write_text("P2: 1 2 3\n")
    split = world / "split.txt"
    split.write_text("\n".join(NAMES))
    outcomes = {o.name: o for o in run(job(world, formats=("kitti",)), split)[1]}
    assert [name for name in NAMES if outcomes[name].error] == ["000002"]
    assert said in str(outcomes["000002"].error)


def test_a_killed_run_goes_on_where_it_stopped(world: Path) -> None:
    """Killed for good (SIGKILL) after its first image: what is there is whole, and is not done again."""
    out = world.parent / "labels"
    more = ["--set", "batch=2", "--set", "iterations=40", "--save", "kitti,json,glb", "--quiet"]
    command = [sys.executable, "-m", "monolift", *arguments(world, *more)]
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    first = out / "meshes" / f"{NAMES[0]}.glb"  # the last of its files
    while process.poll() is None and not first.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = contents(out)
    assert not job(world).files(NAMES[2])["label_2/{}.txt"].exists()  # it was killed before its end
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    after = contents(out)
    assert {p: d for p, d in stopped.items() if NAMES[0] in p}.items() <= after.items()
    whole = [f"{kind}/{name}.{end}" for kind, end in KINDS for name in NAMES]
    assert sorted(p for p in after if not p.endswith(".part")) == sorted([*whole, "autolabel.json"])
    for name in NAMES:
        assert len(read_glb(out / "meshes" / f"{name}.glb")) == 2
        assert len(json.loads(after[f"json/{name}.json"])["objects"]) == 2


def test_processes_and_shards_do_each_image_once(world: Path) -> None:
    alone = job(world, out=world.parent / "alone", formats=("kitti",), config=replace(QUICK, batch=2))
    list(run(alone)[1])
    together = replace(alone, out=world.parent / "together")
    total, outcomes = run(together, workers=2)
    assert sorted(o.name for o in outcomes) == NAMES and total == 3
    parts = replace(alone, out=world.parent / "parts")
    names = [[o.name for o in run(parts, shard=f"{i}/2")[1]] for i in (1, 2)]
    assert names == [["000001", "000003"], ["000002"]]
    # with an image to a batch the same numbers come out however the images are shared
    for other in (together, parts):
        for name in NAMES:
            file = f"label_2/{name}.txt"
            assert (other.out / file).read_bytes() == (alone.out / file).read_bytes()


def test_shards_cover_all_once() -> None:
    names = [str(k) for k in range(11)]
    parts = [shard_of(names, f"{i}/4") for i in range(1, 5)]
    assert sorted((n for part in parts for n in part), key=int) == names
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0"):
        with pytest.raises(InputError, match=f"--shard: expected i/n .* got '{wrong}'"):
            shard_of(names, wrong)


def test_selection_drops_what_cannot_be_fitted_but_keeps_it_as_someone_else(world: Path) -> None:
    from monolift.autolabel.observe import DepthFiles, MaskFiles, observe, read_calibrated
    from monolift.data.formats.masks import open_masks

    folder = world / "training"
    ids = np.zeros(SIZE[::-1], np.uint8)
    ids[60:100, 100:180] = 1
    ids[60:100, 180:240] = 2
    ids[60:68, 300:320] = 3
    ids[60:100, 350:400] = 4
    Image.fromarray(ids).save(folder / "instance_2" / "000001.png")
    rows = [
        {"id": 1, "score": 0.9, "class": "Car", "box": [95, 55, 185, 105]},
        {"id": 2, "score": 0.2, "class": "Car"},
        {"id": 3, "score": 0.9, "class": "Car"},
        {"id": 4, "score": 0.9, "class": "Van"},
        {"id": 5, "score": 0.9, "class": "Car"},
    ]
    (folder / "instance_2" / "table.json").write_text(json.dumps({"000001": rows}))
    masks = MaskFiles(open_masks(folder / "instance_2"))
    photo, depth = read_calibrated(folder, "000001"), DepthFiles(folder / "depth_2")
    view = observe(photo, masks, depth, Selection(score=0.5))
    assert view.ids == ("1",)
    assert dict(view.dropped) == {
        "2": "score below 0.5",
        "3": "lower than 12 pixels",
        "4": "class Van",
        "5": "no mask",
    }
    (one,) = view.observations
    assert (one.mask[80, 99:101].tolist(), one.mask[80, 179:181].tolist()) == ([0, 1], [1, -1])
    assert one.mask[80, 370] == -1 and one.score == pytest.approx(0.9)
    assert one.box2d.tolist() == [99.5, 59.5, 179.5, 99.5]
    (file_box,) = observe(photo, masks, depth, Selection(score=0.5, box="file")).observations
    assert file_box.box2d.tolist() == [95, 55, 185, 105]
    published = observe(photo, masks, depth, SELECTIONS["paper"]())
    assert published.ids == ("1", "2", "3") and published.observations[0].box2d.tolist() == [95, 55, 185, 105]


def test_the_cars_velocity_gives_the_depth_maps_scale(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Depth maps in a unit of 20 m, as a network that learnt from video leaves them: the same boxes as from metres."""
    metres = job(world)
    list(run(metres)[1])
    units, motion = world.parent / "units", world.parent / "motion.txt"
    units.mkdir()
    for name in NAMES:
        stored = np.array(Image.open(world / "training" / "depth_2" / f"{name}.png")) / 256
        np.save(units / f"{name}.npy", (stored / 20).astype(np.float32))
    motion.write_text("# metres driven, translation in the network's unit\n1.2 0.06\n1.0 0.05\n0.02 0.4\n")
    words = [
        "autolabel",
        "--data",
        str(world),
        "--masks",
        metres.masks,
        "--depth",
        str(units),
        *QUICKLY,
        "--quiet",
    ]
    out = world.parent / "scaled"
    assert main([*words, "--motion", str(motion), "--out", str(out)]) == 0
    for name in NAMES:
        a, b = (read_labels(f / "label_2" / f"{name}.txt") for f in (metres.out, out))
        np.testing.assert_allclose(a.bottom, b.bottom, atol=0.02)
    for text, said in (
        ("1.2 fast\n", "motion.txt:1: expected two numbers"),
        ("0 1\n", "motion.txt: expected frames"),
    ):
        motion.write_text(text)
        assert main([*words, "--motion", str(motion), "--out", str(world.parent / "x")]) == 2
        assert said in capsys.readouterr().err
    assert (
        main([*words, "--motion", str(motion), "--depth-scale", "2", "--out", str(world.parent / "x")]) == 2
    )


def test_a_semantic_segmentation_divides_foreground_from_background(world: Path) -> None:
    """It overrules the masks: pixels that it does not hold are background, those beyond the masks another object's."""
    from monolift.autolabel.observe import DepthFiles, ForegroundFiles, MaskFiles, observe, read_calibrated
    from monolift.data.formats.masks import open_masks

    folder = world / "training"
    ids, semantic = np.zeros(SIZE[::-1], np.uint8), np.zeros(SIZE[::-1], np.uint8)
    ids[60:100, 100:180] = 1
    semantic[60:100, 120:220] = 7
    Image.fromarray(ids).save(folder / "instance_2" / "000001.png")
    (world / "semantic").mkdir()
    Image.fromarray(semantic).save(world / "semantic" / "000001.png")
    masks = MaskFiles(open_masks(folder / "instance_2"))
    photo, depth = read_calibrated(folder, "000001"), DepthFiles(folder / "depth_2")
    foreground = ForegroundFiles(world / "semantic")
    (one,) = observe(photo, masks, depth, Selection(), foreground).observations
    assert one.mask[80, [110, 130, 170, 190, 230]].tolist() == [0, 1, 1, -1, 0]
    Image.fromarray(semantic[:50]).save(world / "semantic" / "000001.png")
    with pytest.raises(InputError, match=rf"000001.png: expected {SIZE[0]} x {SIZE[1]} pixels"):
        foreground.find(photo)
    with pytest.raises(InputError, match="no such folder"):
        ForegroundFiles(world / "nothing")


def test_from_models_of_cars_to_labels(world: Path) -> None:
    """The route of the paper: models in ShapeNet's layout, one of them broken, are rendered, the convolutional generator learns
    from the views, and the labels are made with it."""
    cars = world.parent / "02958343"
    for k, paint in enumerate([(0.8, 0.1, 0.1), (0.1, 0.2, 0.7), (0.5, 0.5, 0.5)]):
        path = write_box_car(cars / f"{k:032x}", paint)
    path.write_text("v 0 0 0\nf 1 2 3\n")
    decoder, report = world.parent / "cars.safetensors", world.parent / "report.json"
    build = [
        "shapes",
        "build",
        "--kind",
        "textured",
        "--meshes",
        str(cars),
        "--axes",
        "shapenet",
        "--views",
        "3",
    ]
    assert main([*build, "--steps", "2", "--out", str(decoder), "--json", str(report), "--quiet"]) == 0
    told = json.loads(report.read_text())
    assert told["models"] == 2 and told["skipped"] == [str(path)]
    words = arguments(world, "--decoder", str(decoder), "--limit", "1", "--quiet")
    assert main(words) == 0
    meshes = read_glb(world.parent / "labels" / "meshes" / "000001.glb")
    assert len(meshes) == 2 and meshes[0].faces.shape[0] == 2700
    note = json.loads((world.parent / "labels" / "autolabel.json").read_text())
    assert note["inputs"]["decoder"] == str(decoder)
    assert main(arguments(world, "--decoder", str(world / "nothing.safetensors"))) == 2


def test_a_image_without_objects_gets_an_empty_label_file(world: Path) -> None:
    Image.new("L", SIZE).save(world / "training" / "instance_2" / "000002.png")
    wanted = job(world, formats=("kitti", "json", "glb", "image", "animation"))
    assert [o.objects for o in run(wanted)[1]] == [2, 0, 2]
    assert (wanted.out / "label_2" / "000002.txt").read_bytes() == b""
    assert json.loads((wanted.out / "json" / "000002.json").read_text())["objects"] == []


def test_images_are_those_that_have_everything(world: Path) -> None:
    wanted = job(world)
    assert image_names(wanted, [["000002", "000003", "7"], ["000003", "000002"]], None) == NAMES[1:]
    with pytest.raises(InputError, match=r"none of 3 images has both masks .* and depth"):
        image_names(wanted, [["000002"], ["000003"]], None)


def test_another_jobs_folder_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(world, "--save", "kitti", "--limit", "1", "--quiet")) == 0
    assert main(arguments(world, "--save", "kitti", "--seed", "3", "--quiet")) == 2
    assert "holds another set of auto-labels (seed 0 there, 3 given)" in capsys.readouterr().err


def test_a_folder_of_an_earlier_version_is_resumed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that its note lacks count as their defaults; its pictures/ is what images/ is now."""
    more = ["--set", "iterations=2", "--save", "kitti,image", "--limit", "1", "--quiet"]
    assert main(arguments(world, *more)) == 0
    out = world.parent / "labels"
    note = json.loads((out / "autolabel.json").read_text())
    for name in ("depth_pixels", "depth_balance"):
        del note["config"][name]
    (out / "autolabel.json").write_text(json.dumps(note))
    (out / "images").rename(out / "pictures")
    before = contents(out)
    assert main(arguments(world, *more)) == 0
    assert contents(out) == before
    assert main(arguments(world, *more, "--set", "depth_pixels=foreground")) == 2
    assert "config.depth_pixels 'own' there, 'foreground' given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--save", "kitti,obj"], "--save: expected kitti, json, glb, image, animation, got obj"),
        (["--preset", "best"], "--preset: expected default or paper, got 'best'"),
        (["--set", "crops=3"], "did you mean crop?"),
        (["--set", "box=none"], "box: expected mask or file"),
        (["--score", "50"], "score: expected a number from 0 to 1"),
        (["--limit", "0"], "--limit: expected 1 or more"),
        (["--device", "abacus"], "device 'abacus': not usable here"),
        (["--masks", "nowhere"], "nowhere: no such file or folder of masks"),
        (["--depth", "nowhere"], "nowhere: no such folder of depth maps"),
        (["--data", "nowhere"], "nowhere: no such folder: expected a KITTI folder with image_2 and calib"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    world: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(arguments(world, *more)) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not (world.parent / "labels").exists()
