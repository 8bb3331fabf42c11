"""SMOKE's network: shapes, size, and that every weight is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from monolift.methods.smoke import Smoke, SmokeConfig, paper
from smoke_scenes import (
    CARS,
    KITTI,
    make_sample,
    network_samples,
)


def test_an_untrained_network_is_quiet_and_its_maps_have_stride_four() -> None:
    model = Smoke(SmokeConfig(head_channels=32)).eval()
    raw = model(torch.randn(2, 3, 64, 96))
    assert raw["heatmap"].shape == (2, 3, 16, 24)
    assert raw["regression"].shape == (2, model.codec.channels, 16, 24)
    assert model.network.heatmap[-1].bias.tolist() == pytest.approx([-2.19] * 3)
    assert torch.sigmoid(torch.tensor(-2.19)).item() == pytest.approx(0.10, abs=0.002)
    for head in model.network.regression:
        assert head[0].bias.abs().max() == head[-1].bias.abs().max() == 0


def test_the_published_network_has_its_published_size() -> None:
    model = Smoke(paper())
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(19.51, abs=0.06)
    heads = sum(p.numel() for m in (model.network.heatmap, model.network.regression) for p in m.parameters())
    assert heads == 2 * (64 * 256 * 9 + 256 + 2 * 256) + (256 * 3 + 3) + (256 * 8 + 8)


def test_every_weight_of_the_network_is_trained() -> None:
    """A weight without a gradient is one that distributed training would wait for."""
    for config in (SmokeConfig(head_channels=32), paper(head_channels=32)):
        model = Smoke(config)
        samples = network_samples(
            replace(config, input_width=128, input_height=64), [make_sample(KITTI, CARS)]
        )
        losses = model.loss(model(torch.randn(1, 3, 64, 128)), model.encode(samples))
        losses["total"].backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
