"""2D boxes of other detectors: every format gives the same boxes, wrong ones are named by file and row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monolift.data.formats.boxes2d import Boxes2D, read_boxes2d
from monolift.errors import InputError

KITTI = "Car -1 -1 -10 10.5 20.5 50.5 60.5 -1 -1 -1 -1000 -1000 -1000 -10 0.8\n"
CSV = "filename,label,xmin,ymin,xmax,ymax,confidence\nimages/000007.png,car,10.5,20.5,50.5,60.5,0.8\n"
OWN = {"000007.png": [{"class": "Car", "box": [10.5, 20.5, 50.5, 60.5], "score": 0.8}]}
BOX = {"bbox": [11, 21, 40, 40], "score": 0.8}
RESULTS = [{"image_id": 7, "category_name": "car", **BOX}]
TABLES = {
    "images": [{"id": 3, "file_name": "a/000007.jpg"}],
    "categories": [{"id": 1, "name": "Car"}],
    "annotations": [{"image_id": 3, "category_id": 1, **BOX}],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [("000007.txt", KITTI), ("b.csv", CSV), ("b.json", OWN), ("b.json", RESULTS), ("b.json", TABLES)],
)
def test_formats(name: str, content: object, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for found in (read_boxes2d(path), *([read_boxes2d(tmp_path)] if name.endswith(".txt") else [])):
        boxes = found.of("000007")
        assert boxes.boxes.tolist() == [[10.5, 20.5, 50.5, 60.5]]
        assert boxes.classes[0].lower() == "car" and boxes.scores.tolist() == pytest.approx([0.8])
    if name != "000007.txt":
        assert len(read_boxes2d(path).of("000008")) == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.csv", "image,class,x1,y1,x2\n", ":1: expected a column y2"),
        ("b.csv", CSV.replace("50.5", "x"), ":2: expected numbers"),
        ("b.csv", CSV.replace("50.5", "5"), "box 0: expected x1 < x2"),
        ("b.csv", CSV.replace("0.8", "80"), "a score from 0 to 1, got 80"),
        ("b.csv", CSV.replace("0.8", "nan"), "a score from 0 to 1"),
        (
            "b.json",
            '[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}]',
            r"\[0\]: expected a class name",
        ),
        ("b.json", '{"a": [{"box": [1, 2, 3]}]}', "a.0.: box"),
        ("b.json", '{"a": 3}', "expected a list"),
        ("000007.txt", "0 0.5 0.5 0.1 0.1\n", "expected 15 fields"),
        ("b.xml", "", "expected 2D boxes as"),
    ],
)
def test_wrong_files_are_one_line(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_boxes2d(tmp_path / name).of("000007")
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_boxes2d(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no boxes of 000007"):
        read_boxes2d(tmp_path).of("000007")


def test_names_of_other_data_sets() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(4, 1)
    given = Boxes2D.of(boxes, ["person", "CAR", "truck", "truck"])
    kept, labels, said = given.known(["Car", "Pedestrian"])
    assert kept.classes == ("person", "CAR") and labels.tolist() == [1, 0]
    assert said == "2D boxes left out: 2 truck; this model lifts Car, Pedestrian"
    with pytest.raises(InputError, match="4 boxes, but 1 classes"):
        Boxes2D.of(boxes, ["Car"])
