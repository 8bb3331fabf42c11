"""What the runtime gives back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .lens import Lens, wrap

SCHEMA = "monolift.result/1"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Objects:
    """N decoded objects of one image, best first; labels are indices into the model's classes."""

    center: Array
    size: Array
    yaw: Array
    scores: Array
    labels: Array
    boxes2d: Array

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Array) -> Objects:
        return Objects(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Found:
    """The objects of one image, best first.

    Attributes:
        center: (N, 3) metres, camera frame x right, y down, z forward
        size: (N, 3) length, height, width
        yaw: (N,) radians
        scores: (N,) 0 to 1
        classes: N names
        boxes2d: (N, 4) x1, y1, x2, y2 pixels of the image
        lens: its camera
        warnings: what is odd about the camera
    """

    center: Array
    size: Array
    yaw: Array
    scores: Array
    classes: tuple[str, ...]
    boxes2d: Array
    lens: Lens
    name: str = "image"
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, objects: Objects, names: Sequence[str], lens: Lens, name: str, warnings: tuple[str, ...] = ()
    ) -> Found:
        classes = tuple(names[k] for k in objects.labels.tolist())
        parts = objects.center, objects.size, objects.yaw, objects.scores
        return cls(*parts, classes, objects.boxes2d, lens, name, warnings)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def alpha(self) -> Array:
        """KITTI's observation angle, radians."""
        return wrap(self.yaw - np.arctan2(self.center[:, 0], self.center[:, 2]))

    def to_dict(self) -> dict[str, Any]:
        """As the JSON of ``monolift detect``: schema, name, image, camera, objects, warnings."""
        lens = self.lens
        return {
            "schema": SCHEMA,
            "name": self.name,
            "image": {"width": lens.width, "height": lens.height},
            "camera": {
                "fx": lens.fx,
                "fy": lens.fy,
                "cx": lens.cx,
                "cy": lens.cy,
                "translation": list(lens.translation),
            },
            "objects": [
                {
                    "class": self.classes[i],
                    "score": round(float(self.scores[i]), 4),
                    "center": _rounded(self.center[i]),
                    "size": dict(zip(("length", "height", "width"), _rounded(self.size[i]), strict=True)),
                    "yaw": round(float(self.yaw[i]), 4),
                    "alpha": round(float(self.alpha[i]), 4),
                    "distance": round(math.hypot(self.center[i, 0], self.center[i, 2]), 4),
                    "box2d": _rounded(self.boxes2d[i]),
                }
                for i in range(len(self))
            ],
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def to_kitti(self) -> str:
        """The rows of a KITTI result file: bottom centre, and height, width, length."""
        rows = []
        for i, name in enumerate(self.classes):
            length, height, width = self.size[i]
            x, y, z = self.center[i]
            numbers = (
                *self.boxes2d[i],
                *(height, width, length),
                *(x, y + height / 2, z),
                self.yaw[i],
                self.scores[i],
            )
            rows.append(f"{name} -1 -1 {self.alpha[i]:.4f} " + " ".join(f"{v:.4f}" for v in numbers) + "\n")
        return "".join(rows)


def _rounded(values: Array) -> list[float]:
    return [round(float(v), 4) for v in values]
