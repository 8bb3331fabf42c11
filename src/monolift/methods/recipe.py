"""Training recipe: optimiser, schedule, precision, augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from monolift.augment.augmentation import Augmentation
from monolift.files.settings import COUNT, NOT_NEGATIVE, SHARE, Range, check_fields

CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("cosine", "steps"),
    "precision": ("float32", "bfloat16"),
}
FACTOR = Range(0, 1000)
RANGES = {
    "epochs": COUNT,
    "steps": Range(0, 1_000_000_000),
    "batch_size": COUNT,
    "lr": Range(0, 10, above=True),
    "backbone_lr_factor": FACTOR,
    "bias_lr_factor": FACTOR,
    "weight_decay": Range(0, 10),
    "milestones": SHARE,
    "warmup": Range(0, 1, below=True),
    "clip": NOT_NEGATIVE,
    "ema": Range(0, 1, below=True),
}


@dataclass(frozen=True)
class Recipe:
    """Optimisation of one training run."""

    epochs: int = 30
    """Passes over the training images, where ``steps`` is 0."""
    steps: int = 0
    """Steps of the run, whatever the number of images, completed to whole epochs; 0: ``epochs`` decides. Setting ``epochs``
    alone takes the place of a preset's steps."""
    batch_size: int = 8
    """Images per step and process."""
    optimizer: str = "adamw"
    """Optimizer: adam, adamw, or sgd with momentum 0.9."""
    lr: float = 6e-4
    """Learning rate, reached after the warm-up."""
    backbone_lr_factor: float = 0.5
    """Learning rate factor of the backbone, which starts from pretrained weights."""
    freeze: tuple[str, ...] = ()
    """Frozen parts of the backbone by name, such as ("stem", "dark2") or ("base.stem", "base.stages.0")."""
    bias_lr_factor: float = 1.0
    """Learning rate factor of biases (SMOKE's released code: 2)."""
    weight_decay: float = 1e-4
    """Weight decay, on parameters with two or more dimensions only."""
    schedule: str = "cosine"
    """Learning rate schedule: cosine (down to 1 %) or steps (times 0.1 at each milestone)."""
    milestones: tuple[float, ...] = (0.4, 0.72)
    """Milestones of the schedule steps, as fractions of the run."""
    warmup: float = 0.03
    """Fraction of the run with a linear warm-up from 1 % of the learning rate."""
    clip: float = 20.0
    """Maximum gradient norm; 0: no clipping."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is evaluated and saved; 0: none."""
    precision: str = "float32"
    """float32, or bfloat16 (autocast; losses and boxes in float32)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Mirror, zoom, shift, colour."""

    def __post_init__(self) -> None:
        check_fields("recipe", self, CHOICES, RANGES)

    def epochs_of(self, steps_per_epoch: int) -> int:
        """Epochs of a run with so many steps in each."""
        return math.ceil(self.steps / steps_per_epoch) if self.steps else self.epochs

    def length(self, steps_per_epoch: int) -> int:
        """Steps over which the schedule runs."""
        return self.steps or self.epochs * steps_per_epoch

    def rate(self, progress: float) -> float:
        """Factor on the learning rate when a share ``progress`` of the run is done."""
        if progress < self.warmup:
            return 0.01 + 0.99 * progress / self.warmup
        if self.schedule == "steps":
            return float(0.1 ** sum(progress >= m for m in self.milestones))
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
