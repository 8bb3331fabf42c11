"""Order of the corner channels (ours; the paper numbers corners from the object's front).

Counted from the object's front, the channels of a car and of the same car turned half round differ in all sixteen numbers,
and a network that confuses front and rear predicts their average, a collapsed box. Counted from the end that is farther
from the camera, both show the same, and only the observation angle tells front from rear.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monolift.geometry.boxes import FRONT
from monolift.methods.ss3d.parameters import CORNERS, COSINE, SINE, with_corners_turned
from monolift.typing import Bool, Float, Tensor

REAR = tuple(k for k in range(8) if k not in FRONT)


@dataclass(frozen=True)
class CornerOrder:
    """kind: "object", from the object's front as in the paper, or "view", from the end that is farther from the camera."""

    kind: str

    def of_channels(self, values: Tensor, parameters: Float[Tensor, "m 26"]) -> Tensor:
        """(M, 26) values that belong to parameters of labels, with the corners in the channels' order."""
        if self.kind == "object":
            return values
        return with_corners_turned(values, parameters[:, SINE] > 0)  # it comes towards the camera

    def from_front(self, parameters: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and sigmas, (M, 26), with the corners counted from the object's front."""
        turned = self.turned(parameters)
        return with_corners_turned(parameters, turned), with_corners_turned(sigma, turned)

    def turned(self, parameters: Float[Tensor, "m 26"]) -> Bool[Tensor, " m"]:
        """Whether the first end of the corners, counted from the far one, is the object's rear.

        The sine decides, except for an object that stands across the view: its front and rear lie side by side in the image,
        and the cosine tells which is which.
        """
        if self.kind == "object":
            return torch.zeros(len(parameters), dtype=torch.bool, device=parameters.device)
        sine, cosine = parameters[:, SINE], parameters[:, COSINE]
        across = parameters[:, CORNERS].unflatten(1, (8, 2))[..., 0]
        sideways = across[:, list(FRONT)].sum(1) - across[:, list(REAR)].sum(1)
        return torch.where(cosine.abs() > sine.abs(), cosine * sideways < 0, sine > 0)
