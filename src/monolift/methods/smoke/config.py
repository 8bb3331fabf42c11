"""SMOKE's configuration, with presets for the defaults, the paper and the released code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monolift.augment.augmentation import Augmentation
from monolift.data import kitti_facts
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files.settings import (
    CHANNELS,
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
    "fit": ("area", "letterbox", "pad", "width-crop"),
    "norm": ("group", "batch"),
}
RANGES: dict[str, Limit] = {
    "classes": NAMES,
    "head_channels": CHANNELS,
    "input_width": SIDE,
    "input_height": SIDE,
    "focal": NOT_NEGATIVE,
    "depth_mean": NOT_NEGATIVE,
    "depth_std": POSITIVE,
    "sizes": POSITIVE,
    "size_limit": POSITIVE,
    "min_height": NOT_NEGATIVE,
    "neighbourhood": NOT_NEGATIVE,
    "boxes2d_fusion": SHARE,
    "direction_weight": NOT_NEGATIVE,
    "regression_weight": NOT_NEGATIVE,
    "nms": SHARE,
    "top_k": COUNT,
}


@dataclass(frozen=True)
class Quirks:
    """Choices of the paper, its released code or an ablation that differ from the defaults."""

    bgr: bool = False
    """Released code: BGR input normalised by RGB statistics."""
    intrinsics_only: bool = False
    """Released code: drops the fourth column of P2, which costs 0.036 mean 2D IoU on KITTI."""
    corrected_radius: bool = False
    """Released code: Gaussian radius of CornerNet with corrected roots, five times smaller than CenterNet's, from a rectangle
    cut at the centre of the last cell."""
    drop_outside: bool = False
    """Paper: ignores objects whose 3D centre projects outside the image. Default: their keypoint is the 2D centre."""
    rescaled_heatmap_only: bool = False
    """Paper: randomly scaled or shifted samples train the heatmap only, since size and depth no longer agree. Default: they
    train everything; the intrinsics are scaled too, and ``focal`` scales the depth."""
    unlabelled_background: bool = False
    """Paper: DontCare regions and vans are background. Default: ignored in the heatmap loss."""
    height_leak: bool = False
    """Released code: the location group's bottom centre uses the predicted height, so this group also trains height."""
    summed_regression: bool = False
    """Released code: sums corner losses over the images of a GPU (8 as published), independent of the number of objects; a
    larger batch counts as the mean of so many GPUs. Default: mean over all objects."""
    center2d: bool = False
    """Ablation (CenterNet): the keypoint is the centre of the labelled 2D box; the offset leads to the projected 3D centre."""
    quaternion: bool = False
    """Ablation: regresses a quaternion instead of the vector (cos alpha, -sin alpha)."""
    regression: str = "disentangled"
    """disentangled (section 4.3), or the ablations of table 5 without disentangling: l1, smooth_l1."""

    def __post_init__(self) -> None:
        check_fields("smoke quirks", self, {"regression": ("disentangled", "l1", "smooth_l1")})


PUBLISHED = Quirks(
    corrected_radius=True, drop_outside=True, unlabelled_background=True, rescaled_heatmap_only=True
)
RELEASED = replace(PUBLISHED, bgr=True, intrinsics_only=True, height_leak=True, summed_regression=True)


