"""Masks of every kind of file say the same of the same image; what is wrong with a file is said with its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.formats.masks import open_masks
from monolift.data.formats.rle import encode_rle
from monolift.errors import InputError

SIZE = (60, 40)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


APART = [disc(12, 20, 8), disc(40, 15, 5)]
BOXES = [[3.0, 11.0, 21.0, 29.0], [34.5, 9.5, 45.5, 20.5]]
SCORES = [0.5, 0.75]


def id_map(masks: list[np.ndarray], dtype: type = np.uint8) -> np.ndarray:
    return sum((k + 1) * m.astype(dtype) for k, m in enumerate(masks)).astype(dtype)


def as_png(folder: Path, table: bool) -> Path:
    Image.fromarray(id_map(APART)).save(folder / "000007.png")
    if table:
        rows = [
            {"id": k + 1, "box": BOXES[k], "score": SCORES[k], "class": "car", "tiles": 2} for k in range(2)
        ]
        (folder / "detections.json").write_text(json.dumps({"000007": rows, "000008": []}))
    return folder


def as_npz(folder: Path, **content: Any) -> Path:
    np.savez_compressed(folder / "000007.npz", **content)
    return folder


def coco_rows(compressed: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "id": 11 + k,
            "image_id": 7,
            "category_id": 3,
            # COCO measures from the corner, half a pixel before the first centre
            "bbox": [x1 + 0.5, y1 + 0.5, x2 - x1, y2 - y1],
            "score": SCORES[k],
            "segmentation": encode_rle(APART[k], compressed),
        }
        for k, (x1, y1, x2, y2) in enumerate(BOXES)
    ]


def as_coco(folder: Path, content: Any) -> Path:
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


IMAGES = [{"id": 7, "file_name": "left/000007.jpg", "width": 60, "height": 40}]


@pytest.mark.parametrize("kind", ["png", "npz", "npz ids", "coco", "coco results", "coco uncompressed"])
def test_all_kinds_agree(tmp_path: Path, kind: str) -> None:
    described = {"boxes": np.array(BOXES), "scores": np.array(SCORES), "classes": np.array(["car", "CAR"])}
    path = {
        "png": lambda: as_png(tmp_path, table=True),
        "npz": lambda: as_npz(tmp_path, masks=np.stack(APART), **described),
        "npz ids": lambda: as_npz(tmp_path, instances=id_map(APART, np.uint16), **described),
        "coco": lambda: as_coco(
            tmp_path, {"images": IMAGES, "categories": [{"id": 3, "name": "car"}], "annotations": coco_rows()}
        ),
        "coco results": lambda: as_coco(tmp_path, coco_rows()),
        "coco uncompressed": lambda: as_coco(tmp_path, coco_rows(compressed=False)),
    }[kind]()
    found = open_masks(path).read("000007", SIZE)
    assert torch.equal(found.map, torch.from_numpy(id_map(APART)).long())
    assert found.boxes2d.tolist() == BOXES
    assert found.scores.tolist() == SCORES
    assert found.classes == ("Car", "Car")
    assert found.dropped == ()
    assert found.pixels.tolist() == [int(m.sum()) for m in APART]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_alone_give_boxes_round_their_pixels(tmp_path: Path, dtype: type) -> None:
    ids = id_map(APART, dtype) * 100  # numbers need not follow one another
    Image.fromarray(ids.astype(dtype)).save(tmp_path / "a.png")
    found = open_masks(tmp_path).read("a", SIZE)
    # discs of radius 8 and 5: their outermost pixel centres, and half a pixel more
    assert found.boxes2d.tolist() == [[3.5, 11.5, 20.5, 28.5], [34.5, 9.5, 45.5, 20.5]]
    assert found.ids == ("100", "200")
    assert found.scores.tolist() == [1, 1]
    assert found.classes == ("Car", "Car")


def test_palette_images_hold_numbers_too(tmp_path: Path) -> None:
    image = Image.fromarray(id_map(APART)).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putdata(id_map(APART).ravel().tolist())
    image.save(tmp_path / "a.png")
    assert open_masks(tmp_path).read("a", SIZE).pixels.tolist() == [int(m.sum()) for m in APART]


def test_three_states() -> None:
    """Own, background, someone else's, pixel by pixel for two touching objects."""
    from monolift.data.formats.instances import Instances

    ids = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2]])
    two = Instances(ids, torch.zeros(2, 4), torch.ones(2), ("Car", "Truck"), ("a", "b"))
    assert two.three_states(0).tolist() == [[0, 1, 1, -1], [0, 1, -1, -1]]
    assert two.three_states(1).tolist() == [[0, -1, -1, 1], [0, -1, 1, 1]]
    assert two.three_states(0).dtype == torch.int8


def test_where_masks_overlap_the_better_score_wins(tmp_path: Path) -> None:
    big, small = disc(20, 20, 10), disc(26, 20, 6)
    for scores, owner in (([0.9, 0.3], 1), ([0.3, 0.9], 2), ([0.5, 0.5], 2)):  # equal: the smaller
        as_npz(tmp_path, masks=np.stack([big, small]), scores=np.array(scores))
        found = open_masks(tmp_path).read("000007", SIZE)
        assert (found.map[torch.from_numpy(big & small)] == owner).all()
        assert (found.map > 0).sum() == (big | small).sum()


