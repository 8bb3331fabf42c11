"""Textured models from files, their views, and the generator that is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.errors import InputError
from monolift.shapes.textured_obj import find_models, frame_of, read_model
from monolift.shapes.textured_views import ViewTraining, render_views, view_rotations
from shapenet_cars import write_box_car

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def test_axes_of_files() -> None:
    """x to the front, y down, z to the left: a proper rotation each."""
    for axes, front, up in (("gltf", [0, 0, 1], [0, 1, 0]), ("shapenet", [0, 0, -1], [0, 1, 0]),
                            ("-y,z", [0, -1, 0], [0, 0, 1]), ("+x,-y", [1, 0, 0], [0, -1, 0])):  # fmt: skip
        turn = frame_of(axes)
        assert np.linalg.det(turn) == pytest.approx(1)
        assert (turn @ front).tolist() == [1, 0, 0] and (turn @ up).tolist() == [0, -1, 0]
    for wrong in ("z", "z,z", "z,-z", "a,y", "z,y,x", "--z,y", ""):
        with pytest.raises(InputError, match="front and up"):
            frame_of(wrong)


def test_a_model_as_shapenet_has_them(tmp_path: Path) -> None:
    """Front -z; an image beside, one colour from the library, polygons, negative indices."""
    path = write_box_car(tmp_path / "1a2b", paint=RED)
    mesh = read_model(path, "shapenet")
    extent = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert extent.tolist() == pytest.approx([1.0, 0.375, 0.4], abs=1e-6)
    assert (mesh.vertices.amax(0) + mesh.vertices.amin(0)).abs().max() < 1e-6
    assert mesh.faces.shape[0] == 2 * 12  # six squares, seen from both sides
    assert mesh.texture is not None and mesh.uvs is not None and mesh.texture.max() <= 1


def test_views_show_each_side_in_its_colour(tmp_path: Path) -> None:
    """The front is green, the rear blue, the sides red: seen from the right the front is to the right."""
    mesh = read_model(write_box_car(tmp_path / "1a2b", paint=RED, front=GREEN, rear=BLUE), "shapenet")
    azimuth = torch.deg2rad(torch.tensor([0.0, 90.0, 180.0, 270.0, 45.0]))
    views = render_views([mesh], 5, 32)
    assert views.rgba.shape == (5, 4, 32, 32) and views.model.tolist() == [0] * 5
    from monolift.geometry import Camera
    from monolift.render.renderer import render
    from monolift.shapes.textured_views import DISTANCE, view_camera

    rotation = view_rotations(azimuth, torch.zeros(5))
    posed = mesh.with_vertices(mesh.vertices @ rotation.mT + torch.tensor([0.0, 0, DISTANCE]))
    image = render(posed, Camera.stack([view_camera(64)] * 5))
    middle = image.colour[:, :, 32, 32] / image.colour[:, :, 32, 32].amax(1, keepdim=True)
    right, front, left, rear = middle[0], middle[1], middle[2], middle[3]
    assert right.argmax() == 0 and left.argmax() == 0
    assert {int(front.argmax()), int(rear.argmax())} == {1, 2}
    corner = image.colour[4]  # between the side and an end
    ends = corner[:, 32].argmax(0)[corner[:, 32].sum(0) > 0.3]
    assert set(ends.tolist()) == {0, int(front.argmax())}
    # Azimuth 0: the right side, with the front to the right of the image, the far end of +x.
    assert (rotation[0] @ torch.tensor([1.0, 0, 0])).tolist() == pytest.approx([1, 0, 0])
    up = view_rotations(torch.zeros(1), torch.tensor([0.3]))[0] @ torch.tensor([0.0, -1, 0])
    assert up[2] < 0  # looked at from above: the roof turns to the camera


def test_textures_that_repeat_are_read_where_they_repeat(tmp_path: Path) -> None:
    """Texture coordinates beyond one: the same texels again."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255  # the top left quarter is white: u below a half, v above
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "t.png")
    (tmp_path / "m.mtl").write_text("newmtl a\nKd 0 0 0\nmap_Kd images\\t.png\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    for shift in (0, 3, -2):
        uv = f"vt {0.1 + shift} {0.9 + shift}\nvt {0.4 + shift} {0.9 + shift}\nvt {0.1 + shift} {0.6 + shift}\n"
        faces = "f 1/1 2/2 3/3\nf 1/1 2/2 4/3\nf -4/-3 -2/-2 -1/-1\n"
        (tmp_path / "m.obj").write_text(f"mtllib m.mtl\nusemtl a\n{corners}{uv}{faces}")
        texture = read_model(tmp_path / "m.obj").texture
        assert texture is not None
        lit = texture.amax(0)[texture.amax(0) > 0]
        assert lit.min() > 0.59 and len(lit) == 3 * 36


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write_box_car(tmp_path / "1a2b", paint=RED)
    for text, said in (
        ("", "has no faces"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "is flat"),
        ("v 0 0 0\nf 1 2 3\n", "names entry 2 of 1"),
        ("v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 zero 0\n", "not a readable model"),
        ("v 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n", "expected 3 numbers of a vertex or coordinate, got '0 0'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"{path.name}: .*{said}"):
            read_model(path)
    with pytest.raises(InputError, match=r"expected two or more models \(.obj, .glb\), found 1"):
        find_models(tmp_path)
    path = write_box_car(tmp_path / "3c4d", paint=RED)
    (path.parents[1] / "images" / "texture0.png").unlink()
    with pytest.warns(UserWarning, match="texture0.png of a material is missing"):
        assert read_model(path).texture is not None
    assert [p.parents[1].name for p in find_models(tmp_path)] == ["1a2b", "3c4d"]


def test_training_settings_are_checked() -> None:
    with pytest.raises(InputError, match="textured batch"):
        ViewTraining(batch=1)


def test_the_projects_cars(shared: Path) -> None:
    """Textured vehicles of another origin: Gazebo's, front to -y, up to +z."""
    model = read_model(shared / "meshes" / "hatchback" / "meshes" / "hatchback.obj", "-y,z")
    extent = model.vertices.amax(0) - model.vertices.amin(0)
    assert extent[0] == pytest.approx(1) and 0.3 < extent[1] < extent[2] < 0.6
    assert model.texture is not None and model.texture.std() > 0.1
