"""ROI-10D's parameterisation of a 3D box, both ways: anchors find a 2D region, and five branches lift it to 3D.

branch    numbers  stands for
rotation     4     quaternion, any length, of what the object looks like along its viewing ray (allocentric)
centroid     2     projection of the 3D centre, from the region's middle, in region sizes
depth        1     z of the centre; "roi": log(z / z0) in DEPTH_UNIT, z0 where an object of mean height fills the region's
                   height (ours); "mean": standard deviations from the mean (published)
extents      3     deviation from the class's mean length, height, width in standard deviations
shape        6     code of the shape space, any length

Eq. 1 lifts them: corners = R (+-l/2, +-h/2, +-w/2) + K^-1 (x z, y z, z), where R is the rotation turned along with the ray.
A label has a yaw only; seen along a ray that looks down, what it looks like is a little tilted, and the branch learns that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from zlib import crc32

import torch

from monolift.data.kitti_facts import looks_like
from monolift.data.sample import Detections, Sample
from monolift.geometry import CORNER_SIGNS, Boxes3D, Camera, iou_2d, iou_bev
from monolift.geometry.rotations import (
    allocentric_from_egocentric,
    egocentric_from_allocentric,
    matrix_from_quaternion,
    quaternion_from_matrix,
    yaw_from_matrix,
)
from monolift.methods.roi10d.config import SHAPE, ROI10DConfig
from monolift.methods.roi10d.shape_labels import ShapeLabels
from monolift.nn.fpn import pyramid_strides
from monolift.nn.retina import anchor_boxes, boxes_from_deltas
from monolift.nn.roi import batched_nms
from monolift.typing import Bool, Float, Int, Tensor

DEPTH_UNIT = 0.25  # of log depth per unit of the branch, about the spread round the start
SMALLEST = 0.2  # of the mean extents: no branch can say less
NEAREST = 0.5  # metres; a box whose centre is nearer is none
POSITIVE, NEGATIVE = 0.5, 0.4  # overlap of an anchor with a label (RetinaNet)
BACKGROUND, IGNORE = -1, -2  # in the owner of an anchor
CONFIDENCE_METRES = 4.0  # expected corner error that divides a score by e


@dataclass(frozen=True)
class Lifted:
    """N boxes of any rotation. center, size: metres; rotation: (N, 3, 3) cam_from_object."""

    center: Float[Tensor, "n 3"]
    size: Float[Tensor, "n 3"]
    rotation: Float[Tensor, "n 3 3"]

    def corners(self) -> Float[Tensor, "n 8 3"]:
        """Corners, metres, camera frame, in the order of ``CORNER_SIGNS`` (ROI-10D eq. 1)."""
        signs = torch.tensor(CORNER_SIGNS, dtype=self.center.dtype, device=self.center.device)
        return signs * self.size[:, None] / 2 @ self.rotation.transpose(-1, -2) + self.center[:, None]

    def boxes(self) -> Boxes3D:
        """The yaw boxes next to them: the heading's direction in the ground plane, no pitch, no roll."""
        return Boxes3D(self.center, self.size, yaw_from_matrix(self.rotation))


