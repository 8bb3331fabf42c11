"""SS3D's parameterisation of a 3D box, both ways: a class map, and 26 parameters at every cell of an object's support.

channel  stands for                                                 parameter
0-3      corners of the 2D box, from the cell's pixel               pixel = cell's pixel + unit n
4        distance of the centre from the camera                     (mean + unit n) f / f_ref
5, 6     sine and cosine of the observation angle                   unit n
7-9      log length, height, width                                  log mean + unit n
10-25    the eight projected corners, from the cell's pixel         pixel = cell's pixel + unit n
and beside each a log sigma in its unit. Corners are those of ``CORNER_SIGNS``, counted from the end that is farther from the
camera (``corner_order``, ours) and in the parameters, as everywhere, from the front. One set of parameters serves all
classes, as in the author's code.

Author's code: units 1, distance and sizes from 0, f_ref not known. The parameters become a box through the fit, so decoding
inverts encoding only where the parameters agree with one box; those of a label do.
"""

from __future__ import annotations

import math

import torch

from monolift.geometry import Boxes3D, Camera
from monolift.methods.base import focal_ratio
from monolift.methods.ss3d.config import SS3DConfig
from monolift.methods.ss3d.corner_order import CornerOrder
from monolift.methods.ss3d.fit import Fit, fit_boxes
from monolift.methods.ss3d.parameters import (
    BOX,
    CORNERS,
    DISTANCE,
    PARAMETERS,
    SIZE,
    parameters_of_boxes,
    with_corners_turned,
)
from monolift.typing import Float, Int, Tensor

STRIDE = 4
MOST_SIGMA = 7.0  # of |log sigma|, units


class SS3DCodec:
    """Boxes of M objects <-> the channels at their cells; in between lie the parameters, in pixels and metres.

    cell is a flat cell, row * w + column, of a map of ``width`` columns; camera that of the network image, one or one per cell.
    """

    def __init__(self, config: SS3DConfig) -> None:
        self.config = config
        self.order = CornerOrder(config.corner_order)

    def encode(
        self, boxes: Boxes3D, cell: Int[Tensor, " m"], camera: Camera, width: int
    ) -> Float[Tensor, "m 26"]:
        """The channels of parameters that all agree with the box: the inverse of `decode`."""
        return self.channels(parameters_of_boxes(boxes, camera), cell, camera, width)

    def decode(
        self,
        numbers: Float[Tensor, "m 26"],
        log_sigma: Float[Tensor, "m 26"],
        cell: Int[Tensor, " m"],
        camera: Camera,
        width: int,
    ) -> Fit:
        """The boxes that agree best with the channels of each cell, with their covariance; differentiable."""
        parameters, sigma = self.measured(numbers, log_sigma, cell, camera, width)
        return fit_boxes(parameters, 1 / sigma, camera)

    # -- channels and parameters -------------------------------------------------------------------------------------------

    def parameters(
        self, numbers: Float[Tensor, "m 26"], cell: Int[Tensor, " m"], camera: Camera, width: int
    ) -> Float[Tensor, "m 26"]:
        """The parameters, in pixels and metres, of the channels of M cells."""
        parameters = self.scaled(numbers, cell, camera, width)
        return with_corners_turned(parameters, self.order.turned(parameters))

    def measured(
        self,
        numbers: Float[Tensor, "m 26"],
        log_sigma: Float[Tensor, "m 26"],
        cell: Int[Tensor, " m"],
        camera: Camera,
        width: int,
    ) -> tuple[Float[Tensor, "m 26"], Float[Tensor, "m 26"]]:
        """`parameters` and their standard deviations, in the parameters' units."""
        return self.order.from_front(*self.measured_in_channel_order(numbers, log_sigma, cell, camera, width))

    def channels(
        self, parameters: Float[Tensor, "m 26"], cell: Int[Tensor, " m"], camera: Camera, width: int
    ) -> Float[Tensor, "m 26"]:
        """Inverse of `parameters` for parameters that a box can have."""
        unit, mean, origin, lens = self._frame(parameters, cell, camera, width)
        return ((self.order.of_channels(parameters, parameters) - origin) / lens - mean) / unit

    def sigma(self, log_sigma: Float[Tensor, "m 26"], camera: Camera) -> Float[Tensor, "m 26"]:
        """Standard deviations in the parameters' units, in the channels' order; of an L1 likelihood of scale b, sqrt(2) b."""
        spread = math.sqrt(2) if self.config.likelihood == "laplace" else 1.0
        return torch.exp(log_sigma) * self._units(log_sigma) * self._lens(log_sigma, camera) * spread

    def scaled(self, numbers: Tensor, cell: Tensor, camera: Camera, width: int) -> Tensor:
        """Channels in the parameters' units, the corners still in the channels' order."""
        unit, mean, origin, lens = self._frame(numbers, cell, camera, width)
        return (mean + unit * numbers) * lens + origin

    def measured_in_channel_order(
        self, numbers: Tensor, log_sigma: Tensor, cell: Tensor, camera: Camera, width: int
    ) -> tuple[Tensor, Tensor]:
        """As `measured`, the corners still in the channels' order."""
        sigma = self.sigma(log_sigma.clamp(-MOST_SIGMA, MOST_SIGMA), camera)
        return self.scaled(numbers, cell, camera, width), sigma

    def _frame(
        self, like: Tensor, cell: Tensor, camera: Camera, width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """parameter = (mean + unit n) lens + origin: (26,), (26,), (M, 26), (M, 26)."""
        mean = like.new_zeros(PARAMETERS)
        mean[DISTANCE] = self.config.distance_mean
        mean[SIZE] = like.new_tensor(self.config.size_mean).log()
        origin = torch.zeros_like(like)
        px = cell_pixels(cell, width).to(like.dtype)
        origin[:, BOX], origin[:, CORNERS] = px.repeat(1, 2), px.repeat(1, 8)
        return self._units(like), mean, origin, self._lens(like, camera)

    def _units(self, like: Tensor) -> Tensor:
        counts = torch.tensor([4, 1, 2, 3, 16], device=like.device)
        return like.new_tensor(self.config.units).repeat_interleave(counts)

    def _lens(self, like: Tensor, camera: Camera) -> Tensor:
        """(M, 26) or (1, 26): f / f_ref for the distance (ours, see `focal_ratio`), 1 for the rest."""
        ratio = focal_ratio(camera.fx.reshape(-1).to(like), self.config.focal)
        lens = like.new_ones(len(ratio), PARAMETERS)
        lens[:, DISTANCE] = ratio
        return lens


def cell_pixels(cell: Int[Tensor, " m"], width: int) -> Float[Tensor, "m 2"]:
    """The pixel at the middle of each flat cell: 4 c + 1.5, for a cell is 4 x 4 pixels with centres at integers."""
    column, row = cell % width, torch.div(cell, width, rounding_mode="floor")
    return torch.stack([column, row], 1) * float(STRIDE) + (STRIDE - 1) / 2
