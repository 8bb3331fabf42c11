"""EfficientNet-Lite2: the published table as plain arithmetic, its padding, and the maps that come out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from monolift.nn.backbones import build_backbone
from monolift.nn.efficientnet import STRIDES, EfficientNetLite2
from monolift.nn.pretrained import load_pretrained
from monolift.typing import Tensor

# kernel, stride, expansion, channels and blocks: table 1 of the paper scaled by 1.1 and 1.2
TABLE = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 3), (5, 2, 6, 48, 3), (3, 2, 6, 88, 4), (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5), (3, 1, 6, 352, 1),
)  # fmt: skip


def written_anew(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The network as plain arithmetic on its weights; strided convolutions are padded as TensorFlow pads even sides."""

    def step(x: Tensor, name: str, stride: int, act: bool) -> Tensor:
        at = 1 if stride > 1 else 0  # a strided convolution comes after its padding
        weight = state[f"{name}.{at}.weight"].float()
        total = max(weight.shape[2] - stride, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, variance, scale, shift = (
            state[f"{name}.{at + 1}.{k}"].view(1, -1, 1, 1)
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / torch.sqrt(variance + 1e-3) * scale + shift
        return x.clamp(0, 6) if act else x

    x, maps = step(image, "stem", 2, True), []
    for stage, (_, stride, expansion, _, blocks) in enumerate(TABLE):
        for block in range(blocks):
            body, y, first = f"stages.{stage}.{block}.body", x, stride if block == 0 else 1
            depthwise = 0
            if expansion > 1:
                y, depthwise = step(y, f"{body}.0", 1, True), 1
            y = step(y, f"{body}.{depthwise}", first, True)
            y = step(y, f"{body}.{depthwise + 1}", 1, False)
            x = x + y if x.shape == y.shape else y
        if stage in (1, 2, 4, 6):
            maps.append(x)
    return maps


def random_weights(network: EfficientNetLite2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for value in state.values():
        if value.ndim == 4:
            value.normal_(std=(value.shape[1] * value.shape[2] ** 2) ** -0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
    return state


def test_maps_are_those_of_the_published_arithmetic(tmp_path: Path) -> None:
    state, path = random_weights(EfficientNetLite2()), tmp_path / "lite2.safetensors"
    save_file(state, path)
    network = EfficientNetLite2().eval()
    assert set(load_pretrained(network, path).loaded) == set(state)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = network(image)
    assert [m.shape[1] for m in maps] == [24, 48, 120, 352] == list(network.channels)
    for own, other, stride in zip(maps, written_anew(state, image), STRIDES, strict=True):
        assert own.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_the_imagenet_weights_fit(shared: Path) -> None:
    path = shared / "weights/efficientnet_lite2_imagenet.safetensors"
    if not path.exists():
        pytest.skip("needs the ImageNet weights of EfficientNet-Lite2")
    network = EfficientNetLite2().eval()
    load_pretrained(network, path)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = network(image)
    for own, other in zip(maps, written_anew(load_file(path), image), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)


def test_a_pyramid_has_the_finest_level_and_coarser_ones_that_it_is_made_of() -> None:
    torch.manual_seed(0)
    network = build_backbone("efficientnet-lite2", kind="pyramid", out_channels=48).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        levels = network.pyramid(image)
        network.mix[1][0].weight.zero_()  # type: ignore[index, union-attr, operator]
        changed = network.pyramid(image)
    assert torch.equal(levels[2], changed[2]) and torch.equal(levels[3], changed[3])
    assert not torch.equal(levels[0], changed[0])