@dataclass(frozen=True, kw_only=True)
class LiftedDetections(Detections):
    """Detections with all of a region's ten numbers and more.

    rotation: (N, 3, 3) cam_from_object, of which ``boxes.yaw`` keeps the heading; shape: (N, 6) unit codes of the shape space
    score2d: (N,) RetinaNet's probability, where ``scores`` also hold the expected corner error
    """

    rotation: Float[Tensor, "n 3 3"]
    shape: Float[Tensor, "n 6"]
    score2d: Float[Tensor, " n"]


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B pictures with A anchors each, N objects and M training regions in all.

    owner: (B, A) object of each anchor, BACKGROUND or IGNORE
    image, label, boxes2d, boxes: (N,) picture in the batch, class, 2D box in pixels, 3D box
    shape: (N, 6) unit codes, zeros where there is no label
    roi, roi_object: (M, 4) regions, pixels, and the object of each
    depth: (B, H, W) metres, 0 where unknown; None where no picture has any
    cameras: (B,); names: for messages
    """

    owner: Int[Tensor, "b a"]
    image: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    boxes2d: Float[Tensor, "n 4"]
    boxes: Boxes3D
    shape: Float[Tensor, "n 6"]
    roi: Float[Tensor, "m 4"]
    roi_object: Int[Tensor, " m"]
    depth: Float[Tensor, "b H W"] | None
    cameras: Camera
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Targets:
        fixed = ("cameras", "names")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in fixed}
        return replace(self, **{k: v.to(device) for k, v in values.items() if v is not None})


class ROI10DCodec:
    """encode: samples -> targets; propose: raw -> regions; lift: a region's numbers -> boxes, and ``numbers`` its inverse."""

    def __init__(self, config: ROI10DConfig) -> None:
        self.config = config
        self.strides = pyramid_strides(config.backbone)
        self.shapes = ShapeLabels(config.shape_labels)

    # -- a region's numbers -------------------------------------------------------------------------------------------

    def lift(
        self,
        numbers: dict[str, Tensor],
        roi: Float[Tensor, "n 4"],
        label: Int[Tensor, " n"],
        camera: Camera,
    ) -> Lifted:
        """Boxes of N regions' numbers. roi: pixels; camera: one, or one per region."""
        middle, side = _middle_side(roi)
        pixel = middle + numbers["centroid"] * side
        z = self._depth(numbers["depth"][:, 0], roi, label, camera)
        center = camera.cam_from_px(pixel, z)
        mean, deviation = self._sizes(label, roi)
        size = torch.maximum(mean + deviation * numbers["extents"], SMALLEST * mean)
        allocentric = matrix_from_quaternion(numbers["rotation"])
        rotation = egocentric_from_allocentric(allocentric, _ray(center, camera))
        return Lifted(center, size, rotation)

    def numbers(
        self, lifted: Lifted, roi: Float[Tensor, "n 4"], label: Int[Tensor, " n"], camera: Camera
    ) -> dict[str, Tensor]:
        """Inverse of :meth:`lift`; the quaternion of length 1 with w >= 0."""
        middle, side = _middle_side(roi)
        mean, deviation = self._sizes(label, roi)
        z = lifted.center[:, 2]
        if self.config.depth_start == "roi":
            depth = torch.log(z.clamp_min(1e-3) / self._start(roi, label, camera)) / DEPTH_UNIT
        else:
            depth = (z / _lens(self.config, camera, z) - self.config.depth_mean) / self.config.depth_std
        allocentric = allocentric_from_egocentric(lifted.rotation, _ray(lifted.center, camera))
        return {
            "rotation": quaternion_from_matrix(allocentric),
            "centroid": (camera.px_from_cam(lifted.center) - middle) / side,
            "depth": depth[:, None],
            "extents": (lifted.size - mean) / deviation,
        }

    def _depth(self, number: Tensor, roi: Tensor, label: Tensor, camera: Camera) -> Tensor:
        if self.config.depth_start == "roi":
            # a runaway exponential would be an infinite box; e^5 times the start is beyond anything
            return self._start(roi, label, camera) * torch.exp((DEPTH_UNIT * number).clamp(-5, 5))
        return (self.config.depth_mean + self.config.depth_std * number) * _lens(self.config, camera, number)

    def _start(self, roi: Tensor, label: Tensor, camera: Camera) -> Tensor:
        """Metres at which an object of the class's mean height is as high as the region."""
        _, side = _middle_side(roi)
        return camera.fy.to(roi) * self._sizes(label, roi)[0][:, 1] / side[:, 1]

    def _sizes(self, label: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.config.sizes)[label], like.new_tensor(self.config.size_deviations)[label]

    # -- targets ------------------------------------------------------------------------------------------------------

    def anchors(self, width: int, height: int, like: Tensor) -> Float[Tensor, "a 4"]:
        """Of a network picture of this size, pixels."""
        c = self.config
        boxes = anchor_boxes(width, height, self.strides, c.anchor_size, c.anchor_scales, c.anchor_ratios)
        return boxes.to(like)

    def encode(self, samples: Sequence[Sample]) -> Targets:
        """Targets of samples that are network pictures of one size."""
        width, height = samples[0].size
        anchors = self.anchors(width, height, torch.zeros(()))
        owner = torch.full((len(samples), len(anchors)), BACKGROUND)
        image, label, kept, copies, first = [], [], [], [], 0
        for b, sample in enumerate(samples):
            labels = [self._label(sample, i) for i in range(len(sample))]
            mine = torch.tensor([k is not None and k >= 0 for k in labels], dtype=torch.bool)
            owner[b] = self._owners(sample, labels, mine, anchors, first)
            kept.append(sample.keep(mine))
            label += [k for k in labels if k is not None and k >= 0]
            image += [b] * len(kept[-1])
            copies.append(self._regions(kept[-1]))
            first += len(kept[-1])
        boxes2d = torch.cat([s.boxes2d for s in kept])
        repeat = self.config.roi_copies
        known = [s.depth for s in samples]
        no_depth = torch.zeros(height, width)
        return Targets(
            owner=owner,
            image=torch.tensor(image, dtype=torch.long),
            label=torch.tensor(label, dtype=torch.long),
            boxes2d=boxes2d,
            boxes=Boxes3D.cat([s.boxes for s in kept]),
            shape=torch.cat([self.shapes.codes(s) for s in kept]),
            roi=torch.cat(copies),
            roi_object=torch.arange(first).repeat_interleave(repeat),
            depth=None
            if all(d is None for d in known)
            else torch.stack([no_depth if d is None else d for d in known]),
            cameras=Camera.stack([s.camera for s in samples]),
            names=tuple(s.name for s in samples),
        )

    def _label(self, sample: Sample, i: int) -> int | None:
        """Class of object i, IGNORE for one that is neither sought nor background, None for background."""
        name, box = sample.classes[i], sample.boxes2d[i]
        # KITTI writes a rotation of -10 and a size of -1 where there is no 3D label
        unlabelled = float(sample.boxes.yaw[i]) < -9 or float(sample.boxes.size[i].min()) <= 0
        behind = float(sample.boxes.center[i, 2]) < NEAREST
        if name in self.config.classes:
            low = float(box[3] - box[1]) < self.config.min_height
            return IGNORE if low or unlabelled or behind else self.config.classes.index(name)
        return IGNORE if looks_like(name, self.config.classes) else None

    def _owners(
        self, sample: Sample, labels: list[int | None], mine: Tensor, anchors: Tensor, first: int
    ) -> Int[Tensor, " a"]:
        """(A,) owner of each anchor of one picture: at least POSITIVE overlap, or an object's best anchor."""
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

    def _regions(self, sample: Sample) -> Float[Tensor, "m 4"]:
        """Copies of each 2D box, all but the first with their sides shifted at random: what a detector's boxes are like.

        Random, but the same again for the same view of the same sample, so that a resumed training is the same one.
        """
        seed = crc32(f"{sample.name} {float(sample.camera.cx)} {float(sample.camera.fx)}".encode())
        generator = torch.Generator().manual_seed(seed)
        copies = sample.boxes2d.repeat_interleave(self.config.roi_copies, 0)
        side = (copies[:, 2:] - copies[:, :2]).clamp_min(1).repeat(1, 2)
        shift = self.config.roi_jitter * (2 * torch.rand(copies.shape, generator=generator) - 1)
        shift[:: self.config.roi_copies] = 0
        return copies + shift * side

    # -- detections ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(
        self, raw: dict[str, Tensor], cameras: Camera
    ) -> tuple[Float[Tensor, "n 4"], Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
        """2D detections of a batch after suppression: boxes, pixels, cut to the picture; image; label; probability."""
        config = self.config
        width, height = cameras.width, cameras.height
        anchors = self.anchors(width, height, raw["deltas"])
        found = []
        for b in range(len(raw["scores"])):
            p = torch.sigmoid(raw["scores"][b]).flatten()
            value, index = p.topk(min(config.candidates, len(p)))
            index = index[value > config.score]
            anchor = torch.div(index, len(config.classes), rounding_mode="floor")
            label = index % len(config.classes)
            boxes = boxes_from_deltas(raw["deltas"][b, anchor], anchors[anchor])
            boxes = cameras.clip(boxes)
            kept = batched_nms(boxes, p[index], label, config.nms)[: config.top_k]
            found.append((boxes[kept], torch.full_like(kept, b), label[kept], p[index][kept]))
        boxes2d, image, labels, scores = (torch.cat(part) for part in zip(*found, strict=True))
        return boxes2d, image, labels, scores

    @torch.no_grad()
    def detections(
        self,
        numbers: dict[str, Tensor],
        proposals: tuple[Tensor, Tensor, Tensor, Tensor],
        cameras: Camera,
    ) -> list[LiftedDetections]:
        """Per picture of a batch, best first, of what the branches say about the 2D detections."""
        roi, image, label, score2d = proposals
        lifted = self.lift(numbers, roi, label, cameras[image])
        score = score2d
        if "error" in numbers:  # a sure 2D box at an unsure place is a poor 3D box
            score = score * torch.exp(-expected_error(numbers["error"]) / CONFIDENCE_METRES)
        everything = LiftedDetections(
            boxes=lifted.boxes(),
            scores=score,
            labels=label,
            boxes2d=roi,
            names=tuple(self.config.classes),
            rotation=lifted.rotation,
            shape=unit_codes(numbers["shape"]),
            score2d=score2d,
        )
        ahead = everything.boxes.center[:, 2] > NEAREST
        found = []
        for b in range(cameras.fx.shape[0]):
            one = everything[(image == b) & ahead]
            found.append(one[suppress_bev(one.boxes, one.scores, one.labels, self.config.nms_bev)])
        return found


def expected_error(number: Float[Tensor, "n 1"]) -> Float[Tensor, " n"]:
    """Mean corner distance, metres, that the confidence branch expects; its number is the logarithm."""
    return torch.exp(number[:, 0].clamp(-3, 4))


def unit_codes(codes: Float[Tensor, "n 6"]) -> Float[Tensor, "n 6"]:
    """Codes of length 1; a zero code, which has no direction, becomes the first axis."""
    length = codes.norm(dim=1, keepdim=True)
    first = torch.nn.functional.one_hot(torch.zeros_like(codes[:, 0], dtype=torch.long), SHAPE).to(codes)
    return torch.where(length > 1e-6, codes / length.clamp_min(1e-6), first)


def suppress_bev(
    boxes: Boxes3D, scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], threshold: float
) -> Int[Tensor, " kept"]:
    """Greedy suppression by bird's-eye overlap within each class: indices kept, best first."""
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order]
    close: Bool[Tensor, "n n"] = iou_bev(ranked, ranked) > threshold
    rivals = (close & (labels[order][:, None] == labels[order])).cpu()
    alive = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~rivals[i, i + 1 :]
    return order[alive.to(order.device)]


def _middle_side(roi: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and sides, at least one pixel, of boxes."""
    return (roi[:, :2] + roi[:, 2:]) / 2, (roi[:, 2:] - roi[:, :2]).clamp_min(1)


def _ray(center: Tensor, camera: Camera) -> Tensor:
    """From the camera that took the picture, which stands ``camera.translation`` beside the frame of the labels."""
    return center + camera.translation.to(center)


def _lens(config: ROI10DConfig, camera: Camera, like: Tensor) -> Tensor | float:
    """f / f_ref: the same car twice as far through a lens twice as long is the same picture (ours)."""
    return camera.fx.to(like) / config.focal if config.focal else 1.0


def _share_inside(boxes: Tensor, region: Tensor) -> Tensor:
    """(N,) share of each box's area that lies in ``region``."""
    overlap = torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])
    return overlap.clamp_min(0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
