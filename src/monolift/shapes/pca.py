"""Principal components of car TSDFs: the linear shape space that ROI-10D tried first, kept as a baseline (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monolift.errors import InputError
from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class LinearSpace:
    """Grids as the mean and a weighted sum of components; codes count in standard deviations of the cars it was made of.

    Attributes:
        mean: (X, Y, Z)
        components: (C, X, Y, Z) orthonormal
        deviations: (C,) of the coordinates along them
    """

    mean: Float[Tensor, "X Y Z"]
    components: Float[Tensor, "c X Y Z"]
    deviations: Float[Tensor, " c"]

    @classmethod
    def of(cls, grids: Float[Tensor, "n X Y Z"], code: int) -> LinearSpace:
        """The ``code`` components of largest variance. Raises InputError where there are not more grids than components."""
        if len(grids) <= code:
            raise InputError(f"expected more than {code} cars for {code} components, got {len(grids)}")
        mean = grids.mean(0)
        _, values, directions = torch.linalg.svd((grids - mean).flatten(1), full_matrices=False)
        components = directions[:code].view(code, *grids.shape[1:])
        return cls(mean, components, (values[:code] / (len(grids) - 1) ** 0.5).clamp_min(1e-9))

    def encode(self, grids: Float[Tensor, "n X Y Z"]) -> Float[Tensor, "n c"]:
        """The coordinates of grids, standard deviations."""
        return (grids - self.mean).flatten(1) @ self.components.flatten(1).T / self.deviations

    def decode(self, codes: Float[Tensor, "n c"]) -> Float[Tensor, "n X Y Z"]:
        """The grids of coordinates, cut to the range of a TSDF; inverse of `encode` on the span of the components."""
        sums = (codes * self.deviations) @ self.components.flatten(1)
        return (self.mean + sums.view(-1, *self.mean.shape)).clamp(-1, 1)
