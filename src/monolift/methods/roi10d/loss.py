"""ROI-10D's losses: RetinaNet's two, one pose loss of three kinds, shape, depth stream, and the expected error.

lifting   the mean distance of the eight lifted corners from the labelled ones, metres, not squared (eq. 2): where one
          unit of change moves the corners most, the gradient is largest, and no weights are needed
none      separate terms, each the L1 distance in its branch's unit, weighted by ``term_weights`` (published: uniform) and
          summed; also the warm-up of lifting
kendall   the same with a learnt uncertainty per term (Kendall, Gal, Cipolla, CVPR 2018)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from monolift.methods.roi10d.assign import IGNORE, Targets, network_anchors
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.roi10d.config import TERMS, ROI10DConfig
from monolift.methods.roi10d.decode import unit_codes
from monolift.methods.roi10d.depth import depth_loss
from monolift.nn.losses import generalized_iou_loss, laplace_nll
from monolift.nn.retina import boxes_from_deltas, deltas_from_boxes, focal_loss
from monolift.shapes.autoencoder import shape_loss
from monolift.typing import Float, Tensor

SMOOTH = 1 / 9  # of smooth L1, units of the deltas (RetinaNet)
ERROR_WEIGHT = 0.2


def roi10d_loss(
    codec: ROI10DCodec,
    raw: dict[str, Tensor],
    numbers: dict[str, Tensor],
    targets: Targets,
    warm: bool,
    log_variances: Float[Tensor, " t"],
) -> dict[str, Tensor]:
    """Named scalars; "total" is minimised. A batch without objects trains scores and depth alone.

    Args:
        raw: first stage.
        numbers: second stage, of the regions ``targets.roi``.
        warm: the separate terms are done with.
        log_variances: of Kendall's terms.
    """
    config = codec.config
    losses = detection_losses(config, raw, targets)
    known = scaled_depth(config, targets)
    if known is not None and config.depth in ("small", "resnet18"):
        losses["depth_map"] = config.depth_weight * depth_loss(raw["depth"], known)
    owner = targets.roi_object
    camera = targets.cameras[targets.image[owner]]
    boxes = targets.boxes[owner]
    label = targets.label[owner]
    count = max(len(owner), 1)
    aim = Lifted(boxes.center, boxes.size, targets.rotation[owner])
    lifted = codec.decode(numbers, targets.roi, label, camera)
    error = corner_distance(lifted if config.lift_extents else _with_fixed_size(lifted), aim)
    terms = separate_terms(numbers, codec.encode(aim, targets.roi, label, camera), config.term_weights)
    if config.weighting == "lifting" and warm:
        losses["pose"] = config.pose_weight * error.sum() / count
        terms = {} if config.lift_extents else {"extents": terms["extents"]}
    elif config.weighting == "kendall":
        terms = {
            name: torch.exp(-s) * term + s
            for s, (name, term) in zip(log_variances, terms.items(), strict=True)
        }
    losses |= {name: config.pose_weight * term.sum() / count for name, term in terms.items()}
    has_shape = targets.shape[owner].norm(dim=1) > 0
    distance = shape_loss(unit_codes(numbers["shape"]), targets.shape[owner], config.shape_loss)
    losses["shape"] = (
        config.shape_weight * torch.where(has_shape, distance, 0.0).sum() / has_shape.sum().clamp_min(1)
    )
    if "error" in numbers:
        expected = numbers["error"][:, 0].clamp(-3, 4)
        losses["error"] = ERROR_WEIGHT * laplace_nll(error.detach(), expected).sum() / count
    # in every mode each weight takes part, or a parallel training would wait for its gradient
    idle = sum(value.sum() for value in numbers.values()) + log_variances.sum() + lifted.corners().sum()
    losses["total"] = torch.stack(list(losses.values())).sum() + 0.0 * idle
    return losses


def scaled_depth(config: ROI10DConfig, targets: Targets) -> Float[Tensor, "b H W"] | None:
    """The labelled depth maps at the reference focal length, metres; None where no image has one."""
    if targets.depth is None:
        return None
    # f_ref / f, not a division by f / f_ref: the last digit of trained weights hangs on it
    ratio = config.focal / targets.cameras.fx.to(targets.depth) if config.focal else None
    return targets.depth if ratio is None else targets.depth * ratio[:, None, None]


def detection_losses(config: ROI10DConfig, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Focal loss of all known anchors and the box loss of those with an object, both per such anchor."""
    owner = targets.owner
    width, height = targets.cameras.width, targets.cameras.height
    image, anchor = torch.nonzero(owner >= 0, as_tuple=True)
    mine = owner[image, anchor]
    wanted = torch.zeros_like(raw["scores"])
    wanted[image, anchor, targets.label[mine]] = 1.0
    weight = (owner != IGNORE).to(wanted)[..., None].expand_as(wanted)
    count = max(len(mine), 1)
    scores = focal_loss(raw["scores"].flatten(0, 1), wanted.flatten(0, 1), weight.flatten(0, 1)) / count
    anchors = network_anchors(config, width, height, raw["deltas"])[anchor]
    deltas, truth = raw["deltas"][image, anchor], targets.boxes2d[mine]
    if config.box_loss == "giou":
        boxes = generalized_iou_loss(boxes_from_deltas(deltas, anchors), truth).sum()
    else:
        boxes = F.smooth_l1_loss(deltas, deltas_from_boxes(truth, anchors), beta=SMOOTH, reduction="sum")
    return {"scores": scores, "boxes": boxes / count}


def corner_distance(lifted: Lifted, truth: Lifted) -> Float[Tensor, " n"]:
    """Mean Euclidean distance of the eight corners, metres (ROI-10D eq. 2). Where a pair coincides its gradient is zero."""
    return safe_norm(lifted.corners() - truth.corners()).mean(1)


def _with_fixed_size(lifted: Lifted) -> Lifted:
    return replace(lifted, size=lifted.size.detach())


def safe_norm(vector: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """Length, with gradient zero, not NaN, at zero."""
    square = vector.square().sum(-1)
    away = square > 0
    return torch.where(away, torch.sqrt(torch.where(away, square, 1.0)), 0.0)


def separate_terms(
    numbers: dict[str, Tensor], wanted: dict[str, Tensor], weights: Sequence[float]
) -> dict[str, Tensor]:
    """(N,) weighted L1 distance of each branch's numbers from their targets; q and -q are one rotation."""
    terms = {}
    for name, weight in zip(TERMS, weights, strict=True):
        value, aim = numbers[name], wanted[name]
        if name == "rotation":
            value = F.normalize(value, dim=1)
            distance = torch.minimum((value - aim).abs().sum(1), (value + aim).abs().sum(1))
        else:
            distance = (value - aim).abs().mean(1)
        terms[name] = weight * distance
    return terms
