"""The page's data: what is in it is what was given, and nothing in it can do harm."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.geometry import Boxes3D, Camera
from monolift.viewer import Scene, scene_html
from monolift.viewer.encode import MOST_POINTS, encode_scene
from viewer_scenes import toy_scene, toy_world


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return toy_scene(toy_world(tmp_path, 1))


def data_of(page: str, attribute: str) -> Any:
    match = re.search(rf'<script type="application/json" {attribute}>(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def test_the_bundle_is_built_from_the_sources_beside_it() -> None:
    folder = resources.files("monolift.viewer")
    sources = sorted(
        (p for p in folder.joinpath("web").iterdir() if p.name.endswith(".js")), key=lambda p: p.name
    )
    checksum = hashlib.sha256("".join(p.read_text("utf-8") for p in sources).encode()).hexdigest()
    bundle = folder.joinpath("built/viewer.js").read_text("utf-8")
    assert bundle.startswith(f"/* sources {checksum};"), "run `npm install && npm run build` in viewer/web"
    assert "The MIT License" in bundle[:2000] and "three.js authors" in bundle[:2000]
    assert "</script" not in bundle


def test_the_page_is_small_and_names_no_address(scene: Scene) -> None:
    page = scene_html([Scene("empty")])
    assert len(page.encode()) < 1_000_000
    assert "connect-src 'none'" in page and "default-src 'none'" in page
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_objects_come_through_in_the_camera_frame(scene: Scene) -> None:
    frame = data_of(scene_html([scene]), 'data-frame="0"')
    for entry, box, label in zip(
        frame["objects"], range(3), data_of(scene_html([scene]), 'data-frame="0"')["labels"], strict=True
    ):
        assert entry["center"] == pytest.approx(scene.objects.boxes.center[box].tolist(), abs=1e-4)
        assert entry["size"] == pytest.approx(scene.objects.boxes.size[box].tolist(), abs=1e-4)
        assert entry["yaw"] == pytest.approx(float(scene.objects.boxes.yaw[box]), abs=1e-4)
        assert entry["match"]["label"] == box
        assert entry["match"]["apart"] == pytest.approx(0.4472, abs=1e-3)  # (0.2, 0, 0.4)
        assert entry["match"]["turned"] == pytest.approx(0.1, abs=1e-4)
        assert label["score"] is None
    assert frame["width"] == 621 and frame["height"] == 188
    bottoms = torch.cat([scene.objects.boxes.bottom[:, 1], scene.labels.boxes.bottom[:, 1]])
    assert float(bottoms.min()) <= frame["ground"] <= float(bottoms.max())


def test_uncertainty_is_one_deviation_and_an_ellipsoid_of_that_covariance() -> None:
    root = torch.randn(7, 7, dtype=torch.float64) * 0.3
    covariance = (root @ root.T).float()
    boxes = Boxes3D(torch.tensor([[1.0, 1.0, 20.0]]), torch.tensor([[4.0, 1.5, 1.6]]), torch.tensor([0.3]))
    objects = Objects.named(boxes, ("Car",), scores=torch.tensor([0.5]), covariance=covariance[None])
    sigma = encode_scene(Scene("a", objects=objects))["objects"][0]["sigma"]
    assert sigma["size"][0] == pytest.approx(float(covariance[3, 3].sqrt()) * 4.0, abs=1e-3)
    assert sigma["yaw"] == pytest.approx(float(covariance[6, 6].sqrt()), abs=1e-3)
    matrix = np.array(sigma["ellipsoid"]).reshape(3, 3)
    np.testing.assert_allclose(matrix @ matrix.T, covariance[:3, :3].numpy(), atol=1e-3)


def test_a_label_far_away_or_missing_is_no_match() -> None:
    boxes = Boxes3D(torch.tensor([[0.0, 1, 20], [9, 1, 30]]), torch.ones(2, 3), torch.zeros(2))
    labels = Objects.named(boxes[:1], ("Car",))
    objects = Objects.named(boxes, ("Car", "Car"), scores=torch.tensor([0.9, 0.8]))
    rows = encode_scene(Scene("a", objects=objects, labels=labels))["objects"]
    assert rows[0]["match"]["iou"] == 1 and rows[1]["match"] is None
    assert encode_scene(Scene("a", objects=objects))["objects"][0]["match"] is None


def test_points_come_back_within_half_a_step(scene: Scene) -> None:
    far = torch.tensor([[0.0, 0, 500], [float("nan"), 0, 1]])
    points = torch.cat([scene.points, far]) if scene.points is not None else far
    packed = encode_scene(Scene("a", points=points))["points"]
    back = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(-1, 3) * packed["step"]
    np.testing.assert_allclose(back, points[:-2].numpy(), atol=packed["step"] / 2 + 1e-6)
    many = encode_scene(Scene("a", points=torch.zeros(MOST_POINTS + 1000, 3)))["points"]
    assert len(base64.b64decode(many["data"])) == 6 * MOST_POINTS


def test_images_keep_their_size_and_what_they_show(tmp_path: Path) -> None:
    pixels = torch.zeros(3, 40, 3000, dtype=torch.uint8)
    pixels[0, :, 1500:] = 220
    camera = Camera(1000, 1000, 1500, 20, width=3000, height=40)
    frame = encode_scene(Scene("wide", pixels, camera))
    shown = Image.open(io.BytesIO(base64.b64decode(frame["image"].partition(",")[2])))
    assert (frame["width"], frame["height"]) == (3000, 40)
    assert shown.size[0] == 1920
    red = np.asarray(shown)[..., 0].mean(0)
    assert red[:900].max() < 30 and red[1020:].min() > 190
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.jpg", exif=_turned())
    turned = encode_scene(Scene("turned", tmp_path / "a.jpg"))
    assert (turned["width"], turned["height"]) == (40, 3000)  # as a phone shows it


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return exif


def test_names_cannot_break_out_of_the_data(scene: Scene) -> None:
    nasty = '</script><script>alert("x")</script>'
    boxes = Boxes3D(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1))
    page = scene_html([Scene(nasty, objects=Objects.named(boxes, (nasty,)))], nasty)
    assert nasty not in page
    assert data_of(page, 'data-frame="0"')["objects"][0]["class"] == nasty
    assert data_of(page, 'id="config"')["names"] == [nasty]


def test_a_image_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x\.png: not a readable image"):
        scene_html([Scene("x", tmp_path / "x.png")])


def test_numbers_that_are_not_finite_become_null() -> None:
    boxes = Boxes3D(torch.tensor([[0.0, 1.0, 10.0]]), torch.ones(1, 3), torch.tensor([float("nan")]))
    row = encode_scene(Scene("a", objects=Objects.named(boxes, ("Car",))))["objects"][0]
    assert row["yaw"] is None and row["center"] == [0, 1, 10]


def test_names_with_halves_of_characters_are_shown(scene: Scene) -> None:
    """A file's name need not be UTF-8, and JSON can hold any class name."""
    odd = dataclasses.replace(scene, name="a\udcff")
    page = scene_html([odd], title="b\ud800").encode()
    assert b"a?" in page and b"<title>b?</title>" in page
