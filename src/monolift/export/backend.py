"""A model whose network an exported file computes: PyTorch's preparation and decoding round another program's network."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from monolift import runtime
from monolift.data.cameras import CameraChoice
from monolift.data.sample import Objects, Sample
from monolift.data.sources import read_input_image
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.inference import zoo
from monolift.inference.backends import MODULES, exported_file
from monolift.inference.model import Model
from monolift.methods.base import Detector, DetectorConfig, Targets
from monolift.typing import Float, Tensor, UInt8


class Exported(Detector[DetectorConfig, Targets]):
    """An exported model in a detector's place."""

    method = "exported"

    def __init__(self, detector: Detector, network: runtime.Model) -> None:
        super().__init__()
        self.config = detector.config
        self.network = detector.network
        self.averages = detector.averages
        self._exported = network
        self._encode, self._loss, self._decode = detector.encode, detector.loss, detector.decode
        self._with_meshes = detector.with_meshes

    def normalise(self, image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """The pixels as they are: the exported graph normalises them itself."""
        return image.float()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
        raw = self._exported.run(images.to(torch.uint8).cpu().numpy())
        return {name: torch.from_numpy(maps) for name, maps in raw.items()}

    def encode(self, samples: Sequence[Sample]) -> Targets:
        return self._encode(samples)

    def loss(self, raw: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        return self._loss(raw, targets)

    def decode(self, raw: dict[str, Tensor], cameras: Camera) -> list[Objects]:
        return list(self._decode(raw, cameras))

    def with_meshes(self, found: Objects, image: UInt8[Tensor, "3 H W"], camera: Camera) -> Objects:
        return self._with_meshes(found, image, camera)


def with_backend(
    model: Model,
    backend: str,
    checkpoint: Path,
    onnx: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Model:
    """The model with its network computed by ``backend``, "onnx" or "openvino".

    onnx: an exported file of this model, or the folder that holds it; without it the file in the user's cache, which is
    written if it is not there. Raises InputError for a file of another model and one that the backend cannot read.
    """
    path = onnx if onnx is not None else exported_file(checkpoint)
    if onnx is None and not path.is_file():
        say(f"exporting {model.name} once, to {path}")
        _write(model, path)
    try:
        network = runtime.load(path, MODULES[backend], torch.get_num_threads())
    except runtime.RuntimeInputError as error:
        hint = ": delete it, and it is written again" if onnx is None else ""
        raise InputError(f"{error}{hint}") from None
    expected = json.loads(json.dumps(dataclasses.asdict(model.detector.config)))
    weights = model.weights_digest()
    same_weights = network.description.get("weights", weights) == weights  # earlier files do not state them
    if network.method != model.detector.method or network.config != expected or not same_weights:
        raise InputError(f"{path}: exported from another model than {model.name}: export it again")
    return Model(Exported(model.detector, network), model.name, model.card, backend)


def _write(model: Model, path: Path) -> None:
    """The exported file, after it agreed with PyTorch on the bundled example."""
    from monolift.export import export

    photo = read_input_image(zoo.EXAMPLE / "example.jpg")
    height, width = photo.image.shape[1:]
    camera = CameraChoice.of(calib=zoo.EXAMPLE / "calib.txt").for_image(photo.name, width, height).camera
    own = path.with_name(f"{path.stem}.{os.getpid()}.onnx")  # two jobs at once do not share a partial file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        export(model, own, [(photo.image, camera)])
        os.replace(own, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)
