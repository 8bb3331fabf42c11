"""Predicted parameters that a box was fitted to, with residuals and outliers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class Evidence:
    """K named predictions for each of N objects, through which its box was fitted.

    values, sigma: (N, K) predictions and their standard deviations: pixels of the network image, metres, radians, by name.
    disagreement: (N, K) residuals: predicted minus that of the fitted box, in sigmas.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "n k"]
    sigma: Float[Tensor, "n k"]
    disagreement: Float[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Evidence:
        return Evidence(self.names, self.values[index], self.sigma[index], self.disagreement[index])

    def to(self, *args: Any) -> Evidence:
        """Another device."""
        return Evidence(self.names, *(t.to(*args) for t in (self.values, self.sigma, self.disagreement)))

    def outliers(self, index: int, beyond: float = 3.0) -> dict[str, float]:
        """Residuals of box ``index`` of more than ``beyond`` sigmas, by name, the largest first."""
        found = zip(self.names, self.disagreement[index].tolist(), strict=True)
        return dict(sorted(((k, v) for k, v in found if abs(v) > beyond), key=lambda pair: -abs(pair[1])))

    def dissenters(self, index: int, beyond: float = 3.0) -> dict[str, float]:
        """Deprecated name of `outliers`."""
        warnings.warn("Evidence.dissenters is now called Evidence.outliers", DeprecationWarning, stacklevel=2)
        return self.outliers(index, beyond)

    def rows(self, index: int) -> list[dict[str, Any]]:
        """Name, value, sigma and residual (``disagreement``) of each prediction of object ``index``."""
        columns = (t[index].tolist() for t in (self.values, self.sigma, self.disagreement))
        keys = ("name", "value", "sigma", "disagreement")
        return [dict(zip(keys, row, strict=True)) for row in zip(self.names, *columns, strict=True)]
