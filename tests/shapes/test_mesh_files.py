"""Meshes from files: the same solid from every format, its axes turned to ours, and its signed distance."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from monolift.errors import InputError
from monolift.render.glb import write_glb
from monolift.render.mesh import Mesh, icosphere
from monolift.shapes.autoencoder import ShapeConfig
from monolift.shapes.mesh_files import grid_of_mesh, read_mesh
from monolift.shapes.tsdf import is_watertight, volume

# A wedge in glTF's axes (x left, y up, z front): 2 long, 1 wide, as high as 1 at the back and 0.5 at the front.
WEDGE = """\
v -0.5 0 -1
v  0.5 0 -1
v  0.5 0  1
v -0.5 0  1
v -0.5 1 -1
v  0.5 1 -1
v  0.5 0.5 1
v -0.5 0.5 1
f 1 2 3 4
f 5 8 7 6
f 1 5 6 2
f 3 7 8 4
f -7 -3 -2 -6
f 1/1 4/2 8/3 5/4
"""


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    path = tmp_path / "wedge.obj"
    path.write_text(WEDGE)
    return path


def test_axes_are_turned_to_the_box_frame(obj: Path) -> None:
    mesh = read_mesh(obj)
    assert is_watertight(mesh)
    assert len(mesh.vertices) == 8
    assert float(volume(mesh)) == pytest.approx(1.5)  # positive: still facing outward
    assert mesh.vertices.amax(0).tolist() == pytest.approx([1, 0, 0.5])  # y down: the floor is at 0
    high = mesh.vertices[mesh.vertices[:, 1] < -0.9]
    assert (high[:, 0] == -1).all()  # high at the back, -x


def test_stl_and_glb_hold_the_same_solid(obj: Path, tmp_path: Path) -> None:
    mesh = read_mesh(obj)
    there = mesh.vertices[:, [2, 1, 0]] * torch.tensor([1.0, -1.0, 1.0])  # back to the file's axes
    corners = there[mesh.faces]
    rows = b"".join(struct.pack("<12fH", 0, 0, 0, *c.flatten().tolist(), 0) for c in corners)
    (tmp_path / "binary.stl").write_bytes(b"\0" * 80 + struct.pack("<I", len(corners)) + rows)
    loops = "".join(
        "facet normal 0 0 0\nouter loop\n"
        + "".join(f"vertex {x} {y} {z}\n" for x, y, z in c.tolist())
        + "endloop\nendfacet\n"
        for c in corners
    )
    (tmp_path / "text.stl").write_text(f"solid x\n{loops}endsolid\n")
    write_glb(tmp_path / "wedge.glb", [Mesh(there, mesh.faces)], camera_frame=False)
    for name in ("binary.stl", "text.stl", "wedge.glb"):
        other = read_mesh(tmp_path / name)
        assert torch.allclose(other.vertices, mesh.vertices, atol=1e-5), name
        assert float(volume(other)) == pytest.approx(1.5), name


def test_what_is_no_solid_is_refused_by_name(tmp_path: Path) -> None:
    cases = {
        "open.obj": (WEDGE.replace("f 1 2 3 4\n", ""), "not watertight"),
        "empty.obj": ("v 0 0 0\n", "has no faces"),
        "broken.obj": ("v 0 0 x\n", "not a readable mesh"),
        "index.obj": ("v 0 0 0\nf 1 2 3\n", "not a readable mesh"),
    }
    for name, (text, message) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            read_mesh(tmp_path / name)


def test_the_grid_of_a_sphere_is_its_signed_distance() -> None:
    vertices, faces = icosphere(3)
    config = ShapeConfig(grid=(32, 16, 16), truncation=0.3)
    grid = grid_of_mesh(Mesh(vertices, faces), config, torch.tensor([2.0, 2.0, 2.0]))
    sides = 2 * config.margin
    axes = [((torch.arange(n) + 0.5) / n - 0.5) * sides for n in config.grid]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).norm(dim=-1)
    exact = ((radius - 1) / config.truncation).clamp(-1, 1)
    assert (grid - exact).abs().max() < 0.05  # 1.5 cm: the sphere's facets lie that far inside
    assert ((grid < 0) == (radius < 1))[(radius - 1).abs() > 0.01].all()
