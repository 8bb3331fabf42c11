"""Test-time augmentation: AP, best score and CPU seconds of a model with one view of each image and with several.

    python -m benchmarks.averaging smoke KITTI val.txt OUT

Every view is computed once and every combination averaged from them. Prints a row for each: AP R40 of the first class (easy /
moderate / hard; 2D at its strict IoU, bird's eye and 3D at the loose one, 3D at the strict one), the score of the best F1 (2D,
moderate), F1 there and, cross-checked, F1 at the score chosen on the other half of the images, and CPU seconds an image (one
thread, preparing and network). OUT gets a folder of KITTI result files for each.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from monolift.data.formats.kitti_format import write_labels, write_split
from monolift.data.kitti import KittiDataset, labels_from_detections
from monolift.data.sample import Objects
from monolift.evaluation.ap import Row
from monolift.evaluation.table import Evaluation, evaluate
from monolift.inference.averaging import Averaging, average
from monolift.inference.detect import decode, run_network
from monolift.inference.model import Model, load

ZOOMS = (0.8, 1.0, 1.3)
VARIANTS = {
    "plain": Averaging((1.0,)),
    "flip": Averaging((1.0,), flip=True),
    "0.8,1": Averaging((0.8, 1.0)),
    "1,1.3": Averaging((1.0, 1.3)),
    "0.8,1,1.3": Averaging(ZOOMS),
    "0.8,1,1.3 flip": Averaging(ZOOMS, flip=True),
}
View = tuple[float, bool]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(options.model, "cpu")
    dataset = KittiDataset(options.data, options.split)
    seconds: dict[View, float] = {}
    for variant in VARIANTS:
        (options.out / variant).mkdir(parents=True, exist_ok=True)
    for k in range(len(dataset)):
        views = _views(model, dataset, k, seconds)
        name = dataset.ids[k]
        for variant, averaging in VARIANTS.items():
            mean = average([views[z, flip] for flip in _flips(averaging) for z in averaging.zooms])
            found = mean if variant != "plain" else views[1.0, False]
            write_labels(
                options.out / variant / f"{name}.txt", labels_from_detections(found, model.detector.classes)
            )
        if k % 50 == 49:
            print(f"{k + 1} of {len(dataset)} images", flush=True)
    for variant, averaging in VARIANTS.items():
        spent = sum(seconds[z, flip] for flip in _flips(averaging) for z in averaging.zooms) / len(dataset)
        print(f"{variant:16s} {row(dataset, options.out / variant)}  {spent:.2f} s", flush=True)


def _flips(averaging: Averaging) -> tuple[bool, ...]:
    return (False, True) if averaging.flip else (False,)


def _views(model: Model, dataset: KittiDataset, k: int, seconds: dict[View, float]) -> dict[View, Objects]:
    """Detections of one image in every view; adds each view's CPU seconds to ``seconds``."""
    sample = dataset[k]
    found: dict[View, Objects] = {}
    for zoom in ZOOMS:
        start = time.process_time()
        looks = Averaging((zoom,), flip=True).looks(model.detector, sample.image, sample.camera)
        preparing = (time.process_time() - start) / 2
        for look in looks:
            start = time.process_time()
            raw = run_network(model.detector, [look.prepared])
            (one,) = decode(model.detector, raw, [look.prepared])
            key = zoom, look.mirrored
            found[key] = look.objects(one, *sample.size)
            seconds[key] = seconds.get(key, 0.0) + preparing + time.process_time() - start
    return found


def row(dataset: KittiDataset, predictions: Path) -> str:
    """AP, best score and F1 of one folder of result files, as text."""
    table = _table(dataset, predictions, dataset.ids)
    first = table.rows[0].class_name
    aps = [
        "/".join(
            f"{_row(table, metric, first, level, mode).ap_r40:.2f}" for level in ("easy", "moderate", "hard")
        )
        for metric, mode in (("bbox", "strict"), ("bev", "loose"), ("3d", "loose"), ("3d", "strict"))
    ]
    whole = _row(table, "bbox", first, "moderate", "strict")
    best = best_threshold(whole)
    halves = [_table(dataset, predictions, dataset.ids[k::2]) for k in (0, 1)]
    rows = [_row(half, "bbox", first, "moderate", "strict") for half in halves]
    crossed = sum(f1_at(one, best_threshold(other)) for one, other in (rows, rows[::-1])) / 2
    return "  ".join(aps) + f"  score {best:.3f} F1 {f1_at(whole, best):.3f} crossed {crossed:.3f}"


def _table(dataset: KittiDataset, predictions: Path, ids: list[str]) -> Evaluation:
    split = predictions.with_name(predictions.name + ".txt")
    write_split(split, list(ids))
    return evaluate(labels=dataset.root / "label_2", predictions=predictions, split=split)


def _row(table: Evaluation, metric: str, name: str, level: str, mode: str) -> Row:
    found = table.row(metric, name, level, mode)
    assert found is not None
    return found


def f1(row: Row) -> np.ndarray:
    """Harmonic mean of precision and recall at each of a row's thresholds."""
    return 2 * row.tp / (2 * row.tp + row.fp + row.fn).clip(1)


def best_threshold(row: Row) -> float:
    return float(row.thresholds[int(f1(row).argmax())])


def f1_at(row: Row, score: float) -> float:
    """F1 at the lowest of the row's thresholds that is at least ``score``."""
    at = [k for k, threshold in enumerate(row.thresholds) if threshold >= score]
    return float(f1(row)[at[-1]]) if at else 0.0


if __name__ == "__main__":
    main()
