"""SS3D's parameterisation of a 3D box, both ways: a class map, and 26 hints at every cell of an object's support.

channel  stands for                                                 hint
0-3      corners of the 2D box, from the cell's pixel               pixel = cell's pixel + unit n
4        distance of the centre from the camera                     (mean + unit n) f / f_ref
5, 6     sine and cosine of the observation angle                   unit n
7-9      log length, height, width                                  log mean + unit n
10-25    the eight projected corners, from the cell's pixel         pixel = cell's pixel + unit n
and beside each a log sigma in its unit. Corners are those of ``CORNER_SIGNS``, counted from the end that is farther from the
camera (``corner_order``, ours) and in the hints, as everywhere, from the front. One set of hints serves all classes, as
in the author's code.

Author's code: units 1, distance and sizes from 0, f_ref not known. The hints go through the fit to become a box, so decoding
inverts encoding only where the hints agree with one box; those of a label do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from monolift.data.evidence import Evidence
from monolift.data.sample import Detections, Sample
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.boxes import FRONT, NEAR_PLANE
from monolift.methods.ss3d.config import SS3DConfig
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.hints import (
    BOX,
    CORNERS,
    COSINE,
    DISTANCE,
    HINT_NAMES,
    HINTS,
    SINE,
    SIZE,
    Pinhole,
    hints_of_boxes,
    hints_of_state,
    with_corners_turned,
)
from monolift.nn.heatmap import find_peaks, gather
from monolift.nn.roi import batched_nms, box_iou
from monolift.typing import Bool, Float, Int, Tensor

STRIDE = 4
REAR = tuple(k for k in range(8) if k not in FRONT)
BACKGROUND, IGNORE = 0, -1  # in the class map; class k of the configuration is k + 1
NEVER = ("Tram", "Misc", "Truck", "Person_sitting")  # neither sought nor background (author's code)
MOST_SIGMA = 7.0  # of |log sigma|, units
# Picture sizes outside the picture up to which a corner is a hint (author's code warns at 10).
CORNER_REACH = 1.0
# Of detections: a thousandth of E is a fraction of a sigma, and the slowest box costs all.
FIT_STEPS, FIT_TOLERANCE = 6, 1e-3
NEAREST = 0.5  # metres; a box whose centre is nearer is none


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch of B pictures with N objects that have M support cells in all.

    classes: (B, h, w) BACKGROUND, IGNORE or 1 + label
    image, cell, object: (M,) of each support cell: picture in the batch, flat cell (row * w + column), object
    numbers: (M, 26) channels that the cell should show; known: (M, 26) whether it has to
    boxes, label: of the N objects; cameras: (B,); width: columns of the map; names: for messages
    """

    classes: Int[Tensor, "b h w"]
    image: Int[Tensor, " m"]
    cell: Int[Tensor, " m"]
    object: Int[Tensor, " m"]
    numbers: Float[Tensor, "m 26"]
    known: Bool[Tensor, "m 26"]
    boxes: Boxes3D
    label: Int[Tensor, " n"]
    cameras: Camera
    width: int
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Targets:
        fixed = ("cameras", "names", "width")
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name not in fixed}
        return replace(self, **moved)


