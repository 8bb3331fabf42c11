"""Frames of videos and folders: their order, their times, tracks from sequence to sequence, the camera's own motion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.motion import OXTS_FIELDS, CameraMotion, over_ground
from monolift.inference.results import Results3D
from monolift.inference.sequences import frame_order, sequence_of, timed
from monolift.inference.tracking import track

CAMERA = Camera(700, 700, 320, 96, width=640, height=192)
IMAGE = torch.zeros(3, 192, 640, dtype=torch.uint8)


def result(path: str, time: float | None = None, frame: int | None = None, z: float = 20.0) -> Results3D:
    boxes = Boxes3D(torch.tensor([[0.0, 0.9, z]]), torch.tensor([[4.0, 1.5, 1.6]]), torch.tensor([0.4]))
    objects = Objects.named(boxes, ("Car",), scores=torch.tensor([0.9]), boxes2d=boxes.projected(CAMERA))
    return Results3D(Path(path).stem, objects, CAMERA, IMAGE, path=Path(path), time=time, frame=frame)


def test_order_follows_the_numbers() -> None:
    names = ["b/2.png", "a/frame10.png", "a/frame2.png", "a/x.png", "a/1.png"]
    ordered = [str(p) for p in sorted(map(Path, names), key=frame_order)]
    assert ordered == ["a/1.png", "a/frame2.png", "a/frame10.png", "a/x.png", "b/2.png"] or ordered == [
        "a/frame2.png", "a/frame10.png", "a/x.png", "a/1.png", "b/2.png"
    ]  # fmt: skip


def test_times_of_images_and_videos() -> None:
    frames = [
        result("a/000007.png"), result("a/000008.png"), result("a/000010.png"),  # one is missing
        result("b/x.png"), result("b/y.png"),
        result("c/drive.mp4", 3.2, 40), result("c/drive.mp4", 3.3, 41), result("c/drive.mp4", 3.3, 42),
    ]  # fmt: skip
    done = list(timed(frames, 10))
    assert [r.frame for r in done] == [7, 8, 10, 0, 1, 40, 41, 42]
    assert [r.time for r in done] == pytest.approx([0, 0.1, 0.3, 0, 0.1, 3.2, 3.3, 3.4])
    assert [str(sequence_of(r)) for r in done[2:6]] == ["a", "b", "b", "c/drive.mp4"]


def test_a_new_sequence_has_new_tracks() -> None:
    done = list(track([result(f"{folder}/{k}.png") for folder in "ab" for k in range(3)], 10))
    assert [r.objects.tracks.tolist() for r in done if r.objects.tracks is not None] == [[1]] * 6


def test_velocities_over_ground() -> None:
    frames = [result(f"a/{k}.png", z=30 - 1.0 * k) for k in range(12)]  # parked, passed at 10 m/s
    seen = list(track(frames, 10))[-1]
    assert seen.camera_speed is None and float(seen.objects.velocity[0, 2]) == pytest.approx(-10, abs=1.5)
    still = list(track(frames, 10, motion=CameraMotion.read("10")))[-1]
    assert still.camera_speed == 10 and abs(float(still.objects.velocity[0, 2])) < 1.5
    assert still.to_dict()["camera_speed"] == 10


def test_a_turning_camera_sees_what_stands_still_move() -> None:
    boxes = Boxes3D(torch.tensor([[2.0, 1.0, 20.0]]), torch.ones(1, 3), torch.zeros(1))
    turning = 0.2  # rad/s to the left: a point p seems to move with -w x p, w = (0, -0.2, 0)
    w, p = torch.tensor([[0.0, -turning, 0.0]]), boxes.center
    objects = Objects.named(
        boxes, ("Car",), velocity=-torch.linalg.cross(w, p) - torch.tensor([[0.0, 0.0, 5.0]])
    )
    assert over_ground(objects, (5.0, turning)).velocity == pytest.approx(torch.zeros(1, 3), abs=1e-6)


def test_motion_files(tmp_path: Path) -> None:
    (tmp_path / "speeds.txt").write_text("5\n6.5, 0.1\n\n")
    assert CameraMotion.read(str(tmp_path / "speeds.txt")).frames == ((5.0, 0.0), (6.5, 0.1))
    (tmp_path / "oxts" / "data").mkdir(parents=True)
    fields = [0.0] * OXTS_FIELDS
    fields[8], fields[22] = 13.5, -0.02
    (tmp_path / "oxts" / "data" / "0000000000.txt").write_text(" ".join(map(str, fields)))
    assert CameraMotion.read(str(tmp_path / "oxts")).frames == ((13.5, -0.02),)
    with pytest.raises(InputError, match="2 frames are given, none for frame 2"):
        CameraMotion.read(str(tmp_path / "speeds.txt")).at(2)


@pytest.mark.parametrize(
    ("content", "said"),
    [("fast\n", "speeds.txt:1: expected a speed"), ("1 2 3\n", "speeds.txt:1"), ("", "no line"), ("9e9\n", "up to 150")],
)  # fmt: skip
def test_wrong_motion_files(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "speeds.txt").write_text(content)
    with pytest.raises(InputError, match=said):
        CameraMotion.read(str(tmp_path / "speeds.txt"))


@pytest.mark.parametrize("text", ["nan", "1e4", "nowhere"])
def test_wrong_speeds(text: str) -> None:
    with pytest.raises(InputError, match="camera speed"):
        CameraMotion.read(text)
