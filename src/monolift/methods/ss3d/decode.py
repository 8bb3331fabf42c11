"""SS3D's raw maps to detections: local maxima, NMS, votes of an object's cells, the fit, ranking."""

from __future__ import annotations

import torch

from monolift.data.evidence import Evidence
from monolift.data.sample import Detections
from monolift.geometry import Camera
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.config import SS3DConfig
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.parameters import BOX, CORNERS, PARAMETER_NAMES, Pinhole, parameters_of_state
from monolift.nn.heatmap import find_peaks, gather
from monolift.nn.roi import batched_nms, box_iou
from monolift.typing import Float, Tensor

# Of detections: a thousandth of E is a fraction of a sigma, and the slowest box costs all.
FIT_STEPS, FIT_TOLERANCE = 6, 1e-3
NEAREST = 0.5  # metres; a box whose centre is nearer is none


@torch.no_grad()
def decode_maps(codec: SS3DCodec, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
    """Detections of each image, best first: local maxima of each class, NMS on their 2D boxes, the fit. ``cameras``: of the
    network images.

    With ``voting`` parameters of candidates that NMS removes are averaged with those of the kept one. The score is the
    class's probability, with ``ranking="sigma"`` times `certainty`. The covariance of a box holds as far as the predicted
    sigmas are right and the errors of the 26 parameters independent (those of one cell hardly are: take it as a ranking); it
    is infinite where the parameters do not determine the box. The parameters and their residuals come as evidence.
    """
    config = codec.config
    chances = torch.softmax(raw["classes"], 1)[:, 1:]
    chances = chances * (chances == chances.amax(1, keepdim=True))  # a cell is of one class
    scores, labels, cells = find_peaks(chances, config.candidates)  # "the local optimum" (paper)
    at, rank = torch.nonzero(scores > config.score, as_tuple=True)
    score, label, where = scores[at, rank], labels[at, rank], cells[at, rank]
    width, camera = raw["classes"].shape[3], cameras[at]
    numbers, log_sigma = (gather(raw[name], at, where) for name in ("parameters", "log_sigma"))
    parameters, sigma = codec.measured_in_channel_order(numbers, log_sigma, where, camera, width)
    sound = torch.isfinite(parameters + sigma).all(1)  # not-a-number would spoil its neighbours' mean
    at, score, label, camera = at[sound], score[sound], label[sound], camera[sound]
    parameters, sigma = parameters[sound], sigma[sound]
    kinds = at * len(config.classes) + label
    kept = [
        _distinct(config, parameters, score, kinds, (at == b).nonzero()[:, 0]) for b in range(len(scores))
    ]
    chosen = torch.cat(kept)
    parameters, sigma = codec.order.from_front(*_agreed(config, parameters, sigma, score, kinds, chosen))
    at, camera, score = at[chosen], camera[chosen], score[chosen]
    if config.ranking == "sigma":  # not before: an object's middle is a better cell than its surest
        score = score * certainty(parameters, sigma)
    found = _fitted(config, parameters, sigma, score, label[chosen], camera)
    ahead = found.boxes.center[:, 2] > NEAREST
    order = score.argsort(descending=True, stable=True)
    return [found[order[((at == b) & ahead)[order]]] for b in range(len(scores))]


def _agreed(
    config: SS3DConfig, parameters: Tensor, sigma: Tensor, score: Tensor, kinds: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Parameters and sigmas of the candidates ``chosen``, each from all those of its kind that see the same object.

    The mean by precision, as in the variance voting of He et al., "Bounding Box Regression with Uncertainty ..." (CVPR
    2019), which is for 2D boxes; here for all 26 (ours). Cells of one object look at the same pixels and err together,
    so the mean's sigma is that of a typical one of them, and does not fall with their number.
    """
    same = box_iou(parameters[chosen][:, BOX], parameters[:, BOX]) > config.voting
    same[torch.arange(len(chosen), device=chosen.device), chosen] = True
    votes = (same & (kinds[chosen][:, None] == kinds)).to(score) * score
    precision = sigma**-2
    total = votes @ precision
    return votes @ (precision * parameters) / total, votes @ (1 / sigma) / total


def _distinct(config: SS3DConfig, parameters: Tensor, score: Tensor, kinds: Tensor, rows: Tensor) -> Tensor:
    """Of one image's candidates ``rows`` those that no better one of their kind covers."""
    kept = batched_nms(parameters[rows, BOX], score[rows], kinds[rows], config.nms)
    return rows[kept[: config.top_k]]


def _fitted(
    config: SS3DConfig, parameters: Tensor, sigma: Tensor, score: Tensor, label: Tensor, camera: Camera
) -> Detections:
    fit = fit_boxes(parameters, 1 / sigma, camera, FIT_STEPS, FIT_TOLERANCE)
    seen = parameters_of_state(fit.state, Pinhole.of(camera, fit.state)).to(parameters.dtype)
    share = config.boxes2d_fusion
    boxes2d = camera.clip((1 - share) * parameters[:, BOX] + share * seen[:, BOX])
    return Detections(
        boxes=fit.boxes.to(parameters.dtype),
        scores=score,
        labels=label,
        boxes2d=boxes2d,
        names=tuple(config.classes),
        covariance=fit.covariance.to(parameters.dtype),
        evidence=Evidence(PARAMETER_NAMES, parameters, sigma, (parameters - seen) / sigma),
    )


def certainty(parameters: Float[Tensor, "n 26"], sigma: Float[Tensor, "n 26"]) -> Float[Tensor, " n"]:
    """Between 0 and 1: mean over the twenty parameters in pixels of exp(-2 sigma / height of the 2D box) (ours).

    A class map trained on "inside the middle of a car" says 1 of nearly every car, so it cannot tell the box that will be
    right from the one that will not; the sigmas can. A mean, so that one corner that nobody sees does not count for all.
    """
    height = (parameters[:, 3] - parameters[:, 1]).clamp_min(1.0)  # bottom, top
    return torch.exp(-2 * torch.cat([sigma[:, BOX], sigma[:, CORNERS]], 1) / height[:, None]).mean(1)
