"""ROI-10D: Monocular Lifting of 2D Detection to 6D Pose and Metric Shape (Manhardt, Kehl, Gaidon, CVPR 2019).

A 2D detector finds regions; in each, features, a depth map of the whole image and a map of coordinates are read, and five
branches say what lifts the region to 3D: an allocentric rotation, the centre's projection, its depth, the extents, and the
code of a shape. The loss is taken where it matters, at the eight corners in metres, so that no weights between pixels,
radians and metres are needed.

    config        every choice, with presets: default (ours, for CPUs) and paper
    network       RetinaNet on a feature pyramid, depth stream, fusion, branches
    depth         SuperDepth: the depth stream, how LiDAR or rendered depth train it, its files
    self_supervision   how stereo pairs and video train it before the detector
    codec         box <-> the numbers of a region's branches
    assign        labelled objects -> anchors and training regions
    decode        regions by NMS; their numbers to detections
    meshes        shape codes to textured meshes
    loss          lifting loss (eq. 2), separate terms, Kendall's weights; focal, shape, depth
    shape_labels  shape codes of labelled cars by greedy search, offline
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monolift.data.sample import Detections, Sample
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.methods.base import Detector, GivenBoxes, Method
from monolift.methods.roi10d.assign import Targets, assign_targets, with_detected_regions
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.roi10d.config import (
    PRESETS,
    RECIPES,
    TERMS,
    ROI10DConfig,
    paper,
    with_statistics,
)
from monolift.methods.roi10d.decode import LiftedDetections, Regions, decode_regions, propose
from monolift.methods.roi10d.depth import load_stream
from monolift.methods.roi10d.loss import roi10d_loss, scaled_depth
from monolift.methods.roi10d.meshes import median_shapes, space_of, with_meshes
from monolift.methods.roi10d.network import ROI10DNetwork
from monolift.methods.roi10d.shape_labels import ShapeLabels
from monolift.typing import Float, Tensor, UInt8

NO_DEPTH = (
    "warning: nothing trains the depth stream as depth: no depth_2 beside the images and no depth_weights; only the pose loss "
    "reaches it. Pre-train it with monolift depth train, convert LiDAR with monolift convert --to depth, or --set depth=none"
)

__all__ = ["METHOD", "PRESETS", "RECIPES", "ROI10D", "Lifted", "LiftedDetections", "ROI10DConfig", "paper"]


class ROI10D(Detector[ROI10DConfig, Targets]):
    """The detector: network, codec and loss of one configuration.

    It works in two stages: ``forward`` gives what regions are found in and read from; ``loss`` reads regions round the
    labels, ``decode`` those it finds. The number of steps trained is kept among the weights, for the warm-up.
    """

    method = "roi10d"
    averages = False  # shapes
    lifts = True
    network: ROI10DNetwork

    def __init__(self, config: ROI10DConfig | None = None) -> None:
        super().__init__()
        self.config = config or ROI10DConfig()
        self.codec = ROI10DCodec(self.config)
        self.shapes = ShapeLabels(self.config.shape_labels, self.config.shape_code)
        self.network = ROI10DNetwork(self.config)
        self.log_variances = nn.Parameter(torch.zeros(len(TERMS)))  # of Kendall's terms
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def encode(self, samples: Sequence[Sample]) -> Targets:
        return assign_targets(self.config, self.shapes, samples)

    def loss(self, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        if self.config.depth == "given":
            known = scaled_depth(self.config, targets)
            raw = raw if known is None else {**raw, "depth": known[:, None]}
        if self.config.regions == "detections":
            found = propose(self.config, raw, targets.cameras)
            targets = with_detected_regions(targets, found.boxes, found.image, found.label)
        numbers = self.network.regions(raw, targets.roi, targets.image[targets.roi_object])
        warm = int(self.steps) >= self.config.warmup_steps
        return roi10d_loss(self.codec, raw, numbers, targets, warm, self.log_variances)

    def before_training(self, depth_maps: bool) -> list[str]:
        """Fill the depth stream from ``depth_weights``; say where it has nothing to learn depth from."""
        stream, file = self.network.depth, self.config.depth_weights
        if stream is None:
            return []
        if not file:
            return [] if depth_maps else [NO_DEPTH]
        trained, made = load_stream(file)
        if made.encoder != self.config.depth:
            raise InputError(
                f"{file}: is a stream with the encoder {made.encoder}, but depth is {self.config.depth}: "
                f"--set depth={made.encoder}"
            )
        stream.load_state_dict(trained.state_dict())
        unit = "" if made.metric else ": from video, so its unit is not the metre"
        return [f"{file}: all {len(trained.state_dict())} entries of the depth stream taken{unit}"]

    def after_step(self) -> None:
        self.steps += 1

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        regions = propose(self.config, raw, cameras)
        numbers = self.network.regions(raw, regions.boxes, regions.image)
        return [*decode_regions(self.codec, numbers, regions, cameras)]

    def lift(self, raw: dict[str, Tensor], cameras: Camera, given: Sequence[GivenBoxes]) -> list[Detections]:
        """The second stage alone: another detector's 2D boxes in place of the first stage's regions."""
        image = torch.cat([torch.full_like(one.labels, b) for b, one in enumerate(given)])
        parts = (torch.cat([getattr(one, k) for one in given]) for k in ("boxes", "labels", "scores"))
        boxes, labels, scores = (part.to(self.device) for part in parts)
        regions = Regions(boxes, image.to(self.device), labels, scores)
        numbers = self.network.regions(raw, regions.boxes, regions.image)
        return [*decode_regions(self.codec, numbers, regions, cameras, nms=False)]

    def with_meshes(
        self, found: Detections, image: UInt8[Tensor, "3 H W"], camera: Camera
    ) -> LiftedDetections:
        """The detections of an image with textured meshes, metres, camera frame; 2D boxes in pixels of ``image``.

        A model trained without shape labels says nothing about shapes: its cars are the median car in their extents.
        """
        assert isinstance(found, LiftedDetections)  # its own
        space = space_of(self.config.shape_space)
        if not self.config.shape_labels:
            found = median_shapes(found, space)
        return with_meshes(found, image, camera, space)

    def with_depth(
        self, raw: dict[str, Tensor], depth: Float[Tensor, "b h w"], cameras: Camera
    ) -> dict[str, Tensor]:
        """``raw`` with a depth map from elsewhere in place of the stream's.

        Args:
            depth: metres at the network images' pixels; 0 or NaN where unknown.
            cameras: of the network images.
        """
        lens = (
            self.config.focal / cameras.fx.to(depth) if self.config.focal else torch.ones_like(depth[:, 0, 0])
        )
        return {**raw, "depth": (depth * lens[:, None, None])[:, None]}


METHOD = Method(
    name="roi10d",
    title="ROI-10D: Monocular Lifting of 2D Detection to 6D Pose and Metric Shape",
    config=ROI10DConfig,
    detector=ROI10D,
    presets=PRESETS,
    recipes=RECIPES,
    statistics=with_statistics,
    learns_depth=lambda config: True,
)
