"""SS3D: Monocular 3D Object Detection and Box Fitting Trained End-to-End Using Intersection-over-Union Loss
(Jörgensen, Zach, Kahl, 2019).

At each cell in the middle of an object the network predicts 26 redundant parameters of its box: 2D box, distance, observation
angle, size, and the eight corners in the image, each with an uncertainty. The box is a weighted least-squares fit of seven
numbers to all of them, which gives its covariance, too. The fit has a gradient, so that the IoU of the fitted box can be
trained, end to end.

    config      every choice, with presets: default (ours), paper, author (first author's code); second stages iou, paper_iou
    network     DRN-C-26, the author's encoder, or a small CPU network; a head per kind of parameter and for its sigmas
    parameters  the 26 parameters of a box in a camera, and their Jacobian
    codec       box <-> 26 channels at a cell; corner_order: which corner comes first in them
    assign      labelled objects -> class map, support regions, regression targets of their cells
    fit         batched Levenberg-Marquardt with the gradient of the minimum
    loss        likelihoods homoscedastic and heteroscedastic, Gaussian with Gamma prior or Laplace; overlap through the fit
    decode      local maxima, NMS, votes of an object's cells, the fit, ranking; covariance and outliers

Sources: the paper's formulas as told by reading notes, and facts from the first author's public development code; the paper's
full text was not at hand. Not recovered, and ours here: the schedule and weights of the overlap stage, the unit in which the
Gamma prior acts, the paper's solver and iterations, its NMS threshold, its augmentation, its treatment of disjoint boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

from monolift.data.sample import Detections, Sample
from monolift.geometry import Camera
from monolift.methods.base import Detector, Method
from monolift.methods.ss3d.assign import Targets, assign_targets
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.config import (
    PRESETS,
    RECIPES,
    RENAMED,
    SS3DConfig,
    author,
    paper,
    paper_through_fit,
    through_fit,
    with_statistics,
)
from monolift.methods.ss3d.decode import decode_maps
from monolift.methods.ss3d.loss import ss3d_loss
from monolift.methods.ss3d.network import SS3DNetwork
from monolift.typing import Tensor

__all__ = [
    "METHOD",
    "PRESETS",
    "RECIPES",
    "SS3D",
    "SS3DConfig",
    "author",
    "paper",
    "paper_through_fit",
    "through_fit",
]


class SS3D(Detector[SS3DConfig, Targets]):
    """The detector: network, codec and loss of one configuration."""

    method = "ss3d"

    def __init__(self, config: SS3DConfig | None = None) -> None:
        super().__init__()
        self.config = config or SS3DConfig()
        self.codec = SS3DCodec(self.config)
        per_cell = self.config.uncertainty == "heteroscedastic"
        self.network = SS3DNetwork(
            self.config.backbone,
            len(self.config.classes),
            self.config.norm,
            self.config.head_channels,
            per_cell,
            self.config.sigma_scale if per_cell else self.config.shared_sigma_scale,
        )

    def encode(self, samples: Sequence[Sample]) -> Targets:
        return assign_targets(self.codec, samples)

    def loss(self, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        return ss3d_loss(self.codec, raw, targets)

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        return decode_maps(self.codec, raw, cameras)


METHOD = Method(
    name="ss3d",
    title="SS3D: Monocular 3D Object Detection and Box Fitting Trained End-to-End Using Intersection-over-Union Loss",
    config=SS3DConfig,
    detector=SS3D,
    presets=PRESETS,
    recipes=RECIPES,
    statistics=with_statistics,
    renamed=RENAMED,
)
