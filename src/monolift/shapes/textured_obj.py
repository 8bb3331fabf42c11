"""Textured models of cars from files: OBJ with MTL as ShapeNet has them, and GLB. Any topology, holes and inner walls too.

A model's materials become one atlas: each face gets a patch of a few texels, sampled from its material. So textures that
repeat, overlap or lie in a dozen files all end in one `Mesh`, which is what the renderer draws.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from monolift.errors import InputError
from monolift.files.images import read_rgb
from monolift.files.text import read_text
from monolift.render.glb import read_glb
from monolift.render.mesh import Mesh

FloatArray = npt.NDArray[np.floating]

SUFFIXES = (".obj", ".glb")
AXES = {"gltf": "z,y", "shapenet": "-z,y"}
"""Names of usual axes, front and up: glTF's, and those of ShapeNetCore version 2."""
PATCH = 6
"""Texels along a face's patch."""
LARGEST = 1024
"""Textures beyond so many pixels are made smaller first: the views are small."""
GREY = (0.6, 0.6, 0.6)
"""Colour of a face without material."""
AMBIENT = 0.6
"""Light that reaches a wall; a roof gets 1 (ours: textures hold the colours that are seen, light included)."""


def find_models(folder: str | Path) -> list[Path]:
    """The model files below a folder, sorted. Raises InputError for fewer than two."""
    folder = Path(folder)
    files = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
    if len(files) < 2:
        raise InputError(f"{folder}: expected two or more models ({', '.join(SUFFIXES)}), found {len(files)}")
    return files


def read_model(path: str | Path, axes: str = "gltf") -> Mesh:
    """A textured model in the box frame (x to the front, y down), round 0, its longest side 1; both sides of each face.

    axes: front and up in the file, "z,y" or "-z,y", or a name of `AXES`. Raises InputError, naming the file, where it or one of
    its materials' images cannot be read, and for other axes; warns of an image that is missing, whose faces keep their colour.
    """
    path = Path(path)
    turn = frame_of(axes)
    try:
        parts = _glb(path) if path.suffix.lower() == ".glb" else _Obj(path).parts()
    except InputError:
        raise
    except (ValueError, IndexError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path}: not a readable model: {error}") from None
    corners = np.concatenate([part.corners for part in parts]) if parts else np.zeros((0, 3, 3))
    if not len(corners):
        raise InputError(f"{path}: has no faces")
    if not np.isfinite(corners).all():
        raise InputError(f"{path}: not a readable model: corners that are not finite")
    colours = np.concatenate([part.patches() for part in parts])
    corners = corners @ turn.T
    low, high = corners.min((0, 1)), corners.max((0, 1))
    if not float((high - low).min()) > 0:
        raise InputError(f"{path}: is flat: expected a length, a height and a width")
    return _mesh((corners - (low + high) / 2) / (high - low).max(), colours)


def frame_of(axes: str) -> FloatArray:
    """(3, 3) rotation from a file's axes to the box frame, x to the front, y down. Raises InputError for no such axes."""
    names = [name.strip() for name in AXES.get(axes, axes).split(",")]
    ends = []
    for name in names:
        letter = name.lstrip("+-")
        if letter in ("x", "y", "z") and name.removesuffix(letter) in ("", "+", "-"):
            ends.append((-1.0 if name.startswith("-") else 1.0) * np.eye(3)["xyz".index(letter)])
    if len(ends) != 2 or len(names) != 2 or ends[0] @ ends[1]:
        raise InputError(
            f'axes: expected front and up such as "z,y" or "-z,y", or {" or ".join(AXES)}, got {axes!r}'
        )
    front, down = ends[0], -ends[1]
    return np.stack([front, down, np.cross(front, down)])


@dataclass(frozen=True)
class _Part:
    """Faces of one material. corners (F, 3, 3); uv (F, 3, 2), v upward; image (h, w, 3), 0 to 1, or one texel of a colour."""

    corners: FloatArray
    uv: FloatArray
    image: FloatArray

    def patches(self) -> FloatArray:
        """(F, PATCH, PATCH, 3) colours of the faces: row and column run along the two sides from the first corner."""
        share = np.arange(PATCH) / (PATCH - 1)
        second, third = np.meshgrid(share, share, indexing="xy")
        weights = np.stack([1 - second - third, second, third], -1)
        # Texels beyond the third side are only read between texels: they repeat those of the side.
        weights = weights.clip(0)
        weights /= weights.sum(-1, keepdims=True)
        uv = np.einsum("ijk,fkc->fijc", weights, self.uv)
        height, width = self.image.shape[:2]
        column = np.floor(uv[..., 0] * width).astype(np.int64) % width
        row = np.floor(-uv[..., 1] * height).astype(np.int64) % height
        return self.image[row, column]


