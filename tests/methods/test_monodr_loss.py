from __future__ import annotations

import math

import pytest
import torch

from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.methods.monodr import MonoDRConfig, paper
from monolift.methods.monodr.crops import Crops
from monolift.methods.monodr.escape import STEP, better_rotation, depth_form, trials
from monolift.methods.monodr.loss import (
    box_loss,
    confidence,
    depth_loss,
    pixel_loss,
    protrusion,
    silhouette_loss,
    size_loss,
    total,
)
from monolift.methods.monodr.perceptual import MultiscaleMetric
from monolift.methods.monodr.scale import scale_correction, velocity_scale
from monolift.render.renderer import Rendering
from monolift.typing import Tensor

CLOSED = torch.zeros(1, 4, dtype=torch.bool)


def images(*shape: int) -> Tensor:
    """Random numbers in (0.1, 0.9), float64."""
    return 0.1 + 0.8 * torch.rand(*shape, dtype=torch.float64)


def test_pixels_by_hand() -> None:
    colour, observed = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    colour[0, :, 0, 0] = torch.tensor([0.5, 0.25, 0.0])
    colour[0, :, 1, 1] = 1.0  # outside the foreground
    foreground = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    assert pixel_loss(colour, observed, foreground).tolist() == [0.75 / 4]


def test_silhouette_by_hand() -> None:
    rendered, observed = torch.tensor([[[1.0, 1], [0, 0]]]), torch.tensor([[[1.0, 0], [0, 1]]])
    everywhere = torch.ones(1, 2, 2)
    assert silhouette_loss(rendered, observed, everywhere).item() == pytest.approx(1 - 1 / 3)
    # what is not known does not count: the second pixel is someone else's
    known = torch.tensor([[[1.0, 0], [1, 1]]])
    assert silhouette_loss(rendered, observed, known).item() == pytest.approx(1 - 1 / 2)
    nothing = torch.zeros(1, 2, 2)
    assert silhouette_loss(nothing, nothing, everywhere).item() == 1


def test_depth_by_hand() -> None:
    rendered = torch.tensor([[[10.0, 12.0], [5, 5]]])
    observed, share = torch.tensor([[[11.0, 30.0], [5, 9]]]), torch.tensor([[[1.0, 0.5], [1, 0]]])
    assert depth_loss(rendered, observed, share).item() == (1 + 0.5 * 18) / 4
    robust = depth_loss(rendered, observed, share, cut=2.0).item()
    assert robust == pytest.approx((2 * (1 - math.exp(-0.5)) + 0.5 * 2 * (1 - math.exp(-9))) / 4)


def test_sizes_by_hand() -> None:
    off = torch.tensor([[0.43, -0.28, 0.0]])
    assert size_loss(off).item() == pytest.approx(0.71)
    assert size_loss(off, (0.43, 0.14, 0.10)).item() == pytest.approx(0.5 * (1 + 4))


def test_boxes_by_hand() -> None:
    observed = torch.tensor([[10.0, 10, 20, 20]])
    inside = torch.tensor([[10.0, 10, 18, 20]])
    assert box_loss(inside, observed, 0.1, CLOSED).item() == pytest.approx(0.1)
    assert box_loss(inside + torch.tensor([[0.0, 0, 1.5, 0]]), observed, 0.1, CLOSED).item() == 0
    beyond = torch.tensor([[10.0, 10, 30, 20]])
    assert box_loss(beyond, observed, 0.1, CLOSED).item() == pytest.approx(0.4)
    assert protrusion(beyond, observed, CLOSED).item() == pytest.approx(1)
    open_right = torch.tensor([[False, False, True, False]])
    assert box_loss(beyond, observed, 0.1, open_right).item() == 0
    assert protrusion(beyond, observed, open_right).item() == 0
    # one-sided: falling short of an open side still costs
    assert box_loss(inside, observed, 0.1, open_right).item() == pytest.approx(0.1)


@pytest.mark.parametrize("open_sides", [CLOSED, ~CLOSED])
def test_gradients(open_sides: Tensor) -> None:
    check = torch.autograd.gradcheck
    observed, foreground, valid = images(2, 3, 4, 4), images(2, 4, 4), images(2, 4, 4)
    assert check(lambda c: pixel_loss(c, observed, foreground), images(2, 3, 4, 4).requires_grad_())
    assert check(lambda s: silhouette_loss(s, foreground, valid), images(2, 4, 4).requires_grad_())
    assert check(lambda d: depth_loss(d, foreground, valid), images(2, 4, 4).requires_grad_())
    assert check(lambda d: depth_loss(d, foreground, valid, cut=0.3), images(2, 4, 4).requires_grad_())
    boxes = torch.tensor([[1.0, 2, 9, 7], [3, 1, 8, 12]], dtype=torch.float64)
    rendered = torch.tensor([[2.0, 3, 10.5, 8], [1, 2, 7, 9]], dtype=torch.float64, requires_grad=True)
    assert check(lambda b: box_loss(b, boxes, 0.1, open_sides.expand(2, 4)), rendered)


def test_the_weights_of_the_paper() -> None:
    names = ("pixel", "box", "silhouette", "depth", "size")
    ones = {name: torch.ones(1) for name in names}
    assert total(ones, paper()).item() == pytest.approx(1 + 1 + 1 + 0.2 + 0.1)
    sure = confidence(torch.tensor([0.8]), torch.tensor([0.5]), torch.tensor([2.0]), paper())
    assert sure.item() == pytest.approx(0.8 * math.exp(-0.1 * 0.5) * math.exp(-0.03 * 2.0))
    config = paper()
    assert (config.lr, config.iterations, config.escape_until, config.box_tolerance) == (0.03, 150, 150, 0.1)


