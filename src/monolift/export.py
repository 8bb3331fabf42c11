"""Checkpoints as ONNX files: normalisation and network in one graph, any batch and size, checked before the file counts.

The file carries its own description (method, configuration, card), so that ``monolift.runtime`` needs nothing beside it. A
deformable layer becomes the standard operator DeformConv (opset 19). What is written has been run by ONNX Runtime on pictures
and agreed with PyTorch; else there is no file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from monolift import __version__, runtime
from monolift.data.kitti import KittiDataset
from monolift.data.sample import Detections
from monolift.detect import Model
from monolift.detector import Prepared
from monolift.errors import InputError, MissingExtraError
from monolift.geometry import Camera
from monolift.typing import Tensor, UInt8
from monolift.validate import validate

DESCRIPTION, FORMAT = "monolift", 1
MULTIPLE = 32  # sides of network pictures
TOLERANCE = 1e-3  # largest difference of a raw map, logits and normalised numbers, that float32 can explain
OPSET = 19  # the first with DeformConv
FLOAT_SHARE = 0.1  # of the convolutions, the first ones, stay float in an int8 model
SAME_METRES = 2.0  # centres further apart are different objects


@dataclass(frozen=True)
class Agreement:
    """How far an exported model is from PyTorch on some pictures.

    raw: largest difference of each raw map; boxes: objects compared, and lost: those without a partner in the exported model's
    result, or the other way round; center, size: metres; yaw: radians; score: largest differences over pairs.
    seconds: of the network per picture, (PyTorch, exported), medians of one run.
    """

    raw: dict[str, float]
    boxes: int
    lost: int
    center: float
    size: float
    yaw: float
    score: float
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Report:
    """What was written, and how it compares. ap: moderate AP R40 by row, (PyTorch, exported), where a split was scored."""

    path: Path
    megabytes: float
    agreement: Agreement
    ap: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path)}


class WholeNetwork(nn.Module):
    """(B, 3, h, w) uint8 RGB network pictures -> the raw maps, in the order of their names."""

    def __init__(self, detector: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.detector, self.names = detector, names

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        raw = self.detector(self.detector.normalise(images))
        return tuple(raw[name] for name in self.names)


class Exported:
    """An exported model in a detector's place: PyTorch's preparation and decoding round the other network."""

    def __init__(self, detector: Any, network: runtime.Model) -> None:
        self._detector, self._network = detector, network

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._detector.classes)

    def prepare(self, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Prepared:
        view = self._detector.view(image.shape[2], image.shape[1])
        return Prepared(view.image(image).float(), view.camera(camera), view)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        raw = self._network.run(images.to(torch.uint8).numpy())
        return {name: torch.from_numpy(maps) for name, maps in raw.items()}

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Detections]:
        return list(self._detector.decode(raw, cameras))


Picture = tuple[Tensor, Camera]  # (3, H, W) uint8 RGB, of any size each


def export(
    model: Model,
    out: str | Path,
    pictures: Sequence[Picture],
    calibration: Sequence[Picture] | None = None,
    scored: KittiDataset | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Writes ``out``, an ONNX file, if it agrees with PyTorch on ``pictures``.

    calibration: makes it an int8 model (static quantisation of the convolutions; ranges from these pictures). scored: a
    labelled split on which both models' AP is measured.
    Raises InputError for a file that cannot stand there and a network that cannot be exported (naming the layer),
    FloatingPointError where the two disagree, MissingExtraError without onnx, onnxscript and onnxruntime.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    out = Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name that ends in .onnx")
    if not pictures:
        raise InputError("export: expected at least one picture to compare on, got none")
    model.detector.eval().cpu()  # type: ignore[attr-defined]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        say("exporting the graph: a minute or two")
        write_graph(model, partial)
        exact = agreement(model, runtime.load(partial), pictures)
        worst = max(exact.raw.values())
        if not worst <= TOLERANCE:
            raise FloatingPointError(
                f"{out}: not written: the exported network differs from PyTorch by {worst:.2g} "
                f"(float32 explains {TOLERANCE:g}): {exact.raw}"
            )
        result, notes = exact, []
        if calibration is not None:
            say(f"int8: ranges from {len(calibration)} pictures")
            quantise(model, partial, calibration)
            result = agreement(model, runtime.load(partial), pictures)
            notes.append(f"before quantisation the raw maps differed by {worst:.1e} at most")
        scores = {}
        if scored is not None:
            say(f"AP of both on {len(scored)} pictures")
            scores = compare_ap(model, runtime.load(partial), scored, out.parent / f".{out.stem}.ap")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return Report(out, out.stat().st_size / 1e6, result, scores, tuple(notes))


def write_graph(model: Model, path: Path) -> None:
    """The float32 graph with its description. Raises InputError naming the layer that ONNX cannot express."""
    import onnx

    detector: Any = model.detector
    example = torch.zeros(2, 3, 4 * MULTIPLE, 6 * MULTIPLE, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=256)
    rows, columns = torch.export.Dim("rows", min=2, max=128), torch.export.Dim("columns", min=2, max=128)
    shapes = ({0: batch, 2: MULTIPLE * rows, 3: MULTIPLE * columns},)
    with torch.no_grad(), _quietly():
        names = sorted(detector(detector.normalise(example)))
        whole = WholeNetwork(detector, names).eval()
        try:
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=names,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors share no narrower base
            raise InputError(
                f"{model.name}: cannot be exported: {_reason(error)}; layer: {_layer(error)}"
            ) from error
        assert program is not None
        program.save(path)
    proto = onnx.load(path)
    description = {
        "format": FORMAT,
        "method": detector.method,
        "config": dataclasses.asdict(detector.config),
        "card": model.card,
        "outputs": names,
        "monolift": __version__,
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(description)
    for node in proto.graph.node:  # the exporter's notes hold source paths and make half of a small file
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(proto, path)


def agreement(model: Model, exported: runtime.Model, pictures: Sequence[Picture]) -> Agreement:
    """PyTorch and the exported model on the same pictures: raw maps, and boxes above the model's score.

    Where the runtime decodes the method itself its boxes are compared, so that all of it is checked, else the raw maps are
    decoded by PyTorch's code. The first picture is also run twice in one batch.
    """
    detector: Any = model.detector
    raw_error: dict[str, float] = {}
    pairs, lost, seconds = [], 0, []
    for k, (image, camera) in enumerate(pictures):
        prepared = detector.prepare(image, camera)
        network_picture = prepared.view.image(image)[None].repeat(2 if k == 0 else 1, 1, 1, 1)
        with torch.no_grad():
            start = time.perf_counter()
            ours = detector(detector.normalise(network_picture))
            middle = time.perf_counter()
            theirs = exported.run(network_picture.numpy())
            seconds.append((middle - start, time.perf_counter() - middle))
            for name, maps in theirs.items():
                error = float(np.abs(maps - ours[name].numpy()).max())
                raw_error[name] = max(raw_error.get(name, 0.0), error)
            cameras = Camera.stack([prepared.camera] * len(network_picture))
            mine = detector.decode(ours, cameras)[0]
            if exported.method in runtime.model.DECODERS:
                other = _as_arrays(exported.detect(_rows_last(image), camera.matrix.numpy(), model.score))
            else:
                found = detector.decode({n: torch.from_numpy(m) for n, m in theirs.items()}, cameras)[0]
                other = _arrays(found[found.scores >= model.score], model.classes)
        matched, alone = _pairs(_arrays(mine[mine.scores >= model.score], model.classes), other)
        pairs += matched
        lost += alone
    differences = np.array(pairs).reshape(-1, 4)
    center, size, yaw, score = differences.max(0) if len(differences) else np.zeros(4)
    torch_s, other_s = (statistics.median(times) for times in zip(*seconds[1:] or seconds, strict=True))
    return Agreement(
        raw_error, len(pairs), lost, float(center), float(size), float(yaw), float(score), (torch_s, other_s)
    )


def quantise(model: Model, path: Path, calibration: Sequence[Picture]) -> None:
    """The graph at ``path`` with int8 convolutions, in place; ranges of the activations are those of the calibration pictures.

    The last convolution of every head stays in float32: its few channels are metres and pixels, which 256 steps cannot hold.
    So do the first tenth, the stem and what follows: their ranges are wide (the correlation of the bundled model's heatmap with
    its own is 0.34 with them in int8, 0.98 without). Seven bits for weights (reduce_range): without VNNI, processors add pairs
    of products in 16 bits, which overflow.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    if not calibration:
        raise InputError("int8 needs calibration pictures: expected at least one, got none")
    detector: Any = model.detector

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._pictures: Iterator[Picture] = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            for image, _ in self._pictures:
                view = detector.view(image.shape[2], image.shape[1])
                return {"images": view.image(image)[None].numpy()}
            return None

    quantised = path.with_name(path.name + ".int8")
    proto = onnx.load(path)
    description = next(entry.value for entry in proto.metadata_props if entry.key == DESCRIPTION)
    with _quietly():
        quantize_static(
            str(path),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_first_convolutions(proto) + _last_convolutions(proto),
        )
    small = onnx.load(quantised)
    if all(entry.key != DESCRIPTION for entry in small.metadata_props):
        entry = small.metadata_props.add()
        entry.key, entry.value = DESCRIPTION, description
        onnx.save(small, quantised)
    os.replace(quantised, path)


