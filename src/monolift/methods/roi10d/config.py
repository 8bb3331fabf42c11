"""Every choice ROI-10D leaves open, with the paper and our small default as presets."""

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
    """Defaults are ours: small, for CPUs. ``paper()`` follows the publication."""

    classes: tuple[str, ...] = field(default=("Car",), metadata={"decides": ("sizes", "size_deviations")})
    """Names by label index (published: cars alone)."""
    backbone: str = "nano"
    """nano (strides 4 to 32), resnet18 or resnet34 (strides 8 to 128)."""
    norm: str = "group"
    """group or batch, for the ResNets."""
    channels: int = 64
    """Of the feature pyramid."""
    input_width: int = 640
    """Width of the training image, pixels, a multiple of 32."""
    input_height: int = 192
    """Height of the training image, pixels, a multiple of 32."""
    fit: str = "area"
    """How any image becomes a network image: area (same number of pixels, own shape) or letterbox (training size)."""
    focal: float = 370.0
    """Reference focal length, network pixels: depths are predicted for it and scaled by the camera's. 0: not scaled
    (published)."""
    tower_depth: int = 1
    """Convolutions of RetinaNet's towers (published: 4); nano's pyramid already ends in towers."""
    separable: bool = True
    """Depthwise towers (published: full convolutions)."""
    anchor_size: float = 3.0
    """Side of the square anchor of scale 1, in strides of its level (published: 4)."""
    anchor_scales: tuple[float, ...] = (1.0, 1.41)
    """Anchors per level and ratio (published: 1, 1.26, 1.59)."""
    anchor_ratios: tuple[float, ...] = (0.5, 0.9)
    """Height / width of the anchors (published: 0.5, 1, 2)."""
    box_loss: str = "giou"
    """Of the 2D boxes: giou (1 - generalised IoU) or smooth_l1 on the deltas (published)."""
    min_height: float = 6.0
    """Labelled boxes lower than this, network pixels, are neither sought nor background."""
    depth: str = "small"
    """Depth stream: small (0.1 M parameters), resnet18 (published kind), given (a map beside each image: Sample.depth in
    training, ``ROI10D.with_depth`` in use), none (ablation of the paper's table 3)."""
    depth_weights: str = ""
    """File of a depth stream that ``monolift depth train`` wrote, on stereo pairs or video: its weights are the stream's at the
    first step (published: pre-trained on KITTI's stereo pairs). Without it, and without depth_2 beside the images, the stream
    starts at random and only the pose loss trains it, as features rather than as depth; training warns."""
    depth_flip: bool = False
    """The stream's flip-augmentation layer (published; twice the cost)."""
    fused: int = 32
    """Channels of the features after fusion; the depth and coordinate maps have half as many."""
    roi_levels: int = 1
    """Levels of the pyramid, finest first, from which regions are read, by their size."""
    roi_size: int = 7
    """Cells along each side of a region."""
    head_channels: int = 96
    """Of the two layers of each branch."""
    depth_mean: float = 22.0
    """Metres at the reference focal length."""
    depth_std: float = 13.0
    """Metres."""
    depth_start: str = "roi"
    """The depth branch counts from: roi (where an object of mean height fills the region's height, in units of log depth;
    ours), mean (of the data, in its standard deviations; ours) or metric (of the data, in metres; published: "the depth z is
    metric". The mean is where the branch starts and changes no gradient)."""
    sizes: tuple[tuple[float, float, float], ...] = ()
    """Mean length, height, width of each class, metres; from the training split."""
    size_deviations: tuple[tuple[float, float, float], ...] = ()
    """Their standard deviations, the unit of the extents branch; from the training split."""
    weighting: str = "lifting"
    """lifting (ROI-10D eq. 2), none (separate terms, summed), kendall (separate terms, learnt uncertainties): table 3."""
    lift_extents: bool = False
    """Let the lifting loss train the extents too (published). Unsure of heading and depth it is smallest for boxes shorter than
    any car: after a short training 2.5 m were predicted for 3.9 m. By default the extents keep their separate term."""
    warmup_steps: int = 400
    """Steps with separate terms before the lifting loss (published: "until boxes are stable")."""
    pose_weight: float = 0.5
    """Of the pose loss, metres or separate terms, against the 2D losses (published: not said)."""
    term_weights: tuple[float, ...] = (2.0, 4.0, 1.0, 0.5)
    """Of the separate terms of rotation, centroid, depth and extents, each the L1 distance in its branch's own unit: about what
    is usual of each (ours). Published: uniform, and that they are then not comparable is the paper's point (table 3)."""
    shape_weight: float = 0.1
    """Of the shape loss, for objects with a shape label (published: not said)."""
    shape_loss: str = "geodesic"
    """geodesic (angle between the codes) or paper (eq. 5, twice the angle between their lines: it cannot tell s from -s)."""
    shape_labels: str = ""
    """File of shape labels for training, made by ``monolift shapes label``; without it the branch is not trained, and
    detections wear the median car."""
    shape_code: int = SHAPE
    """Numbers of a shape code: those of ``shape_space`` (published: 6, "a good compromise"; "smaller dimensionality can lead to
    well-behaving spaces")."""
    shape_space: str = ""
    """File of the shape space whose codes the labels hold, made by ``monolift shapes build``; without it the bundled one. A
    model trained on another one needs the file again for meshes, not for boxes."""
    depth_weight: float = 1.0
    """Of the depth stream's supervision, where a sample has depth."""
    regions: str = "labels"
    """What the lifting branches are trained on: labels (the labelled 2D boxes, shifted at random; ours, and cheaper) or
    detections (the detector's own 2D boxes of the moment that overlap a label's by at least one half, beside the labelled
    boxes; published: 2D detections and their ground truth; the overlap and the labelled boxes beside them are ours)."""
    roi_copies: int = 6
    """With ``regions="labels"``: regions per labelled object, of which the first is its 2D box (ours)."""
    roi_jitter: float = 0.12
    """With ``regions="labels"``: largest shift of the others' sides, as a share of the box (ours)."""
    confidence: bool = True
    """Learn the expected corner error, and rank detections by it and the 2D score (published: the 2D score alone)."""
    score: float = 0.05
    """2D detections of lower probability are dropped."""
    candidates: int = 300
    """2D detections per image before suppression."""
    nms: float = 0.65
    """2D boxes of a class that overlap a better one by more than this are dropped."""
    nms_bev: float = 0.05
    """Lifted boxes of a class that overlap a better one by more than this in the bird's-eye view are dropped."""
    top_k: int = 100
    """2D detections per image that are lifted."""

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

# 8 images a step, 200,000 steps: 457 epochs of the paper's 3,500 training images; a tenth at 120,000 and 180,000. Recipes count
# epochs: on the 3,712 of the usual split 430 epochs are the same number of steps. Ours: momentum 0.9, weight decay, the linear
# warm-up's 1,000 steps, the range of the scale jitter
_PUBLISHED = Recipe(
    epochs=457,
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

    samples: labels only will do. keep: fields that the user has set, which are not measured.
    Raises InputError where a class has no object.
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
