"""From an image and its camera to 3D boxes: ``load`` a model, ``Model.detect``."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch

from monolift.data.cameras import CameraChoice, KnownCamera
from monolift.data.live import LiveSource
from monolift.data.sources import InputImage, expand, frames, input_image, is_video, read_input_image
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.inference import checkpoint, zoo
from monolift.inference.averaging import Averaging
from monolift.inference.detect import detect_samples
from monolift.inference.device import pick_device
from monolift.inference.pipeline import ahead, newest
from monolift.inference.results import Results3D
from monolift.methods.base import Detector
from monolift.typing import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    ImageLike: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image

DEFAULT_SCORE = 0.25  # of a checkpoint whose card says nothing (SMOKE's)
BATCH = 8  # images of a list that share a batch
CameraLike: TypeAlias = Camera | str | Sequence[float]


@dataclass(frozen=True)
class Shot:
    """An image with its camera: all that detection needs. read_seconds: what reading it took."""

    photo: InputImage
    camera: KnownCamera
    read_seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """An image that could not be used. source: its file or name."""

    source: str
    error: Exception


class Model:
    """A detector with its weights, ready for images of any size.

    Three entrances: `detect` (an image, or a list of them), `stream` (folders, globs, videos, lists: one result after the
    other), `detect_known` (images whose cameras are known already).
    """

    def __init__(
        self,
        detector: Detector,
        name: str = "model",
        card: dict[str, Any] | None = None,
        backend: str = "torch",
    ) -> None:
        self.detector = detector
        self.backend = backend
        self.name = name
        self.card = card or {}

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.detector.method}, {', '.join(self.classes)}, {self.device}>"

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str = "auto", revision: str | None = None
    ) -> Model:
        """As `load`; besides, "owner/name" is looked up on the Hugging Face Hub (extra monolift[hub]).

        What is here goes first: a name of the zoo, then a folder. Only an id of the form owner/name that is neither, and
        whose owner is no folder here either (that would be a mistyped path), is fetched; nothing else ever downloads.
        Raises as `load`, and MissingExtraError without huggingface_hub.
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

        Args:
            half: weights as float16, half the size.

        Returns:
            The folder of the checkpoint.
        """
        return checkpoint.save(folder, self.detector, self.card, half, readme=True)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.detector.classes

    @property
    def score(self) -> float:
        """Default score threshold: its card's, chosen on validation images; scores are not probabilities."""
        return float(self.card.get("score", DEFAULT_SCORE))

    @property
    def averaged_score(self) -> float:
        """As `score`, of detections averaged over zooms, whose scores are lower; ``score`` where the card has none."""
        return float(self.card.get("averaged_score", self.score))

    def weights_digest(self) -> str:
        """16 hexadecimal digits, equal for equal weights of the network."""
        digest = hashlib.sha256()
        for name, value in self.detector.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return self.detector.device

    @overload
    def detect(self, source: list[Any] | tuple[Any, ...], camera: CameraLike | None = None, *, calib: str | Path | None = None,
               fov: float | None = None, score: float | None = None, batch: int = BATCH,
               zooms: Sequence[float] | None = None, flip: bool = False) -> list[Results3D]: ...  # fmt: skip
    @overload
    def detect(self, source: ImageLike, camera: CameraLike | None = None, *, calib: str | Path | None = None,
               fov: float | None = None, score: float | None = None, batch: int = BATCH,
               zooms: Sequence[float] | None = None, flip: bool = False) -> Results3D: ...  # fmt: skip
    def detect(
        self,
        source: Any,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        batch: int = BATCH,
        zooms: Sequence[float] | None = None,
        flip: bool = False,
    ) -> Results3D | list[Results3D]:
        """The objects of one image; of a list of images, a list of results.

        Args:
            source: a path; (H, W, 3) uint8 RGB array; PIL image; (3, H, W) uint8 tensor; or a list of them. For a folder, a
                glob or a video see `stream`.
            camera: fx, fy, cx, cy in pixels (Camera, numbers or "fx,fy,cx,cy")
            calib: camera file (KITTI, ROS, OpenCV, RealSense, JSON), or a folder of them matched by name
            fov: horizontal, degrees. Without any of them EXIF decides, and failing that a guess: the result's warnings
                report it, because all distances scale with it.
            score: score threshold; by default the model's own, see `score`.
            batch: of a list, images in one batch at most; they must agree in network size.
            zooms: test-time augmentation: the network images' sizes against the plain one, as in (0.8, 1, 1.3), whose
                detections are averaged: better boxes for as many times the time.
            flip: each view mirrored, too. Not for roi10d.

        Raises:
            InputError: for images and cameras that cannot be used.
        """
        if isinstance(source, (list, tuple)):
            options: dict[str, Any] = {"score": score, "batch": batch, "zooms": zooms, "flip": flip}
            return list(self.stream(source, camera, calib=calib, fov=fov, **options))
        if _holds_several(source):
            raise InputError(
                f"{source}: detect takes one image or a list of them, got a folder, a video or a pattern: for these iterate "
                "over model.stream(...)"
            )
        choice = CameraChoice.of(camera, calib, fov)
        averaging = self._averaging(zooms, flip)
        return self.detect_known([_shot(source, choice)], score, averaging=averaging)[0]

    def stream(
        self,
        source: Any,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float | None = None,
        batch: int = 1,
        zooms: Sequence[float] | None = None,
        flip: bool = False,
        on_error: Callable[[str, Exception], None] | None = None,
        read_ahead: int = 0,
        limit: int | None = None,
    ) -> Iterator[Results3D]:
        """One result after the other, in order: of a folder, a glob, a video, an image, or a list of any of these.

        A camera's number ("0", "camera:0", /dev/video0) and a URL (rtsp://...) are videos without an end. Where the
        model is slower than a live source, frames are left out, and the latest is next.

        Only the images of one batch are in memory, and those that ``read_ahead`` allows.

        Args (the others as `detect`):
            batch: images that are read ahead; those that agree in network size go through the network together.
            on_error: called with the source and the exception of an image or video that cannot be used, when its turn
                comes; the others are still done. Without it the exception is raised there.
            read_ahead: images that another thread reads while the network runs; 0: each is read when its turn comes.
            limit: frames of each video at most.

        Raises:
            InputError: at once for arguments that cannot be used.
            MissingExtraError: for a video without PyAV.
        """
        if batch < 1:
            raise InputError(f"batch: expected 1 or more, got {batch}")
        if limit is not None and limit < 1:
            raise InputError(f"limit: expected 1 or more, got {limit}")
        choice, averaging = CameraChoice.of(camera, calib, fov), self._averaging(zooms, flip)
        score = self._threshold(score, averaging)
        items: list[Any] = []
        for item in source if isinstance(source, (list, tuple)) else [source]:
            items += expand(item) if _is_path(item) else [item]
        shots = _shots(items, choice, limit)
        if read_ahead and (len(items) > 1 or any(map(_has_frames, items))):
            shots = ahead(shots, read_ahead)
        return self._stream(shots, score, batch, averaging, on_error)

    def _stream(
        self,
        shots: Iterator[Shot | Failed],
        score: float,
        batch: int,
        averaging: Averaging | None,
        on_error: Callable[[str, Exception], None] | None,
    ) -> Iterator[Results3D]:
        for outcome in self._outcomes(shots, score, batch, averaging):
            if isinstance(outcome, Results3D):
                yield outcome
            elif on_error is None:
                raise outcome.error
            else:
                on_error(outcome.source, outcome.error)

    def _outcomes(
        self, shots: Iterator[Shot | Failed], score: float, batch: int, averaging: Averaging | None
    ) -> Iterator[Results3D | Failed]:
        waiting: list[Shot] = []
        for shot in shots:
            if isinstance(shot, Shot):
                waiting.append(shot)
                if len(waiting) < batch:
                    continue
            yield from self.detect_each(waiting, score, averaging)
            waiting = []
            if isinstance(shot, Failed):
                yield shot
        yield from self.detect_each(waiting, score, averaging)

    def detect_known(
        self,
        shots: Sequence[Shot],
        score: float | None = None,
        batch: int | None = None,
        averaging: Averaging | None = None,
    ) -> list[Results3D]:
        """The objects of images whose cameras are known, in their order; score and batch as `detect`, averaging as
        its zooms and flip."""
        found = detect_samples(
            self.detector,
            [shot.photo.image for shot in shots],
            [shot.camera.camera for shot in shots],
            score=self._threshold(score, averaging),
            batch=batch,
            averaging=averaging,
        )
        return [
            Results3D(
                name=shot.photo.name,
                objects=one.objects,
                camera=shot.camera.camera,
                image=shot.photo.image,
                camera_origin=shot.camera.origin,
                path=shot.photo.path,
                timings={"read": shot.read_seconds, **one.seconds},
                warnings=shot.photo.warnings + shot.camera.warnings,
                time=shot.photo.time,
                frame=shot.photo.frame,
            )
            for shot, one in zip(shots, found, strict=True)
        ]

    def detect_each(
        self, shots: Sequence[Shot], score: float | None = None, averaging: Averaging | None = None
    ) -> Sequence[Results3D | Failed]:
        """As `detect_known`, but an image that fails does not take the others of its batch with it."""
        if not shots:
            return []
        try:
            return self.detect_known(shots, score, averaging=averaging)
        except Exception as error:
            if len(shots) == 1:
                return [Failed(str(shots[0].photo.path or shots[0].photo.name), error)]
        return [outcome for shot in shots for outcome in self.detect_each([shot], score, averaging)]

    def _averaging(self, zooms: Sequence[float] | None, flip: bool) -> Averaging | None:
        averaging = Averaging.of(zooms, flip)
        if averaging is not None:
            averaging.check(self.detector)
        return averaging

    def _threshold(self, score: float | None, averaging: Averaging | None = None) -> float:
        if score is None:
            score = self.averaged_score if averaging else self.score
        if not 0 <= score <= 1:
            raise InputError(f"score: expected a number from 0 to 1, got {score:g}")
        return score


