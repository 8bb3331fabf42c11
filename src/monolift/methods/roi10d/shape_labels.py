"""Shape codes of labelled cars, found offline: greedy search from every class median (ROI-10D section 3.3).

    monolift shapes label --data ROOT --out shapes.json
    monolift train roi10d --data ROOT --set shape_labels=shapes.json ...

A code is good when depth points that lie in the labelled box lie on its surface, and when its outline in the image is the
object's mask. The paper minimises "projective discrepancy in LIDAR and segmentation" and says no more: the cost, the steps and
the silhouette by rays through the distance field, which needs no mesh, are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from monolift.data.formats.kitti_format import read_labels
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.files.folders import text_file, write_atomically
from monolift.files.json_text import read_json
from monolift.geometry import Boxes3D
from monolift.geometry.rotations import matrix_from_yaw
from monolift.methods.roi10d.config import SHAPE
from monolift.shapes.autoencoder import ShapeSpace
from monolift.shapes.shape_training import grid_of
from monolift.typing import Bool, Float, Tensor
from monolift.world.car_codes import read_codes

CELLS = 24  # of a silhouette, along the longer side of the 2D box
ALONG = 32  # samples of each ray through the box
REACH = 1.05  # of the box: points up to this share of its half sides may be the object's
LEAST_POINTS = 10
FIRST_STEP, LAST_STEP = 0.3, 0.02  # radians or so, on the sphere
MATCH = 0.05  # metres between a labelled centre and the one in the file


@dataclass(frozen=True)
class Evidence:
    """What is known of one object's shape.

    points: (P, 3) of its surface; rays: (R, S, 3) samples along the rays of R image cells through its box, both in units of
    the box's half sides, its own frame; mask: (R,) whether the cell shows the object
    """

    points: Float[Tensor, "p 3"]
    rays: Float[Tensor, "r s 3"]
    mask: Bool[Tensor, " r"]

    @property
    def enough(self) -> bool:
        return len(self.points) >= LEAST_POINTS or bool(self.mask.any())


def gather_evidence(sample: Sample, index: int) -> Evidence:
    """Depth points in the box of object ``index`` and cells of its mask; both empty where the sample has no such map.

    Cells that show another object are left out: what is behind it is not known.
    """
    x1, y1, x2, y2 = sample.boxes2d[index].tolist()
    box = sample.boxes[index]
    columns = torch.arange(max(round(x1), 0), min(round(x2), sample.size[0] - 1) + 1)
    rows = torch.arange(max(round(y1), 0), min(round(y2), sample.size[1] - 1) + 1)
    points = torch.zeros(0, 3)
    if sample.depth is not None and len(columns) and len(rows):
        depth = sample.depth[rows][:, columns]
        v, u = torch.nonzero(depth > 0, as_tuple=True)
        pixels = torch.stack([columns[u], rows[v]], 1).float()
        seen = _in_box(sample.camera.cam_from_px(pixels, depth[v, u]), box)
        points = seen[(seen.abs() <= REACH).all(1)]
    if sample.instances is None or not len(columns) or not len(rows):
        return Evidence(points, torch.zeros(0, ALONG, 3), torch.zeros(0, dtype=torch.bool))
    every = max(1, round(max(len(columns), len(rows)) / CELLS))
    v, u = torch.meshgrid(rows[::every], columns[::every], indexing="ij")
    shown = sample.instances[v, u].flatten()
    known = (shown == 0) | (shown == index + 1)
    pixels = torch.stack([u.flatten(), v.flatten()], 1)[known].float()
    # depths between the box's nearest and farthest corner hold all of it
    z = box.corners()[0, :, 2]
    along = torch.linspace(float(z.min()), float(z.max()), ALONG).clamp_min(0.5)
    rays = sample.camera.cam_from_px(pixels[:, None].expand(-1, ALONG, 2), along.expand(len(pixels), ALONG))
    return Evidence(points, _in_box(rays.reshape(-1, 3), box).view(-1, ALONG, 3), shown[known] == index + 1)


def _in_box(points: Tensor, box: Boxes3D) -> Tensor:
    """Camera frame to the box's own, in half sides."""
    return (points - box.center) @ matrix_from_yaw(box.yaw[0]) / (box.size[0] / 2)


