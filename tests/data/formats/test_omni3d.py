"""Omni3D's conventions against an example worked by hand from its published description."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.augment.augment import mirror
from monolift.data.formats.frames import Frame, KittiFrames, labels_from_columns, write_kitti
from monolift.data.formats.kitti_format import parse_labels
from monolift.data.formats.omni3d import Omni3dDataset, omni3d_tables
from monolift.data.formats.rotation_files import read_rotations
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.methods.roi10d import Lifted

P = np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]])

# A car 4 m long, 1.5 m high, 2 m wide, its middle at (1, 1, 10), heading towards the camera: +x of the box points along -z of
# the camera, its z (width) along +x. So R_cam has the columns (0, 0, -1), (0, 1, 0), (1, 0, 0), which is a yaw of +90 degrees,
# and the corner v0, at (-2, -0.75, -1) in the box, is at R v0 + center = (-1, -0.75, 2) + (1, 1, 10).
TOWARDS = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
CORNERS = [
    [0, 0.25, 12], [0, 0.25, 8], [0, 1.75, 8], [0, 1.75, 12],
    [2, 0.25, 12], [2, 0.25, 8], [2, 1.75, 8], [2, 1.75, 12],
]  # fmt: skip

BY_HAND: dict[str, Any] = {
    "info": {"id": "0", "source": 0, "name": "by hand", "split": "val", "version": "0.1", "url": ""},
    "images": [
        {"id": 17, "dataset_id": 0, "width": 1242, "height": 375, "file_path": "images/a.png",
         "K": [[700, 0, 600], [0, 700, 180], [0, 0, 1]], "src_90_rotate": 0, "src_flagged": False},
    ],
    "categories": [{"id": 1, "name": "car"}, {"id": 5, "name": "traffic cone"}, {"id": 9, "name": "dontcare"}],
    "annotations": [
        {"id": 3, "image_id": 17, "category_id": 1, "category_name": "car", "valid3D": True,
         "bbox2D_tight": [-1, -1, -1, -1], "bbox2D_proj": [600.0, 194.58, 775.0, 333.125],
         "bbox2D_trunc": [600.0, 194.58, 775.0, 333.125], "bbox3D_cam": CORNERS, "center_cam": [1, 1, 10],
         "dimensions": [2, 1.5, 4], "R_cam": TOWARDS, "behind_camera": False, "visibility": 0.5, "truncation": 0.1,
         "segmentation_pts": -1, "lidar_pts": -1, "depth_error": -1},
        {"id": 4, "image_id": 17, "category_id": 5, "valid3D": False, "bbox2D_tight": [10, 20, 30, 2000],
         "bbox2D_proj": [-1, -1, -1, -1], "bbox2D_trunc": [-1, -1, -1, -1], "center_cam": [-1, -1, -1],
         "dimensions": [-1, -1, -1], "R_cam": [[-1] * 3] * 3, "visibility": -1, "truncation": -1},
        {"id": 5, "image_id": 17, "category_id": 9, "valid3D": False, "bbox2D_tight": [500, 150, 540, 170],
         "dimensions": [-1, -1, -1]},
    ],
}  # fmt: skip


def written(folder: Path, content: Any) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (1242, 375)).save(folder / "images" / "a.png")
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def car(projection: np.ndarray = P, yaw: float = math.pi / 2) -> Frame:
    labels = labels_from_columns(
        ["Car"], [[600.0, 194.58, 775.0, 333.13]], [[1.0, 1.0, 10.0]], [[4.0, 1.5, 2.0]], [yaw], [0.1], [1]
    )
    return Frame("a", Path("images/a.png"), 1242, 375, projection, labels)


def test_written_as_worked_by_hand() -> None:
    tables = omni3d_tables([car()])
    (row,) = tables["annotations"]
    assert row["category_name"] == "car" and tables["categories"] == [
        {"id": 0, "name": "car", "supercategory": ""}
    ]
    assert row["center_cam"] == [1, 1, 10]
    assert row["dimensions"] == [2, 1.5, 4]  # width, height, length
    assert np.allclose(row["R_cam"], TOWARDS, atol=1e-6)
    assert np.allclose(row["bbox3D_cam"], CORNERS, atol=1e-5)
    # x 0..2 and y 0.25..1.75; the near end is 8 m away, the far end 12 m
    by_hand = [600, 180 + 700 * 0.25 / 12, 600 + 700 * 2 / 8, 180 + 700 * 1.75 / 8]
    assert np.allclose(row["bbox2D_proj"], by_hand, atol=1e-3)
    assert (row["visibility"], row["truncation"], row["valid3D"], row["behind_camera"]) == (
        0.6,
        0.1,
        True,
        False,
    )
    assert tables["images"][0]["K"] == P[:, :3].tolist()


def test_read_as_worked_by_hand(tmp_path: Path) -> None:
    dataset = Omni3dDataset(written(tmp_path, BY_HAND))
    frame = dataset.frame(0)
    assert frame.labels.names == ("Car", "traffic_cone", "DontCare") and dataset.ids == ("a",)
    assert frame.labels.bottom[0].tolist() == [1, 1.75, 10]
    assert frame.labels.size_hwl[0].tolist() == [1.5, 2, 4]
    assert frame.labels.rotation_y[0] == pytest.approx(math.pi / 2, abs=1e-6)
    assert frame.labels.occlusion.tolist() == [1, 3, -1]
    assert np.allclose(frame.labels.boxes2d[0], [600, 194.58, 775, 333.125])  # nobody drew a tight one
    # no 3D box: KITTI's words for unknown, and the 2D box is cut to the image
    assert frame.labels.size_hwl[1].tolist() == [-1] * 3 and frame.labels.bottom[1].tolist() == [-1000] * 3
    assert frame.labels.boxes2d[1].tolist() == [10, 20, 30, 374]
    sample = dataset[0]
    assert sample.classes == ("Car",) and len(sample.ignore) == 2
    # corner v1 of Omni3D, (+,-,-): the front, top, on the side of -z of the box; here number 5
    assert torch.allclose(
        sample.boxes.corners()[0, 5], torch.tensor(CORNERS[1], dtype=torch.float32), atol=1e-5
    )


def test_a_displaced_camera_moves_into_the_boxes(tmp_path: Path) -> None:
    """KITTI's P2 has a fourth column, Omni3D's K has none: the same points must fall on the same pixels."""
    p2 = P.copy()
    p2[:, 3] = (45.0, -0.3, 0.0027)
    (row,) = omni3d_tables([car(p2)])["annotations"]
    k = Camera.from_matrix(P[:, :3])
    corners = torch.tensor(row["bbox3D_cam"], dtype=torch.float64)
    box = Boxes3D(torch.tensor([[1.0, 1, 10]]), torch.tensor([[4.0, 1.5, 2]]), torch.tensor([math.pi / 2]))
    expected = Camera.from_matrix(p2).px_from_cam(box.corners()[0].double())
    order = [6, 5, 1, 2, 7, 4, 0, 3]  # this project's number of each of Omni3D's corners
    assert torch.allclose(k.px_from_cam(corners), expected[order], atol=1e-3)


@pytest.mark.parametrize("yaw", [-3.0, -1.2, 0.0, 0.7, 2.9])
def test_round_trip(tmp_path: Path, yaw: float) -> None:
    dont_care = parse_labels("DontCare -1 -1 -10 5.00 6.00 70.00 80.00 -1 -1 -1 -1000 -1000 -1000 -10\n")
    frame = car(yaw=yaw)
    tables = omni3d_tables([frame, Frame("b", Path("images/b.png"), 1242, 375, P, dont_care)])
    dataset = Omni3dDataset(written(tmp_path, json.loads(json.dumps(tables))))
    for index, labels in enumerate((frame.labels, dont_care)):
        again = dataset.frame(index).labels
        assert again.names == labels.names
        for name in ("truncation", "occlusion", "alpha", "boxes2d", "size_hwl", "bottom", "rotation_y"):
            assert np.allclose(getattr(again, name), getattr(labels, name), atol=2e-6), name


def test_boxes_that_lean_are_said(tmp_path: Path) -> None:
    content = copy.deepcopy(BY_HAND)
    c, s = math.cos(math.radians(20)), math.sin(math.radians(20))
    content["annotations"][0]["R_cam"] = [[1, 0, 0], [0, c, -s], [0, s, c]]  # nods by 20 degrees
    dataset = Omni3dDataset(written(tmp_path, content))
    assert dataset.warnings == (
        "1 boxes lean by more than 5 degrees, up to 20: labels keep their yaw, rotation_2 of a KITTI folder all of it "
        "(roi10d trains on that)",
    )
    assert dataset.frame(0).labels.rotation_y[0] == 0


def test_the_rotation_of_a_box_that_leans_comes_along(tmp_path: Path) -> None:
    content = copy.deepcopy(BY_HAND)
    c, s = math.cos(math.radians(20)), math.sin(math.radians(20))
    nods = [[1, 0, 0], [0, c, -s], [0, s, c]]
    assert Omni3dDataset(written(tmp_path, content)).frame(0).rotation is None
    content["annotations"][0]["R_cam"] = nods
    dataset = Omni3dDataset(written(tmp_path, content))
    frame = dataset.frame(0)
    write_kitti(tmp_path / "kitti", [frame])
    sample = KittiDataset(tmp_path / "kitti")[0]
    assert sample.rotation is not None and len(sample.rotation) == len(sample)
    torch.testing.assert_close(sample.rotation[0], torch.tensor(nods), atol=1e-6, rtol=0)
    mirrored = mirror(sample)
    assert mirrored.rotation is not None
    flip = torch.tensor([-1.0, 1, 1])
    corners, seen = (Lifted(x.boxes.center, x.boxes.size, x.rotations).corners() for x in (sample, mirrored))
    order = [1, 0, 3, 2, 5, 4, 7, 6]  # the left side becomes the right one
    torch.testing.assert_close(seen, corners[:, order] * flip, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirror(mirrored).rotation, sample.rotation)
    (row, *_) = omni3d_tables([KittiFrames(tmp_path / "kitti").frame(0)])["annotations"]
    assert np.allclose(row["R_cam"], nods, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 0 0 0 1 0 0 0 1\n", "expected 2 lines, as many as in the label file, got 1"),
        ("1 0 0 0 1 0 0 0 1\n1 0 0 0 1 0 0 0 -1\n", "line 2: expected a rotation"),
        ("1 0 0 0 1 0 0 0 1\n1 0 0 0 1 0 0 0\n", "line 2: expected nine numbers"),
        ("1 0 0 0 1 0 0 0 nan\n1 0 0 0 1 0 0 0 1\n", "line 1: expected nine numbers"),
    ],
)
def test_files_of_rotations_that_are_none_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=f"a.txt.*{said}"):
        read_rotations(tmp_path / "a.txt", 2)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("annotations", {"category_id": 77}, r"annotations\[0\]: category_id 77 is not in the file"),
        ("annotations", {"image_id": 2}, r"annotations\[0\]: image_id 2 is not in the file"),
        ("annotations", {"center_cam": [1, None, 2]}, r"center_cam: expected 3 finite numbers"),
        ("annotations", {"R_cam": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}, "R_cam: expected a rotation"),
        ("annotations", {"bbox2D_trunc": [1, 2, 3]}, r"annotations\[0\]: bbox2D_trunc: expected 4 finite"),
        ("images", {"K": [1, 2, 3, 4]}, r"images\[0\]: K: expected 3 rows"),
        ("images", {"width": "wide"}, r"images\[0\]: width: expected a whole number"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, table: str, change: dict[str, Any], message: str) -> None:
    content = copy.deepcopy(BY_HAND)
    content[table][0].update(change)
    with pytest.raises(InputError, match=message):
        Omni3dDataset(written(tmp_path, content)).frame(0)
    with pytest.raises(InputError, match="expected categories, a list"):
        Omni3dDataset(written(tmp_path, {"images": []}))


def second(**fields: Any) -> dict[str, Any]:
    """The file with one more car, whose fields are changed."""
    content: dict[str, Any] = copy.deepcopy(BY_HAND)
    content["annotations"].append({**content["annotations"][0], "id": 99, **fields})
    return content


NO_BOXES = {"bbox2D_tight": [-1] * 4, "bbox2D_proj": [-1] * 4, "bbox2D_trunc": [-1] * 4}


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({**NO_BOXES, "behind_camera": True}, None, "1 behind the camera"),
        (
            {"behind_camera": True, "center_cam": [1, 1, -3], "bbox2D_tight": [5, 5, 60, 60]},
            None,
            "1 behind the",
        ),
        (NO_BOXES, None, "1 without a 2D box"),
        (dict.fromkeys(NO_BOXES), None, "1 without a 2D box"),
        ({"lidar_pts": 0}, "DontCare", "1 without a LiDAR point"),
        ({"segmentation_pts": 0}, "DontCare", "1 without a pixel"),
        ({"visibility": 0}, "DontCare", "1 occluded"),
        ({"truncation": 0.999}, "DontCare", "1 truncated"),
        ({"depth_error": 0.7}, "DontCare", "1 at a doubtful depth"),
        ({"visibility": 0.02, "truncation": 0.98, "lidar_pts": 1, "segmentation_pts": 1}, "Car", None),
        ({"visibility": -1, "truncation": -1, "lidar_pts": None, "behind_camera": None}, "Car", None),
    ],
)
def test_what_is_no_ground_truth_is_told_as_by_the_official_loader(
    tmp_path: Path, fields: dict[str, Any], name: str | None, reason: str | None
) -> None:
    dataset = Omni3dDataset(written(tmp_path, second(**fields)))
    assert dataset.frame(0).labels.names == ("Car", "traffic_cone", "DontCare", *filter(None, (name,)))
    if reason is None:
        assert dataset.warnings == ()
    else:
        assert (
            "1 of 4 annotations are no ground truth" in dataset.warnings[0] and reason in dataset.warnings[0]
        )
    assert dataset[0].classes == ("Car", "Car") if name == "Car" else ("Car",)


def test_all_filtered_is_said(tmp_path: Path) -> None:
    content = copy.deepcopy(BY_HAND)
    content["annotations"] = [{**content["annotations"][0], "behind_camera": True}]
    assert Omni3dDataset(written(tmp_path, content)).warnings[0].endswith("nothing is left")


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x", 10**19, [], [1, 2, 3], [[1]], True, 1e308])
@pytest.mark.parametrize(
    "key",
    ["bbox2D_tight", "bbox2D_trunc", "center_cam", "dimensions", "R_cam", "behind_camera", "visibility", "truncation",
     "lidar_pts", "segmentation_pts", "depth_error", "valid3D", "category_name", "K", "width"],
)  # fmt: skip
def test_a_value_of_another_type_is_one_named_error_or_no_matter(
    tmp_path: Path, key: str, value: Any
) -> None:
    table = "images" if key in ("K", "width") else "annotations"
    content = copy.deepcopy(BY_HAND)
    content[table][0][key] = value
    try:
        Omni3dDataset(written(tmp_path, content)).frame(0)
    except InputError as error:
        assert f"{table}[0]: {key}: expected" in str(error) and len(str(error)) < 400