class SS3DCodec:
    """encode: samples -> targets; decode: raw maps -> detections; ``hints`` inverts ``numbers``."""

    def __init__(self, config: SS3DConfig) -> None:
        self.config = config

    # -- channels and hints -------------------------------------------------------------------------------------------

    def hints(
        self, numbers: Float[Tensor, "m 26"], cell: Int[Tensor, " m"], camera: Camera, width: int
    ) -> Float[Tensor, "m 26"]:
        """Channels of M cells to hints in pixels and metres. ``camera``: one, or one per cell; width: columns of the map."""
        hints = self._scaled(numbers, cell, camera, width)
        return with_corners_turned(hints, self._turned(hints))

    def measured(
        self,
        numbers: Float[Tensor, "m 26"],
        log_sigma: Float[Tensor, "m 26"],
        cell: Int[Tensor, " m"],
        camera: Camera,
        width: int,
    ) -> tuple[Float[Tensor, "m 26"], Float[Tensor, "m 26"]]:
        """:meth:`hints` and their standard deviations, in the hints' units."""
        return self._from_front(*self._measured(numbers, log_sigma, cell, camera, width))

    def numbers(
        self, hints: Float[Tensor, "m 26"], cell: Int[Tensor, " m"], camera: Camera, width: int
    ) -> Float[Tensor, "m 26"]:
        """Inverse of :meth:`hints` for hints that a box can have."""
        unit, mean, origin, lens = self._frame(hints, cell, camera, width)
        return ((self.in_channel_order(hints, hints) - origin) / lens - mean) / unit

    def in_channel_order(self, values: Tensor, hints: Float[Tensor, "m 26"]) -> Tensor:
        """(M, 26) numbers or truths that belong to hints of labels, with the corners in the channels' order."""
        if self.config.corner_order == "object":
            return values
        return with_corners_turned(values, hints[:, SINE] > 0)  # it comes towards the camera

    def sigma(self, log_sigma: Float[Tensor, "m 26"], camera: Camera) -> Float[Tensor, "m 26"]:
        """Standard deviations in the hints' units and the channels' order: that of an L1 likelihood of scale b is sqrt(2) b."""
        spread = math.sqrt(2) if self.config.likelihood == "laplace" else 1.0
        return torch.exp(log_sigma) * self._units(log_sigma) * self._lens(log_sigma, camera) * spread

    def _scaled(self, numbers: Tensor, cell: Tensor, camera: Camera, width: int) -> Tensor:
        """Channels in the hints' units, the corners still in the channels' order."""
        unit, mean, origin, lens = self._frame(numbers, cell, camera, width)
        return (mean + unit * numbers) * lens + origin

    def _measured(
        self, numbers: Tensor, log_sigma: Tensor, cell: Tensor, camera: Camera, width: int
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`measured`, the corners still in the channels' order."""
        sigma = self.sigma(log_sigma.clamp(-MOST_SIGMA, MOST_SIGMA), camera)
        return self._scaled(numbers, cell, camera, width), sigma

    def _from_front(self, hints: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Both with the corners counted from the object's front."""
        turned = self._turned(hints)
        return with_corners_turned(hints, turned), with_corners_turned(sigma, turned)

    def _turned(self, hints: Tensor) -> Tensor:
        """(M,) whether the first end of the corners, counted from the far one, is the object's rear.

        Sines say so, but hardly of an object that stands across the view: of that one, front and rear lie side by side in the
        picture, and the cosine says which is which.
        """
        if self.config.corner_order == "object":
            return torch.zeros(len(hints), dtype=torch.bool, device=hints.device)
        sine, cosine = hints[:, SINE], hints[:, COSINE]
        across = hints[:, CORNERS].unflatten(1, (8, 2))[..., 0]
        sideways = across[:, list(FRONT)].sum(1) - across[:, list(REAR)].sum(1)
        return torch.where(cosine.abs() > sine.abs(), cosine * sideways < 0, sine > 0)

    def _frame(
        self, like: Tensor, cell: Tensor, camera: Camera, width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """hint = (mean + unit n) lens + origin: (26,), (26,), (M, 26), (M, 26)."""
        mean = like.new_zeros(HINTS)
        mean[DISTANCE] = self.config.distance_mean
        mean[SIZE] = like.new_tensor(self.config.size_mean).log()
        origin = torch.zeros_like(like)
        px = cell_pixels(cell, width).to(like.dtype)
        origin[:, BOX], origin[:, CORNERS] = px.repeat(1, 2), px.repeat(1, 8)
        return self._units(like), mean, origin, self._lens(like, camera)

    def _units(self, like: Tensor) -> Tensor:
        counts = torch.tensor([4, 1, 2, 3, 16], device=like.device)
        return like.new_tensor(self.config.units).repeat_interleave(counts)

    def _lens(self, like: Tensor, camera: Camera) -> Tensor:
        """(M, 26) or (1, 26): f / f_ref for the distance, 1 for the rest. The same car twice as far through a lens twice as
        long is the same picture, so the network can only ever tell distance f_ref / f (ours)."""
        ratio = camera.fx.reshape(-1).to(like) / (self.config.focal or 1.0)
        lens = like.new_ones(len(ratio), HINTS)
        if self.config.focal:
            lens[:, DISTANCE] = ratio
        return lens

    # -- targets ------------------------------------------------------------------------------------------------------

    def encode(self, samples: Sequence[Sample]) -> Targets:
        """Targets of samples that are network pictures of one size, sides multiples of 4."""
        w, h = (side // STRIDE for side in samples[0].size)
        classes = torch.full((len(samples), h, w), BACKGROUND)
        image, cell, owner, label, boxes, hints, known = [], [], [], [], [], [], []
        count = 0
        for b, sample in enumerate(samples):
            labels = [self._label(sample, i) for i in range(len(sample))]
            owners = _paint(sample, labels, self.config.support, classes[b])
            kept = [i for i, k in enumerate(labels) if k is not None and k >= 0]
            row, column = torch.nonzero(owners >= 0, as_tuple=True)
            place = torch.full((len(sample) + 1,), -1)
            place[kept] = torch.arange(count, count + len(kept))
            count += len(kept)
            cell.append(row * w + column)
            image.append(torch.full_like(row, b))
            owner.append(place[owners[row, column]])
            label.append(torch.tensor([labels[i] for i in kept], dtype=torch.long))
            boxes.append(sample.boxes[torch.tensor(kept, dtype=torch.long)])
            wanted, sure = _labelled_hints(sample)
            hints.append(wanted[kept])
            known.append(sure[kept])
        cameras = Camera.stack([s.camera for s in samples])
        at, where, whose = torch.cat(image), torch.cat(cell), torch.cat(owner)
        wanted, sure = torch.cat(hints), torch.cat(known)
        sure = self.in_channel_order(sure, wanted)
        return Targets(
            classes=classes,
            image=at,
            cell=where,
            object=whose,
            numbers=self.numbers(wanted[whose], where, cameras[at], w),
            known=sure[whose],
            boxes=Boxes3D.cat(boxes),
            label=torch.cat(label),
            cameras=cameras,
            width=w,
            names=tuple(s.name for s in samples),
        )

    def _label(self, sample: Sample, i: int) -> int | None:
        """Class of object i, -1 for one to be ignored, None for background."""
        name, known = sample.classes[i], self.config.classes
        if name == "Van" and name not in known:
            name = "Car"
        cut = float(sample.truncation[i]) > self.config.max_truncation
        # KITTI writes a rotation of -10 and a size of -1 where there is no 3D label
        unlabelled = float(sample.boxes.yaw[i]) < -9 or float(sample.boxes.size[i].min()) <= 0
        if name in known:
            return IGNORE if cut or unlabelled else known.index(name)
        return IGNORE if name in NEVER else None

    def ideal(self, targets: Targets) -> dict[str, Tensor]:
        """The raw maps of a network that has learnt ``targets`` by heart: decoding them gives the labels back."""
        b, h, w = targets.classes.shape
        inside = targets.classes.clamp_min(0)
        logits = 20.0 * torch.nn.functional.one_hot(inside, len(self.config.classes) + 1).permute(0, 3, 1, 2)

        def filled(values: Tensor) -> Tensor:
            maps = values.new_zeros(b, h, w, HINTS)
            maps.view(b, h * w, HINTS)[targets.image, targets.cell] = values
            return maps.permute(0, 3, 1, 2)

        unknown = torch.where(targets.known, 0.0, MOST_SIGMA).to(targets.numbers)
        return {
            "classes": logits.to(targets.numbers),
            "hints": filled(targets.numbers),
            "log_sigma": filled(unknown),
        }

    # -- detections ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        """Local maxima of each class after suppression on their 2D boxes, fitted. ``cameras``: of the network pictures.

        The hints of those that fall are not lost: with ``voting`` they are averaged with those of the one that stays. Scores
        are the class's probability, with ``ranking="sigma"`` times how sure the hints are of themselves. Each comes with the
        covariance of its box, as far as the predicted sigmas are right and the errors of the 26 hints independent (those of one
        cell hardly are: take it as a ranking), infinite where the hints do not determine the box; and with the hints as
        evidence.
        """
        config = self.config
        chances = torch.softmax(raw["classes"], 1)[:, 1:]
        chances = chances * (chances == chances.amax(1, keepdim=True))  # a cell is of one class
        scores, labels, cells = find_peaks(chances, config.candidates)  # "the local optimum" (paper)
        at, rank = torch.nonzero(scores > config.score, as_tuple=True)
        score, label, where = scores[at, rank], labels[at, rank], cells[at, rank]
        width, camera = raw["classes"].shape[3], cameras[at]
        numbers, log_sigma = (gather(raw[name], at, where) for name in ("hints", "log_sigma"))
        hints, sigma = self._measured(numbers, log_sigma, where, camera, width)
        sound = torch.isfinite(hints + sigma).all(1)  # not-a-number would spoil its neighbours' mean
        at, score, label, camera = at[sound], score[sound], label[sound], camera[sound]
        hints, sigma = hints[sound], sigma[sound]
        kinds = at * len(config.classes) + label
        kept = [self._distinct(hints, score, kinds, (at == b).nonzero()[:, 0]) for b in range(len(scores))]
        chosen = torch.cat(kept)
        hints, sigma = self._from_front(*self._agreed(hints, sigma, score, kinds, chosen))
        at, camera, score = at[chosen], camera[chosen], score[chosen]
        if config.ranking == "sigma":  # not before: an object's middle is a better cell than its surest
            score = score * sureness(hints, sigma)
        found = self._fitted(hints, sigma, score, label[chosen], camera)
        ahead = found.boxes.center[:, 2] > NEAREST
        order = score.argsort(descending=True, stable=True)
        return [found[order[((at == b) & ahead)[order]]] for b in range(len(scores))]

    def _agreed(
        self, hints: Tensor, sigma: Tensor, score: Tensor, kinds: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hints and sigmas of the candidates ``chosen``, each from all those of its kind that see the same object.

        The mean by precision, as in the variance voting of He et al., "Bounding Box Regression with Uncertainty ..." (CVPR
        2019), which is for 2D boxes; here for all 26 (ours). Cells of one object look at the same pixels and err together,
        so the mean's sigma is that of a typical one of them, and does not fall with their number.
        """
        same = box_iou(hints[chosen][:, BOX], hints[:, BOX]) > self.config.voting
        same[torch.arange(len(chosen), device=chosen.device), chosen] = True
        votes = (same & (kinds[chosen][:, None] == kinds)).to(score) * score
        precision = sigma**-2
        total = votes @ precision
        return votes @ (precision * hints) / total, votes @ (1 / sigma) / total

    def _distinct(self, hints: Tensor, score: Tensor, kinds: Tensor, rows: Tensor) -> Tensor:
        """Of one picture's candidates ``rows`` those that no better one of their kind covers."""
        kept = batched_nms(hints[rows, BOX], score[rows], kinds[rows], self.config.nms)
        return rows[kept[: self.config.top_k]]

    def _fitted(
        self, hints: Tensor, sigma: Tensor, score: Tensor, label: Tensor, camera: Camera
    ) -> Detections:
        fit = fit_boxes(hints, 1 / sigma, camera, FIT_STEPS, FIT_TOLERANCE)
        seen = hints_of_state(fit.state, Pinhole.of(camera, fit.state)).to(hints.dtype)
        share = self.config.boxes2d_fusion
        boxes2d = camera.clip((1 - share) * hints[:, BOX] + share * seen[:, BOX])
        return Detections(
            boxes=fit.boxes.to(hints.dtype),
            scores=score,
            labels=label,
            boxes2d=boxes2d,
            names=tuple(self.config.classes),
            covariance=fit.covariance.to(hints.dtype),
            evidence=Evidence(HINT_NAMES, hints, sigma, (hints - seen) / sigma),
        )


def sureness(hints: Float[Tensor, "n 26"], sigma: Float[Tensor, "n 26"]) -> Float[Tensor, " n"]:
    """Between 0 and 1: mean over the twenty hints in pixels of exp(-2 sigma / height of the 2D box) (ours).

    A class map trained on "inside the middle of a car" says 1 of nearly every car, so it cannot tell the box that will be
    right from the one that will not; the sigmas can. A mean, so that one corner that nobody sees does not count for all.
    """
    height = (hints[:, 3] - hints[:, 1]).clamp_min(1.0)  # bottom, top
    return torch.exp(-2 * torch.cat([sigma[:, BOX], sigma[:, CORNERS]], 1) / height[:, None]).mean(1)


def cell_pixels(cell: Int[Tensor, " m"], width: int) -> Float[Tensor, "m 2"]:
    """The pixel at the middle of each flat cell: 4 c + 1.5, for a cell is 4 x 4 pixels with centres at integers."""
    column, row = cell % width, torch.div(cell, width, rounding_mode="floor")
    return torch.stack([column, row], 1) * float(STRIDE) + (STRIDE - 1) / 2


def _labelled_hints(sample: Sample) -> tuple[Tensor, Tensor]:
    """(N, 26) hints of the labels and whether each is known. The 2D box is the labelled one, cut to the picture.

    Corners at or behind the camera, or far outside the picture, have no pixel worth learning.
    """
    camera, boxes = sample.camera, sample.boxes
    hints = hints_of_boxes(boxes, camera).to(boxes.center.dtype)
    hints[:, BOX] = sample.boxes2d
    corners = hints[:, CORNERS].unflatten(1, (8, 2))
    limit = corners.new_tensor(sample.size)
    near = (corners > -CORNER_REACH * limit) & (corners < (1 + CORNER_REACH) * limit)
    seen = (camera.depth(boxes.corners()) > NEAR_PLANE) & near.all(2)
    known = torch.ones(hints.shape, dtype=torch.bool)
    known[:, CORNERS] = seen.repeat_interleave(2, 1)
    return torch.where(known, hints, 0.0), known


def _paint(sample: Sample, labels: Sequence[int | None], support: float, classes: Tensor) -> Tensor:
    """Paints one picture's class map in place; returns the object of each cell, (h, w), -1 for none.

    First every 2D box as "ignore", then the supports, so that no support is lost to a neighbour's surroundings; far objects
    first, so that the nearer one wins where supports overlap. An ignored object's support hides what is behind it.
    """
    owners = torch.full_like(classes, -1)
    for region in sample.ignore:
        classes[_cells(region, classes)] = IGNORE
    order = sample.boxes.center.norm(dim=1).argsort(descending=True, stable=True).tolist()
    order = [i for i in order if labels[i] is not None]
    for i in order:
        classes[_cells(sample.boxes2d[i], classes)] = IGNORE
    for i in order:
        middle = (sample.boxes2d[i, :2] + sample.boxes2d[i, 2:]) / 2
        half = (sample.boxes2d[i, 2:] - sample.boxes2d[i, :2]) / 2 * math.sqrt(support)
        cells = _cells(torch.cat([middle - half, middle + half]), classes)
        label = labels[i]
        if label is None or label == IGNORE:
            classes[cells], owners[cells] = IGNORE, -1
        else:
            classes[cells], owners[cells] = label + 1, i
    return owners


def _cells(box: Tensor, classes: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the cells whose pixel lies in a box; at least the one nearest to its middle (ours)."""
    x1, y1, x2, y2 = ((box - (STRIDE - 1) / 2) / STRIDE).tolist()

    def span(low: float, high: float, count: int) -> slice:
        first, last = math.ceil(low), math.floor(high)
        if first > last:
            first = last = round((low + high) / 2)
        return slice(min(max(first, 0), count - 1), min(max(last, 0), count - 1) + 1)

    return span(y1, y2, classes.shape[0]), span(x1, x2, classes.shape[1])
