"""SS3D's losses against their algebra, against torch, and by what they do to parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ideal_maps import ideal_maps
from monolift.data.sample import Sample
from monolift.geometry import iou_3d_paired
from monolift.methods.ss3d.assign import IGNORE, Targets, assign_targets
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.config import SS3DConfig, author, paper
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.loss import (
    attenuated,
    cell_shares,
    class_loss,
    overlap_loss,
    sample_per_object,
    ss3d_loss,
)
from monolift.methods.ss3d.parameters import parameters_of_boxes
from noisy_cars import KITTI, noisy_cars


def street(count: int = 3, seed: int = 0) -> Sample:
    camera = KITTI.after_crop(0, 0, 1248, 384)
    boxes = noisy_cars(count, seed=seed, camera=camera).boxes.to(torch.float32)
    return Sample(
        name="000001",
        image=torch.zeros(3, 384, 1248, dtype=torch.uint8),
        camera=camera,
        boxes=boxes,
        classes=("Car",) * count,
        boxes2d=boxes.projected(camera),
        truncation=torch.zeros(count),
        occlusion=torch.zeros(count, dtype=torch.long),
    )


def test_gaussian_with_gamma_prior_is_the_paper_written_out() -> None:
    """r^2 / (2 sigma^2) + log sigma, minus the log density of Gamma(1, 0.5) at the precision, up to its constant."""
    residual, log_sigma = torch.randn(50).double() * 3, torch.randn(50).double()
    sigma = log_sigma.exp()
    gamma = torch.distributions.Gamma(torch.tensor(1.0).double(), torch.tensor(0.5).double())
    paper = residual**2 / (2 * sigma**2) + sigma.log() - gamma.log_prob(sigma**-2) + math.log(0.5)
    torch.testing.assert_close(attenuated(residual, log_sigma, "gaussian"), paper)


def test_laplace_is_the_authors_code_written_out() -> None:
    residual, s = torch.randn(50).double(), torch.randn(50).double()
    torch.testing.assert_close(
        attenuated(residual, s, "laplace"), (residual.abs() + 0.02) * torch.exp(-s) + s
    )


@pytest.mark.parametrize(("likelihood", "residual", "best"), [
    ("gaussian", 0.0, 1.0), ("gaussian", 3.0, math.sqrt(10)), ("laplace", 0.0, 0.02), ("laplace", 3.0, 3.02),
])  # fmt: skip
def test_best_sigma(likelihood: str, residual: float, best: float) -> None:
    """The floor holds sigma above one unit, or above 0.02."""
    s = torch.linspace(-6, 3, 90001, dtype=torch.float64)
    loss = attenuated(torch.full_like(s, residual), s, likelihood)
    assert float(s[loss.argmin()].exp()) == pytest.approx(best, rel=1e-3)


def test_homoscedastic_sigma_is_the_spread_of_the_errors() -> None:
    residual = 2.5 * torch.randn(1000, dtype=torch.float64)
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    attenuated(residual, s, "gaussian", floor=False).mean().backward()
    assert s.grad is not None and s.grad < 0  # sigma 1 is too small
    best = residual.square().mean().sqrt().log().requires_grad_()
    attenuated(residual, best, "gaussian", floor=False).mean().backward()
    assert float(best.grad) == pytest.approx(0, abs=1e-9)  # type: ignore[arg-type]


def test_extreme_sigmas_stay_finite() -> None:
    s = torch.tensor([-1e6, 1e6], requires_grad=True)
    loss = attenuated(torch.tensor([1e3, 1e-3]), s, "gaussian")
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(s.grad).all()  # type: ignore[arg-type]


def test_class_loss_is_a_plain_mean_without_the_ignored() -> None:
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    target = torch.randint(0, 4, (2, 3, 5))
    target[0, :, :2] = IGNORE
    known = [(b, r, c) for b in range(2) for r in range(3) for c in range(5) if target[b, r, c] != IGNORE]
    slow = [-logits[b, :, r, c].log_softmax(0)[target[b, r, c]] for b, r, c in known]
    torch.testing.assert_close(class_loss(logits, target), torch.stack(slow).mean())
    support = int((target > 0).sum())  # neither background nor ignored
    torch.testing.assert_close(class_loss(logits, target, True), torch.stack(slow).sum() / support)
    nothing = class_loss(logits.requires_grad_(), torch.full_like(target, IGNORE))
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()


def raw_near(codec: SS3DCodec, targets: Targets, error: float) -> dict[str, torch.Tensor]:
    raw = ideal_maps(codec, targets)
    raw["parameters"] = raw["parameters"] + error * torch.randn_like(raw["parameters"])
    return {name: value.requires_grad_() for name, value in raw.items()}


@pytest.mark.parametrize("uncertainty", ["heteroscedastic", "homoscedastic"])
def test_labels_by_heart_cost_least(uncertainty: str) -> None:
    codec = SS3DCodec(SS3DConfig(uncertainty=uncertainty, iou_weight=1.0))
    targets = assign_targets(codec, [street()])
    exact = ss3d_loss(codec, raw_near(codec, targets, 0), targets)
    off = ss3d_loss(codec, raw_near(codec, targets, 2.0), targets)
    assert exact["classes"] < 1e-6 and exact["iou"] < 5e-3
    # r = 0 and sigma = 1 unit: the prior's 0.5 for each known parameter is all that is left
    prior = 0.5 if uncertainty == "heteroscedastic" else 0.0
    known = (cell_shares(targets.object, True)[:, None] * targets.known).sum()
    expected = codec.config.likelihood_weight * prior * known.item()
    assert exact["parameters"].item() == pytest.approx(expected, abs=1e-5)
    assert off["parameters"] > exact["parameters"] + 0.1 and off["iou"] > exact["iou"] + 0.05
    off["total"].backward()


def test_every_part_reaches_its_map() -> None:
    codec = SS3DCodec(SS3DConfig(iou_weight=1.0))
    targets = assign_targets(codec, [street()])
    raw = raw_near(codec, targets, 1.0)
    losses = ss3d_loss(codec, raw, targets)
    torch.testing.assert_close(
        losses["total"], sum(losses[k] for k in ("classes", "parameters", "direction", "iou"))
    )
    for name, maps in (
        ("classes", ["classes"]),
        ("parameters", ["parameters", "log_sigma"]),
        ("iou", ["parameters", "log_sigma"]),
    ):
        grads = torch.autograd.grad(losses[name], [raw[m] for m in maps], retain_graph=True)
        for grad in grads:
            assert torch.isfinite(grad).all() and (grad != 0).any()


def test_no_objects() -> None:
    codec = SS3DCodec(SS3DConfig(iou_weight=1.0))
    targets = assign_targets(codec, [street(0)])
    raw = raw_near(codec, targets, 1.0)
    losses = ss3d_loss(codec, raw, targets)
    losses["total"].backward()
    assert losses["parameters"] == 0 and losses["iou"] == 0
    assert all(torch.isfinite(v.grad).all() for v in raw.values())  # type: ignore[arg-type]


def test_each_object_weighs_alike_or_each_cell() -> None:
    owner = torch.tensor([7, 2, 7, 7, 2, 9])
    shares = torch.tensor([1 / 9, 1 / 6, 1 / 9, 1 / 9, 1 / 6, 1 / 3])
    torch.testing.assert_close(cell_shares(owner, True), shares)
    torch.testing.assert_close(cell_shares(owner, False), torch.full((6,), 1 / 6))
    assert cell_shares(owner[:0], True).shape == cell_shares(owner[:0], False).shape == (0,)
    losses = {}
    for balance in ("objects", "cells"):
        codec = SS3DCodec(SS3DConfig(balance=balance))
        targets = assign_targets(codec, [street()])
        raw = ideal_maps(codec, targets)
        nearest = int(targets.object.bincount().argmax())  # the object with the most cells
        off = targets.cell[targets.object == nearest]
        raw["parameters"].view(1, 26, -1)[:, 4, off] += 3.0
        wrong = (
            ss3d_loss(codec, raw, targets)["parameters"]
            - ss3d_loss(codec, ideal_maps(codec, targets), targets)["parameters"]
        )
        losses[balance] = wrong.item() / (0.05 * 3.0**2 / 2)
        share = len(off) / len(targets.cell)
    assert losses["objects"] == pytest.approx(1 / 3, rel=1e-4)
    assert losses["cells"] == pytest.approx(share, rel=1e-4) and share > 0.5


def test_sampled_cells_are_of_each_object() -> None:
    owner = torch.tensor([4] * 9 + [1] * 2 + [0] * 30 + [4] * 3)
    chosen = sample_per_object(owner, 4)
    assert len(set(chosen.tolist())) == len(chosen) == 10
    assert torch.bincount(owner[chosen], minlength=5).tolist() == [4, 2, 0, 0, 4]
    seen = {int(k) for _ in range(200) for k in sample_per_object(owner, 4)}
    assert seen == set(range(len(owner)))


def test_a_failed_fit_counts_nothing() -> None:
    codec = SS3DCodec(SS3DConfig(iou_samples=1000))
    targets = assign_targets(codec, [street()])
    numbers = targets.numbers.clone()
    numbers[targets.object == 0] = torch.nan
    numbers.requires_grad_()
    loss = overlap_loss(codec, numbers, torch.zeros_like(targets.numbers), targets)
    loss.backward()
    assert loss < 5e-3
    assert numbers.grad is not None and (numbers.grad[targets.object == 0] == 0).all()
    assert torch.isfinite(numbers.grad).all()


@pytest.mark.parametrize("weight", [0.0, 0.005])
def test_overlap_through_the_fit_trains_parameters(weight: float) -> None:
    """Forty steps of Adam on the parameters themselves. Boxes apart have no slope: they need the likelihood beside."""
    cars = noisy_cars(60, seed=5)
    truth = parameters_of_boxes(cars.boxes, cars.camera)
    shift = torch.zeros_like(truth, requires_grad=True)
    log_sigma = torch.zeros_like(truth, requires_grad=True)
    optimizer = torch.optim.Adam([shift, log_sigma], lr=0.05)
    overlaps = []
    for _ in range(41):
        parameters = cars.parameters + shift * cars.sigma
        fit = fit_boxes(parameters, torch.exp(-log_sigma) / cars.sigma, cars.camera)
        iou = iou_3d_paired(fit.boxes, cars.boxes)
        likelihood = attenuated((parameters - truth) / cars.sigma, log_sigma, "gaussian").sum()
        optimizer.zero_grad()
        (torch.where(fit.ok, 1 - iou, 0.0).sum() + weight * likelihood).backward()
        optimizer.step()
        overlaps.append(iou.detach())
    apart = overlaps[0] == 0
    assert apart.any() and overlaps[0].mean() < 0.6
    if weight:
        assert overlaps[-1].mean() > 0.9 and (overlaps[-1][apart] > 0).all()
    else:
        assert overlaps[-1][~apart].mean() > 0.9 and (overlaps[-1][apart] == 0).all()


@pytest.mark.parametrize("uncertainty", ["heteroscedastic", "homoscedastic"])
def test_the_authors_loss_is_a_mean_for_each_task(uncertainty: str) -> None:
    """(|r| + 0.02) exp(-s) + s, summed over what is known of a task and divided by its number, task by task."""
    codec = SS3DCodec(author(uncertainty=uncertainty))
    targets = assign_targets(codec, [street()])
    targets = replace(targets, known=torch.rand(targets.known.shape) > 0.3)
    raw = {name: value.detach() for name, value in raw_near(codec, targets, 2.0).items()}
    total = 0.0
    for first, count in ((0, 4), (4, 1), (5, 2), (7, 3), (10, 16)):
        values = []
        for m, (b, cell) in enumerate(zip(targets.image.tolist(), targets.cell.tolist(), strict=True)):
            row, column = divmod(cell, targets.width)
            for k in range(first, first + count):
                if targets.known[m, k]:
                    r = float(raw["parameters"][b, k, row, column] - targets.numbers[m, k])
                    s = float(raw["log_sigma"][b, k, row, column])
                    values.append((abs(r) + 0.02) * math.exp(-s) + s)
        total += sum(values) / len(values)
    found = ss3d_loss(codec, raw, targets)
    assert found["parameters"].item() == pytest.approx(total, rel=1e-4)
    assert "direction" not in found and "iou" not in found


def test_the_papers_units_leave_its_weights_their_worth() -> None:
    """Sigmas floored as the prior floors them at best, at one unit: the weighted fit stays far better than the unweighted."""
    camera = KITTI
    cars = noisy_cars(300, seed=3, camera=camera)

    def mean_iou(sigma: torch.Tensor) -> float:
        fit = fit_boxes(cars.parameters, 1 / sigma, camera)
        return float(iou_3d_paired(fit.boxes, cars.boxes.to(torch.float64)).mean())

    def floored(config: SS3DConfig) -> float:
        unit = torch.tensor(config.units).repeat_interleave(torch.tensor([4, 1, 2, 3, 16]))
        return mean_iou((cars.sigma**2 + unit**2).sqrt())

    exact, alike = mean_iou(cars.sigma), mean_iou(torch.ones_like(cars.sigma))
    assert floored(paper()) > exact - 0.02 > alike + 0.05
    assert floored(paper(units=(1.0,) * 5)) < alike + 0.03  # pixels, metres, log metres as they are
