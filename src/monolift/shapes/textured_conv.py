"""The convolutional generator of Kato and Harada (CVPR 2019), as MonoDR used it: a cube's six faces, blown up to a car.

For those who have ShapeNet's models: `textured_views` renders them and `train_on_views` learns the generator. Layers, base and
scales are those of the released code (hiroharu-kato/view_prior_learning, decoders.py, `conv` for shape and texture), except
that the first layers take codes of eight numbers. Deviations: two codes on the unit sphere per model instead of the encoder's
feature (MonoDR trains the encoder and throws it away; here each model has codes of its own, an auto-decoder), no view
discriminator, and colours by the released code's multi-scale L1 instead of its AlexNet features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monolift.shapes.textured import CODE, in_unit_box, on_sphere
from monolift.typing import Float, Int, Tensor

SIDE = 16  # vertices along an edge of the cube
TEXELS = 64  # texels along the edge of a face
RADIUS, REACH = 0.5, 1.2
"""The sphere of the start and the farthest a coordinate gets, before the released models halve both."""
MOVE = 0.01
"""Factor of what the layers add to the base (released: vertex_scaling)."""
# Per face: the fixed axis and its end; the two others run along the face's rows and columns.
_FACES = tuple((axis, end) for axis in range(3) for end in (0, SIDE - 1))


class ConvDecoder(nn.Module):
    """Codes to a cube's surface of 16^3 - 14^3 = 1,352 vertices and 2,700 faces, and to an atlas of 64 x 384 texels; a
    `TexturedDecoder`. 35 million weights: on a CPU some hundred times slower than `BasisDecoder`."""

    faces: Tensor
    uvs: Tensor
    vertex_of: Tensor
    copies: Tensor
    middle_shape: Tensor
    middle_texture: Tensor

    def __init__(self, width: int = 512) -> None:
        """width: channels of the first layers; 512 as published, fewer for trials."""
        super().__init__()
        lattice, vertex_of, faces, uvs = cube_topology()
        self.width = width
        self.register_buffer("vertex_of", vertex_of)
        self.register_buffer("copies", vertex_of.flatten().bincount(minlength=len(lattice)).float())
        self.register_buffer("faces", faces)
        self.register_buffer("uvs", uvs)
        for name in ("shape", "texture"):
            self.register_buffer(f"middle_{name}", F.one_hot(torch.tensor(0), CODE).float())
        self.shape_base = nn.Parameter(torch.atanh(RADIUS * F.normalize(lattice, dim=1) / REACH))
        self.texture_base = nn.Parameter(torch.zeros(3, TEXELS, 6 * TEXELS))
        self.shape_net = nn.ModuleList(_shape_net(width) for _ in _FACES)
        self.texture_net = nn.ModuleList(_texture_net(width) for _ in _FACES)

    @property
    def sphere(self) -> Float[Tensor, "v 3"]:
        """The vertices without any code."""
        return self._placed(self.shape_base)

    def vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        return in_unit_box(self.plain_vertices(shape))

    def plain_vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        """The sphere and what the layers add to it; where faces of the cube meet, their mean. What training renders."""
        code = on_sphere(shape)
        offsets = torch.stack([net(code) for net in self.shape_net], 1)  # (N, 6, 3, 16, 16)
        moves = offsets.movedim(2, -1).flatten(1, 3)
        merged = torch.zeros(len(code), len(self.copies), 3, dtype=moves.dtype, device=moves.device)
        merged = merged.index_add(1, self.vertex_of.flatten(), moves) / self.copies[:, None]
        return self._placed(self.shape_base + MOVE * merged)

    @staticmethod
    def _placed(raw: Tensor) -> Tensor:
        return 0.5 * REACH * torch.tanh(raw)

    def textures(self, texture: Float[Tensor, "n 8"]) -> Float[Tensor, "n 3 h w"]:
        code = on_sphere(texture)
        return (self.texture_base + torch.cat([net(code) for net in self.texture_net], 3)).sigmoid()


def _shape_net(width: int) -> nn.Sequential:
    """A code to 3 x 16 x 16: one face of the cube."""
    layers = [*_first(width, 2), *_doublings(width, 3, 3)]
    return _initialised(nn.Sequential(*layers, nn.Conv2d(width >> 3, 3, 3, padding=1)))


def _texture_net(width: int) -> nn.Sequential:
    """A code to 3 x 64 x 64: one face's part of the atlas."""
    last = nn.ConvTranspose2d(width >> 3, 3, 5, 2, 2, output_padding=1)
    return _initialised(nn.Sequential(*_first(width, 4), *_doublings(width, 3, 5), last))


