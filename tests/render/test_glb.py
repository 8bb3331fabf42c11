"""Binary glTF: a round trip, the file's structure parsed by hand, and what is refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monolift.errors import InputError
from monolift.render.glb import glb_bytes, read_glb, write_glb
from monolift.render.mesh import Mesh, icosphere


def painted_sphere(seed: int = 0) -> Mesh:
    """A unit sphere before the camera; its texture is unrolled, so that the seam's vertices have two coordinates each."""
    generator = torch.Generator().manual_seed(seed)
    vertices, faces = icosphere(1)
    corners = vertices[faces]
    column = torch.atan2(corners[..., 2], corners[..., 0]) / (2 * torch.pi) + 0.5
    torn = column.amax(1) - column.amin(1) > 0.5
    column = torch.where(torn[:, None] & (column < 0.5), 1.0, column)
    uvs = torch.stack([column, corners[..., 1] / 2 + 0.5], -1)
    texture = torch.randint(0, 256, (3, 4, 8), generator=generator) / 255
    return Mesh(vertices + torch.tensor([1.0, 2.0, 30.0]), faces, uvs, texture)


def parsed(data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON and buffer, with the framing of the specification's section 4 (binary glTF layout) checked on the way."""
    magic, version, length = data[:4], *struct.unpack("<II", data[4:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON" and size % 4 == 0
    content = json.loads(data[20 : 20 + size])
    rest = data[20 + size :]
    if not rest:
        return content, b""
    length, kind = struct.unpack("<I4s", rest[:8])
    assert kind == b"BIN\0" and length % 4 == 0 and length == len(rest) - 8
    assert content["buffers"] == [{"byteLength": length}]
    return content, rest[8:]


def numbers(content: dict[str, Any], buffer: bytes, accessor: int) -> np.ndarray:
    row = content["accessors"][accessor]
    view = content["bufferViews"][row["bufferView"]]
    dtype, columns = {5126: "<f4", 5125: "<u4"}[row["componentType"]], {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
    assert view["byteOffset"] % 4 == 0
    piece = buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    return np.frombuffer(piece, dtype).reshape(row["count"], columns[row["type"]])


def test_round_trip_keeps_corners_texture_and_order(tmp_path: Path) -> None:
    meshes = [painted_sphere(0), painted_sphere(1), Mesh(*icosphere(0))]
    write_glb(tmp_path / "scene.glb", meshes, ["one", "two", "bare"])
    for mesh, back in zip(meshes, read_glb(tmp_path / "scene.glb"), strict=True):
        assert torch.equal(back.vertices[back.faces], mesh.vertices[mesh.faces])
        if mesh.uvs is None:
            assert back.uvs is None and back.texture is None
            continue
        assert torch.equal(back.uvs, mesh.uvs)
        assert torch.allclose(back.texture, mesh.texture, atol=1e-6)  # its colours are multiples of 1/255
    assert [p.name for p in tmp_path.iterdir()] == ["scene.glb"]


def test_structure_by_hand() -> None:
    mesh = painted_sphere()
    content, buffer = parsed(glb_bytes([mesh], ["car 7"]))
    (root,) = content["scenes"][content["scene"]]["nodes"]
    (child,) = content["nodes"][root]["children"]
    assert content["nodes"][child]["name"] == "car 7"
    (primitive,) = content["meshes"][content["nodes"][child]["mesh"]]["primitives"]
    position = numbers(content, buffer, primitive["attributes"]["POSITION"])
    accessor = content["accessors"][primitive["attributes"]["POSITION"]]
    assert accessor["min"] == position.min(0).tolist() and accessor["max"] == position.max(0).tolist()
    indices = numbers(content, buffer, primitive["indices"]).reshape(-1, 3)
    np.testing.assert_array_equal(position[indices], mesh.vertices[mesh.faces].numpy())
    uv = numbers(content, buffer, primitive["attributes"]["TEXCOORD_0"])
    np.testing.assert_array_equal(uv[indices], mesh.uvs.numpy())
    assert len(mesh.vertices) < len(position) < 3 * len(mesh.faces)  # split at the seam only
    material = content["materials"][primitive["material"]]
    assert material["doubleSided"] is False
    texture = content["textures"][material["pbrMetallicRoughness"]["baseColorTexture"]["index"]]
    image = content["images"][texture["source"]]
    view = content["bufferViews"][image["bufferView"]]
    png = buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert image["mimeType"] == "image/png" and png.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(png)) as file:
        assert file.size == (8, 4)
        assert file.getpixel((5, 2)) == tuple((mesh.texture[:, 2, 5] * 255).round().int().tolist())


def rotated(q: list[float], v: np.ndarray) -> np.ndarray:
    """A vector turned by a unit quaternion (x, y, z, w)."""
    axis, w = np.array(q[:3]), q[3]
    return v + 2 * np.cross(axis, np.cross(axis, v) + w * v)


def test_the_root_stands_camera_coordinates_upright() -> None:
    content, _ = parsed(glb_bytes([painted_sphere()]))
    rotation = content["nodes"][content["scenes"][0]["nodes"][0]]["rotation"]
    np.testing.assert_allclose(rotated(rotation, np.array([1.0, 2.0, 30.0])), [1, -2, -30])
    content, _ = parsed(glb_bytes([painted_sphere()], camera_frame=False))
    assert "rotation" not in content["nodes"][content["scenes"][0]["nodes"][0]]


def test_no_meshes_is_an_empty_scene(tmp_path: Path) -> None:
    write_glb(tmp_path / "empty.glb", [])
    content, buffer = parsed((tmp_path / "empty.glb").read_bytes())
    assert not buffer and "children" not in content["nodes"][0] and "meshes" not in content
    assert read_glb(tmp_path / "empty.glb") == []


def test_refused_meshes() -> None:
    sphere = painted_sphere()
    with pytest.raises(InputError, match="batch"):
        glb_bytes([Mesh(sphere.vertices.expand(2, -1, -1), sphere.faces)])
    with pytest.raises(InputError, match="NaN"):
        glb_bytes([sphere.with_vertices(sphere.vertices * float("nan"))])
    with pytest.raises(InputError, match="3 channels, got 1"):
        glb_bytes([sphere.with_texture(sphere.texture[:1])])
    with pytest.raises(InputError, match="1 meshes, but 2 names"):
        glb_bytes([sphere], ["a", "b"])
    with pytest.raises(InputError, match="without faces"):
        glb_bytes([Mesh(sphere.vertices, sphere.faces[:0])])


@pytest.mark.parametrize("damage", ["short", "text", "json", "missing"])
def test_refused_files(tmp_path: Path, damage: str) -> None:
    data = glb_bytes([painted_sphere()])
    path = tmp_path / "bad.glb"
    if damage != "missing":
        broken = data.replace(b"POSITION", b"POSITIOM")
        path.write_bytes({"short": data[:-5], "text": b"solid cube", "json": broken}[damage])
    with pytest.raises(InputError, match=r"bad\.glb"):
        read_glb(path)
