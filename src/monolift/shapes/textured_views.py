"""MonoDR's generator from models of cars: textured meshes, rendered from all round, and the training of `ConvDecoder` on them.

The paper trains on views of ShapeNet's cars; the released generator (hiroharu-kato/view_prior_learning) on 20 views of 224
x 224 pixels per model. Both come without the renderer of the views, so these are ours: the released camera (half the angle of
view atan(16 / 60)), azimuths all round, elevations as from a car.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from monolift.errors import InputError
from monolift.files.settings import COUNT, POSITIVE, Range, check_fields
from monolift.geometry import Camera
from monolift.render.mesh import Mesh
from monolift.render.rasterize import project
from monolift.render.renderer import render_screen
from monolift.shapes.textured import CODE, on_sphere
from monolift.shapes.textured_conv import ConvDecoder
from monolift.shapes.textured_training import sphere_regulariser
from monolift.typing import Float, Int, Tensor, UInt8

HALF_VIEW = 16 / 60  # tangent of half the angle of view, released
DISTANCE = 2.4  # of the camera from the middle of a model whose longest side is 1: all of it is seen
ELEVATION = (0.0, 20.0)  # degrees above the horizon, drawn evenly (ours)
LEVELS = 5
INFLATION = 1e-4
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class ViewTraining:
    """How a generator is trained on views of models. The default fits a processor; ``paper()`` is the released recipe."""

    width: int = 64
    """Channels of the generator's first layers; published: 512."""
    size: int = 64
    """Side of a view, pixels; released: 224."""
    views: int = 20
    """Views per model, as released."""
    steps: int = 3000
    """Steps of Adam; released: 500,000 and 1,000,000."""
    batch: int = 16
    """Views per step; released: 64."""
    lr: float = 4e-4
    """Learning rate of the generator; Adam's betas are 0.5 and 0.999, all as released."""
    code_lr: float = 1e-2
    """Learning rate of the models' codes (ours: there is no encoder)."""
    regulariser: float = 0.02
    """Weight of MonoDR eq. 1 (ours: the paper gives none)."""

    def __post_init__(self) -> None:
        ranges = {
            "width": Range(8, 4096),
            "size": Range(32, 1024),
            "views": COUNT,
            "steps": COUNT,
            "batch": Range(2, 4096),
            "lr": POSITIVE,
            "code_lr": POSITIVE,
            "regulariser": Range(0, 1000),
        }
        check_fields("textured", self, {}, ranges)


def paper() -> ViewTraining:
    """The released recipe for ShapeNet, on a GPU; codes and the weight of eq. 1 as in the default."""
    return ViewTraining(width=512, size=224, steps=500_000, batch=64)


@dataclass(frozen=True)
class Views:
    """M images of some models.

    model: (M,) which model each shows, 0, 1, 2 ...; rgba: (M, 4, S, S) colours, black where the model is not, and its coverage;
    rotation (M, 3, 3) and translation (M, 3): cam_from_object of the model; cameras: (M,) with size S x S.
    """

    model: Int[Tensor, " m"]
    rgba: UInt8[Tensor, "m 4 s s"]
    rotation: Float[Tensor, "m 3 3"]
    translation: Float[Tensor, "m 3"]
    cameras: Camera


def view_camera(size: int) -> Camera:
    """The released camera, S x S pixels."""
    focal, middle = size / 2 / HALF_VIEW, (size - 1) / 2
    return Camera(focal, focal, middle, middle, width=size, height=size)


def view_rotations(azimuth: Float[Tensor, " m"], elevation: Float[Tensor, " m"]) -> Float[Tensor, "m 3 3"]:
    """cam_from_object of cameras that look at the model's middle; radians. Azimuth 0 sees its right side, the front to the
    right of the image; an elevation above 0 looks down."""
    zero, one = torch.zeros_like(azimuth), torch.ones_like(azimuth)
    a, e = azimuth, elevation
    turn = torch.stack([a.cos(), zero, a.sin(), zero, one, zero, -a.sin(), zero, a.cos()], 1).view(-1, 3, 3)
    tilt = torch.stack([one, zero, zero, zero, e.cos(), -e.sin(), zero, e.sin(), e.cos()], 1).view(-1, 3, 3)
    return tilt @ turn