@torch.no_grad()
def cost(space: ShapeSpace, codes: Float[Tensor, "n c"], evidence: Evidence) -> Float[Tensor, " n"]:
    """Mean |distance| at the points, in truncations, plus 1 - IoU of silhouette and mask; a part without evidence is 0."""
    grids = space.decode(codes)
    middle, half = _spans(grids[:, 0], space.config.margin)
    places = torch.cat([evidence.points, evidence.rays.reshape(-1, 3)])
    # a car fills its box (``fit_to_box``), its grid's surface only nearly
    places = (places * half[:, None] + middle[:, None]) / space.config.margin
    # grids are (N, 1, X, Y, Z); grid_sample takes the last axis first
    at = places.flip(2)[:, None, None]
    value = F.grid_sample(grids, at, padding_mode="border", align_corners=False)[:, 0, 0, 0]
    value = torch.where((places.abs() > 1).any(2), 1.0, value)
    surface, rays = value.split([len(evidence.points), evidence.rays[..., 0].numel()], 1)
    total = surface.abs().mean(1) if len(evidence.points) else codes.new_zeros(len(codes))
    if len(evidence.mask):
        filled = (rays.view(len(codes), -1, ALONG) < 0).any(2)
        both, either = (filled & evidence.mask).sum(1), (filled | evidence.mask).sum(1)
        total = total + 1 - both / either.clamp_min(1)
    return total


