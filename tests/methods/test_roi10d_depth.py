"""ROI-10D's depth stream: sub-pixel decoder, flip layer, holes, and what trains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monolift.errors import InputError
from monolift.methods.roi10d import ROI10D, ROI10DConfig
from monolift.methods.roi10d.depth import (
    FARTHEST,
    NEAREST,
    START,
    StreamConfig,
    SuperDepth,
    depth_loss,
    flip_fused,
    load_stream,
    pooled_log_depth,
    save_stream,
)
from monolift.methods.roi10d.self_supervision import (
    PoseNetwork,
    SideHeads,
    Views,
    lowest_error,
    rotation_from_vector,
    self_supervised_loss,
)
from monolift.training.depth_stream import normalised


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


WIDE, HIGH = 96, 32
LENS = torch.tensor([[80.0, 80.0, 47.5, 15.5]])  # fx, fy, cx, cy


def wall(depth: float, ways: Sequence[tuple[float, float, float]]) -> Views:
    """A textured wall across the view and its images from cameras that stand elsewhere, without rotation, exactly."""
    torch.manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 36), (96, 288), mode="bicubic").clamp(0, 1)

    def seen_from(way: Sequence[float]) -> torch.Tensor:
        """way: where the wall's points lie for this camera, from where they lie for the first."""
        fx, fy, cx, cy = LENS[0].tolist()
        v, u = torch.meshgrid(torch.arange(float(HIGH)), torch.arange(float(WIDE)), indexing="ij")
        z = depth + way[2]
        x, y = (
            (u - cx) / fx * z - way[0],
            (v - cy) / fy * z - way[1],
        )  # on the wall, in the first camera's frame
        grid = torch.stack(
            [2 * (x / depth * fx + cx + 96) / 287 - 1, 2 * (y / depth * fy + cy + 32) / 95 - 1], -1
        )
        return torch.nn.functional.grid_sample(texture, grid[None], align_corners=True)

    translation = torch.tensor([list(ways)])
    return Views(seen_from((0, 0, 0)), tuple(map(seen_from, ways)), LENS, translation)


@pytest.mark.parametrize(
    "ways", [[(-0.5, 0.0, 0.0)], [(0.5, 0.0, 0.0)], [(0.1, 0.05, -0.8), (0.0, -0.1, 0.7)]]
)
def test_photometric_error_is_smallest_at_the_true_depth(ways: list[tuple[float, float, float]]) -> None:
    """To the right and to the left of a stereo pair, and forwards and backwards as of a video."""
    views = wall(10.0, ways)
    assert views.translation is not None
    losses = {}
    for metres in (5.0, 8.0, 10.0, 12.0, 30.0):
        depth = torch.full((1, HIGH, WIDE), metres)
        turns = [torch.eye(3)[None]] * len(ways)
        error, seen = lowest_error(views, depth, turns, list(views.translation.unbind(1)))
        assert float(seen.float().mean()) > 0.5
        losses[metres] = float(error[seen].mean())
    assert min(losses, key=lambda metres: losses[metres]) == 10.0
    assert losses[10.0] < 1.5e-3 < 0.003 < min(losses[8.0], losses[12.0])


def test_rotations_of_vectors_are_those_of_scipy() -> None:
    from scipy.spatial.transform import Rotation

    vectors = 0.7 * torch.randn(5, 3, dtype=torch.float64)
    wanted = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    torch.testing.assert_close(rotation_from_vector(vectors), wanted)


def test_stream_learns_depth_from_a_stereo_pair_alone() -> None:
    """At three scales, whose side heads help and are thrown away."""
    views = wall(20.0, [(-1.0, 0.0, 0.0)])
    torch.manual_seed(0)
    stream = SuperDepth("small", flip=False)
    heads = SideHeads(stream, 3)
    optimizer = torch.optim.Adam([*stream.parameters(), *heads.parameters()], 3e-3)
    losses = []
    for _ in range(60):
        loss = self_supervised_loss(stream, heads, None, views, normalised(views.target), torch.ones(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        depth = stream(normalised(views.target))[0, 0, 4:-4, 12:-4]
    assert losses[-1] < 0.35 * losses[0]
    assert float(depth.median()) == pytest.approx(20.0, rel=0.1)


def test_coarser_scales_and_the_camera_motion_get_gradients() -> None:
    known = wall(10.0, [(0.1, 0.0, -0.8), (0.0, 0.0, 0.7)])
    views = replace(known, translation=None)
    stream, pose = SuperDepth("small", flip=True), PoseNetwork()
    heads = SideHeads(stream, 3)
    loss = self_supervised_loss(stream, heads, pose, views, normalised(views.target), torch.ones(1))
    loss.backward()
    for part in (stream, heads, pose):
        for name, weight in part.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
    assert sum(float(w.grad.abs().sum()) for w in pose.parameters() if w.grad is not None) > 0
    with pytest.raises(ValueError, match="pose network"):
        self_supervised_loss(stream, heads, None, views, normalised(views.target), torch.ones(1))


def test_a_stream_is_read_back_and_begins_a_detectors(tmp_path: Path) -> None:
    stream = SuperDepth("small", flip=False)
    save_stream(tmp_path / "depth.safetensors", stream, StreamConfig(focal=200.0, metric=False))
    again, config = load_stream(tmp_path / "depth.safetensors")
    assert config == StreamConfig(focal=200.0, metric=False)
    images = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(again(images), stream(images))
    detector = ROI10D(
        ROI10DConfig(depth_weights=str(tmp_path / "depth.safetensors"), head_channels=8, roi_size=2)
    )
    (said,) = detector.before_training(depth_maps=False)
    assert "entries of the depth stream taken: from video" in said and detector.network.depth is not None
    torch.testing.assert_close(detector.network.depth(images), stream(images))
    (warning,) = ROI10D(ROI10DConfig(head_channels=8, roi_size=2)).before_training(depth_maps=False)
    assert warning.startswith("warning: nothing trains the depth stream as depth")
    assert not ROI10D(ROI10DConfig(head_channels=8, roi_size=2, depth="none")).before_training(False)
    (tmp_path / "none.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none\.safetensors: not a depth stream"):
        load_stream(tmp_path / "none.safetensors")
