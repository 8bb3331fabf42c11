"""Convolutions whose gradients are faster on a CPU: the same sums by other routes, where PyTorch's own are slow.

Measured on one core of a Zen 3 with torch 2.13: the gradient of a depthwise convolution's weights takes ten times as long as
the forward pass (288 channels, 5x5, stride 8: 49 ms; here 7), and that of a dense 3x3 convolution's weights four times as long
on channels-last maps as on contiguous ones. Channels-last is the order in which everything else is fastest. Here a small numba
kernel computes the former, and the latter copies its maps to the order that is fast for it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import MethodType
from typing import Any, no_type_check

import numpy as np
import torch
from torch import nn

from monolift.typing import Float, Tensor

try:
    from numba import njit
except ImportError:  # the extra "fast"
    HAS_NUMBA = False
else:
    HAS_NUMBA = True


def train_faster(module: nn.Module) -> nn.Module:
    """Gives every convolution of ``module`` the faster gradients, in place, and returns it.

    Only training in float32 on a CPU changes, and only by rounding; weights and their names stay. Maps become channels-last.
    Without numba (extra ``monolift[fast]``) nothing changes.
    """
    if not HAS_NUMBA:
        return module
    for part in module.modules():
        plain = type(part) is nn.Conv2d and part.padding_mode == "zeros" and set(part.dilation) == {1}
        if plain and isinstance(part.padding, tuple):
            part.forward = MethodType(_forward, part)
    return module


def _forward(self: nn.Conv2d, x: Tensor) -> Tensor:
    trains = self.training and torch.is_grad_enabled()
    if not (trains and x.dtype == torch.float32 and x.device.type == "cpu"):
        return nn.Conv2d.forward(self, x)
    return _Convolution.apply(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, groups: int
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.groups = stride, padding, groups
        return torch.conv2d(x, weight, bias, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]

        def plain(x: Tensor, gradient: Tensor, which: int) -> Tensor:
            """PyTorch's gradient of the image (0) or of the weights (1)."""
            wanted = [which == 0, which == 1, False]
            return torch.ops.aten.convolution_backward(
                gradient, x, weight, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], ctx.groups, wanted
            )[which]

        of_x = plain(x, gradient, 0) if need_x else None
        of_bias = gradient.sum((0, 2, 3)) if need_bias else None
        of_weight = None
        if need_weight:
            if ctx.groups == x.shape[1] == weight.shape[0]:
                of_weight = depthwise_weight_gradient(x, weight, gradient, ctx.stride, ctx.padding)
            elif weight.shape[2] * weight.shape[3] > 1:
                of_weight = plain(x.contiguous(), gradient.contiguous(), 1)
            else:
                of_weight = plain(x, gradient, 1)
        return of_x, of_weight, of_bias, None, None, None


def depthwise_weight_gradient(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c 1 kh kw"],
    gradient: Float[Tensor, "b c oh ow"],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Float[Tensor, "c 1 kh kw"]:
    """Gradient of a depthwise convolution's weights from that of its output; maps are channels-last.

    One thread an image, as many as torch may use; images are summed in order, so the number of threads changes nothing.
    """
    c, _, kh, kw = weight.shape
    images, gradients = (maps.detach().permute(0, 2, 3, 1).numpy() for maps in (x, gradient))
    sums = np.zeros((len(images), kh * kw, c), np.float32)

    def add(k: int) -> None:
        _kernel(images[k], gradients[k], sums[k], kh, kw, *stride, *padding)

    threads = min(len(images), torch.get_num_threads())
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, range(len(images))))
    else:
        for k in range(len(images)):
            add(k)
    return torch.from_numpy(sums.sum(0)).t().reshape(c, 1, kh, kw)


@no_type_check  # or run-time checkers of annotations would wrap what numba has to read
def _loops(image, gradient, out, kh, kw, stride_y, stride_x, pad_y, pad_x):
    """out (kh kw, c) += gradient (oh, ow, c) times what each tap sees of image (h, w, c)."""
    h, w, c = image.shape
    oh, ow, _ = gradient.shape
    for row in range(oh):
        for i in range(kh):
            y = row * stride_y + i - pad_y
            if y < 0 or y >= h:
                continue
            for column in range(ow):
                for j in range(kw):
                    x = column * stride_x + j - pad_x
                    if x < 0 or x >= w:
                        continue
                    for k in range(c):
                        out[i * kw + j, k] += gradient[row, column, k] * image[y, x, k]


if HAS_NUMBA:
    _kernel = njit(nogil=True, fastmath=True, cache=True)(_loops)
