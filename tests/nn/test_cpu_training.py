"""The faster gradients are PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from monolift.nn import cpu_training
from monolift.nn.cpu_training import train_faster

needs_numba = pytest.mark.skipif(not cpu_training.HAS_NUMBA, reason="needs the extra fast")
LAYERS: list[Callable[[], nn.Conv2d]] = [
    lambda: nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False),
    lambda: nn.Conv2d(6, 6, 5, 2, 2, groups=6),
    lambda: nn.Conv2d(6, 6, (3, 5), (2, 1), (1, 0), groups=6),
    lambda: nn.Conv2d(6, 12, 3, 1, 1, groups=6),
    lambda: nn.Conv2d(6, 4, 3, 2, 1),
    lambda: nn.Conv2d(6, 4, 1),
]


@needs_numba
@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_plain_pytorch(make: Callable[[], nn.Conv2d], channels_last: bool) -> None:
    plain = make()
    fast = train_faster(copy.deepcopy(plain))
    assert "forward" in vars(fast)
    results = []
    for layer in (plain, fast):
        x = torch.linspace(-1, 1, 3 * 6 * 9 * 13).view(3, 6, 9, 13).sin_()
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        x.requires_grad_()
        y = layer(x)
        (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum().backward()
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@needs_numba
def test_the_number_of_threads_changes_nothing() -> None:
    x, gradient = (torch.randn(4, 8, 9, 9).to(memory_format=torch.channels_last) for _ in range(2))
    weight, before = torch.zeros(8, 1, 3, 3), torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(cpu_training.depthwise_weight_gradient(x, weight, gradient, (1, 1), (1, 1)))
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_the_first_layer_needs_no_gradient_of_the_image_and_evaluation_is_untouched() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3))
    plain = copy.deepcopy(layer)
    train_faster(layer)(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert layer[0].weight.grad is not None
    assert list(layer.state_dict()) == list(plain.state_dict())
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(layer[0].eval()(image), plain[0].eval()(image))
