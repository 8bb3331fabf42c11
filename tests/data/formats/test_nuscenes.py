"""nuScenes' tables against geometry worked by hand; the numbers are derived in nuscenes_tables.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from monolift.data.formats.nuscenes import NuscenesDataset
from monolift.errors import InputError
from nuscenes_tables import TABLES, write_nuscenes


@pytest.fixture
def dataset(tmp_path: Path) -> NuscenesDataset:
    return NuscenesDataset(write_nuscenes(tmp_path))


def test_only_key_frames_of_the_camera_and_only_what_it_sees(dataset: NuscenesDataset) -> None:
    assert dataset.ids == ("front",)
    frame = dataset.frame(0)
    # behind the camera, far beside it, and hit by no point: left out
    assert frame.labels.names == ("Car", "Pedestrian", "Cyclist", "Bicycle", "Car", "Traffic_cone")
    assert (frame.width, frame.height, frame.group) == (1600, 900, "scene-0001")
    assert frame.projection is not None and frame.projection[0].tolist() == [1000, 0, 800, 0]


def test_boxes_in_the_camera_frame(dataset: NuscenesDataset) -> None:
    sample = dataset[0]
    # (-L, 1.6 - Z, F - 1.5)
    expected = torch.tensor(
        [[-3, 0.8, 18.5], [7.99, 0.7, 10], [0, 0.75, 15], [-6, 1.1, 30], [-5, 0.8, 40], [2, 1.2, 23.5]]
    )
    assert torch.allclose(sample.boxes.center, expected, atol=1e-5)
    # the tables' width, length, height become length, height, width
    assert torch.allclose(sample.boxes.size[0], torch.tensor([4.5, 1.6, 2.0]))
    car, walker, rider = sample.boxes.yaw[:3].tolist()
    assert car == pytest.approx(-math.pi / 2, abs=1e-5)  # drives ahead, along the camera's z
    assert abs(walker) == pytest.approx(math.pi, abs=1e-5)  # crosses to the left, along -x
    assert rider == pytest.approx(0, abs=1e-5)  # crosses to the right
    # all stand on the ground, 1.6 m below the camera
    assert torch.allclose(sample.boxes.bottom[:, 1], torch.tensor(1.6), atol=1e-5)


def test_the_heading_is_where_the_box_is_pointing(dataset: NuscenesDataset) -> None:
    """The front of the car, half its length ahead on the map, is 2.25 m further away from the camera."""
    sample = dataset[0]
    front = sample.boxes.corners()[0, [0, 1, 4, 5]].mean(0)
    assert torch.allclose(front, torch.tensor([-3, 0.8, 18.5 + 2.25]), atol=1e-5)


def test_rectangles_truncation_and_occlusion(dataset: NuscenesDataset) -> None:
    labels = dataset.frame(0).labels
    # the car fills x -4..-2, y 0..1.6, z 16.25..20.75
    by_hand = [800 - 4000 / 16.25, 450, 800 - 2000 / 20.75, 450 + 1600 / 16.25]
    assert np.allclose(labels.boxes2d[0], by_hand, atol=1e-5)
    assert labels.truncation[0] == 0
    assert labels.truncation[1] == pytest.approx(
        0.5, abs=1e-3
    )  # its middle is on the right border, pixel 1599
    assert labels.boxes2d[1, 2] == 1599
    assert labels.occlusion.tolist() == [1, 2, 0, 3, 0, 0]  # v60-80, v0-40, v80-100, nobody said, v80-100


def test_the_pose_of_the_moment_of_the_image_counts(tmp_path: Path) -> None:
    """The LiDAR's pose, a metre behind, must not be used; moving the camera's pose moves every box."""
    poses = [
        {**row, "translation": [100, 52, 0]} if row["token"] == "e-front" else row
        for row in TABLES["ego_pose"]
    ]
    moved = NuscenesDataset(write_nuscenes(tmp_path, ego_pose=poses))
    assert float(moved[0].boxes.center[0, 2]) == pytest.approx(16.5, abs=1e-5)


def without(table: str, **row: object) -> list[dict[str, object]]:
    return [{**r, **row} for r in TABLES[table]]


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("sample_annotation", {"instance_token": "gone"}, "instance_token 'gone' is not in instance.json"),
        ("sample_annotation", {"size": [1, 2]}, "expected 3 finite numbers"),
        ("sample_annotation", {"rotation": [0, 0, 0, 0]}, "expected a quaternion w, x, y, z, got zeros"),
        ("calibrated_sensor", {"camera_intrinsic": [[1, 2, 3]]}, "expected 3 x 3 numbers"),
        ("sample_data", {"ego_pose_token": "x"}, "sample_data.json: d-front: ego_pose_token 'x'"),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, table: str, change: dict[str, object], message: str) -> None:
    root = write_nuscenes(tmp_path, **{table: without(table, **change)})
    with pytest.raises(InputError, match=message):
        NuscenesDataset(root).frame(0)


def test_versions_and_channels(tmp_path: Path) -> None:
    root = write_nuscenes(tmp_path)
    with pytest.raises(InputError, match=r"no channel 'CAM_SIDE': expected one of CAM_FRONT, LIDAR_TOP"):
        NuscenesDataset(root, channel="CAM_SIDE")
    write_nuscenes(root, "v1.0-trainval")
    with pytest.raises(InputError, match=r"found v1\.0-mini, v1\.0-trainval: choose one by its version"):
        NuscenesDataset(root)
    assert len(NuscenesDataset(root, "v1.0-trainval")) == 1
    with pytest.raises(InputError, match=r"no tables of version 'v1\.0-test'"):
        NuscenesDataset(root, "v1.0-test")
    (root / "v1.0-mini" / "category.json").write_text("[")
    with pytest.raises(InputError, match=r"category\.json: not JSON"):
        NuscenesDataset(root, "v1.0-mini")


def two_scenes() -> dict[str, list[dict[str, object]]]:
    """A second key frame, in a scene of its own, whose image write_nuscenes does not write."""
    front = next(row for row in TABLES["sample_data"] if row["token"] == "d-front")
    return {
        "scene": [*TABLES["scene"], {"token": "scene2", "name": "scene-0002"}],
        "sample": [*TABLES["sample"], {"token": "sample2", "timestamp": 5, "scene_token": "scene2"}],
        "sample_data": [
            *TABLES["sample_data"],
            {**front, "token": "d-2", "sample_token": "sample2", "filename": "samples/CAM_FRONT/two.jpg", "timestamp": 5},
        ],
    }  # fmt: skip


def test_a_part_of_the_blobs_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    dataset = NuscenesDataset(write_nuscenes(tmp_path, **two_scenes()))
    assert dataset.ids == ("front",) and dataset.missing == ("samples/CAM_FRONT/two.jpg",)
    assert "1 of 2 key frames of CAM_FRONT are left out" in dataset.warnings[0]
    assert "samples/CAM_FRONT/two.jpg" in dataset.warnings[0]


def test_scenes_can_be_chosen(tmp_path: Path) -> None:
    root = write_nuscenes(tmp_path, **two_scenes())
    one = NuscenesDataset(root, scenes=["scene-0001"])
    assert one.ids == ("front",) and one.warnings == ()
    with pytest.raises(InputError, match=r"two\.jpg: no such image, and none of the 1 key frames"):
        NuscenesDataset(root, scenes=["scene-0002"])
    with pytest.raises(InputError, match=r"no scene 'scene-1' among 2: expected names such as scene-000"):
        NuscenesDataset(root, scenes=["scene-1"])


def test_why_there_is_no_ground_truth(tmp_path: Path) -> None:
    test_split = NuscenesDataset(write_nuscenes(tmp_path / "a", "v1.0-test", sample_annotation=[]))
    assert "no ground truth" in test_split.warnings[0] and "test split" in test_split.warnings[0]
    assert len(test_split.frame(0).labels) == 0
    unseen = without("sample_annotation", num_lidar_pts=0, num_radar_pts=0)
    assert (
        "since no LiDAR"
        in NuscenesDataset(write_nuscenes(tmp_path / "b", sample_annotation=unseen)).warnings[0]
    )
    elsewhere = without("sample_annotation", sample_token="another")
    assert (
        "none of 9 annotations"
        in NuscenesDataset(write_nuscenes(tmp_path / "c", sample_annotation=elsewhere)).warnings[0]
    )


@pytest.mark.parametrize("value", [[1], {"a": 1}, 10**19, "x", None, True])
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("sample_annotation", "instance_token"), ("sample_annotation", "visibility_token"),
        ("sample_annotation", "attribute_tokens"), ("sample_annotation", "num_lidar_pts"), ("sample_annotation", "size"),
        ("sample_annotation", "rotation"), ("sample_data", "timestamp"), ("sample_data", "width"),
        ("sample_data", "filename"), ("sample_data", "calibrated_sensor_token"), ("sensor", "channel"),
        ("calibrated_sensor", "camera_intrinsic"), ("category", "name"), ("scene", "name"), ("ego_pose", "translation"),
        ("attribute", "name"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_one_named_error_or_no_matter(
    tmp_path: Path, table: str, key: str, value: object
) -> None:
    root = write_nuscenes(tmp_path, **{table: without(table, **{key: value})})
    try:
        NuscenesDataset(root).frame(0)
    except InputError as error:
        assert len(str(error)) < 400


@pytest.mark.parametrize("rows", [[None], [{}], [{"token": [1]}], {"token": "a"}, "x", [1]])
def test_a_table_without_tokens(tmp_path: Path, rows: object) -> None:
    with pytest.raises(InputError, match=r"instance\.json: "):
        NuscenesDataset(write_nuscenes(tmp_path, instance=rows))  # type: ignore[arg-type]


def test_a_token_that_comes_twice(tmp_path: Path) -> None:
    rows = [*TABLES["instance"], TABLES["instance"][0]]
    with pytest.raises(InputError, match=r"instance\.json: row 4: token 'i-car' comes a second time"):
        NuscenesDataset(write_nuscenes(tmp_path, instance=rows))
