"""Every choice SMOKE leaves open, with the paper, the released code and our default as presets."""

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
    "fit": ("area", "letterbox", "width-crop"),
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
    """What the paper, its released code or an ablation does and we do not: the defaults are none of it."""

    bgr: bool = False
    """Released code: channels in the order blue, green, red, yet normalised by the statistics of red, green, blue."""
    intrinsics_only: bool = False
    """Released code: the fourth column of P2 is dropped, which costs 0.036 of mean 2D IoU on KITTI."""
    corrected_radius: bool = False
    """Released code: Gaussians of CornerNet's radius with its roots corrected, five times smaller than CenterNet's."""
    drop_outside: bool = False
    """Paper: objects whose 3D centre projects outside the image are not trained. Ours: found at their 2D centre."""
    unlabelled_background: bool = False
    """Paper: DontCare regions and vans, which may look like the class, are background. Ours: ignored in the heatmap's loss."""
    height_leak: bool = False
    """Released code: in the location group the predicted height moves the bottom, so the group trains height too."""
    summed_regression: bool = False
    """Released code: corner losses are summed over the batch, whatever number of objects it holds. Ours: their mean."""
    quaternion: bool = False
    """Ablation: a quaternion instead of the vector (cos alpha, -sin alpha)."""
    regression: str = "disentangled"
    """disentangled (section 4.3), or the ablations of table 5 on the whole box: l1, smooth_l1."""

    def __post_init__(self) -> None:
        check_fields("smoke quirks", self, {"regression": ("disentangled", "l1", "smooth_l1")})


PUBLISHED = Quirks(corrected_radius=True, drop_outside=True, unlabelled_background=True)
RELEASED = replace(PUBLISHED, bgr=True, intrinsics_only=True, height_leak=True, summed_regression=True)


@dataclass(frozen=True)
class Extensions:
    """What neither the paper nor our default does: the defaults are none of it."""

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

    def __post_init__(self) -> None:
        ranges: dict[str, Limit] = {"dense_depth": NOT_NEGATIVE, "heading_bins": Range(2, 360)}
        check_fields("smoke extensions", self, {"head_norm": ("group", "batch")}, ranges)


@dataclass(frozen=True)
class SmokeConfig(DetectorConfig):
    """Defaults are ours: small, for CPUs, the known issues of the sources fixed. ``paper()`` and ``official()`` follow them."""

    classes: tuple[str, ...] = field(
        default=("Car", "Pedestrian", "Cyclist"), metadata={"decides": ("sizes",)}
    )
    """Names by label index; any class of the training files may stand here."""
    backbone: str = "nano"
    """nano, efficientnet-lite2, dla34, resnet18, resnet34 or timm:NAME."""
    deformable: bool = True
    """DLA-34's up-path with deformable convolutions, as published, or plain ones."""
    norm: str = "group"
    """group (published) or batch, for backbones that come in both; that of the heads is ``extensions.head_norm``."""
    head_channels: int = 64
    """Channels between the two convolutions of a head (published: 256)."""
    input_width: int = 832
    """Width of the training image, pixels, a multiple of 32."""
    input_height: int = 256
    """Height of the training image, pixels, a multiple of 32."""
    fit: str = "area"
    """How any image becomes a network image: area (same number of pixels, own shape), letterbox (into the training
    size), width-crop (released code: scaled by width, rows lost)."""
    focal: float = 480.0
    """Reference focal length, network pixels: depth is predicted for it and scaled by the camera's. 0: not scaled."""
    depth_mean: float = 28.01
    """Metres at the reference focal length (SMOKE eq. 1). Published: all KITTI trainval cars."""
    depth_std: float = 16.32
    """Metres (SMOKE eq. 1)."""
    sizes: tuple[tuple[float, float, float], ...] = ()
    """Reference length, height, width of each class, metres (SMOKE eq. 3). Empty: means of KITTI trainval, and 1 m cubes for
    classes that KITTI does not have; training replaces them by the means of its split."""
    size_limit: float = 1.0
    """Sizes lie within exp(+-limit) of the reference. Published 0.5 cannot express 15 % of KITTI's pedestrians."""
    min_height: float = 6.0
    """Labelled boxes lower than this, network pixels, are neither sought nor background."""
    neighbourhood: float = 0.3
    """Cells within this share of the 2D box's half sides round the keypoint train the regression too, with Gaussian weights
    that sum to 1 per object (at least the 3x3 cells; 0: the key cell only, as published). It converges in a fraction of the
    steps: Liu et al., Training-Time-Friendly Network, AAAI 2020."""
    boxes2d: bool = True
    """Predict the 2D box beside the eight numbers (four more channels; not in the paper): truncated and occluded objects."""
    boxes2d_fusion: float = 0.5
    """Share of the projected 3D box in the final 2D box; the rest is the predicted one. Their errors are largely independent:
    of KITTI cars found at all, 76 % (predicted) and 72 % (projected) overlap the label by more than 0.7, of their mean 83 %."""
    location_scale: bool = True
    """Predict the scale of the location's error: it weighs the location group as a Laplace likelihood does, so that the
    unavoidable metres of far objects do not drown the near ones, and it ranks detections. One channel; not in the paper."""
    direction_weight: float = 1.0
    """Weight of the L1 distance of the predicted vector from the unit vector of alpha (not in the paper): the corner loss
    does not see the vector's length, and between two opposite headings it has almost no slope."""
    regression_weight: float = 2.5
    """Weight of the mean corner error, metres, against the heatmap. Released code: 24 / 300 per object, summed over a batch."""
    nms: float = 0.5
    """IoU threshold of NMS on 2D boxes, within a class. Published: none, 0; with the softer heatmap and the trained
    neighbourhood of a keypoint, one object can have two peaks."""
    top_k: int = 100
    """Detections per image before the score threshold (paper 100, released code 50)."""
    quirks: Quirks = field(default_factory=Quirks)
    """What only the paper, its released code and ablations do."""
    extensions: Extensions = field(default_factory=Extensions)
    """What neither the paper nor our default does."""

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
    """The paper: DLA-34, 1280 x 384, KITTI's published statistics, no scaling by focal length."""
    base = SmokeConfig(
        backbone="dla34",
        head_channels=256,
        focal=0.0,
        input_width=1280,
        input_height=384,
        fit="letterbox",
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

    The car's reference height and width are swapped there, and Cyclist comes before Pedestrian; both must stay.
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

PRESETS: dict[str, Callable[[], SmokeConfig]] = {"default": SmokeConfig, "paper": paper, "official": official}

# the published schedule: Adam 2.5e-4, a tenth at 40 and 72 % of the run, biases at twice the rate, 32 images a step
_PUBLISHED = Recipe(
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
    augmentation=Augmentation(recolor=0.0, scale=(0.6, 1.4), shift=0.2),
)
RECIPES = {"default": Recipe(), "paper": _PUBLISHED, "official": _PUBLISHED}


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
        depth_std=float(z.std()),
        sizes=tuple(tuple(found.sizes(k).mean(0).tolist()) for k in range(len(config.classes))),
    )
    return keeping(config, measured, keep)