def compare_ap(
    model: Model, exported: runtime.Model, split: KittiDataset, scratch: Path
) -> dict[str, tuple[float, float]]:
    """Moderate AP R40, percent, of PyTorch and of the exported model, by class, metric and overlap."""
    try:
        ours = validate(model.detector, split, scratch / "torch")
        theirs = validate(Exported(model.detector, exported), split, scratch / "exported")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {key: (ours[key], theirs[key]) for key in ours if key not in ("selection", "score")}


# -- parts ----------------------------------------------------------------------------------------------------------------


def _need(*modules: str) -> None:
    from importlib.util import find_spec

    if not all(map(find_spec, modules)):
        raise MissingExtraError("export", "onnx")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's and quantiser's remarks about packages that are not there and tools that users do not see."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _reason(error: BaseException) -> str:
    """The innermost cause on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _layer(error: BaseException | None) -> str:
    """The module, such as network.heatmap, that was being translated.

    The exporter's messages name operators only; the frames it failed in hold the graph's node, which knows its module.
    """
    stacks: list[dict[str, Any]] = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and node.meta.get("nn_module_stack"):
                stacks.append(node.meta["nn_module_stack"])
        error = error.__cause__
    if not stacks:
        return "not named by the exporter"
    path = str(list(stacks[-1].values())[-1][0])
    return path.replace("L['self'].", "").removeprefix("detector.") or "the network itself"


def _first_convolutions(proto: Any) -> list[str]:
    """Names of the first FLOAT_SHARE of the convolutions, in the graph's order."""
    names = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    return names[: round(FLOAT_SHARE * len(names))]


def _last_convolutions(proto: Any) -> list[str]:
    """Names of the convolutions from which an output is reached without passing another one."""
    made_by = {name: node for node in proto.graph.node for name in node.output}
    waiting = [output.name for output in proto.graph.output]
    seen: set[str] = set()
    last = []
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            last.append(node.name)
        else:
            waiting += node.input
    return sorted(set(last))


def _rows_last(image: UInt8[Tensor, "3 H W"]) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _arrays(found: Detections, classes: Sequence[str]) -> dict[str, np.ndarray]:
    boxes = found.boxes
    named = {"center": boxes.center, "size": boxes.size, "yaw": boxes.yaw, "score": found.scores}
    names = np.array([classes[k] for k in found.labels.tolist()], dtype=object)
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
