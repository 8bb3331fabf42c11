"""COCO's files: half a pixel, crowds, cameras that nobody knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monolift.data.formats.coco import CocoDataset, coco_tables
from monolift.data.formats.frames import KittiFrames
from monolift.errors import InputError
from toy_kitti import write_toy

FOREIGN: dict[str, Any] = {
    "images": [{"id": 42, "width": 640, "height": 480, "file_name": "a.png"}],
    "categories": [{"id": 3, "name": "car"}, {"id": 10, "name": "traffic light"}],
    "annotations": [
        {"id": 1, "image_id": 42, "category_id": 3, "bbox": [100, 200, 50, 40], "iscrowd": 0, "area": 2000},
        {"id": 2, "image_id": 42, "category_id": 10, "bbox": [5.5, 6, 1, 2], "iscrowd": 0},
        {"id": 3, "image_id": 42, "category_id": 3, "bbox": [0, 0, 64, 48], "iscrowd": 1},
    ],
}


def written(folder: Path, content: Any) -> Path:
    Image.new("RGB", (640, 480)).save(folder / "a.png")
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_a_file_from_elsewhere(tmp_path: Path) -> None:
    dataset = CocoDataset(written(tmp_path, FOREIGN))
    frame = dataset.frame(0)
    assert frame.projection is None
    assert frame.labels.names == ("Car", "traffic_light", "DontCare")
    # the pixels of columns 100 to 149 span 100..150 of COCO, and 99.5..149.5 where pixel centres are whole
    assert frame.labels.boxes2d[0].tolist() == [99.5, 199.5, 149.5, 239.5]
    assert (frame.labels.size_hwl == -1).all() and (frame.labels.bottom == -1000).all()
    with pytest.raises(InputError, match="knows no cameras"):
        _ = dataset[0]


def test_kitti_to_coco_and_back_loses_nothing(tmp_path: Path) -> None:
    frames = KittiFrames(write_toy(tmp_path / "kitti", ["000001", "000002"]))
    text = json.dumps(coco_tables((frames.frame(k) for k in range(2)), tmp_path))
    (tmp_path / "coco.json").write_text(text)
    again = CocoDataset(tmp_path / "coco.json")
    assert again.ids == frames.ids
    for k in range(2):
        old, new = frames.frame(k), again.frame(k)
        assert new.image.samefile(old.image)
        assert np.array_equal(new.projection, old.projection)  # type: ignore[arg-type]
        assert new.labels.names == old.labels.names
        for name in ("truncation", "occlusion", "boxes2d", "size_hwl", "bottom", "rotation_y"):
            assert np.allclose(getattr(new.labels, name), getattr(old.labels, name), atol=1e-6), name


def test_what_other_tools_read(tmp_path: Path) -> None:
    frames = KittiFrames(write_toy(tmp_path, ["000001"]))
    tables = coco_tables([frames.frame(0)])
    x1, y1, x2, y2 = frames.frame(0).labels.boxes2d[0]
    first = tables["annotations"][0]
    assert first["bbox"] == pytest.approx([x1 + 0.5, y1 + 0.5, x2 - x1, y2 - y1])
    assert first["area"] == pytest.approx(first["bbox"][2] * first["bbox"][3])
    assert (first["id"], first["image_id"], first["iscrowd"]) == (1, 1, 0)
    assert tables["categories"] == [{"id": 1, "name": "Car", "supercategory": ""}]


def test_two_files_of_one_name_are_numbered(tmp_path: Path) -> None:
    images = [{**FOREIGN["images"][0], "id": k, "file_name": f"{k}/a.png"} for k in (42, 43)]
    dataset = CocoDataset(written(tmp_path, {**FOREIGN, "images": images}))
    assert dataset.ids == ("000000", "000001")


@pytest.mark.parametrize("bbox", [[1, 2, 3], [1, 2, -3, 4], "box", [1, 2, 3, float("inf")]])
def test_boxes_that_are_none(tmp_path: Path, bbox: Any) -> None:
    content = {**FOREIGN, "annotations": [{**FOREIGN["annotations"][0], "bbox": bbox}]}
    with pytest.raises(InputError, match=r"annotations\[0\]: bbox: expected"):
        CocoDataset(written(tmp_path, content)).frame(0)


def changed(table: str, row: int, **fields: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(FOREIGN))
    content[table][row].update(fields)
    return content


@pytest.mark.parametrize("again", [42, 42.0, "42"])
def test_an_id_that_comes_twice_is_named_with_both_places(tmp_path: Path, again: Any) -> None:
    """CVAT wrote one image id for several files; read naively, every annotation belongs to each of them."""
    image = FOREIGN["images"][0]
    twice = {**FOREIGN, "images": [image, {**image, "id": again, "file_name": "b.png"}]}
    with pytest.raises(
        InputError,
        match=r"images\[1\]: id 42 comes a second time, first in images\[0\] \(a\.png and b\.png\)",
    ):
        CocoDataset(written(tmp_path, twice))


@pytest.mark.parametrize(
    ("table", "message"), [("annotations", r"annotations\[3\]"), ("categories", r"categories\[2\]")]
)
def test_other_ids_that_come_twice(tmp_path: Path, table: str, message: str) -> None:
    rows = [*FOREIGN[table], FOREIGN[table][0]]
    with pytest.raises(InputError, match=rf"{message}: id \d+ comes a second time, first in {table}\[0\]"):
        CocoDataset(written(tmp_path, {**FOREIGN, table: rows}))


def test_one_file_under_two_ids(tmp_path: Path) -> None:
    image = FOREIGN["images"][0]
    content = {**FOREIGN, "images": [image, {**image, "id": 43}]}
    with pytest.raises(InputError, match=r"images\[1\]: a\.png comes a second time, first in images\[0\]"):
        CocoDataset(written(tmp_path, content))


def test_ids_may_be_text_or_numbers(tmp_path: Path) -> None:
    content = changed("images", 0, id="42")
    assert len(CocoDataset(written(tmp_path, content)).frame(0).labels) == 3


ODD_VALUES: list[Any] = [[1], {"a": 1}, "x", 10**19, -(10**19), True, [], "\ud800", 1e308]


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("images", "id"), ("images", "file_name"), ("images", "width"), ("images", "projection"),
        ("categories", "id"), ("categories", "name"),
        ("annotations", "id"), ("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "bbox"),
        ("annotations", "iscrowd"), ("annotations", "truncation"), ("annotations", "occlusion"), ("annotations", "box3d"),
        ("annotations", "segmentation"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_one_named_error_or_no_matter(
    tmp_path: Path, table: str, key: str, value: Any
) -> None:
    try:
        CocoDataset(written(tmp_path, changed(table, 0, **{key: value}))).frame(0)
    except InputError as error:
        assert f"{table}[0]: {key}" in str(error) or "comes" in str(error) or "not in the file" in str(error)
        assert len(str(error)) < 400


@pytest.mark.parametrize("key", ["iscrowd", "truncation", "occlusion", "box3d", "segmentation", "area", "id"])
def test_null_is_as_good_as_absent(tmp_path: Path, key: str) -> None:
    plain = CocoDataset(written(tmp_path, FOREIGN)).frame(0).labels
    labels = CocoDataset(written(tmp_path, changed("annotations", 0, **{key: None}))).frame(0).labels
    assert labels.names == plain.names and np.array_equal(labels.boxes2d, plain.boxes2d)


@pytest.mark.parametrize(
    "content", [[], [None], "x", {"images": [None]}, {"images": "x"}, {"images": {}}, None]
)
def test_content_that_is_no_table(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match=r"instances\.json: "):
        CocoDataset(written(tmp_path, content))


def test_why_there_is_no_ground_truth(tmp_path: Path) -> None:
    for table in ({}, {"annotations": []}, {"annotations": None}):
        content = {k: v for k, v in FOREIGN.items() if k != "annotations"} | table
        dataset = CocoDataset(written(tmp_path, content))
        assert len(dataset.frame(0).labels) == 0
        assert "no ground truth" in dataset.warnings[0] and "test split" in dataset.warnings[0]


def test_annotations_without_a_bbox_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = CocoDataset(written(tmp_path, changed("annotations", 1, bbox=None)))
    assert dataset.frame(0).labels.names == ("Car", "DontCare")
    assert "1 annotations without bbox are left out (first: id 2)" in dataset.warnings[0]


def test_a_size_that_is_not_stated_is_the_file_s(tmp_path: Path) -> None:
    frame = CocoDataset(written(tmp_path, changed("images", 0, width=None, height=None))).frame(0)
    assert (frame.width, frame.height) == (640, 480)


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    dataset = CocoDataset(written(tmp_path, changed("images", 0, file_name="sub\\a.png")))
    assert dataset.frame(0).image == tmp_path / "sub" / "a.png" and dataset.ids == ("a",)
    twice = [
        {**FOREIGN["images"][0], "id": k, "file_name": name} for k, name in ((42, "a.png"), (43, "./a.png"))
    ]
    with pytest.raises(InputError, match=r"a\.png comes a second time"):
        CocoDataset(written(tmp_path, {**FOREIGN, "images": twice}))
