"""The one path from images to detections: prepare, network, decode, back to the pixels of the source.

Everything that detects goes through `detect_samples`: the Python model, validation during training, the service. A caller that
compares networks (the check of an export) calls its stages: `run_network`, `decode`, `finish`.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from monolift.data.sample import Objects
from monolift.geometry import Camera
from monolift.inference.averaging import Averaging, Look, average
from monolift.methods.base import Detector, GivenBoxes, Prepared, in_source
from monolift.typing import Tensor, UInt8


@dataclass(frozen=True)
class Detected:
    """The objects of one image, and the seconds by stage; "network" and "decode" are those of its batches."""

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
    averaging: Averaging | None = None,
    given: Sequence[GivenBoxes] | None = None,
    half: bool = False,
) -> list[Detected]:
    """The objects of images of any sizes, in their order; 2D boxes in pixels of the images, tensors on the CPU.

    Images whose network images agree in size share a batch.

    score: score threshold; None keeps all. batch: images in one batch at most; None: no limit. meshes: with the
    meshes of methods that know shapes. averaging: several views of each image, whose detections are averaged; None: one.
    given: 2D boxes of each image in its pixels, which are lifted in place of what the detector finds itself; not with
    averaging. half: the network in half precision.
    """
    looks: list[Look] = []
    owner: list[int] = []  # of each look: the index of its image
    seconds: list[dict[str, float]] = []
    for i, (image, camera) in enumerate(zip(images, cameras, strict=True)):
        start = time.perf_counter()
        own = (
            averaging.looks(detector, image, camera) if averaging else [Look(detector.prepare(image, camera))]
        )
        seconds.append({"prepare": time.perf_counter() - start, "network": 0.0, "decode": 0.0})
        looks += own
        owner += [i] * len(own)
    views: list[dict[int, Objects]] = [{} for _ in images]
    for members in batches([look.prepared.image.shape for look in looks], batch):
        together = [looks[k].prepared for k in members]
        clock = [time.perf_counter()]
        raw = run_network(detector, together, half)
        clock.append(time.perf_counter())
        known = None
        if given is not None:
            known = [_in_view(given[owner[k]], looks[k].prepared) for k in members]
        found = decode(detector, raw, together, known)
        clock.append(time.perf_counter())
        for i in {owner[k] for k in members}:
            for stage, (begin, end) in zip(("network", "decode"), pairwise(clock), strict=True):
                seconds[i][stage] += end - begin
        for k, one in zip(members, found, strict=True):
            _, height, width = images[owner[k]].shape
            views[owner[k]][k] = looks[k].objects(one, width, height)
    results = []
    for image, camera, seen, spent in zip(images, cameras, views, seconds, strict=True):
        ordered = [seen[k] for k in sorted(seen)]
        objects = average(ordered) if averaging else ordered[0]
        results.append(Detected(_complete(detector, objects, image, camera, score, meshes), spent))
    return results


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
def run_network(detector: Detector, prepared: Sequence[Prepared], half: bool = False) -> dict[str, Tensor]:
    """The raw maps of images of one network size, float32; half: computed as float16 on a GPU, as bfloat16 on a CPU."""
    images = torch.stack([p.image for p in prepared]).to(detector.device)
    with torch.autocast(
        images.device.type, torch.float16 if images.is_cuda else torch.bfloat16, enabled=half
    ):
        raw = detector(images)
    raw = {
        name: value.float() if half and value.is_floating_point() else value for name, value in raw.items()
    }
    if images.is_cuda:
        torch.cuda.synchronize()  # so that the seconds are the network's
    return dict(raw)


@torch.no_grad()
def decode(
    detector: Detector,
    raw: dict[str, Tensor],
    prepared: Sequence[Prepared],
    given: Sequence[GivenBoxes] | None = None,
) -> list[Objects]:
    """The objects of each image, best first, 2D boxes in network pixels, on the CPU; given: lifted in place of its own."""
    cameras = Camera.stack([p.camera for p in prepared])
    found = detector.decode(raw, cameras) if given is None else detector.lift(raw, cameras, given)
    return [one.to("cpu") for one in found]


def _in_view(given: GivenBoxes, prepared: Prepared) -> GivenBoxes:
    """2D boxes of a source image in network pixels."""
    return replace(given, boxes=prepared.view.px_from_source(given.boxes.view(-1, 2, 2)).view(-1, 4))


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
    found = in_source(found, prepared.view, image.shape[2], image.shape[1])
    return _complete(detector, found, image, camera, score, meshes)


@torch.no_grad()
def _complete(
    detector: Detector,
    found: Objects,
    image: UInt8[Tensor, "3 H W"],
    camera: Camera,
    score: float | None,
    meshes: bool,
) -> Objects:
    found = found.filter(score)
    return detector.with_meshes(found, image, camera) if meshes else found