def _spans(
    grids: Float[Tensor, "n X Y Z"], margin: float
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Middle and half side of the box round each surface, in half sides of the box it was sampled in; a whole box where there
    is no surface."""
    ends = []
    for axis in (1, 2, 3):
        others = tuple(k for k in (1, 2, 3) if k != axis)
        profile = grids.amin(others)
        profile = F.pad(profile, (1, 1), value=1.0)  # outside is outside
        cells = profile.shape[1] - 2
        inside = profile < 0
        for line in (inside, inside.flip(1)):
            values = profile if line is inside else profile.flip(1)
            first = line.to(torch.int8).argmax(1, keepdim=True).clamp_min(1)
            after, before = values.gather(1, first), values.gather(1, first - 1)
            at = (
                first - 2 + (before / (before - after).clamp_min(1e-6)).clamp(0, 1)
            )  # cells, of the zero between
            position = ((2 * at + 1) / cells - 1) * margin
            position = torch.where(line.any(1, keepdim=True), position, -1.0)
            ends.append(position if line is inside else -position)
    low, high = torch.cat(ends[::2], 1), torch.cat(ends[1::2], 1)
    return (low + high) / 2, (high - low) / 2


def search(
    space: ShapeSpace, evidence: Evidence, seed: int = 0, steps: int = 16, tries: int = 4
) -> tuple[Float[Tensor, " c"], float]:
    """The best code and its cost: from every class median ``tries`` random steps at a time, each kept if it is better."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack(list(space.medians.values()))
    costs = cost(space, codes, evidence)
    for k in range(steps):
        step = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (k / max(steps - 1, 1))
        moves = step * torch.randn(len(codes), tries, codes.shape[1], generator=generator)
        tried = F.normalize(codes[:, None] + moves, dim=2)
        value = cost(space, tried.flatten(0, 1), evidence).view(-1, tries)
        best = value.argmin(1)
        lower = value.gather(1, best[:, None])[:, 0]
        better = lower < costs
        moved = tried[torch.arange(len(codes)), best]
        codes, costs = torch.where(better[:, None], moved, codes), torch.minimum(lower, costs)
    winner = int(costs.argmin())
    return codes[winner], float(costs[winner])


def write_shape_labels(
    samples: Sequence[Sample],
    space: ShapeSpace,
    out: str | Path,
    classes: Sequence[str] = ("Car",),
    search_steps: int = 16,
    on_sample: Callable[[int], None] | None = None,
) -> int:
    """Labels every object of ``classes`` that has evidence and writes the file; the number of labels."""
    labels: dict[str, list[dict[str, object]]] = {}
    count = 0
    for k in range(len(samples)):
        sample = samples[k]
        for i, name in enumerate(sample.classes):
            evidence = gather_evidence(sample, i) if name in classes else None
            if evidence is None or not evidence.enough:
                continue
            code, value = search(space, evidence, count, search_steps)
            labels.setdefault(sample.name, []).append(_entry(sample.boxes.center[i], code, value))
            count += 1
        if on_sample is not None:
            on_sample(k)
    _write(out, labels)
    return count


def write_exact_labels(
    data: KittiDataset,
    space: ShapeSpace,
    out: str | Path,
    on_sample: Callable[[int], None] | None = None,
) -> int:
    """Labels of a synthetic world's cars from their own shapes, cars_2/ID.json, encoded by the space; the number of labels.

    Raises:
        InputError: where the world was made without ``--shapes``.
    """
    labels: dict[str, list[dict[str, object]]] = {}
    for k, name in enumerate(data.ids):
        cars = read_codes(data.root / "cars_2" / f"{name}.json")
        sample = data.labels(k)
        boxed = read_labels(text_file(data.root / "label_2", name)).boxed.tolist()
        entries: list[dict[str, object]] = []
        for row, car in cars.items():
            if boxed[row]:
                grid = grid_of(car.shape, space.config)
                code = space.encode(grid[None, None])[0]
                entries.append(_entry(sample.boxes.center[sum(boxed[:row])], code, 0.0))
        if entries:
            labels[name] = entries
        if on_sample is not None:
            on_sample(k)
    _write(out, labels)
    return sum(map(len, labels.values()))


def _entry(center: Tensor, code: Tensor, value: float) -> dict[str, object]:
    return {
        "center": [round(v, 4) for v in center.tolist()],
        "code": [round(v, 5) for v in code.tolist()],
        "cost": round(value, 4),
    }


def _write(out: str | Path, labels: dict[str, list[dict[str, object]]]) -> None:
    write_atomically(Path(out), (json.dumps({"shape_labels": labels}, indent=1) + "\n").encode())


class ShapeLabels:
    """The labels of a file, found by a sample's name and an object's place. An empty path knows none.

    Mirrored samples find theirs too: a car and its mirror image have the same code.
    """

    def __init__(self, path: str, numbers: int = SHAPE) -> None:
        self.path, self.numbers = path, numbers

    @cached_property
    def _entries(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(M, 3) centres with x >= 0 and (M, 6) codes by sample name; read when first needed: using a model needs no labels."""
        if not self.path:
            return {}
        try:
            content = read_json(self.path)["shape_labels"]
            return {
                name: (
                    _right(torch.tensor([entry["center"] for entry in entries])).view(-1, 3),
                    self._codes_of(entries),
                )
                for name, entries in content.items()
            }
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path}: not a file of shape labels ({error})") from None

    def _codes_of(self, entries: Sequence[Any]) -> Tensor:
        codes = torch.tensor([entry["code"] for entry in entries])
        if codes.ndim != 2 or codes.shape[1] != self.numbers:
            raise InputError(
                f"{self.path}: codes of {codes.shape[-1]} numbers, but shape_code is {self.numbers}: label with the shape "
                "space of this training (monolift shapes label --model)"
            )
        return codes

    def codes(self, sample: Sample) -> Float[Tensor, "n c"]:
        """Codes of a sample's objects, zeros where there is no label. Raises InputError for a file that is none."""
        found = torch.zeros(len(sample), self.numbers)
        if sample.name in self._entries and len(sample):
            centers, codes = self._entries[sample.name]
            gap = torch.cdist(_right(sample.boxes.center), centers)
            nearest, which = gap.min(1)
            found = torch.where((nearest < MATCH)[:, None], codes[which], found)
        return found


def _right(centers: Tensor) -> Tensor:
    """Centres mirrored to the right half space."""
    return torch.cat([centers[:, :1].abs(), centers[:, 1:]], 1)
