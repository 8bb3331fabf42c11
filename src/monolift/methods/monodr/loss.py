"""MonoDR's losses between rendering and observation, eqs. 2 to 7, per object."""

from __future__ import annotations

import torch

from monolift.geometry import iou_2d_paired
from monolift.methods.monodr.config import MonoDRConfig
from monolift.methods.monodr.crops import Crops
from monolift.render.renderer import Rendering
from monolift.typing import Bool, Float, Tensor


def pixel_loss(
    colour: Float[Tensor, "n 3 s s"], observed: Float[Tensor, "n 3 s s"], foreground: Float[Tensor, "n s s"]
) -> Float[Tensor, " n"]:
    """Eq. 3: L1 distance of colours, mean over the crop; the background is masked out, as the paper says of its escape."""
    return ((colour - observed).abs().sum(1) * foreground).mean((1, 2))


def box_loss(
    rendered: Float[Tensor, "n 4"],
    observed: Float[Tensor, "n 4"],
    tolerance: float,
    open_sides: Bool[Tensor, "n 4"],
) -> Float[Tensor, " n"]:
    """Eq. 4: max(1 - IoU - tolerance, 0) of 2D boxes; beyond an open side the rendered box may reach (ours)."""
    return (1 - iou_2d_paired(within(rendered, observed, open_sides), observed) - tolerance).clamp_min(0)


def within(
    rendered: Float[Tensor, "n 4"], observed: Float[Tensor, "n 4"], open_sides: Bool[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Rendered boxes cut to the observed ones at open sides."""
    cut = torch.cat(
        [torch.maximum(rendered[:, :2], observed[:, :2]), torch.minimum(rendered[:, 2:], observed[:, 2:])], 1
    )
    return torch.where(open_sides, cut, rendered)


def silhouette_loss(
    silhouette: Float[Tensor, "n s s"], foreground: Float[Tensor, "n s s"], valid: Float[Tensor, "n s s"]
) -> Float[Tensor, " n"]:
    """Eqs. 5 and 6: 1 - IoU of soft silhouettes over the valid pixels. 1 where there is neither."""
    seen = silhouette * valid
    shared = (seen * foreground).sum((1, 2))
    either = (seen + foreground).sum((1, 2)) - shared
    return 1 - shared / either.clamp_min(1e-6)


def depth_loss(
    rendered: Float[Tensor, "n s s"],
    observed: Float[Tensor, "n s s"],
    share: Float[Tensor, "n s s"],
    cut: float | None = None,
) -> Float[Tensor, " n"]:
    """Eq. 7: L1 distance of depths, metres, mean over the crop, counted by ``share`` of each pixel.

    cut: where the distance saturates: cut * (1 - exp(-distance / cut)), which is the distance itself near 0 (ours: depth maps
    are wildly wrong at windows and at the object's edge).
    """
    distance = (rendered - observed).abs()
    if cut is not None:
        distance = cut * (1 - torch.exp(-distance / cut))
    return (distance * share).mean((1, 2))


def size_loss(
    size_off: Float[Tensor, "n 3"], deviation: tuple[float, ...] | None = None
) -> Float[Tensor, " n"]:
    """L1 distance to the mean size, metres; or, with the standard deviations, half the sum of squares in units of them (ours:
    L1 lets a car shrink to half its length for what a standard deviation of its width costs)."""
    if deviation is None:
        return size_off.abs().sum(1)
    return 0.5 * (size_off / size_off.new_tensor(deviation)).square().sum(1)


def protrusion(
    rendered: Float[Tensor, "n 4"], observed: Float[Tensor, "n 4"], open_sides: Bool[Tensor, "n 4"]
) -> Float[Tensor, " n"]:
    """b of eq. 8: area of the rendered box outside the observed one, as a share of the observed one's area.

    Ours: the paper says "ratio of protrusion" and no more.
    """
    rendered = within(rendered, observed, open_sides)
    low = torch.maximum(rendered[:, :2], observed[:, :2])
    high = torch.minimum(rendered[:, 2:], observed[:, 2:])
    area, area_observed = ((b[:, 2:] - b[:, :2]).clamp_min(0).prod(1) for b in (rendered, observed))
    return (area - (high - low).clamp_min(0).prod(1)) / area_observed


def terms(
    rendering: Rendering,
    box: Float[Tensor, "n 4"],
    size_off: Float[Tensor, "n 3"],
    crops: Crops,
    depth_scale: Float[Tensor, " n"],
    config: MonoDRConfig,
) -> dict[str, Float[Tensor, " n"]]:
    """The five terms of eq. 2, unweighted. box: round the projected vertices, in the crops' pixels; size_off: size minus the
    mean size, metres."""
    # Eq. 7: the silhouette says where depths are compared and gets no gradient from it.
    where = crops.compared_share * rendering.silhouette.detach() * (rendering.face >= 0)
    observed = crops.compared_depth * depth_scale[:, None, None]
    return {
        "pixel": pixel_loss(rendering.colour, crops.colour, crops.foreground),
        "box": box_loss(box, crops.boxes, config.box_tolerance, crops.open_sides),
        "silhouette": silhouette_loss(rendering.silhouette, crops.foreground, crops.valid),
        "depth": depth_loss(
            rendering.depth, observed, where, config.depth_cut if config.depth_loss == "robust" else None
        ),
        "size": size_loss(size_off, config.size_deviation if config.size_loss == "gaussian" else None),
    }


def total(parts: dict[str, Float[Tensor, " n"]], config: MonoDRConfig) -> Float[Tensor, " n"]:
    """Eq. 2."""
    weights = {
        "pixel": config.pixel_weight,
        "box": config.box_weight,
        "silhouette": config.silhouette_weight,
        "depth": config.depth_weight,
        "size": config.size_weight,
    }
    return torch.stack([weights[name] * parts[name] for name in weights]).sum(0)


def confidence(
    score: Float[Tensor, " n"],
    silhouette: Float[Tensor, " n"],
    protruding: Float[Tensor, " n"],
    config: MonoDRConfig,
) -> Float[Tensor, " n"]:
    """Eq. 8."""
    return score * torch.exp(
        -config.silhouette_confidence * silhouette - config.protrusion_confidence * protruding
    )
