"""Does the loop close? SMOKE trained on labels that MonoDR made, against the same SMOKE on the true ones.

    python benchmarks/autolabel_loop.py --out runs/loop [--images 200] [--val 100] [--epochs 30] [--depth-error 0.03]
    python benchmarks/autolabel_loop.py --out runs/loop_real --kitti KITTI --made labels/label_2
        --split train.txt --val-split val.txt

The first on a synthetic world: images with instance masks (exact, with classes) and depth maps (off by a factor per image,
log-normal with standard deviation --depth-error, as those of a depth network are). The auto-labeller sees images, cameras,
masks and depth, no label.
The second on images of one's own, with labels that `monolift autolabel` made of the split's ids before.
Both detectors see the same images in the same order and are scored on the same true validation labels: Car, AP R40, moderate.
Whatever is there already is not made again: a run that was killed goes on. One seed; the spread between seeds is not measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from monolift import autolabel
from monolift.data.formats.depth_maps import encode_depth, read_depth
from monolift.data.formats.kitti_format import (
    KittiLabels,
    from_numbers,
    read_labels,
    read_split,
    to_numbers,
    write_labels,
    write_split,
)
from monolift.data.kitti import KittiDataset
from monolift.files.progress import Progress
from monolift.files.settings import apply_settings
from monolift.inference import checkpoint
from monolift.methods import get_method
from monolift.methods.monodr import PRESETS, MonoDRConfig
from monolift.training.options import choose
from monolift.training.train import train
from monolift.training.validate import validate
from monolift.world.synthetic import World, write_world

KEYS = ("car_bev_0.5", "car_3d_0.5", "car_bev_0.7", "car_3d_0.7", "car_bbox_0.7")


def main() -> None:
    options = _options()
    source, made = (options.kitti, options.made) if options.kitti else _synthetic(options.out, options)
    source = source / "training" if (source / "training").is_dir() else source
    train_ids, val_ids = (read_split(f) for f in (options.split, options.val_split))
    data = {"true": options.out / "data_true", "auto": options.out / "data_auto"}
    for kind, folder in data.items():
        _data_set(source, folder, (train_ids, val_ids), made if kind == "auto" else None, options.confidence)
    scores = {kind: _trained(options.out, folder, kind, options) for kind, folder in data.items()}
    _report(scores, len(train_ids), len(val_ids), options)


def _synthetic(root: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """A world with its splits, and the labels that are made of its masks and disturbed depth maps."""
    names = [f"{k:06d}" for k in range(options.images + options.val)]
    world = World(seed=options.seed, width=options.width, height=options.height, masks=True, depth=True)
    with Progress(len(names), "synthetic images") as progress:
        for _ in write_world(root / "world", world, len(names), options.workers):
            progress.advance()
    options.split, options.val_split = root / "train.txt", root / "val.txt"
    write_split(options.split, names[: options.images])
    write_split(options.val_split, names[options.images :])
    _disturb_depth(root, names[: options.images], options.depth_error)
    _label(root, options)
    return root / "world", root / "labels" / "label_2"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--kitti", type=Path, help="KITTI folder with true labels, instead of a synthetic world"
    )
    parser.add_argument("--made", type=Path, help="its made labels, ID.txt")
    parser.add_argument("--split", type=Path, help="its ids to train on")
    parser.add_argument("--val-split", type=Path, help="its ids to score on")
    parser.add_argument("--images", type=int, default=200, help="training images")
    parser.add_argument("--val", type=int, default=100, help="validation images")
    parser.add_argument("--width", type=int, default=1242)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], help="change of SMOKE or its recipe, key=value")
    parser.add_argument("--fit", action="append", default=[], help="change of MonoDR, key=value")
    parser.add_argument("--init", type=Path, help="weights to start SMOKE from")
    parser.add_argument("--depth-error", type=float, default=0.03)
    parser.add_argument("--confidence", type=float, default=0.9, help="labels below become DontCare regions")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.kitti and None in (options.made, options.split, options.val_split):
        parser.error("--kitti needs --made, --split and --val-split")
    return options


def _disturb_depth(root: Path, names: Sequence[str], error: float) -> None:
    """Depth maps as a network would give them: each image's off by a factor of its own."""
    folder = root / "depth"
    folder.mkdir(exist_ok=True)
    for name in names:
        if not (folder / f"{name}.png").exists():
            factor = float(np.exp(np.random.default_rng(int(name)).normal(0, error)))
            depth = read_depth(root / "world" / "training" / "depth_2" / f"{name}.png") * factor
            Image.fromarray(encode_depth(depth)).save(folder / f"{name}.png")


