"""A session with its description: from images to objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import smoke, ss3d
from .found import Found, Objects
from .image_file import read_rgb
from .lens import Lens
from .window import Window, window_for

DECODERS: dict[str, Callable[[dict[str, Any], Lens, dict[str, Any]], Objects]] = {
    "smoke": smoke.decode,
    "ss3d": ss3d.decode,
}
DESCRIPTION = "monolift"  # the metadata entry of an exported file that holds its description
FORMAT = 1
SMALLEST = 32  # pixels


class RuntimeInputError(ValueError):
    """A file, image or camera that cannot be used; the message says what was expected and what came."""


class Model:
    """An exported model, ready for images of any size.

    Args:
        description: {"format", "method", "config", "card", "outputs"} as written by ``monolift export``.
        run: (B, 3, h, w) uint8 RGB network images to the raw maps by name.
    """

    def __init__(
        self,
        description: dict[str, Any],
        run: Callable[[npt.NDArray[np.uint8]], dict[str, npt.NDArray[np.float32]]],
    ) -> None:
        self.description = description
        self.run = run
        self.config: dict[str, Any] = description["config"]
        self.method: str = description["method"]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config["classes"])

    @property
    def score(self) -> float:
        """The lowest score worth showing, of the model's card."""
        return float(self.description.get("card", {}).get("score", 0.25))

    def detect(self, image: Any, camera: Any, score: float | None = None) -> Found:
        """The objects of one image.

        image: path, PIL image, or (H, W, 3) uint8 RGB array. camera: fx, fy, cx, cy in pixels, a 3x3 K or a 3x4 projection;
        fx, fy, cx, cy, width, height where it was calibrated at another size. One that cannot belong to the image is refused.
        score: lowest score kept; the model's own by default. Raises RuntimeInputError for what cannot be used.
        """
        return self.detect_batch([image], [camera], score)[0]

    def detect_batch(
        self, images: Sequence[Any], cameras: Sequence[Any], score: float | None = None
    ) -> list[Found]:
        """As `detect`; images whose windows have the same size go through the network together."""
        if len(images) != len(cameras):
            raise RuntimeInputError(f"{len(images)} images, but {len(cameras)} cameras")
        if self.method not in DECODERS:
            raise RuntimeInputError(
                f"this runtime decodes {', '.join(DECODERS)}, not {self.method}: Model.run gives its raw maps"
            )
        limit = self.score if score is None else score
        photos = [_photo(image) for image in images]
        try:
            pairs = zip(cameras, photos, strict=True)
            checked = [Lens.checked(c, p.shape[1], p.shape[0]) for c, (_, p) in pairs]
        except ValueError as error:
            raise RuntimeInputError(str(error)) from None
        lenses = [lens for lens, _ in checked]
        windows = [window_for(self.config, p.shape[1], p.shape[0]) for _, p in photos]
        results: dict[int, Found] = {}
        for shape in dict.fromkeys((w.width, w.height) for w in windows):
            members = [i for i, w in enumerate(windows) if (w.width, w.height) == shape]
            raw = self.run(np.stack([windows[i].image(photos[i][1]) for i in members]))
            for row, i in enumerate(members):
                one = {name: maps[row] for name, maps in raw.items()}
                found = DECODERS[self.method](one, windows[i].lens(lenses[i]), self.config)
                kept = found[found.scores >= limit]
                objects = _in_image(kept, windows[i], lenses[i])
                results[i] = Found.of(objects, self.classes, lenses[i], photos[i][0], checked[i][1])
        return [results[i] for i in range(len(photos))]


def load(path: str | Path, engine: str = "onnxruntime", threads: int = 0) -> Model:
    """An exported file (model.onnx) or the folder that holds it. engine: onnxruntime or openvino; threads: 0 for its default.

    Raises:
        RuntimeInputError: for a file that is missing or was not written by ``monolift export``.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        raise RuntimeInputError(f"{path}: no such file: expected a model written by monolift export")
    if engine == "openvino":
        return _openvino(path, threads)
    if engine != "onnxruntime":
        raise RuntimeInputError(f"engine: expected onnxruntime or openvino, got {engine!r}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(onnxruntime))
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        raise RuntimeInputError(
            f"{path}: not a model that onnxruntime can read ({str(error)[:120]})"
        ) from None
    description = _described(path, session.get_modelmeta().custom_metadata_map.get(DESCRIPTION))
    names = [output.name for output in session.get_outputs()]
    return Model(
        description, lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))
    )


def _providers(onnxruntime: Any) -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]


def _openvino(path: Path, threads: int) -> Model:
    import openvino

    core = openvino.Core()
    try:
        network = core.read_model(str(path))
        settings = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        compiled = core.compile_model(network, "CPU", settings)
    except RuntimeError as error:
        missing = re.search(r"No conversion rule found for operations: (.+)", str(error))
        reason = f"it lacks {missing[1]}; engine onnxruntime has it" if missing else str(error)[:160]
        raise RuntimeInputError(f"{path}: not a model that OpenVINO can read ({reason})") from None
    text = None
    if network.has_rt_info(["framework", DESCRIPTION]):
        text = network.get_rt_info(["framework", DESCRIPTION]).astype(str)
    description = _described(path, text)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        outputs = compiled({"images": images})
        return {name: outputs[compiled.output(name)] for name in names}

    return Model(description, run)


def _described(path: Path, text: str | None) -> dict[str, Any]:
    try:
        description = json.loads(text or "")
        if description["format"] != FORMAT:
            raise KeyError("format")
        return dict(description)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RuntimeInputError(
            f"{path}: carries no monolift description of format {FORMAT}: expected a file written by monolift export"
        ) from None


def _photo(image: Any) -> tuple[str, npt.NDArray[np.uint8]]:
    """Name and (H, W, 3) RGB of a path, a PIL image or an array."""
    name = Path(image).stem if isinstance(image, str | Path) else "image"
    if isinstance(image, str | Path | Image.Image):
        try:
            image = read_rgb(image, name)
        except ValueError as error:
            raise RuntimeInputError(str(error)) from None
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise RuntimeInputError(f"{name}: expected an image as (H, W, 3) uint8 RGB, got {got}")
    if min(image.shape[:2]) < SMALLEST:
        raise RuntimeInputError(
            f"{name}: expected at least {SMALLEST} x {SMALLEST} pixels, got {image.shape[1]} x {image.shape[0]}"
        )
    return name, image


def _in_image(found: Objects, window: Window, lens: Lens) -> Objects:
    """2D boxes from the network image to the image."""
    pixels = window.source_from_window(found.boxes2d.reshape(-1, 2, 2)).reshape(-1, 4)
    return Objects(found.center, found.size, found.yaw, found.scores, found.labels, lens.inside(pixels))
