"""Tracking measured on labelled sequences: identities, and how much boxes jump, before and after.

    python benchmarks/tracking.py KITTI --frames frames.tsv
    python benchmarks/tracking.py KITTI --frames frames.tsv --detections RESULTS

KITTI is a folder in the layout of KITTI's object benchmark whose images are successive frames; frames.tsv names each id's
sequence and frame. KITTI's tracking labels give an object the same extents in every frame: extents and class are its
identity here. Detections are the labels with noise (distance, side, heading, extents, turned round, missed), or
a folder of result files.

MOTA and IDF1 (Bernardin and Stiefelhagen 2008; Ristani et al. 2016) with matches of 2D IoU 0.5 or more. Jitter is the change,
from one frame to the next, of a matched box's error: what a viewer sees as shaking.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from monolift.data.formats.kitti_format import KittiLabels, read_labels
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Objects, Sample
from monolift.geometry import Boxes3D, iou_2d, wrap
from monolift.inference.tracking import Tracker

SEEN = ("Car", "Van", "Truck", "Pedestrian", "Cyclist")
FPS = 10.0


def sequences(root: Path, frames: Path) -> Iterator[list[Sample]]:
    """The samples of each sequence in order, gaps beginning a new one."""
    rows = [line.split("\t") for line in frames.read_text().splitlines()[1:]]
    dataset = {s: k for k, s in enumerate(KittiDataset(root).ids)}
    data = KittiDataset(root)
    current: list[Sample] = []
    last: tuple[str, int] | None = None
    for name, sequence, frame, *_ in rows:
        if name not in dataset:
            continue
        if last is not None and (sequence, int(frame)) != (last[0], last[1] + 1) and current:
            yield current
            current = []
        current.append(data[dataset[name]])
        last = (sequence, int(frame))
    if current:
        yield current


def identities(sample: Sample) -> list[tuple[str, float, float, float]]:
    """An object's class and extents, which KITTI keeps through a sequence."""
    sizes = sample.boxes.size.tolist()
    return [(name, *(round(v, 4) for v in size)) for name, size in zip(sample.classes, sizes, strict=True)]


def noisy(sample: Sample, rng: np.random.Generator) -> Objects:
    """Detections as a network gives them: the labels, disturbed. A car's distance errs alike for a while, too."""
    kept = [
        k for k, name in enumerate(sample.classes)
        if name in SEEN and sample.occlusion[k] < 2 and rng.random() > 0.15
    ]  # fmt: skip
    boxes = sample.boxes[torch.tensor(kept, dtype=torch.long)]
    n = len(kept)

    def normal(scale: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, scale, (n, *shape))).float()

    center = boxes.center * torch.exp(normal(0.05))[:, None]
    center[:, 0] += 0.01 * center[:, 2] * normal(1.0)
    turned = torch.from_numpy(rng.random(n) < 0.05).float() * math.pi
    yaw = wrap(boxes.yaw + normal(math.radians(8)) + turned)
    noisy_boxes = Boxes3D(center, boxes.size * torch.exp(normal(0.05, 3)), yaw)
    scores = torch.from_numpy(rng.uniform(0.3, 1.0, n)).float()
    boxes2d = sample.boxes2d[kept] + 2 * normal(1.0, 4)
    return Objects.named(noisy_boxes, [sample.classes[k] for k in kept], scores=scores, boxes2d=boxes2d)


def detected(folder: Path, sample: Sample) -> Objects:
    """A result file's detections."""
    rows: KittiLabels = read_labels(folder / f"{sample.name}.txt")
    keep = [k for k, name in enumerate(rows.names) if name in SEEN]
    size = torch.from_numpy(rows.size_hwl[keep][:, [2, 0, 1]]).float()
    center = torch.from_numpy(rows.bottom[keep]).float()
    center[:, 1] -= size[:, 1] / 2
    boxes = Boxes3D(center, size, torch.from_numpy(rows.rotation_y[keep]).float())
    assert rows.scores is not None
    columns = {
        "scores": torch.from_numpy(rows.scores[keep]).float(),
        "boxes2d": torch.from_numpy(rows.boxes2d[keep]).float(),
    }
    return Objects.named(boxes, [rows.names[k] for k in keep], **columns)


