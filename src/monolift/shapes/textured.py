"""Textured cars from two codes: what MonoDR fits, in place of Kato and Harada's generator.

A shape code and a texture code, each a point of the unit sphere in eight dimensions, give a mesh of fixed topology in a box of
size one and its texture. Both go the same way: a small network turns the code into weights of a linear basis, the
principal components of the family (`textured_training`). So decoding costs a matrix product, and its gradient another; the
convolutional generator of the paper (`textured_conv`) offers the same and costs a hundred times as much.

Deviations from the paper: no encoder and no renders were needed for training, since the family is known: each training car has
a code of its own (an auto-decoder). Textures hold the colours that are seen, light included; left and right share theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from monolift.errors import InputError
from monolift.files.folders import partial_file
from monolift.files.json_text import object_of, parse_json
from monolift.nn.size_limit import SizeLimit, TooLargeError
from monolift.render.mesh import Mesh
from monolift.typing import Float, Int, Tensor

if TYPE_CHECKING:
    from monolift.shapes.textured_conv import ConvDecoder

CODE = 8
"""Numbers of a shape code and of a texture code."""
ROOM = 1_000_000  # numbers that a network may make while it is built and not keep
BUNDLED = Path(__file__).parents[1] / "zoo" / "textured" / "model.safetensors"


@runtime_checkable
class TexturedDecoder(Protocol):
    """What a fit needs of a generator of textured cars.

    faces (F, 3), uvs (F, 3, 2): the topology all cars share, see ``render.mesh.Mesh``.
    middle_shape, middle_texture (8,): unit codes of the car nearest to the mean of the family.
    """

    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "f 3 2"]
    middle_shape: Float[Tensor, "8"]
    middle_texture: Float[Tensor, "8"]

    def vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        """Object frame (x to the front, y down), in a box of size (1, 1, 1) round 0 which they touch on all six sides.
        Codes of any length but 0: they are brought to the sphere here."""
        ...

    def textures(self, texture: Float[Tensor, "n 8"]) -> Float[Tensor, "n 3 h w"]:
        """Colours as a camera shows them (sRGB), 0 to 1."""
        ...


class BasisDecoder(nn.Module):
    """Codes to weights of principal components; the default `TexturedDecoder`.

    faces (F, 3), uvs (F, 3, 2): topology. shape_mean (V, 3), shape_basis (K, V, 3); texture_mean (3, h, w), texture_basis
    (K', 3, h, w), in logits. hidden: units of the two networks.
    """

    faces: Tensor
    uvs: Tensor
    shape_mean: Tensor
    shape_basis: Tensor
    texture_mean: Tensor
    texture_basis: Tensor
    middle_shape: Tensor
    middle_texture: Tensor

    def __init__(
        self,
        faces: Int[Tensor, "f 3"],
        uvs: Float[Tensor, "f 3 2"],
        shape: tuple[Float[Tensor, "v 3"], Float[Tensor, "k v 3"]],
        texture: tuple[Float[Tensor, "3 h w"], Float[Tensor, "m 3 h w"]],
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.register_buffer("faces", faces)
        self.register_buffer("uvs", uvs)
        for name, (mean, basis) in (("shape", shape), ("texture", texture)):
            self.register_buffer(f"{name}_mean", mean)
            self.register_buffer(f"{name}_basis", basis)
            self.register_buffer(f"middle_{name}", F.one_hot(torch.tensor(0), CODE).float())
        self.shape_net = _network(hidden, len(shape[1]))
        self.texture_net = _network(hidden, len(texture[1]))

    def vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        return in_unit_box(self.plain_vertices(shape))

    def plain_vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        """As they come from the basis: their box is of size one only about. What training compares."""
        weights = self.shape_net(on_sphere(shape))
        return self.shape_mean + torch.einsum("nk,kvc->nvc", weights, self.shape_basis)

    def textures(self, texture: Float[Tensor, "n 8"]) -> Float[Tensor, "n 3 h w"]:
        weights = self.texture_net(on_sphere(texture))
        return (self.texture_mean + torch.einsum("nk,kchw->nchw", weights, self.texture_basis)).clamp(0, 1)

    def texels(self, texture: Float[Tensor, "n 8"], index: Int[Tensor, " t"]) -> Float[Tensor, "n t 3"]:
        """Some texels of ``textures``, not clamped, by their place in the flattened image. What training compares."""
        weights = self.texture_net(on_sphere(texture))
        basis = self.texture_basis.flatten(2)[:, :, index]
        return self.texture_mean.flatten(1)[:, index].T + torch.einsum("nk,kct->ntc", weights, basis)


def _network(hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(CODE, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
    )


def on_sphere(codes: Float[Tensor, "n 8"]) -> Float[Tensor, "n 8"]:
    """Codes brought to length one; a zero code stays zero."""
    return F.normalize(codes, dim=1)


def in_unit_box(vertices: Float[Tensor, "n v 3"]) -> Float[Tensor, "n v 3"]:
    """Vertices moved and stretched into the box of size (1, 1, 1) round 0; differentiable."""
    low, high = vertices.amin(1, keepdim=True), vertices.amax(1, keepdim=True)
    return (vertices - (low + high) / 2) / (high - low)


def decode_mesh(
    decoder: TexturedDecoder,
    shape: Float[Tensor, "n 8"],
    texture: Float[Tensor, "n 8"],
    size: Float[Tensor, "n 3"],
) -> Mesh:
    """A batch of N textured meshes in the object frame; size (length, height, width), metres, is exactly their extent."""
    vertices = decoder.vertices(shape) * size[:, None]
    return Mesh(vertices, decoder.faces, decoder.uvs, decoder.textures(texture))


# --- files


def save_textured(decoder: BasisDecoder | ConvDecoder, path: str | Path) -> None:
    """Write weights and topology, 16-bit, as safetensors."""
    tensors = {}
    for name, value in decoder.state_dict().items():
        if not name.endswith("num_batches_tracked"):  # counts nothing that decoding needs
            # fp16 holds no index above 2048 exactly
            tensors[name] = value.half() if value.is_floating_point() else value.to(torch.int16)
    header = {"format": "monolift-textured-1"}
    if isinstance(decoder, BasisDecoder):
        header["config"] = json.dumps({"hidden": decoder.shape_net[0].out_features})
    else:
        header |= {"generator": "conv", "config": json.dumps({"width": decoder.width})}
    with partial_file(path, parents=True) as partial:
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, partial, header)
        partial.chmod(0o644)  # safetensors makes it unreadable for others


def load_textured(path: str | Path | None = None) -> BasisDecoder | ConvDecoder:
    """The bundled decoder, or one of `save_textured`; ready to use, without gradients of its own.

    Raises:
        InputError: when the file is missing or not of this kind.
    """
    path = Path(path) if path is not None else BUNDLED
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: expected the weights of a textured decoder, got: {error}") from None
    if header.get("format") != "monolift-textured-1":
        raise InputError(
            f"{path}: expected a file of format monolift-textured-1, got {header.get('format', 'none')!r}"
        )
    tensors = {k: v.float() if v.is_floating_point() else v.long() for k, v in tensors.items()}
    try:
        with SizeLimit(4 * sum(v.numel() for v in tensors.values()) + ROOM):
            decoder = _empty(header, tensors, path)
        missing, unknown = decoder.load_state_dict(tensors, strict=False)
    except TooLargeError:
        raise InputError(f"{path}: its weights do not fit its configuration, which asks for more") from None
    except (LookupError, ArithmeticError, ValueError, RuntimeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: expected a textured decoder, got: {reason}") from None
    lost = [*unknown, *(name for name in missing if not name.endswith("num_batches_tracked"))]
    if lost:
        raise InputError(
            f"{path}: expected a textured decoder, got one with other entries (first: {lost[0]})"
        )
    return decoder.eval().requires_grad_(False)


def _empty(header: dict[str, str], tensors: dict[str, Tensor], path: Path) -> BasisDecoder | ConvDecoder:
    """A decoder of the kind that a file's header names, before its weights."""
    config = object_of(parse_json(header["config"], str(path)), path)
    if header.get("generator") == "conv":
        from monolift.shapes.textured_conv import ConvDecoder  # which needs the above

        return ConvDecoder(**config)
    return BasisDecoder(
        tensors["faces"],
        tensors["uvs"],
        (tensors["shape_mean"], tensors["shape_basis"]),
        (tensors["texture_mean"], tensors["texture_basis"]),
        **config,
    )
