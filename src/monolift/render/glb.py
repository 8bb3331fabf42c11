"""Meshes as binary glTF 2.0 files (.glb), textures inside, for any 3D viewer; and back."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from monolift.errors import InputError
from monolift.files.folders import write_atomically
from monolift.files.images import Limits, opened
from monolift.files.json_text import object_of, parse_json
from monolift.files.text import read_bytes
from monolift.render.mesh import Mesh

_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_FLOAT, _UINT32, _VERTICES, _INDICES = 5126, 5125, 34962, 34963  # the numbers of OpenGL that glTF speaks in
_LINEAR, _LINEAR_MIPMAPS, _CLAMP = 9729, 9987, 33071
_HALF_TURN_ABOUT_X = [1.0, 0.0, 0.0, 0.0]  # quaternion x, y, z, w: (x, y, z) -> (x, -y, -z)
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
_DTYPES = {_FLOAT: "<f4", _UINT32: "<u4", 5123: "<u2", 5121: "u1"}


def write_glb(
    path: str | os.PathLike[str], meshes: Sequence[Mesh], names: Sequence[str] = (), camera_frame: bool = True
) -> None:
    """Writes `glb_bytes` to a file, whole or not at all.

    Raises:
        InputError: for meshes that cannot be written and for a path that cannot.
    """
    data = glb_bytes(meshes, names, camera_frame)
    write_atomically(path, data)


def glb_bytes(meshes: Sequence[Mesh], names: Sequence[str] = (), camera_frame: bool = True) -> bytes:
    """A scene of single meshes, one node each, as the bytes of a .glb file; metres.

    Textures (3, h, w) in [0, 1] become 8-bit PNGs inside the file, read without shading (KHR_materials_unlit where a viewer
    knows it): a fitted texture already holds the light of its image. Faces show their outside only (doubleSided false).
    Vertices at the texture's seams are written once per side, as glTF has no texture coordinates per corner.

    Args:
        names: one per mesh; "object 0", "object 1" ... without.
        camera_frame: the vertices are camera coordinates (x right, y down, z forward) while glTF's y points up. They are
            stored as they are, so that the numbers are metric camera coordinates; the root node carries the half turn (x,
            -y, -z) that stands the scene upright. Without it the root node turns nothing.

    Raises:
        InputError: for a batch of meshes, numbers that are not finite, a texture without three channels, and names that do
            not fit in number.
    """
    if names and len(names) != len(meshes):
        raise InputError(f"glb: {len(meshes)} meshes, but {len(names)} names")
    scene = _Scene()
    for k, mesh in enumerate(meshes):
        scene.add(mesh, names[k] if names else f"object {k}")
    return scene.to_bytes(camera_frame)


class _Scene:
    """Collects the buffer and the tables that point into it."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def add(self, mesh: Mesh, name: str) -> None:
        if mesh.vertices.ndim != 2 or (mesh.texture is not None and mesh.texture.ndim != 3):
            raise InputError(
                f"glb: {name}: expected a single mesh, got a batch: write its members one by one"
            )
        if not bool(mesh.vertices.isfinite().all()):
            raise InputError(f"glb: {name}: the vertices hold NaN or inf")
        vertices, faces, uvs = _split_at_seams(mesh)
        attributes = {"POSITION": self._accessor(vertices, "VEC3", _VERTICES)}
        if uvs is not None:
            attributes["TEXCOORD_0"] = self._accessor(uvs, "VEC2", _VERTICES)
        primitive = {
            "attributes": attributes,
            "indices": self._accessor(faces.reshape(-1), "SCALAR", _INDICES),
            "material": self._material(mesh, name),
        }
        self._append(
            "nodes", {"name": name, "mesh": self._append("meshes", {"name": name, "primitives": [primitive]})}
        )

    def _append(self, table: str, row: dict[str, Any]) -> int:
        rows = self.tables.setdefault(table, [])
        rows.append(row)
        return len(rows) - 1

    def _view(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        self.buffer += data + bytes(-len(data) % 4)  # accessors must start at multiples of four
        return self._append("bufferViews", view if target is None else {**view, "target": target})

    def _accessor(self, values: np.ndarray, kind: str, target: int) -> int:
        row: dict[str, Any] = {
            "bufferView": self._view(values.tobytes(), target),
            "componentType": _FLOAT if values.dtype.kind == "f" else _UINT32,
            "count": len(values),
            "type": kind,
        }
        if kind == "VEC3":  # required for positions
            row |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return self._append("accessors", row)

    def _material(self, mesh: Mesh, name: str) -> int:
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if mesh.texture is not None:
            if "samplers" not in self.tables:  # one for all, reading as `sample_texture` does
                row = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAPS, "wrapS": _CLAMP, "wrapT": _CLAMP}
                self._append("samplers", row)
            image = {"bufferView": self._view(_png(mesh, name)), "mimeType": "image/png"}
            texture = {"source": self._append("images", image), "sampler": 0}
            surface["baseColorTexture"] = {"index": self._append("textures", texture)}
        return self._append(
            "materials",
            {
                "pbrMetallicRoughness": surface,
                "doubleSided": False,
                "extensions": {"KHR_materials_unlit": {}},
            },
        )

    def to_bytes(self, camera_frame: bool) -> bytes:
        count = len(self.tables.get("nodes", []))
        root: dict[str, Any] = {"name": "camera" if camera_frame else "scene"}
        if camera_frame:
            root["rotation"] = _HALF_TURN_ABOUT_X
        if count:
            root["children"] = list(range(count))
        scene = {"nodes": [self._append("nodes", root)]}
        content: dict[str, Any] = {"asset": {"version": "2.0", "generator": "monolift"}}
        content |= {"scene": 0, "scenes": [scene], **self.tables}
        if count:
            content |= {
                "extensionsUsed": ["KHR_materials_unlit"],
                "buffers": [{"byteLength": len(self.buffer)}],
            }
        text = json.dumps(content, separators=(",", ":")).encode()
        chunks = _chunk(_JSON, text + b" " * (-len(text) % 4))
        if count:
            chunks += _chunk(_BIN, bytes(self.buffer))
        return struct.pack("<III", _MAGIC, _VERSION, 12 + len(chunks)) + chunks


