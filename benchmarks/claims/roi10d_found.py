"""What the bundled roi10d finds on a KITTI folder's val.txt: recall by bin (figure 8), and what bird's-eye NMS costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.claims.claim import Figures, Finding, Table, Workspace

from monolift.data.formats.kitti_format import read_split, write_labels
from monolift.data.kitti import KittiDataset, labels_from_detections
from monolift.evaluation.diagnostics import diagnose
from monolift.evaluation.load import Truth
from monolift.evaluation.table import Evaluation, evaluate

SCORE = 0.05
PUBLISHED, NONE = "NMS at 0.05", "without"
NMS = {PUBLISHED: 0.05, NONE: 1.0}
METRICS = (("bbox", "strict"), ("bev", "loose"), ("3d", "loose"))
LEVELS = ("easy", "moderate", "hard")


def found_on(kitti: Path, out: Path) -> dict[str, Evaluation]:
    """The evaluation with and without bird's-eye NMS; images whose results are in ``out`` are not detected again."""
    from monolift.inference import checkpoint, zoo
    from monolift.inference.averaging import Look
    from monolift.inference.detect import decode, run_network
    from monolift.methods.roi10d import ROI10D
    from monolift.methods.roi10d.codec import ROI10DCodec

    split = kitti / "ImageSets" / "val.txt"
    data = KittiDataset(kitti, split)
    detector = checkpoint.load(zoo.resolve("roi10d")).eval()
    assert isinstance(detector, ROI10D)
    folders = {way: out / way.replace(" ", "-") for way in NMS}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(data.ids):
        if (folders[NONE] / f"{name}.txt").exists():  # written last
            continue
        sample = data[k]
        prepared = detector.prepare(sample.image, sample.camera)
        raw = run_network(detector, [prepared])
        for way, threshold in NMS.items():
            detector.codec = ROI10DCodec(replace(detector.config, nms_bev=threshold))
            found = Look(prepared).objects(decode(detector, raw, [prepared])[0], *sample.size)
            assert found.scores is not None
            kept = found[found.scores >= SCORE]
            write_labels(folders[way] / f"{name}.txt", labels_from_detections(kept, detector.classes))
    labels = data.root / "label_2"
    return {way: evaluate(labels=labels, predictions=folder, split=split) for way, folder in folders.items()}


def run_fig8(workspace: Workspace) -> Figures | None:
    """Cars and those found, by distance and by rotation, beside the training images' counts."""
    if workspace.kitti is None:
        return None
    run = found_on(workspace.kitti, workspace.out / "roi10d-val")[PUBLISHED]
    sets, labels = workspace.kitti / "ImageSets", workspace.kitti / "training" / "label_2"
    training = Truth(labels, sets / "val.txt").read(read_split(sets / "train.txt")).labels
    car = diagnose(run.corpus, list(run.matched.values()), training)["Car"]
    figures: Figures = {}
    for kind, one in (("depth", car.recall_by_depth), ("rotation", car.recall_by_rotation)):
        title = next(name for name in one.found if name.startswith("bird's eye, loose"))
        figures[kind] = {
            "edges": one.edges,
            "objects": one.objects,
            "found": one.found[title],
            "training": one.training,
        }
    return figures


def judge_fig8(figures: Figures) -> Finding:
    """figures: {"depth" or "rotation": {"edges", "objects", "found", "training"}}."""
    near = {
        kind: _rank_correlation(_recall(one), one["training"], one["objects"])
        for kind, one in figures.items()
    }
    rows = []
    for kind, one in figures.items():
        for low, high, n, r, t in zip(
            one["edges"][:-1], one["edges"][1:], one["objects"], _recall(one), one["training"], strict=True
        ):
            rows.append([kind, f"{low:g} to {high:g}", str(n), f"{100 * r:.0f} %", str(t)])
    verdict = (
        "holds" if near["rotation"] > 0.5 > abs(near["depth"])
        else "holds in part" if near["rotation"] > 0.5 else "does not hold here"
    )  # fmt: skip
    return Finding(
        verdict,
        "Rank correlation of recall and training objects over the bins with ten objects or more: "
        f"rotation {near['rotation']:.2f}, depth {near['depth']:.2f}.",
        Table(["by", "bin", "cars", "found", "in training"], rows),
    )


def _recall(one: Figures) -> list[float]:
    return [f / n if n else 0.0 for f, n in zip(one["found"], one["objects"], strict=True)]


def _rank_correlation(a: list[float], b: list[float], weight: list[int]) -> float:
    use = [k for k, n in enumerate(weight) if n >= 10]
    x, y = (torch.tensor([float(v[k]) for k in use]).argsort().argsort().double() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x.norm() * y.norm()).clamp_min(1e-9))


def run_nms(workspace: Workspace) -> Figures | None:
    """AP R40 of Car, easy / moderate / hard, by way of NMS and metric; and the number of detections."""
    if workspace.kitti is None:
        return None
    figures: Figures = {}
    for way, run in found_on(workspace.kitti, workspace.out / "roi10d-val").items():
        rows = {metric: [run.row(metric, "Car", level, mode) for level in LEVELS] for metric, mode in METRICS}
        figures[way] = {
            metric: [row.ap_r40 if row else 0.0 for row in cells] for metric, cells in rows.items()
        }
        figures[way]["detections"] = len(run.corpus.det.labels)
    return figures


def judge_nms(figures: Figures) -> Finding:
    def cells(one: dict[str, Any]) -> list[str]:
        aps = [" / ".join(f"{v:.1f}" for v in one[metric]) for metric, _ in METRICS]
        return [f"{one['detections']:,}", *aps]

    lost = figures[NONE]["bbox"][1] - figures[PUBLISHED]["bbox"][1]
    gained = figures[PUBLISHED]["3d"][1] - figures[NONE]["3d"][1]
    rows = [[way, *cells(figures[way])] for way in NMS]
    return Finding(
        "holds" if lost > 0 else "does not hold here",
        f"Bird's-eye NMS at 0.05 costs {lost:+.1f} of 2D AP at moderate and gains {gained:+.1f} of 3D AP at 0.5. The model is "
        "the bundled one, seed 0.",
        Table(["", "detections", "2D 0.7", "bird's eye 0.5", "3D 0.5"], rows),
    )
