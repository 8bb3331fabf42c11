"""MonoDR's configuration, with presets for the defaults and the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from monolift.data.kitti_facts import CAR_DEVIATION, CAR_SIZE
from monolift.errors import InputError
from monolift.files.settings import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_fields
from monolift.render.renderer import EdgeRule

CHOICES = {
    "others": ("unknown", "foreground"),
    "depth_pixels": ("own", "foreground"),
    "box_sides": ("one-sided", "all"),
    "depth_loss": ("robust", "l1"),
    "size_loss": ("gaussian", "l1"),
    "start_depth": ("centroid", "mean"),
    "edge_rule": ("antialias", "kato"),
}
RANGES = {
    "size_mean": POSITIVE,
    "size_deviation": POSITIVE,
    "crop": Range(16, 1024),
    "margin": Range(0, 10),
    "iterations": Range(0, 1_000_000),
    "lr": Range(0, 10, above=True),
    "pixel_weight": NOT_NEGATIVE,
    "box_weight": NOT_NEGATIVE,
    "box_tolerance": SHARE,
    "silhouette_weight": NOT_NEGATIVE,
    "depth_weight": NOT_NEGATIVE,
    "size_weight": NOT_NEGATIVE,
    "size_after": NOT_NEGATIVE,
    "depth_cut": POSITIVE,
    "start_codes": NOT_NEGATIVE,
    "start_rotation": NOT_NEGATIVE,
    "scale_spread": NOT_NEGATIVE,
    "size_spread": POSITIVE,
    "escape_until": NOT_NEGATIVE,
    "escape_depth": NOT_NEGATIVE,
    "escape_box": NOT_NEGATIVE,
    "silhouette_confidence": NOT_NEGATIVE,
    "protrusion_confidence": NOT_NEGATIVE,
    "batch": COUNT,
}


@dataclass(frozen=True)
class MonoDRConfig:
    """The defaults are faster and occlusion-aware; ``paper()`` has the published constants."""

    size_mean: tuple[float, ...] = CAR_SIZE
    """Mean length, height, width, metres; the initial value and the prior of the fitted size. KITTI's cars: statistics, not
    labels of the images at hand."""
    size_deviation: tuple[float, ...] = CAR_DEVIATION
    """Standard deviations of length, height, width, metres, for the gaussian size loss."""
    crop: int = 64
    """Side of an object's crop, pixels (the paper does not state it)."""
    margin: float = 0.1
    """Margin of the crop around the 2D box, as a fraction of its longer side (the paper does not state it)."""
    iterations: int = 100
    """Optimisation steps with Adam (published: 150)."""
    lr: float = 0.03
    """Adam's learning rate, for metres, radians and codes alike; betas 0.5 and 0.9."""
    pixel_weight: float = 1.0
    """Weight of the colour loss, eq. 3."""
    box_weight: float = 1.0
    """Weight of the 2D box loss, eq. 4."""
    box_tolerance: float = 0.1
    """1 - IoU of the 2D boxes below which the box loss is zero."""
    silhouette_weight: float = 1.0
    """Weight of the silhouette loss, eqs. 5 and 6."""
    depth_weight: float = 0.2
    """Weight of the depth loss, eq. 7, per metre."""
    size_weight: float = 0.04
    """Weight of the size prior: of half the squared deviations, or of the L1 distance in metres (0.1)."""
    size_loss: str = "gaussian"
    """gaussian (half the sum of squares of the deviations in standard deviations) or l1 (published)."""
    size_after: int = 33
    """Iterations in which sizes are fixed at their means, so that a car seen from behind does not become a short one seen from
    the side before its rotation is found (published: 0)."""
    depth_loss: str = "robust"
    """robust (grows like L1, but no further than ``depth_cut``) or l1 (published)."""
    depth_cut: float = 2.0
    """Metres at which the robust depth loss saturates."""
    depth_pixels: str = "own"
    """Where depths are compared: own (the object's own mask), or foreground (published, eq. 7: the union of all masks, so that
    the depth of an occluder counts where the object is rendered)."""
    depth_balance: bool = True
    """Points of a laser weigh as much as a dense depth map, each as many times as the mask has more pixels than points; False
    (published): a pixel without a depth adds nothing to eq. 7, and the depth of a sparse map weighs little."""
    others: str = "unknown"
    """Pixels of other instances and beyond the image border: unknown (masked out of the loss) or foreground (published: the
    union of all masks is foreground)."""
    box_sides: str = "one-sided"
    """one-sided: the object may reach beyond a side of its 2D box that touches another instance or the border; or all
    sides count both ways (published)."""
    start_depth: str = "centroid"
    """centroid (median depth of the mask and half a mean width behind it) or mean (of the mask; the paper's sentence is
    ambiguous)."""
    start_codes: float = 0.0
    """Standard deviation of the initial codes; 0: the mean car (published: 0.1)."""
    start_rotation: float = 0.1
    """Standard deviation of the initial angle, radians."""
    scale_spread: float = 0.03
    """Standard deviation of the log of a depth map's scale error, estimated per image from the sizes of its objects. 0: no
    scale correction (published)."""
    size_spread: float = 0.07
    """Standard deviation of the log of an object's size about the mean, weighed against ``scale_spread``."""
    escape_until: int = 33
    """Number of initial iterations in which rotation hypotheses are tested (published: all)."""
    escape_turned: bool = True
    """Also test the opposite heading."""
    escape_sweep: bool = True
    """Test the whole circle in steps of 30 degrees in the first and the last of these iterations."""
    escape_depth: float = 0.3
    """Weight of the median-subtracted depth difference, per metre, when rotations are compared (published: 0)."""
    escape_box: float = 0.5
    """Weight of 1 - IoU of the 2D boxes when rotations are compared (published: 0, with ``escape_aligned``)."""
    escape_aligned: bool = False
    """Align a hypothesis' 2D box with the observed one in position and area before comparing (published)."""
    metric: str = "multiscale"
    """Metric that compares hypotheses: multiscale (needs no weights; also in the paper preset, because LPIPS needs a file) or
    lpips:FILE (published)."""
    silhouette_confidence: float = 0.1
    """alpha_m of eq. 8."""
    protrusion_confidence: float = 0.03
    """alpha_b of eq. 8."""
    edge_rule: EdgeRule = "antialias"
    """Edge gradients of the renderer: antialias, or kato (published)."""
    batch: int = 32
    """Objects per batch, from several images."""

    def __post_init__(self) -> None:
        check_fields("monodr", self, CHOICES, RANGES)
        for name in ("size_mean", "size_deviation"):
            if len(getattr(self, name)) != 3:
                raise InputError(
                    f"monodr {name} must be length, height, width in metres, got {getattr(self, name)}"
                )
        if self.metric != "multiscale" and not self.metric.startswith("lpips:"):
            raise InputError(f'monodr metric must be "multiscale" or "lpips:FILE", got {self.metric!r}')