@dataclass(frozen=True)
class Extensions:
    """Options beyond the paper, off by default."""

    log_depth: bool = False
    """z = mean exp(std / mean d_z) instead of eq. 1: a number is the same share of any distance."""
    height_depth: bool = False
    """Predict the apparent height too; with the height in metres it gives a second depth, and both are averaged by their
    predicted uncertainty (Zhang et al., CVPR 2021). Two channels; needs ``location_scale``."""
    ray_terms: bool = False
    """Two more channels for each number of depth and heading, multiplied by the direction of the cell's ray: a network sees a
    cell's surroundings and not where it lies, yet what is parallel to the road looks different at every bearing."""
    dense_depth: float = 0.0
    """Weight of an auxiliary depth map, log metres, trained by L1 where the data has depth (depth_2); not used to detect."""
    binned_heading: bool = False
    """The heading as a bin and a residual instead of a vector (Mousavian et al., CVPR 2017)."""
    heading_bins: int = 12
    """Bins of ``binned_heading``; the first is centred on alpha = 0."""
    head_norm: str = "group"
    """Norm of the heads: group (published), with the statistics of one image, or batch."""
    depth_calibration: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to the logarithm of a predicted depth: a constant, a factor on the logarithm of depth over its mean, and one on
    that of the focal length over the reference. Measured after training."""
    rival_score: float = 1.0
    """Factor on the score of a detection whose 2D box overlaps a better one of another class by an IoU above 0.6. The heatmaps
    of the classes are independent: one object can have a peak in two of them. 1: none."""

    def __post_init__(self) -> None:
        ranges: dict[str, Limit] = {
            "dense_depth": NOT_NEGATIVE,
            "heading_bins": Range(2, 360),
            "rival_score": SHARE,
        }
        check_fields("smoke extensions", self, {"head_norm": ("group", "batch")}, ranges)


@dataclass(frozen=True)
class SmokeConfig(DetectorConfig):
    """The defaults are small, for CPUs, known issues fixed. ``paper()`` and ``official()`` follow paper and released code."""

    classes: tuple[str, ...] = field(
        default=("Car", "Pedestrian", "Cyclist"), metadata={"decides": ("sizes",)}
    )
    """Class names by label index; any class of the training labels."""
    backbone: str = "nano"
    """nano, efficientnet-lite2, dla34, resnet18, resnet34 or timm:NAME."""
    deformable: bool = True
    """Deformable convolutions in DLA-34's up-path (published), or plain ones."""
    norm: str = "group"
    """Norm of the backbone: group (published) or batch, where available; that of the heads is ``extensions.head_norm``."""
    head_channels: int = 64
    """Hidden channels of each head (published: 256)."""
    input_width: int = 832
    """Width of the training image, pixels, a multiple of 32."""
    input_height: int = 256
    """Height of the training image, pixels, a multiple of 32."""
    fit: str = "area"
    """Resize mode: area (keep the aspect ratio, constant pixel count), letterbox (pad to the training size), pad (the paper:
    as letterbox, never enlarged), width-crop (released code: scale to the width, crop rows)."""
    focal: float = 480.0
    """Reference focal length, network pixels: depth is predicted at it and scaled by the camera's. 0: no scaling."""
    depth_mean: float = 28.01
    """Mean depth in metres at the reference focal length (SMOKE eq. 1). Published: all KITTI trainval cars."""
    depth_std: float = 16.32
    """Standard deviation of depth in metres (SMOKE eq. 1)."""
    sizes: tuple[tuple[float, float, float], ...] = ()
    """Reference length, height, width per class, metres (SMOKE eq. 3). Default: KITTI trainval means, 1 m for other classes;
    training replaces them by the means of its split, except in the presets paper and official."""
    size_limit: float = 1.0
    """Predicted sizes lie within exp(+-limit) of the reference. Published: 0.5, which excludes 15 % of KITTI's pedestrians."""
    min_height: float = 6.0
    """Objects whose 2D box is lower than this, network pixels, are ignored in the loss."""
    neighbourhood: float = 0.3
    """Positive region of the regression: cells within this fraction of the 2D box's half sides around the keypoint, at least
    3x3, with Gaussian weights that sum to 1 per object. 0: the keypoint's cell only (published). Converges in a fraction of
    the steps (Liu et al., Training-Time-Friendly Network, AAAI 2020)."""
    boxes2d: bool = True
    """Also predict the 2D box (four more channels; not in the paper); helps truncated and occluded objects."""
    boxes2d_fusion: float = 0.5
    """Weight of the projected 3D box in the final 2D box; the predicted 2D box has the rest. Their errors are nearly
    independent: of the KITTI cars detected, 76 % (predicted) and 72 % (projected) have an IoU above 0.7, their mean 83 %."""
    location_scale: bool = True
    """Predict the scale of the location error (one channel; not in the paper). It weights the location group as a Laplace
    likelihood does, so that far objects do not dominate the loss, and it ranks detections."""
    direction_weight: float = 1.0
    """Weight of an L1 loss on the predicted (cos alpha, -sin alpha) (not in the paper): the corner loss is independent of the
    vector's length and has almost no gradient between opposite headings."""
    regression_weight: float = 2.5
    """Weight of the mean corner error (metres) against the heatmap loss: the paper's lambda, which has no published value; 2.5
    is ours, in the preset paper too. Released code: 24 / 300 per object, summed."""
    nms: float = 0.5
    """IoU threshold of NMS on 2D boxes, per class. 0: no NMS (published). With a positive region larger than one cell an object
    can have two peaks."""
    top_k: int = 100
    """Maximum detections per image, before the score threshold (paper 100, released code 50)."""
    quirks: Quirks = field(default_factory=Quirks)
    """Choices of the paper, its released code and ablations."""
    extensions: Extensions = field(default_factory=Extensions)
    """Options beyond the paper, off by default."""

    def __post_init__(self) -> None:
        check_fields("smoke", self, CHOICES, {"classes": NAMES})
        sizes = self.sizes or [kitti_facts.SIZES.get(name, (1.0, 1.0, 1.0)) for name in self.classes]
        object.__setattr__(self, "sizes", tuple(tuple(float(v) for v in size) for size in sizes))
        if len(self.sizes) != len(self.classes):
            raise InputError(
                f"smoke sizes: expected one (l, h, w) for each of {self.classes}, got {len(self.sizes)}"
            )
        check_fields("smoke", self, CHOICES, RANGES)
        if self.head_channels % max(1, self.head_channels // 8):  # group norm, eight channels to a group
            raise InputError(f"smoke head_channels must be a multiple of 8, got {self.head_channels}")
        if self.extensions.height_depth and not self.location_scale:
            raise InputError(
                "smoke extensions.height_depth needs location_scale=true: it weighs the two depths"
            )
        if self.extensions.binned_heading and self.quirks.quaternion:
            raise InputError("smoke extensions.binned_heading and quirks.quaternion exclude each other")


def paper(**changes: Any) -> SmokeConfig:
    """The paper: DLA-34, 1280 x 384, KITTI's published statistics on any data, no scaling by focal length.

    What the paper leaves open is ours: the weight of the regression, 2.5; the whole of P2; detections from a score of 0.01 on.
    """
    base = SmokeConfig(
        backbone="dla34",
        head_channels=256,
        focal=0.0,
        input_width=1280,
        input_height=384,
        fit="pad",
        size_limit=0.5,
        min_height=0.0,
        neighbourhood=0.0,
        boxes2d=False,
        location_scale=False,
        nms=0.0,
        direction_weight=0.0,
        quirks=PUBLISHED,
    )
    return replace(base, **changes)


def official(**changes: Any) -> SmokeConfig:
    """The released code with its quirks, so that its checkpoints keep their meaning: see each field's docstring.

    The car's reference height and width are swapped there, and Cyclist comes before Pedestrian; both must stay. What differs
    from it is listed in docs/presets.md: resampling, half a pixel of the label grid, boxes behind the camera.
    """
    base = paper(
        classes=("Car", "Cyclist", "Pedestrian"),
        sizes=((3.88, 1.63, 1.53), (1.78, 1.70, 0.58), (0.88, 1.73, 0.67)),
        fit="width-crop",
        regression_weight=24 / 300,
        top_k=50,
        quirks=RELEASED,
    )
    return replace(base, **changes)


def efficientnet(**changes: Any) -> SmokeConfig:
    """EfficientNet-Lite2 with the extensions that concern depth, experimental: docs/experiments.md has what was measured.

    Starts from ImageNet weights, ``--init``; learns from depth maps (depth_2) where the data has some.
    """
    extensions = Extensions(
        log_depth=True, height_depth=True, ray_terms=True, dense_depth=0.5, head_norm="batch"
    )
    return replace(SmokeConfig(backbone="efficientnet-lite2", extensions=extensions), **changes)


NOT = {True: False, False: True}
RENAMED = {
    "suppress": Renamed("nms"),
    "pixels": Renamed("quirks.bgr", {"rgb": False, "bgr": True}),
    "full_camera": Renamed("quirks.intrinsics_only", NOT),
    "radius": Renamed("quirks.corrected_radius", {"centernet": False, "corrected": True}),
    "keep_outside": Renamed("quirks.drop_outside", NOT),
    "ignore_unlabelled": Renamed("quirks.unlabelled_background", NOT),
    "height_leak": Renamed("quirks.height_leak"),
    "regression_per_object": Renamed("quirks.summed_regression", NOT),
    "orientation": Renamed(
        "quirks.quaternion",
        {"vector": False, "quaternion": True, "bins": False},
        also=(Renamed("extensions.binned_heading", {"vector": False, "quaternion": False, "bins": True}),),
    ),
    "regression": Renamed("quirks.regression"),
    "depth": Renamed("extensions.log_depth", {"linear": False, "log": True}),
    **{
        name: Renamed(f"extensions.{name}")
        for name in (
            "height_depth",
            "ray_terms",
            "dense_depth",
            "heading_bins",
            "head_norm",
            "depth_calibration",
        )
    },
}
"""Fields of earlier versions, whose checkpoints and run folders still load."""

PRESETS: dict[str, Callable[[], SmokeConfig]] = {
    "default": SmokeConfig,
    "paper": paper,
    "official": official,
    "efficientnet": efficientnet,
}

# the paper: 60 epochs, a tenth at 25 and 40; Adam 2.5e-4, 32 images a step; 9 zooms, 5 shifts either way (section 4.4).
# Biases at twice the rate and the probability of zoom and shift are the released code's.
_PAPER = Recipe(
    epochs=60,
    batch_size=32,
    optimizer="adam",
    lr=2.5e-4,
    backbone_lr_factor=1.0,
    bias_lr_factor=2.0,
    weight_decay=0.0,
    schedule="steps",
    milestones=(25 / 60, 40 / 60),
    warmup=0.0,
    clip=0.0,
    ema=0.0,
    augmentation=Augmentation(recolor=0.0, rescale=0.3, scale=(0.6, 1.4), shift=0.2, steps=0.1),
)
# configs/smoke_gn_vector.yaml: 25,000 steps on any split, a tenth at 10,000 and 18,000
_OFFICIAL = replace(_PAPER, steps=25_000, milestones=(0.4, 0.72))
# batch norm and ImageNet features: a high rate; zooms as far as near and truncated cars, other cameras' tones and noise
_EFFICIENTNET = Recipe(
    epochs=60,
    batch_size=8,
    lr=2e-3,
    freeze=("base.stem", "base.stages.0", "base.stages.1", "base.stages.2"),
    augmentation=Augmentation(degrade=0.5, scale=(0.73, 1.7), shift=0.25, paste=0.6),
)
RECIPES = {
    "default": Recipe(),
    "paper": _PAPER,
    "official": _OFFICIAL,
    "efficientnet": _EFFICIENTNET,
}


def with_statistics(
    config: SmokeConfig, samples: Sequence[Sample], keep: Collection[str] = ()
) -> SmokeConfig:
    """The config with depth and size statistics of a training split.

    samples: labels only will do. keep: fields that the user has set, which are not measured. Where ``focal`` is used (not 0)
    it becomes the median focal length of the network images, and depths are taken at it. Depth counts the first class only,
    as the published figures do. Raises InputError where a class has no object.
    """
    found = split_statistics(config, samples, config.classes, keep)
    z = found.at_reference(found.center[:, 2])[found.label == 0]
    measured = replace(
        config,
        focal=found.focal,
        depth_mean=float(z.mean()),
        depth_std=max(float(z.std()), 1.0) if len(z) > 1 else config.depth_std,  # one car has no spread
        sizes=tuple(tuple(found.sizes(k).mean(0).tolist()) for k in range(len(config.classes))),
    )
    return keeping(config, measured, keep)
