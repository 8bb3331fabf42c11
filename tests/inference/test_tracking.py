"""Tracking: ids that last, boxes that move as objects do."""

from __future__ import annotations

import math

import pytest
import torch

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.inference.results import Results3D
from monolift.inference.tracking import Tracker, TrackerSettings, track

pytest.importorskip("scipy")

CAMERA = Camera(700.0, 700.0, 320.0, 96.0, width=640, height=192)


def frame(*objects: tuple[float, float, float, str, float]) -> Objects:
    """Objects of (x, z, yaw, class, score), 1.5 m below the camera, their 2D boxes as CAMERA sees them."""
    center = torch.tensor([[x, 1.0, z] for x, z, *_ in objects]).reshape(-1, 3)
    size = torch.tensor([[4.0, 1.5, 1.7]]).repeat(len(objects), 1)
    boxes = Boxes3D(center, size, torch.tensor([yaw for _, _, yaw, *_ in objects]))
    middle, half = CAMERA.px_from_cam(center), 700 * torch.tensor([1.5, 0.8]) / center[:, 2:]
    scores = torch.tensor([score for *_, score in objects])
    names = [name for *_, name, _ in objects]
    return Objects.named(boxes, names, scores=scores, boxes2d=torch.cat([middle - half, middle + half], 1))


def ids(found: Objects) -> list[int]:
    assert found.tracks is not None
    return found.tracks.tolist()


def test_two_cars_that_cross_in_the_image_keep_their_ids() -> None:
    tracker, seen = Tracker(), []
    for k in range(21):
        near, far = (-5 + 0.5 * k, 10.0, 0.0, "Car", 0.9), (5 - 0.5 * k, 20.0, 3.0, "Car", 0.8)
        seen.append(ids(tracker.update(frame(near, far), CAMERA, k / 10)))
    assert seen[0] == [1, 2] and all(one == [1, 2] for one in seen)


def test_speed_and_distance_of_noisy_measurements() -> None:
    """A car that comes nearer at 10 m/s, its distance measured with 5 % noise at ten frames a second."""
    generator = torch.Generator().manual_seed(0)
    tracker, raw, kept = Tracker(), [], []
    for k in range(30):
        z = 50.0 - k
        measured = z * (1 + 0.05 * float(torch.randn((), generator=generator)))
        found = tracker.update(frame((0.1 * measured, measured, 0.1, "Car", 0.9)), CAMERA, k / 10)
        raw.append(abs(measured - z) / z)
        kept.append(abs(float(found.boxes.center[0, 2]) - z) / z)
    assert found.velocity is not None
    assert float(found.velocity[0, 2]) == pytest.approx(-10, abs=2.5)
    assert sum(kept[10:]) < 0.6 * sum(raw[10:])


def test_a_heading_that_turns_round_now_and_then_stays() -> None:
    tracker = Tracker()
    for k in range(12):
        yaw = 0.4 + (math.pi if k in (3, 7, 8) else 0.0)
        found = tracker.update(frame((0.0, 15.0, yaw, "Car", 0.9)), CAMERA, k / 10)
        assert math.cos(float(found.boxes.yaw[0]) - 0.4) > 0.999


def test_a_first_heading_that_was_wrong_is_voted_out() -> None:
    tracker = Tracker()
    for k in range(8):
        found = tracker.update(frame((0.0, 15.0, 0.4 + math.pi * (k == 0), "Car", 0.9)), CAMERA, k / 10)
    assert math.cos(float(found.boxes.yaw[0]) - 0.4) > 0.999


def test_the_class_is_the_majoritys_and_a_pedestrian_never_continues_a_car() -> None:
    tracker = Tracker()
    names = ["Car", "Van", "Van", "Car", "Van", "Van"]
    for k, name in enumerate(names):
        found = tracker.update(frame((0.0, 15.0, 0.4, name, 0.9)), CAMERA, k / 10)
        assert ids(found) == [1] or k == 0
    assert "Van" in found.names  # the frame's own classes hold the majority's
    assert found.classes == ("Van",)
    other = tracker.update(frame((0.0, 15.0, 0.4, "Pedestrian", 0.9)), CAMERA, 0.7)
    assert len(other) == 0  # a new track, not confirmed yet
    assert ids(tracker.update(frame((0.0, 15.0, 0.4, "Pedestrian", 0.9)), CAMERA, 0.8)) == [2]


def test_a_class_that_the_frame_does_not_know_is_added() -> None:
    """The majority's class is a name of an earlier frame's objects."""
    tracker = Tracker()
    for k, name in enumerate(["Van", "Van", "Car"]):
        found = tracker.update(frame((0.0, 15.0, 0.4, name, 0.9)), CAMERA, k / 10)
    assert found.classes == ("Van",)


def test_gaps_are_bridged_and_the_gone_are_forgotten() -> None:
    tracker = Tracker(TrackerSettings(memory=0.5))
    car = (0.0, 15.0, 0.4, "Car", 0.9)
    assert ids(tracker.update(frame(car), CAMERA, 0.0)) == [1]
    assert ids(tracker.update(frame(), CAMERA, 0.1)) == []
    assert ids(tracker.update(frame(car), CAMERA, 0.3)) == [1]
    assert ids(tracker.update(frame(car), CAMERA, 1.0)) == []
    assert ids(tracker.update(frame(car), CAMERA, 1.1)) == [2]


def test_a_faint_detection_continues_a_track_and_begins_none() -> None:
    tracker = Tracker()
    faint, sure = (0.0, 15.0, 0.4, "Car", 0.1), (0.0, 15.0, 0.4, "Car", 0.9)
    assert ids(tracker.update(frame(faint), CAMERA, 0.0)) == []
    assert ids(tracker.update(frame(sure), CAMERA, 0.1)) == []  # its first, not in the first frame
    assert ids(tracker.update(frame(faint), CAMERA, 0.2)) == [1]


def test_results_of_a_video() -> None:
    image = torch.zeros(3, 192, 640, dtype=torch.uint8)
    results = [
        Results3D(f"drive_{k:06d}", frame((0.0, 15.0 - k, 0.4, "Car", 0.9)), CAMERA, image) for k in range(5)
    ]
    tracked = list(track(results, fps=10))
    assert [len(r) for r in tracked] == [1] * 5
    row = tracked[-1].to_dict()["objects"][0]
    assert row["track"] == 1 and row["speed"] == pytest.approx(10, abs=2)
    assert tracked[4].to_kitti_tracking(4).startswith("4 1 Car -1 -1 ")
    with pytest.raises(ValueError, match="tracked"):
        results[0].to_kitti_tracking(0)


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan])
def test_frames_a_second_must_be_positive(fps: float) -> None:
    with pytest.raises(InputError, match="fps"):
        next(track([], fps))


def test_time_runs_forward() -> None:
    tracker = Tracker()
    tracker.update(frame(), CAMERA, 1.0)
    with pytest.raises(InputError, match="later than 1 s, got 1 s"):
        tracker.update(frame(), CAMERA, 1.0)
