"""Decisions on labels, made in the browser, as KITTI files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monolift.data.formats.kitti_format import (
    KittiLabels,
    from_numbers,
    to_numbers,
    write_atomically,
    write_labels,
)
from monolift.data.kitti import labels_from_detections
from monolift.errors import InputError
from monolift.geometry import Boxes3D
from monolift.viewer.scene import Scene

STATUSES = ("open", "accepted", "rejected")
FARTHEST = 1000.0  # metres; no coordinate is larger
LONGEST = 100.0  # metres; no side is larger
SAME = 5e-4  # metres, radians; the page was told tenths of a millimetre


@dataclass(frozen=True)
class Decision:
    """What was decided on one object, and its box: centre and size (length, height, width) in metres, yaw in radians."""

    status: str
    center: tuple[float, ...]
    size: tuple[float, ...]
    yaw: float

    def to_dict(self) -> dict[str, Any]:
        return {"status": self.status, "center": self.center, "size": self.size, "yaw": self.yaw}


def parse_decisions(text: bytes, count: int) -> tuple[Decision, ...]:
    """``{"objects": [{"status", "center", "size", "yaw"}, ...]}`` with one entry for each of ``count`` objects.

    Raises:
        InputError: for anything else.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"review: not JSON ({error})") from None
    entries = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(entries, list) or len(entries) != count:
        got = len(entries) if isinstance(entries, list) else "none"
        raise InputError(f"review: expected a list of {count} objects, got {got}")
    return tuple(_decision(entry, f"review: objects[{k}]") for k, entry in enumerate(entries))


def _decision(entry: Any, where: str) -> Decision:
    if not isinstance(entry, dict) or entry.get("status") not in STATUSES:
        raise InputError(f"{where}: expected a status, one of {', '.join(STATUSES)}")
    center = _numbers(entry.get("center"), 3, -FARTHEST, FARTHEST, f"{where}.center")
    size = _numbers(entry.get("size"), 3, 0.01, LONGEST, f"{where}.size")
    (yaw,) = _numbers([entry.get("yaw")], 1, -math.tau, math.tau, f"{where}.yaw")
    return Decision(entry["status"], center, size, yaw)


def _numbers(values: Any, count: int, low: float, high: float, where: str) -> tuple[float, ...]:
    def fits(v: Any) -> bool:
        return isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high

    if not isinstance(values, list) or len(values) != count or not all(map(fits, values)):
        raise InputError(
            f"{where}: expected {count} number(s) from {low:g} to {high:g}, got {str(values)[:60]}"
        )
    return tuple(float(v) for v in values)


def reviewed_labels(scene: Scene, decisions: tuple[Decision, ...]) -> KittiLabels:
    """The rows of the accepted objects, all DontCare regions, and objects known in 2D only, which cannot be reviewed.

    A box that was not moved keeps its row as it stands in its file, digit by digit. A moved one gets new numbers to KITTI's
    two decimals, its 2D box projected anew; truncation, occlusion and score stay.
    """
    rows = scene.rows if scene.rows is not None else _rows_of(scene, scene.objects.boxes)
    known = np.flatnonzero(rows.boxed).tolist()
    boxes = scene.objects.boxes
    wanted = Boxes3D(
        torch.tensor([d.center for d in decisions], dtype=torch.float64).reshape(-1, 3),
        torch.tensor([d.size for d in decisions], dtype=torch.float64).reshape(-1, 3),
        torch.tensor([d.yaw for d in decisions], dtype=torch.float64),
    )
    moved = [_differs(boxes[i], wanted[i]) for i in range(len(decisions))]
    numbers, fresh = to_numbers(rows), to_numbers(_rows_of(scene, wanted))
    changing = [2, *range(3 if scene.camera is not None else 7, 14)]  # alpha; 2D box, size, place, yaw
    keep = ~rows.boxed
    for i, row in enumerate(known):
        keep[row] = decisions[i].status == "accepted"
        if moved[i]:
            numbers[row, changing] = np.round(fresh[i, changing], 2)
    return from_numbers(rows.names, numbers, rows.spelling).select(keep)


def _differs(a: Boxes3D, b: Boxes3D) -> bool:
    pairs = ((a.center, b.center), (a.size, b.size), (a.yaw, b.yaw))
    return any(bool(((p.double() - q).abs() > SAME).any()) for p, q in pairs)


def _rows_of(scene: Scene, boxes: Boxes3D) -> KittiLabels:
    """KITTI's rows of boxes with the scene's classes and scores; rounded like a result file."""
    objects = scene.objects
    scores = torch.ones(len(boxes)) if objects.scores is None else objects.scores
    if scene.camera is not None:
        boxes2d = boxes.projected(scene.camera)
        if boxes is objects.boxes and objects.boxes2d is not None:
            boxes2d = objects.boxes2d
    else:
        boxes2d = torch.zeros(len(boxes), 4)
    rows = labels_from_detections(
        replace(objects, boxes=boxes, scores=scores, boxes2d=boxes2d), objects.names
    )
    return from_numbers(rows.names, np.round(to_numbers(rows), 4))


def save_review(folder: Path, scene: Scene, decisions: tuple[Decision, ...]) -> tuple[Path, int]:
    """Writes label_2/NAME.txt with the accepted objects and review/NAME.json with every decision, each whole or not at all.

    Returns the label file and the number of accepted objects.
    """
    if Path(scene.name).name != scene.name or "\\" in scene.name:
        raise InputError(
            f"review: {scene.name!r} cannot be the name of a file"
        )  # it may come from somebody's JSON
    labels = reviewed_labels(scene, decisions)
    target = folder / "label_2" / f"{scene.name}.txt"
    notes = folder / "review" / f"{scene.name}.json"
    for file in (target, notes):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_labels(target, labels)
    content = json.dumps({"objects": [d.to_dict() for d in decisions]}, indent=1)
    write_atomically(notes, (content + "\n").encode())
    return target, sum(d.status == "accepted" for d in decisions)


def earlier_review(folder: Path, scene: Scene) -> list[dict[str, Any]] | None:
    """The decisions of an earlier session on the same objects, if there are any."""
    try:
        text = (folder / "review" / f"{scene.name}.json").read_bytes()
        return [d.to_dict() for d in parse_decisions(text, len(scene.objects))]
    except (OSError, InputError):
        return None  # the labels have changed since, or nobody was here


def check_target(folder: Path, inputs: tuple[Path, ...]) -> None:
    """Raises InputError where saving would overwrite what is being reviewed."""
    labels = (folder / "label_2").resolve()
    for path in inputs:
        if labels == path.resolve() or folder.resolve() == path.resolve():
            raise InputError(f"--save-to {folder}: holds the labels under review; choose another folder")