def load(name_or_path: str | Path = "smoke", device: str = "auto", name: str | None = None) -> Model:
    """A model of the zoo by name, a checkpoint folder (config.json + model.safetensors), or the file of a checkpoint that
    another program wrote (lzccccc/SMOKE, MMDetection3D's SMOKE). Nothing is downloaded.

    Args:
        device: "cpu", "cuda", "cuda:1" or "auto" (CUDA where there is one).
        name: what to call it; by default as its folder.

    Raises:
        InputError: for an unknown name, a checkpoint of another format, or a device that is not there.
    """
    folder = zoo.resolve(name_or_path)
    card = checkpoint.read_card(folder)
    return Model(checkpoint.load(folder, pick_device(device)), name or folder.name, card)


@overload
def detect(source: list[Any] | tuple[Any, ...], camera: CameraLike | None = None, *, calib: str | Path | None = None,
           fov: float | None = None, score: float | None = None, model: str | Path | Model = "smoke",
           device: str = "auto") -> list[Results3D]: ...  # fmt: skip
@overload
def detect(source: ImageLike, camera: CameraLike | None = None, *, calib: str | Path | None = None,
           fov: float | None = None, score: float | None = None, model: str | Path | Model = "smoke",
           device: str = "auto") -> Results3D: ...  # fmt: skip
