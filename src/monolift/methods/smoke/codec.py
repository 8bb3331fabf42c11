"""SMOKE's parameterisation of a 3D box, both ways: eight numbers at the cell of its keypoint.

channel   meaning                                             box
0         d_z                                                 z = (mean + std d_z) f / f_ref            eq. 1, `depth`
1, 2      offset of the projected centre from the cell        x, y through the camera                   eq. 2
3, 4, 5   d_l, d_h, d_w                                       size = reference exp(limit (2 sigmoid(d) - 1))  eq. 3
6, 7      cos alpha, -sin alpha (a vector of any length)      yaw = alpha + atan2(x, z)                 eq. 4, `heading`
then, not in the paper, each where its option asks for it: 4 of the 2D box (centre offset and log size, cells); 1 log scale of
the location's error; 2 ray terms for each of channels 0 and 6, 7; log apparent height, cells, and the log scale of its error.
The sigmoid of eq. 3 is the released code's, exp(sigmoid(d) - 0.5), for limit 0.5. f / f_ref is ours (`focal_ratio`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from monolift.geometry import Boxes3D, Camera, yaw_from_alpha
from monolift.methods.base import focal_ratio
from monolift.methods.smoke import depth as depths
from monolift.methods.smoke.cells import STRIDE, columns_rows
from monolift.methods.smoke.config import SmokeConfig
from monolift.methods.smoke.heading import decode_heading, encode_heading, heading_channels
from monolift.typing import Float, Int, Tensor


@dataclass(frozen=True)
class Parts:
    """The numbers in words. depth: (N,) metres; offset: (N, 2) cells; size: (N, 3) metres; alpha: (N,) radians."""

    depth: Float[Tensor, " n"]
    offset: Float[Tensor, "n 2"]
    size: Float[Tensor, "n 3"]
    alpha: Float[Tensor, " n"]


class SmokeCodec:
    """Boxes of N objects <-> the channels at their cells.

    cell: flat, row * width + column; label: class index; camera: of the network image, one per object.
    """

    def __init__(self, config: SmokeConfig) -> None:
        self.config = config
        self.box2d_at = 6 + heading_channels(config)
        self.location_scale_at = self.box2d_at + 4 * config.boxes2d
        self.rays_at = self.location_scale_at + config.location_scale
        self.with_ray_terms = [0, *range(6, self.box2d_at)] if config.extensions.ray_terms else []
        self.height_at = self.rays_at + 2 * len(self.with_ray_terms)
        self.channels = self.height_at + 2 * config.extensions.height_depth
        extra = self.channels - self.box2d_at
        self.heads = (self.box2d_at, extra) if extra else (self.box2d_at,)

    def encode(
        self, boxes: Boxes3D, cell: Int[Tensor, " n"], label: Int[Tensor, " n"], camera: Camera, width: int
    ) -> Float[Tensor, "n c"]:
        """The eight channels that stand for boxes found at their cells: the inverse of `decode`.

        A size beyond the limit of eq. 3 is held just inside it: the published limit loses 15 % of KITTI's pedestrians.
        """
        config = self.config
        z = boxes.center[:, 2]
        d_z = depths.number_from_depth(config, z / focal_ratio(camera.fx, config.focal).to(z))
        offset = self.cells(boxes, camera) - columns_rows(cell, width)
        reference = boxes.size.new_tensor(config.sizes)[label]
        share = torch.log(boxes.size / reference) / config.size_limit
        d_size = 2 * torch.atanh(share.clamp(-1 + 1e-6, 1 - 1e-6))  # 2 sigmoid(d) - 1 = tanh(d / 2)
        return torch.cat([d_z[:, None], offset, d_size, encode_heading(config, boxes.alpha)], 1)

    def decode(
        self,
        numbers: Float[Tensor, "n c"],
        cell: Int[Tensor, " n"],
        label: Int[Tensor, " n"],
        camera: Camera,
        width: int,
    ) -> Boxes3D:
        """The boxes of the channels at their cells; differentiable."""
        numbers = self.with_rays(numbers, cell, camera, width)
        parts = self.parts(numbers, label, camera)
        center = self.center(parts.offset, self.final_depth(parts, numbers, camera), cell, camera, width)
        return Boxes3D(center, parts.size, yaw_from_alpha(parts.alpha, center))

    # -- steps of decoding, which the loss takes one by one -------------------------------------------------------------

    def parts(self, numbers: Float[Tensor, "n c"], label: Int[Tensor, " n"], camera: Camera) -> Parts:
        """Channels, their ray terms added, to depth, offset, size and observation angle."""
        config = self.config
        ratio = focal_ratio(camera.fx, config.focal).to(numbers)
        depth = depths.calibrated(config, depths.depth_from_number(config, numbers[:, 0]), ratio) * ratio
        reference = numbers.new_tensor(config.sizes)[label]
        size = reference * torch.exp(config.size_limit * (2 * torch.sigmoid(numbers[:, 3:6]) - 1))
        return Parts(depth, numbers[:, 1:3], size, decode_heading(config, numbers[:, 6 : self.box2d_at]))

    def center(
        self,
        offset: Float[Tensor, "n 2"],
        depth: Float[Tensor, " n"],
        cell: Int[Tensor, " n"],
        camera: Camera,
        width: int,
    ) -> Float[Tensor, "n 3"]:
        """Box centre in metres from its projection, cells, and its depth (eq. 2)."""
        px = (columns_rows(cell, width).to(offset.dtype) + offset) * STRIDE
        return self.camera(camera).cam_from_px(px, depth)

    def cells(self, boxes: Boxes3D, camera: Camera) -> Float[Tensor, "n 2"]:
        """Projected centres in cells; cell c is centred on pixel 4 c, as in the released code, not on 4 c + 1.5.

        The released code scales labels about pixels' corners, (1 - scale) / 8 of a cell from where the image shows them."""
        return self.camera(camera).px_from_cam(boxes.center) / STRIDE

    def camera(self, camera: Camera) -> Camera:
        """The camera that the numbers are meant for: the released code knows K only."""
        return replace(camera, tx=0.0, ty=0.0, tz=0.0) if self.config.quirks.intrinsics_only else camera

    # -- channels beyond the paper ----------------------------------------------------------------------------------------

    def with_rays(
        self, numbers: Float[Tensor, "n c"], cell: Int[Tensor, " n"], camera: Camera, width: int
    ) -> Float[Tensor, "n c"]:
        """The channels, depth and heading changed by their ray terms times the direction of the cell's ray, x / z and y / z."""
        if not self.with_ray_terms:
            return numbers
        px = columns_rows(cell, width).to(numbers.dtype) * STRIDE
        ray = self.camera(camera).cam_from_px(px, torch.ones_like(px[:, 0]))[:, :2]
        terms = numbers[:, self.rays_at : self.height_at].reshape(len(numbers), len(self.with_ray_terms), 2)
        return numbers.index_add(1, cell.new_tensor(self.with_ray_terms), (terms * ray[:, None]).sum(2))

    def final_depth(self, parts: Parts, numbers: Float[Tensor, "n c"], camera: Camera) -> Float[Tensor, " n"]:
        """The depth, metres, averaged with that of the apparent height where ``height_depth`` asks for it."""
        if not self.config.extensions.height_depth:
            return parts.depth
        fy, predicted = camera.fy.to(numbers), numbers[:, self.height_at : self.height_at + 2]
        from_box = depths.log_apparent_height(parts.size[:, 1], parts.depth, fy, STRIDE)
        return depths.depth_with_height(parts.depth, self.log_scale(numbers), from_box, predicted)

    def boxes2d(
        self, numbers: Float[Tensor, "n c"], cell: Int[Tensor, " n"], width: int
    ) -> Float[Tensor, "n 4"]:
        """2D boxes, network pixels."""
        k = self.box2d_at
        middle = columns_rows(cell, width).to(numbers.dtype) + numbers[:, k : k + 2]
        half = torch.exp(numbers[:, k + 2 : k + 4].clamp(-4, 6)) / 2
        return torch.cat([middle - half, middle + half], 1) * STRIDE

    def log_scale(self, numbers: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Logarithm of the expected error of the location, metres: mean over the corners' coordinates."""
        return numbers[:, self.location_scale_at].clamp(-3, 4)
