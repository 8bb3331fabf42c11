"""What every detector offers: the contract between the methods and the programs that train, run and export them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from monolift.augment.augment import View, network_view, training_view
from monolift.data.sample import Detections, Sample
from monolift.geometry import Camera
from monolift.typing import Float, Tensor, UInt8

# ImageNet, RGB, [0, 1]: what every backbone here was trained on
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class PictureDetector(nn.Module):
    """A detector made of a configuration, a codec and a network that takes whole pictures. A method adds ``loss``."""

    config: Any
    codec: Any
    network: nn.Module

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config.classes)

    def view(self, width: int, height: int) -> View:
        """The window through which the network sees a picture of this size."""
        return network_view(self.config, width, height)

    def training_view(self, width: int, height: int) -> View:
        """As :meth:`view`, always of the training size: pictures of one batch must agree."""
        return training_view(self.config, width, height)

    def normalise(self, image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """uint8 RGB to what the backbone was trained on."""
        mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        return (image.float() / 255 - mean) / std

    def prepare(self, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Prepared:
        view = self.view(image.shape[2], image.shape[1])
        return Prepared(self.normalise(view.image(image)), view.camera(camera), view)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
        return self.network(images)

    def encode(self, samples: Sequence[Sample]) -> Any:
        return self.codec.encode(samples)

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        return self.codec.decode(raw, cameras)
