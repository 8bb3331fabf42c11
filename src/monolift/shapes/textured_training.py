"""Training of the textured decoder on the procedural family: minutes on one core, and no file is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from monolift.shapes.car_mesh import (
    ATLAS,
    BODY_ROWS,
    RING,
    STATIONS,
    body_grid,
    build_mesh,
    ring_row,
    topology,
)
from monolift.shapes.car_texture import paint, sample_style
from monolift.shapes.procedural import CarShape, sample_shape
from monolift.shapes.textured import CODE, BasisDecoder, on_sphere
from monolift.typing import Float, Tensor

FloatArray = npt.NDArray[np.floating]

REDUCTION = 2
"""The decoder's texture has so many times fewer rows and columns than the family's: crops are small."""
TEXELS = 1024
"""So many random texels are compared in a training step: all of them would cost more than all the rest."""


@dataclass(frozen=True)
class Family:
    """N cars to learn from: vertices (N, V, 3) in unit boxes, textures (N, 3, h, w) as a camera shows them."""

    vertices: Float[Tensor, "n v 3"]
    textures: Float[Tensor, "n 3 h w"]

    @classmethod
    def sample(cls, cars: int, seed: int = 0) -> Family:
        """Cars with KITTI's shares of kinds, each in a light of its own."""
        drawn = list(_sample(cars, seed))
        vertices, textures = (np.stack(values) for values in zip(*drawn, strict=True))
        return cls(torch.from_numpy(vertices).float(), torch.from_numpy(textures).float())


