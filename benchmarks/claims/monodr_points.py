"""Depth maps as point clouds in place of eq. 7 (MonoDR, section 4.2): Hausdorff distance and Procrustes analysis.

The paper names both in one sentence and gives neither formulas nor figures; what follows is ours. The cloud is the depth map's
pixels of the object's own mask, lifted ("pseudo-LiDAR"). Nothing else of the image is used, so a rotation is never tried
against its looks.

hausdorff   all variables but the texture descend, with the fit's optimiser and number of steps, on the greatest distance
            between a vertex and the cloud's nearest point, or a point and the nearest vertex
procrustes  the mean car is brought to the cloud by turns: each point takes its nearest vertex, and the best yaw, translation
            and scale of these pairs follow in closed form
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from benchmarks.claims.claim import Figures, Workspace
from benchmarks.claims.monodr_arms import APART, average_precision, fits, geometry, published
from benchmarks.monodr import Found, confidence, images_of, known_cars, loss_cases

from monolift.geometry import Boxes3D, Camera
from monolift.methods.fitter import OWN, Observation
from monolift.methods.monodr import MonoDR, MonoDRConfig
from monolift.methods.monodr.codec import MonoDRCodec, Variables, place
from monolift.methods.monodr.crops import crop
from monolift.methods.monodr.fit import BETAS, NEAREST, SMALLEST, start_depth
from monolift.shapes.textured import CODE, TexturedDecoder
from monolift.typing import Float, Tensor

POINTS, VERTICES = 300, 400
"""Of each cloud and of each mesh, at most, drawn evenly."""
TURNS = 40
EXACT = "donot_use_mm_for_euclid_dist"
"""Of torch.cdist: by a product of matrices it is a centimetre off at 30 metres."""
PORTIONS = 2


def cloud_of(observation: Observation, draw: torch.Generator) -> Float[Tensor, "p 3"]:
    """Points of the object's own pixels, camera frame, metres; `POINTS` of them, some twice where there are fewer."""
    v, u = torch.nonzero((observation.mask == OWN) & (observation.depth > 0), as_tuple=True)
    if not len(v):
        raise ValueError("an object without a depth has no cloud")
    chosen = torch.randint(len(v), (POINTS,), generator=draw)
    pixels = torch.stack([u, v], 1)[chosen].float()
    return observation.camera.cam_from_px(pixels, observation.depth[v, u][chosen])


def start_of(
    observations: Sequence[Observation], config: MonoDRConfig, draw: torch.Generator
) -> tuple[MonoDRCodec, Variables]:
    """The paper's start of the fit: offset 0, mean depth, mean size, rotation and codes N(0, 0.1)."""
    boxes2d = torch.stack([o.box2d for o in observations]).float()
    codec = MonoDRCodec(
        boxes2d, Camera.stack([o.camera for o in observations]), torch.tensor(config.size_mean)
    )
    n = len(observations)
    codes = config.start_codes * torch.randn(n, CODE, generator=draw)
    alpha = config.start_rotation * torch.randn(n, generator=draw)
    depth = start_depth(crop(observations, config), codec, config)
    start = Variables(torch.zeros(n, 2), depth, torch.zeros(n, 3), alpha, codes, torch.zeros(n, CODE))
    return codec, start.leaves()


def hausdorff(vertices: Float[Tensor, "n v 3"], cloud: Float[Tensor, "n p 3"]) -> Float[Tensor, " n"]:
    """Greatest distance of a vertex or a point from the nearest of the others, metres."""
    apart = torch.cdist(vertices, cloud, compute_mode=EXACT)
    return torch.maximum(apart.amin(2).amax(1), apart.amin(1).amax(1))


def by_hausdorff(
    observations: Sequence[Observation], decoder: TexturedDecoder, config: MonoDRConfig, draw: torch.Generator
) -> Boxes3D:
    """Boxes of the meshes of the least Hausdorff distance to their clouds."""
    codec, variables = start_of(observations, config, draw)
    cloud = torch.stack([cloud_of(o, draw) for o in observations])
    moved = [variables.offset, variables.depth, variables.size, variables.alpha, variables.shape]
    optimiser = torch.optim.Adam(moved, lr=config.lr, betas=BETAS)
    chosen = _chosen(decoder)
    for _ in range(config.iterations):
        vertices = place(decoder.vertices(variables.shape)[:, chosen], codec.decode(variables))
        optimiser.zero_grad()
        hausdorff(vertices, cloud).sum().backward()
        optimiser.step()
        with torch.no_grad():
            variables.depth.clamp_(min=NEAREST)
            variables.size.clamp_(min=SMALLEST - codec.size_mean)
    with torch.no_grad():
        return codec.decode(variables)