class Score:
    """Counts of one tracker over all sequences."""

    def __init__(self) -> None:
        self.truths = self.misses = self.false = self.switches = 0
        self.found = 0
        self.pairs: dict[tuple[object, object], int] = defaultdict(int)
        self.jumps: dict[str, list[float]] = defaultdict(list)
        self.errors: dict[str, list[float]] = defaultdict(list)
        self._last: dict[object, tuple[int, object, np.ndarray]] = {}

    def add(self, number: int, sample: Sample, found: Objects, sequence: int) -> None:
        """One frame; identities are unique within ``sequence``."""
        assert found.boxes2d is not None
        names = identities(sample)
        wanted = [k for k, name in enumerate(sample.classes) if name in SEEN and sample.occlusion[k] < 2]
        overlap = iou_2d(sample.boxes2d, found.boxes2d).numpy() if len(found) else np.zeros((len(names), 0))
        rows, columns = linear_sum_assignment(np.where(overlap >= 0.5, -overlap, 1.0))
        matches = {i: j for i, j in zip(rows, columns, strict=True) if overlap[i, j] >= 0.5}
        self.truths += len(wanted)
        self.misses += sum(i not in matches for i in wanted)
        self.false += len(found) - len(matches)
        self.found += len(found) - sum(i in matches for i in range(len(names)) if i not in wanted)
        ids = found.tracks.tolist() if found.tracks is not None else [None] * len(found)
        for i, j in matches.items():
            if i not in wanted:
                continue
            identity, label = (sequence, *names[i]), (sequence, ids[j])
            if ids[j] is not None:
                self.pairs[identity, label] += 1
            error = self._error(sample, i, found, j)
            last = self._last.get(identity)
            if last is not None:
                self.switches += last[1] != label
                if last[0] == number - 1:
                    self._jump(error, last[2], float(sample.boxes.center[i].norm()))
            self._last[identity] = (number, label, error)
            self.errors["distance %"].append(100 * abs(error[2]) / float(sample.boxes.center[i, 2]))
            self.errors["heading deg"].append(abs(math.degrees(math.remainder(error[3], math.tau))))

    def _error(self, sample: Sample, i: int, found: Objects, j: int) -> np.ndarray:
        center = (found.boxes.center[j] - sample.boxes.center[i]).tolist()
        return np.array(
            [*center, float(found.boxes.yaw[j] - sample.boxes.yaw[i]), *found.boxes.size[j].log().tolist()]
        )

    def _jump(self, error: np.ndarray, before: np.ndarray, distance: float) -> None:
        step = error - before
        turn = abs(math.remainder(step[3], math.tau))
        self.jumps["position m"].append(float(np.linalg.norm(step[:3])))
        self.jumps["heading deg"].append(math.degrees(turn))
        self.jumps["turned round %"].append(100.0 * (turn > math.pi / 2))
        self.jumps["length %"].append(100 * abs(step[4]))

    def report(self) -> dict[str, float]:
        """Ratios, medians and means."""
        out: dict[str, float] = {"recall": 1 - self.misses / self.truths}
        if self.pairs:
            truths, labels = (list(dict.fromkeys(pair[s] for pair in self.pairs)) for s in (0, 1))
            shared = np.zeros((len(truths), len(labels)))
            for (a, b), count in self.pairs.items():
                shared[truths.index(a), labels.index(b)] = count
            rows, columns = linear_sum_assignment(-shared)
            out["mota"] = 1 - (self.misses + self.false + self.switches) / self.truths
            out["idf1"] = 2 * shared[rows, columns].sum() / (self.truths + self.found)
            out["switches"] = self.switches
        for name, values in self.jumps.items():
            out[f"jitter, {name}"] = float(np.mean(values) if "round" in name else np.median(values))
        for name, values in self.errors.items():
            out[f"error, {name}"] = float(np.median(values))
        return {k: round(v, 3) for k, v in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--detections", type=Path, help="result files instead of labels with noise")
    parser.add_argument("--score", type=float, default=0.1, help="least score of a detection")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scores = {"detections": Score(), "tracks": Score()}
    for sequence, samples in enumerate(sequences(options.root, options.frames)):
        tracker = Tracker()
        for number, sample in enumerate(samples):
            found = noisy(sample, rng) if options.detections is None else detected(options.detections, sample)
            found = found.filter(options.score)
            scores["detections"].add(number, sample, found, sequence)
            scores["tracks"].add(number, sample, tracker.update(found, sample.camera, number / FPS), sequence)
    print(json.dumps({name: score.report() for name, score in scores.items()}, indent=2))


if __name__ == "__main__":
    main()
