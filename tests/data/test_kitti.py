"""KITTI folders as samples and detections as KITTI's rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.formats.kitti_format import format_labels, parse_labels
from monolift.data.kitti import KittiDataset, labels_from_detections, read_image, sample_from_labels
from monolift.data.sample import EASY, HARD, MODERATE, OUTSIDE, Detections, Sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera

LABELS = """\
Truck 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56
Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57
Cyclist 0.00 3 -1.65 676.60 163.95 688.98 193.93 1.86 0.60 2.02 4.59 1.32 45.84 -1.55
DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10
"""
CALIB = """\
P0: 7.2e+02 0 6.0e+02 0 0 7.2e+02 1.7e+02 0 0 0 1 0
P2: 7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.72854e+02 2.163791e-01 0 0 1 2.745884e-03
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of two images; the second has no objects."""
    for folder in ("image_2", "label_2", "calib"):
        (tmp_path / "training" / folder).mkdir(parents=True)
    for name, text in (("000001", LABELS), ("000002", "")):
        (tmp_path / "training" / "label_2" / f"{name}.txt").write_text(text)
        (tmp_path / "training" / "calib" / f"{name}.txt").write_text(CALIB)
        pixels = np.random.default_rng(int(name)).integers(0, 256, (375, 1242, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "training" / "image_2" / f"{name}.png", compress_level=1)
    return tmp_path


def test_a_sample_holds_the_file_in_our_conventions(root: Path) -> None:
    data = KittiDataset(root)
    assert data.ids == ("000001", "000002")
    sample = data[0]
    assert (sample.name, sample.size, sample.classes) == ("000001", (1242, 375), ("Truck", "Car", "Cyclist"))
    assert sample.image.dtype == torch.uint8
    # Car: h w l = 1.67 1.87 3.69, bottom at y = 2.39: centre 2.39 - 0.835
    assert sample.boxes.center[1].tolist() == pytest.approx([-16.53, 1.555, 58.49], abs=1e-5)
    assert sample.boxes.size[1].tolist() == pytest.approx([3.69, 1.67, 1.87])
    assert sample.boxes.yaw[1].item() == pytest.approx(1.57)
    assert sample.boxes.bottom[1].tolist() == pytest.approx([-16.53, 2.39, 58.49], abs=1e-5)
    assert sample.occlusion.tolist() == [0, 0, 3]
    assert sample.ignore.tolist() == [pytest.approx([503.89, 169.71, 590.61, 190.13])]
    assert sample.camera.tx.item() == pytest.approx((44.85728 - 609.5593 * 2.745884e-3) / 721.5377)
    assert (sample.camera.width, sample.camera.height) == (1242, 375)
    # RGB as in the file
    pixels = np.random.default_rng(1).integers(0, 256, (375, 1242, 3), np.uint8)
    assert torch.equal(sample.image, torch.from_numpy(pixels).permute(2, 0, 1))
    empty = data[1]
    assert len(empty) == 0
    assert empty.boxes2d.shape == empty.ignore.shape == (0, 4)


def test_labels_alone_are_the_sample_without_its_pixels(root: Path) -> None:
    data = KittiDataset(root / "training")
    full, light = data[0], data.labels(0)
    assert light.size == full.size
    assert torch.equal(light.boxes.center, full.boxes.center)
    assert light.image.max() == 0


def write_maps(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a slope and instances of three bars for the first image, and nothing for the second."""
    depth = np.tile(np.arange(1242, dtype=np.uint16) * 16, (375, 1))
    rows = np.zeros((375, 1242), np.uint16)
    for row, column in ((1, 600), (2, 400), (3, 680), (4, 500)):
        rows[150:200, column : column + 20] = row
    for folder, array in (("depth_2", depth), ("instance_2", rows)):
        (root / "training" / folder).mkdir()
        Image.fromarray(array).save(root / "training" / folder / "000001.png")
    return depth, rows


def test_depth_and_instances_are_read_when_asked_for(root: Path) -> None:
    with pytest.raises(InputError, match="depth_2: no such folder"):
        KittiDataset(root, depth=True)
    depth, rows = write_maps(root)
    # The order of the rows with the DontCare second: object numbers skip it.
    lines = LABELS.splitlines(keepends=True)
    (root / "training/label_2/000001.txt").write_text("".join([lines[0], lines[3], lines[1], lines[2]]))
    first, second = KittiDataset(root, depth=True, instances=True)
    assert first.depth is not None
    assert first.instances is not None
    assert torch.equal(first.depth, torch.from_numpy(depth.astype(np.float32)) / 256)
    for row, number in enumerate((0, 1, 0, 2, 3)):
        assert (first.instances[torch.from_numpy(rows.astype(int)) == row] == number).all()
    assert second.depth is None
    assert second.instances is None
    plain = KittiDataset(root)[0]
    assert plain.depth is None
    assert plain.instances is None
    elsewhere = KittiDataset(root, ["000001"], depth=root / "training/depth_2")[0]
    assert torch.equal(elsewhere.depth, first.depth)


def test_maps_that_do_not_fit_are_named(root: Path) -> None:
    write_maps(root)
    depth, instances = (root / "training" / f / "000001.png" for f in ("depth_2", "instance_2"))
    Image.fromarray(np.full((375, 1242), 5, np.uint16)).save(instances)
    with pytest.raises(
        InputError, match=r"instance_2/000001.png: has object 5, but the label file only 4 rows"
    ):
        KittiDataset(root, instances=True)[0]
    for content, message in (
        (Image.new("I;16", (1242, 370)), "is 1242 x 370, but its image is 1242 x 375"),
        (Image.new("L", (1242, 375)), "expected one 16-bit number per pixel, got an image of mode L"),
        (Image.new("RGB", (1242, 375)), "mode RGB"),
    ):
        content.save(depth)
        with pytest.raises(InputError, match=f"depth_2/000001.png: .*{message}"):
            KittiDataset(root, depth=True)[0]
    depth.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"depth_2/000001.png: not a readable image"):
        KittiDataset(root, depth=True)[0]


