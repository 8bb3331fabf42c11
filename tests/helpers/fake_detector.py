"""A detector that needs no training: it finds one rectangle per class by its colour and lifts it by its height.

It honours the whole contract for images in, boxes out, so that camera, letterbox and result handling can be tested exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monolift.data.sample import Detections, Sample
from monolift.geometry import Boxes3D, Camera
from monolift.methods.base import Detector, Targets

COLORS = {"Car": (255, 0, 255), "Pedestrian": (0, 255, 255)}
SIZES = {"Car": (4.0, 1.5, 1.6), "Pedestrian": (0.8, 1.8, 0.6)}


@dataclass(frozen=True)
class FakeConfig:
    classes: tuple[str, ...] = tuple(COLORS)
    input_width: int = 640
    input_height: int = 192
    fit: str = "letterbox"


class FakeNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"image": images}


class FakeDetector(Detector):
    method = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.config = FakeConfig()
        self.network = FakeNetwork()

    def normalise(self, image: Tensor) -> Tensor:
        return image.float()

    def encode(self, samples: Sequence[Sample]) -> Targets:
        raise NotImplementedError("it is not trained")

    def loss(self, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        raise NotImplementedError("it is not trained")

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        return [self._find(image, cameras[i]) for i, image in enumerate(raw["image"])]

    def _find(self, image: Tensor, camera: Camera) -> Detections:
        centers, sizes, boxes2d, labels = [], [], [], []
        for label, name in enumerate(self.classes):
            color = torch.tensor(COLORS[name], dtype=torch.float32).view(3, 1, 1)
            rows, columns = torch.nonzero(((image - color).abs() < 64).all(0), as_tuple=True)
            if not len(rows):
                continue
            x1, x2 = columns.min().float() - 0.5, columns.max().float() + 0.5
            y1, y2 = rows.min().float() - 0.5, rows.max().float() + 0.5
            z = camera.fy.float() * SIZES[name][1] / (y2 - y1)
            centers.append(camera.cam_from_px(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2]), z))
            sizes.append(torch.tensor(SIZES[name]))
            boxes2d.append(torch.stack([x1, y1, x2, y2]))
            labels.append(label)
        if not labels:
            return Detections(
                Boxes3D.empty(),
                torch.zeros(0),
                torch.zeros(0, dtype=torch.long),
                torch.zeros(0, 4),
                self.classes,
            )
        boxes = Boxes3D(torch.stack(centers), torch.stack(sizes), torch.full((len(labels),), 0.3))
        scores = torch.linspace(0.9, 0.4, len(labels))
        return Detections(boxes, scores, torch.tensor(labels), torch.stack(boxes2d), self.classes)
