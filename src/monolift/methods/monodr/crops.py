"""Square crops of the observed objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch

from monolift.geometry import Camera
from monolift.methods.fitter import OTHER, OWN, Observation
from monolift.methods.monodr.config import MonoDRConfig
from monolift.render.crops import crop_cameras
from monolift.typing import Bool, Float, Int, Tensor

_NEAR_SIDE = 0.15  # share of the visible part's extent that counts as being at its side
_TOUCHING = 0.3  # share of the object's border there that must touch something for the side to be open


@dataclass(frozen=True)
class Crops:
    """N objects, S x S pixels each.

    colour:     (N, 3, S, S) 0 to 1
    foreground: (N, S, S) share of the pixel that is the object
    valid:      (N, S, S) share of the pixel of which that is known
    depth:      (N, S, S) metres, mean over the object's own pixels of known depth; where there are none, 0
    depth_share: (N, S, S) share of the pixel that these are; with ``depth_balance`` times as many as the object's pixels are to
                those of them with a depth: the points of a laser weigh as much as a dense map
    compared_depth, compared_share: the same of the pixels that eq. 7 compares, ``depth_pixels``
    boxes:      (N, 4) the 2D boxes in the crops' pixels
    open_sides: (N, 4) sides (x1, y1, x2, y2) behind which the object may go on
    cameras:    (N,) of the crops
    image:    (N,) which image each object is from, 0, 1, 2 ...
    """

    colour: Float[Tensor, "n 3 s s"]
    foreground: Float[Tensor, "n s s"]
    valid: Float[Tensor, "n s s"]
    depth: Float[Tensor, "n s s"]
    depth_share: Float[Tensor, "n s s"]
    compared_depth: Float[Tensor, "n s s"]
    compared_share: Float[Tensor, "n s s"]
    boxes: Float[Tensor, "n 4"]
    open_sides: Bool[Tensor, "n 4"]
    cameras: Camera
    image: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.colour)

    def to(self, device: torch.device) -> Crops:
        """On another device."""
        return Crops(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def seen(self) -> Bool[Tensor, " n"]:
        """(N,) whether anything of the object is there to be fitted."""
        return self.foreground.flatten(1).sum(1) > 0


def crop(observations: Sequence[Observation], config: MonoDRConfig) -> Crops:
    """The crops of one or more objects, as the configuration reads their masks."""
    size = config.crop
    boxes = torch.stack([o.box2d for o in observations]).double()
    cameras = crop_cameras(Camera.stack([o.camera for o in observations]), boxes, size, config.margin)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1) * (1 + 2 * config.margin)
    corner = (boxes[:, :2] + boxes[:, 2:]) / 2 - side[:, None] / 2
    views = [_view(o, c, float(s), size) for o, c, s in zip(observations, corner, side, strict=True)]
    colour, own, other, beyond, depth, depth_share = (torch.stack(v) for v in zip(*views, strict=True))
    if config.depth_balance:
        known, area = depth_share.sum((1, 2)), own.sum((1, 2))
        depth_share = depth_share * (area / known.clamp_min(1e-6))[:, None, None]
    compared = depth, depth_share
    if config.depth_pixels == "foreground":
        compared = _union_depth(observations, corner, side, config)
    hidden = other + beyond
    if config.others == "unknown":
        foreground, valid = own, (1 - hidden).clamp(0, 1)
    else:  # the paper: the union of all masks, and nothing beyond the image
        foreground, valid = own + other, torch.ones_like(own)
    open_sides = torch.zeros(len(own), 4, dtype=torch.bool)
    if config.box_sides == "one-sided":
        open_sides = _open_sides(own > 0.5, hidden > 0.5)
    in_crop = (boxes - corner.repeat(1, 2)) * (size / side)[:, None] - 0.5
    keys = {key: k for k, key in enumerate(dict.fromkeys(o.image.data_ptr() for o in observations))}
    image = torch.tensor([keys[o.image.data_ptr()] for o in observations])
    return Crops(
        colour, foreground, valid, depth, depth_share, *compared, in_crop.float(), open_sides, cameras, image
    )


def _union_depth(
    observations: Sequence[Observation], corner: Tensor, side: Tensor, config: MonoDRConfig
) -> tuple[Tensor, Tensor]:
    """Depth and share of all masks' pixels, MonoDR eq. 7: I^F is the union of the masks, so pixels of whatever stands before
    or beside the object count where the object is rendered."""
    views = []
    for o, c, s in zip(observations, corner, side, strict=True):
        resample = _resampler(o, c, float(s), config.crop)[0]
        foreground = (o.mask == OWN) | (o.mask == OTHER)
        depth, share = _mean_depth(o, foreground, resample)
        if config.depth_balance:
            share = share * resample(foreground).sum() / share.sum().clamp_min(1e-6)
        views.append((depth, share))
    depths, shares = zip(*views, strict=True)
    return torch.stack(depths), torch.stack(shares)


def _view(
    observation: Observation, corner: Tensor, side: float, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """colour, own, other, beyond the border, depth, depth_share of one object. corner (2,): x, y where the window begins."""
    resample, inside = _resampler(observation, corner, side, size)
    mask = observation.mask
    metres, share = _mean_depth(observation, mask == OWN, resample)
    colour = resample(observation.image) / 255 / inside.clamp_min(1e-6)
    return colour, resample(mask == OWN), resample(mask == OTHER), 1 - inside, metres, share


def _resampler(
    observation: Observation, corner: Tensor, side: float, size: int
) -> tuple[Callable[[Tensor], Tensor], Float[Tensor, "s s"]]:
    """What brings values of the image's pixels (..., H, W) to the crop's, and the share of each crop pixel that is inside the
    image."""
    height, width = observation.mask.shape
    across, columns = _weights(float(corner[0]), side, size, width)
    down, rows = _weights(float(corner[1]), side, size, height)

    def resample(values: Tensor) -> Tensor:
        return down @ values[..., rows, columns].float() @ across.T

    return resample, down.sum(1)[:, None] * across.sum(1)


def _mean_depth(
    observation: Observation, where: Bool[Tensor, "H W"], resample: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "s s"], Float[Tensor, "s s"]]:
    """Mean of the known depths of the pixels ``where``, metres, and the share of each crop pixel that they are."""
    depth = observation.depth
    known = where & (depth > 0) & depth.isfinite()
    share = resample(known)
    return resample(torch.where(known, depth, 0)) / share.clamp_min(1e-6), share


def _weights(start: float, side: float, size: int, length: int) -> tuple[Float[Tensor, "s p"], slice]:
    """How much each pixel of a slice of a row (or column) of ``length`` gives to each of ``size`` crop pixels.

    Triangles as wide as the coarser of the two grids: interpolation where the crop is finer, and where it is coarser no
    aliasing. A crop pixel's weights sum to 1, less what lies beyond the image.
    """
    step = side / size
    reach = max(1.0, step)
    center = start + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    first = max(int(start - reach), 0)
    last = min(int(start + side + reach) + 1, length)
    if last <= first:
        return torch.zeros(size, 0), slice(0, 0)
    every = torch.arange(int(start - reach) - 1, int(start + side + reach) + 2)
    weight = (1 - (center[:, None] - every).abs() / reach).clamp_min(0)
    weight = weight / weight.sum(1, keepdim=True)
    within = (every >= first) & (every < last)
    return weight[:, within].float(), slice(first, last)


def _open_sides(own: Bool[Tensor, "n s s"], hidden: Bool[Tensor, "n s s"]) -> Bool[Tensor, "n 4"]:
    """Sides at which the object's border touches what is hidden: another instance or the image's border."""
    turned = [(own, hidden), (own.mT, hidden.mT)]
    sides = [_left_is_open(o, h) for o, h in turned] + [
        _left_is_open(o.flip(2), h.flip(2)) for o, h in turned
    ]
    return torch.stack(sides, 1)


def _left_is_open(own: Bool[Tensor, "n s s"], hidden: Bool[Tensor, "n s s"]) -> Bool[Tensor, " n"]:
    size = own.shape[2]
    has = own.any(2)
    first = torch.where(has, own.float().argmax(2), size)  # (N, S) the object's first column in each row
    columns = own.any(1).sum(1)
    near = has & (first <= (first.amin(1) + _NEAR_SIDE * columns)[:, None])
    # The masks' borders are soft: what is hidden may begin one or two pixels on.
    before = torch.stack(
        [hidden.gather(2, (first - k).clamp(0, size - 1)[..., None])[..., 0] for k in (1, 2)]
    )
    touching = (before.any(0) & near).sum(1)
    return touching > _TOUCHING * near.sum(1)
