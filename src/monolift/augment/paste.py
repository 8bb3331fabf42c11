"""ROI-10D's synthetic 3D augmentation: cars of one image pasted into another at a new place (section 3.4).

A car is moved along a random ray to a random distance and seen as before: its observation angle stays, but for a small turn,
so that the texture shows what the image shows. It stands on the ground, at the height of the original or, where the image's
own labels tell better, at theirs. The labels of what is pasted are complete and exact.

Deviations from the paper: there the full allocentric rotation is kept, which tips a car that comes nearer on its road;
here its azimuth is. A soft shadow is put under the car, and its brightness is brought near to that of the image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter

from monolift.augment.cutouts import Cutout, brightness
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera, clip_to_image, wrap
from monolift.geometry.rotations import matrix_from_yaw
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.shapes.projective_texture import placed
from monolift.typing import Bool, Float, Tensor
from monolift.world.labels import LARGELY, PARTLY, bounds_inside

Window = tuple[slice, slice]

CAMERA_HEIGHT_SPREAD, SLOPE_SPREAD, LABEL_SPREAD = 0.15, 0.01, 0.1
"""How far the ground may be from the original's height (m), how much it may rise (m per m), how exact labels are (m)."""
SHADOW_STRENGTH, SHADOW_SIZE, SHADOW_BLUR = 0.7, 1.12, 0.12
"""Of the shadow under a car: darkening in its middle, size over that of the footprint, softness in metres."""
DEPTH_TOLERANCE = 0.3
"""Metres by which the scene must be nearer to hide a pasted pixel: wheels stand on the ground they are compared with."""


@dataclass(frozen=True)
class PasteOptions:
    """Limits on the placement of pasted cars."""

    up_to: int = 3
    """Cars per image."""
    near: float = 5.0
    """Least distance, metres."""
    far: float = 45.0
    """Largest distance, metres."""
    side: float = 11.0
    """Largest distance to the left or right of the camera, metres."""
    turn: float = math.radians(10)
    """Largest change of the observation angle, radians."""
    enlarge: float = 1.5
    """Maximum magnification of a pasted car; beyond it the texture is blurred."""
    min_height: float = 22.0
    """Of the pasted car in the image, pixels."""
    max_truncation: float = 0.5
    """Share that may lie outside the image."""
    max_hidden: float = 0.6
    """Share that nearer things may hide, where depth is known."""
    tries: int = 8
    """Places tried for each car."""
    device: str = "cpu"
    """Where cars are rendered; images of two devices are equal to rounding."""


def paste(
    sample: Sample, rng: np.random.Generator, bank: Sequence[Cutout], options: PasteOptions | None = None
) -> Sample:
    """The sample with up to ``options.up_to`` cars of the bank in it: image, labels, and depth and instances if it has any.

    No pasted 2D box touches a labelled or pasted one or a region that is not labelled (the paper's samples are free of
    occlusion by design). Where depth is known, nearer things stay in front.
    """
    options = options or PasteOptions()
    planned: list[_Plan] = []
    for _ in range(int(rng.integers(1, options.up_to + 1))):
        for _ in range(options.tries):
            plan = _plan(sample, rng, bank, options)
            if plan is not None and _is_free(plan.box2d, sample, planned):
                planned.append(plan)
                break
    for plan in sorted(
        planned, key=lambda p: -float(p.center[2])
    ):  # the nearest last, over the shadows of the others
        sample = _put(sample, plan, options)
    return sample


@dataclass(frozen=True)
class _Plan:
    """A cutout and where it is to stand; box2d (4,) is that of its 3D box, inside the image."""

    cutout: Cutout
    center: Float[Tensor, " 3"]
    yaw: Float[Tensor, ""]
    box2d: Float[Tensor, " 4"]

    @property
    def boxes(self) -> Boxes3D:
        return Boxes3D(self.center[None], self.cutout.size[None], self.yaw[None])


