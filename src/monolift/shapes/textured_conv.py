"""The convolutional generator of Kato and Harada (CVPR 2019), as MonoDR used it: a cube's six faces, blown up to a car.

For those who have ShapeNet's models: `train_on_views` learns it from renders of them. Two codes instead of the encoder's
feature, on the unit sphere; the encoder is not needed, since each model gets codes of its own (an auto-decoder; the paper
trains the encoder and throws it away). Left out: the view discriminator, and batch normalisation, for whose statistics a fit
has too few objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from monolift.geometry import Camera
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project
from monolift.render.renderer import render_screen
from monolift.shapes.textured import CODE, in_unit_box, on_sphere
from monolift.shapes.textured_training import sphere_regulariser
from monolift.typing import Float, Int, Tensor

SIDE = 16  # vertices along an edge of the cube
TEXELS = 64  # texels along the edge of a face
RADIUS = 0.5
# Per face: the fixed axis and its end; the two others run along the face's rows and columns.
_FACES = tuple((axis, end) for axis in range(3) for end in (0, SIDE - 1))


class ConvDecoder(nn.Module):
    """Codes to a cube's surface of 16^3 - 14^3 = 1,352 vertices and 2,700 faces, and to an atlas of 64 x 384 texels; a
    `TexturedDecoder`. 30 million weights: on a CPU some hundred times slower than `BasisDecoder`."""

    faces: Tensor
    uvs: Tensor
    sphere: Tensor
    vertex_of: Tensor
    copies: Tensor
    middle_shape: Tensor
    middle_texture: Tensor

    def __init__(self, width: int = 512) -> None:
        """width: channels of the first layers; 512 as published, fewer for trials."""
        super().__init__()
        lattice, vertex_of, faces, uvs = cube_topology()
        self.register_buffer("sphere", RADIUS * F.normalize(lattice, dim=1))
        self.register_buffer("vertex_of", vertex_of)
        self.register_buffer("copies", vertex_of.flatten().bincount(minlength=len(lattice)).float())
        self.register_buffer("faces", faces)
        self.register_buffer("uvs", uvs)
        for name in ("shape", "texture"):
            self.register_buffer(f"middle_{name}", F.one_hot(torch.tensor(0), CODE).float())
        self.shape_net = nn.ModuleList(_face_net(width, 2, 3, 3) for _ in _FACES)
        self.texture_net = nn.ModuleList(_face_net(width, 4, 4, 5) for _ in _FACES)

    def vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        return in_unit_box(self.plain_vertices(shape))

    def plain_vertices(self, shape: Float[Tensor, "n 8"]) -> Float[Tensor, "n v 3"]:
        """The sphere moved by at most its radius; where faces meet, by the mean of what they say."""
        code = on_sphere(shape)
        offsets = torch.stack([net(code) for net in self.shape_net], 1)  # (N, 6, 3, 16, 16)
        moves = offsets.movedim(2, -1).flatten(1, 3)
        merged = torch.zeros(len(code), len(self.sphere), 3, dtype=moves.dtype, device=moves.device)
        merged = merged.index_add(1, self.vertex_of.flatten(), moves) / self.copies[:, None]
        return self.sphere + RADIUS * torch.tanh(merged)

    def textures(self, texture: Float[Tensor, "n 8"]) -> Float[Tensor, "n 3 h w"]:
        code = on_sphere(texture)
        return torch.cat([net(code) for net in self.texture_net], 3).sigmoid()


def _face_net(width: int, start: int, doublings: int, kernel: int) -> nn.Sequential:
    """A code to three channels of ``start`` * 2^doublings pixels; channels halve where resolution doubles."""
    layers: list[nn.Module] = [
        nn.Linear(CODE, width * start * start),
        nn.Unflatten(1, (width, start, start)),
        nn.ReLU(),
    ]
    for k in range(doublings):
        outputs = 3 if start == 4 and k == doublings - 1 else width >> (k + 1)
        layers += [
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(width >> k, outputs, kernel, padding=kernel // 2),
            nn.ReLU(),
        ]
    if start == 4:
        return nn.Sequential(*layers[:-1])
    return nn.Sequential(*layers, nn.Conv2d(width >> doublings, 3, kernel, padding=kernel // 2))


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


# --- training


@dataclass(frozen=True)
class Views:
    """M images of some models.

    model: (M,) which model each shows, 0, 1, 2 ...; image: (M, 3, S, S) 0 to 1, background black; silhouette: (M, S, S);
    rotation (M, 3, 3) and translation (M, 3): cam_from_object of the model, which is scaled into a box of size 1;
    cameras: (M,) with size S x S.
    """

    model: Int[Tensor, " m"]
    image: Float[Tensor, "m 3 s s"]
    silhouette: Float[Tensor, "m s s"]
    rotation: Float[Tensor, "m 3 3"]
    translation: Float[Tensor, "m 3"]
    cameras: Camera


def train_on_views(
    decoder: ConvDecoder,
    views: Views,
    steps: int,
    batch: int = 64,
    lr: float = 4e-4,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[Float[Tensor, "k 8"], Float[Tensor, "k 8"]]:
    """Train in place; returns the models' shape and texture codes, whose means become the middle ones.

    Losses: silhouettes at five scales (L2), colours (L1) where the model is, eq. 1 of MonoDR. on_step: step and loss.
    """
    generator = torch.Generator().manual_seed(seed)
    count = int(views.model.max()) + 1
    codes = [nn.Parameter(on_sphere(torch.randn(count, CODE, generator=generator))) for _ in range(2)]
    optimiser = torch.optim.Adam([*decoder.parameters(), *codes], lr=lr, betas=(0.5, 0.999))
    for step in range(steps):
        rows = torch.randint(len(views.model), (batch,), generator=generator)
        shape, texture = (code[views.model[rows]] for code in codes)
        loss = view_loss(decoder, views, rows, shape, texture)
        for code in (shape, texture):
            samples = on_sphere(torch.randn(batch, CODE, generator=generator))
            loss = loss + sphere_regulariser(on_sphere(code), samples)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if on_step:
            on_step(step, float(loss.detach()))
    shapes, textures = (on_sphere(code.detach()) for code in codes)
    decoder.middle_shape, decoder.middle_texture = (
        on_sphere(c.mean(0, keepdim=True))[0] for c in (shapes, textures)
    )
    return shapes, textures


def view_loss(
    decoder: ConvDecoder,
    views: Views,
    rows: Int[Tensor, " b"],
    shape: Float[Tensor, "b 8"],
    texture: Float[Tensor, "b 8"],
) -> Float[Tensor, ""]:
    """Silhouettes and colours of some of the views, mean over them."""
    points = decoder.plain_vertices(shape) @ views.rotation[rows].mT + views.translation[rows][:, None]
    screen = project(points, views.cameras[rows])
    mesh = Mesh(decoder.sphere, decoder.faces, decoder.uvs, decoder.textures(texture[:1])[0]).with_texture(
        decoder.textures(texture)
    )
    size = views.image.shape[-1]
    image = render_screen(mesh, screen, size, size)
    target = views.silhouette[rows][:, None]
    rendered = image.silhouette[:, None]
    loss = ((image.colour - views.image[rows]).abs() * target).mean()
    for _ in range(5):
        loss = loss + (rendered - target).square().mean()
        rendered, target = F.avg_pool2d(rendered, 2), F.avg_pool2d(target, 2)
    return loss