@torch.no_grad()
def render_views(
    models: Sequence[Mesh],
    views: int,
    size: int,
    seed: int = 0,
    on_model: Callable[[], None] | None = None,
) -> Views:
    """Views of textured models in the box frame whose longest side is 1: azimuths spread evenly with a random offset, random
    elevations. Rendered at twice the size and averaged. on_model: called after each model."""
    generator = torch.Generator().manual_seed(seed)
    camera = view_camera(2 * size)
    images, rotations = [], []
    for mesh in models:
        offset = torch.rand(views, generator=generator)
        azimuth = 2 * math.pi * (torch.arange(views) + offset) / views
        low, high = ELEVATION
        elevation = torch.deg2rad(low + (high - low) * torch.rand(views, generator=generator))
        rotation = view_rotations(azimuth, elevation)
        posed = mesh.vertices @ rotation.mT + torch.tensor([0.0, 0.0, DISTANCE])
        screen = project(posed, Camera.stack([camera] * views))
        image = render_screen(mesh, screen, 2 * size, 2 * size, edge_rule="kato")
        rgba = F.avg_pool2d(torch.cat([image.colour, image.silhouette[:, None]], 1), 2)
        images.append((255 * rgba).round().clamp(0, 255).to(torch.uint8))
        rotations.append(rotation)
        if on_model:
            on_model()
    rotation = torch.cat(rotations)
    return Views(
        model=torch.arange(len(models)).repeat_interleave(views),
        rgba=torch.cat(images),
        rotation=rotation,
        translation=torch.tensor([0.0, 0.0, DISTANCE]).expand(len(rotation), 3),
        cameras=Camera.stack([view_camera(size)] * len(rotation)),
    )


def train_on_views(
    decoder: ConvDecoder,
    views: Views,
    training: ViewTraining,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[Float[Tensor, "k 8"], Float[Tensor, "k 8"]]:
    """Train in place, where the decoder lies; returns the K models' unit codes of shape and texture, and makes the models'
    nearest to the mean the middle ones.

    Losses: `view_loss` and MonoDR eq. 1. on_step: called with the step and its loss.
    """
    if len(views.model) < 2:
        raise InputError(f"expected two or more views to train on, got {len(views.model)}")
    device = decoder.copies.device
    generator = torch.Generator().manual_seed(seed)
    count = int(views.model.max()) + 1
    codes = [
        nn.Parameter(on_sphere(torch.randn(count, CODE, generator=generator)).to(device)) for _ in range(2)
    ]
    groups = [
        {"params": list(decoder.parameters()), "lr": training.lr},
        {"params": codes, "lr": training.code_lr},
    ]
    optimiser = torch.optim.Adam(groups, betas=BETAS)
    decoder.train()
    for step in range(training.steps):
        rows = torch.randint(len(views.model), (training.batch,), generator=generator)
        shape, texture = (code[views.model[rows].to(device)] for code in codes)
        loss = view_loss(decoder, views, rows, shape, texture)
        for code in (shape, texture):
            samples = on_sphere(torch.randn(len(rows), CODE, generator=generator)).to(device)
            loss = loss + training.regulariser * sphere_regulariser(on_sphere(code), samples)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if on_step:
            on_step(step, float(loss.detach()))
    decoder.eval()
    shapes, textures = (on_sphere(code.detach()) for code in codes)
    decoder.middle_shape, decoder.middle_texture = (_most_central(c) for c in (shapes, textures))
    return shapes, textures


def _most_central(codes: Float[Tensor, "k 8"]) -> Float[Tensor, "8"]:
    """The code nearest to all others: a car that there is, where the mean of codes may be none."""
    return codes[torch.cdist(codes, codes).sum(1).argmin()]


def view_loss(
    decoder: ConvDecoder,
    views: Views,
    rows: Int[Tensor, " b"],
    shape: Float[Tensor, "b 8"],
    texture: Float[Tensor, "b 8"],
) -> Float[Tensor, ""]:
    """Losses of the released code on some of the views, mean over them: silhouettes of unit length compared by their squared
    distance at five scales, colours by L1 at the same scales, inflation."""
    device = shape.device
    points = decoder.plain_vertices(shape)
    rotation, translation = views.rotation[rows].to(device), views.translation[rows].to(device)
    screen = project(points @ rotation.mT + translation[:, None], views.cameras[rows])
    textures = decoder.textures(texture)
    mesh = Mesh(decoder.sphere.detach(), decoder.faces, decoder.uvs, textures[0]).with_texture(textures)
    size = views.rgba.shape[-1]
    image = render_screen(mesh, screen, size, size)
    target = views.rgba[rows].to(device).float() / 255
    rendered = torch.cat([image.colour, image.silhouette[:, None]], 1)
    loss = INFLATION * inflation(points, decoder.faces)
    for level in range(LEVELS):
        if level:
            rendered, target = F.avg_pool2d(rendered, 2), F.avg_pool2d(target, 2)
        outline, seen = (F.normalize(v[:, 3].flatten(1), dim=1) for v in (rendered, target))
        loss = loss + (outline - seen).square().sum(1).mean()
        loss = loss + (rendered[:, :3] - target[:, :3]).abs().mean()
    return loss


def inflation(points: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """A pull on each corner of each face along the face's normal, of length one whatever its area, sum over corners, mean over
    the batch. Only the gradient means something: it equals the released code's."""
    corners = points[:, faces]
    a, b, c = corners.unbind(2)
    outward = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1).detach()
    return -(corners.sum(2) * outward).sum() / len(points)
