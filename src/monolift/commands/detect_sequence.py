"""Files of a whole video or folder of frames: an annotated video, JSON lines, KITTI's tracking format."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monolift.errors import InputError
from monolift.files.folders import partial_file

if TYPE_CHECKING:
    from monolift.inference.results import Results3D

FORMATS = {
    "kitti": ".txt",
    "json": ".json",
    "image": ".png",
    "html": ".html",
    "glb": ".glb",
    "omni3d": ".omni3d.json",
}
SEQUENCE_FORMATS = {"video": ".mp4", "jsonl": ".jsonl", "tracking": ".txt"}


@dataclass(frozen=True)
class Save:
    """Output formats: of each image, of each frame of a video, of a whole video, and of a folder of frames as a whole."""

    images: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Save:
        """From --save; without it images become images and videos a video.

        Raises:
            InputError: for an unknown name, with the nearest known one.
        """
        if text is None:
            return cls(images=("image",), videos=("video",))
        names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
        known = FORMATS | SEQUENCE_FORMATS
        unknown = [name for name in names if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"--save: expected {', '.join(known)} or none, got {', '.join(unknown)}{hint}")
        single = tuple(dict.fromkeys(name for name in names if name in FORMATS))
        whole = tuple(dict.fromkeys(name for name in names if name in SEQUENCE_FORMATS))
        return cls(single, single, whole, whole)

    def __bool__(self) -> bool:
        return any((self.images, self.frames, self.videos, self.folders))

    @property
    def names(self) -> list[str]:
        """All formats, as they are noted for a resumed run."""
        return [*self.images, *self.folders] if self.images == self.frames else ["image"]


class SequenceWriter:
    """Writes one sequence frame by frame; its files appear when it is finished. No frame stays in memory."""

    def __init__(
        self, folder: Path, stem: str, formats: Sequence[str], fps: float, predicted: bool = False
    ) -> None:
        """Opens the files.

        Args:
            folder: output folder.
            stem: name of the files, without suffix.
            formats: keys of SEQUENCE_FORMATS.
            fps: of the video; times that results state take precedence.
            predicted: JSON lines have the predicted parameters of each object.
        """
        self.formats, self.predicted = formats, predicted
        self._open = contextlib.ExitStack()
        self._first: float | None = None
        self._texts: dict[str, Any] = {}
        with contextlib.ExitStack() as failing:
            failing.push(self._open)
            if "video" in formats:
                from monolift.inference.video import open_video

                self._video = self._open.enter_context(open_video(folder / f"{stem}.mp4", fps))
            for kind in ("jsonl", "tracking"):
                if kind in formats:
                    target = folder / (stem + SEQUENCE_FORMATS[kind])
                    partial = self._open.enter_context(partial_file(target, parents=True))
                    self._texts[kind] = self._open.enter_context(
                        partial.open("w", encoding="utf-8", errors="surrogatepass", newline="\n")
                    )
            failing.pop_all()

    def add(self, result: Results3D) -> None:
        """The next frame."""
        if "video" in self.formats:
            if self._first is None:
                self._first = result.time
            since = None if result.time is None or self._first is None else result.time - self._first
            self._video.add(result.plot(steady=True), since)
        if "jsonl" in self.formats:
            row = json.dumps(result.to_dict(self.predicted), ensure_ascii=False, allow_nan=False)
            self._texts["jsonl"].write(row + "\n")
        if "tracking" in self.formats:
            self._texts["tracking"].write(result.to_kitti_tracking())

    def finish(self) -> int:
        """The files take their names; returns how many."""
        self._open.close()
        return len(self.formats)

    def discard(self, error: BaseException) -> None:
        """Nothing of the sequence stays."""
        with contextlib.suppress(BaseException):
            self._open.__exit__(type(error), error, error.__traceback__)