# --- rotations


def image_of(depth: Tensor) -> Rendering:
    ones = torch.ones_like(depth)
    return Rendering(ones[:, None].expand(-1, 3, -1, -1), ones, depth, ones.long())


def crops_with(depth: Tensor) -> Crops:
    n, size, _ = depth.shape
    ones, cameras = (
        torch.ones_like(depth),
        Camera.stack([Camera(100.0, 100.0, 3.5, 3.5, width=size, height=size)] * n),
    )
    flags = torch.zeros(n, 4, dtype=torch.bool)
    return Crops(
        torch.zeros(n, 3, size, size),
        ones,
        ones,
        depth,
        ones,
        depth,
        ones,
        torch.ones(n, 4),
        flags,
        cameras,
        torch.zeros(n).long(),
    )


def test_the_trials_of_the_paper() -> None:
    alpha, random = torch.tensor([0.4]), torch.tensor([2.0])
    angles = [round(float(a), 5) for a in trials(alpha, random, paper())]
    assert angles == [0.4, round(0.4 + math.radians(15), 5), round(0.4 - math.radians(15), 5), -0.4, 2.0]
    assert len(trials(alpha, random, MonoDRConfig())) == 6
    circle = torch.stack(trials(alpha, random, MonoDRConfig(), sweep=True)[-11:]).sort(0).values
    assert (circle.diff(dim=0) - math.pi / 6).abs().max() < 1e-5  # with the present angle, every 30 degrees


def test_each_object_takes_its_best_trial() -> None:
    alpha = torch.tensor([0.4, 0.4, 0.4, 0.4])
    wanted = torch.tensor([0.4, -0.4, 0.4 + STEP, 2.5])
    seen: list[Tensor] = []

    def render(angle: Tensor, aligned: bool) -> tuple[Rendering, Tensor]:
        assert not aligned
        seen.append(angle)
        return image_of(torch.zeros(4, 8, 8)), torch.zeros(4, 4)

    def metric(colour: Tensor, silhouette: Tensor) -> Tensor:
        return (seen[-1] - wanted).abs()

    found = better_rotation(
        alpha,
        torch.full((4,), 2.5),
        render,
        metric,
        crops_with(torch.zeros(4, 8, 8)),
        torch.ones(4),
        MonoDRConfig(),
    )
    torch.testing.assert_close(found, wanted)


def test_the_form_of_the_depth_tells_the_ends_apart() -> None:
    """The distance itself does not count, the slope does."""
    slope = torch.arange(8.0).expand(1, 8, 8)
    crops = crops_with(20 + slope)
    same, turned = (depth_form(image_of(d), crops, torch.ones(1)) for d in (31 + slope, 31 - slope))
    assert same.item() == pytest.approx(0, abs=1e-5)
    off = 2 * slope[0, 0] - 6  # the lower of the two middle ones is the median
    assert turned.item() == pytest.approx(float(off.abs().clamp(max=1).mean()), abs=1e-5)


def test_the_metric_sees_place_and_ignores_what_is_not_known() -> None:
    colour, foreground, valid = torch.rand(3, 3, 32, 32), torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    foreground[:, 8:24, 8:24] = 1
    valid[2, :, :8] = 0
    metric = MultiscaleMetric(colour, foreground, valid)
    exact = metric(colour, foreground)
    assert exact.abs().max() == 0
    near, far = (metric(colour.roll(k, 3), foreground.roll(k, 2))[:2] for k in (1, 6))
    assert bool((near > 0).all()) and bool((far > near).all())
    elsewhere = foreground.clone()
    elsewhere[:, :, :8] = 1
    spoiled = metric(colour, elsewhere)
    assert spoiled[2] == 0 and spoiled[0] > 0


# --- the depth map's scale


def test_the_velocity_gives_the_scale() -> None:
    """Speed times time over the network's translation: the median, of the frames in which the car moves."""
    translation = torch.tensor([0.5, 0.4, 0.25, 0.3, 0.0, 0.001])
    moved = torch.tensor(
        [10.0, 8.2, 5.0, 30.0, 9.0, 0.05]
    )  # one estimate of the motion is wrong, one is zero, one stands
    assert velocity_scale(moved, translation) == pytest.approx(20.0, abs=0.6)
    with pytest.raises(InputError, match=r"moved more than 0.1 m, got none of 2"):
        velocity_scale(torch.tensor([0.0, 0.05]), torch.ones(2))


def test_scale_by_hand() -> None:
    mean = torch.tensor([4.0, 1.5, 1.6])
    size = mean * torch.tensor([1.1, 1.2, 1.0, 0.5, 0.9, 1.3])[:, None]
    usable = torch.tensor([True, True, True, False, True, True])
    image = torch.tensor([0, 0, 0, 0, 1, 1])
    factor = scale_correction(size, mean, image, usable, size_spread=0.08, scale_spread=0.04)
    # image 0: three usable objects, and a prior worth four; image 1: too few to tell
    expected = [math.exp(-(math.log(1.1) + math.log(1.2)) / (3 + 4))] * 4 + [1, 1]
    torch.testing.assert_close(factor, torch.tensor(expected))
