"""Claims of SS3D."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from benchmarks.claims.claim import Claim, Figures, Finding, Table, Workspace, mean_and_half_range

from monolift.geometry import iou_3d_paired
from monolift.methods import get_method
from monolift.methods.ss3d.config import paper
from monolift.methods.ss3d.fit import fit_boxes
from monolift.training.options import choose
from monolift.training.train import train

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

from noisy_cars import noisy_cars

CARS = 1000
LADDER = ("homoscedastic", "heteroscedastic", "through the fit")
METRICS = ("car_bbox_0.7", "car_bev_0.5", "car_3d_0.5")
EPOCHS, MORE_EPOCHS = 10, 2
KINDS = (4, 1, 2, 3, 16)


# -- weights of the fit ---------------------------------------------------------------------------------------------------


def run_weights(workspace: Workspace) -> Figures:
    """Mean 3D IoU of boxes fitted through noisy parameters, by how they are weighted."""
    units = torch.tensor(paper().units).repeat_interleave(torch.tensor(KINDS))
    found: dict[str, list[float]] = {}
    for seed in workspace.seeds:
        cars = noisy_cars(CARS, seed=seed)
        ways = {
            "alike": torch.ones_like(cars.sigma),
            "floored at 1 raw unit": (cars.sigma**2 + 1).sqrt(),
            "floored at 1 unit of the preset": (cars.sigma**2 + units**2).sqrt(),
            "true sigmas": cars.sigma,
        }
        for name, sigma in ways.items():
            fit = fit_boxes(cars.parameters, 1 / sigma, cars.camera)
            found.setdefault(name, []).append(float(iou_3d_paired(fit.boxes, cars.boxes).mean()))
    return found


def judge_weights(figures: Figures) -> Finding:
    gain = [b - a for a, b in zip(figures["alike"], figures["floored at 1 unit of the preset"], strict=True)]
    rows = [[name, mean_and_half_range(values, 3)] for name, values in figures.items()]
    return Finding(
        "holds" if min(gain) > 0.05 else "does not hold here",
        f"Weights of 1 / sigma, floored as the prior floors them in the preset's units, raise the mean 3D IoU by "
        f"{mean_and_half_range(gain, 3)}; floored at one pixel, metre and log metre they are worth nothing.",
        Table(["weights", "mean 3D IoU"], rows),
    )


# -- the ladder -----------------------------------------------------------------------------------------------------------


def judge_ladder(figures: Figures) -> Finding:
    """Figures: way -> values by seed; a higher value is better."""
    steps = [
        [b - a for a, b in zip(figures[low], figures[high], strict=True)] for low, high in pairwise(LADDER)
    ]
    better = [min(step) > 0 for step in steps]
    verdict = "holds" if all(better) else "holds in part" if any(better) else "does not hold here"
    rows = [[way, mean_and_half_range(figures[way], 3)] for way in LADDER]
    said = " and ".join(mean_and_half_range(step, 3) for step in steps)
    return Finding(verdict, f"The two steps gain {said}, mean over the seeds.", Table(["", "value"], rows))  # type: ignore[arg-type]


def run_ladder_on_images(workspace: Workspace) -> Figures | None:
    """Car, moderate, AP R40 on val-558 of the three ways, equal epochs for all; and SMOKE with as many."""
    if workspace.kitti is None:
        return None
    found: dict[str, dict[str, list[float]]] = {}
    for seed in workspace.seeds:
        runs = {way: workspace.out / f"ss3d-{way.replace(' ', '-')}-{seed}" for way in LADDER}
        first = f"epochs={EPOCHS + MORE_EPOCHS}"
        _trained(workspace, runs["homoscedastic"], seed, "ss3d", (first, "uncertainty=homoscedastic"))
        _trained(workspace, runs["heteroscedastic"], seed, "ss3d", (first,))
        stage = workspace.out / f"ss3d-first-stage-{seed}"
        _trained(workspace, stage, seed, "ss3d", (f"epochs={EPOCHS}",))
        second = (f"epochs={MORE_EPOCHS}",)
        _trained(workspace, runs["through the fit"], seed, "ss3d", second, "iou", stage / "last")
        smoke = workspace.out / f"ss3d-smoke-{seed}"
        _trained(workspace, smoke, seed, "smoke", (first,))
        for way, out in {**runs, "SMOKE": smoke}.items():
            scores = _scores(out)
            for metric in METRICS:
                found.setdefault(way, {}).setdefault(metric, []).append(scores[metric])
    return found


def judge_ladder_on_images(figures: Figures) -> Finding:
    ladder = {way: figures[way]["car_3d_0.5"] for way in LADDER}
    rows = [[way, *(mean_and_half_range(row[m]) for m in METRICS)] for way, row in figures.items()]
    finding = judge_ladder(ladder)
    return Finding(finding.verdict, finding.reason, Table(["", "2D 0.7", "bird's eye 0.5", "3D 0.5"], rows))


def _trained(
    workspace: Workspace,
    out: Path,
    seed: int,
    method: str,
    settings: Sequence[str],
    preset: str = "default",
    init: Path | None = None,
) -> None:
    """One training on the 626 images at 512 x 160; where it is finished already, nothing."""
    assert workspace.kitti is not None
    size = ("input_width=512", "input_height=160", "batch_size=4", 'freeze=["stem","dark2","dark3","dark4"]')
    chosen = choose(get_method(method), preset, settings=(*size, *settings))
    sets = workspace.kitti / "ImageSets"
    train(
        chosen.config, chosen.recipe, workspace.kitti, out, keep=chosen.keep, measure=chosen.measure,
        split=sets / "train.txt", val_split=sets / "val.txt", init=init or "smoke", seed=seed, val_every=100,
        resume=(out / "last").exists(), quiet=True,
    )  # fmt: skip


def _scores(out: Path) -> dict[str, float]:
    import json

    last = (out / "metrics.jsonl").read_text().splitlines()[-1]
    row = json.loads(last)
    return {metric: float(row.get(metric, 0.0)) for metric in METRICS}


# -- the second stage, as it was measured ---------------------------------------------------------------------------------


def judge_second_stage(figures: Figures) -> Finding:
    first, second = figures["first stage"], figures["+ 2 epochs through the fit"]
    gain = {m: [b - a for a, b in zip(first[m], second[m], strict=True)] for m in first}
    better = min(gain["3D 0.5"]) > 0
    rows = [[name, *(mean_and_half_range(row[m], 2) for m in first)] for name, row in figures.items()]
    return Finding(
        "holds in part" if better else "does not hold here",
        f"3D AP changes by {mean_and_half_range(gain['3D 0.5'], 2)}{', up with every seed' if better else ''}; the fifth more "
        "steps that the second stage takes are part of that, and no run had them without it: it can hold in part at most.",
        Table(["", *first], rows),
    )


FULL = """\
monolift train ss3d --preset paper --init drn_c_26.pth --data KITTI --split train.txt --val-split val.txt --out runs/ss3d
monolift train ss3d --preset paper_iou --init runs/ss3d/best --data KITTI --split train.txt --val-split val.txt --out runs/iou
"""

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="ss3d-weights-matter",
        method="ss3d",
        sentence="Weighting each of the 26 parameters by its uncertainty makes the fitted 3D box better.",
        source="SS3D (reading note): weighted least squares at inference",
        setup=f"{CARS:,} synthetic cars with noisy parameters per seed, no network; mean 3D IoU of the fitted boxes. The prior "
        "Gamma(1, 0.5) floors sigma at one unit, here as sqrt(sigma^2 + unit^2).",
        cost="cheap",
        judge=judge_weights,
        run=run_weights,
    ),
    Claim(
        id="ss3d-ladder-toy",
        method="ss3d",
        sentence="A sigma per object beats one for all objects, and training through the fit beats both.",
        source="SS3D, abstract (by way of reading notes)",
        setup="No images: a small network reads two noisy readings of a car's 26 parameters; 8,000 cars, 2,000 steps of 64 for "
        "each way, mean 3D IoU on 4,000 unseen cars, three seeds.",
        cost="long",
        judge=judge_ladder,
        script="python benchmarks/ss3d_order.py --seeds 3",
        origin="[SS3D: experiments](experiments/ss3d.md#what-was-measured)",
    ),
    Claim(
        id="ss3d-second-stage",
        method="ss3d",
        sentence="Training through the fit by 3D IoU improves detection on images.",
        source="SS3D, abstract (by way of reading notes)",
        setup="626 KITTI training images at 512 x 160, default preset, 10 epochs of 156 steps of four, then 2 epochs of preset "
        "iou; Car, moderate, AP R40 in percent on val-558, seeds 0 and 1.",
        cost="long",
        judge=judge_second_stage,
        script="""\
monolift train ss3d --init smoke --set input_width=512 --set input_height=160 --set epochs=10 --set batch_size=4 \\
  --data KITTI --split train.txt --val-split val.txt --out runs/ss3d
monolift train ss3d --preset iou --init runs/ss3d/best --set input_width=512 --set input_height=160 --set epochs=2 \\
  --set batch_size=4 --data KITTI --split train.txt --val-split val.txt --out runs/ss3d_iou""",
        origin="[SS3D: experiments](experiments/ss3d.md#what-was-measured)",
    ),
    Claim(
        id="ss3d-ladder-on-images",
        method="ss3d",
        sentence="On images: heteroscedastic beats homoscedastic, and through the fit beats both, with equal steps.",
        source="SS3D, abstract (by way of reading notes)",
        setup=f"626 KITTI training images at 512 x 160, {EPOCHS + MORE_EPOCHS} epochs of 156 steps of four for each way "
        f"(through the fit: the last {MORE_EPOCHS}), SMOKE beside it with as many; Car, moderate, AP R40 in percent on "
        "val-558. About 5 hours of one core for two seeds.",
        cost="long",
        judge=judge_ladder_on_images,
        run=run_ladder_on_images,
        full=FULL,
    ),
)
