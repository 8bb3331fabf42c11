"""What a result is written as besides KITTI and JSON: Omni3D, glTF, images; and how it comes, one by one."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import monolift
from fake_detector import FakeDetector
from monolift.data.formats.omni3d import Omni3dDataset
from monolift.geometry import Boxes3D
from monolift.inference.model import Model
from monolift.inference.results import Results3D
from monolift.render.box_mesh import box_meshes
from monolift.render.glb import read_glb
from monolift.render.mesh import Mesh
from street import CAMERA, street


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(FakeDetector().eval(), "fake")


def test_omni3d_reads_back_as_the_same_boxes(model: Model, tmp_path: Path) -> None:
    street().save(tmp_path / "street.png")
    camera = monolift.Camera(700.0, 700.0, 620.5, 187.0, 0.06, -0.001, 0.003)
    result = model.detect(tmp_path / "street.png", camera)
    result.save_omni3d(tmp_path / "street.json")
    content = json.loads((tmp_path / "street.json").read_text())
    assert [row["score"] for row in content["annotations"]] == pytest.approx(result.scores.tolist())
    assert [row["category_name"] for row in content["annotations"]] == ["car", "pedestrian"]
    dataset = Omni3dDataset(tmp_path / "street.json", root="/")
    assert dataset.frame(0).image == tmp_path / "street.png"
    again = dataset[0]
    assert again.classes == result.classes
    # Omni3D's frame is the camera itself, t = (0.06, -0.001, 0.003) away from the result's
    assert torch.allclose(again.boxes.center, result.boxes.center + camera.translation.float(), atol=1e-4)
    assert torch.allclose(again.boxes.size, result.boxes.size, atol=1e-4)
    assert torch.allclose(again.boxes.yaw, result.boxes.yaw, atol=1e-4)


def test_boxes_become_closed_meshes_that_look_outwards() -> None:
    boxes = Boxes3D(
        torch.tensor([[1.0, 1, 10], [-2, 1, 20]]),
        torch.tensor([[4.0, 1.5, 2], [1, 2, 3]]),
        torch.tensor([0.3, -2]),
    )
    for mesh, size, center in zip(box_meshes(boxes), boxes.size, boxes.center, strict=True):
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        # six times the volume of the tetrahedra between the faces and the centre: negative where a face looks inwards
        volumes = ((a - center) * torch.linalg.cross(b - center, c - center)).sum(1)
        assert (volumes > 0).all()
        assert float(volumes.sum()) / 6 == pytest.approx(float(size.prod()), rel=1e-4)


def test_glb_holds_meshes_and_boxes_where_there_are_none(model: Model, tmp_path: Path) -> None:
    result = model.detect(street(), CAMERA)
    result.save_glb(tmp_path / "boxes.glb")
    first = read_glb(tmp_path / "boxes.glb")[0]
    assert torch.allclose(first.vertices.sort(0)[0], result.boxes.corners()[0].sort(0)[0], atol=1e-4)
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    shaped = dataclasses.replace(result.objects, meshes=(triangle, triangle))
    dataclasses.replace(result, objects=shaped).save_glb(tmp_path / "meshes.glb")
    assert [mesh.vertices.tolist() for mesh in read_glb(tmp_path / "meshes.glb")] == [
        torch.eye(3).tolist()
    ] * 2
    model.detect(street(names=()), CAMERA).save_glb(tmp_path / "nothing.glb")
    assert read_glb(tmp_path / "nothing.glb") == []


def test_the_scene_from_above_is_a_image_of_its_own(model: Model) -> None:
    found, nothing = (model.detect(street(names=n), CAMERA).plot_bev() for n in (("Car",), ()))
    assert found.height > found.width  # forward is up
    assert (np.asarray(found) != np.asarray(nothing.resize(found.size))).any()


def test_streaming_gives_one_at_a_time(model: Model, tmp_path: Path) -> None:
    for name in "ab":
        street().save(tmp_path / f"{name}.png")
    results = model.stream(tmp_path, CAMERA)
    assert isinstance(results, Iterator)
    assert next(results).name == "a"
    (tmp_path / "b.png").unlink()  # not read before it is asked for
    with pytest.raises(monolift.InputError, match=r"b\.png: no such file"):
        next(results)


@pytest.mark.parametrize("size", [(376, 1242), (2400, 300), (480, 640)])
def test_portraits_and_panoramas(model: Model, size: tuple[int, int]) -> None:
    """The street cut or framed to another shape: its camera moves along, its boxes stay where they are."""
    width, height = size
    left, top = (1242 - width) // 2 if width < 1242 else -(width - 1242) // 2, (376 - height) // 2
    image = Image.new("RGB", size, (90, 110, 90))
    image.paste(street(names=("Car",)), (-left, -top))
    result = model.detect(image, (700.0, 700.0, 620.5 - left, 187.0 - top))
    assert isinstance(result, Results3D)
    whole = model.detect(street(names=("Car",)), CAMERA)
    assert result.classes == ("Car",)
    # found in an image of another scale: to a network pixel of the car's height
    assert torch.allclose(result.boxes.center, whole.boxes.center, rtol=0.12, atol=0.15)
    assert result.plot().width >= width


def test_no_name_is_cut_in_80_columns(model: Model, tmp_path: Path) -> None:
    """A long class name takes two lines."""
    street().save(tmp_path / "street.png")
    result = model.detect(tmp_path / "street.png", CAMERA)
    named = ("Construction_vehicle_with_a_crane", "Pedestrian", *result.objects.names[2:])
    console = Console(width=80, file=io.StringIO())
    console.print(
        dataclasses.replace(result, objects=dataclasses.replace(result.objects, names=named)).table()
    )
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "Pedestrian" in text and "crane" in text