def _first(width: int, start: int) -> list[nn.Module]:
    return [
        nn.Linear(CODE, width * start * start, bias=False),
        nn.Unflatten(1, (width, start, start)),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]


def _doublings(width: int, count: int, kernel: int) -> list[nn.Module]:
    """Channels halve where resolution doubles."""
    layers: list[nn.Module] = []
    for k in range(count):
        layers += [
            nn.ConvTranspose2d(
                width >> k, width >> (k + 1), kernel, 2, kernel // 2, output_padding=1, bias=False
            ),
            nn.BatchNorm2d(width >> (k + 1)),
            nn.ReLU(),
        ]
    return layers


def _initialised(net: nn.Sequential) -> nn.Sequential:
    """He's normal initialisation with zero biases. Chainer counts the inputs of a deconvolution by its second axis."""
    for module in net:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def cube_topology() -> tuple[
    Float[Tensor, "v 3"], Int[Tensor, "6 16 16"], Int[Tensor, "f 3"], Float[Tensor, "f 3 2"]
]:
    """Points of the cube's surface (V, 3) from -1 to 1, the vertex at each place of the six faces, faces (F, 3) that look
    outward, and their texture coordinates, a face's square beside the next."""
    k = torch.arange(SIDE)
    row, column = torch.meshgrid(k, k, indexing="ij")
    places = []
    for axis, end in _FACES:
        point = torch.full((SIDE, SIDE, 3), end)
        others = [a for a in range(3) if a != axis]
        point[..., others[0]], point[..., others[1]] = row, column
        places.append(point)
    keys = (torch.stack(places) * torch.tensor([SIDE * SIDE, SIDE, 1])).sum(-1)
    unique, vertex_of = keys.unique(return_inverse=True)
    lattice = torch.stack([unique // SIDE**2, unique // SIDE % SIDE, unique % SIDE], 1)
    points = 2 * lattice.float() / (SIDE - 1) - 1
    squares = torch.stack(
        [vertex_of[:, r : SIDE - 1 + r, c : SIDE - 1 + c] for r, c in ((0, 0), (0, 1), (1, 1), (1, 0))], -1
    )
    corner_uv = torch.stack([column, row], -1) / (SIDE - 1)  # 0 to 1 within a face
    corner_uv = (0.5 + corner_uv * (TEXELS - 1)) / TEXELS
    uv = torch.stack([(corner_uv + torch.tensor([f, 0])) / torch.tensor([6, 1]) for f in range(6)])
    square_uv = torch.stack(
        [uv[:, r : SIDE - 1 + r, c : SIDE - 1 + c] for r, c in ((0, 0), (0, 1), (1, 1), (1, 0))], -2
    )
    halves = ((0, 1, 2), (0, 2, 3))
    faces = torch.cat([squares[..., half].reshape(-1, 3) for half in halves])
    uvs = torch.cat([square_uv[..., half, :].reshape(-1, 3, 2) for half in halves])
    a, b, c = points[faces].unbind(1)
    inward = (torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(1) < 0
    faces[inward], uvs[inward] = faces[inward].flip(1), uvs[inward].flip(1)
    return points, vertex_of, faces, uvs
