"""What every detector offers: the contract between the methods and the programs that train, run and export them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def normalise(self, image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]: ...

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
