"""Static quantisation of an exported graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.export.agreement import CameraImage
from monolift.export.graph import quietly
from monolift.files.folders import partial_file
from monolift.inference.model import Model
from monolift.runtime.model import DESCRIPTION

FLOAT_SHARE = 0.1  # of the convolutions, the first ones, stay float


def quantise(model: Model, path: Path, calibration: Sequence[CameraImage]) -> None:
    """The graph at ``path`` with int8 convolutions, in place; ranges of the activations are those of the calibration images.

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
        raise InputError("int8 needs calibration images: expected at least one, got none")
    detector = model.detector

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images: Iterator[CameraImage] = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            for image, _ in self._images:
                view = detector.view(image.shape[2], image.shape[1])
                return {"images": view.image(image)[None].numpy()}
            return None

    proto = onnx.load(path)
    description = next(entry.value for entry in proto.metadata_props if entry.key == DESCRIPTION)
    with partial_file(path) as quantised, quietly():
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
