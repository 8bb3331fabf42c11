"""SMOKE: Single-Stage Monocular 3D Object Detection via Keypoint Estimation (Liu, Wu, Toth, CVPR Workshops 2020).

One keypoint per object, the projection of its 3D centre, is found as a peak of a class's heatmap; at the same cell eight
numbers are regressed: depth, the sub-cell offset of the projection, three size residuals, and the sine and cosine of the
observation angle. With the camera intrinsics they decode to a 3D box, and there is no 2D detection, no region proposal and no
NMS beyond the 3x3 peak. The regression is trained on the eight corners of the box, in metres, disentangled: one group of
numbers at a time with the labels of the others.

    config    every choice, with presets: default (ours), paper, official (the released code), efficientnet (experimental)
    network   DLA-34 with a deformable up-path as published, or a small CPU network; two heads
    codec     box <-> eight numbers at a cell; its depth and heading have options, in modules of these names
    assign    labelled objects -> heatmap and cells that train the regression
    loss      focal loss; disentangled corner loss
    decode    peaks, ranking, 2D boxes, NMS
    released  checkpoints of the released code and of MMDetection3D
"""

from __future__ import annotations

from collections.abc import Sequence

from monolift.data.sample import Detections, Sample
from monolift.geometry import Camera
from monolift.methods.base import Detector, Method
from monolift.methods.smoke.assign import Targets, assign_targets
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.smoke.config import (
    PRESETS,
    RECIPES,
    RENAMED,
    SmokeConfig,
    official,
    paper,
    with_statistics,
)
from monolift.methods.smoke.decode import decode_maps
from monolift.methods.smoke.loss import smoke_loss
from monolift.methods.smoke.network import SmokeNetwork
from monolift.methods.smoke.released import for_config, released
from monolift.typing import Float, Tensor, UInt8

__all__ = ["METHOD", "PRESETS", "RECIPES", "Smoke", "SmokeConfig", "official", "paper"]


class Smoke(Detector[SmokeConfig, Targets]):
    """The detector: network, targets, loss and decoding of one configuration."""

    method = "smoke"

    def __init__(self, config: SmokeConfig | None = None) -> None:
        super().__init__()
        self.config = config or SmokeConfig()
        self.codec = SmokeCodec(self.config)
        self.network = SmokeNetwork(
            self.config.backbone,
            len(self.config.classes),
            self.codec.heads,
            self.config.head_channels,
            self.config.norm,
            self.config.deformable,
            self.config.extensions.dense_depth > 0,
            self.config.extensions.head_norm,
        )

    def normalise(self, image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """uint8 RGB to what the backbone was trained on."""
        # bgr: the statistics stay in RGB order, the released code's mismatch
        return super().normalise(image.flip(-3) if self.config.quirks.bgr else image)

    def encode(self, samples: Sequence[Sample]) -> Targets:
        return assign_targets(self.codec, samples)

    def loss(self, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        return smoke_loss(self.codec, raw, targets)

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        return decode_maps(self.codec, raw, cameras)


METHOD = Method(
    name="smoke",
    title="SMOKE: Single-Stage Monocular 3D Object Detection via Keypoint Estimation",
    config=SmokeConfig,
    detector=Smoke,
    presets=PRESETS,
    recipes=RECIPES,
    statistics=with_statistics,
    fixed=frozenset({"paper", "official"}),  # KITTI's, as published
    learns_depth=lambda config: config.extensions.dense_depth > 0,
    renamed=RENAMED,
    released=released,
    adapted=for_config,
)