def _mesh(corners: FloatArray, patches: FloatArray) -> Mesh:
    """One mesh of all faces, seen from both sides, with an atlas of their patches."""
    count = len(corners)
    columns = max(int(np.ceil(np.sqrt(count))), 1)
    rows = -(-count // columns)
    atlas = np.zeros((rows * columns, PATCH, PATCH, 3), np.float32)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1).clip(1e-12)
    light = AMBIENT + (1 - AMBIENT) * np.abs(normal[:, 1]) / length
    atlas[:count] = patches * light[:, None, None, None]
    image = atlas.reshape(rows, columns, PATCH, PATCH, 3).transpose(4, 0, 2, 1, 3)
    image = image.reshape(3, rows * PATCH, columns * PATCH)
    place = np.stack([np.arange(count) % columns, np.arange(count) // columns], -1)[:, None] * PATCH
    uv = (place + np.array([[0, 0], [PATCH - 1, 0], [0, PATCH - 1]]) + 0.5) / [columns * PATCH, rows * PATCH]
    faces = np.arange(3 * count).reshape(count, 3)
    return Mesh(
        torch.from_numpy(corners.reshape(-1, 3)).float(),
        torch.from_numpy(np.concatenate([faces, faces[:, ::-1]])),
        torch.from_numpy(np.concatenate([uv, uv[:, ::-1]])).float(),
        torch.from_numpy(np.ascontiguousarray(image)),
    )


def _glb(path: Path) -> list[_Part]:
    parts = []
    for mesh in read_glb(path):
        corners = mesh.vertices[mesh.faces].numpy().astype(np.float64)
        uv, image = np.zeros((len(corners), 3, 2)), np.full((1, 1, 3), GREY)
        if mesh.uvs is not None and mesh.texture is not None:
            uv = mesh.uvs.numpy() * [1, -1]  # glTF counts rows downward
            image = mesh.texture[:3].permute(1, 2, 0).numpy()
        parts.append(_Part(corners, uv, image))
    return parts


@dataclass
class _Obj:
    """An OBJ file on its way to parts: one per material."""

    path: Path
    materials: dict[str, FloatArray] = field(default_factory=dict)
    vertices: list[list[float]] = field(default_factory=list)
    coordinates: list[list[float]] = field(default_factory=list)
    faces: dict[str, list[list[tuple[int, int]]]] = field(default_factory=dict)

    def parts(self) -> list[_Part]:
        material = ""
        for line in read_text(self.path).replace("\\\n", " ").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "v":
                self.vertices.append(_numbers(rest, 3))
            elif word == "vt":
                self.coordinates.append(_numbers(rest, 2))
            elif word == "usemtl":
                material = rest.strip()
            elif word == "mtllib":
                self._read_materials(rest.strip())
            elif word == "f":
                loop = [self._corner(corner) for corner in rest.split()]
                fans = ([loop[0], b, c] for b, c in itertools.pairwise(loop[1:]))
                self.faces.setdefault(material, []).extend(fans)
        return [self._part(name, faces) for name, faces in self.faces.items() if faces]

    def _corner(self, words: str) -> tuple[int, int]:
        """Vertex and texture coordinate of a corner such as 3/2/1, 3//1 or -1; -1 for no coordinate."""
        vertex, _, rest = words.partition("/")
        coordinate = rest.partition("/")[0]
        return (
            _index(int(vertex), len(self.vertices)),
            _index(int(coordinate), len(self.coordinates)) if coordinate else -1,
        )

    def _part(self, name: str, faces: Iterable[list[tuple[int, int]]]) -> _Part:
        index = np.array(list(faces), np.int64)
        known = np.array([*self.coordinates, [0.5, 0.5]], np.float64)  # the last: of corners without one
        image = self.materials.get(name, np.full((1, 1, 3), GREY))
        return _Part(np.array(self.vertices, np.float64)[index[..., 0]], known[index[..., 1]], image)

    def _read_materials(self, name: str) -> None:
        """Diffuse colours and images; a library that is missing leaves its faces grey, as viewers do."""
        library = self.path.parent / name
        if not library.is_file():
            return
        material = ""
        for line in read_text(library).splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "newmtl":
                material = rest.strip()
            elif word == "Kd" and material not in self.materials:
                self.materials[material] = np.array([[[float(w) for w in rest.split()[:3]]]]).clip(0, 1)
            elif word == "map_Kd" and rest.strip():
                image = self._image(library, rest)
                if image is not None:
                    self.materials[material] = image

    def _image(self, library: Path, words: str) -> FloatArray | None:
        """An image of a material: beside the library, at the path that stands there, or of that name within the model's
        folder; None, with a warning, where there is none."""
        name = words.strip().replace("\\", "/")
        if name.startswith("-"):  # options such as -s 1 1 1 come first
            name = name.split()[-1]
        near = library.parent / name
        if not near.is_file():
            found = sorted(library.parent.parent.rglob(Path(name).name))
            if not found:
                warnings.warn(f"{library}: the image {name} of a material is missing", stacklevel=2)
                return None
            near = found[0]
        pixels = read_rgb(near).pixels
        step = -(-max(pixels.shape[:2]) // LARGEST)
        return pixels[::step, ::step].astype(np.float64) / 255


def _numbers(words: str, count: int) -> list[float]:
    """The first numbers of a line. Raises ValueError where it has fewer."""
    found = [float(word) for word in words.split()[:count]]
    if len(found) < count:
        raise ValueError(f"expected {count} numbers of a vertex or coordinate, got {words.strip()!r}")
    return found


def _index(number: int, count: int) -> int:
    """Indices of OBJ count from 1, or from the end."""
    place = number - 1 if number > 0 else count + number
    if not 0 <= place < count:
        raise IndexError(f"a face names entry {number} of {count}")
    return place
