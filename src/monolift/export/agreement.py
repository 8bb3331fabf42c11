"""Comparison of PyTorch and an exported model on the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monolift import runtime
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Objects
from monolift.export.backend import Exported
from monolift.files.renamed import renamed
from monolift.geometry import Camera
from monolift.inference.detect import decode, finish, run_network
from monolift.inference.model import Model
from monolift.methods.base import Detector
from monolift.training.validate import validate
from monolift.typing import Tensor, UInt8

SAME_METRES = 2.0  # centres further apart are different objects

CameraImage = tuple[Tensor, Camera]  # (3, H, W) uint8 RGB, of any size each


@dataclass(frozen=True)
class Agreement:
    """How far an exported model is from PyTorch on some images.

    raw: largest difference of each raw map; boxes: objects compared, and lost: those without a partner in the exported model's
    result, or the other way round; center, size: metres; yaw: radians; score: largest differences over pairs.
    seconds: of the network per image, (PyTorch, exported), medians of one run.
    """

    raw: dict[str, float]
    boxes: int
    lost: int
    center: float
    size: float
    yaw: float
    score: float
    seconds: tuple[float, float]


def agreement(model: Model, exported: runtime.Model, images: Sequence[CameraImage]) -> Agreement:
    """PyTorch and the exported model on the same images: raw maps, and boxes above the model's score.

    Where the runtime decodes the method itself its boxes are compared, so that all of it is checked, else the raw maps are
    decoded by PyTorch's code. The first image is also run twice in one batch.
    """
    raw_error: dict[str, float] = {}
    pairs, lost, seconds = [], 0, []
    other = Exported(model.detector, exported)
    for k, (image, camera) in enumerate(images):
        batch = 2 if k == 0 else 1
        ours = _outputs(model.detector, image, camera, batch, model.score)
        theirs = _outputs(other, image, camera, batch, model.score)
        seconds.append((ours.seconds, theirs.seconds))
        for name, maps in theirs.raw.items():
            error = float((maps - ours.raw[name]).abs().max())
            raw_error[name] = float(np.maximum(raw_error.get(name, 0.0), error))  # NaN stays NaN
        if exported.method in runtime.model.DECODERS:
            found = _as_arrays(exported.detect(_rows_last(image), camera.matrix.numpy(), model.score))
        else:
            found = _arrays(theirs.objects)
        matched, alone = _pairs(_arrays(ours.objects), found)
        pairs += matched
        lost += alone
    differences = np.array(pairs).reshape(-1, 4)
    center, size, yaw, score = differences.max(0) if len(differences) else np.zeros(4)
    torch_s, other_s = (statistics.median(times) for times in zip(*seconds[1:] or seconds, strict=True))
    return Agreement(
        raw_error, len(pairs), lost, float(center), float(size), float(yaw), float(score), (torch_s, other_s)
    )


@dataclass(frozen=True)
class _Outputs:
    raw: dict[str, Tensor]
    objects: Objects
    seconds: float


def _outputs(
    detector: Detector, image: UInt8[Tensor, "3 H W"], camera: Camera, batch: int, score: float
) -> _Outputs:
    """Of an image, ``batch`` times in one batch: the raw maps, the first one's objects, the network's seconds."""
    prepared = [detector.prepare(image, camera)] * batch
    start = time.perf_counter()
    raw = run_network(detector, prepared)
    seconds = time.perf_counter() - start
    found = decode(detector, raw, prepared)[0]
    return _Outputs(raw, finish(detector, found, prepared[0], image, camera, score, meshes=False), seconds)


def compare_ap(
    model: Model, exported: runtime.Model, split: KittiDataset, scratch: Path
) -> dict[str, tuple[float, float]]:
    """Moderate AP R40, percent, of PyTorch and of the exported model, by class, metric and overlap."""
    ours = validate(model.detector, split, scratch / "torch")
    theirs = validate(Exported(model.detector, exported), split, scratch / "exported")
    return {key: (ours[key], theirs[key]) for key in ours if key not in ("selection", "score")}


def _rows_last(image: UInt8[Tensor, "3 H W"]) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _arrays(found: Objects) -> dict[str, np.ndarray]:
    boxes = found.boxes
    assert found.scores is not None
    named = {"center": boxes.center, "size": boxes.size, "yaw": boxes.yaw, "score": found.scores}
    names = np.array(found.classes, dtype=object)
    return {**{k: v.double().numpy() for k, v in named.items()}, "class": names}


def _as_arrays(found: runtime.Found) -> dict[str, np.ndarray]:
    return {
        "center": found.center,
        "size": found.size,
        "yaw": found.yaw,
        "score": found.scores,
        "class": np.array(found.classes, dtype=object),
    }


def _pairs(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> tuple[list[tuple[float, ...]], int]:
    """Differences of center, size, yaw, score of objects of one class that are each other's nearest, and how many have none."""
    if not len(a["score"]) or not len(b["score"]):
        return [], len(a["score"]) + len(b["score"])
    distance = np.linalg.norm(a["center"][:, None] - b["center"], axis=2)
    distance[a["class"][:, None] != b["class"]] = np.inf
    pairs: list[tuple[float, ...]] = []
    for i, j in enumerate(distance.argmin(1)):
        if distance[:, j].argmin() == i and distance[i, j] < SAME_METRES:
            turn = (a["yaw"][i] - b["yaw"][j] + np.pi) % (2 * np.pi) - np.pi
            worst = float(np.abs(a["size"][i] - b["size"][j]).max())
            pairs.append((float(distance[i, j]), worst, abs(turn), abs(a["score"][i] - b["score"][j])))
    return pairs, len(a["score"]) + len(b["score"]) - 2 * len(pairs)


__getattr__ = renamed(__name__, Picture="CameraImage")
