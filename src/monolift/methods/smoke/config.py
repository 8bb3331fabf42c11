"""Every choice SMOKE leaves open, with the paper, the released code and our default as presets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from monolift.augment.augment import Augmentation
from monolift.augment.view import training_view
from monolift.data import kitti_facts
from monolift.data.sample import Sample
from monolift.errors import InputError, check_choices
from monolift.methods.base import keeping
from monolift.methods.recipe import Recipe

CHOICES = {
    "fit": ("area", "letterbox", "width-crop"),
    "radius": ("corrected", "centernet"),
    "orientation": ("vector", "quaternion"),
    "regression": ("disentangled", "l1", "smooth_l1"),
    "pixels": ("rgb", "bgr"),
    "norm": ("group", "batch"),
}


@dataclass(frozen=True)
class SmokeConfig:
    """Defaults are ours: small, for CPUs, with the known traps mended. ``paper()`` and ``official()`` follow the sources."""

    classes: tuple[str, ...] = field(
        default=("Car", "Pedestrian", "Cyclist"), metadata={"decides": ("sizes",)}
    )
    """Names by label index; any class of the training files may stand here."""
    backbone: str = "nano"
    """nano, dla34, resnet18, resnet34 or timm:NAME."""
    deformable: bool = True
    """DLA-34's up-path with deformable convolutions, as published, or plain ones."""
    norm: str = "group"
    """group (published) or batch, for backbones that come in both; the heads always have group norm."""
    head_channels: int = 64
    """Channels between the two convolutions of a head (published: 256)."""
    input_width: int = 832
    """Width of the training picture, pixels, a multiple of 32."""
    input_height: int = 256
    """Height of the training picture, pixels, a multiple of 32."""
    fit: str = "area"
    """How any picture becomes a network picture: area (same number of pixels, own shape), letterbox (into the training
    size), width-crop (released code: scaled by width, rows lost)."""
    pixels: str = "rgb"
    """Channel order. bgr is the released code's: reversed channels, yet the statistics of RGB."""
    full_camera: bool = True
    """Use the fourth column of P2; the released code drops it (0.036 of mean 2D IoU on KITTI)."""
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
    orientation: str = "vector"
    """vector (cos alpha, -sin alpha; published) or quaternion (ablation)."""
    radius: str = "centernet"
    """Rule for the Gaussians' radius: corrected (released code) or centernet (larger)."""
    keep_outside: bool = True
    """Objects whose 3D centre projects outside the picture are found at their 2D centre, with an offset. Published: dropped."""
    ignore_unlabelled: bool = True
    """No heatmap loss in DontCare regions, nor on vans, which may look like the class: published code calls both background."""
    min_height: float = 6.0
    """Labelled boxes lower than this, network pixels, are neither sought nor background."""
    neighbourhood: float = 0.3
    """Cells within this share of the 2D box's half sides round the key point train the regression too, with Gaussian weights
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
    regression: str = "disentangled"
    """disentangled (SMOKE section 4.3), l1 or smooth_l1 on the whole box (ablations of its table 5)."""
    height_leak: bool = False
    """Released code: in the location group the predicted height moves the bottom, so the group trains height too."""
    regression_weight: float = 2.5
    """Weight of the mean corner error, metres, against the heatmap. Released code: 24 / 300 per object, summed over a batch."""
    regression_per_object: bool = True
    """Divide the corner loss by the number of objects. Released code: sum / 300 whatever the batch holds."""
    suppress: float = 0.5
    """Of detections of one class whose 2D boxes overlap more than this the best stays. Published: no suppression, 0; with the
    softer heatmap and the trained neighbourhood of a key point, one object can have two peaks."""
    top_k: int = 100
    """Detections per picture before the score limit (paper 100, released code 50)."""

    def __post_init__(self) -> None:
        check_choices("smoke", self, CHOICES)
        # JSON gives lists
        object.__setattr__(self, "classes", tuple(self.classes))
        sizes = self.sizes or [kitti_facts.SIZES.get(name, (1.0, 1.0, 1.0)) for name in self.classes]
        object.__setattr__(self, "sizes", tuple(tuple(float(v) for v in size) for size in sizes))
        if len(self.sizes) != len(self.classes):
            raise InputError(
                f"smoke sizes: expected one (l, h, w) for each of {self.classes}, got {len(self.sizes)}"
            )
        if self.input_width % 32 or self.input_height % 32:
            raise InputError(
                f"smoke input must be multiples of 32, got {self.input_width} x {self.input_height}"
            )


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
        radius="corrected",
        keep_outside=False,
        ignore_unlabelled=False,
        min_height=0.0,
        neighbourhood=0.0,
        boxes2d=False,
        location_scale=False,
        suppress=0.0,
        direction_weight=0.0,
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
        pixels="bgr",
        full_camera=False,
        height_leak=True,
        regression_weight=24 / 300,
        regression_per_object=False,
        top_k=50,
    )
    return replace(base, **changes)


PRESETS = {"default": SmokeConfig, "paper": paper, "official": official}

# the published schedule: Adam 2.5e-4, a tenth at 40 and 72 % of the run, biases at twice the rate, 32 pictures a step
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

    samples: labels only will do. keep: fields that the user has set, which are not measured.
    Where ``focal`` is used (not 0) it becomes the median focal length of the network pictures,
    and depths are taken at it. Depth counts the first class only, as the published figures do.
    Raises InputError where a class has no object.
    """
    focals, depths = [], []
    sizes: dict[str, list[torch.Tensor]] = {name: [] for name in config.classes}
    for sample in samples:
        focals.append(float(training_view(config, *sample.size).camera(sample.camera).fx))
        for k, name in enumerate(sample.classes):
            if name in sizes:
                sizes[name].append(sample.boxes.size[k])
                if name == config.classes[0]:
                    depths.append((float(sample.boxes.center[k, 2]), focals[-1]))
    missing = [name for name, found in sizes.items() if not found]
    if missing:
        raise InputError(
            f"no training object of class {', '.join(missing)}: remove it from the classes or check the split"
        )
    focal = float(torch.tensor(focals).median())
    z = torch.tensor([depth * focal / f if config.focal else depth for depth, f in depths])
    means = tuple(tuple(torch.stack(sizes[name]).mean(0).tolist()) for name in config.classes)
    measured = replace(
        config,
        focal=focal if config.focal else 0.0,
        depth_mean=float(z.mean()),
        depth_std=float(z.std()),
        sizes=means,
    )
    return keeping(config, measured, keep)
