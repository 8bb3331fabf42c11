"""The one path from images to detections: prepare, network, decode, back to the pixels of the source.

Everything that detects goes through `detect_samples`: the Python model, validation during training, the service. Whoever
compares networks (the check of an export) calls its stages: `run_network`, `decode`, `finish`.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from monolift.data.sample import Objects
from monolift.geometry import Camera
from monolift.methods.base import Detector, Prepared, in_source
from monolift.typing import Tensor, UInt8


@dataclass(frozen=True)
class Detected:
    """The objects of one image, and the seconds by stage; "network" and "decode" are those of its batch."""

    objects: Objects
    seconds: dict[str, float]


def detect_samples(
    detector: Detector,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    cameras: Sequence[Camera],
    *,
    score: float | None = None,
    batch: int | None = None,
    meshes: bool = True,
) -> list[Detected]:
    """The objects of images of any sizes, in their order; 2D boxes in pixels of the images, tensors on the CPU.

    Images whose network images agree in size share a batch.

    score: the lowest score that is kept; None keeps all. batch: images in one batch at most; None: no limit. meshes: with the
    meshes of methods that know shapes.
    """
    prepared, seconds = [], []
    for image, camera in zip(images, cameras, strict=True):
        start = time.perf_counter()
        prepared.append(detector.prepare(image, camera))
        seconds.append(time.perf_counter() - start)
    results: dict[int, Detected] = {}
    for members in batches([p.image.shape for p in prepared], batch):
        together = [prepared[i] for i in members]
        clock = [time.perf_counter()]
        raw = run_network(detector, together)
        clock.append(time.perf_counter())
        found = decode(detector, raw, together)
        clock.append(time.perf_counter())
        network, decoding = (b - a for a, b in pairwise(clock))
        for i, one in zip(members, found, strict=True):
            objects = finish(detector, one, prepared[i], images[i], cameras[i], score, meshes)
            results[i] = Detected(objects, {"prepare": seconds[i], "network": network, "decode": decoding})
    return [results[i] for i in range(len(images))]


def batches(keys: Sequence[Hashable], largest: int | None = None) -> Iterator[list[int]]:
    """Indices that share a key, ``largest`` at a time; keys in order of appearance."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    for members in groups.values():
        step = largest or len(members)
        for first in range(0, len(members), step):
            yield members[first : first + step]


@torch.no_grad()
def run_network(detector: Detector, prepared: Sequence[Prepared]) -> dict[str, Tensor]:
    """The raw maps of images of one network size."""
    images = torch.stack([p.image for p in prepared]).to(detector.device)
    raw = detector(images)
    if images.is_cuda:
        torch.cuda.synchronize()  # so that the seconds are the network's
    return dict(raw)


@torch.no_grad()
def decode(detector: Detector, raw: dict[str, Tensor], prepared: Sequence[Prepared]) -> list[Objects]:
    """The objects of each image, best first, 2D boxes in network pixels, on the CPU."""
    found = detector.decode(raw, Camera.stack([p.camera for p in prepared]))
    return [one.to("cpu") for one in found]


@torch.no_grad()
def finish(
    detector: Detector,
    found: Objects,
    prepared: Prepared,
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    score: float | None = None,
    meshes: bool = True,
) -> Objects:
    """The decoded objects of one image as its own: 2D boxes in its pixels, at least this score, with meshes."""
    found = in_source(found, prepared.view, image.shape[2], image.shape[1]).filter(score)
    return detector.with_meshes(found, image, camera) if meshes else found
