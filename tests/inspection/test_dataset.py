"""`monolift inspect` on data sets with known faults."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate_corpora import label, write
from monolift.cli import main
from monolift.data.formats.kitti_format import KittiCalib, parse_labels, write_calib
from monolift.errors import InputError
from monolift.inspection.dataset import inspect
from monolift.inspection.oddities import project_box
from monolift.inspection.sample_images import draw_labels

P2 = np.array([[700.0, 0, 600, 45], [0, 700, 180, 0.2], [0, 0, 1, 0.003]])
SIZE = (1200, 360)


def projected(x: float, z: float, yaw: float = 0.3, name: str = "Car", occluded: int = 0) -> str:
    """A label whose 2D box is its projected 3D box."""
    words = label(name, x=x, z=z, yaw=yaw, occluded=occluded).split()
    words[3] = f"{yaw - math.atan2(x, z):.6f}"
    bottom, size = np.array([[x, 1.65, z]]), np.array([[1.5, 1.6, 4.0]])
    edges = project_box(P2[None], bottom, size, np.array([yaw]))[0]
    low, high = np.nanmin(edges, axis=(0, 1)), np.nanmax(edges, axis=(0, 1))
    box = [*np.clip(low, 0, None), *np.minimum(high, np.subtract(SIZE, 1))]
    words[4:8] = [f"{v:.2f}" for v in box]
    return " ".join(words)


def data_set(root: Path, images: list[list[str]]) -> Path:
    write(root / "label_2", images)
    for folder in ("calib", "image_2"):
        (root / folder).mkdir()
    for i in range(len(images)):
        write_calib(root / "calib" / f"{i:06d}.txt", KittiCalib({"P2": P2}))
        Image.new("RGB", SIZE, "gray").save(root / "image_2" / f"{i:06d}.png")
    return root


def test_a_sound_set_has_counts_statistics_and_no_findings(tmp_path: Path) -> None:
    rows = [
        [projected(-3, 15), projected(4, 25, yaw=-1.2), projected(0, 30, occluded=2)],
        [],
        [projected(2, 20, name="Van")],
    ]
    found = inspect(data_set(tmp_path / "training", rows).parent)
    assert found.errors == [] and found.odd == {}
    assert found.files == {"labels": 3, "calibs": 3, "images": 3} and found.empty == 1
    car = found.classes["Car"]
    assert car.count == 3
    assert car.by_level == {"easy": 2, "moderate": 0, "hard": 1, "beyond": 0}
    assert car.depth == (pytest.approx(70 / 3), pytest.approx(np.std([15, 25, 30])))
    assert np.ravel(car.size_lhw) == pytest.approx([4, 0, 1.5, 0, 1.6, 0])
    (group,) = found.calibs
    assert (group.images, group.focal, group.centre, group.image_size) == (3, 700, (600, 180), SIZE)
    assert group.translation == (45, 0.2, 0.003)


def test_every_fault_is_listed_with_its_place(tmp_path: Path) -> None:
    good = projected(0, 20)
    root = data_set(
        tmp_path / "set",
        [
            [good, good],  # the second repeats the first
            [label(z=-5.0, x=3.0)],  # behind the camera
            [good.replace("Car 0.00 0", "Car 0.00 7")],
            [projected(-8, 12).replace(" 12.00 ", " 40.00 ")],  # the 3D box is far from its 2D box
            [good.replace(" 1.50 1.60", " 0.00 1.60")],
            [good, "Car 1 2 3", good.replace(" 20.00 ", " nan ")],
            [good],
            [good],
        ],
    )
    (root / "calib" / "000006.txt").write_text("P0: 1 2 3\n")
    (root / "image_2" / "000006.png").write_bytes(b"")
    (root / "calib" / "000007.txt").unlink()
    found = inspect(root)
    assert sorted(found.errors) == [
        "calib/000006.txt:1: P0: expected 12 numbers, got 3",
        "calib/000007.txt: missing",
        *[e for e in found.errors if e.startswith("image_2/000006.png: not a readable image: empty file")],
        "label_2/000005.txt:2: expected 15 fields (or 16 with a score), got 4",
        "label_2/000005.txt:3: z: expected a finite number, got 'nan'",
    ]
    assert len(found.errors) == 5
    places = {kind: [place.split()[0] for place in listed] for kind, listed in found.odd.items()}

    def listed(words: str) -> list[str]:
        return next(v for k, v in places.items() if k.startswith(words))

    assert listed("duplicates") == ["label_2/000000.txt:2"]
    assert listed("objects behind the camera") == ["label_2/000001.txt:1"]
    assert listed("occlusions other than") == ["label_2/000002.txt:1"]
    assert listed("3D boxes whose projection misses") == ["label_2/000003.txt:1"]
    assert listed("objects with a size of 0") == ["label_2/000004.txt:1"]
    assert listed("objects whose alpha") == ["label_2/000003.txt:1"]
    text = str(found)
    assert "ERRORS, to be fixed before training: 5" in text
    assert json.loads(found.to_json())["errors"] == found.errors


def test_projection_cuts_boxes_at_the_camera() -> None:
    """A car half behind the camera: what is in front of it projects to the side it stands on, not mirrored."""
    box = project_box(
        P2[None], np.array([[2.0, 1.65, 0.0]]), np.array([[1.5, 1.6, 4.0]]), np.array([-math.pi / 2])
    )
    assert np.nanmin(box[..., 0]) > P2[0, 2]
    behind = project_box(
        P2[None], np.array([[2.0, 1.65, -9.0]]), np.array([[1.5, 1.6, 4.0]]), np.array([0.0])
    )
    assert np.isnan(behind).all()


def test_projection_by_hand() -> None:
    camera = np.array([[[100.0, 0, 50, 0], [0, 100, 40, 0], [0, 0, 1, 0]]])
    edges = project_box(camera, np.array([[0.0, 1.0, 10.0]]), np.array([[2.0, 2.0, 4.0]]), np.array([0.0]))
    # nearest face at z = 9: x from -2 to 2, y from -1 to 1
    assert edges[..., 0].min() == pytest.approx(50 - 200 / 9) and edges[..., 0].max() == pytest.approx(
        50 + 200 / 9
    )
    assert edges[..., 1].min() == pytest.approx(40 - 100 / 9) and edges[..., 1].max() == pytest.approx(
        40 + 100 / 9
    )


def test_the_command_draws_samples_and_fails_on_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_set(tmp_path / "set", [[projected(0, 20)], [projected(3, 12)]])
    out = tmp_path / "images"
    assert (
        main(["inspect", str(root), "--plots", str(out), "--json", str(tmp_path / "i.json"), "--decode"]) == 0
    )
    assert "No errors" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["000000.png", "000001.png"]
    (root / "label_2" / "000001.txt").write_text("Car 0\n")
    assert main(["inspect", str(root), "--quiet"]) == 1
    assert main(["inspect", str(tmp_path)]) == 2
    with pytest.raises(InputError, match="expected a KITTI folder with label_2"):
        inspect(tmp_path)


def test_images_show_the_box_where_it_projects() -> None:
    image = draw_labels(Image.new("RGB", SIZE), parse_labels(projected(0, 20)), P2)
    pixels = np.asarray(image)[:, : SIZE[0]].max(axis=2) > 0
    columns, rows = np.flatnonzero(pixels.any(axis=0)), np.flatnonzero(pixels.any(axis=1))
    left, top, right, bottom = map(float, projected(0, 20).split()[4:8])
    np.testing.assert_allclose(
        [columns[0], columns[-1], rows[0], rows[-1]], [left, right, top, bottom], atol=2
    )
    assert (np.asarray(image)[:, SIZE[0] :] == (47, 155, 255)).all(axis=2).any()  # the car from above


def test_the_shared_images_are_sound(shared: Path) -> None:
    if not (shared / "kitti" / "training").is_dir():
        pytest.skip("no KITTI images in the folder of real data")
    found = inspect(shared / "kitti", shared / "kitti" / "ImageSets" / "val.txt")
    assert found.errors == []
    assert 3.5 < found.classes["Car"].size_lhw[0][0] < 4.2
    assert sum(group.images for group in found.calibs) == 558