def _plan(
    sample: Sample, rng: np.random.Generator, bank: Sequence[Cutout], options: PasteOptions
) -> _Plan | None:
    """A random car on a random ray; None where it may not stand."""
    cutout = bank[int(rng.integers(len(bank)))]
    camera = sample.camera
    nearest = max(options.near, float(camera.fx) / (options.enlarge * cutout.resolution))
    column, chance, turn = rng.uniform(-0.5, camera.width - 0.5), rng.random(), rng.uniform(-1, 1)
    if nearest >= options.far:
        return None
    z = nearest * (options.far / nearest) ** chance
    x = float(camera.cam_from_px(torch.tensor([column, 0.0]).double(), torch.tensor(z).double())[0])
    if abs(x) > options.side:
        return None
    y = ground_height(sample, z, cutout.bottom) - float(cutout.size[1]) / 2
    center = torch.tensor([x, y, z])
    yaw = wrap(torch.tensor(cutout.alpha + math.atan2(x, z) + options.turn * turn))
    plan = _Plan(cutout, center, yaw, torch.zeros(4))
    whole = plan.boxes.projected(camera, clip=False)[0]
    inside = camera.clip(whole)
    area = [float((b[2:] - b[:2]).clamp_min(0).prod()) for b in (inside, whole)]
    if float(inside[3] - inside[1]) < options.min_height or area[0] < (1 - options.max_truncation) * area[1]:
        return None
    return dataclasses.replace(plan, box2d=inside)


def ground_height(sample: Sample, z: float, expected: float) -> float:
    """Height (y, metres) of the ground at a distance: a line through the bottoms of the image's labelled objects, drawn
    towards a level ground at the expected height. The maximum a posteriori of Gaussian errors of the three spreads above."""
    bottoms = sample.boxes.bottom.double()
    near = (bottoms[:, 2] > 1) & (bottoms[:, 2] < 70)
    rows = torch.stack([torch.ones(int(near.sum())).double(), bottoms[near, 2]], 1) / LABEL_SPREAD
    offsets = (bottoms[near, 1] - expected) / LABEL_SPREAD
    prior = torch.diag(torch.tensor([1 / CAMERA_HEIGHT_SPREAD, 1 / SLOPE_SPREAD]).double())
    design = torch.cat([rows, prior])
    fitted = torch.linalg.solve(design.T @ design, rows.T @ offsets)
    return expected + float(fitted[0] + fitted[1] * z)


def _is_free(box2d: Float[Tensor, " 4"], sample: Sample, planned: Sequence[_Plan]) -> bool:
    """Whether a rectangle touches none that is labelled, planned, or of a region without labels."""
    taken = torch.cat([sample.boxes2d, sample.ignore, *(p.box2d[None] for p in planned)])
    apart = (
        (taken[:, 0] > box2d[2])
        | (taken[:, 2] < box2d[0])
        | (taken[:, 1] > box2d[3])
        | (taken[:, 3] < box2d[1])
    )
    return bool(apart.all())


# --- the image


def _put(sample: Sample, plan: _Plan, options: PasteOptions) -> Sample:
    """The sample with one more car; unchanged where too much of it would be hidden."""
    camera, cutout = sample.camera, plan.cutout
    width, height = sample.size
    margin = 2 + round(0.3 * float(plan.box2d[3] - plan.box2d[1]))  # room for the shadow
    left, top = (max(int(v) - margin, 0) for v in plan.box2d[:2])
    right, bottom = (
        min(int(plan.box2d[2]) + margin, width - 1) + 1,
        min(int(plan.box2d[3]) + margin, height - 1) + 1,
    )
    window = (slice(top, bottom), slice(left, right))
    crop = camera.after_crop(left, top, right - left, bottom - top)

    mesh = placed(_resampled(cutout, float(camera.fx) / float(plan.center[2])), plan.center, plan.yaw)
    there = mesh if options.device == "cpu" else mesh.to(options.device)
    seen = render(there, Camera.stack([crop]).to(options.device))
    colour, cover, depth = (maps[0].cpu() for maps in (seen.colour, seen.silhouette, seen.depth))
    # Smoothed edges spread to pixels whose centre sees no face: their neighbour's depth
    depth = torch.where(depth > 0, depth, F.max_pool2d(depth[None], 3, 1, 1)[0])
    behind = torch.zeros_like(cover, dtype=torch.bool)
    if sample.depth is not None:
        scene = sample.depth[window]
        behind = (scene > 0) & (scene < depth - DEPTH_TOLERANCE)
    drawn = (cover > 0.5) & ~behind
    hidden = 1 - float(drawn.sum()) / max(float((cover > 0.5).sum()), 1.0)
    if not bool(drawn.any()) or hidden > options.max_hidden:
        return sample

    gain = min(max(brightness(sample.image) / max(cutout.brightness, 1e-3), 0.7), 1.4)
    colour, cover = (torch.where(behind, 0.0, values) for values in (colour, cover))
    below = sample.image[:, window[0], window[1]].float() * (1 - _shadow(plan, sample, crop, window))
    image = sample.image.clone()
    over = 255 * gain * colour + (1 - cover) * below  # colour is weighted by cover already
    image[:, window[0], window[1]] = over.clamp(0, 255).round().to(torch.uint8)
    pasted = dataclasses.replace(sample, image=image)
    if sample.depth is not None:
        pasted = dataclasses.replace(pasted, depth=_overwritten(sample.depth, window, drawn, depth[drawn]))
    if sample.instances is not None:
        number = torch.tensor(len(sample) + 1).to(sample.instances)
        pasted = dataclasses.replace(pasted, instances=_overwritten(sample.instances, window, drawn, number))
    return _labelled(pasted, plan, camera.px_from_cam(mesh.vertices)[mesh.faces], hidden)


