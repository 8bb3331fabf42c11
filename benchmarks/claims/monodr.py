"""Claims of MonoDR (Beker et al., ECCV 2020). The fits are in ``monodr_arms``, the depth network in ``monodr_depth``."""

from __future__ import annotations

import functools

from benchmarks.claims.claim import Claim, Figures, Workspace
from benchmarks.claims.monodr_verdicts import (
    judge_box_and_pixel,
    judge_boxes,
    judge_confidence,
    judge_cost,
    judge_depth,
    judge_depth_alone,
    judge_depth_network,
    judge_hidden,
    judge_masks,
    judge_points,
    judge_rotations,
    judge_silhouette,
    never,
)

PORTIONS = 2
"""Of about 14 cars each, per random seed."""
STREETS = (
    "synthetic cars that the decoder has not seen, three to an image of KITTI's size, some in front of others, exact "
    "masks, 2D boxes "
    "off by 1 pixel, depth maps off by 2 % as a whole and 3 % per pixel; preset `paper` with crops of 64 pixels (the "
    "paper gives no "
    "size), 28 cars per seed. Car, AP R40 in percent by KITTI's protocol, mean over the seeds ± half their range."
)
SINGLE = (
    "synthetic cars that the decoder has not seen, one to an image of KITTI's size, exact masks, 2D boxes off by 1 "
    "pixel, depth maps "
    "off by 1 % as a whole and 3 % per pixel; preset `paper` with crops of 64 pixels, beside the default preset."
)
# --- experiments; torch is imported when one runs