def test_difficulty_is_the_easiest_level_whose_limits_are_met() -> None:
    """Heights must exceed 40 and 25; occlusion and truncation may equal their limits."""
    cases = [
        (40.1, 0, 0.15, EASY), (40.0, 0, 0.15, MODERATE), (41.0, 1, 0.0, MODERATE), (41.0, 0, 0.16, MODERATE),
        (26.0, 2, 0.5, HARD), (26.0, 1, 0.31, HARD), (25.0, 0, 0.0, OUTSIDE), (90.0, 3, 0.0, OUTSIDE), (90.0, 0, 0.51, OUTSIDE),
    ]  # fmt: skip
    n = len(cases)
    sample = Sample(
        "x",
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        Camera(1, 1, 0, 0),
        Boxes3D(torch.zeros(n, 3), torch.ones(n, 3), torch.zeros(n)),
        ("Car",) * n,
        torch.tensor([[0, 0, 10, height] for height, *_ in cases]),
        torch.tensor([t for _, _, t, _ in cases]),
        torch.tensor([o for _, o, _, _ in cases]),
    )
    assert sample.difficulty.tolist() == [level for *_, level in cases]
    hard = sample.keep(sample.difficulty == HARD)
    assert hard.occlusion.tolist() == [2, 1]
    with pytest.raises(ValueError, match="Sample x: 9 boxes"):
        Sample("x", sample.image, sample.camera, sample.boxes)


def test_detections_written_and_read_are_the_same_boxes() -> None:
    generator = torch.Generator().manual_seed(1)
    n = 30
    center = torch.rand(n, 3, generator=generator) * torch.tensor([40.0, 2, 60]) + torch.tensor([-20.0, 0, 2])
    boxes = Boxes3D(
        center, torch.rand(n, 3, generator=generator) * 3 + 0.5, torch.rand(n, generator=generator) * 6 - 3
    )
    corner = torch.rand(n, 2, generator=generator) * 200
    found = Detections(
        boxes, torch.linspace(0.99, 0.05, n), torch.arange(n) % 2, torch.cat([corner, corner + 50], 1)
    )
    text = format_labels(labels_from_detections(found, ("Car", "Pedestrian")))
    rows = parse_labels(text, scored=True)
    back = sample_from_labels("x", torch.zeros(3, 4, 4, dtype=torch.uint8), Camera(1, 1, 0, 0), rows)
    assert back.classes == ("Car", "Pedestrian") * 15
    assert torch.allclose(back.boxes.center, boxes.center, atol=1e-5)
    assert torch.allclose(back.boxes.size, boxes.size, atol=1e-6)
    assert torch.allclose(back.boxes.yaw, boxes.yaw, atol=1e-6)
    assert torch.allclose(back.boxes2d, found.boxes2d)
    assert rows.score is not None
    assert rows.score.tolist() == pytest.approx(found.scores.tolist())
    rays = [math.atan2(float(x), float(z)) for x, _, z in center]
    alpha = [math.remainder(float(y) - ray, 2 * math.pi) for ray, y in zip(rays, boxes.yaw, strict=True)]
    assert rows.alpha.tolist() == pytest.approx(alpha, abs=1e-5)
    none = labels_from_detections(found[found.scores > 2], ("Car",))
    assert format_labels(none) == ""


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_kind_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (8, 6), (200, 200, 200)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 6, 8)
    assert image.float().mean() == pytest.approx(200, abs=4)


def test_every_fault_names_its_file(root: Path) -> None:
    training = root / "training"

    def message() -> str:
        with pytest.raises(InputError) as caught:
            KittiDataset(root)[0]
        return str(caught.value)

    label, calib, image = (
        training / p for p in ("label_2/000001.txt", "calib/000001.txt", "image_2/000001.png")
    )
    label.write_text(LABELS.replace("3.69 -16.53", "-16.53"))
    assert "label_2/000001.txt:2: expected 15 fields (or 16 with a score), got 14" in message()
    label.write_text(LABELS)
    calib.write_text(CALIB.replace("7.215377e+02 0 6.095593e+02", "nan 0 6.095593e+02"))
    assert "calib/000001.txt:2" in message()
    calib.write_text(CALIB.replace("7.215377e+02 0 6.095593e+02", "7.215377e+02 0.3 6.095593e+02"))
    assert "calib/000001.txt" in message()
    assert "no skew" in message()
    calib.unlink()
    assert "000001.txt" in message()
    calib.write_text(CALIB)
    whole = image.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no image at all"):
        image.write_bytes(content)
        assert "000001.png" in message()
    image.unlink()
    assert "000001" in message()


def test_folders_that_are_no_data_set_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a KITTI folder"):
        KittiDataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no image"):
        KittiDataset(root, ["000001", "004711"])[1]
    (root / "empty" / "label_2").mkdir(parents=True)
    with pytest.raises(InputError, match="image_2, calib missing"):
        KittiDataset(root / "empty")
    (root / "empty" / "image_2").mkdir()
    (root / "empty" / "calib").mkdir()
    with pytest.raises(InputError, match="nothing to read"):
        KittiDataset(root / "empty")


def test_a_split_chooses_and_orders(root: Path) -> None:
    split = root / "val.txt"
    split.write_text("000002\n000001\n")
    assert KittiDataset(root, split).ids == ("000002", "000001")
    assert [s.name for s in KittiDataset(root, ["000002"])] == ["000002"]
