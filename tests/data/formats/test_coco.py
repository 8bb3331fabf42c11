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
