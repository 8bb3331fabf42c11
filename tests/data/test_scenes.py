"""Stereo pairs and video frames as they are found in folders, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from monolift.data.scenes import paired_scenes, stereo_scenes, video_scenes
from monolift.errors import InputError
from toy_kitti import CX, CY, FOCAL, write_toy

BASELINE = 0.54
SIZE = (414, 125)  # a third of KITTI's


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four frames; the first two with a right image."""
    training = write_toy(tmp_path, [f"{k:06d}" for k in range(4)], cars=1, size=SIZE) / "training"
    (training / "image_3").mkdir()
    for name in ("000000", "000001"):
        shutil.copy(training / "image_2" / f"{name}.png", training / "image_3" / f"{name}.png")
    for file in (training / "calib").iterdir():
        rows = next(line for line in file.read_text().splitlines() if line.startswith("P2")).split()[1:]
        right = [float(v) for v in rows]
        right[3] -= right[0] * BASELINE
        file.write_text(f"P2: {' '.join(rows)}\nP3: {' '.join(map(repr, right))}\n")
    return training


def test_the_right_image_of_a_pair_stands_at_the_baseline(root: Path) -> None:
    scenes = stereo_scenes(root.parent)
    assert [scene.name for scene in scenes] == ["000000", "000001"]
    assert [[other.parent.name for other in scene.others] for scene in scenes] == [["image_3"]] * 2
    assert scenes[0].translation is not None
    assert scenes[0].translation.tolist() == [pytest.approx([-BASELINE, 0, 0], abs=1e-5)]
    assert [scene.name for scene in stereo_scenes(root, ["000001", "000003"])] == ["000001"]


def test_a_right_image_of_another_size_is_no_pair(root: Path) -> None:
    for part in ("image_2", "image_3"):
        path = root / part / "000001.png"
        whole = Image.open(path).convert("RGB")
        whole.crop((0, 0, SIZE[0] - 20, SIZE[1])).save(path)
        with pytest.raises(
            InputError, match=r"000001\.png: expected the size and the intrinsics of 000001\.png"
        ):
            stereo_scenes(root)
        whole.save(path)
    assert len(stereo_scenes(root)) == 2


def test_pairs_may_lie_anywhere_each_with_its_own_camera(root: Path, tmp_path: Path) -> None:
    right = tmp_path / "right"
    for folder in ("image_2", "calib"):
        (right / folder).mkdir(parents=True)
    shutil.copy(root / "image_2" / "000002.png", right / "image_2" / "900002.png")
    text = (root / "calib" / "000002.txt").read_text()
    (right / "calib" / "900002.txt").write_text("P2:" + text.split("P3:")[1])
    table = tmp_path / "pairs.txt"
    table.write_text("# left right\ntraining/image_2/000002.png right/image_2/900002.png\n")
    (scene,) = paired_scenes(table)
    assert scene.translation is not None
    assert scene.translation[0, 0].item() == pytest.approx(-BASELINE, abs=1e-5)

    def refused(line: str) -> str:
        table.write_text(line + "\n")
        with pytest.raises(InputError) as error:
            paired_scenes(table)
        return str(error.value)

    assert "pairs.txt:1: expected two image files" in refused("training/image_2/000002.png")
    assert "no such image" in refused("training/image_2/000002.png right/image_2/1.png")
    assert "no pair of images" in refused("")
    assert "stands where" in refused("training/image_2/000002.png training/image_2/000003.png")
    (right / "calib" / "900002.txt").write_text(
        f"P2: {FOCAL} 0 {CX} 0 0 {FOCAL} {CY} 0 0 0 1 0\n"  # the lens of the full size
    )
    assert "900002" in refused("training/image_2/000002.png right/image_2/900002.png")


def test_frames_have_neighbours_in_their_own_sequence(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "frames.tsv"
    table.write_text("id\tsequence\tframe\n000000\ta\t7\n000001\ta\t8\n000002\ta\t9\n000003\tb\t10\n")
    (scene,) = video_scenes(root, table)
    assert scene.name == "000001" and [p.stem for p in scene.others] == ["000000", "000002"]
    assert scene.translation is None
    for text, message in (
        ("id frame\n000000 1\n", r"frames\.tsv:1: expected the columns"),
        ("id sequence frame\n000000 a x\n", r"frames\.tsv:2: expected id, sequence"),
        ("id sequence frame\n000000 a 1\n", "no frame of"),
        ("", r"frames\.tsv:1: expected the columns"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            video_scenes(root, table)


def test_missing_right_images_and_cameras_are_named(root: Path) -> None:
    file = root / "calib" / "000000.txt"
    file.write_text(file.read_text().split("P3")[0])
    with pytest.raises(InputError, match=r"000000\.txt: expected P3"):
        stereo_scenes(root)
    shutil.rmtree(root / "image_3")
    with pytest.raises(InputError, match=r"image_3: no such folder of right images"):
        stereo_scenes(root)
