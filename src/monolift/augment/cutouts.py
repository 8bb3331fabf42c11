"""Cars cut out of labelled images as textured meshes: what ``paste`` puts into other images (ROI-10D, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from monolift.data.formats.depth_maps import read_numbers
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Sample
from monolift.errors import InputError
from monolift.geometry import Camera, iou_2d
from monolift.render.crops import crop_cameras
from monolift.render.mesh import Mesh
from monolift.render.renderer import render
from monolift.shapes.autoencoder import ShapeSpace, fit_to_box, load_shape_space, surface_of
from monolift.shapes.projective_texture import placed, project_texture
from monolift.typing import Bool, Float, Tensor

_SILHOUETTE = 96  # pixels of the crop in which a shape is compared with a mask
MIN_DEPTH = 3.0  # metres: nearer cars are never wholly in view
LOW_PART = 0.3
"""Share of a box's height in which the silhouette adds to the mask."""
_SAME_BOX = 0.6  # 2D IoU above which a mask's rectangle and a labelled one are the same object


@dataclass(frozen=True)
class Cutout:
    """A car of a labelled image.

    mesh:       textured, in its box's own frame, metres
    size:       (3,) length, height, width
    alpha:      the observation angle under which the texture was seen, radians
    bottom:     height of the ground under it, camera frame (y down), metres
    resolution: pixels per metre of its texture
    brightness: mean of the lower half of its image, 0 to 1
    class_name, source: as labelled; the image's name
    """

    mesh: Mesh
    size: Float[Tensor, " 3"]
    alpha: float
    bottom: float
    resolution: float
    brightness: float
    class_name: str
    source: str


@dataclass(frozen=True)
class CutoutLimits:
    """Which labelled objects are good enough to be cut out."""

    classes: tuple[str, ...] = ("Car",)
    """Labelled classes; the shapes are those of cars."""
    min_height: float = 40.0
    """Of the labelled 2D box, pixels."""
    max_depth: float = 35.0
    """Metres."""
    min_agreement: float = 0.75
    """IoU of the mask and the best shape's silhouette."""
    most: int = 140
    """Cutouts; the paper had 140."""