def _sample(cars: int, seed: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    for k in range(cars):
        rng = np.random.default_rng([seed, k])
        shape = sample_shape(rng)
        size = np.array([shape.length, shape.height, shape.width])
        material = paint(shape, sample_style(rng, shape.kind))
        seen = lit(material, _texel_normals(shape), rng)
        h, w = ATLAS[0] // REDUCTION, ATLAS[1] // REDUCTION
        yield (
            build_mesh(shape).vertices / size,
            seen.reshape(h, REDUCTION, w, REDUCTION, 3).mean((1, 3)).transpose(2, 0, 1),
        )


def _texel_normals(shape: CarShape) -> FloatArray:
    """(128, 256, 3) outward normals on the side with z >= 0; those of the wheels' patch look sideways."""
    grid = body_grid(shape)[1]
    normals = np.zeros((*ATLAS, 3))
    normals[..., 2] = 1
    station = np.linspace(0, STATIONS - 1, ATLAS[1])
    ring = np.interp((np.arange(BODY_ROWS) + 0.5) / ATLAS[0], ring_row(), np.arange(RING))
    for c in range(3):
        along = np.stack([np.interp(station, np.arange(STATIONS), grid[:, r, c]) for r in range(RING)])
        normals[:BODY_ROWS, :, c] = np.stack(
            [np.interp(ring, np.arange(RING), along[:, s]) for s in range(ATLAS[1])], 1
        )
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def lit(material: FloatArray, normals: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(h, w, 3) what a camera shows, 0 to 1, of a material (h, w, 4: linear RGB and gloss) in a random light.

    Sun and sky on a matt surface, and as much sky mirrored in what is glossy as a middling view would show. The sun stands on
    the side of the car that the image will show: the other shares the texels and is not seen at the same time.
    """
    overcast = rng.random() < 0.35
    elevation, azimuth = np.radians(rng.uniform(15, 65)), rng.uniform(-np.pi, np.pi)
    sun = np.array(
        [np.cos(elevation) * np.cos(azimuth), -np.sin(elevation), np.cos(elevation) * np.sin(azimuth)]
    )
    direct = np.array([1.0, 0.93, 0.82]) * (rng.uniform(0, 0.35) if overcast else rng.uniform(1.2, 2.0))
    diffuse = np.array([0.9, 0.96, 1.04]) * (rng.uniform(0.8, 1.1) if overcast else rng.uniform(0.35, 0.6))
    if rng.random() < 0.25:  # in the shade of a house
        direct = direct * 0
    facing = np.maximum(normals @ sun, 0)[..., None]
    shade = (0.62 - 0.38 * normals[..., 1:2]) * diffuse + facing * direct
    sky = np.clip(0.6 - 0.5 * normals[..., 1:2], 0.2, 1) * np.array([0.85, 0.9, 0.97])
    light = material[..., :3] * shade + material[..., 3:] * rng.uniform(0.06, 0.25) * sky
    tone = np.clip(light * np.exp(rng.normal(0.05, 0.22)), 0, 1) ** (1 / 2.2)
    return np.clip(0.45 + (tone - 0.45) * rng.uniform(1.0, 1.25), 0, 1)


def sphere_regulariser(codes: Float[Tensor, "n d"], samples: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """One of the two sums of MonoDR eq. 1: each random point of the sphere pulls the nearest code of the batch, so that
    codes spread over all of it. Mean over the samples of the least L1 distance."""
    return torch.cdist(samples, codes, p=1).amin(1).mean()


@dataclass(frozen=True)
class TrainingReport:
    """Mean errors over the training cars: vertices in metres of a car of mean size, texture in units of 1/255; and the same
    of the mean car, for comparison."""

    shape: float
    texture: float
    shape_of_mean: float
    texture_of_mean: float


def train_textured(
    family: Family,
    mean_size: tuple[float, float, float],
    steps: int = 3000,
    batch: int = 128,
    shape_components: int = 20,
    texture_components: int = 24,
    regulariser: float = 0.02,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[BasisDecoder, TrainingReport]:
    """An auto-decoder: principal components of the family, then networks and a code per car, by L1 on vertices (in units of
    their spread) and texels, and eq. 1. Seconds for the components, a few milliseconds per step.

    mean_size: length, height, width in metres of the car in whose scale errors are reported. steps, batch: of Adam.
    components: at least eight, the first guess of the codes. regulariser: weight of eq. 1. on_step: called with steps done
    and to do.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the networks' first weights
    faces, uv = topology()
    faces_t = torch.from_numpy(np.ascontiguousarray(faces)).long()
    uvs = torch.from_numpy(uv).float()[faces_t]
    bases, codes = {}, {}
    for name, values, count in (
        ("shape", family.vertices, shape_components),
        ("texture", family.textures, texture_components),
    ):
        mean, basis, scores = principal_components(values, count)
        bases[name] = (mean, basis)
        codes[name] = torch.nn.Parameter(on_sphere(scores[:, :CODE] / scores[:, :1].std()))
    decoder = BasisDecoder(faces_t, uvs, bases["shape"], bases["texture"])
    optimiser = torch.optim.Adam([*decoder.parameters(), *codes.values()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    painted = family.textures.flatten(2).transpose(1, 2).contiguous()
    for step in range(steps):
        rows = torch.randint(len(family.vertices), (batch,), generator=generator)
        shape, texture = (codes[n][rows] for n in ("shape", "texture"))
        error_shape = (decoder.plain_vertices(shape) - family.vertices[rows]).abs().mean()
        texels = torch.randint(painted.shape[1], (TEXELS,), generator=generator)
        told = decoder.texels(texture, texels)
        error_texture = (told - painted[rows[:, None], texels]).abs().mean()
        spread = sum(
            sphere_regulariser(on_sphere(code), on_sphere(torch.randn(batch, CODE, generator=generator)))
            for code in (shape, texture)
        )
        loss = 100 * error_shape + 10 * error_texture + regulariser * spread
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if on_step:
            on_step(step + 1, steps)
    return _finished(decoder, codes, family, torch.tensor(mean_size))


def principal_components(
    values: Float[Tensor, "n *rest"], count: int
) -> tuple[Float[Tensor, "*rest"], Float[Tensor, "k *rest"], Float[Tensor, "n k"]]:
    """Mean, the ``count`` leading components scaled to the family's standard deviation along them, and each one's scores."""
    mean = values.mean(0)
    flat = (values - mean).flatten(1)
    # the Gram matrix of the cars is small where that of the texels is not
    power, vectors = torch.linalg.eigh((flat @ flat.T).double())
    power, vectors = power[-count:].flip(0).clamp_min(0), vectors[:, -count:].flip(1).float()
    deviation = (power / len(values)).sqrt().float()
    scores = vectors * len(values) ** 0.5  # unit variance
    basis = (vectors.T @ flat) / power.sqrt().float()[:, None] * deviation[:, None]
    return mean, basis.view(-1, *mean.shape), scores


@torch.no_grad()
def _finished(
    decoder: BasisDecoder,
    codes: dict[str, torch.nn.Parameter],
    family: Family,
    mean_size: Float[Tensor, "3"],
) -> tuple[BasisDecoder, TrainingReport]:
    """The decoder with its middle codes set, and how well it tells the training cars."""
    shapes, textures = decoder.plain_vertices(codes["shape"]), decoder.textures(codes["texture"])
    of_shape = ((shapes - family.vertices) * mean_size).norm(dim=-1).mean()
    of_texture = (textures - family.textures).abs().mean() * 255
    mean_shape = ((family.vertices.mean(0) - family.vertices) * mean_size).norm(dim=-1).mean()
    mean_texture = (family.textures.mean(0) - family.textures).abs().mean() * 255
    decoder.middle_shape = on_sphere(codes["shape"])[
        (shapes - family.vertices.mean(0)).flatten(1).norm(dim=1).argmin()
    ]
    decoder.middle_texture = on_sphere(codes["texture"])[
        (textures - family.textures.mean(0)).flatten(1).norm(dim=1).argmin()
    ]
    report = TrainingReport(*(float(v) for v in (of_shape, of_texture, mean_shape, mean_texture)))
    return decoder.eval().requires_grad_(False), report