def detect(
    source: Any,
    camera: CameraLike | None = None,
    *,
    calib: str | Path | None = None,
    fov: float | None = None,
    score: float | None = None,
    model: str | Path | Model = "smoke",
    device: str = "auto",
) -> Results3D | list[Results3D]:
    """``load(model, device).detect(source, camera, ...)`` in one call; to detect more than once load the model once."""
    loaded = model if isinstance(model, Model) else load(model, device)
    found: Results3D | list[Results3D] = loaded.detect(source, camera, calib=calib, fov=fov, score=score)
    return found


def _shots(items: Sequence[Any], choice: CameraChoice, limit: int | None = None) -> Iterator[Shot | Failed]:
    """The images of files, videos and arrays, each with its camera, read when its turn comes."""
    for item in items:
        try:
            if _has_frames(item):
                known = item if isinstance(item, LiveSource) else Path(item)
                one_by_one = newest(frames(item)) if isinstance(item, LiveSource) else frames(item)
                for frame in itertools.islice(one_by_one, limit):
                    yield Shot(frame, _camera(choice, frame, known.stem))  # one calibration for all
            else:
                yield _shot(item, choice)
        except Exception as error:
            yield Failed(str(item) if _is_path(item) or isinstance(item, LiveSource) else "image", error)


def _has_frames(item: Any) -> bool:
    return isinstance(item, LiveSource) or (_is_path(item) and is_video(item))


def _shot(source: Any, choice: CameraChoice) -> Shot:
    start = time.perf_counter()
    photo = read_input_image(source) if _is_path(source) else input_image(source)
    seconds = time.perf_counter() - start
    return Shot(photo, _camera(choice, photo, photo.name), seconds)


def _camera(choice: CameraChoice, photo: InputImage, name: str) -> KnownCamera:
    height, width = photo.image.shape[1:]
    return choice.for_image(name, width, height, photo.film_mm)


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def _holds_several(source: Any) -> bool:
    """Whether a path stands for more than one image: a folder, a video, a pattern."""
    if not _is_path(source):
        return False
    path = Path(source)
    return path.is_dir() or is_video(path) or (not path.exists() and any(c in str(source) for c in "*?["))
