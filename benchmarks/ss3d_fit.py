"""What SS3D's fit does to synthetic cars with noisy parameters: minima, statistics, gradient, speed, safety, training by
overlap, and what detection costs after the network.

    python benchmarks/ss3d_fit.py [minima] [scipy] [gradient] [speed] [starts] [overlap] [decode] [--cars 4000]   (default: all)

The noise (``tests/noisy_cars.py``) is made up, and errors are independent, which those of one cell of a network are not: the
figures compare ways of fitting with each other and say nothing about KITTI. Times are process CPU time of one thread, the
best of ten. Part scipy needs SciPy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from monolift.geometry import Camera, iou_3d_paired
from monolift.methods.ss3d.codec import SS3DCodec
from monolift.methods.ss3d.config import SS3DConfig
from monolift.methods.ss3d.decode import decode_maps
from monolift.methods.ss3d.fit import fit_boxes
from monolift.methods.ss3d.loss import attenuated
from monolift.methods.ss3d.parameters import (
    PARAMETERS,
    STATE,
    Pinhole,
    boxes_from_state,
    parameters_of_boxes,
    start_from_parameters,
    state_from_boxes,
)
from noisy_cars import KITTI, noisy_cars, scipy_costs

DEGREES_OF_FREEDOM = PARAMETERS - STATE


def minima(count: int) -> None:
    """Where the fit ends, in how many steps, and what the boxes are worth."""
    cars = noisy_cars(count)
    weights = 1 / cars.sigma
    fit = fit_boxes(cars.parameters, weights, cars.camera)
    ends = fit_boxes(cars.parameters, weights, cars.camera, iterations=60, tolerance=1e-12).cost
    steps = torch.full((count,), 0)
    for k in range(10):
        reached = fit_boxes(cars.parameters, weights, cars.camera, iterations=k).cost
        steps += reached > ends * (1 + 1e-6)
    print(f"steps to 1e-6 of the minimum: median {steps.median()}, 95 % {int(steps.double().quantile(0.95))}")
    print(f"flagged ok: {fit.ok.double().mean():.2%} (the rest ends in a fold of the 2D box)")
    spread = f"expected {2 * 9.17:.2f} median, {DEGREES_OF_FREEDOM} mean, {2 * DEGREES_OF_FREEDOM} variance"
    print(
        f"E at the minimum: {fit.cost.median():.2f}, {fit.cost.mean():.2f}, {fit.cost.var():.1f} ({spread})"
    )
    beyond = (fit.cost[:, None] > torch.tensor([27.20, 30.14, 36.19]).double()).double().mean(0)
    print("E beyond its 90, 95, 99 % quantiles: " + ", ".join(f"{v:.1%}" for v in beyond.tolist()))
    start = boxes_from_state(start_from_parameters(cars.parameters, Pinhole.of(cars.camera, cars.parameters)))
    plain = fit_boxes(cars.parameters, torch.ones_like(weights), cars.camera).boxes
    for name, boxes in (("start", start), ("unweighted fit", plain), ("weighted fit", fit.boxes)):
        iou = iou_3d_paired(boxes, cars.boxes)
        shares = f"{(iou >= 0.7).double().mean():.1%} at 0.7 or more, {(iou == 0).double().mean():.1%} apart"
        print(f"mean IoU3D of the {name}: {iou.mean():.3f} ({shares})")
    truth = fit_boxes(cars.parameters, weights, cars.camera, start=state_from_boxes(cars.boxes)).cost
    print(
        f"same minimum as from the ground truth: {((fit.cost - truth).abs() < 1e-3 * truth).double().mean():.2%}"
    )


def scipy(count: int) -> None:
    """The same problems solved by MINPACK, box by box."""
    same = done = 0
    for seed in range(0, count, 500):
        cars = noisy_cars(min(500, count - seed), seed=seed)
        cost, minimum = fit_boxes(cars.parameters, 1 / cars.sigma, cars.camera).cost, scipy_costs(cars)
        same, done = same + int(((cost - minimum).abs() < 1e-3 * minimum).sum()), done + len(minimum)
        print(f"same minimum as SciPy from the same start: {same} of {done}, {same / done:.2%}", flush=True)


def gradient(count: int) -> None:
    """Slopes of the fitted box along random directions, against fits that are solved again."""
    for noise in (0.5, 1.0, 2.0):
        cars = noisy_cars(min(count, 300), noise, seed=1)
        parameters, weights = cars.parameters.clone().requires_grad_(), (1 / cars.sigma).requires_grad_()
        exact = {"iterations": 60, "tolerance": 1e-14}
        fit = fit_boxes(parameters, weights, cars.camera, **exact)
        spread = fit.covariance.diagonal(dim1=1, dim2=2).sqrt()
        zero = torch.zeros_like(cars.sigma)
        ways = {
            "parameters": (cars.sigma * torch.randn_like(zero), zero),
            "weights": (zero, torch.randn_like(zero) / cars.sigma),
        }
        for name, (along_parameters, along_weights) in ways.items():
            with torch.no_grad():
                ends = [
                    fit_boxes(
                        parameters + k * along_parameters,
                        weights + k * along_weights,
                        cars.camera,
                        start=fit.state.detach(),
                        **exact,
                    )
                    for k in (1e-3, -1e-3)
                ]
            expected = (ends[0].state - ends[1].state) / 2e-3
            columns = []
            for k in range(7):
                slopes = torch.autograd.grad(fit.state[:, k].sum(), (parameters, weights), retain_graph=True)
                columns.append((slopes[0] * along_parameters + slopes[1] * along_weights).sum(1))
            error = ((torch.stack(columns, 1) - expected) / spread).norm(dim=1) / (expected / spread).norm(
                dim=1
            )
            error = error[fit.ok & ends[0].ok & ends[1].ok]
            shares = f"median {error.median():.1e}, 95 % {error.quantile(0.95):.1e}"
            print(f"noise x {noise}: relative error of the gradient of the {name}: {shares}", flush=True)


def speed(count: int) -> None:
    def best(call: Callable[[], object]) -> float:
        times = []
        for _ in range(10):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        return 1e3 * min(times)

    for n in (1, 50, 500, 5000):
        cars = noisy_cars(n)
        parameters, weights = cars.parameters.clone().requires_grad_(), 1 / cars.sigma
        with torch.no_grad():
            plain = best(lambda: fit_boxes(parameters, weights, cars.camera))  # noqa: B023
        both = best(lambda: fit_boxes(parameters, weights, cars.camera).state.sum().backward())  # noqa: B023
        print(f"{n:5d} boxes: {plain:6.1f} ms, with gradient {both:6.1f} ms", flush=True)


def starts(count: int) -> None:
    """100,000 random starts, from a decimetre to a kilometre off."""
    nan, done, ok, wrong = 0, 0, 0, 0
    for seed in range(25):
        cars = noisy_cars(4000, seed=seed, camera=KITTI)
        spread = torch.logspace(-1, 3, 4000, dtype=torch.float64)[:, None]
        start = state_from_boxes(cars.boxes) + spread * torch.randn(4000, 7, dtype=torch.float64)
        parameters = cars.parameters.clone().requires_grad_()
        fit = fit_boxes(parameters, 1 / cars.sigma, KITTI, start=start)
        fit.state.sum().backward()
        assert parameters.grad is not None
        numbers = (fit.state, fit.covariance, fit.cost[:, None], parameters.grad)
        nan += sum(int(v.isnan().flatten(1).any(1).sum()) for v in numbers)
        wrong += int((parameters.grad[~fit.ok] != 0).any(1).sum())
        done, ok = done + 4000, ok + int(fit.ok.sum())
    print(
        f"{done} random starts: {nan} NaN; {ok / done:.1%} ok; {wrong} gradients of failures that are not zero",
        flush=True,
    )


def overlap(count: int) -> None:
    """Parameters and sigmas themselves trained by 1 - IoU3D through the fit, Adam 0.05, with and without the likelihood."""
    cars = noisy_cars(300, seed=5)
    truth = parameters_of_boxes(cars.boxes, cars.camera)
    for weight in (0.0, 0.005):
        shift = torch.zeros(300, PARAMETERS, dtype=torch.float64, requires_grad=True)
        log_sigma = torch.zeros_like(shift, requires_grad=True)
        optimizer = torch.optim.Adam([shift, log_sigma], lr=0.05)
        history = []
        for _ in range(41):
            parameters = cars.parameters + shift * cars.sigma
            fit = fit_boxes(parameters, torch.exp(-log_sigma) / cars.sigma, cars.camera)
            iou = iou_3d_paired(fit.boxes, cars.boxes)
            likelihood = attenuated((parameters - truth) / cars.sigma, log_sigma, "gaussian").sum()
            optimizer.zero_grad()
            (torch.where(fit.ok, 1 - iou, 0.0).sum() + weight * likelihood).backward()
            optimizer.step()
            history.append((iou.detach(), (fit.boxes.center - cars.boxes.center).norm(dim=1).detach()))
        means = ", ".join(f"{history[k][0].mean():.3f}" for k in (0, 10, 20, 40))
        apart = history[0][0] == 0
        away = " -> ".join(f"{history[k][1][apart].mean():.2f}" for k in (0, 40))
        print(f"likelihood x {weight}: mean IoU3D after 0, 10, 20, 40 steps: {means}")
        still = int((history[-1][0][apart] == 0).sum())
        print(
            f"    {int(apart.sum())} began apart, {still} still are; their centres {away} m from the ground truth",
            flush=True,
        )


def decode(count: int) -> None:
    """From the maps of a 1280 x 384 image to boxes: classes, candidates, suppression, fit. 3 x 3 noisy cells a car; at worst
    clutter besides, whose parameters agree with nothing, up to the candidates and boxes that the configuration lets through."""
    camera = KITTI.after_crop(0, 0, 1280, 384)
    codec = SS3DCodec(SS3DConfig(focal=KITTI.fx.item()))
    for n, clutter in ((0, 0.0), (10, 0.0), (30, 0.0), (30, 0.01)):
        cars = noisy_cars(n, camera=camera)
        parameters = 5 * torch.randn(1, PARAMETERS, 96, 320)
        logits = torch.full((1, 4, 96, 320), -9.0)
        logits[:, 0] = 0
        logits[:, 1] = torch.where(torch.rand(96, 320) < clutter, 0.0, -9.0)
        middle = ((cars.parameters[:, :2] + cars.parameters[:, 2:4]) / 8).round().long()
        for k, (u, v) in enumerate(middle.tolist()):
            for row in range(max(v - 1, 0), min(v + 2, 96)):
                for column in range(max(u - 1, 0), min(u + 2, 320)):
                    cell = torch.tensor([row * 320 + column])
                    seen = cars.parameters[k : k + 1] + 0.3 * cars.sigma[k] * torch.randn(PARAMETERS)
                    parameters[0, :, row, column] = codec.channels(seen, cell, camera, 320)[0].float()
                    logits[0, 1, row, column] = 3 + torch.rand(())
        raw = {"classes": logits, "parameters": parameters, "log_sigma": torch.zeros_like(parameters)}
        times, found = [], 0
        for _ in range(30):
            began = time.process_time()
            found = len(decode_maps(codec, raw, Camera.stack([camera]))[0])
            times.append(1e3 * (time.process_time() - began))
        spread = f"median {statistics.median(times):.1f} ms, best {min(times):.1f} ms"
        print(
            f"decode, 1280 x 384, {n} cars{' and clutter' * (clutter > 0)}, {found} boxes: {spread}",
            flush=True,
        )


def main() -> None:
    parts = {f.__name__: f for f in (minima, scipy, gradient, speed, starts, overlap, decode)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*parts, []])
    parser.add_argument("--cars", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in options.parts or parts:
        parts[name](options.cars)


if __name__ == "__main__":
    main()
