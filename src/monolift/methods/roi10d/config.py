"""ROI-10D's configuration, with presets for the defaults and the paper."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monolift.augment.augmentation import Augmentation
from monolift.data.kitti_facts import CAR_DEVIATION, CAR_SIZE
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
from monolift.methods.base import DetectorConfig, keeping
from monolift.methods.recipe import Recipe
from monolift.methods.statistics import split_statistics

CHOICES = {
    "fit": ("area", "letterbox"),
    "norm": ("group", "batch"),
    "depth": ("small", "resnet18", "given", "none"),
    "depth_start": ("roi", "mean", "metric"),
    "regions": ("labels", "detections"),
    "weighting": ("lifting", "none", "kendall"),
    "shape_loss": ("geodesic", "paper"),
    "box_loss": ("giou", "smooth_l1"),
}
FEATURES = Range(32, 4096, multiple=32)
RANGES: dict[str, Limit] = {
    "classes": NAMES,
    "channels": FEATURES,
    "fused": FEATURES,
    "input_width": SIDE,
    "input_height": SIDE,
    "focal": NOT_NEGATIVE,
    "tower_depth": Range(1, 64),
    "anchor_size": POSITIVE,
    "anchor_scales": POSITIVE,
    "anchor_ratios": POSITIVE,
    "min_height": NOT_NEGATIVE,
    "roi_levels": Range(1, 16),
    "roi_size": Range(1, 128),
    "head_channels": CHANNELS,
    "depth_mean": NOT_NEGATIVE,
    "depth_std": POSITIVE,
    "sizes": POSITIVE,
    "size_deviations": POSITIVE,
    "warmup_steps": NOT_NEGATIVE,
    "pose_weight": NOT_NEGATIVE,
    "term_weights": NOT_NEGATIVE,
    "shape_code": Range(2, 64),
    "shape_weight": NOT_NEGATIVE,
    "depth_weight": NOT_NEGATIVE,
    "roi_copies": Range(1, 1000),
    "roi_jitter": SHARE,
    "score": SHARE,
    "candidates": COUNT,
    "nms": SHARE,
    "nms_bev": SHARE,
    "top_k": COUNT,
}
TERMS = ("rotation", "centroid", "depth", "extents")
SHAPE = 6  # numbers of the bundled space's shape codes (published)


@dataclass(frozen=True)
class ROI10DConfig(DetectorConfig):
    """The defaults are small, for CPUs; ``paper()`` follows the publication."""

    classes: tuple[str, ...] = field(default=("Car",), metadata={"decides": ("sizes", "size_deviations")})
    """Class names by label index (published: cars only)."""
    backbone: str = "nano"
    """nano (strides 4 to 32), resnet18 or resnet34 (strides 8 to 128)."""
    norm: str = "group"
    """Normalisation of the ResNets: group or batch."""
    channels: int = 64
    """Channels of the feature pyramid."""
    input_width: int = 640
    """Width of the training image, pixels, a multiple of 32."""
    input_height: int = 192
    """Height of the training image, pixels, a multiple of 32."""
    fit: str = "area"
    """Resize mode: area (keep the aspect ratio, constant pixel count) or letterbox (pad to the training size)."""
    focal: float = 370.0
    """Reference focal length, network pixels: depth is predicted at it and scaled by the camera's. 0: no scaling
    (published)."""
    tower_depth: int = 1
    """Convolutions of RetinaNet's towers (published: 4); nano's pyramid already ends in towers."""
    separable: bool = True
    """Depthwise separable towers (published: full convolutions)."""
    anchor_size: float = 3.0
    """Side of the square anchor of scale 1, in strides of its level (published: 4)."""
    anchor_scales: tuple[float, ...] = (1.0, 1.41)
    """Anchors per level and ratio (published: 1, 1.26, 1.59)."""
    anchor_ratios: tuple[float, ...] = (0.5, 0.9)
    """Height / width of the anchors (published: 0.5, 1, 2)."""
    box_loss: str = "giou"
    """Loss of the 2D boxes: giou (1 - generalised IoU) or smooth_l1 on the deltas (published)."""
    min_height: float = 6.0
    """Objects whose 2D box is lower than this, network pixels, are ignored in the loss."""
    depth: str = "small"
    """Depth stream: small (0.1 M parameters), resnet18 (published kind), given (a depth map per image: Sample.depth in
    training, ``ROI10D.with_depth`` in use), none (ablation of the paper's table 3)."""
    depth_weights: str = ""
    """File of a depth stream that ``monolift depth train`` wrote, on stereo pairs or video: its weights are the stream's at the
    first step (published: pre-trained on KITTI's stereo pairs). Without it, and without depth_2 beside the images, the stream
    starts at random and only the pose loss trains it, as features rather than as depth; training warns."""
    depth_flip: bool = False
    """Flip-augmentation layer of the depth stream (published; twice the cost)."""
    fused: int = 32
    """Channels of the features after fusion; the depth and coordinate maps have half as many."""
    roi_levels: int = 1
    """Pyramid levels that RoIAlign reads, finest first; an RoI's size decides its level."""
    roi_size: int = 7
    """RoIAlign output size per side, cells."""
    head_channels: int = 96
    """Channels of the two layers of each branch."""
    depth_mean: float = 22.0
    """Mean depth in metres at the reference focal length."""
    depth_std: float = 13.0
    """Standard deviation of depth in metres."""
    depth_start: str = "roi"
    """Depth reference: roi (log ratio to the depth at which an object of mean height fills the RoI;
    ours), mean (of the data, in its standard deviations; ours) or metric (of the data, in metres; published: "the depth z is
    metric". The mean is where the branch starts and changes no gradient)."""
    sizes: tuple[tuple[float, float, float], ...] = ()
    """Mean length, height, width of each class, metres; from the training split."""
    size_deviations: tuple[tuple[float, float, float], ...] = ()
    """Standard deviations of length, height, width per class, the unit of the extents branch; from the training split."""
    weighting: str = "lifting"
    """lifting (ROI-10D eq. 2), none (separate terms, summed), kendall (separate terms, learnt uncertainties): table 3."""
    lift_extents: bool = False
    """Train the extents with the lifting loss (published) instead of a separate term. With uncertain heading and depth its
    minimum lies at boxes that are too short: after a short training 2.5 m for cars of 3.9 m."""
    warmup_steps: int = 400
    """Steps with separate terms before the lifting loss (published: "until boxes are stable")."""
    pose_weight: float = 0.5
    """Weight of the pose loss against the 2D losses (published: not stated)."""
    term_weights: tuple[float, ...] = (2.0, 4.0, 1.0, 0.5)
    """Units of the separate terms of rotation, centroid, depth and extents, each an L1 distance: about the typical
    error of each (ours). Published: uniform; that these are not comparable is the paper's point (table 3)."""
    shape_weight: float = 0.1
    """Weight of the shape loss, for objects with a shape label (published: not stated)."""
    shape_loss: str = "geodesic"
    """geodesic (angle between the codes) or paper (eq. 5, which is equal for s and -s)."""
    shape_labels: str = ""
    """File of shape labels for training, written by ``monolift shapes label`` (default: the shape branch is not trained,
    detections have the median shape)."""
    shape_code: int = 6
    """Dimension of a shape code, that of ``shape_space`` (published: 6, "a good compromise"; "smaller dimensionality can lead
    to well-behaving spaces")."""
    shape_space: str = ""
    """File of the labels' shape space, written by ``monolift shapes build`` (default: the bundled one). A
    model trained on another one needs the file again for meshes, not for boxes."""
    depth_weight: float = 1.0
    """Weight of the depth loss, for samples with a depth map."""
    regions: str = "labels"
    """Training RoIs of the lifting branches: labels (the labelled 2D boxes, jittered; ours, and cheaper) or
    detections (the detector's own 2D boxes of the moment that overlap a label's by at least one half, beside the labelled
    boxes; published: 2D detections and their ground truth; the overlap and the labelled boxes beside them are ours)."""
    roi_copies: int = 6
    """With ``regions="labels"``: RoIs per labelled object, of which the first is its 2D box (ours)."""
    roi_jitter: float = 0.12
    """With ``regions="labels"``: maximum jitter of the others' sides, as a fraction of the box (ours)."""
    confidence: bool = True
    """Predict the expected corner error; it and the 2D score rank detections (published: the 2D score only)."""
    score: float = 0.05
    """Score threshold of the 2D detections."""
    candidates: int = 300
    """Maximum 2D detections per image before NMS."""
    nms: float = 0.65
    """IoU threshold of NMS on 2D boxes, per class."""
    nms_bev: float = 0.05
    """IoU threshold of NMS on lifted boxes in the bird's-eye view, per class."""
    top_k: int = 100
    """Maximum 2D detections per image that are lifted."""

    def __post_init__(self) -> None:
        check_fields("roi10d", self, CHOICES, RANGES)
        for name, default in (("sizes", CAR_SIZE), ("size_deviations", CAR_DEVIATION)):
            values = getattr(self, name) or (default,) * len(self.classes)
            object.__setattr__(self, name, values)
            if len(values) != len(self.classes):
                raise InputError(
                    f"roi10d {name}: expected positive (l, h, w) for each of {', '.join(self.classes)}, got {values}"
                )
        if len(self.term_weights) != len(TERMS):
            raise InputError(
                f"roi10d term_weights: expected one for each of {', '.join(TERMS)}, got {self.term_weights}"
            )
        if not self.shape_space and self.shape_labels and self.shape_code != SHAPE:
            raise InputError(
                f"roi10d shape_code: expected {SHAPE}, the bundled space's, got {self.shape_code}: name the space of the "
                "labels with shape_space"
            )
        for name in ("anchor_scales", "anchor_ratios"):
            if not getattr(self, name):
                raise InputError(f"roi10d {name} must hold at least one number, got none")


def paper(**changes: Any) -> ROI10DConfig:
    """The paper: RetinaNet of ResNet-34, SuperDepth, shorter side 600, metric depth, uniform terms, eq. 2 for all of a box.

    Not in its text, and ours: 14 x 14 cells per region, widths of fusion and branches, the weights between losses, the
    warm-up's length, which 2D detections train the branches. The depth stream has to be pre-trained (``depth_weights``).
    """
    base = ROI10DConfig(
        backbone="resnet34",
        norm="batch",
        channels=256,
        input_width=1984,  # KITTI's 1242 x 375 with its shorter side at 600
        input_height=608,
        fit="letterbox",
        focal=0.0,
        tower_depth=4,
        separable=False,
        anchor_size=4.0,
        anchor_scales=(1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
        anchor_ratios=(0.5, 1.0, 2.0),
        box_loss="smooth_l1",
        min_height=0.0,
        depth="resnet18",
        depth_flip=True,
        fused=64,
        roi_levels=3,
        roi_size=14,
        head_channels=256,
        depth_start="metric",
        term_weights=(1.0, 1.0, 1.0, 1.0),
        regions="detections",
        lift_extents=True,
        warmup_steps=10_000,
        shape_loss="paper",
        confidence=False,
    )
    return replace(base, **changes)


PRESETS: dict[str, Callable[[], ROI10DConfig]] = {
    "default": ROI10DConfig,
    "paper": paper,
    "paper_syn": paper,
}

# 8 images a step, 200,000 steps on any number of images, a tenth at 120,000 and 180,000. Ours: momentum 0.9, weight decay, the
# linear warm-up's 1,000 steps, the range of the scale jitter
_PUBLISHED = Recipe(
    steps=200_000,
    batch_size=8,
    optimizer="sgd",
    lr=1e-3,
    backbone_lr_factor=1.0,
    weight_decay=1e-4,
    schedule="steps",
    milestones=(0.6, 0.9),
    warmup=0.005,
    clip=0.0,
    ema=0.0,
    augmentation=Augmentation(mirror=0.5, recolor=0.0, scale=(0.8, 1.2), shift=0.0),
)
RECIPES = {
    "default": Recipe(),
    "paper": _PUBLISHED,
    # the paper's "Syn." model: cars pasted into every training image
    "paper_syn": replace(_PUBLISHED, augmentation=replace(_PUBLISHED.augmentation, paste=1.0)),
}


def with_statistics(
    config: ROI10DConfig, samples: Sequence[Sample], keep: Collection[str] = ()
) -> ROI10DConfig:
    """The config with the statistics of a training split: sizes of each class, depths, median focal length if used.

    Args:
        samples: labels only will do.
        keep: fields that the user has set, which are not measured.

    Raises:
        InputError: where a class has no object.
    """
    found = split_statistics(config, samples, config.classes, keep)
    z = found.at_reference(found.center[:, 2])
    rows = [found.sizes(k) for k in range(len(config.classes))]
    # a class of one object, or of equal ones, has no deviation to count in: 5 % of the mean
    spread = [row.std(0, correction=0).maximum(0.05 * row.mean(0)) for row in rows]
    measured = replace(
        config,
        focal=found.focal,
        depth_mean=float(z.mean()),
        depth_std=max(float(z.std(correction=0)), 1.0),
        sizes=tuple(tuple(row.mean(0).tolist()) for row in rows),
        size_deviations=tuple(tuple(row.tolist()) for row in spread),
    )
    return keeping(config, measured, keep)