def run_tables(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import by_seed, published
    from benchmarks.monodr import loss_cases

    return by_seed(workspace, loss_cases(published(), 3), PORTIONS, "monodr-tables", precision=True)


def run_confidences(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import confidences, published
    from benchmarks.monodr import loss_cases

    return confidences(workspace, loss_cases(published(), 3)[0], PORTIONS, "monodr-tables")


def run_masks(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import by_seed, published
    from benchmarks.monodr import MASKS, Case, Noise

    cases = [Case(g, published(), per_image=3, noise=Noise(scale=0.02), grade=g) for g in MASKS]
    return by_seed(workspace, cases, 2, "monodr-masks", precision=True)


def run_boxes(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import both_presets, by_seed
    from benchmarks.monodr import BOXES, Case

    cases = [
        Case(f"{name}, {grade}", config, grade=grade) for name, config in both_presets() for grade in BOXES
    ]
    return by_seed(workspace, cases, 2, "monodr-boxes")


def run_rotations(workspace: Workspace) -> Figures:
    from dataclasses import replace

    from benchmarks.claims.monodr_arms import by_seed, published
    from benchmarks.monodr import Case

    cases = [
        Case("paper, exact", published()),
        Case("paper, no other rotations", replace(published(), escape_until=0)),
    ]
    return by_seed(workspace, cases, 2, "monodr-boxes")


def run_hidden(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import both_presets, by_seed
    from benchmarks.monodr import Case

    cases = [
        Case(f"{name}, {grade}", config, hidden=hidden)
        for name, config in both_presets()
        for grade, hidden in (("exact", 0.0), ("35 % hidden", 0.35))
    ]
    return by_seed(workspace, cases, 2, "monodr-boxes")


def run_cost(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_arms import share_of_the_rotations

    return {"share": [share_of_the_rotations(seed) for seed in workspace.seeds]}


def run_points(workspace: Workspace) -> Figures:
    from benchmarks.claims.monodr_points import point_arms

    return point_arms(workspace)


def run_depth_network(workspace: Workspace) -> Figures | None:
    from benchmarks.claims.monodr_depth import depth_sources

    return depth_sources(workspace)


street_claim = functools.partial(Claim, method="monodr", setup=STREETS, cost="long")
"""A claim that is tried on streets."""
table2_claim = functools.partial(street_claim, run=run_tables, setup=STREETS)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="monodr-near-supervised",
        method="monodr",
        sentence="Without 3D labels it reaches 12.50 / 7.34 / 4.98 3D AP, between two supervised detectors on easy cars.",
        source="MonoDR table 1",
        setup="KITTI's validation split of Chen et al. with masks of Mask R-CNN X-152 and depth maps of PackNet, as files.",
        cost="long",
        judge=never,
        full="""\
monolift autolabel --data KITTI --split ImageSets/val.txt --masks masks.json --depth packnet --preset paper \\
  --decoder cars.safetensors --set metric=lpips:lpips_alex.pth --workers 8 --out val
monolift evaluate --labels KITTI/training/label_2 --predictions val/label_2 --split ImageSets/val.txt""",
    ),
    table2_claim(
        id="monodr-depth-counts-most",
        sentence="The depth loss matters most: without it accuracy falls by more than 60 %.",
        source="MonoDR table 2",
        judge=judge_depth,
    ),
    table2_claim(
        id="monodr-depth-alone",
        sentence="Depth alone is not enough: accuracy is close to zero.",
        source="MonoDR table 2",
        judge=judge_depth_alone,
    ),
    table2_claim(
        id="monodr-silhouette",
        sentence="The silhouette loss has a strong impact.",
        source="MonoDR section 4.2",
        judge=judge_silhouette,
    ),
    table2_claim(
        id="monodr-box-and-pixel",
        sentence="The 2D box loss and the colour loss have less impact.",
        source="MonoDR section 4.2",
        judge=judge_box_and_pixel,
    ),
    street_claim(
        id="monodr-confidence",
        sentence="Weighting the 2D score by silhouette and protrusion raises accuracy by 11 to 16 %, mostly by the "
        "silhouette.",
        source="MonoDR table 3, eq. 8",
        judge=judge_confidence,
        run=run_confidences,
    ),
    Claim(
        id="monodr-masks",
        method="monodr",
        sentence="Worse segmentation costs accuracy.",
        source="MonoDR table 4",
        setup=STREETS
        + " Masks of five grades in place of two networks: exact, on grids of 14 and 7 cells of the box, eroded and "
        "dilated by 6 % of "
        "the height; the 2D box of a worse mask is drawn round it.",
        cost="long",
        judge=judge_masks,
        run=run_masks,
    ),
    Claim(
        id="monodr-rotations",
        method="monodr",
        sentence="Rotations end in local minima unless others are tried and judged by their looks.",
        source="MonoDR section 3.2",
        setup=SINGLE,
        cost="medium",
        judge=judge_rotations,
        run=run_rotations,
    ),
    Claim(
        id="monodr-occlusion",
        method="monodr",
        sentence="Occlusion ruins the rotation, because 2D boxes and masks hold the visible part only.",
        source="MonoDR section 4.3, figure 5a",
        setup=SINGLE + " Something hides 35 % of each car's extent.",
        cost="medium",
        judge=judge_hidden,
        run=run_hidden,
    ),
    Claim(
        id="monodr-loose-boxes",
        method="monodr",
        sentence="A 2D box that is too large makes the shape too large and shifts it.",
        source="MonoDR section 4.3, figure 5b",
        setup=SINGLE + " One random side of the 2D box lies 10 or 25 % of the extent too far out.",
        cost="long",
        judge=judge_boxes,
        run=run_boxes,
    ),
    Claim(
        id="monodr-cost",
        method="monodr",
        sentence="Most of the time goes into trying other rotations.",
        source="MonoDR section 4.3",
        setup="Processor time of 16 cars with the `paper` preset (crops of 64 pixels, 20 iterations), with and without them.",
        cost="cheap",
        judge=judge_cost,
        run=run_cost,
    ),
    street_claim(
        id="monodr-pseudo-lidar",
        sentence="The depth map as a point cloud, fitted by Hausdorff distance or Procrustes, is no better than the depth loss "
        "alone.",
        source="MonoDR section 4.2",
        setup=STREETS + " Clouds of 300 points of the own mask; the paper gives no formulas.",
        judge=judge_points,
        run=run_points,
    ),
    Claim(
        id="monodr-depth-network",
        method="monodr",
        sentence="A noisy monocular depth network is enough to replace 3D labels and LiDAR.",
        source="MonoDR abstract, section 5",
        setup="29 images of KITTI's validation split, masks made without labels; depth from ROI-10D's stream "
        "(SuperDepth, small, trained "
        "here by the LiDAR points of training drives, 640 x 192), from LiDAR, and none (the depth loss off, the start "
        "from the 2D box's "
        "height). Default preset. Cars matched by 2D IoU 0.5 to labels.",
        cost="long",
        judge=judge_depth_network,
        run=run_depth_network,
    ),
)