def _label(root: Path, options: argparse.Namespace) -> None:
    config, _ = apply_settings((PRESETS["default"](), MonoDRConfig()), options.fit)
    job = autolabel.Job(
        data=root / "world",
        masks=str(_masks(root)),
        depth=str(root / "depth"),
        out=root / "labels",
        config=config,
        formats=("kitti", "json"),
    )
    total, outcomes = autolabel.run(job, split=root / "train.txt", workers=options.workers)
    with Progress(total, "labelled images") as progress:
        for outcome in outcomes:
            if outcome.error:
                raise SystemExit(outcome.error)
            progress.advance()


def _masks(root: Path) -> Path:
    """The world's id maps with a class for each number, as a 2D detector gives it; nothing else of the labels."""
    source, folder = root / "world" / "training", root / "masks"
    folder.mkdir(exist_ok=True)
    table = {}
    for path in sorted((source / "instance_2").glob("*.png")):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
        names = read_labels(source / "label_2" / f"{path.stem}.txt").names
        table[path.stem] = [{"id": k, "class": name} for k, name in enumerate(names, 1)]
    (folder / "classes.json").write_text(json.dumps(table))
    return folder


def _data_set(
    source: Path, folder: Path, ids: tuple[Sequence[str], Sequence[str]], made: Path | None, confidence: float
) -> None:
    """A KITTI folder of the same images: with true labels, or with made ones for training."""
    (folder / "label_2").mkdir(parents=True, exist_ok=True)
    for shared in ("image_2", "calib"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to((source / shared).resolve())
    for k, names in enumerate(ids):
        for name in names:
            if made and k == 0:
                labels = _sure(read_labels(made / f"{name}.txt"), confidence)
            else:
                labels = read_labels(source / "label_2" / f"{name}.txt")
            write_labels(folder / "label_2" / f"{name}.txt", labels)


def _sure(labels: KittiLabels, confidence: float) -> KittiLabels:
    """Result rows as label rows; objects of low confidence become regions that are not looked at."""
    if not len(labels) or labels.score is None:
        return KittiLabels.empty(False)
    numbers = to_numbers(replace(labels, score=None))
    numbers[:, :2] = 0
    names = []
    for row, name, score in zip(numbers, labels.names, labels.score, strict=True):
        names.append(name if score >= confidence else "DontCare")
        if score < confidence:
            row[[0, 1, 2, *range(7, 14)]] = [-1, -1, -10, -1, -1, -1, -1000, -1000, -1000, -10]
    return from_numbers(names, numbers)


def _trained(root: Path, data: Path, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Validation scores of SMOKE after training on a folder's labels."""
    out, note = root / f"smoke_{kind}", root / f"smoke_{kind}.json"
    if not note.exists():
        chosen = choose(
            get_method("smoke"), "default", settings=("classes=Car", f"epochs={options.epochs}", *options.set)
        )
        train(
            chosen.config,
            chosen.recipe,
            data,
            out,
            keep=chosen.keep,
            measure=chosen.measure,
            split=options.split,
            init=options.init,
            resume=(out / "last").exists(),
        )
        scores = validate(checkpoint.load(out / "last"), KittiDataset(data, options.val_split), out / "val")
        note.write_text(json.dumps(scores))
    return dict(json.loads(note.read_text()))


def _report(scores: dict[str, dict[str, float]], images: int, val: int, options: argparse.Namespace) -> None:
    off = "" if options.kitti else f"depth off by {options.depth_error:.0%}, "
    print(f"{images} training and {val} validation images, {options.epochs} epochs, {off}"
          f"labels of confidence >= {options.confidence}")  # fmt: skip
    print(f"{'':14}{'true labels':>12}{'made labels':>12}{'ratio':>8}")
    for key in KEYS:
        true, made = (scores[kind].get(key, float("nan")) for kind in ("true", "auto"))
        print(f"{key:14}{true:12.2f}{made:12.2f}{made / true if true else float('nan'):8.2f}")


if __name__ == "__main__":
    main()
