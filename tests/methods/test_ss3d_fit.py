"""The fit against SciPy, against its own statistics, and its gradient against fits that are solved again."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2, kstest

from monolift.errors import MissingExtraError
from monolift.geometry import Boxes3D, Camera, iou_3d_paired
from monolift.methods.ss3d import fit as fit_module
from monolift.methods.ss3d.fit import Fit, fit_boxes
from monolift.methods.ss3d.parameters import (
    PARAMETERS,
    SIZE,
    STATE,
    Pinhole,
    boxes_from_state,
    parameters_of_boxes,
    start_from_parameters,
    state_from_boxes,
)
from noisy_cars import KITTI, NoisyCars, noisy_cars, scipy_costs


def test_same_minimum_as_scipy() -> None:
    """MINPACK from the same start, with a forward model and slopes of its own."""
    cars = noisy_cars(120)
    fit = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
    minimum = scipy_costs(cars)
    assert ((fit.cost - minimum).abs() < 1e-3 * minimum).double().mean() >= 0.99
    assert fit.ok.double().mean() >= 0.98


def test_few_iterations() -> None:
    cars = noisy_cars(1000)
    ends = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera, tolerance=1e-12).cost
    three = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera, iterations=3).cost
    assert ((three - ends) < 1e-6 * ends).double().mean() > 0.5


def test_weights_help() -> None:
    cars = noisy_cars(1500)
    start = boxes_from_state(start_from_parameters(cars.parameters, Pinhole.of(cars.camera, cars.parameters)))
    unweighted = fit_boxes(cars.parameters, torch.ones_like(cars.sigma), cars.camera).boxes
    weighted = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera).boxes
    first, second, third = (float(iou_3d_paired(b, cars.boxes).mean()) for b in (start, unweighted, weighted))
    assert first < second < third and third > first + 0.1


def test_cost_is_chi_square_and_covariance_is_right() -> None:
    """Residuals and errors have the distribution that the weights claim."""
    cars = noisy_cars(3000, noise=0.2, seed=5)  # little noise: the model is nearly linear
    fit = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
    assert kstest(fit.cost.numpy(), chi2(PARAMETERS - STATE).cdf).pvalue > 1e-3
    error = fit.state - state_from_boxes(cars.boxes)
    error[:, 6] = torch.remainder(error[:, 6] + torch.pi, 2 * torch.pi) - torch.pi
    distance = (error * torch.linalg.solve(fit.covariance, error)).sum(1)
    assert kstest(distance[fit.ok].numpy(), chi2(7).cdf).pvalue > 1e-3


def test_exact_parameters_give_the_box_back() -> None:
    """Two cameras in one batch, boxes cut by the image's border among them."""
    boxes = noisy_cars(60, seed=6).boxes
    left = Boxes3D(
        torch.tensor([[-5.2, 1.0, 6.0]]).double(),
        torch.tensor([[4, 1.5, 1.7]]).double(),
        torch.tensor([0.3]).double(),
    )
    boxes = Boxes3D.cat([boxes, left])
    other = Camera(500.0, 520.0, 620.0, 200.0, tx=-0.5, width=1242, height=375)
    cameras = Camera.stack([KITTI if k % 2 else other for k in range(61)])
    parameters = parameters_of_boxes(boxes, cameras)
    fit = fit_boxes(parameters, torch.ones_like(parameters), cameras, iterations=50)
    assert fit.ok.all()
    torch.testing.assert_close(fit.boxes.corners(), boxes.corners(), rtol=0, atol=1e-5)
    assert fit.cost.max() < 1e-9


def test_flagged_not_raised() -> None:
    """No parameters, broken ones, ones that do not determine a box: each is flagged, and its neighbours are untouched."""
    cars = noisy_cars(8)
    parameters, weights = cars.parameters.clone(), 1 / cars.sigma
    alone = fit_boxes(parameters, weights, cars.camera)
    parameters[1, 4], parameters[2, 0], weights[3, 7] = torch.nan, torch.inf, torch.nan
    parameters[4] = 1e200
    weights[5] = 0
    weights[6] = 0
    weights[6, SIZE] = 1  # sizes alone
    parameters.requires_grad_()
    weights.requires_grad_()
    fit = fit_boxes(parameters, weights, cars.camera)
    assert fit.ok.tolist() == [True, False, False, False, False, False, False, True]
    for name in ("state", "cost"):
        torch.testing.assert_close(getattr(fit, name)[[0, 7]], getattr(alone, name)[[0, 7]])
    assert torch.isfinite(fit.state).all() and not fit.cost.isnan().any() and not fit.covariance.isnan().any()
    assert torch.isinf(fit.covariance[6].diagonal()).all()
    fit.state.square().sum().backward()
    assert parameters.grad is not None and weights.grad is not None
    assert (parameters.grad[1:7] == 0).all() and (weights.grad[1:7] == 0).all()
    assert (parameters.grad[[0, 7]] != 0).any(1).all()
    empty = fit_boxes(parameters[:0], weights[:0], cars.camera)
    assert len(empty.boxes) == 0 and empty.ok.shape == (0,)


def test_never_nan_from_random_starts() -> None:
    cars = noisy_cars(4000, seed=7, camera=KITTI)
    spread = torch.logspace(-1, 3, 4000, dtype=torch.float64)[:, None]
    start = state_from_boxes(cars.boxes) + spread * torch.randn(4000, 7, dtype=torch.float64)
    parameters = cars.parameters.clone().requires_grad_()
    fit = fit_boxes(parameters, 1 / cars.sigma, KITTI, start=start)
    assert torch.isfinite(fit.state).all() and torch.isfinite(fit.cost).all()
    assert not fit.covariance.isnan().any()
    fit.state.sum().backward()
    assert parameters.grad is not None and torch.isfinite(parameters.grad).all()
    assert (parameters.grad[~fit.ok] == 0).all()
    assert 0.2 < fit.ok.double().mean() < 0.9  # wild starts were among them