def brightness(image: Tensor) -> float:
    """Mean of the lower half of a uint8 image, mostly road, 0 to 1."""
    return float(image[:, image.shape[1] // 2 :].float().mean()) / 255


def cut_out(
    data: Sequence[KittiDataset],
    masks: str | Path | None = None,
    limits: CutoutLimits | None = None,
    space: ShapeSpace | None = None,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
    on_fault: Callable[[str, str], object] | None = None,
) -> list[Cutout]:
    """Cutouts from the images of data sets, in an order that the seed decides.

    Args:
        masks: folder of ID.png whose numbers tell objects apart (any numbers: a mask belongs to the labelled box that its
            rectangle agrees with); without it instance_2 beside the images. Where there is neither, the shape's own
            silhouette is the mask.
        on_step: called with the number of cutouts after each image.
        on_fault: called with the id and the reason where an image cannot be read, which is then left out; without it that
            raises.

    Raises:
        InputError: when nothing can be cut out.
    """
    limits = limits or CutoutLimits()
    shapes = _median_shapes(space or load_shape_space())
    rng = np.random.default_rng(seed)
    found: list[Cutout] = []
    places = [(part, k) for part in data for k in range(len(part))]
    for number in rng.permutation(len(places)):
        part, k = places[number]
        if len(found) >= limits.most:
            break
        try:
            if bool(_suitable(part.labels(k), limits).any()):
                sample = part[k]
                numbers = _numbers(part, sample, masks)
                found += _from_sample(sample, numbers, shapes, limits)
        except InputError as error:
            if on_fault is None:
                raise
            on_fault(part.ids[k], str(error))
        if on_step:
            on_step(len(found))
    if not found:
        raise InputError(
            f"no {' or '.join(limits.classes)} can be cut out of {len(places)} images: expected some that are wholly "
            f"visible, {limits.min_height:g} pixels high or more and within {limits.max_depth:g} m"
        )
    return found[: limits.most]


def _median_shapes(space: ShapeSpace) -> list[Mesh]:
    """The medians' meshes in a box of size one, about 3,600 faces each: a pasted car is drawn in every training image, and a
    quarter of the space's own faces is still finer than its texture."""
    codes = torch.stack(list(space.medians.values()))
    one = torch.ones(3)
    grids = F.avg_pool3d(space.decode(codes), 2)[:, 0]
    return [fit_to_box(surface_of(grid, space.config.margin), one) for grid in grids]


def _numbers(part: KittiDataset, sample: Sample, masks: str | Path | None) -> Tensor | None:
    folder = Path(masks) if masks is not None else part.root / "instance_2"
    path = folder / f"{sample.name}.png"
    if not path.is_file():
        return None
    numbers = read_numbers(path)
    if numbers.shape != sample.image.shape[1:]:
        raise InputError(f"{path}: is {tuple(numbers.shape)}, but its image {tuple(sample.image.shape[1:])}")
    return numbers


def _suitable(sample: Sample, limits: CutoutLimits) -> Bool[Tensor, " n"]:
    """Objects wholly in view, large and near enough, whose 2D box is not crossed by that of a nearer object."""
    height = sample.boxes2d[:, 3] - sample.boxes2d[:, 1]
    z = sample.boxes.center[:, 2]
    fits = torch.tensor([c in limits.classes for c in sample.classes], dtype=torch.bool)
    fits &= (sample.occlusion == 0) & (sample.truncation <= 0) & (height >= limits.min_height)
    crossed = (iou_2d(sample.boxes2d, sample.boxes2d) > 0) & (z < z[:, None])
    return fits & (z <= limits.max_depth) & (z > MIN_DEPTH) & ~crossed.any(1)


def _from_sample(
    sample: Sample, numbers: Tensor | None, shapes: Sequence[Mesh], limits: CutoutLimits
) -> Iterator[Cutout]:
    for k in _suitable(sample, limits).nonzero().squeeze(1).tolist():
        box2d = sample.boxes2d[k]
        given = None if numbers is None else _mask_of(numbers, box2d)
        if numbers is not None and given is None:
            continue
        mesh, agreement = _best_shape(sample, k, shapes, given)
        if agreement < limits.min_agreement:
            continue
        mask = _shrunk(_own_pixels(mesh, sample, k, given), float(box2d[3] - box2d[1]))
        if not bool(mask.any()):
            continue
        boxes = sample.boxes
        mesh = project_texture(mesh, boxes.center[k], boxes.yaw[k], sample.image, sample.camera, mask)
        _ = mesh.edges  # searched for once: every place the car is pasted to takes them over
        yield Cutout(
            mesh, boxes.size[k], float(boxes.alpha[k]), float(boxes.bottom[k, 1]),
            float(sample.camera.fx / sample.camera.depth(boxes.center[k].double())),
            brightness(sample.image), sample.classes[k], sample.name,
        )  # fmt: skip


def _mask_of(numbers: Tensor, box2d: Float[Tensor, " 4"]) -> Bool[Tensor, "H W"] | None:
    """The mask whose rectangle is the labelled one, as far as it lies inside; None where there is none."""
    x1, y1, x2, y2 = (int(v) for v in (box2d + torch.tensor([0.0, 0, 1, 1])).round())
    inside = numbers[max(y1, 0) : y2, max(x1, 0) : x2]
    candidates = inside[inside > 0]
    if not len(candidates):
        return None
    mask = numbers == candidates.bincount().argmax()
    rows, columns = (mask.any(axis).nonzero().squeeze(1).float() for axis in (1, 0))
    rectangle = torch.stack([columns[0], rows[0], columns[-1], rows[-1]])
    if float(iou_2d(rectangle[None], box2d[None])[0, 0]) < _SAME_BOX:
        return None
    clipped = torch.zeros_like(mask)
    clipped[max(y1, 0) : y2, max(x1, 0) : x2] = mask[max(y1, 0) : y2, max(x1, 0) : x2]
    return clipped


def _best_shape(
    sample: Sample, k: int, shapes: Sequence[Mesh], mask: Bool[Tensor, "H W"] | None
) -> tuple[Mesh, float]:
    """The shape whose silhouette agrees best with the mask, in the labelled box, and the IoU; the first without one."""
    if mask is None:
        return fit_to_box(shapes[0], sample.boxes.size[k]), 1.0
    crop = crop_cameras(sample.camera, sample.boxes2d[k : k + 1], _SILHOUETTE)
    wanted = _crop(mask, crop, sample.camera)
    best, score = shapes[0], -1.0
    for shape in shapes:
        mesh = fit_to_box(shape, sample.boxes.size[k])
        covered = _silhouette(mesh, sample, k, crop)
        agreement = float((covered & wanted).sum() / (covered | wanted).sum().clamp_min(1))
        if agreement > score:
            best, score = mesh, agreement
    return best, score


def _silhouette(mesh: Mesh, sample: Sample, k: int, camera: Camera) -> Bool[Tensor, "h w"]:
    there = placed(mesh, sample.boxes.center[k], sample.boxes.yaw[k])
    return render(there, camera).silhouette[0] > 0.5


def _own_pixels(mesh: Mesh, sample: Sample, k: int, mask: Bool[Tensor, "H W"] | None) -> Bool[Tensor, "H W"]:
    """The mask or, without one, the silhouette; in the lowest part of the box both together, because segmentations tend to
    leave out dark wheels and the shadow between them, and bright paint would be continued down in their place."""
    silhouette = _silhouette(mesh, sample, k, Camera.stack([sample.camera]))
    if mask is None:
        return silhouette
    top, bottom = sample.boxes2d[k, 1::2].tolist()
    low = torch.arange(silhouette.shape[0])[:, None] > bottom - LOW_PART * (bottom - top)
    return mask | (silhouette & low)


def _crop(mask: Bool[Tensor, "H W"], crop: Camera, camera: Camera) -> Bool[Tensor, "s s"]:
    """The mask in a crop's pixels, nearest neighbour; outside the image there is nothing."""
    scale = float(crop.fx[0] / camera.fx)
    steps = torch.arange(crop.width, dtype=torch.float64)
    columns = ((steps - crop.cx[0]) / scale + camera.cx).round().long()
    rows = ((steps - crop.cy[0]) / scale + camera.cy).round().long()
    height, width = mask.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return mask[rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)] & inside


def _shrunk(mask: Bool[Tensor, "H W"], height: float) -> Bool[Tensor, "H W"]:
    """Without the outermost pixels, which mix with the background: one, or two hundredths of the object's height."""
    reach = max(1, round(0.02 * height))
    outside = (~mask).float()[None, None]
    return F.max_pool2d(outside, 2 * reach + 1, 1, reach)[0, 0] < 0.5
