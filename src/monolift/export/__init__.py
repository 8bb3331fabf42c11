"""ONNX export: normalisation and network in one graph, any batch and image size, checked against PyTorch.

The file carries its own description (method, configuration, card), so that ``monolift.runtime`` needs nothing beside it. A
deformable layer becomes the standard operator DeformConv (opset 19). What is written has been run by ONNX Runtime on images
and agreed with PyTorch; else there is no file.

    graph       the graph, and the layer's name where ONNX cannot express it
    backend     a model whose network an exported file computes
    agreement   both on the same images: raw maps, boxes, AP
    int8        static quantisation
    folder      a folder that runs without torch and monolift; a Triton model repository
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monolift import runtime
from monolift.data.kitti import KittiDataset
from monolift.errors import InputError, MissingExtraError
from monolift.export.agreement import Agreement, CameraImage, agreement, compare_ap
from monolift.export.graph import write_graph
from monolift.export.int8 import quantise
from monolift.files.folders import partial_file, scratch_folder
from monolift.files.output_folder import locked_beside
from monolift.files.renamed import renamed, renamed_parameters
from monolift.inference.model import Model

__all__ = [
    "Agreement",
    "CameraImage",
    "Report",
    "agreement",
    "compare_ap",
    "export",
    "quantise",
    "write_graph",
]

TOLERANCE = 1e-3  # largest difference of a raw map, logits and normalised numbers, that float32 can explain


@dataclass(frozen=True)
class Report:
    """Output and comparison with PyTorch. ap: moderate AP R40 by row, (PyTorch, exported), where a split was scored."""

    path: Path
    megabytes: float
    agreement: Agreement
    ap: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path)}


@renamed_parameters(pictures="images")
def export(
    model: Model,
    out: str | Path,
    images: Sequence[CameraImage],
    calibration: Sequence[CameraImage] | None = None,
    scored: KittiDataset | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Writes ``out``, an ONNX file, if it agrees with PyTorch on ``images``.

    calibration: makes it an int8 model (static quantisation of the convolutions; ranges from these images). scored: a
    labelled split on which both models' AP is measured.
    Raises InputError for a file that cannot stand there and a network that cannot be exported (naming the layer),
    FloatingPointError where the two disagree, MissingExtraError without onnx, onnxscript and onnxruntime.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    out = Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    if not images:
        raise InputError("export: expected at least one image to compare on, got none")
    model.detector.eval().cpu()
    with locked_beside(out, "export"), partial_file(out) as partial:
        say("exporting the graph: a minute or two")
        write_graph(model, partial)
        exact = agreement(model, runtime.load(partial), images)
        worst = float(np.max(list(exact.raw.values())))  # NaN if one is
        if not worst <= TOLERANCE:
            raise FloatingPointError(
                f"{out}: not written: the exported network differs from PyTorch by {worst:.2g} "
                f"(float32 explains {TOLERANCE:g}): {exact.raw}"
            )
        result, notes = exact, []
        if calibration is not None:
            say(f"int8: ranges from {len(calibration)} images")
            quantise(model, partial, calibration)
            result = agreement(model, runtime.load(partial), images)
            notes.append(f"before quantisation the raw maps differed by {worst:.1e} at most")
        scores = {}
        if scored is not None:
            say(f"AP of both on {len(scored)} images")
            with scratch_folder(out.parent) as scratch:
                scores = compare_ap(model, runtime.load(partial), scored, scratch)
    return Report(out, out.stat().st_size / 1e6, result, scores, tuple(notes))


def _need(*modules: str) -> None:
    from importlib.util import find_spec

    if not all(map(find_spec, modules)):
        raise MissingExtraError("export", "onnx")


__getattr__ = renamed(__name__, Picture="CameraImage")
