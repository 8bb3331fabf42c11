from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from monolift.errors import InputError
from monolift.methods.monodr.lpips import LpipsMetric, load_lpips
from monolift.typing import Tensor

CONVOLUTIONS = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))


def random_weights() -> dict[str, Tensor]:
    """In the names and shapes of the published files."""
    entries = {}
    for level, (k, inputs, outputs, size) in enumerate(CONVOLUTIONS):
        entries[f"features.{k}.weight"] = (
            torch.randn(outputs, inputs, size, size) / (inputs * size * size) ** 0.5
        )
        entries[f"features.{k}.bias"] = 0.1 * torch.randn(outputs)
        entries[f"lin{level}.model.1.weight"] = torch.rand(1, outputs, 1, 1)
    return entries


def plain_lpips(w: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """The published program, step by step."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((2 * v - 1) - shift[:, None, None]) / scale[:, None, None] for v in (a, b))
    result = torch.zeros(len(a))
    for level, (k, *_) in enumerate(CONVOLUTIONS):
        stride, padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))[level]
        if level in (1, 2):
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        x, y = (
            F.relu(F.conv2d(v, w[f"features.{k}.weight"], w[f"features.{k}.bias"], stride, padding))
            for v in (x, y)
        )
        unit = [v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y)]
        off = (unit[0] - unit[1]).square()
        result += F.conv2d(off, w[f"lin{level}.model.1.weight"]).mean((1, 2, 3))
    return result


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_published_distance(tmp_path: Path, suffix: str) -> None:
    entries = random_weights()
    path = tmp_path / f"lpips{suffix}"
    save_file(entries, path) if suffix == ".safetensors" else torch.save(entries, path)
    a, b, everywhere = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64)
    metric = LpipsMetric(load_lpips(str(path)), b, everywhere)
    torch.testing.assert_close(metric(a, everywhere), plain_lpips(entries, a, b), rtol=1e-3, atol=1e-5)
    assert metric(b, everywhere).abs().max() < 1e-6


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth"):
        load_lpips(str(tmp_path / "nowhere.pth"))
    entries = random_weights()
    del entries["lin2.model.1.weight"]
    path = tmp_path / "partial.safetensors"
    save_file(entries, path)
    with pytest.raises(InputError, match=r"lin2\.model\.1\.weight"):
        load_lpips(str(path))
