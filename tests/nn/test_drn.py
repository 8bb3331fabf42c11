"""DRN-C-26 against its published wiring, names and size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from monolift.errors import InputError
from monolift.nn.backbones import build_backbone
from monolift.nn.drn import DRNC26
from monolift.nn.pretrained import load_pretrained

State = dict[str, Tensor]
CLASSIFIER = 512 * 1000 + 1000
PUBLISHED_PARAMETERS = 21_126_584  # of the released drn_c_26, its classifier included
# level: channels, blocks, stride, dilation (Yu et al., figure 5)
LEVELS = {
    1: (16, 1, 1, 1), 2: (32, 1, 2, 1), 3: (64, 2, 2, 1), 4: (128, 2, 2, 1), 5: (256, 2, 1, 2), 6: (512, 2, 1, 4),
    7: (512, 1, 1, 2), 8: (512, 1, 1, 1),
}  # fmt: skip


def released_state() -> State:
    """Random weights under the released names."""
    state: State = {}
    generator = torch.Generator().manual_seed(26)

    def conv_bn(conv: str, bn: str, inputs: int, outputs: int, kernel: int) -> None:
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{conv}.weight"] = weight / (inputs * kernel**2) ** 0.5
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{bn}.{entry}"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{bn}.num_batches_tracked"] = torch.tensor(1)

    conv_bn("conv1", "bn1", 3, 16, 7)
    inputs = 16
    for level, (outputs, blocks, _, _) in LEVELS.items():
        for i in range(blocks):
            name = f"layer{level}.{i}"
            conv_bn(f"{name}.conv1", f"{name}.bn1", inputs, outputs, 3)
            conv_bn(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 512, 1, 1), torch.zeros(1000)
    return state


def released_forward(s: State, image: Tensor) -> Tensor:
    """The network as its paper and code have it, level by level."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = s[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
        mean, var = s[f"{bn}.running_mean"], s[f"{bn}.running_var"]
        return F.batch_norm(x, mean, var, s[f"{bn}.weight"], s[f"{bn}.bias"])

    x = conv_bn(image, "conv1", "bn1").relu()
    for level, (_, blocks, level_stride, dilation) in LEVELS.items():
        for i in range(blocks):
            name, stride = f"layer{level}.{i}", level_stride if i == 0 else 1
            y = conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride, dilation).relu()
            y = conv_bn(y, f"{name}.conv2", f"{name}.bn2", 1, dilation)
            if level < 7:  # the last two levels have no shortcuts
                shortcut = x
                if f"{name}.downsample.0.weight" in s:
                    shortcut = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
                y = y + shortcut
            x = y.relu()
    return x


def test_released_weights_give_the_released_map(tmp_path: Path) -> None:
    """In float64 to a billionth, at an image side that no stride divides."""
    state, path = released_state(), tmp_path / "drn_c_26.pth"
    torch.save(state, path)
    network = DRNC26().eval()
    report = load_pretrained(network, path)
    assert report.naming == "released" and report.ignored == ("fc.bias", "fc.weight")
    assert set(report.loaded) == set(network.state_dict())
    image = torch.randn(1, 3, 43, 70, dtype=torch.float64)
    with torch.no_grad():
        found = network.double()(image)
        wanted = released_forward({k: v.double() for k, v in state.items()}, image)
    assert found.shape == (1, 512, 6, 9)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_it_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = DRNC26()
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_PARAMETERS - CLASSIFIER


def test_a_cell_of_its_map_sees_its_own_pixels() -> None:
    """The slope of one cell in the image is centred on the cell's 8 x 8 pixels."""
    network = DRNC26("group").eval()
    image = torch.randn(1, 3, 96, 96, requires_grad=True)
    (slope,) = torch.autograd.grad(network(image)[0, :, 5, 6].square().sum(), image)
    mass = slope[0].square().sum(0)
    near = mass / mass.sum()
    place = torch.arange(96.0)
    assert float((near.sum(1) * place).sum()) == pytest.approx(8 * 5 + 3.5, abs=8)
    assert float((near.sum(0) * place).sum()) == pytest.approx(8 * 6 + 3.5, abs=8)


def test_another_networks_file_is_refused_by_name(tmp_path: Path) -> None:
    state = released_state()
    del state["layer8.0.conv2.weight"]
    save_file(state, tmp_path / "short.safetensors")
    backbone = build_backbone("drn_c_26", "batch", kind="dilated")
    with pytest.raises(InputError, match=r"short\.safetensors: .*1 of \d+ entries are missing.*drn_c_26"):
        backbone.load_pretrained(tmp_path / "short.safetensors", lambda: torch.zeros(0))
