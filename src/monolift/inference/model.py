"""From a photograph and its camera to 3D boxes: ``load`` a model, ``Model.detect``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from monolift.data.cameras import CameraChoice, KnownCamera
from monolift.data.sample import Detections
from monolift.data.sources import Photograph, expand, frames, is_video, photograph, read_photograph
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.inference import checkpoint
from monolift.inference import zoo as model_zoo
from monolift.inference.results import Results3D
from monolift.methods.base import Prepared, in_source
from monolift.typing import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from monolift.methods.base import Detector

DEFAULT_SCORE = 0.25  # of a checkpoint whose card says nothing (SMOKE's)
CameraLike = Camera | str | Sequence[float]


class Model:
    """A detector with its weights, ready for pictures of any size."""

    def __init__(self, detector: Detector, name: str = "model", card: dict[str, Any] | None = None) -> None:
        self.detector = detector
        self.name = name
        self.card = card or {}

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.detector.method}, {', '.join(self.classes)}, {self.device}>"

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str = "auto", revision: str | None = None
    ) -> Model:
        """As :func:`load`; besides, "owner/name" is looked up on the Hugging Face Hub (extra monolift[hub]).

        What is here goes first: a name of the zoo, then a folder. Only an id of the form owner/name that is neither, and
        whose owner is no folder here either (that would be a mistyped path), is fetched; nothing else ever downloads.
        Raises as :func:`load`, and MissingExtraError without huggingface_hub.
        """
        text = str(name_or_path)
        if (
            re.fullmatch(r"[\w.-]+/[\w.-]+", text)
            and not Path(text).exists()
            and not Path(text).parent.exists()
        ):
            return load(checkpoint.from_hub(text, revision), device, text.split("/")[1])
        return load(name_or_path, device)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes config.json, model.safetensors and README.md, the Hub's layout; complete or not at all.

        half: weights as float16, half the size. Returns the folder.
        """
        return checkpoint.save(folder, self.detector, self.card, half, readme=True)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.detector.classes

    @property
    def score(self) -> float:
        """The lowest score worth showing: its card's, chosen on validation pictures, for scores are not probabilities."""
        return float(self.card.get("score", DEFAULT_SCORE))

    @property
    def device(self) -> torch.device:
        return self.detector.device

    @overload
    def detect(
        self,
        source: Any,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        stream: Literal[True],
    ) -> Iterator[Results3D]: ...
    @overload
    def detect(
        self,
        source: np.ndarray | Tensor | Image.Image,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        stream: Literal[False] = False,
    ) -> Results3D: ...
    @overload
    def detect(
        self,
        source: list[Any] | tuple[Any, ...],
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        stream: Literal[False] = False,
    ) -> list[Results3D]: ...
    @overload
    def detect(
        self,
        source: str | Path,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        stream: Literal[False] = False,
    ) -> Any: ...

    def detect(
        self,
        source: Any,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        stream: bool = False,
    ) -> Results3D | list[Results3D] | Iterator[Results3D]:
        """The objects of one picture, or of several.

        source: a picture (path; (H, W, 3) uint8 RGB array; PIL image; (3, H, W) uint8 tensor) gives one result. A list, a
            folder, a glob or a video gives a list; for long ones ``stream=True``.
        camera: fx, fy, cx, cy in pixels (Camera, numbers or "fx,fy,cx,cy"); calib: KITTI calib file or ROS
            camera_info .yaml, or a folder of them matched by name; fov: horizontal, degrees. Without any of them EXIF
            decides, and failing that a guess: the result's warnings say so, because all distances scale with it.
        score: the lowest score that is kept; by default the model's own, see :attr:`score`.
        stream: results one after the other as they are made, for long videos: the same as :meth:`stream`.

        Raises InputError for pictures and cameras that cannot be used, MissingExtraError for a video without PyAV.
        """
        choice = CameraChoice.of(camera, calib, fov)
        if stream or isinstance(source, (list, tuple)) or _holds_several(source):
            results = self.stream(source, camera, calib=calib, fov=fov, score=score)
            return results if stream else list(results)
        start = time.perf_counter()
        photo = _photograph(source)
        return self.detect_photograph(photo, choice, score, time.perf_counter() - start)

    def stream(
        self,
        source: Any,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
    ) -> Iterator[Results3D]:
        """One result after the other: of a folder, a glob, a list or the frames of a video. Arguments as :meth:`detect`."""
        choice = CameraChoice.of(camera, calib, fov)
        for item in source if isinstance(source, (list, tuple)) else [source]:
            if not isinstance(item, (str, os.PathLike)):
                yield self.detect_photograph(photograph(item), choice, score)
                continue
            for path in expand(item):
                yield from self.detect_file(path, choice, score)

    def detect_file(self, path: Path, choice: CameraChoice, score: float | None) -> Iterator[Results3D]:
        """One result of a picture file, one per frame of a video (whose calib is named like the video)."""
        if is_video(path):
            for frame in frames(path):
                yield self.detect_photograph(frame, choice, score, camera_name=path.stem)
            return
        start = time.perf_counter()
        photo = read_photograph(path)
        yield self.detect_photograph(photo, choice, score, time.perf_counter() - start)

    def detect_photograph(
        self,
        photo: Photograph,
        choice: CameraChoice,
        score: float | None = None,
        read_seconds: float = 0.0,
        camera_name: str | None = None,
    ) -> Results3D:
        """One photograph, with whatever was said about its camera."""
        height, width = photo.image.shape[1:]
        known = choice.for_picture(camera_name or photo.name, width, height, photo.film_mm)
        return self.detect_known([(photo, known)], score, [read_seconds])[0]

    def detect_known(
        self,
        photos: Sequence[tuple[Photograph, KnownCamera]],
        score: float | None = None,
        read_seconds: Sequence[float] = (),
    ) -> list[Results3D]:
        """The one path from pictures to boxes. Pictures whose network pictures have one size share a batch; order is kept.

        Their timings "network" and "decode" are those of the batch.
        """
        score = self.score if score is None else score
        if not 0 <= score <= 1:
            raise InputError(f"score: expected a number from 0 to 1, got {score:g}")
        prepared, seconds = [], []
        for photo, known in photos:
            start = time.perf_counter()
            prepared.append(self.detector.prepare(photo.image, known.camera))
            seconds.append(time.perf_counter() - start)
        results: dict[int, Results3D] = {}
        for shape in dict.fromkeys(p.image.shape for p in prepared):
            members = [i for i, p in enumerate(prepared) if p.image.shape == shape]
            batch, timings = self._run([prepared[i] for i in members])
            for i, found in zip(members, batch, strict=True):
                photo, known = photos[i]
                height, width = photo.image.shape[1:]
                found = in_source(found, prepared[i].view, width, height)
                found = found[found.scores >= score]
                found = self.detector.with_meshes(found, photo.image, known.camera)
                read = read_seconds[i] if read_seconds else 0.0
                stages = {"read": read, "prepare": seconds[i], **timings}
                results[i] = _result(photo, known, found, self.classes, stages)
        return [results[i] for i in range(len(photos))]

    @torch.no_grad()
    def _run(self, prepared: Sequence[Prepared]) -> tuple[list[Detections], dict[str, float]]:
        """Network and decoding of pictures of one size, and the seconds of both."""
        clock = [time.perf_counter()]
        images = torch.stack([p.image for p in prepared]).to(self.device)
        raw = self.detector(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        clock.append(time.perf_counter())
        found = self.detector.decode(raw, Camera.stack([p.camera for p in prepared]))
        clock.append(time.perf_counter())
        network, decode = (b - a for a, b in pairwise(clock))
        return [one.to("cpu") for one in found], {"network": network, "decode": decode}


def load(name_or_path: str | Path = "smoke", device: str = "auto", name: str | None = None) -> Model:
    """A model of the zoo by name, or a checkpoint folder (config.json + model.safetensors). Nothing is downloaded.

    device: "cpu", "cuda", "cuda:1" or "auto" (CUDA where there is one). name: what to call it; by default as its folder.
    Raises InputError for an unknown name, a checkpoint of another format, or a device that is not there.
    """
    folder = model_zoo.find(name_or_path)
    card = checkpoint.read_card(folder)
    return Model(checkpoint.load(folder, pick_device(device)), name or folder.name, card)


def detect(source: Any, camera: CameraLike | None = None, *, model: str | Path | Model = "smoke", device: str = "auto",
           **options: Any) -> Any:  # fmt: skip
    """``load(model, device).detect(source, camera, ...)`` in one call; for many pictures load the model once."""
    loaded = model if isinstance(model, Model) else load(model, device)
    return loaded.detect(source, camera, **options)


def pick_device(name: str) -> str:
    """ "auto" resolved; any other name checked. Raises InputError for a device that this torch cannot use."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r}: not usable here ({reason}): expected cpu, cuda or auto") from None
    return name


def _holds_several(source: Any) -> bool:
    """Whether a path stands for more than one picture: a folder, a video, a pattern."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(source)
    return path.is_dir() or is_video(path) or (not path.exists() and any(c in str(source) for c in "*?["))


def _photograph(source: Any) -> Photograph:
    return read_photograph(source) if isinstance(source, (str, os.PathLike)) else photograph(source)


def _result(
    photo: Photograph,
    known: KnownCamera,
    found: Detections,
    classes: Sequence[str],
    timings: dict[str, float],
) -> Results3D:
    return Results3D(
        name=photo.name,
        boxes=found.boxes,
        scores=found.scores,
        classes=tuple(classes[k] for k in found.labels.tolist()),
        boxes2d=found.boxes2d,
        camera=known.camera,
        image=photo.image,
        camera_origin=known.origin,
        path=photo.path,
        timings=timings,
        warnings=photo.warnings + known.warnings,
        covariance=found.covariance,
        meshes=found.meshes,
        evidence=found.evidence,
    )
