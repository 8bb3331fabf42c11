"""SS3D's three losses: homoscedastic, heteroscedastic, and the overlap of the fitted box, end to end.

A parameter's residual r, in its unit, is scored by the negative log likelihood of an error of scale sigma, s = log sigma:

    (rho(r) + floor) e^(-kappa s) + s        gaussian: r^2 / 2, kappa 2        laplace: |r|, kappa 1

The floor keeps s from falling without end where r vanishes. For ``gaussian`` it is a prior: Gamma(alpha, beta) on the
precision sigma^-2 adds beta e^(-2 s) + 2 (alpha - 1) s, and with the paper's (1, 0.5) that is a floor of 0.5: at best
sigma^2 = r^2 + 1, never less than one unit. For ``laplace`` it is the 0.02 of the author's code, with and without sigmas per
cell. The Gaussian's homoscedastic sigmas are one per parameter, held by all the cells together, and need no floor. A negative
loss is nothing wrong: it is a density's logarithm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monolift.geometry import iou_3d_paired
from monolift.methods.ss3d.assign import BACKGROUND, IGNORE, Targets
from monolift.methods.ss3d.codec import MOST_SIGMA, SS3DCodec
from monolift.methods.ss3d.parameters import BOX, CORNERS, DIRECTION, DISTANCE, SIZE
from monolift.nn.heatmap import gather
from monolift.typing import Bool, Float, Int, Tensor

PRIOR_BETA = 0.5  # Gamma(1, beta) on the precision
LAPLACE_FLOOR = 0.02


def attenuated(
    residual: Float[Tensor, "..."], log_sigma: Float[Tensor, "..."], likelihood: str, floor: bool = True
) -> Float[Tensor, "..."]:
    """Negative log likelihood of residuals, both in units, up to a constant; ``likelihood``: gaussian or laplace."""
    s = log_sigma.clamp(-MOST_SIGMA, MOST_SIGMA)
    if likelihood == "gaussian":
        return (residual.square() / 2 + PRIOR_BETA * floor) * torch.exp(-2 * s) + s
    return (residual.abs() + LAPLACE_FLOOR * floor) * torch.exp(-s) + s


def ss3d_loss(codec: SS3DCodec, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
    """Named scalars; "total" is minimised. A batch without objects trains the classes alone.

    Args:
        raw: classes (B, K + 1, h, w) logits, parameters and log_sigma (B, 26, h, w). "iou" is there in the second stage
            only.
    """
    config = codec.config
    numbers = gather(raw["parameters"], targets.image, targets.cell)
    log_sigma = gather(raw["log_sigma"], targets.image, targets.cell)
    per_object = config.balance == "objects"
    losses = {"classes": class_loss(raw["classes"], targets.classes, per_object)}
    residual = numbers - targets.numbers
    floor = config.uncertainty == "heteroscedastic" or config.likelihood == "laplace"
    score = attenuated(residual, log_sigma, config.likelihood, floor) * targets.known
    if config.beta:
        power = config.beta * (2 if config.likelihood == "gaussian" else 1)
        score = score * torch.exp(power * log_sigma.detach().clamp(-MOST_SIGMA, MOST_SIGMA))
    share = cell_shares(targets.object, per_object).to(score)
    likelihood = (
        task_means(score, targets.known) if config.balance == "tasks" else (share * score.sum(1)).sum()
    )
    losses["parameters"] = config.likelihood_weight * likelihood
    if config.direction_weight:
        unit = config.units[2]
        error = unit * residual[:, DIRECTION].abs().sum(1) * targets.known[:, DIRECTION].all(1)
        losses["direction"] = config.direction_weight * (share * error).sum()
    if config.iou_weight:
        losses["iou"] = config.iou_weight * overlap_loss(codec, numbers, log_sigma, targets)
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses


def class_loss(
    logits: Float[Tensor, "b k h w"], target: Int[Tensor, "b h w"], per_support_cell: bool = False
) -> Float[Tensor, ""]:
    """Cross-entropy over the cells that are not ignored, divided by their number, or by that of the support cells among
    them; zero with a gradient where there are none."""
    total = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
    counted = target > BACKGROUND if per_support_cell else target != IGNORE
    return total / counted.sum().clamp_min(1)


def task_means(score: Float[Tensor, "m 26"], known: Bool[Tensor, "m 26"]) -> Float[Tensor, ""]:
    """Sum over the kinds of parameters of the mean over what is known of each, cells and channels alike (author's code)."""
    total = score.sum() * 0.0
    for task in (BOX, slice(DISTANCE, DISTANCE + 1), DIRECTION, SIZE, CORNERS):
        total = total + score[:, task].sum() / known[:, task].sum().clamp_min(1)
    return total


def cell_shares(owner: Int[Tensor, " m"], per_object: bool) -> Float[Tensor, " m"]:
    """Weights of the cells that sum to 1: the same sum for each object, or the same for each cell. owner: their objects."""
    if not per_object:
        return torch.full(owner.shape, 1 / max(len(owner), 1), device=owner.device)
    _, index, cells = torch.unique(owner, return_inverse=True, return_counts=True)
    return 1 / (cells[index] * len(cells))


def overlap_loss(
    codec: SS3DCodec, numbers: Float[Tensor, "m 26"], log_sigma: Float[Tensor, "m 26"], targets: Targets
) -> Float[Tensor, ""]:
    """Mean of 1 - IoU3D between the boxes fitted through the parameters of some support cells and the labelled ones.

    IoU has zero gradient for disjoint boxes: keep the likelihood on beside it. A fit that failed counts nothing.
    """
    if not len(numbers):
        return numbers.sum() + log_sigma.sum()
    chosen = sample_per_object(targets.object, codec.config.iou_samples)
    camera = targets.cameras[targets.image[chosen]]
    fit = codec.decode(numbers[chosen], log_sigma[chosen], targets.cell[chosen], camera, targets.width)
    truth = targets.boxes[targets.object[chosen]].to(torch.float64)
    loss = torch.where(fit.ok, 1 - iou_3d_paired(fit.boxes, truth), 0.0).sum() / fit.ok.sum().clamp_min(1)
    return loss.to(numbers.dtype)


def sample_per_object(owner: Int[Tensor, " m"], count: int) -> Int[Tensor, " s"]:
    """Indices of at most ``count`` random cells of each object. owner: object of each cell."""
    order = torch.randperm(len(owner), device=owner.device)
    order = order[torch.argsort(owner[order], stable=True)]  # random within an object
    _, sizes = torch.unique_consecutive(owner[order], return_counts=True)
    first = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return order[torch.arange(len(owner), device=owner.device) - first < count]
