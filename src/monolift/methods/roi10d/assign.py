"""Target assignment of ROI-10D: anchors and RoIs to labelled objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from zlib import crc32

import torch

from monolift.data.kitti_facts import looks_like
from monolift.data.sample import Sample
from monolift.geometry import Boxes3D, Camera, iou_2d
from monolift.methods.roi10d.config import ROI10DConfig
from monolift.methods.roi10d.shape_labels import ShapeLabels
from monolift.nn.fpn import pyramid_strides
from monolift.nn.retina import anchor_boxes
from monolift.typing import Float, Int, Tensor

POSITIVE, NEGATIVE = 0.5, 0.4  # IoU of an anchor with a label (RetinaNet)
BACKGROUND, IGNORE = -1, -2  # in the owner of an anchor
MOST_DETECTED = 4  # regions per object that are detections
NEAREST = 0.5  # metres; a box whose centre is nearer is none


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B images with A anchors each, N objects and M training regions in all.

    owner: (B, A) object of each anchor, BACKGROUND or IGNORE
    image, label, boxes2d, boxes: (N,) image in the batch, class, 2D box in pixels, 3D box
    rotation: (N, 3, 3) of the 3D boxes, of which they keep the heading
    shape: (N, C) unit codes, zeros where there is no label
    roi, roi_object: (M, 4) regions, pixels, and the object of each
    depth: (B, H, W) metres, 0 where unknown; None where no image has any
    cameras: (B,); names: for messages
    """

    owner: Int[Tensor, "b a"]
    image: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    boxes2d: Float[Tensor, "n 4"]
    boxes: Boxes3D
    rotation: Float[Tensor, "n 3 3"]
    shape: Float[Tensor, "n c"]
    roi: Float[Tensor, "m 4"]
    roi_object: Int[Tensor, " m"]
    depth: Float[Tensor, "b H W"] | None
    cameras: Camera
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Targets:
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        moved = {k: v.to(device, non_blocking=True) for k, v in parts.items() if v is not None}
        return replace(self, **moved)


def assign_targets(config: ROI10DConfig, shapes: ShapeLabels, samples: Sequence[Sample]) -> Targets:
    """Targets of samples that are network images of one size."""
    width, height = samples[0].size
    anchors = network_anchors(config, width, height, torch.zeros(()))
    owner = torch.full((len(samples), len(anchors)), BACKGROUND)
    image, label, kept, copies, first = [], [], [], [], 0
    for b, sample in enumerate(samples):
        labels = [_label(config, sample, i) for i in range(len(sample))]
        mine = torch.tensor([k is not None and k >= 0 for k in labels], dtype=torch.bool)
        owner[b] = _owners(sample, labels, mine, anchors, first)
        kept.append(sample.keep(mine))
        label += [k for k in labels if k is not None and k >= 0]
        image += [b] * len(kept[-1])
        copies.append(_regions(config, kept[-1]))
        first += len(kept[-1])
    boxes2d = torch.cat([s.boxes2d for s in kept])
    repeat = _copies(config)
    known = [s.depth for s in samples]
    no_depth = torch.zeros(height, width)
    return Targets(
        owner=owner,
        image=torch.tensor(image, dtype=torch.long),
        label=torch.tensor(label, dtype=torch.long),
        boxes2d=boxes2d,
        boxes=Boxes3D.cat([s.boxes for s in kept]),
        rotation=torch.cat([s.rotations for s in kept]),
        shape=torch.cat([shapes.codes(s) for s in kept]),
        roi=torch.cat(copies),
        roi_object=torch.arange(first).repeat_interleave(repeat),
        depth=None
        if all(d is None for d in known)
        else torch.stack([no_depth if d is None else d for d in known]),
        cameras=Camera.stack([s.camera for s in samples]),
        names=tuple(s.name for s in samples),
    )


def network_anchors(config: ROI10DConfig, width: int, height: int, like: Tensor) -> Float[Tensor, "a 4"]:
    """The anchors of a network image of this size, pixels."""
    c = config
    strides = pyramid_strides(c.backbone)
    boxes = anchor_boxes(width, height, strides, c.anchor_size, c.anchor_scales, c.anchor_ratios)
    return boxes.to(like)


