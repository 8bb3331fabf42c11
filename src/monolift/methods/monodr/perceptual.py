"""Perceptual image metrics, which select among rotation hypotheses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from monolift.methods.monodr.lpips import LpipsMetric, load_lpips
from monolift.typing import Float, Tensor

Metric = Callable[[Float[Tensor, "n 3 s s"], Float[Tensor, "n s s"]], Float[Tensor, " n"]]
"""Distance (N,) of rendered colours and silhouettes to the observed images the metric was made for."""

LEVELS = 4


def make_metric(
    name: str,
    colour: Float[Tensor, "n 3 s s"],
    foreground: Float[Tensor, "n s s"],
    valid: Float[Tensor, "n s s"],
) -> Metric:
    """The metric of a configuration ("multiscale" or "lpips:FILE") for observed images.

    Args:
        foreground: (N, S, S) share of a pixel that is the object
        valid: share of it of which that is known.
    """
    if name == "multiscale":
        return MultiscaleMetric(colour, foreground, valid)
    network = load_lpips(name.removeprefix("lpips:")).to(colour.device)
    return LpipsMetric(network, colour, foreground)


class MultiscaleMetric:
    """Colours, silhouettes and their slopes, compared at half, a quarter ... of the resolution. No weights, no downloads.

    Stands for the LPIPS of the paper. The observed images are pyramided once.
    """

    def __init__(
        self,
        colour: Float[Tensor, "n 3 s s"],
        foreground: Float[Tensor, "n s s"],
        valid: Float[Tensor, "n s s"],
    ) -> None:
        self.foreground, self.valid = foreground[:, None], valid[:, None]
        self.observed = _pyramid(torch.cat([colour * self.foreground, self.foreground], 1))

    def __call__(
        self, colour: Float[Tensor, "n 3 s s"], silhouette: Float[Tensor, "n s s"]
    ) -> Float[Tensor, " n"]:
        rendered = torch.cat([colour * self.foreground, silhouette[:, None] * self.valid], 1)
        distance = silhouette.new_zeros(len(silhouette))
        for a, b in zip(_pyramid(rendered), self.observed, strict=True):
            off = a - b
            for part in (off, off.diff(dim=3), off.diff(dim=2)):
                distance = distance + part.abs().mean((1, 2, 3))
        return distance


def _pyramid(image: Float[Tensor, "n c s s"]) -> list[Float[Tensor, "n c _ _"]]:
    levels = []
    for _ in range(LEVELS):
        image = F.avg_pool2d(image, 2)
        levels.append(image)
    return levels
