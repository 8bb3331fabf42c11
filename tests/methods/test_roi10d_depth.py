"""ROI-10D's depth stream: sub-pixel decoder, flip layer, holes, and what trains it."""

from __future__ import annotations

import pytest
import torch

from monolift.methods.roi10d.depth import (
    FARTHEST,
    NEAREST,
    START,
    SuperDepth,
    depth_loss,
    flip_fused,
    pooled_log_depth,
    stereo_loss,
    train_stereo,
)


@pytest.mark.parametrize("encoder", ["small", "resnet18"])
def test_untrained_stream_says_the_start_within_its_range(encoder: str) -> None:
    depth = SuperDepth(encoder, flip=False).eval()(torch.randn(1, 3, 64, 96))
    assert depth.shape == (1, 1, 64, 96)
    assert NEAREST <= float(depth.min()) <= float(depth.max()) <= FARTHEST
    assert float(depth.median()) == pytest.approx(START, rel=0.5)


def test_flip_layer_commutes_with_mirroring() -> None:
    """Whatever the network, the layer's answer for the mirror image is the mirror image of its answer."""
    images = torch.randn(2, 3, 64, 96)
    stream = SuperDepth("small", flip=True).eval()
    torch.testing.assert_close(stream(images.flip(-1)), stream(images).flip(-1))
    plain = SuperDepth("small", flip=False).eval()
    plain.load_state_dict(stream.state_dict())
    assert not torch.allclose(plain(images.flip(-1)), plain(images).flip(-1), rtol=1e-4)


def test_flip_layer_takes_one_side_at_the_edges_and_the_mean_between() -> None:
    images = torch.zeros(1, 3, 4, 101)

    def predict(x: torch.Tensor) -> torch.Tensor:  # 1 for the plain image, 3 for its mirror image
        predict.calls += 1
        return torch.full((1, 1, 4, 101), float(2 * predict.calls - 1))

    predict.calls = 0
    fused = flip_fused(predict, images)[0, 0, 0]
    assert fused[:6].tolist() == pytest.approx([3.0] * 6)
    assert fused[95:].tolist() == pytest.approx([1.0] * 6)
    assert fused[10:91].tolist() == pytest.approx([2.0] * 81)
    assert float(fused[7]) > float(fused[8]) > 2.0


def test_holes_count_nothing() -> None:
    depth = torch.full((1, 1, 8, 8), 50.0)
    depth[0, 0, 0, :4] = torch.tensor([0.0, -1.0, float("nan"), float("inf")])
    depth[0, 0, 4:, 4:] = 0.0
    pooled = pooled_log_depth(depth, 4)[0, 0]
    expected = torch.log(torch.tensor(50.0 / START))
    torch.testing.assert_close(pooled, torch.tensor([[1.0, 1.0], [1.0, 0.0]]) * expected)


def test_sides_that_are_no_multiple_are_padded_with_holes() -> None:
    pooled = pooled_log_depth(torch.full((1, 1, 6, 10), START * 2), 4)
    torch.testing.assert_close(pooled, torch.full((1, 1, 2, 3), 2.0).log())


def test_holes_give_no_gradient_and_no_nan() -> None:
    depth = torch.tensor([[[[10.0, 0.0], [float("nan"), 30.0]]]], requires_grad=True)
    pooled_log_depth(depth, 2).sum().backward()
    assert depth.grad is not None
    torch.testing.assert_close(depth.grad[0, 0], torch.tensor([[0.05, 0.0], [0.0, 0.5 / 30]]))


def test_depth_loss_is_the_mean_log_ratio_where_truth_is_known() -> None:
    depth = torch.full((2, 1, 2, 2), 20.0)
    truth = torch.tensor([[[40.0, 0.0], [float("nan"), 10.0]], [[200.0, 0.0], [0.0, 20.0]]])
    expected = (2 * torch.log(torch.tensor(2.0)) + 0.0) / 3
    torch.testing.assert_close(depth_loss(depth, truth), expected)


def test_depth_loss_without_any_truth_is_zero_with_a_gradient() -> None:
    depth = torch.full((1, 1, 2, 2), 20.0, requires_grad=True)
    loss = depth_loss(depth, torch.zeros(1, 2, 2))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert depth.grad is not None
    assert torch.equal(depth.grad, torch.zeros_like(depth))


def stereo_pair(disparity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured wall: left image, and the right one, in which everything is ``disparity`` pixels further left."""
    coarse = torch.rand(1, 3, 8, 20)
    wall = torch.nn.functional.interpolate(coarse, (32, 80), mode="bicubic").clamp(0, 1)[0]
    return wall[:, :, :64], wall[:, :, disparity : 64 + disparity]


def test_stereo_loss_is_smallest_at_the_true_depth() -> None:
    left, right = stereo_pair(6)
    gauge = torch.tensor([60.0])  # baseline times focal length: 6 pixels are 10 m
    losses = {}
    for metres in (5.0, 8.0, 10.0, 12.0, 30.0):
        inverse = torch.full((1, 1, 32, 64), 1 / metres)
        losses[metres] = float(stereo_loss(inverse, left[None], right[None], gauge))
    assert min(losses, key=lambda metres: losses[metres]) == 10.0
    assert losses[10.0] < 1e-3 < 0.01 < losses[12.0]


def test_stream_learns_depth_from_a_stereo_pair_alone() -> None:
    left, right = stereo_pair(4)
    stream = SuperDepth("small", flip=False)
    losses = train_stereo(stream, [(left, right, 80.0)], steps=60, lr=3e-3)
    with torch.no_grad():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        depth = stream(((left - mean) / std)[None])[0, 0, 4:-4, 12:-4]
    assert losses[-1] < 0.35 * losses[0]
    assert float(depth.median()) == pytest.approx(20.0, rel=0.1)
