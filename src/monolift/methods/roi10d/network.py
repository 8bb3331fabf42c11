"""ROI-10D's network: RetinaNet, a depth stream beside it, and the lifting branches of a region. Knows no 3D boxes."""

from __future__ import annotations

import torch
from torch import nn

from monolift.methods.roi10d.config import ROI10DConfig
from monolift.methods.roi10d.depth import SuperDepth, pooled_log_depth
from monolift.nn.backbones import build_backbone
from monolift.nn.blocks import conv_norm_relu, init_convolutions
from monolift.nn.retina import RetinaHead
from monolift.nn.roi import roi_align
from monolift.typing import Float, Int, Tensor

CANONICAL = 28.0  # side of a region, in finest strides, from which the next coarser level is read (FPN: 224 pixels at stride 8)
COORDINATE_UNIT = 100.0  # pixels


class ROI10DNetwork(nn.Module):
    """(B, 3, H, W) -> what the regions are found in and read from:

    scores: (B, A, K) logits and deltas: (B, A, 4) of the anchors
    level0, level1, ...: (B, C, h, w) the pyramid's levels from which regions are read
    depth: (B, 1, H, W) metres at the reference focal length; absent without a depth stream
    """

    def __init__(self, config: ROI10DConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(
            config.backbone, config.norm, kind="pyramid", out_channels=config.channels
        )
        self.strides = self.backbone.strides
        anchors = len(config.anchor_scales) * len(config.anchor_ratios)
        self.retina = RetinaHead(
            config.channels, anchors, len(config.classes), config.tower_depth, config.separable
        )
        if config.depth in ("small", "resnet18"):
            self.depth: SuperDepth | None = SuperDepth(config.depth, config.depth_flip)
        else:
            self.depth = None
        self.fusion = Fusion(config.channels, config.fused, config.depth != "none")
        inputs = self.fusion.out_channels * config.roi_size**2
        width = config.head_channels
        # quaternion; RoI-relative centroid; depth; extents; shape; and, ours, the expected corner error
        outputs = {"rotation": 4, "centroid": 2, "depth": 1, "extents": 3, "shape": config.shape_code}
        if config.confidence:
            outputs["error"] = 1
        self.branches = nn.ModuleDict({name: _branch(inputs, width, n) for name, n in outputs.items()})
        # facing along the optical axis, rather than no rotation at all
        nn.init.constant_(self.branches["rotation"][-1].bias[0], 1.0)  # type: ignore[index]

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> dict[str, Tensor]:
        levels = self.backbone.pyramid(images)
        scores, deltas = self.retina(levels)
        # float32 out of any autocast: metres need more than bfloat16's three digits
        raw = {"scores": scores.float(), "deltas": deltas.float()}
        for k, level in enumerate(levels[: self.config.roi_levels]):
            raw[f"level{k}"] = level.float()
        if self.depth is not None:
            raw["depth"] = self.depth(images)
        return raw

    def regions(
        self, raw: dict[str, Tensor], boxes: Float[Tensor, "n 4"], image: Int[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """The branches' numbers for N regions, (N, 4), (N, 2), (N, 1), ...; boxes in pixels; image: index in the batch.

        "depth" of ``raw`` may be any map, with holes: see ``depth.pooled_log_depth``.
        """
        grid = (self.config.roi_size, self.config.roi_size)
        pooled = boxes.new_zeros(len(boxes), self.fusion.out_channels, *grid)
        level = self.level(boxes)
        for k in range(self.config.roi_levels):
            # also without a region on this level: every weight must take part in every step of a parallel training
            stride = self.strides[k]
            fused = self.fusion(raw[f"level{k}"], raw.get("depth"), stride)
            here = torch.nonzero(level == k).flatten()
            cells = roi_align(fused, boxes[here] + 0.5, image[here], grid, spatial_scale=1 / stride)
            pooled = pooled.index_copy(0, here, cells)
        flat = pooled.flatten(1)
        return {name: branch(flat) for name, branch in self.branches.items()}

    def level(self, boxes: Tensor) -> Tensor:
        """(N,) level of each region: one coarser for each doubling of its side (FPN eq. 1)."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1).prod(1).sqrt()
        level = torch.floor(torch.log2(side / (CANONICAL * self.strides[0]))) + 1
        return level.clamp(0, self.config.roi_levels - 1).long()


class Fusion(nn.Module):
    """Features, depth and a map of 2D coordinates, each through two convolutions with group norm, joined (section 3.1).

    coordinates: pixels from the middle of the image, in hundreds. Not shares of its size: a region's size in pixels, which
    RoIAlign takes away, can be read off them, and with it how far things are.
    """

    def __init__(self, channels: int, fused: int, depth: bool) -> None:
        super().__init__()
        half = fused // 2
        self.features = _two(channels, fused)
        self.depth = _two(1, half) if depth else None
        self.coordinates = _two(2, half)
        self.out_channels = fused + half + (half if depth else 0)
        init_convolutions(self)

    def forward(
        self, features: Float[Tensor, "b c h w"], depth: Float[Tensor, "b 1 H W"] | None, stride: int
    ) -> Float[Tensor, "b o h w"]:
        b, _, h, w = features.shape
        parts = [self.features(features)]
        if self.depth is not None:
            if depth is None:  # nobody gave one: all hole
                depth = features.new_zeros(b, 1, h * stride, w * stride)
            parts.append(self.depth(pooled_log_depth(depth, stride)[..., :h, :w]))
        unit = COORDINATE_UNIT / stride
        x = (torch.arange(w, device=features.device, dtype=features.dtype) - (w - 1) / 2) / unit
        y = (torch.arange(h, device=features.device, dtype=features.dtype) - (h - 1) / 2) / unit
        plane = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])
        parts.append(self.coordinates(plane.expand(b, 2, h, w)))
        return torch.cat(parts, 1)


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm_relu(inputs, outputs, 3, "group"), conv_norm_relu(outputs, outputs, 3, "group")
    )


def _branch(inputs: int, width: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(width, outputs)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.ReLU(inplace=True), last
    )