def _chunk(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", len(data), kind) + data


def _split_at_seams(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """vertices (V', 3), faces (F, 3), uvs (V', 2): every pair of vertex and texture coordinate once, in the vertices' order."""
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.cpu().numpy()
    if not len(faces):
        raise InputError("glb: a mesh without faces cannot be written")
    if mesh.uvs is None:
        return np.ascontiguousarray(vertices), faces.astype("<u4"), None
    uvs = mesh.uvs.detach().cpu().float().numpy().reshape(-1, 2)
    pairs = np.column_stack([faces.reshape(-1), uvs])  # float64: exact for both
    unique, place = np.unique(pairs, axis=0, return_inverse=True)
    chosen = vertices[unique[:, 0].astype(np.int64)]
    return chosen, place.reshape(faces.shape).astype("<u4"), unique[:, 1:].astype("<f4")


def _png(mesh: Mesh, name: str) -> bytes:
    assert mesh.texture is not None
    if mesh.texture.shape[0] != 3:
        raise InputError(f"glb: {name}: expected a texture of 3 channels, got {mesh.texture.shape[0]}")
    texels = (mesh.texture.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(texels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


# --- reading


MOST_NUMBERS = 100_000_000
"""Coordinates, corners and texel values of one file."""
TEXTURE = Limits(pixels=16_800_000, side=16_384)


def read_glb(path: str | os.PathLike[str]) -> list[Mesh]:
    """The meshes of a .glb file in the order of its nodes, in the coordinates that are stored (those of `glb_bytes`: metres,
    camera frame); transforms of nodes are not applied. Textures are the embedded PNG or JPEG, (3, h, w) in [0, 1].

    It reads what `glb_bytes` writes and files like it. Raises InputError for anything else: no glTF 2.0, cut short,
    compressed or sparse data, no triangles.
    """
    name = Path(path).name
    data = read_bytes(path)
    try:
        content, buffer = _chunks(data, name)
        meshes: list[Mesh] = []
        numbers = 0
        for node in content.get("nodes", []):
            for primitive in content["meshes"][node["mesh"]]["primitives"] if "mesh" in node else ():
                mesh = _mesh(primitive, content, buffer, name)
                numbers += mesh.vertices.numel() + mesh.faces.numel()
                numbers += 0 if mesh.texture is None else mesh.texture.numel()
                if (
                    numbers > MOST_NUMBERS
                ):  # many nodes may share one mesh: 100 bytes each that unfold to megabytes
                    raise InputError(
                        f"{name}: expected meshes and textures of at most {MOST_NUMBERS:,} numbers"
                    )
                meshes.append(mesh)
        return meshes
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RuntimeError,
        struct.error,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not a binary glTF 2.0 file of plain triangles ({error!r:.200})") from None


def _chunks(data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<III", data)
    if magic != _MAGIC or version != _VERSION:
        raise InputError(f"{name}: expected a binary glTF 2.0 file, got one that begins with {data[:8]!r}")
    if length != len(data):
        raise InputError(f"{name}: expected {length} bytes as its header says, got {len(data)}: cut short?")
    chunks, place = {}, 12
    while place < length:
        size, kind = struct.unpack_from("<II", data, place)
        chunks[kind] = data[place + 8 : place + 8 + size]
        place += 8 + size
    return object_of(parse_json(chunks[_JSON], name), name), chunks.get(_BIN, b"")


def _mesh(primitive: dict[str, Any], content: dict[str, Any], buffer: bytes, name: str) -> Mesh:
    if primitive.get("mode", 4) != 4:
        raise ValueError("a primitive that is not triangles")
    vertices = torch.from_numpy(_values(primitive["attributes"]["POSITION"], content, buffer))
    faces = torch.from_numpy(_values(primitive["indices"], content, buffer).astype(np.int64)).reshape(-1, 3)
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < len(vertices):
        raise ValueError(f"a corner {int(faces.max())} of {len(vertices)}")
    material = content["materials"][primitive["material"]] if "material" in primitive else {}
    base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if base is None or "TEXCOORD_0" not in primitive["attributes"]:
        return Mesh(vertices, faces)
    uv = torch.from_numpy(_values(primitive["attributes"]["TEXCOORD_0"], content, buffer))
    image = content["images"][content["textures"][base["index"]]["source"]]
    data = _slice(image["bufferView"], content, buffer)
    with opened(data, f"{name}: its texture", TEXTURE, formats=("PNG", "JPEG")) as file:
        texels = np.array(file.convert("RGB"))
    texture = torch.from_numpy(texels).permute(2, 0, 1).float() / 255
    return Mesh(vertices, faces, uv[faces], texture)


def _values(accessor: int, content: dict[str, Any], buffer: bytes) -> np.ndarray:
    row = content["accessors"][accessor]
    columns = _COLUMNS[row["type"]]
    data = _slice(row["bufferView"], content, buffer)[row.get("byteOffset", 0) :]
    values = np.frombuffer(data, _DTYPES[row["componentType"]], row["count"] * columns)
    return values.reshape(-1, columns).copy()


def _slice(view: int, content: dict[str, Any], buffer: bytes) -> bytes:
    row = content["bufferViews"][view]
    if "byteStride" in row:
        raise ValueError("interleaved data")
    start, length = row.get("byteOffset", 0), row["byteLength"]
    if not 0 <= start <= start + length <= len(buffer):
        raise ValueError(f"bytes {start} to {start + length} of a buffer of {len(buffer)}")
    return buffer[start : start + length]