@torch.no_grad()
def by_procrustes(
    observations: Sequence[Observation], decoder: TexturedDecoder, config: MonoDRConfig, draw: torch.Generator
) -> Boxes3D:
    """Boxes of the mean car brought to the clouds by yaw, translation and scale."""
    codec, start = start_of(observations, config, draw)
    boxes = codec.decode(start)
    cloud = torch.stack([cloud_of(o, draw) for o in observations])
    unit = decoder.vertices(decoder.middle_shape[None])[:, _chosen(decoder)].expand(len(cloud), -1, -1)
    for _ in range(TURNS):
        vertices = place(unit, boxes)
        nearest = torch.cdist(cloud, vertices, compute_mode=EXACT).argmin(2)
        paired = vertices.gather(1, nearest[..., None].expand(-1, -1, 3))
        boxes = moved_onto(boxes, paired, cloud)
    return boxes


def moved_onto(boxes: Boxes3D, paired: Float[Tensor, "n p 3"], cloud: Float[Tensor, "n p 3"]) -> Boxes3D:
    """Boxes turned about y, scaled and shifted as points of theirs come nearest to others in the least squares (Umeyama)."""
    middles = paired.mean(1, keepdim=True), cloud.mean(1, keepdim=True)
    own, other = paired - middles[0], cloud - middles[1]
    # yaw turns (x, z) as [[c, s], [-s, c]]
    along = (own[..., [0, 2]] * other[..., [0, 2]]).sum((1, 2))
    across = (own[..., 2] * other[..., 0] - own[..., 0] * other[..., 2]).sum(1)
    turn = torch.atan2(across, along)
    matched = torch.sqrt(along**2 + across**2) + (own[..., 1] * other[..., 1]).sum(1)
    scale = (matched / own.square().sum((1, 2)).clamp_min(1e-6)).clamp(0.5, 2)
    alone = Boxes3D(torch.zeros_like(boxes.center), torch.ones_like(boxes.size), turn)
    center = scale[:, None] * place((boxes.center[:, None] - middles[0]), alone)[:, 0] + middles[1][:, 0]
    size = (boxes.size * scale[:, None]).clamp_min(SMALLEST)
    return Boxes3D(center, size, torch.remainder(boxes.yaw + turn + math.pi, 2 * math.pi) - math.pi)


def _chosen(decoder: TexturedDecoder) -> Tensor:
    """Every so many of a mesh's vertices."""
    count = decoder.vertices(decoder.middle_shape[None]).shape[1]
    return torch.arange(0, count, max(1, count // VERTICES))


Way = Callable[[Sequence[Observation], TexturedDecoder, MonoDRConfig, torch.Generator], Boxes3D]
WAYS: dict[str, Way] = {"Hausdorff": by_hausdorff, "Procrustes": by_procrustes}


def point_arms(workspace: Workspace) -> Figures:
    """Geometry and AP of both, beside eq. 2 in full and its depth loss alone: arm -> figure -> one value per seed."""
    case = loss_cases(published(), 3)
    rendered = [one for one in case if one.name in ("full", "depth only")]
    figures: dict[str, dict[str, list[object]]] = {}
    for seed in workspace.seeds:
        folder = workspace.out / "monodr-tables"
        arms = fits(rendered, seed, PORTIONS, folder)
        arms |= {name: _fitted(way, seed) for name, way in WAYS.items()}
        for arm, found in arms.items():
            score = found.score if arm in WAYS else confidence(found)
            corpus = folder / "corpora" / f"points-{arm}-{seed}"
            for key, value in (geometry(found) | average_precision(found, score, corpus)).items():
                figures.setdefault(arm, {}).setdefault(key, []).append(value)
    return figures


def _fitted(way: Way, seed: int) -> Found:
    """The cars of the tables' portions, each portion fitted by one way."""
    config, case = published(), loss_cases(published(), 3)[0]
    decoder, images = MonoDR(config).decoder, images_of(case)
    kept: dict[str, list[np.ndarray]] = {}
    for k in range(PORTIONS):
        cars = known_cars(images, per_image=case.per_image, seed=APART * seed + k, noise=case.noise)
        boxes = way(cars.observations, decoder, config, torch.Generator().manual_seed(seed))
        rows = {
            "found": _rows(boxes), "start": _rows(boxes), "truth": _rows(cars.boxes),
            "image": np.array(cars.image, float) + images * k, "visible": np.array(cars.visible, float),
            "boxes2d": np.stack([o.box2d.numpy() for o in cars.observations]).astype(float),
            "score": np.array([o.score for o in cars.observations], float),
        }  # fmt: skip
        zeros = np.zeros(len(cars.image))
        for key, value in {**rows, "silhouette": zeros, "protrusion": zeros}.items():
            kept.setdefault(key, []).append(value)
    return Found(**{key: np.concatenate(parts) for key, parts in kept.items()})


def _rows(boxes: Boxes3D) -> np.ndarray:
    return torch.cat([boxes.center, boxes.size, boxes.yaw[:, None]], 1).double().numpy()