def test_objects_without_pixels_are_dropped_and_told(tmp_path: Path) -> None:
    hidden = APART[0] & disc(12, 20, 3)
    as_npz(
        tmp_path,
        masks=np.stack([hidden, APART[0], np.zeros_like(hidden), APART[1]]),
        scores=np.array([0.2, 0.9, 0.8, 0.7]),
    )
    found = open_masks(tmp_path).read("000007", SIZE)
    assert found.ids == ("1", "3")
    assert found.dropped == (("0", "covered by masks of better score"), ("2", "no mask"))
    assert torch.equal(found.map, torch.from_numpy(id_map(APART)).long())
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_images_without_objects(tmp_path: Path) -> None:
    as_png(tmp_path, table=True)
    Image.new("L", SIZE).save(tmp_path / "000008.png")
    source = open_masks(tmp_path)
    assert source.names == ("000007", "000008")
    empty = source.read("000008", SIZE)
    assert len(empty) == 0 and empty.boxes2d.shape == (0, 4) and not empty.map.any()
    with pytest.raises(InputError, match=r"000009: no masks: expected 000009.png or 000009.npz"):
        source.read("000009", SIZE)
    images = [*IMAGES, {"id": 8, "file_name": "000008.png"}]
    coco = open_masks(as_coco(tmp_path, {"images": images, "annotations": coco_rows()}))
    assert coco.names == ("000007", "000008")
    assert len(coco.read("000008", SIZE)) == 0


def test_crowds_are_nobody(tmp_path: Path) -> None:
    rows = coco_rows()
    rows[0]["iscrowd"] = 1
    assert open_masks(as_coco(tmp_path, rows)).read("000007", SIZE).ids == ("12",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "polygons are not read"),
        ({"segmentation": {"size": [40, 60], "counts": [7]}}, "expected runs over 60 x 40"),
        ({"bbox": [1, 2, 3]}, "bbox: expected 4 finite numbers"),
        ({"bbox": [1, 2, 0, 3]}, "box: expected x1 < x2"),
        ({"score": 87}, "score: expected a number from 0 to 1, got 87"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = coco_rows()
    rows[1] |= change
    with pytest.raises(InputError, match=rf"instances.json: annotations\[1\]: .*{said}"):
        open_masks(as_coco(tmp_path, rows)).read("000007", SIZE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no object in the whole file"),
        ({"images": IMAGES, "annotations": []}, "no object in the whole file"),
        ({"000007": []}, "expected COCO's annotations"),
        ({"images": IMAGES, "annotations": [{"image_id": 9}]}, r"annotations\[0\]: image_id 9 is not in"),
        ([{"category_id": 3}], r"annotations\[0\]: expected the key 'image_id'"),
    ],
)
def test_bad_coco_files_are_named(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"instances.json: .*{said}"):
        open_masks(as_coco(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"masks": np.ones((40, 60))}, r"masks: expected \(N, H, W\)"),
        ({"masks": np.full((1, 40, 60), 0.5)}, r"masks: expected \(N, H, W\) of 0 and 1"),
        ({"instances": np.ones((40, 60))}, "instances: expected .* whole numbers, got float64"),
        ({"labels": np.ones(3)}, "expected 'masks' or 'instances', got labels"),
        ({"masks": np.stack(APART), "scores": np.ones(3)}, "2 masks, but 3 scores"),
        ({"masks": np.stack(APART), "boxes": np.ones((2, 4))}, "object 0: box: expected x1 < x2"),
        ({"masks": np.ones((2, 30, 60))}, "the masks are 60 x 30, but the image is 60 x 40"),
    ],
)
def test_bad_npz_files_are_named(tmp_path: Path, content: dict[str, np.ndarray], said: str) -> None:
    as_npz(tmp_path, **content)
    with pytest.raises(InputError, match=f"000007.npz: {said}"):
        open_masks(tmp_path).read("000007", SIZE)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such file or folder"):
        open_masks(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no masks: expected NAME\.png"):
        open_masks(tmp_path)
    as_png(tmp_path, table=True)
    (tmp_path / "detections.json").write_text('{"000007": [{"id": 1}]}')
    with pytest.raises(InputError, match=r"000007.png: pixels of objects 2, but .* lists 1 for"):
        open_masks(tmp_path).read("000007", SIZE)
    (tmp_path / "detections.json").write_text('{"000007": []}')
    with pytest.raises(InputError, match="lists no object at all"):
        open_masks(tmp_path)
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"one JSON file beside the masks at most, got detections.json, more"
    ):
        open_masks(tmp_path)
    (tmp_path / "more.json").unlink()
    (tmp_path / "detections.json").write_text("[]")
    with pytest.raises(InputError, match=r"expected \{image"):
        open_masks(tmp_path)
    (tmp_path / "detections.json").unlink()
    (tmp_path / "000007.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"000007.png: not a readable image"):
        open_masks(tmp_path).read("000007", SIZE)
    Image.new("L", (30, 30), 1).save(tmp_path / "000007.png")
    with pytest.raises(InputError, match=r"000007.png: the masks are 30 x 30, but the image is 60 x 40"):
        open_masks(tmp_path).read("000007", SIZE)


def test_masks_of_kitti_made_without_labels_are_read_as_they_are(shared: Path) -> None:
    folder = shared / "kitti" / "masks"
    source = open_masks(folder)
    assert len(source.names) == 997
    table = json.loads((folder / "detections.json").read_text())
    for name in source.names[::200]:
        with Image.open(folder / f"{name}.png") as image:
            found = source.read(name, image.size)
        listed = {str(row["id"]): row for row in table[name]}
        assert len(found) + len(found.dropped) == len(listed)
        assert all(listed[d]["mask"] == "none" for d, _ in found.dropped)
        for k, number in enumerate(found.ids):
            assert found.scores[k] == pytest.approx(listed[number]["score"])
            assert found.boxes2d[k].tolist() == pytest.approx(listed[number]["box"])
            x1, y1, x2, y2 = found.boxes2d[k]
            fill = float(found.pixels[k] / ((x2 - x1) * (y2 - y1)))
            assert fill == pytest.approx(listed[number]["fill"], abs=0.1)
