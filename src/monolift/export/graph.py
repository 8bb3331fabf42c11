"""Normalisation and network as one ONNX graph that describes itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monolift import __version__
from monolift.errors import InputError
from monolift.inference.model import Model
from monolift.methods.base import Detector
from monolift.runtime.model import DESCRIPTION, FORMAT
from monolift.typing import Tensor, UInt8

MULTIPLE = 32  # sides of network images
OPSET = 19  # the first with DeformConv


class WholeNetwork(nn.Module):
    """(B, 3, h, w) uint8 RGB network images -> the raw maps, in the order of their names."""

    def __init__(self, detector: Detector, names: Sequence[str]) -> None:
        super().__init__()
        self.detector, self.names = detector, names

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        raw = self.detector(self.detector.normalise(images))
        return tuple(raw[name] for name in self.names)


def write_graph(model: Model, path: Path) -> None:
    """The float32 graph with its description. Raises InputError naming the layer that ONNX cannot express."""
    import onnx

    detector = model.detector
    example = torch.zeros(2, 3, 4 * MULTIPLE, 6 * MULTIPLE, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=256)
    rows, columns = torch.export.Dim("rows", min=2, max=128), torch.export.Dim("columns", min=2, max=128)
    shapes = ({0: batch, 2: MULTIPLE * rows, 3: MULTIPLE * columns},)
    with torch.no_grad(), quietly():
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
        "weights": model.weights_digest(),
        "monolift": __version__,
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(description)
    for node in proto.graph.node:  # the exporter's notes hold source paths and make half of a small file
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(proto, path)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
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