def _label(config: ROI10DConfig, sample: Sample, i: int) -> int | None:
    """Class of object i, IGNORE where the loss ignores it, None for background."""
    name, box = sample.classes[i], sample.boxes2d[i]
    behind = float(sample.boxes.center[i, 2]) < NEAREST
    if name in config.classes:
        low = float(box[3] - box[1]) < config.min_height
        return IGNORE if low or behind else config.classes.index(name)
    return IGNORE if looks_like(name, config.classes) else None


def _owners(
    sample: Sample, labels: list[int | None], mine: Tensor, anchors: Tensor, first: int
) -> Int[Tensor, " a"]:
    """(A,) owner of each anchor of one image: at least POSITIVE overlap, or an object's best anchor."""
    owner = torch.full((len(anchors),), BACKGROUND)
    avoid = torch.tensor([k == IGNORE for k in labels], dtype=torch.bool)
    for region in [*sample.ignore, *sample.boxes2d[avoid]]:
        owner[_share_inside(anchors, region) > 0.5] = IGNORE
    if mine.any():
        overlap = iou_2d(anchors, sample.boxes2d[mine])
        best, whose = overlap.max(1)
        owner[best >= NEGATIVE] = IGNORE
        owner = torch.where(best >= POSITIVE, whose + first, owner)
        # low-quality matches: every object has an anchor, the smaller objects last so that they keep theirs
        order = torch.argsort(overlap.max(0).values, descending=True)
        owner[overlap.argmax(0)[order]] = order + first
    return owner


def with_detected_regions(
    targets: Targets,
    boxes: Float[Tensor, "d 4"],
    image: Int[Tensor, " d"],
    label: Int[Tensor, " d"],
    per_object: int = MOST_DETECTED,
) -> Targets:
    """The targets with the detector's own 2D boxes as training regions beside the labelled ones.

    Args:
        targets: of a batch, with one region per object, its labelled 2D box.
        boxes: 2D detections after NMS, best first, pixels.
        image: index of each in the batch.
        label: class index of each.
        per_object: detections of one object that are taken, at most.

    Returns:
        Targets whose regions are the labelled boxes and each detection that overlaps a label of its image and class by at
        least `POSITIVE`, as a region of the label that it overlaps most.
    """
    if not len(targets.boxes2d) or not len(boxes):
        return targets
    overlap = iou_2d(boxes, targets.boxes2d)
    same = (image[:, None] == targets.image) & (label[:, None] == targets.label)
    best, whose = torch.where(same, overlap, 0.0).max(1)
    earlier = torch.ones(len(whose), len(whose), device=whose.device).tril(-1).bool()
    rank = (earlier & (whose[:, None] == whose) & (best >= POSITIVE)).sum(1)
    found = (best >= POSITIVE) & (rank < per_object)
    return replace(
        targets,
        roi=torch.cat([targets.roi, boxes[found]]),
        roi_object=torch.cat([targets.roi_object, whose[found]]),
    )


def _copies(config: ROI10DConfig) -> int:
    """Regions per labelled object that are made of its label."""
    return config.roi_copies if config.regions == "labels" else 1


def _regions(config: ROI10DConfig, sample: Sample) -> Float[Tensor, "m 4"]:
    """Copies of each 2D box, all but the first with their sides shifted at random, as if detected; or the 2D box alone.

    Random, but the same again for the same view of the same sample, so that a resumed training is the same one.
    """
    seed = crc32(f"{sample.name} {float(sample.camera.cx)} {float(sample.camera.fx)}".encode())
    generator = torch.Generator().manual_seed(seed)
    repeat = _copies(config)
    copies = sample.boxes2d.repeat_interleave(repeat, 0)
    side = (copies[:, 2:] - copies[:, :2]).clamp_min(1).repeat(1, 2)
    shift = config.roi_jitter * (2 * torch.rand(copies.shape, generator=generator) - 1)
    shift[::repeat] = 0
    return copies + shift * side


def _share_inside(boxes: Tensor, region: Tensor) -> Tensor:
    """(N,) share of each box's area that lies in ``region``."""
    overlap = torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])
    return overlap.clamp_min(0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
