"""MonoDR on real images with depth from a network that is trained here, from LiDAR, and without depth.

The KITTI folder needs ``lidar_depth`` (16-bit PNG, metres * 256) and ``masks`` beside ``training`` and ``ImageSets/val.txt``.
Images of training drives in folders beside it (``kitti_more``, ``kitti_video``) join the training of the depth network where
they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.claims.claim import Figures, Workspace
from safetensors.torch import load_file, save_file

from monolift.autolabel.job import Selection
from monolift.autolabel.observe import DepthFiles, MaskFiles, observe, read_calibrated
from monolift.data.formats.depth_maps import find_depth, read_depth
from monolift.data.formats.kitti_format import read_split
from monolift.data.formats.masks import open_masks
from monolift.data.kitti import KittiDataset, find_image, read_image
from monolift.geometry import iou_2d, iou_bev_paired
from monolift.methods.fitter import Observation
from monolift.methods.monodr import MonoDR, MonoDRConfig
from monolift.methods.roi10d.depth import SuperDepth
from monolift.typing import Tensor

WIDTH, HEIGHT = 640, 192
STEPS, BATCH, RATE = 300, 4, 3e-3
BESIDE = ("kitti_more", "kitti_video")
SCORE, MATCH = 0.5, 0.5
NO_DEPTH = {"depth_weight": 0.0, "escape_depth": 0.0, "scale_spread": 0.0}


def depth_sources(workspace: Workspace) -> Figures | None:
    """Errors of the boxes by source of depth, per seed; None without the images."""
    root = workspace.kitti
    if root is None or not all(
        (root / name).exists() for name in ("lidar_depth", "masks", "ImageSets/val.txt")
    ):
        return None
    held = set(read_split(root / "ImageSets" / "val.txt"))
    known = sorted(path.stem for path in (root / "lidar_depth").glob("*.png"))
    val = [name for name in known if name in held]
    train = [(root / "training", root / "lidar_depth", name) for name in known if name not in held]
    for other in BESIDE:
        folder = root.parent / other / "training"
        train += [
            (folder, folder / "lidar_depth", p.stem) for p in sorted((folder / "lidar_depth").glob("*.png"))
        ]
    figures: Figures = {"network error": [], "network": {}, "LiDAR": {}, "none": {}}
    seen = [_observations(root, name) for name in val]
    flat = [o for view in seen for o in view]
    for seed in workspace.seeds:
        network = _trained(train, seed, workspace.out / "monodr-depth" / f"stream-{seed}.safetensors")
        maps = [_predicted(network, view[0].image) if view else None for view in seen]
        figures["network error"].append(
            _map_error([o for view in seen for o in view[:1]], [m for m in maps if m is not None])
        )
        predicted = [replace(o, depth=m) for view, m in zip(seen, maps, strict=True) for o in view]  # type: ignore[arg-type]
        none = [replace(o, depth=torch.zeros_like(o.depth)) for o in flat]
        arms = (
            ("network", predicted, MonoDRConfig()),
            ("LiDAR", flat, MonoDRConfig()),
            ("none", none, replace(MonoDRConfig(), **NO_DEPTH)),  # type: ignore[arg-type]
        )
        for arm, observations, config in arms:
            for key, value in _errors(root, val, seen, observations, config, seed).items():
                figures[arm].setdefault(key, []).append(value)
    return figures


def _observations(root: Path, name: str) -> list[Observation]:
    photo = read_calibrated(root / "training", name)
    masks, depth = MaskFiles(open_masks(root / "masks")), DepthFiles(root / "lidar_depth")
    return list(observe(photo, masks, depth, Selection(score=SCORE)).observations)


def _trained(images: Sequence[tuple[Path, Path, str]], seed: int, path: Path) -> SuperDepth:
    """The depth stream, by L1 of log depth at LiDAR points; of its file where it was trained before."""
    torch.manual_seed(seed)
    network = SuperDepth("small", flip=False)
    if path.is_file():
        network.load_state_dict(load_file(path))
        return network.eval()
    inputs = torch.stack([_small(read_image(find_image(root, name))) for root, _, name in images])
    targets = [read_depth(find_depth(folder, name)) for _, folder, name in images]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=draw).tolist()
        flip = bool(torch.rand((), generator=draw) < 0.5)
        batch = inputs[rows].float() / 255
        logs = network.inverse_depth(batch.flip(-1) if flip else batch).log()
        losses = []
        for log, row in zip(logs.flip(-1) if flip else logs, rows, strict=True):
            target = targets[row]
            at = (target > 0).nonzero()
            at = at[torch.randint(len(at), (4000,), generator=draw)]
            place = 2 * (at.flip(1) + 0.5) / torch.tensor([target.shape[1], target.shape[0]]) - 1
            told = F.grid_sample(log[None], place[None, None].float(), align_corners=False)[0, 0, 0]
            losses.append((told + target[at[:, 0], at[:, 1]].log()).abs().mean())
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        schedule.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    return network.eval()


def _small(image: Tensor) -> Tensor:
    """(3, HEIGHT, WIDTH) uint8."""
    return F.interpolate(image[None].float(), (HEIGHT, WIDTH), mode="area")[0].round().to(torch.uint8)


@torch.no_grad()
def _predicted(network: SuperDepth, image: Tensor) -> Tensor:
    """(H, W) metres of each pixel of the image."""
    depth = network(_small(image)[None].float() / 255)
    return F.interpolate(depth, image.shape[1:], mode="bilinear", align_corners=False)[0, 0]


def _map_error(observations: Sequence[Observation], maps: Sequence[Tensor]) -> float:
    """Mean relative error at LiDAR points, of all images together."""
    off = [((m - o.depth).abs() / o.depth)[o.depth > 0] for o, m in zip(observations, maps, strict=True)]
    return float(torch.cat(off).mean())


def _errors(
    root: Path,
    names: Sequence[str],
    views: Sequence[Sequence[Observation]],
    observations: Sequence[Observation],
    config: MonoDRConfig,
    seed: int,
) -> dict[str, float]:
    """Fits, and what they are off by for the cars that a label matches in 2D."""
    fitted = MonoDR(config).fit(observations, seed)
    data = KittiDataset(root, names)
    overlaps, depths, first = [], [], 0
    for k, view in enumerate(views):
        rows = slice(first, first + len(view))
        first += len(view)
        sample = data[k]
        labels = [j for j, name in enumerate(sample.classes) if name == "Car"]
        if not view or not labels:
            continue
        truth, boxes2d = sample.boxes[labels], sample.boxes2d[labels]
        best, which = iou_2d(torch.stack([o.box2d for o in view]), boxes2d.float()).max(1)
        matched = best >= MATCH
        boxes = fitted.boxes[rows][matched]
        found = truth[which[matched]]
        overlaps.append(iou_bev_paired(boxes.to(torch.float64), found.to(torch.float64)))
        depths.append(((boxes.center - found.center)[:, 2] / found.center[:, 2]).abs())
    iou, depth = torch.cat(overlaps), torch.cat(depths)
    return {
        "matched": float(len(iou)),
        "depth": float(depth.median()),
        "iou": float(iou.mean()),
        "iou 0.3": float((iou > 0.3).double().mean()),
        "iou 0.5": float((iou > 0.5).double().mean()),
    }
