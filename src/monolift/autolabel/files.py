"""Output files of a labelled image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from monolift.autolabel.images import animation, before_and_after
from monolift.autolabel.job import FORMATS, Job
from monolift.autolabel.observe import View
from monolift.data.formats.kitti_format import write_atomically
from monolift.files.images import write_image
from monolift.files.json_text import format_json
from monolift.geometry import Boxes3D
from monolift.inference.results import Results3D
from monolift.methods.monodr import FittedObjects
from monolift.render.glb import write_glb

SCHEMA = "monolift.autolabel/1"
NOT_SEEN = "none of its pixels is in the fit's crop"


def write_outputs(job: Job, view: View, fitted: FittedObjects) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Write what the job asks for of an image, whose objects ``fitted`` are in the order of its observations.

    Returns how many objects were labelled and, as (id, why), which were not: those of `View.dropped`, and objects of which
    the fit saw nothing. Labels are in the order of their confidence.
    """
    seen = torch.nonzero(fitted.confidence > 0).flatten()
    order = seen[fitted.confidence[seen].argsort(descending=True, stable=True)].tolist()
    unseen = [(view.ids[k], NOT_SEEN) for k in range(len(fitted)) if k not in order]
    dropped = (*view.dropped, *unseen)
    labelled = fitted[order]
    result = Results3D(
        name=view.photo.name,
        objects=labelled,
        camera=view.photo.camera,
        image=view.photo.image,
        camera_origin="calib",
    )
    meshes = [mesh for mesh in labelled.meshes or () if mesh is not None]
    writers: dict[str, Callable[[Path], None]] = {
        "label_2/{}.txt": result.save_kitti,
        "json/{}.json": lambda path: _write_json(path, result, view, labelled, order, dropped),
        "meshes/{}.glb": lambda path: write_glb(path, meshes, _names(result)),
        "images/{}.jpg": result.save_image,
        "before_after/{}.jpg": lambda path: write_image(
            path, before_and_after(result, labelled.start), parents=True
        ),
        "animations/{}.gif": lambda path: write_atomically(path, animation(result, labelled)),
    }
    assert set(writers) == {pattern for patterns in FORMATS.values() for pattern in patterns}
    for pattern, path in job.files(view.photo.name).items():
        writers[pattern](path)
    return len(order), dropped


def _names(result: Results3D) -> list[str]:
    return [f"{name} {k}" for k, name in enumerate(result.classes)]


def _write_json(
    path: Path,
    result: Results3D,
    view: View,
    labelled: FittedObjects,
    order: list[int],
    dropped: tuple[tuple[str, str], ...],
) -> None:
    """`Results3D.to_dict` with, per object, its id, codes, residuals and where the fit began.

    Args:
        order: index of each object's observation.
    """
    content = result.to_dict()
    for k, row in enumerate(content["objects"]):
        observation = view.observations[order[k]]
        row |= {
            "id": view.ids[order[k]],
            "score2d": _number(labelled.score2d[k]),
            "depth_pixels": int(((observation.mask == 1) & (observation.depth > 0)).sum()),
            "depth_scale": _number(labelled.depth_scale[k]),
            "residuals": {name: _number(values[k]) for name, values in labelled.residuals.items()},
            "shape": _numbers(labelled.shape[k]),
            "texture": _numbers(labelled.texture[k]),
            "start": _box(labelled.start, k),
        }
    content |= {"schema": SCHEMA, "dropped": [{"id": name, "why": why} for name, why in dropped]}
    write_atomically(path, (format_json(content) + "\n").encode())


def _box(boxes: Boxes3D, k: int) -> dict[str, Any]:
    length, height, width = _numbers(boxes.size[k])
    return {
        "center": _numbers(boxes.center[k]),
        "size": {"length": length, "height": height, "width": width},
        "yaw": _number(boxes.yaw[k]),
    }


def _number(value: torch.Tensor) -> float:
    return round(float(value), 5)


def _numbers(values: torch.Tensor) -> list[float]:
    return [round(v, 5) for v in values.tolist()]
