"""Pasted cars: what is drawn is what is labelled, and nothing else of the sample changes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from monolift.augment.augment import Augmenter
from monolift.augment.augmentation import Augmentation
from monolift.augment.cutouts import Cutout, CutoutLimits, cut_out
from monolift.augment.paste import PasteOptions, ground_height, paste
from monolift.augment.pasted_files import PastedSet, write_pasted
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera, iou_2d, wrap, yaw_from_alpha
from monolift.geometry.boxes import CORNER_SIGNS
from monolift.methods.smoke import SmokeConfig
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.shapes.projective_texture import placed
from monolift.training.data import Views
from toy_kitti import toy_camera, write_toy

CAMERA = toy_camera(1242, 375)
RED = (0.9, 0.1, 0.1)


def box_mesh(size: torch.Tensor, colour: tuple[float, float, float]) -> Mesh:
    """A closed box of one colour."""
    vertices = torch.tensor(CORNER_SIGNS, dtype=torch.float32) * size / 2
    quads = ((0, 1, 2, 3), (7, 6, 5, 4), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0))
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    corners = vertices[faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normal * corners.mean(1)).sum(1) < 0
    faces = torch.where(inward[:, None], faces.flip(1), faces)
    return Mesh(
        vertices, faces, torch.full((12, 3, 2), 0.5), torch.tensor(colour).view(3, 1, 1).expand(3, 40, 80)
    )


def bank() -> list[Cutout]:
    """Red boxes of two sizes, seen from behind and from the side, brightness as in ``street``."""
    sizes = torch.tensor([[3.9, 1.5, 1.6], [4.4, 1.7, 1.8]])
    return [
        Cutout(box_mesh(size, RED), size, alpha, 1.65, 60.0, 100 / 255, "Car", f"from{k}")
        for k, (size, alpha) in enumerate(zip(sizes, (-1.6, 0.1), strict=True))
    ]


def street(objects: int = 2) -> Sample:
    """A grey image with level ground at 1.65 m and a few labelled objects."""
    rows = torch.tensor([[-4.0, 0.9, 18, 3.9, 1.5, 1.6, 1.5], [3.0, 0.8, 25, 4.0, 1.7, 1.7, -1.6]])[:objects]
    boxes = Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6])
    return Sample(
        "000001",
        torch.full((3, 375, 1242), 100, dtype=torch.uint8),
        CAMERA,
        boxes,
        ("Car", "Van")[:objects],
        boxes.projected(CAMERA),
        torch.zeros(objects),
        torch.zeros(objects, dtype=torch.long),
        torch.tensor([[500.0, 170, 560, 190]]),
    )


def ground_depth() -> torch.Tensor:
    """Depth of a level ground at 1.65 m, nothing above the horizon."""
    rows = torch.arange(375.0)[:, None].expand(375, 1242)
    fall = (rows - float(CAMERA.cy)) / float(CAMERA.fy)
    return torch.where(fall > 0.01, 1.65 / fall.clamp_min(0.01), 0.0)


def is_red(image: torch.Tensor) -> torch.Tensor:
    return (image[0] > 150) & (image[1] < 60)


def test_what_is_drawn_is_what_is_labelled() -> None:
    source, seen = street(), 0
    for seed in range(12):
        out = paste(source, np.random.default_rng(seed), bank())
        n = len(source)
        assert torch.equal(out.boxes.center[:n], source.boxes.center)
        assert torch.equal(out.boxes2d[:n], source.boxes2d)
        red = is_red(out.image)
        for k in range(n, len(out)):
            x1, y1, x2, y2 = out.boxes2d[k].tolist()
            inside = red[int(y1) : int(y2) + 2, int(x1) : int(x2) + 2]
            rows, columns = (inside.any(axis).nonzero().squeeze(1) for axis in (1, 0))
            drawn = [
                int(x1) + int(columns[0]),
                int(y1) + int(rows[0]),
                int(x1) + int(columns[-1]),
                int(y1) + int(rows[-1]),
            ]
            assert drawn == pytest.approx([x1, y1, x2, y2], abs=1.2)
            red[int(y1) : int(y2) + 2, int(x1) : int(x2) + 2] = False
            seen += 1
            # the label's 3D box is the one that was drawn: its projection is the drawn rectangle
            if out.truncation[k] == 0:
                assert torch.allclose(out.boxes[k].projected(CAMERA)[0], out.boxes2d[k], atol=0.01)
            assert float(out.boxes.bottom[k, 1]) == pytest.approx(1.65, abs=0.1)
            assert float(
                wrap(out.boxes.alpha[k] - (-1.6 if out.boxes.size[k, 0] < 4 else 0.1)).abs()
            ) <= math.radians(10.01)
        assert not red.any()  # nothing was drawn that is not labelled
        assert 0 <= len(out) - n <= 3
    assert seen > 12


def test_no_pasted_box_touches_another_or_an_unlabelled_region() -> None:
    source = street()
    for seed in range(12):
        out = paste(source, np.random.default_rng(seed), bank())
        new = out.boxes2d[len(source) :]
        assert (iou_2d(new, torch.cat([source.boxes2d, source.ignore])) == 0).all()
        assert (iou_2d(new, new) - torch.eye(len(new)) <= 1e-6).all()
        for x1, y1, x2, y2 in source.boxes2d.round().int().tolist():
            assert (out.image[:, y1 : y2 + 1, x1 : x2 + 1] == 100).all()  # no shadow on them either


def test_a_shadow_lies_under_the_car_and_the_rest_of_the_image_stays() -> None:
    source = street(0)
    out = paste(source, np.random.default_rng(3), bank(), PasteOptions(up_to=1, near=9, far=12, side=3))
    assert len(out) == 1
    x1, y1, x2, y2 = (round(v) for v in out.boxes2d[0].tolist())
    dark = out.image[0] < 95
    below = dark[y2 + 1 : y2 + 6, x1:x2]
    assert below.float().mean() > 0.5
    far = torch.ones_like(dark)
    far[y1 - 5 : y2 + 40, x1 - 40 : x2 + 40] = False
    assert (out.image[:, far] == 100).all()


def test_depth_and_instances_hold_the_pasted_cars() -> None:
    depth = ground_depth()
    source = replace(street(0), depth=depth, instances=torch.zeros(375, 1242, dtype=torch.long))
    out = paste(source, np.random.default_rng(5), bank())
    assert len(out) > 0
    assert out.depth is not None
    assert out.instances is not None
    red, own = is_red(out.image), out.instances > 0
    assert (red ^ own).sum() < 0.03 * own.sum()  # edges mix with the background
    for k in range(len(out)):
        own = out.instances == k + 1
        z, length = out.boxes.center[k, 2], out.boxes.size[k].norm() / 2
        assert own.sum() > 100
        assert ((out.depth[own] > z - length) & (out.depth[own] < z + length)).all()
    rest = out.instances == 0
    assert torch.equal(out.depth[rest], depth[rest])


def test_nearer_things_stay_in_front() -> None:
    """A fence of posts at 4 m before everything, every second pair of columns."""
    depth = ground_depth()
    posts = (torch.arange(1242) // 2 % 2 == 0).expand(375, -1)
    depth = torch.where(posts, 4.0, depth)
    source = replace(street(0), depth=depth, instances=torch.zeros(375, 1242, dtype=torch.long))
    far = PasteOptions(near=9.0)
    pasted = [paste(source, np.random.default_rng(seed), bank(), far) for seed in range(6)]
    assert sum(map(len, pasted)) > 3
    for out in pasted:
        assert torch.equal(out.image[:, posts], source.image[:, posts])
        assert out.depth is not None
        assert torch.equal(out.depth[posts], depth[posts])
        assert (out.occlusion == 1).all()  # half of each is hidden: partly
    wall = replace(source, depth=torch.full((375, 1242), 4.0))
    for seed in range(6):
        hidden = paste(wall, np.random.default_rng(seed), bank())
        assert len(hidden) == 0
        assert torch.equal(hidden.image, source.image)


def test_a_car_farther_along_its_ray_with_the_same_allocentric_angle_looks_the_same() -> None:
    """At twice the distance the mask is half as large and otherwise the same: IoU after scaling above 0.95."""
    size = torch.tensor([3.9, 1.5, 1.6])
    mesh, camera = box_mesh(size, RED), Camera(1400, 1400, 400, 200, width=801, height=401)
    near, alpha = torch.tensor([2.0, 0.9, 12.0]), torch.tensor([-0.7])
    masks = []
    for times in (1, 2):
        center = near * times
        yaw = yaw_from_alpha(alpha, center[None])[0]
        view = camera.after_scale(0.5) if times == 1 else camera
        masks.append(
            render(
                placed(mesh, center, yaw), Camera.stack([replace(view, width=801, height=401)])
            ).silhouette[0]
        )
    a, b = masks[0] > 0.5, masks[1] > 0.5
    middle = [m.nonzero().double().mean(0).round().long() for m in (a, b)]
    b = b.roll(tuple((middle[0] - middle[1]).tolist()), (0, 1))
    assert a.sum() > 2000
    assert (a & b).sum() / (a | b).sum() > 0.95


def test_the_ground_follows_the_labels_where_there_are_some() -> None:
    assert ground_height(street(0), 30.0, 1.5) == 1.5
    rows = torch.tensor(
        [[x, 1.0 + 0.02 * z, z, 4, 1.5, 1.6, 0] for x, z in ((-3, 12.0), (2, 25), (5, 33), (0, 45))]
    )
    sloped = replace(
        street(0), boxes=Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6]), classes=("Car",) * 4,
        boxes2d=torch.zeros(4, 4), truncation=torch.zeros(4), occlusion=torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    assert ground_height(sloped, 30.0, 1.65) == pytest.approx(1.75 + 0.02 * 30, abs=0.05)


def test_chance_is_the_generators_alone_and_the_bank_is_used() -> None:
    source = street()
    a, b, c = (paste(source, np.random.default_rng(s), bank()) for s in (1, 1, 2))
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.boxes.center, b.boxes.center)
    assert not torch.equal(a.image, c.image)
    assert (source.image == 100).all()  # the source is not written to


# -- cutting out ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy"), [f"{k:06d}" for k in range(4)], cars=2)


@pytest.fixture(scope="module")
def toy_bank(toy: Path) -> list[Cutout]:
    return cut_out([KittiDataset(toy)], limits=CutoutLimits(most=5))


def test_cutouts_carry_their_labels_and_colours(toy: Path, toy_bank: list[Cutout]) -> None:
    data = KittiDataset(toy)
    assert len(toy_bank) == 5
    for cutout in toy_bank:
        sample = data[data.ids.index(cutout.source)]
        match = (sample.boxes.alpha - cutout.alpha).abs().argmin()
        assert torch.equal(cutout.size, sample.boxes.size[match])
        assert cutout.bottom == pytest.approx(float(sample.boxes.bottom[match, 1]))
        assert torch.allclose(cutout.mesh.vertices.amax(0), cutout.size / 2, atol=1e-4)
        x, y = sample.camera.px_from_cam(sample.boxes.center[match]).round().long().tolist()
        colour = sample.image[:, y, x].float() / 255
        texels = cutout.mesh.texture.flatten(1).T
        assert (texels - colour).abs().amax(1).min() < 0.02  # the colour of its middle is somewhere on it


def test_masks_choose_what_is_cut_out(toy: Path, tmp_path: Path) -> None:
    """A mask of another shape than any car's, or none in an image that has a mask file, gives no cutout."""
    for name in KittiDataset(toy).ids:
        empty = np.zeros((375, 1242), np.uint8)
        empty[100:104] = 7
        write_numbers(tmp_path / f"{name}.png", empty)
    with pytest.raises(InputError, match="can be cut out of 4 images"):
        cut_out([KittiDataset(toy)], tmp_path)
    write_numbers(tmp_path / "000000.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=r"000000.png: is \(10, 10\)"):
        cut_out([KittiDataset(toy, ["000000"])], tmp_path)


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(numbers).save(path)


# -- files and training -----------------------------------------------------------------------------------------------


def test_an_augmented_set_reads_as_it_was_pasted_and_goes_on_where_it_stopped(
    toy: Path, toy_bank: list[Cutout], tmp_path: Path
) -> None:
    data = KittiDataset(toy, ["000000", "000001"])
    made_from = PastedSet("toy", "", seed=4, copies=2)
    counts = list(write_pasted(tmp_path / "out", data, toy_bank, made_from))
    assert len(counts) == 4
    new = KittiDataset(tmp_path / "out")
    assert new.ids == ("000000_0", "000000_1", "000001_0", "000001_1")
    for k, count in enumerate(counts):
        source, sample = data[k // 2], new[k]
        assert len(sample) == len(source) + count
        expected = paste(source, np.random.default_rng((4, k // 2, k % 2)), toy_bank)
        assert torch.allclose(sample.boxes.center, expected.boxes.center, atol=0.006)
        assert torch.allclose(sample.boxes2d, expected.boxes2d, atol=0.006)
        assert torch.equal(sample.image, expected.image)
        text = (toy / f"training/label_2/{source.name}.txt").read_text()
        assert (tmp_path / f"out/training/label_2/{sample.name}.txt").read_text().startswith(text)
    label = tmp_path / "out/training/label_2/000001_0.txt"
    before, first = label.read_bytes(), (tmp_path / "out/training/image_2/000000_0.png").stat().st_mtime_ns
    label.unlink()
    assert list(write_pasted(tmp_path / "out", data, toy_bank, made_from)) == [-1, -1, -1, counts[2]]
    assert label.read_bytes() == before
    assert (tmp_path / "out/training/image_2/000000_0.png").stat().st_mtime_ns == first
    with pytest.raises(InputError, match="holds another augmented set"):
        list(write_pasted(tmp_path / "out", data, toy_bank, replace(made_from, seed=5)))
    with pytest.raises(InputError, match="not empty"):
        list(write_pasted(toy, data, toy_bank, made_from))


def test_training_pastes_with_the_probability_of_the_recipe(toy: Path, toy_bank: list[Cutout]) -> None:
    data = KittiDataset(toy)
    config = SmokeConfig(input_width=640, input_height=192)
    plain = Augmentation(mirror=0, recolor=0, scale=(1, 1), shift=0)
    kinds = {
        p: Views([data], config, Augmenter.of(replace(plain, paste=p), toy_bank), len, seed=0)
        for p in (0.0, 1.0)
    }
    for k in range(4):
        source = data[k]
        assert len(kinds[0.0].view(0, k)[0]) == len(source)
        sample, _ = kinds[1.0].view(0, k)
        again, _ = kinds[1.0].view(0, k)
        assert torch.equal(sample.boxes.center, again.boxes.center)
        assert sample.image.shape == (3, 192, 640)
    assert sum(len(kinds[1.0].view(e, k)[0]) - len(data[k]) for e in range(2) for k in range(4)) >= 4
