"""The scale of depth maps: from the car's velocity, as published, and from the sizes of an image's objects (ours).

A network that learnt depth from video knows it up to a factor, and the translations between its frames up to the same one. The
velocity says how many metres the camera moved, so the ratio is the factor: `velocity_scale`.

A depth network may be off as a whole, and where it is, all objects of the image come out too large, or all too small, by the
same factor: their silhouettes fix size over depth. Sizes of cars are known to a few per cent on average, so their mean over the
image tells the factor, the better the more objects there are.
"""

from __future__ import annotations

import torch

from monolift.errors import InputError
from monolift.typing import Bool, Float, Int, Tensor

LEAST = 3
"""Objects that an image must have for its scale to be judged: the size of one says less than most depth maps do."""


SLOWEST = 0.1
"""Metres between two frames below which a ratio is mostly noise (ours)."""


def velocity_scale(moved: Float[Tensor, " n"], translation: Float[Tensor, " n"]) -> float:
    """Metres per unit of a depth network (MonoDR section 3, "Monocular Depth Estimation").

    moved: (N,) speed times the time between two frames, metres. translation: (N,) length of the camera's translation between
    them as the network's pose estimate has it, in its unit. The median of the ratios, over the pairs of frames in which the
    camera moved; PackNet learns the factor by a loss instead, which needs its training. Raises InputError without such a pair.
    """
    use = (moved > SLOWEST) & (translation > 0) & moved.isfinite() & translation.isfinite()
    if not bool(use.any()):
        raise InputError(
            f"expected frames between which the camera moved more than {SLOWEST:g} m, got none of {len(moved)}"
        )
    return float((moved[use] / translation[use]).median())


def scale_correction(
    size: Float[Tensor, "n 3"],
    size_mean: Float[Tensor, "3"],
    image: Int[Tensor, " n"],
    usable: Bool[Tensor, " n"],
    size_spread: float,
    scale_spread: float,
) -> Float[Tensor, " n"]:
    """(N,) what depths and sizes are to be multiplied by, the same for all objects of an image.

    The posterior mean of the log scale, of prior N(0, scale_spread^2), given log sizes N(log mean + log scale, size_spread^2)
    of the image's usable objects. 1 where there are fewer than LEAST.
    """
    logs = (size.clamp_min(1e-3) / size_mean).log().mean(1)
    images = int(image.max()) + 1 if len(image) else 0
    weight = usable.to(logs)
    count = logs.new_zeros(images).index_add(0, image, weight)
    too_large = logs.new_zeros(images).index_add(0, image, torch.where(usable, logs, 0))
    posterior = too_large / (count + (size_spread / scale_spread) ** 2)
    return torch.exp(-torch.where(count >= LEAST, posterior, 0))[image]
