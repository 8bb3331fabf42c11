"""Training of ROI-10D's depth stream alone, from stereo pairs or video, before any detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from monolift.augment.view import View, training_view
from monolift.data.formats.depth_maps import SUFFIXES, read_depth
from monolift.data.kitti import read_image
from monolift.data.scenes import Scene
from monolift.files.folders import find_file
from monolift.files.settings import COUNT, SEED, SHARE, SIDE, Range, check_fields
from monolift.geometry import Camera
from monolift.inference.device import pick_device
from monolift.methods.base import focal_ratio, normalised
from monolift.methods.roi10d.depth import StreamConfig, SuperDepth
from monolift.methods.roi10d.self_supervision import (
    PoseNetwork,
    SideHeads,
    Views,
    align_scale,
    self_supervised_loss,
)
from monolift.typing import Float, Tensor, UInt8

NEAREST, FARTHEST = 1.0, 80.0  # metres in which errors are measured, as is usual on KITTI


@dataclass(frozen=True)
class DepthRecipe:
    """How a depth stream is trained. Rate, schedule and batch as in packnet-sfm; small size and steps are ours, for CPUs."""

    width: int = 640
    """Of the training image, pixels, a multiple of 32 (SuperDepth: 1024)."""
    height: int = 192
    """Of the training image, pixels, a multiple of 32 (SuperDepth: 384)."""
    scales: int = 3
    """Sizes at which depth is predicted and compared, 1 to 3: full, 1/8, 1/16 (packnet-sfm: 4)."""
    steps: int = 4000
    """Adam steps."""
    batch: int = 4
    """Scenes per step."""
    lr: float = 2e-4
    """Learning rate, halved at each quarter of the run."""
    mirror: float = 0.5
    """Share of scenes that are mirrored; of stereo pairs the other view then lies on the other side."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        limits = {
            "width": SIDE, "height": SIDE, "scales": Range(1, 3), "steps": COUNT, "batch": COUNT,
            "lr": Range(0, 10, above=True), "mirror": SHARE, "seed": SEED,
        }  # fmt: skip
        check_fields("depth", self, limits=limits)


@dataclass(frozen=True)
class Errors:
    """Errors of predicted depth where it is known, after the factor ``scale``.

    Attributes:
        abs_rel: mean |d - d*| / d*
        rmse: metres
        within: share of pixels within a factor of 1.25
        scale: factor on the prediction, 1 where its unit is metres
        images: how many had known depths
    """

    abs_rel: float
    rmse: float
    within: float
    scale: float
    images: int


@dataclass
class _Batches:
    """The scenes of a training as batches of network images; all that is random is drawn from (seed, step)."""

    scenes: Sequence[Scene]
    recipe: DepthRecipe
    device: torch.device
    _order: dict[int, list[int]] = field(default_factory=dict)

    def size(self) -> tuple[int, int]:
        return self.recipe.width, self.recipe.height

    def at(self, step: int) -> Views:
        count, recipe = len(self.scenes), self.recipe
        generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) % 2**63)
        chosen = []
        for k in range(step * recipe.batch, (step + 1) * recipe.batch):
            epoch, place = divmod(k, count)
            chosen.append(self.scenes[self._permuted(epoch)[place]])
        flips = (torch.rand(len(chosen), generator=generator) < recipe.mirror).tolist()
        return _stacked([_seen(s, recipe, flip) for s, flip in zip(chosen, flips, strict=True)], self.device)

    def _permuted(self, epoch: int) -> list[int]:
        if epoch not in self._order:
            generator = torch.Generator().manual_seed((self.recipe.seed + 7919 * epoch) % 2**63)
            self._order = {epoch: torch.randperm(len(self.scenes), generator=generator).tolist()}
        return self._order[epoch]


@dataclass(frozen=True)
class _Seen:
    """One scene as network images: colours of target and others, fx, fy, cx, cy, and the others' places."""

    target: Float[Tensor, "3 h w"]
    others: list[Tensor]
    intrinsics: Float[Tensor, " 4"]
    translation: Float[Tensor, "n 3"] | None


def train_stream(
    scenes: Sequence[Scene],
    config: StreamConfig,
    recipe: DepthRecipe,
    device: str = "auto",
    on_step: Callable[[int, float], None] | None = None,
) -> SuperDepth:
    """Train a depth stream on scenes alone; equal seeds give equal streams.

    Args:
        scenes: stereo pairs, whose depth is learnt in metres, or video frames, whose depth has a unit of its own; not both.
        config: the stream's; its ``focal`` is the reference focal length, network pixels.
        recipe: size, steps and rate.
        device: cpu, cuda, cuda:N or auto.
        on_step: called with the number of steps done and the loss.

    Raises:
        FloatingPointError: naming the step, for a loss that is not finite.
    """
    torch.manual_seed(recipe.seed)
    place = torch.device(pick_device(device))
    stream = SuperDepth(config.encoder, config.flip).to(place)
    heads = SideHeads(stream, recipe.scales).to(place)
    pose = PoseNetwork().to(place) if scenes[0].translation is None else None
    parts: list[nn.Module] = [stream, heads, *([pose] if pose is not None else [])]
    weights = [weight for part in parts for weight in part.parameters()]
    optimizer = torch.optim.Adam(weights, recipe.lr)
    batches = _Batches(scenes, recipe, place)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.5 ** math.floor(4 * step / recipe.steps)
        views = batches.at(step)
        unit = focal_ratio(views.intrinsics[:, 0], config.focal)
        loss = self_supervised_loss(stream, heads, pose, views, normalised(views.target), unit)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"step {step + 1}: the loss is not finite: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, float(loss.detach()))
    return stream.eval()


