"""From an image and its camera to 3D boxes: ``load`` a model, ``Model.detect``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch

from monolift.data.cameras import CameraChoice
from monolift.data.formats.boxes2d import Boxes2D, BoxFiles
from monolift.data.sources import expand
from monolift.errors import InputError
from monolift.geometry import Camera
from monolift.inference import checkpoint, zoo
from monolift.inference.averaging import Averaging
from monolift.inference.detect import detect_samples
from monolift.inference.device import pick_device
from monolift.inference.pipeline import ahead
from monolift.inference.results import Results3D
from monolift.inference.shots import (
    Failed,
    Shot,
    has_frames,
    holds_several,
    is_path,
    read_shot,
    read_shots,
    with_boxes,
)
from monolift.methods.base import Detector, GivenBoxes
from monolift.typing import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    ImageLike: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image

DEFAULT_SCORE = 0.25  # of a checkpoint whose card says nothing (SMOKE's)
BATCH = 8  # images of a list that share a batch
Several: TypeAlias = list[Any] | tuple[Any, ...] | Iterator[Any]
Counted: TypeAlias = Callable[
    [int, int | None], object
]  # called with how many are done, and how many there are
CameraLike: TypeAlias = Camera | str | Sequence[float]


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
        self._half = False

    def __call__(self, source: Any, camera: CameraLike | None = None, **options: Any) -> Any:
        """`detect`: ``model(image)`` is a result, ``model([a, b])`` a list of them."""
        return self.detect(source, camera, **options)

    def to(self, device: str | torch.device) -> Model:
        """This model, its weights on another device ("cpu", "cuda", "cuda:1", "auto").

        Raises:
            InputError: for a device that is not there, and for a backend other than torch.
        """
        self._on_torch("to")
        self.detector.to(pick_device(str(device)))
        return self

    def half(self, on: bool = True) -> Model:
        """This model, computing its network in half precision (float16 on a GPU, bfloat16 on a CPU); boxes stay float32.

        Raises:
            InputError: for a backend other than torch.
        """
        self._on_torch("half")
        self._half = on
        return self

    def _on_torch(self, what: str) -> None:
        if self.backend != "torch":
            raise InputError(f"Model.{what}: goes with the backend torch, this model has {self.backend}")

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
    def detect(self, source: Several, camera: CameraLike | None = None, *, calib: str | Path | None = None,
               fov: float | None = None, score: float | None = None, batch: int = BATCH,
               zooms: Sequence[float] | None = None, flip: bool = False,
               progress: Counted | None = None) -> list[Results3D]: ...  # fmt: skip
    @overload
    def detect(self, source: ImageLike, camera: CameraLike | None = None, *, calib: str | Path | None = None,
               fov: float | None = None, score: float | None = None, batch: int = BATCH,
               zooms: Sequence[float] | None = None, flip: bool = False,
               progress: Counted | None = None) -> Results3D: ...  # fmt: skip
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
        progress: Counted | None = None,
    ) -> Results3D | list[Results3D]:
        """The objects of one image; of a list of images, a list of results.

        Args:
            source: a path; (H, W, 3) uint8 RGB array; PIL image; (3, H, W) uint8 tensor; or a list or an iterator of them. For
                a folder, a glob or a video see `stream`.
            camera: fx, fy, cx, cy in pixels (Camera, numbers or "fx,fy,cx,cy")
            calib: camera file (KITTI, ROS, OpenCV, RealSense, JSON), or a folder of them matched by name
            fov: horizontal, degrees. Without any of them EXIF decides, and failing that a guess: the result's warnings
                report it, because all distances scale with it.
            score: score threshold; by default the model's own, see `score`.
            batch: of a list, images in one batch at most; they must agree in network size.
            zooms: test-time augmentation: the network images' sizes against the plain one, as in (0.8, 1, 1.3), whose
                detections are averaged: better boxes for as many times the time.
            flip: each view mirrored, too. Not for roi10d.
            progress: called after each image of several with how many are done and how many there are (None: not known).

        Raises:
            InputError: for images and cameras that cannot be used.
        """
        if isinstance(source, (list, tuple, Iterator)):
            options: dict[str, Any] = {"score": score, "batch": batch, "zooms": zooms, "flip": flip}
            results = []
            for result in self.stream(source, camera, calib=calib, fov=fov, **options):
                results.append(result)
                if progress is not None:
                    progress(len(results), None if isinstance(source, Iterator) else len(source))
            return results
        if holds_several(source):
            raise InputError(
                f"{source}: detect takes one image or a list of them, got a folder, a video or a pattern: for these iterate "
                "over model.stream(...)"
            )
        choice = CameraChoice.of(camera, calib, fov)
        averaging = self._averaging(zooms, flip)
        return self.detect_known([read_shot(source, choice)], score, averaging=averaging)[0]

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
        boxes: BoxFiles | None = None,
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
            boxes: 2D boxes of another detector (`monolift.data.formats.boxes2d.read_boxes2d`), which are lifted in place of
                what the model finds; see `lift`.

        Raises:
            InputError: at once for arguments that cannot be used.
            MissingExtraError: for a video without PyAV.
        """
        if batch < 1:
            raise InputError(f"batch: expected 1 or more, got {batch}")
        if limit is not None and limit < 1:
            raise InputError(f"limit: expected 1 or more, got {limit}")
        choice, averaging = CameraChoice.of(camera, calib, fov), self._averaging(zooms, flip)
        if boxes is not None:
            self._check_lifts(averaging)
        items: Iterator[Any] | list[Any]
        score = self._threshold(0.0 if boxes is not None and score is None else score, averaging)
        if isinstance(source, Iterator):
            items = source
        else:
            several = source if isinstance(source, (list, tuple)) else [source]
            items = [one for item in several for one in (expand(item) if is_path(item) else [item])]
        shots = with_boxes(read_shots(items, choice, limit), boxes)
        if read_ahead and (isinstance(items, Iterator) or len(items) > 1 or any(map(has_frames, items))):
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
        known = [self._given(shot) for shot in shots]
        given = [one for one, _ in known if one is not None]
        found = detect_samples(
            self.detector,
            [shot.photo.image for shot in shots],
            [shot.camera.camera for shot in shots],
            score=self._threshold(score, averaging),
            batch=batch,
            averaging=averaging,
            given=given or None,
            half=self._half,
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
                warnings=shot.photo.warnings + shot.camera.warnings + said,
                time=shot.photo.time,
                frame=shot.photo.frame,
            )
            for shot, one, (_, said) in zip(shots, found, known, strict=True)
        ]

    def lift(
        self,
        source: ImageLike,
        boxes: Boxes2D,
        camera: CameraLike | None = None,
        *,
        calib: str | Path | None = None,
        fov: float | None = None,
        score: float = 0.0,
    ) -> Results3D:
        """3D boxes of 2D boxes that another detector found in an image, one each: ROI-10D's lifting.

        Args:
            boxes: ``Boxes2D.of(xyxy, classes, scores)``, pixels of the image; those of classes that the model does not know
                are left out, and the result's warnings count them.
            source: and the others as `detect`. Scores are those of the boxes times the method's confidence in the 3D box.

        Raises:
            InputError: for a method that does not lift boxes, and for images and cameras that cannot be used.
        """
        self._check_lifts(None)
        shot = replace(read_shot(source, CameraChoice.of(camera, calib, fov)), boxes=boxes)
        return self.detect_known([shot], score)[0]

    def _check_lifts(self, averaging: Averaging | None) -> None:
        if not self.detector.lifts:
            raise InputError(f"{self.name}: {self.detector.method} does not lift 2D boxes: roi10d does")
        if averaging is not None:
            raise InputError("zooms and flip: given 2D boxes are lifted in one view: leave these out")
        if self.backend != "torch":
            raise InputError(f"given 2D boxes are lifted by the backend torch, got {self.backend}")

    def _given(self, shot: Shot) -> tuple[GivenBoxes | None, tuple[str, ...]]:
        """An image's 2D boxes of the model's classes, and what to say about the others."""
        if shot.boxes is None:
            return None, ()
        kept, labels, said = shot.boxes.known(self.classes)
        return GivenBoxes(kept.boxes, labels, kept.scores), (said,) if said else ()

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
def detect(source: Several, camera: CameraLike | None = None, *, calib: str | Path | None = None,
           fov: float | None = None, score: float | None = None, model: str | Path | Model = "smoke",
           device: str = "auto",
           progress: Counted | None = None) -> list[Results3D]: ...  # fmt: skip
@overload
def detect(source: ImageLike, camera: CameraLike | None = None, *, calib: str | Path | None = None,
           fov: float | None = None, score: float | None = None, model: str | Path | Model = "smoke",
           device: str = "auto",
           progress: Counted | None = None) -> Results3D: ...  # fmt: skip
def detect(
    source: Any,
    camera: CameraLike | None = None,
    *,
    calib: str | Path | None = None,
    fov: float | None = None,
    score: float | None = None,
    model: str | Path | Model = "smoke",
    device: str = "auto",
    progress: Counted | None = None,
) -> Results3D | list[Results3D]:
    """``load(model, device).detect(source, camera, ...)`` in one call; to detect more than once load the model once."""
    loaded = model if isinstance(model, Model) else load(model, device)
    found: Results3D | list[Results3D] = loaded.detect(
        source, camera, calib=calib, fov=fov, score=score, progress=progress
    )
    return found
