"""Runs a detector over a labelled split, writes KITTI result files and scores them by the official protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monolift.data.formats.kitti_format import write_labels, write_split
from monolift.data.kitti import KittiDataset, labels_from_detections
from monolift.data.sample import Objects, Sample
from monolift.evaluation.ap import Row
from monolift.evaluation.table import evaluate
from monolift.files.images import write_image
from monolift.inference.detect import detect_samples
from monolift.methods.base import Detector
from monolift.render.draw.overlay import draw_result

IMAGES = 6  # drawn at each validation
SCORE = 0.25  # score threshold of the drawings where no curve gives one


def detect_sample(detector: Detector, sample: Sample) -> Objects:
    """All detections of one sample, whatever their score, without meshes; 2D boxes in the pixels of its image."""
    return detect_samples(detector, [sample.image], [sample.camera], meshes=False)[0].objects


def validate(
    detector: Detector,
    dataset: KittiDataset,
    out: Path,
    images: Path | None = None,
    tag: str = "",
) -> dict[str, float]:
    """Scores of a detector on a labelled split, AP R40 in percent, moderate, by class, metric and overlap, and "selection".

    out: folder of the result files, overwritten. images: where a few drawings of detections against labels go, named by
    ``tag``. "selection", which chooses the best checkpoint, is the mean over 2D strict, bird's eye loose and 3D loose of the
    detector's first class: 3D strict alone is too noisy on small splits.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[Sample, Objects]] = []
    shown = set(range(0, len(dataset), max(1, len(dataset) // IMAGES))) if images else set()
    for index in range(len(dataset)):
        sample = dataset[index]
        found = detect_sample(detector, sample)
        write_labels(out / f"{sample.name}.txt", labels_from_detections(found, detector.classes))
        if index in shown:
            kept.append((sample, found))
    split = out.with_name(out.name + ".txt")
    write_split(split, dataset.ids)
    table = evaluate(labels=dataset.root / "label_2", predictions=out, split=split)
    scores = {
        f"{row.class_name.lower()}_{row.metric}_{row.min_overlap:g}": row.ap_r40
        for row in table.rows
        if row.difficulty == "moderate" and row.metric != "aos"
    }
    first = detector.classes[0]
    keys = (("bbox", "strict"), ("bev", "loose"), ("3d", "loose"))
    chosen = [table.row(metric, first, "moderate", mode) for metric, mode in keys]
    scores["selection"] = sum(row.ap_r40 for row in chosen if row) / len(chosen)
    scores["score"] = best_score(chosen[0])
    for sample, found in kept:
        assert images is not None
        _draw(sample, found, scores["score"], images / f"{sample.name}_{tag}.jpg")
    return scores


def best_score(row: Row | None) -> float:
    """The threshold of a row's curve with the best F1, the harmonic mean of precision and recall; SCORE without a curve."""
    if row is None or not len(row.thresholds):
        return SCORE
    f1 = 2 * row.tp / (2 * row.tp + row.fp + row.fn).clip(1)
    return float(row.thresholds[int(f1.argmax())])


def draw_some(detector: Detector, samples: Sequence[Sample], out: Path, tag: str) -> None:
    """Draws detections against labels on a few images, evenly through ``samples``."""
    for index in range(0, len(samples), max(1, len(samples) // IMAGES)):
        sample = samples[index]
        _draw(sample, detect_sample(detector, sample), SCORE, out / f"{sample.name}_{tag}.jpg")


def _draw(sample: Sample, found: Objects, score: float, path: Path) -> None:
    drawn = draw_result(sample.image, sample.camera, found.filter(score), sample.objects)
    write_image(path, drawn, parents=True, quality=85)