def reference_focal(scenes: Sequence[Scene], recipe: DepthRecipe) -> float:
    """The median focal length of the scenes' network images, pixels."""
    focal = []
    for scene in scenes:
        view = training_view(_Size(recipe.width, recipe.height), scene.camera.width, scene.camera.height)
        focal.append(float(scene.camera.fx) * view.scale)
    return float(torch.tensor(focal).median())


@dataclass(frozen=True)
class _Size:
    input_width: int
    input_height: int
    fit: str = "letterbox"


@torch.no_grad()
def predict_depth(
    stream: SuperDepth, focal: float, size: tuple[int, int], image: UInt8[Tensor, "3 H W"], camera: Camera
) -> Float[Tensor, "H W"]:
    """Depth of every pixel of an image, metres (or the stream's own unit, of a stream that learnt from video).

    Args:
        focal: the stream's reference focal length, 0 for none
        size: (width, height) of its network image.
    """
    view = training_view(_Size(*size), image.shape[2], image.shape[1])
    device = next(stream.parameters()).device
    seen = normalised(view.image(image)[None].to(device).float() / 255)
    ratio = focal_ratio(view.camera(camera).fx.reshape(1).to(seen), focal)
    depth = (stream(seen)[0, 0] * ratio).cpu()
    return _in_source(depth, view, image.shape[2], image.shape[1])


def _in_source(depth: Tensor, view: View, width: int, height: int) -> Tensor:
    """A network image's map at the source image's pixels, bilinear."""
    column = view.scale * (torch.arange(width) + 0.5) - 0.5 - view.left
    row = view.scale * (torch.arange(height) + 0.5) - 0.5 - view.top
    x = 2 * column / max(view.width - 1, 1) - 1
    y = 2 * row / max(view.height - 1, 1) - 1
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)[None]
    return nn.functional.grid_sample(depth[None, None], grid, padding_mode="border", align_corners=True)[0, 0]


def depth_errors(predicted: Sequence[Tensor], known: Sequence[Tensor], scale: float | None = None) -> Errors:
    """Errors over all known pixels between `NEAREST` and `FARTHEST`; scale: None finds the median factor for each image."""
    relative, square, within, count, factors, images = 0.0, 0.0, 0.0, 0, [], 0
    for depth, truth in zip(predicted, known, strict=True):
        here = torch.isfinite(truth) & (truth >= NEAREST) & (truth <= FARTHEST)
        if not bool(here.any()):
            continue
        factor = align_scale(depth[here], truth[here]) if scale is None else scale
        value, aim = (depth[here] * factor).clamp(NEAREST, FARTHEST).double(), truth[here].double()
        relative += float(((value - aim).abs() / aim).sum())
        square += float((value - aim).square().sum())
        within += float((torch.maximum(value / aim, aim / value) < 1.25).sum())
        count += int(here.sum())
        factors.append(factor)
        images += 1
    count = max(count, 1)
    middle = float(torch.tensor(factors).median()) if factors else 1.0
    return Errors(relative / count, math.sqrt(square / count), within / count, middle, images)


def known_depths(folder: str | Path, scenes: Sequence[Scene]) -> list[tuple[Scene, Tensor]]:
    """The scenes of which the folder has a depth map, ID.png or ID.npy, with the map."""
    files = ((scene, find_file(folder, scene.name, SUFFIXES)) for scene in scenes)
    return [(scene, read_depth(file)) for scene, file in files if file is not None]


def _seen(scene: Scene, recipe: DepthRecipe, flip: bool) -> _Seen:
    camera = scene.camera
    view = training_view(_Size(recipe.width, recipe.height), camera.width, camera.height)
    images = [view.image(read_image(path)).float() / 255 for path in (scene.image, *scene.others)]
    camera, translation = view.camera(camera), scene.translation
    if flip:  # u -> W - 1 - u, and x -> -x with it
        images = [image.flip(-1) for image in images]
        camera = camera.after_mirror()
        translation = None if translation is None else translation * translation.new_tensor([-1.0, 1.0, 1.0])
    lens = torch.stack([camera.fx, camera.fy, camera.cx, camera.cy]).float()
    return _Seen(images[0], images[1:], lens, translation)


def _stacked(seen: Sequence[_Seen], device: torch.device) -> Views:
    ways = [one.translation for one in seen if one.translation is not None]
    return Views(
        target=torch.stack([one.target for one in seen]).to(device),
        others=tuple(
            torch.stack(list(views)).to(device) for views in zip(*(one.others for one in seen), strict=True)
        ),
        intrinsics=torch.stack([one.intrinsics for one in seen]).to(device),
        translation=torch.stack(ways).to(device) if ways else None,
    )
