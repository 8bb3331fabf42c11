"""Regions of interest: RoIAlign and non-maximum suppression, with torchvision's conventions."""

from __future__ import annotations

import torch

from monolift.nn.gather import gather_rows
from monolift.typing import Bool, Float, Int, Tensor


def roi_align(
    features: Float[Tensor, "b c h w"],
    boxes: Float[Tensor, "n 4"],
    image_index: Int[Tensor, " n"],
    output_size: tuple[int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Float[Tensor, "n c oh ow"]:
    """Average features over a grid of cells in each box (He et al., "Mask R-CNN", ICCV 2017, section 3).

    Samples within one cell outside the map read its border, samples farther out are zero. Differentiable once
    in features and boxes. Sixteen-bit features are averaged in float32.

    Args:
        boxes: left, top, right, bottom, pixels *from the image's corner* (the first pixel covers 0 to 1), as torchvision
            takes them. Boxes in pixels whose centres are at integers, as elsewhere here, need + 0.5.
        image_index: the image of each box.
        spatial_scale: feature cells per pixel, 1 / stride.
        sampling_ratio: S; each cell averages S x S bilinear samples.
        aligned: True subtracts the half cell between corner and centre of the first feature. False is the first published
            version, half a cell off, with boxes of at least one cell; some released detectors were trained with it.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio should be at least 1, got {sampling_ratio}")
    _, channels, height, width = features.shape
    out_h, out_w = output_size
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    table = features.to(dtype).permute(0, 2, 3, 1).reshape(-1, channels)
    edges = boxes.to(dtype) * spatial_scale - (0.5 if aligned else 0.0)
    y, y_inside = _sample_positions(edges[:, 1], edges[:, 3], out_h, sampling_ratio, height, aligned)
    x, x_inside = _sample_positions(edges[:, 0], edges[:, 2], out_w, sampling_ratio, width, aligned)

    # Along each axis a sample is two indices and two weights: [n, cell, sample, 2]. Rows and columns combine
    # by outer product.
    rows, row_weights = _neighbours(y, y_inside, height)
    columns, column_weights = _neighbours(x, x_inside, width)
    start = image_index.to(torch.int64) * (height * width)
    index = (start[:, None, None] + rows.flatten(2) * width)[:, :, None, :, None] + (
        columns.flatten(2)[:, None, :, None, :]
    )
    weight = row_weights.flatten(2)[:, :, None, :, None] * column_weights.flatten(2)[:, None, :, None, :]
    bag = (2 * sampling_ratio) ** 2
    pooled = gather_rows(table, index.reshape(-1, bag), weight.reshape(-1, bag) / sampling_ratio**2)
    return pooled.view(len(boxes), out_h, out_w, channels).permute(0, 3, 1, 2).to(features.dtype)


def _sample_positions(
    low: Tensor, high: Tensor, cells: int, samples: int, size: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Sample positions along one axis, feature cells, (n, cells, samples), and whether they count."""
    extent = high - low
    if not aligned:
        extent = extent.clamp(min=1.0)
    steps = (torch.arange(cells * samples, device=low.device, dtype=low.dtype) + 0.5) / (cells * samples)
    position = (low[:, None] + steps * extent[:, None]).view(-1, cells, samples)
    return position.clamp(0, size - 1), (position >= -1) & (position <= size)


def _neighbours(position: Tensor, inside: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two cells round each position and their weights, (n, cells, samples, 2)."""
    first = position.detach().nan_to_num(0.0).floor().to(torch.int64)
    fraction = position - first
    index = torch.stack((first, (first + 1).clamp(max=size - 1)), dim=-1)
    return index, torch.stack((1 - fraction, fraction), dim=-1) * inside[..., None]


def box_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of (left, top, right, bottom) boxes with continuous edges; 0 of two empty boxes."""
    size = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp(min=0)
    intersection = size.prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b))
    union = area_a[:, None] + area_b - intersection
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 0)


def nms(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float) -> Int[Tensor, " kept"]:
    """Greedy non-maximum suppression: indices of the kept boxes, best score first.

    A box falls when a better kept one overlaps it by an IoU above ``threshold``. Equal scores keep their order.
    """
    return _suppress(boxes, scores, torch.ones(len(boxes), len(boxes), dtype=torch.bool), threshold)


def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], threshold: float
) -> Int[Tensor, " kept"]:
    """``nms`` within each label (class, image, or both in one number); indices of all labels by falling score."""
    labels = labels.cpu()
    return _suppress(boxes, scores, labels[:, None] == labels, threshold)


def beaten_by_rival(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], threshold: float
) -> Bool[Tensor, " n"]:
    """Which boxes overlap a better one of another label by an IoU above ``threshold``. Of equal scores the first is better."""
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    better = (rank[:, None] < rank) & (labels[:, None] != labels)
    return ((box_iou(boxes, boxes) > threshold) & better).any(dim=0)


def _suppress(
    boxes: Tensor, scores: Tensor, rivals: Bool[Tensor, "n n"], threshold: float
) -> Int[Tensor, " kept"]:
    """``nms`` where only the pairs in ``rivals`` can suppress each other.

    The IoU matrix is one tensor operation.
    """
    order = torch.sort(scores.detach(), descending=True, stable=True).indices.cpu()
    sorted_boxes = boxes.detach().cpu()[order]
    kept = greedy((box_iou(sorted_boxes, sorted_boxes) > threshold) & rivals[order][:, order])
    return order[kept].to(boxes.device)


def greedy(overlapping: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """The walk of every NMS: which of N candidates stay. Rows, and columns, are sorted best first.

    It is sequential by nature and runs on the CPU, which suits the few hundred boxes a detector is left with.
    """
    rows = overlapping.cpu().numpy()
    alive = torch.ones(len(rows), dtype=torch.bool).numpy()
    for i in range(len(rows)):
        if alive[i]:
            alive[i + 1 :] &= ~rows[i, i + 1 :]
    return torch.from_numpy(alive).to(overlapping.device)
