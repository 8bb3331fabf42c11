"""ResNet against its published wiring; dilation against the strided network; the top-down path against its sum."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from monolift.errors import InputError
from monolift.nn.pretrained import load_pretrained
from monolift.nn.resnet import FPNUp, ResNet, ResNetFPN

State = dict[str, Tensor]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
PUBLISHED_PARAMETERS = {18: 11_689_512, 34: 21_797_672}  # torchvision's model pages, classifier included
CLASSIFIER = 512 * 1000 + 1000


def released_state(depth: int) -> State:
    """Random weights under the names that torchvision and timm share."""
    state: State = {}
    generator = torch.Generator().manual_seed(depth)

    def conv_bn(conv: str, bn: str, inputs: int, outputs: int, kernel: int) -> None:
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{conv}.weight"] = weight / (inputs * kernel**2) ** 0.5
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{bn}.{entry}"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{bn}.num_batches_tracked"] = torch.tensor(1)

    conv_bn("conv1", "bn1", 3, 64, 7)
    inputs = 64
    for layer, count in enumerate(BLOCKS[depth], start=1):
        outputs = 32 * 2**layer
        for i in range(count):
            name = f"layer{layer}.{i}"
            conv_bn(f"{name}.conv1", f"{name}.bn1", inputs, outputs, 3)
            conv_bn(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    return state


def released_forward(s: State, depth: int, image: Tensor) -> list[Tensor]:
    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        weight = s[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = s[f"{bn}.running_mean"], s[f"{bn}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{bn}.weight"], s[f"{bn}.bias"])

    x = F.max_pool2d(conv_bn(image, "conv1", "bn1", 2).relu(), 3, 2, padding=1)
    maps = []
    for layer, count in enumerate(BLOCKS[depth], start=1):
        for i in range(count):
            name, stride = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in s:
                shortcut = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
            x = (conv_bn(y, f"{name}.conv2", f"{name}.bn2") + shortcut).relu()
        maps.append(x)
    return maps


@pytest.mark.parametrize("depth", [18, 34])
def test_published_weights_give_the_published_maps(tmp_path: Path, depth: int) -> None:
    state, path = released_state(depth), tmp_path / "resnet.safetensors"
    save_file(state, path)
    network = ResNet(depth, "batch").eval()
    report = load_pretrained(network, path)
    assert report.ignored == ("fc.bias", "fc.weight") and set(report.loaded) == set(network.state_dict())
    image = torch.randn(1, 3, 75, 110)
    with torch.no_grad():
        maps = network(image)
        for actual, expected in zip(maps, released_forward(state, depth, image), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert tuple(x.shape[1] for x in maps) == network.channels
    size = sum(parameter.numel() for parameter in network.parameters())
    assert size == PUBLISHED_PARAMETERS[depth] - CLASSIFIER


def test_a_deeper_networks_file_is_refused(tmp_path: Path) -> None:
    """Every entry of ResNet-18 is in a ResNet-34 file, in the right shape."""
    path = tmp_path / "resnet34.safetensors"
    save_file(released_state(34), path)
    with pytest.raises(
        InputError, match=r"resnet34\.safetensors.*ResNet.*96 are unknown \(first: layer1\.2\.bn1\.bias"
    ):
        load_pretrained(ResNet(18, "batch"), path)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilation_keeps_what_striding_keeps(output_stride: int) -> None:
    """The dilated network computes the strided one's values and, in between, those that striding throws away."""
    strided = ResNet(18, "batch").eval()
    dilated = ResNet(18, "batch", output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        pairs = zip(dilated(image), strided(image), dilated.strides, strided.strides, strict=True)
        for fine, coarse, fine_stride, coarse_stride in pairs:
            assert fine.shape[-2:] == (64 // fine_stride, 96 // fine_stride)
            step = coarse_stride // fine_stride
            torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=1e-4, atol=1e-5)
    assert dilated.strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))


@pytest.mark.parametrize("sizes", [[(12, 16), (6, 8), (3, 4)], [(5, 7), (3, 4), (3, 4)]])
def test_top_down_path_sums_enlarged_laterals(sizes: list[tuple[int, int]]) -> None:
    channels = (4, 8, 16)
    up = FPNUp(channels, 32, "batch").eval()
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]

    def lateral(i: int) -> Tensor:
        return F.conv2d(maps[i], up.lateral[i].weight, up.lateral[i].bias)

    def enlarged(x: Tensor, i: int) -> Tensor:
        return F.interpolate(x, sizes[i], mode="bilinear", align_corners=False)

    with torch.no_grad():
        summed = lateral(0) + enlarged(lateral(1) + enlarged(lateral(2), 1), 0)
        torch.testing.assert_close(up(maps), up.smooth(summed))


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("output_stride", [32, 8])
def test_one_map_at_stride_four_that_sees_every_stage(norm: str, output_stride: int) -> None:
    network = ResNetFPN(18, norm, out_channels=96, output_stride=output_stride)
    out = network(torch.randn(2, 3, 64, 96))
    assert out.shape == (2, network.out_channels, 64 // network.stride, 96 // network.stride)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for stage in network.base.stages:
        assert stage[-1].conv2.weight.grad.any()


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"depth should be one of \[18, 34\], got 50"):
        ResNet(50)
    with pytest.raises(ValueError, match="output_stride should be 8, 16 or 32, got 4"):
        ResNet(18, output_stride=4)
