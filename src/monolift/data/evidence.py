"""What a method measured on the way to its boxes, by name, so that a user can see which measurement disagreed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monolift.typing import Float, Tensor


@dataclass(frozen=True)
class Evidence:
    """K named measurements of each of N objects, through which its box was fitted.

    values, sigma: (N, K) as measured, and how sure: pixels of the network's picture, metres, radians, by the method's names.
    disagreement: (N, K) measured minus that of the fitted box, in sigmas.
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

    def dissenters(self, index: int, beyond: float = 3.0) -> dict[str, float]:
        """What disagrees with box ``index`` by more than ``beyond`` sigmas, by name, the worst first."""
        found = zip(self.names, self.disagreement[index].tolist(), strict=True)
        return dict(sorted(((k, v) for k, v in found if abs(v) > beyond), key=lambda pair: -abs(pair[1])))

    def rows(self, index: int) -> list[dict[str, Any]]:
        """Everything about object ``index``: name, value, sigma, disagreement."""
        columns = (t[index].tolist() for t in (self.values, self.sigma, self.disagreement))
        keys = ("name", "value", "sigma", "disagreement")
        return [dict(zip(keys, row, strict=True)) for row in zip(self.names, *columns, strict=True)]
