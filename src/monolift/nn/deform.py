"""Modulated deformable convolution without compiled code.

Zhu, Hu, Lin, Dai, "Deformable ConvNets v2", CVPR 2019, equation 1: each tap k of the
kernel reads the input at p + p_k + offset_k instead of p + p_k, bilinearly, times a mask value.

    out(p) = bias + sum_k  weight_k @ (mask_k(p) * x(p + p_k + offset_k(p)))

The channel order and the border rule are those of DCNv2, torchvision and ONNX's DeformConv, so their weights
fit. ``deform_conv2d`` is the fast definition, ``deform_conv2d_reference`` the short one that explains it and
runs everywhere.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from monolift.nn.gather import gather_with_weight_gradient, scatter_rows
from monolift.typing import Float, Tensor

_GATHER_DEVICES = ("cpu", "cuda")  # where embedding_bag with weights is known to work
_DEFORM_CONV_OPSET = 19  # the first ONNX opset with DeformConv

Pair = int | tuple[int, int]


def deform_conv2d(
    x: Float[Tensor, "b c h w"],
    offset: Float[Tensor, "b two_g_k oh ow"],
    weight: Float[Tensor, "o c kh kw"],
    bias: Float[Tensor, " o"] | None = None,
    mask: Float[Tensor, "b g_k oh ow"] | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Float[Tensor, "b o oh ow"]:
    """Deformable convolution, differentiable once in all five tensors, on CPU and CUDA.

    Pixels outside the image are zero; a sample one pixel or more outside has no value and no gradient. A NaN
    offset gives a NaN. Any memory format is taken; the output is channels_last. Sixteen-bit inputs are computed
    in float32 (a position on a 320-pixel row has no room in bfloat16) and rounded back to ``x.dtype``.

    While torch.onnx exports, one standard DeformConv node is emitted; other tracing, and devices other than CPU
    and CUDA, get ``deform_conv2d_reference``. Raises ValueError when shapes disagree.

    Args:
        offset: pixels of ``x``, channels ``[group][tap][dy, dx]``, taps row by row. The number G of deformable groups (each
            moves C / G input channels) follows from the channel count 2 * G * kh * kw.
        mask: the tap's factor, channels ``[group][tap]``; None means 1 everywhere.
    """
    g = _geometry(x, offset, weight, mask, stride, padding, dilation)
    if torch.onnx.is_in_onnx_export() and hasattr(torch.onnx, "ops"):  # from PyTorch 2.8
        return _onnx_deform_conv(x, offset, weight, bias, mask, g)
    if torch.compiler.is_compiling() or x.device.type not in _GATHER_DEVICES:
        return deform_conv2d_reference(
            x, offset, weight, bias, mask, stride=stride, padding=padding, dilation=dilation
        )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    table = _pixel_table(x.to(dtype), g.groups)
    index, corner = _corners(offset.to(dtype), None if mask is None else mask.to(dtype), g)
    taps = weight.to(dtype).permute(2, 3, 1, 0).reshape(g.taps, weight.shape[1], weight.shape[0])
    rows = _TapSum.apply(table, index, corner, taps, None if bias is None else bias.to(dtype))
    out_h, out_w = offset.shape[-2:]
    return rows.view(x.shape[0], out_h, out_w, weight.shape[0]).permute(0, 3, 1, 2).to(x.dtype)


def deform_conv2d_reference(
    x: Float[Tensor, "b c h w"],
    offset: Float[Tensor, "b two_g_k oh ow"],
    weight: Float[Tensor, "o c kh kw"],
    bias: Float[Tensor, " o"] | None = None,
    mask: Float[Tensor, "b g_k oh ow"] | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Float[Tensor, "b o oh ow"]:
    """``deform_conv2d`` as one ``grid_sample`` and one 1 x 1 convolution per tap: slower, but traceable anywhere."""
    g = _geometry(x, offset, weight, mask, stride, padding, dilation)
    batch, channels, height, width = x.shape
    out_h, out_w = offset.shape[-2:]
    base_y, base_x = _tap_positions(g, offset)
    dy, dx = offset.reshape(batch * g.groups, g.taps, 2, out_h, out_w).unbind(2)
    # Beyond one pixel outside everything is zero: clamping there changes nothing and keeps grid_sample's
    # integers in range.
    y = (dy + base_y).clamp(-1, height)
    x_pos = (dx + base_x).clamp(-1, width)
    grid = torch.stack(((2 * x_pos + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    grouped = x.reshape(batch * g.groups, channels // g.groups, height, width)
    out = None
    for k in range(g.taps):
        sample = F.grid_sample(grouped, grid[:, k].to(x.dtype), padding_mode="zeros", align_corners=False)
        if mask is not None:
            sample = sample * mask.reshape(batch * g.groups, g.taps, out_h, out_w)[:, k, None]
        tap = weight[:, :, k // g.kernel[1], k % g.kernel[1], None, None]
        term = F.conv2d(sample.reshape(batch, channels, out_h, out_w), tap)
        out = term if out is None else out + term
    assert out is not None
    return out if bias is None else out + bias.view(1, -1, 1, 1)


class DeformConv2d(nn.Module):
    """A deformable convolution that predicts its own offsets and masks from its input.

    ``conv_offset_mask`` starts at zero, so the layer starts as a plain convolution times 0.5 (the mask's
    sigmoid). Its channels are G * K * 2 offsets, then G * K masks. Weights start uniform in +-1/sqrt(fan_in),
    biases at zero. The parameter names and shapes are DCNv2's, so that released weights load by name.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair = 3,
        *,
        stride: Pair = 1,
        padding: Pair = 1,
        dilation: Pair = 1,
        offset_groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % offset_groups:
            raise ValueError(f"in_channels {in_channels} is not a multiple of offset_groups {offset_groups}")
        kernel = _pair(kernel_size)
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.offset_channels = 2 * offset_groups * kernel[0] * kernel[1]
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.conv_offset_mask = nn.Conv2d(
            in_channels, self.offset_channels * 3 // 2, kernel, self.stride, self.padding, self.dilation
        )
        bound = 1 / math.sqrt(in_channels * kernel[0] * kernel[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o oh ow"]:
        offset_mask = self.conv_offset_mask(x)
        offset, mask = (
            offset_mask[:, : self.offset_channels],
            offset_mask[:, self.offset_channels :].sigmoid(),
        )
        return deform_conv2d(
            x, offset, self.weight, self.bias, mask,
            stride=self.stride, padding=self.padding, dilation=self.dilation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        out_channels, in_channels, *kernel = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={tuple(kernel)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}"
        )


class _Geometry(NamedTuple):
    """The integers of one call."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    taps: int  # K = kernel height * kernel width
    groups: int  # G, deformable groups


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _geometry(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> _Geometry:
    """Derive the geometry and check that the tensors agree with it."""
    batch, channels, height, width = x.shape
    kernel = (weight.shape[2], weight.shape[3])
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    taps = kernel[0] * kernel[1]
    groups = max(1, offset.shape[1] // (2 * taps))
    out_h, out_w = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    if weight.shape[1] != channels or channels % groups:
        raise ValueError(
            f"deform_conv2d: x has {channels} channels, but weight expects {weight.shape[1]} "
            f"and offset divides them into {groups} groups"
        )
    for name, tensor, count in (("offset", offset, 2 * groups * taps), ("mask", mask, groups * taps)):
        if tensor is not None and tensor.shape != (batch, count, out_h, out_w):
            raise ValueError(
                f"deform_conv2d: {name} should be {(batch, count, out_h, out_w)} for x {tuple(x.shape)} and "
                f"weight {tuple(weight.shape)}, got {tuple(tensor.shape)}"
            )
    return _Geometry(height, width, kernel, stride, padding, dilation, taps, groups)


def _tap_positions(g: _Geometry, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Where the taps of a rigid kernel lie: rows (K, oh, 1) and columns (K, 1, ow), pixels of ``x``."""
    out_h, out_w = offset.shape[-2:]

    def positions(out: int, axis: int) -> Tensor:
        cells = torch.arange(out, device=offset.device, dtype=offset.dtype)
        taps = torch.arange(g.kernel[axis], device=offset.device, dtype=offset.dtype)
        return taps[:, None] * g.dilation[axis] + (cells * g.stride[axis] - g.padding[axis])

    rows = positions(out_h, 0).repeat_interleave(g.kernel[1], dim=0)
    columns = positions(out_w, 1).repeat(g.kernel[0], 1)
    return rows[:, :, None], columns[:, None, :]


def _pixel_table(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) -> one row per (image, padded pixel, group), C / G columns.

    One row and column of zeros before and two after: a position clamped to [-1, size] then always has its
    four neighbours, and outside they are zeros. No validity masks are needed and the gradients come out
    right.
    """
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2))
    return padded.reshape(-1, x.shape[1] // groups)


def _corners(offset: Tensor, mask: Tensor | None, g: _Geometry) -> tuple[Tensor, Tensor]:
    """Table rows and weights of the four pixels round each sample: both (K, B * oh * ow * G, 4).

    The weights carry the mask, and the graph from offset and mask; the rows are integers.
    """
    batch, _, out_h, out_w = offset.shape
    base_y, base_x = _tap_positions(g, offset)
    # [K, B, oh, ow, G]: groups last, as in the table, so that a tap's samples are the rows of one matrix
    # product
    dy, dx = offset.reshape(batch, g.groups, g.taps, 2, out_h, out_w).permute(3, 2, 0, 4, 5, 1).unbind(0)
    y = (dy + (base_y[:, None, :, :, None] + 1)).clamp(0, g.height + 1)  # + 1: pixels of the padded image
    x = (dx + (base_x[:, None, :, :, None] + 1)).clamp(0, g.width + 1)
    # A NaN has no integer: it reads some valid row, and its weight is NaN.
    y0, x0 = (position.detach().nan_to_num(0.0).floor() for position in (y, x))

    row = g.width + 3
    rows_total = batch * (g.height + 3) * row * g.groups
    integer = torch.int32 if rows_total < 2**31 else torch.int64
    first = (y0.to(integer) * row + x0.to(integer)) * g.groups
    image_start = torch.arange(batch, device=offset.device, dtype=integer) * ((g.height + 3) * row * g.groups)
    first = first + image_start.view(1, -1, 1, 1, 1)
    first = first + torch.arange(g.groups, device=offset.device, dtype=integer)
    steps = (0, g.groups, row * g.groups, (row + 1) * g.groups)
    index = torch.stack([first + step for step in steps], dim=-1)

    fy, fx = y - y0, x - x0
    if mask is None:
        lower, upper = fy, 1 - fy
    else:
        factor = mask.reshape(batch, g.groups, g.taps, out_h, out_w).permute(2, 0, 3, 4, 1)
        lower = fy * factor
        upper = factor - lower
    lower_right, upper_right = lower * fx, upper * fx
    corner = torch.stack([upper - upper_right, upper_right, lower - lower_right, lower_right], dim=-1)
    samples = batch * out_h * out_w * g.groups
    return index.reshape(g.taps, samples, 4), corner.reshape(g.taps, samples, 4)


class _TapSum(torch.autograd.Function):
    """``out = bias + sum_k gather_rows(table, index[k], corner[k]) @ taps[k]``.

    One function for all taps, because the sampled columns (K times the input) are the memory of a deformable
    convolution: here one tap's columns live at a time, and the backward pass samples them again.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, index: Tensor, corner: Tensor, taps: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(table, index, corner, taps)
        channels, out_channels = taps.shape[1:]
        pixels = index.shape[1] * table.shape[1] // channels
        out = table.new_zeros(pixels, out_channels)
        if bias is not None:
            out += bias
        if pixels == 0:
            return out
        for k in range(taps.shape[0]):
            columns = F.embedding_bag(index[k], table, per_sample_weights=corner[k], mode="sum")
            out.addmm_(columns.view(pixels, channels), taps[k])
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, Tensor | None]:
        with torch.autocast(grad.device.type, enabled=False):  # its matmul would return sixteen bits
            return _tap_sum_backward(ctx.needs_input_grad, grad.contiguous(), *ctx.saved_tensors)


def _tap_sum_backward(
    needs: tuple[bool, ...], grad: Tensor, table: Tensor, index: Tensor, corner: Tensor, taps: Tensor
) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, Tensor | None]:
    need_table, _, need_corner, need_taps, need_bias = needs
    grad_table = torch.zeros_like(table) if need_table else None
    grad_corner = torch.zeros_like(corner) if need_corner else None
    grad_taps = torch.zeros_like(taps) if need_taps else None
    grad_bias = grad.sum(0) if need_bias else None
    for k in range(taps.shape[0] if len(grad) else 0):
        columns, columns_graph, leaf = gather_with_weight_gradient(table, index[k], corner[k])
        grad_columns = (grad @ taps[k].T).view(columns.shape)
        if grad_taps is not None:
            torch.mm(columns.view(len(grad), -1).T, grad, out=grad_taps[k])
        if grad_corner is not None:
            (grad_corner[k],) = torch.autograd.grad(columns_graph, leaf, grad_columns)
        if grad_table is not None:
            grad_table += scatter_rows(grad_columns, index[k], corner[k], table.shape[0])
    return grad_table, None, grad_corner, grad_taps, grad_bias


def _onnx_deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, g: _Geometry
) -> Tensor:
    """The same convolution as one standard node. Exported, the gather would become a loop that no runtime likes."""
    pad_y, pad_x = g.padding
    return torch.onnx.ops.symbolic(
        "DeformConv",
        (x, weight, offset, bias, mask),
        attrs={
            "kernel_shape": list(g.kernel),
            "pads": [pad_y, pad_x, pad_y, pad_x],
            "strides": list(g.stride),
            "dilations": list(g.dilation),
            "group": 1,
            "offset_group": g.groups,
        },
        dtype=x.dtype,
        shape=(x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3]),
        version=_DEFORM_CONV_OPSET,
    )