def _overwritten(values: Tensor, window: Window, where: Bool[Tensor, "h w"], new: Tensor) -> Tensor:
    values = values.clone()
    values[window][where] = new
    return values


def _labelled(sample: Sample, plan: _Plan, pixels: Float[Tensor, "f 3 2"], hidden: float) -> Sample:
    """The sample with the label of a car whose faces' corners are seen at these pixels."""
    whole = torch.cat([pixels.amin((0, 1)), pixels.amax((0, 1))])
    # Of a truncated car the rectangle of what lies in the image, as KITTI has it, not the cut rectangle of the whole.
    seen = bounds_inside(pixels.double().numpy(), *sample.size)
    box2d = plan.box2d if seen is None else torch.from_numpy(seen).float()
    cut = clip_to_image(whole, *sample.size)
    inside, full = (float((b[2:] - b[:2]).prod()) for b in (cut, whole))
    occlusion = 0 if hidden <= PARTLY else 1 if hidden <= LARGELY else 2
    return dataclasses.replace(
        sample,
        boxes=Boxes3D.cat([sample.boxes, plan.boxes]),
        rotation=None
        if sample.rotation is None
        else torch.cat([sample.rotation, matrix_from_yaw(plan.boxes.yaw).to(sample.rotation)]),
        classes=(*sample.classes, plan.cutout.class_name),
        boxes2d=torch.cat([sample.boxes2d, box2d[None]]),
        truncation=torch.cat([sample.truncation, torch.tensor([1 - inside / full])]),
        occlusion=torch.cat([sample.occlusion, torch.tensor([occlusion])]),
    )


def _resampled(cutout: Cutout, resolution: float) -> Mesh:
    """The cutout's mesh with a texture no finer than the image it goes to (pixels per metre), or it would flicker."""
    texture = cutout.mesh.texture
    assert texture is not None
    shrink = min(1.0, resolution / cutout.resolution)
    size = [max(1, round(n * shrink)) for n in texture.shape[1:]]
    return cutout.mesh.with_texture(F.interpolate(texture[None], size, mode="area")[0])


def _shadow(plan: _Plan, sample: Sample, crop: Camera, window: Window) -> Float[Tensor, "h w"]:
    """How much the ground is darkened: the car's footprint with soft edges, not over what is labelled or stands before it."""
    width, height = crop.width, crop.height
    ground = plan.boxes.corners()[0, :4]
    middle = ground.mean(0)
    blot = Image.new("L", (width, height))
    outline = [tuple(p) for p in crop.px_from_cam(middle + SHADOW_SIZE * (ground - middle)).tolist()]
    ImageDraw.Draw(blot).polygon(outline, fill=255)
    blur = SHADOW_BLUR * float(crop.fx) / float(plan.center[2])
    shade = torch.from_numpy(np.array(blot.filter(ImageFilter.GaussianBlur(blur)))).float() / 255
    corner = sample.boxes2d.new_tensor([window[1].start, window[0].start])
    low = (sample.boxes2d[:, :2] - corner).floor().long().clamp_min(0)
    high = (sample.boxes2d[:, 2:] - corner).ceil().long().clamp_min(-1) + 1
    for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True):
        shade[y1:y2, x1:x2] = 0
    if sample.depth is not None:
        scene = sample.depth[window]
        shade[(scene > 0) & (scene < float(ground[:, 2].min()) - 2 * DEPTH_TOLERANCE)] = 0
    return SHADOW_STRENGTH * shade