def test_a_wrong_heading_is_turned_round() -> None:
    cars = noisy_cars(400, seed=8)
    fit = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
    start = start_from_parameters(cars.parameters, Pinhole.of(cars.camera, cars.parameters))
    start[:, 6] += 2.0
    turned = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera, start=start)
    assert ((turned.cost - fit.cost).abs() < 1e-3 * fit.cost).double().mean() > 0.97


# -- the gradient -------------------------------------------------------------------------------------------------------


def resolved_slope(
    cars: NoisyCars, towards_parameters: torch.Tensor, towards_weights: torch.Tensor
) -> tuple[Fit, torch.Tensor]:
    """Central difference of the minimum along a direction of parameters and weights, from fits solved anew."""
    weights = 1 / cars.sigma
    tight = {"iterations": 60, "tolerance": 1e-14}
    middle = fit_boxes(cars.parameters, weights, cars.camera, **tight)
    step = 1e-3
    ends = [
        fit_boxes(
            cars.parameters + k * towards_parameters,
            weights + k * towards_weights,
            cars.camera,
            start=middle.state,
            **tight,
        )
        for k in (step, -step)
    ]
    assert (ends[0].ok & ends[1].ok & middle.ok).double().mean() > 0.95
    return middle, (ends[0].state - ends[1].state) / (2 * step)


@pytest.mark.parametrize("of", ["parameters", "weights"])
def test_gradient_is_that_of_the_minimum(of: str) -> None:
    """Both within 0.1 % for realistic noise; the published form would be 2 % off in the parameters and half in the weights."""
    cars = noisy_cars(60, seed=9)
    parameters, weights = cars.parameters.clone().requires_grad_(), (1 / cars.sigma).requires_grad_()
    if of == "parameters":
        direction = (cars.sigma * torch.randn_like(cars.sigma), torch.zeros_like(cars.sigma))
    else:
        direction = (torch.zeros_like(cars.sigma), torch.randn_like(cars.sigma) / cars.sigma)
    middle, expected = resolved_slope(cars, *direction)
    fit = fit_boxes(parameters, weights, cars.camera, iterations=60, tolerance=1e-14)
    columns = []
    for k in range(7):
        slopes = torch.autograd.grad(fit.state[:, k].sum(), (parameters, weights), retain_graph=True)
        columns.append(sum((s * d).sum(1) for s, d in zip(slopes, direction, strict=True)))
    found = torch.stack(columns, 1)
    spread = middle.covariance.diagonal(dim1=1, dim2=2).sqrt()
    error = ((found - expected) / spread).norm(dim=1) / (expected / spread).norm(dim=1)
    assert error[fit.ok].median() < 1e-3 and error[fit.ok].quantile(0.95) < 1e-2


def test_the_gradient_costs_nothing_in_the_value() -> None:
    cars = noisy_cars(20, seed=10)
    plain = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
    attached = fit_boxes(cars.parameters.clone().requires_grad_(), 1 / cars.sigma, cars.camera)
    assert not plain.state.requires_grad and attached.state.requires_grad
    assert torch.equal(plain.state, attached.state.detach())


def test_float32_parameters() -> None:
    cars = noisy_cars(30, seed=11)
    parameters = cars.parameters.float().requires_grad_()
    fit = fit_boxes(parameters, (1 / cars.sigma).float(), cars.camera)
    double = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
    torch.testing.assert_close(fit.state, double.state, rtol=0, atol=1e-3)
    fit.state.sum().backward()
    assert (
        parameters.grad is not None
        and parameters.grad.dtype == torch.float32
        and (parameters.grad != 0).any(1).all()
    )


@pytest.mark.parametrize(("iterations", "tolerance"), [(20, 1e-6), (6, 1e-3)])
def test_the_kernel_fits_as_tensor_operations_do(iterations: int, tolerance: float) -> None:
    """Cars, and among them what has no minimum: numbers that are not finite, no weights, nothing that goes together."""
    pytest.importorskip("numba")
    cars = noisy_cars(60)
    parameters, weights = cars.parameters.clone(), 1 / cars.sigma
    parameters[0, 3], parameters[1, 7], weights[2], weights[3, 10:] = torch.nan, torch.inf, 0.0, 0.0
    parameters[4:8] = 1e3 * torch.randn(4, PARAMETERS, generator=torch.Generator().manual_seed(0))
    slow, fast = (
        fit_boxes(parameters, weights, cars.camera, iterations, tolerance, engine=engine)
        for engine in ("torch", "numba")
    )
    assert fast.ok.tolist() == slow.ok.tolist()
    assert torch.isfinite(fast.state).all() and not fast.covariance.isnan().any()
    well = slow.ok  # where no minimum is near, rounding decides which way the steps go
    assert well.sum() > 45 and not well[:3].any()
    assert fast.iterations[well].tolist() == slow.iterations[well].tolist()
    torch.testing.assert_close(fast.state[well], slow.state[well], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(fast.cost[well], slow.cost[well], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(fast.covariance[well], slow.covariance[well], rtol=1e-5, atol=1e-9)


def test_numba_is_loaded_when_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    loaded: list[bool] = []
    monkeypatch.setattr(fit_module, "_kernels", lambda: loaded.append(True))
    monkeypatch.setattr(fit_module, "_fitted", [0])
    cars = noisy_cars(3)
    monkeypatch.setattr(fit_module, "WORTH_LOADING", 6)
    for expected in (0, 1):
        fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera)
        assert len(loaded) == expected
    with pytest.raises(MissingExtraError, match="fast"):
        fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera, engine="numba")
