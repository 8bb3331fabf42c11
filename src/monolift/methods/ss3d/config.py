"""SS3D's configuration, with presets for the defaults, the paper, the author's code and the IoU stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monolift.augment.augmentation import Augmentation
from monolift.data.kitti_facts import CAR_SIZE
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files.settings import (
    COUNT,
    NAMES,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SIDE,
    Limit,
    Range,
    check_fields,
)
from monolift.methods.base import DetectorConfig, Renamed, keeping
from monolift.methods.recipe import Recipe
from monolift.methods.statistics import split_statistics

CHOICES = {
    "fit": ("area", "letterbox"),
    "uncertainty": ("heteroscedastic", "homoscedastic"),
    "likelihood": ("gaussian", "laplace"),
    "norm": ("group", "batch"),
    "balance": ("objects", "cells", "tasks"),
    "corner_order": ("view", "object"),
    "ranking": ("sigma", "class"),
}
RANGES: dict[str, Limit] = {
    "classes": NAMES,
    "head_channels": Range(0, 65_536),
    "input_width": SIDE,
    "input_height": SIDE,
    "focal": NOT_NEGATIVE,
    "support": Range(0, 1, above=True),
    "max_truncation": SHARE,
    "corner_reach": NOT_NEGATIVE,
    "sigma_scale": Range(0, 1000, above=True),
    "shared_sigma_scale": Range(0, 1000, above=True),
    "units": POSITIVE,
    "distance_mean": NOT_NEGATIVE,
    "size_mean": POSITIVE,
    "likelihood_weight": NOT_NEGATIVE,
    "beta": SHARE,
    "direction_weight": NOT_NEGATIVE,
    "iou_weight": NOT_NEGATIVE,
    "iou_samples": COUNT,
    "nms": SHARE,
    "voting": SHARE,
    "boxes2d_fusion": SHARE,
    "score": SHARE,
    "candidates": COUNT,
    "top_k": COUNT,
}


@dataclass(frozen=True)
class SS3DConfig(DetectorConfig):
    """The defaults are small, for CPUs; ``paper()`` follows what is known of the publication."""

    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")
    """Class names by label index; any class of the training labels. Vans are trained as cars (author's code)."""
    backbone: str = "nano"
    """nano (small, for CPUs), drn_c_26 (author's code), resnet18 or resnet34 with dilation (stride 8), dla34, timm:NAME."""
    norm: str = "batch"
    """Normalisation of the backbone: group or batch, where available; heads always use batch norm (author's code)."""
    head_channels: int = 64
    """Hidden channels of each of the eleven heads. 0: twice the backbone's (author's code)."""
    input_width: int = 832
    """Width of the training image, pixels, a multiple of 32."""
    input_height: int = 256
    """Height of the training image, pixels, a multiple of 32."""
    fit: str = "area"
    """Resize mode: area (keep the aspect ratio, constant pixel count) or letterbox (pad to the training size)."""
    focal: float = 480.0
    """Reference focal length, network pixels: distance is predicted at it and scaled by the camera's. 0: no scaling
    (published)."""
    support: float = 0.2
    """Support region: central fraction of the 2D box's area whose cells are positive and train the parameters (author's code;
    the paper: "central 20 %")."""
    max_truncation: float = 0.9
    """Objects truncated by more than this are ignored in the loss (author's code)."""
    corner_reach: float = 1.0
    """Corners farther outside the image than this many image sizes are no regression targets (author's code: all are, with a
    warning beyond 10)."""
    corner_order: str = "view"
    """object: corners are numbered from the object's front (author's code); a network that confuses front and rear predicts the
    average, a collapsed box that the fit places too far away. view (default): from the farther end; sine and cosine decide
    which end that is."""
    uncertainty: str = "heteroscedastic"
    """heteroscedastic (a sigma per parameter and cell) or homoscedastic (one per parameter)."""
    sigma_scale: float = 1.0
    """Factor on what the sigma heads predict, which are log sigmas: below 1 they learn more slowly (author's code: 0.1; nothing
    is known of the paper's)."""
    shared_sigma_scale: float = 1.0
    """The same for the 26 numbers of ``homoscedastic`` (author's code: 400 times 0.1)."""
    likelihood: str = "gaussian"
    """gaussian with the Gamma prior (published) or laplace with a floor of 0.02 (author's code)."""
    units: tuple[float, ...] = (4.0, 1.0, 0.1, 0.05, 4.0)
    """Unit of a channel for 2D box (pixels), distance (metres), sine and cosine, log size, corners (pixels): about the error
    of a trained network (ours). The Gamma prior holds sigma above one *unit*. The paper's units are not known; pixels, metres
    and log metres as they are would hold the sigma of a log size above 1, a factor of 2.7 in size, and the weighted fit would
    be no better than an unweighted one (docs/ss3d.md). Author's code: 1, with a floor of 0.02 for 1."""
    distance_mean: float = 20.0
    """Offset of the distance channel in metres (published: 0)."""
    size_mean: tuple[float, ...] = CAR_SIZE
    """Reference length, height, width in metres of the log size channels, shared by all classes (author's code: 1, 1, 1)."""
    balance: str = "objects"
    """objects: each object trains its parameters alike, however many cells it has, and the class loss is divided by the support
    cells, so that a near car does not dominate ten far ones and the background. cells: plain means over the support cells of
    the sum over the 26 (published). tasks: plain means over cells and channels of each of the five kinds of parameters, which
    are then added (author's code): sixteen corner coordinates weigh as much as one distance."""
    likelihood_weight: float = 0.05
    """Weight of the negative log likelihood, summed over the 26 parameters, against the classification (published: 1)."""
    beta: float = 0.5
    """beta-NLL: each likelihood is weighted by sigma^(2 beta), detached. 0 (published): uncertain parameters train slowest
    (Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", ICLR 2022)."""
    direction_weight: float = 1.0
    """Weight of an L1 loss on sine and cosine beside their likelihood, which down-weights hard headings (published: 0)."""
    iou_weight: float = 0.0
    """Weight of 1 - IoU3D of the fitted boxes: 0 in the first stage, 1 in the second (published schedule unknown)."""
    iou_samples: int = 4
    """Support cells per object fitted in a training step of the second stage."""
    nms: float = 0.3
    """IoU threshold of NMS on 2D boxes, per class (author's code)."""
    voting: float = 0.5
    """IoU threshold of box voting: parameters of candidates that overlap a detection by more are averaged, weighted by
    precision. 1: no voting (published)."""
    boxes2d_fusion: float = 0.5
    """Weight of the projected 3D box in the final 2D box; the predicted 2D box has the rest (published: 0)."""
    ranking: str = "sigma"
    """Score: class (class probability, published) or sigma (multiplied by a factor that falls with the parameters' sigmas in
    pixels, relative to the 2D box)."""
    score: float = 0.05
    """Score threshold of candidate cells."""
    candidates: int = 300
    """Maximum candidates per image before NMS."""
    top_k: int = 100
    """Maximum detections per image (author's code drops an image with more)."""

    def __post_init__(self) -> None:
        check_fields("ss3d", self, CHOICES, RANGES)
        if len(self.units) != 5:
            raise InputError(f"ss3d units must be five positive numbers, got {self.units}")
        if len(self.size_mean) != 3:
            raise InputError(f"ss3d size_mean must be length, height, width in metres, got {self.size_mean}")


def paper(**changes: Any) -> SS3DConfig:
    """What is known of the paper's first stage: DRN-C-26, Gaussian likelihood with the Gamma(1, 0.5) prior.

    Ours, because the paper's are not known: the prior's units (`SS3DConfig.units`) and the input size, KITTI's as a multiple of
    32, letterboxed, where the author's code takes 1216 x 352 of the image's top left corner.
    """
    base = SS3DConfig(
        backbone="drn_c_26",
        head_channels=0,
        input_width=1248,
        input_height=384,
        fit="letterbox",
        focal=0.0,
        distance_mean=0.0,
        size_mean=(1.0, 1.0, 1.0),
        balance="cells",
        corner_order="object",
        corner_reach=10.0,
        likelihood_weight=1.0,
        beta=0.0,
        direction_weight=0.0,
        voting=1.0,
        boxes2d_fusion=0.0,
        ranking="class",
    )
    return replace(base, **changes)


def author(**changes: Any) -> SS3DConfig:
    """The losses of the first author's public code: Laplace with a floor of 0.02, task by task, slow sigma heads, plain units.

    Deviations: that code regresses the depth z where this regresses the distance (the reading note calls the difference small),
    and its last public version fits corners, sizes and depth only, where this fits all 26 parameters.
    """
    base = paper(
        likelihood="laplace",
        balance="tasks",
        units=(1.0, 1.0, 1.0, 1.0, 1.0),
        sigma_scale=0.1,
        shared_sigma_scale=40.0,
    )
    return replace(base, **changes)


def through_fit(**changes: Any) -> SS3DConfig:
    """The second stage of the default preset: 1 - IoU3D of the fitted boxes beside a tenth of the likelihood.

    Start it from a checkpoint of the first (``--init``). The likelihood stays on because the IoU of disjoint boxes has no
    gradient (ours).
    """
    return replace(SS3DConfig(iou_weight=1.0, likelihood_weight=0.005), **changes)


def paper_through_fit(**changes: Any) -> SS3DConfig:
    """The paper's second stage: classification and 1 - IoU3D of the fitted boxes, end to end, from a checkpoint of ``paper``.

    Not known of the paper, and ours: the tenth of the likelihood that stays on (``likelihood_weight=0`` leaves it out; boxes
    apart then get no gradient), the number of cells that are fitted per object, and the schedule.
    """
    return replace(paper(iou_weight=1.0, likelihood_weight=0.1), **changes)


RENAMED = {"hints_weight": Renamed("likelihood_weight")}
"""Fields of earlier versions, whose checkpoints and run folders still load."""

PRESETS: dict[str, Callable[[], SS3DConfig]] = {
    "default": SS3DConfig,
    "paper": paper,
    "author": author,
    "iou": through_fit,
    "paper_iou": paper_through_fit,
}

# author's code: Adam 1e-4, 16 images a step, 100 epochs, no augmentation, gradients not clipped; its schedule, a tenth of the
# rate whenever the score stops rising, is a cosine here
_PUBLISHED = Recipe(
    epochs=100,
    batch_size=16,
    optimizer="adam",
    lr=1e-4,
    backbone_lr_factor=1.0,
    weight_decay=0.0,
    warmup=0.0,
    clip=0.0,
    ema=0.0,
    augmentation=Augmentation(mirror=0.0, recolor=0.0, scale=(1.0, 1.0), shift=0.0),
)
RECIPES = {
    "default": Recipe(),
    "paper": _PUBLISHED,
    "author": _PUBLISHED,
    # 20 % of the first stage's epochs at a tenth of its rate: ours
    "iou": replace(Recipe(), epochs=6, lr=6e-5),
    "paper_iou": replace(_PUBLISHED, epochs=20, lr=1e-5),
}


def with_statistics(config: SS3DConfig, samples: Sequence[Sample], keep: Collection[str] = ()) -> SS3DConfig:
    """The config with mean distance and size of a training split's first class, and its median focal length if used.

    Raises InputError where no object of the first class is there. The paper's presets count
    from zero: their means stay.

    Args:
        samples: labels only will do.
        keep: fields that the user has set, which are not measured.
    """
    found = split_statistics(config, samples, config.classes[:1], keep)
    measured = replace(config, focal=found.focal)
    if config.distance_mean:
        distances = found.at_reference(found.center.norm(dim=1))
        size = found.size.log().mean(0).exp()
        measured = replace(measured, distance_mean=float(distances.mean()), size_mean=tuple(size.tolist()))
    return keeping(config, measured, keep)