def paper(**changes: Any) -> MonoDRConfig:
    """The constants of the publication: sections 3 and 4, eqs. 2 to 8.

    Four things of the paper are no constants and not in here. The decoder is the one that `MonoDR` is given: the bundled one is
    a linear basis of procedural cars; the published generator, `shapes.textured_conv`, has to be trained on ShapeNet's cars.
    The metric of the rotations is ours unless ``metric="lpips:FILE"``. Crops are 128 pixels with a margin of 0.1, codes of zero
    length cannot occur, and a jump to another rotation resets Adam's moments: the paper does not say. The 2D boxes are whatever
    the observations hold; `monolift autolabel --preset paper` takes the detector's.
    """
    base = MonoDRConfig(
        crop=128,
        iterations=150,
        depth_loss="l1",
        depth_pixels="foreground",
        depth_balance=False,
        size_weight=0.1,
        size_loss="l1",
        size_after=0,
        others="foreground",
        box_sides="all",
        start_depth="mean",
        start_codes=0.1,
        scale_spread=0.0,
        escape_until=150,
        escape_turned=False,
        escape_sweep=False,
        escape_depth=0.0,
        escape_box=0.0,
        escape_aligned=True,
        edge_rule="kato",
    )
    return replace(base, **changes)


PRESETS: dict[str, Callable[[], MonoDRConfig]] = {"default": MonoDRConfig, "paper": paper}
