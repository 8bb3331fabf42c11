"""What every detector offers: the contract between the methods and the programs that train, run and export them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from monolift.data.augment import View
from monolift.data.sample import Detections, Sample
from monolift.geometry import Camera
from monolift.typing import Float, Tensor, UInt8


@dataclass(frozen=True)
class Prepared:
    """A picture as a network takes it: (3, h, w) normalised, its camera, and the view that made it from the source."""

    image: Float[Tensor, "3 h w"]
    camera: Camera
    view: View


def in_source(found: Detections, view: View, width: int, height: int) -> Detections:
    """Detections with their 2D boxes in pixels of the source picture of this size, cut to it; 3D boxes need no change."""
    boxes2d = view.px_source_from_view(found.boxes2d.view(-1, 2, 2)).view(-1, 4)
    limit = boxes2d.new_tensor([width - 1, height - 1] * 2)
    return replace(found, boxes2d=torch.minimum(boxes2d.clamp_min(0), limit))


class Detector(Protocol):
    """What every detector offers; all are ``torch.nn.Module``. ``config`` is a frozen dataclass that JSON can hold."""

    method: str
    config: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label index."""
        ...

    def view(self, width: int, height: int) -> View:
        """How a picture of this size is brought to the network; the training picture's view augments about it."""
        ...

    def prepare(self, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Prepared: ...

    def normalise(self, image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]: ...

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]: ...

    def encode(self, samples: Sequence[Sample]) -> Any:
        """Training targets of samples whose pictures are network pictures."""
        ...

    def loss(self, raw: dict[str, Tensor], targets: Any) -> dict[str, Tensor]:
        """Named scalars; "total" is what is minimised."""
        ...

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        """Per picture, best first; boxes in metres, camera frame; 2D boxes in network pixels."""
        ...
